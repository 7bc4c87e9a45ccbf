//! A token, spoken to from this process: for the worker, for `hsm probe`, and for the suite. Never for the vault itself.
//!
//! Keys are found by their id, so nothing is kept beside the token. Those of others may have an id of any length, or a label
//! alone: they are listed and used like ours, and never destroyed. A key that the token would give away is refused.
//!
//! LAW: what is made, or found again as made, is known nowhere but in the token
//! (`a_key_that_was_brought_into_the_token_is_never_found_again_as_one_that_was_made_there`).

mod errors;
mod open;
mod wrapping;

pub(crate) use errors::{blame, blame_decrypting};
pub use wrapping::mechanism_of;

use crate::port::{KeyError, KeyId, KeyPort, Purpose};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::{Mechanism, MechanismInfo, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::Slot;
use holdfast_types::sha256;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The curve P-256 as a token names it: the DER of its object identifier (1.2.840.10045.3.1.7).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// A token with one session that is logged in.
pub struct Token {
    open: Mutex<Open>,
    said: Said,
}

/// What module and token say of themselves.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub module: PathBuf,
    pub library: String,
    pub token: String,
    pub slot: u64,
}

/// The session, and what was found in it. Handles are good as long as the session is.
struct Open {
    pkcs11: Pkcs11,
    session: Session,
    slot: Slot,
    private: BTreeMap<KeyId, ObjectHandle>,
    /// What the token knows those keys by whose id is not of our length; `None`: it was not looked through yet.
    others: Option<BTreeMap<KeyId, Attribute>>,
    /// The wrapping keys that were found or made.
    wrapping: BTreeMap<KeyId, wrapping::Key>,
}

impl Token {
    /// Whether the session is there and logged in.
    pub fn check(&self) -> Result<(), KeyError> {
        let open = self.lock();
        // Asked also of a session that is logged in: whether the token itself is there.
        open.pkcs11.get_token_info(open.slot).map_err(|e| blame(&e))?;
        open.logged_in()
    }
    /// An ASN.1 DER ECDSA signature over this SHA-256 digest.
    pub fn sign_digest(&self, id: &KeyId, digest: &[u8; 32]) -> Result<Vec<u8>, KeyError> {
        let mut open = self.lock();
        let key = open.private(id)?;
        let raw = open.session.sign(&Mechanism::Ecdsa, key, digest).map_err(|e| {
            open.private.remove(id);
            blame(&e)
        })?;
        ecdsa_der(&raw).ok_or_else(|| KeyError::Corrupt(format!("the token's signature by {id} is not one of P-256")))
    }
    pub(crate) fn said(&self) -> &Said {
        &self.said
    }
    /// A thread that panicked left at most handles out.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Whether the token shows this session what is private.
    fn logged_in(&self) -> Result<(), KeyError> {
        let state = self.session.get_session_info().map_err(|e| blame(&e))?.session_state();
        if state == SessionState::RwUser
            || !self.pkcs11.get_token_info(self.slot).map_err(|e| blame(&e))?.login_required()
        {
            Ok(())
        } else {
            Err(KeyError::Unavailable("the token has logged the session out".to_owned()))
        }
    }
    /// The objects that fit. A token that has logged the session out hides private keys without a word, and a key that is
    /// hidden must not be taken for one that is not there: so it is asked afterwards.
    fn find(&self, template: &[Attribute]) -> Result<Vec<ObjectHandle>, KeyError> {
        let found = self.session.find_objects(template).map_err(|e| blame(&e))?;
        self.logged_in().map(|()| found)
    }
    fn of_class(&self, class: ObjectClass, kind: KeyType, id: &KeyId) -> Result<Vec<ObjectHandle>, KeyError> {
        self.find(&[
            Attribute::Token(true),
            Attribute::Class(class),
            Attribute::KeyType(kind),
            Attribute::Id(id.0.to_vec()),
        ])
    }
    /// The keys of this id, or else those of others that are spoken of by it.
    fn spoken_of(&mut self, class: ObjectClass, id: &KeyId) -> Result<Vec<ObjectHandle>, KeyError> {
        let own = self.of_class(class, KeyType::EC, id)?;
        if !own.is_empty() {
            return Ok(own);
        }
        if self.others.is_none() {
            self.look_through()?;
        }
        let Some(name) = self.others.as_ref().and_then(|others| others.get(id)).cloned() else { return Ok(own) };
        self.find(&[Attribute::Token(true), Attribute::Class(class), Attribute::KeyType(KeyType::EC), name])
    }
    /// Every private key, by the id by which it is spoken of.
    fn look_through(&mut self) -> Result<Vec<KeyId>, KeyError> {
        let keys = self.find(&[
            Attribute::Token(true),
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(KeyType::EC),
        ])?;
        let (mut ids, mut others) = (Vec::with_capacity(keys.len()), BTreeMap::new());
        for key in keys {
            let asked = [AttributeType::Id, AttributeType::Label];
            let (mut id, mut label) = (Vec::new(), Vec::new());
            for said in self.session.get_attributes(key, &asked).map_err(|e| blame(&e))? {
                if let Attribute::Id(named) = said {
                    id = named;
                } else if let Attribute::Label(named) = said {
                    label = named;
                }
            }
            let Some(spoken) = KeyId::of_others(&id, &label) else { continue };
            ids.push(spoken);
            if id != spoken.0 {
                others.insert(spoken, if id.is_empty() { Attribute::Label(label) } else { Attribute::Id(id) });
            }
        }
        self.others = Some(others);
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
    /// The only private key of this id. Two of one id are told apart by nothing: neither is used.
    fn private(&mut self, id: &KeyId) -> Result<ObjectHandle, KeyError> {
        if let Some(key) = self.private.get(id) {
            return Ok(*key);
        }
        let found = self.spoken_of(ObjectClass::PRIVATE_KEY, id)?;
        let key = match found.as_slice() {
            [] => return Err(KeyError::NotFound(*id)),
            [key] => *key,
            _ => return Err(KeyError::Refused(format!("the token holds several keys {id}"))),
        };
        self.kept(key, id)?;
        self.private.insert(*id, key);
        Ok(key)
    }
    /// That the token will not give this key away.
    fn kept(&self, key: ObjectHandle, id: &KeyId) -> Result<(), KeyError> {
        let asked = [AttributeType::Sensitive, AttributeType::Extractable];
        let said = self.session.get_attributes(key, &asked).map_err(|e| blame(&e))?;
        let kept = said.contains(&Attribute::Sensitive(true)) && said.contains(&Attribute::Extractable(false));
        if kept { Ok(()) } else { Err(KeyError::Refused(format!("the token would give the key {id} away"))) }
    }
    /// That nobody knows this key from elsewhere: names of ours are known before their keys are made, and whoever may use the token
    /// may bring in a key of such a name. What was brought in, whatever it says of itself, never says these two (PKCS#11,
    /// `C_CreateObject`, `C_UnwrapKey`). `CKA_LOCAL` is not asked for: NSS denies it of what it made.
    fn only_here(&self, key: ObjectHandle, id: &KeyId) -> Result<(), KeyError> {
        let asked = [AttributeType::AlwaysSensitive, AttributeType::NeverExtractable];
        let said = self.session.get_attributes(key, &asked).map_err(|e| blame(&e))?;
        let always =
            said.contains(&Attribute::AlwaysSensitive(true)) && said.contains(&Attribute::NeverExtractable(true));
        if always { Ok(()) } else { Err(KeyError::Refused(format!("the key {id} may be known outside of the token"))) }
    }
    fn public(&mut self, id: &KeyId) -> Result<Vec<u8>, KeyError> {
        let found = self.spoken_of(ObjectClass::PUBLIC_KEY, id)?;
        let corrupt = || KeyError::Corrupt(format!("the token has no readable public key beside the key {id}"));
        let key = found.first().ok_or_else(corrupt)?;
        let said = self.session.get_attributes(*key, &[AttributeType::EcPoint]).map_err(|e| blame(&e))?;
        let point = said.into_iter().find_map(|a| if let Attribute::EcPoint(point) = a { Some(point) } else { None });
        sec1(&point.ok_or_else(corrupt)?).ok_or_else(corrupt)
    }
    fn make(&self, purpose: Purpose, id: &KeyId) -> Result<(), KeyError> {
        self.must_have(MechanismType::ECC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN", MechanismInfo::generate_key_pair)?;
        self.must_have(MechanismType::ECDSA, "CKM_ECDSA", MechanismInfo::sign)?;
        // A public key alone is what is left of a generation or destruction that was cut short.
        for half in self.of_class(ObjectClass::PUBLIC_KEY, KeyType::EC, id)? {
            self.session.destroy_object(half).map_err(|e| blame(&e))?;
        }
        let label = format!("holdfast {} {id}", purpose.as_str()).into_bytes();
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::EcParams(P256.to_vec()),
            Attribute::Id(id.0.to_vec()),
            Attribute::Label(label.clone()),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Id(id.0.to_vec()),
            Attribute::Label(label),
        ];
        let made = self.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
        let (public, private) = made.map_err(|e| blame(&e))?;
        self.kept(private, id).and_then(|()| self.only_here(private, id)).inspect_err(|_| {
            drop(self.session.destroy_object(private));
            drop(self.session.destroy_object(public));
        })
    }
    /// That the token says it has this mechanism: found out before a key is made that could do nothing.
    fn must_have(
        &self,
        mechanism: MechanismType,
        name: &str,
        does: fn(&MechanismInfo) -> bool,
    ) -> Result<(), KeyError> {
        match self.pkcs11.get_mechanism_info(self.slot, mechanism) {
            Ok(info) if does(&info) => Ok(()),
            Ok(_) | Err(Error::Pkcs11(RvError::MechanismInvalid, _)) => {
                Err(KeyError::Refused(format!("the token has no {name}, which a key on P-256 needs")))
            }
            Err(e) => Err(blame(&e)),
        }
    }
    /// What the token says that a mechanism can do; `None` if it does not have it.
    fn mechanism(&self, mechanism: MechanismType) -> Option<MechanismInfo> {
        self.pkcs11.get_mechanism_info(self.slot, mechanism).ok()
    }
}

impl KeyPort for Token {
    fn generate(&self, purpose: Purpose, name: &[u8]) -> Result<KeyId, KeyError> {
        let id = KeyId::of(purpose, name);
        let mut open = self.lock();
        let mut found = open.private(&id);
        if matches!(found, Err(KeyError::NotFound(_))) {
            open.make(purpose, &id)?;
            // Finds also that somebody else made one at the same time.
            found = open.private(&id);
        }
        // Operators' own keys come by their certificates, and never by this.
        open.only_here(found?, &id).map(|()| id)
    }
    fn public(&self, id: &KeyId) -> Result<Vec<u8>, KeyError> {
        let mut open = self.lock();
        open.private(id)?;
        open.public(id)
    }
    fn sign_p256(&self, id: &KeyId, msg: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sign_digest(id, &sha256(&[msg]).0)
    }
    fn destroy(&self, id: &KeyId) -> Result<(), KeyError> {
        let mut open = self.lock();
        open.private.remove(id);
        open.wrapping.remove(id);
        // The private key first: a public key alone is destroyed by the next call.
        let of_pairs = [KeyType::EC, KeyType::RSA];
        let pairs = of_pairs.into_iter().flat_map(|k| [(ObjectClass::PRIVATE_KEY, k), (ObjectClass::PUBLIC_KEY, k)]);
        for (class, kind) in pairs.chain([(ObjectClass::SECRET_KEY, KeyType::AES)]) {
            for key in open.of_class(class, kind, id)? {
                open.session.destroy_object(key).map_err(|e| blame(&e))?;
            }
        }
        Ok(())
    }
    fn list(&self) -> Result<Vec<KeyId>, KeyError> {
        self.lock().look_through()
    }
}

/// `CKA_EC_POINT` as an uncompressed SEC1 point. The standard wants it inside a DER OCTET STRING; some give it bare.
fn sec1(point: &[u8]) -> Option<Vec<u8>> {
    let bare = if let [0x04, 0x41, rest @ ..] = point { if rest.len() == 65 { rest } else { point } } else { point };
    (bare.len() == 65 && bare.first() == Some(&4)).then(|| bare.to_vec())
}

/// `r ‖ s` of 32 bytes each as `SEQUENCE { INTEGER r, INTEGER s }` (RFC 3279, 2.2.3).
fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(32).filter(|(_, s)| s.len() == 32)?;
    let mut body = Vec::with_capacity(70);
    for half in [r, s] {
        let start = half.iter().position(|b| *b != 0)?;
        let digits = half.get(start..)?;
        let positive = digits.first().is_some_and(|b| b & 0x80 != 0);
        body.extend([2, u8::try_from(digits.len()).ok()? + u8::from(positive)]);
        body.extend(positive.then_some(0));
        body.extend(digits);
    }
    let mut der = vec![0x30, u8::try_from(body.len()).ok()?];
    der.append(&mut body);
    Some(der)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("said", &self.said).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_encoded_with_the_shortest_positive_numbers() {
        let mut raw = [0_u8; 64];
        raw[31] = 1;
        raw[63] = 0x80;
        assert_eq!(ecdsa_der(&raw).unwrap(), [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        assert_eq!(ecdsa_der(&[0xff; 64]).unwrap().len(), 72);
        assert_eq!(ecdsa_der(&[0; 64]), None, "zero is no signature");
        assert_eq!(ecdsa_der(&[1; 63]), None);
        assert_eq!(ecdsa_der(&[1; 65]), None);
    }

    #[test]
    fn a_point_is_read_in_both_of_its_forms() {
        let mut bare = vec![4; 65];
        assert_eq!(sec1(&bare).unwrap(), bare);
        // One that begins as the other form would.
        bare[1] = 0x41;
        assert_eq!(sec1(&bare).unwrap(), bare);
        let mut inside = vec![4, 0x41];
        inside.extend(&bare);
        assert_eq!(sec1(&inside).unwrap(), bare);
        assert_eq!(sec1(&[2; 33]), None);
    }
}
