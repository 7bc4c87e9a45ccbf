//! Encrypting small values under a key that never leaves the token: by AES-GCM, else AES key wrap with padding, else RSA-OAEP.
//!
//! Which of them a token has is asked when a wrapping key is made; an existing key says it by its kind.
//! STORED: the first byte of a wrapped value is the mechanism. What binds no `aad` by itself has random bytes and its digest in
//! front of the value.

use super::{Open, Token, blame, blame_decrypting};
use crate::message::LONGEST_WRAPPED;
use crate::port::{KeyError, KeyId, Wraps};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use holdfast_types::{SecretBytes, sha256};
use zeroize::Zeroizing;

const GCM: u8 = 1;
const KEY_WRAP: u8 = 2;
const OAEP_SHA256: u8 = 3;
const OAEP_SHA1: u8 = 4;

const IV: usize = 12;
const NONCE: usize = 16;
const RSA_BITS: u64 = 3072;

/// A wrapping key as it lies in the token.
#[derive(Clone, Copy)]
pub(super) enum Key {
    /// AES, 256 bits.
    Aes(ObjectHandle),
    /// RSA.
    Rsa { public: ObjectHandle, private: ObjectHandle },
}

impl Open {
    fn wrapping_key(&mut self, id: &KeyId) -> Result<Option<Key>, KeyError> {
        if let Some(key) = self.wrapping.get(id) {
            return Ok(Some(*key));
        }
        let aes = self.of_class(ObjectClass::SECRET_KEY, KeyType::AES, id)?;
        let public = self.of_class(ObjectClass::PUBLIC_KEY, KeyType::RSA, id)?;
        let private = self.of_class(ObjectClass::PRIVATE_KEY, KeyType::RSA, id)?;
        let key = match (aes.as_slice(), public.as_slice(), private.as_slice()) {
            ([], _, []) => return Ok(None),
            ([aes], _, []) => Key::Aes(*aes),
            ([], [public], [private]) => Key::Rsa { public: *public, private: *private },
            _ => return Err(KeyError::Refused(format!("the token holds several wrapping keys {id}"))),
        };
        let held = match key {
            Key::Aes(aes) => aes,
            Key::Rsa { private, .. } => private,
        };
        self.kept(held, id)?;
        self.wrapping.insert(*id, key);
        Ok(Some(key))
    }
    /// Makes the best wrapping key that this token can use.
    fn make_wrapping_key(&mut self, id: &KeyId, label: &str) -> Result<Key, KeyError> {
        let label = format!("holdfast wrap {label}").into_bytes();
        let common = |more: Vec<Attribute>| {
            let mut all = vec![
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Decrypt(true),
                Attribute::Id(id.0.to_vec()),
                Attribute::Label(label.clone()),
            ];
            all.extend(more);
            all
        };
        if !self.ciphers().is_empty() {
            let template = common(vec![Attribute::Encrypt(true), Attribute::ValueLen(32.into())]);
            self.session.generate_key(&Mechanism::AesKeyGen, &template).map_err(|e| blame(&e))?;
        } else if self.mechanism(MechanismType::RSA_PKCS_OAEP).is_some_and(|m| m.encrypt() && m.decrypt()) {
            let public = [
                Attribute::Token(true),
                Attribute::Private(false),
                Attribute::Encrypt(true),
                Attribute::ModulusBits(RSA_BITS.into()),
                Attribute::PublicExponent(vec![1, 0, 1]),
                Attribute::Id(id.0.to_vec()),
                Attribute::Label(label.clone()),
            ];
            let private = common(Vec::new());
            let made = self.session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private);
            made.map_err(|e| blame(&e))?;
        } else {
            return Err(KeyError::Refused(
                "the token can encrypt by none of AES-GCM, AES key wrap and RSA-OAEP".to_owned(),
            ));
        }
        let made = self.wrapping_key(id)?;
        made.ok_or_else(|| {
            KeyError::Corrupt("the token does not find the wrapping key that it has just made".to_owned())
        })
    }
    /// What the token says that it can do with an AES key, the best first.
    fn ciphers(&self) -> Vec<u8> {
        let both = |m| self.mechanism(m).is_some_and(|m| m.encrypt() && m.decrypt());
        let known = [(GCM, MechanismType::AES_GCM), (KEY_WRAP, MechanismType::AES_KEY_WRAP_PAD)];
        known.into_iter().filter(|(_, m)| both(*m)).map(|(tag, _)| tag).collect()
    }
    /// A session for one operation: what fails may leave its own in the midst of it.
    fn another(&self) -> Result<Session, KeyError> {
        self.pkcs11.open_ro_session(self.slot).map_err(|e| blame(&e))
    }
    /// By the first mechanism that works. A token may list one that it cannot be got to use: NSS counts the tag of GCM wrongly,
    /// SoftHSM has OAEP with SHA-1 only (whose weakness does not matter there: RFC 8017, 7.1).
    fn seal(&self, key: Key, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (tags, key) = match key {
            Key::Aes(aes) => (self.ciphers(), aes),
            Key::Rsa { public, .. } => (vec![OAEP_SHA256, OAEP_SHA1], public),
        };
        let mut sealed = Err(KeyError::Refused("the token can use its wrapping key no longer".to_owned()));
        for tag in tags {
            sealed = self.seal_by(tag, key, plain, aad);
            if !matches!(sealed, Err(KeyError::Refused(_))) {
                break;
            }
        }
        sealed
    }
    fn seal_by(&self, tag: u8, key: ObjectHandle, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        let session = self.another()?;
        if tag == GCM {
            let mut iv = random::<IV>()?;
            let sealed = {
                let params = GcmParams::new(&mut iv, aad, 128.into()).map_err(|e| blame(&e))?;
                session.encrypt(&Mechanism::AesGcm(params), key, plain).map_err(|e| blame(&e))?
            };
            // Read only now: some tokens put an IV of their own in its place.
            return Ok([&[GCM][..], &iv, &sealed].concat());
        }
        let mechanism = if tag == KEY_WRAP { Mechanism::AesKeyWrapPad } else { oaep(tag) };
        // Key wrap alone would give the same for the same.
        let bound = Zeroizing::new([&random::<NONCE>()?[..], &sha256(&[aad]).0, plain].concat());
        let sealed = session.encrypt(&mechanism, key, &bound).map_err(|e| blame(&e))?;
        Ok([&[tag][..], &sealed].concat())
    }
    fn opened(&self, key: Key, blob: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let altered = || KeyError::Corrupt("what was wrapped was altered, or belongs elsewhere".to_owned());
        let (tag, sealed) = blob.split_first().ok_or_else(altered)?;
        let session = self.another()?;
        let (mechanism, key) = match (*tag, key) {
            (GCM, Key::Aes(aes)) => {
                let (iv, sealed) = sealed.split_at_checked(IV).ok_or_else(altered)?;
                let mut iv = iv.to_vec();
                let params = GcmParams::new(&mut iv, aad, 128.into()).map_err(|e| blame(&e))?;
                let plain = session.decrypt(&Mechanism::AesGcm(params), aes, sealed);
                return plain.map(Zeroizing::new).map_err(|e| blame_decrypting(&e));
            }
            (KEY_WRAP, Key::Aes(aes)) => (Mechanism::AesKeyWrapPad, aes),
            (OAEP_SHA256 | OAEP_SHA1, Key::Rsa { private, .. }) => (oaep(*tag), private),
            _ => return Err(altered()),
        };
        let bound = Zeroizing::new(session.decrypt(&mechanism, key, sealed).map_err(|e| blame_decrypting(&e))?);
        let (_, bound) = bound.split_at_checked(NONCE).ok_or_else(altered)?;
        let (digest, plain) = bound.split_at_checked(32).ok_or_else(altered)?;
        verify_slices_are_equal(digest, &sha256(&[aad]).0).map_err(|_| altered())?;
        Ok(Zeroizing::new(plain.to_vec()))
    }
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    let nothing = |_| KeyError::Unavailable("the system gave no randomness".to_owned());
    aws_lc_rs::rand::fill(&mut bytes).map_err(nothing)?;
    Ok(bytes)
}

fn oaep(tag: u8) -> Mechanism<'static> {
    let (hash, mask) = if tag == OAEP_SHA1 {
        (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1)
    } else {
        (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256)
    };
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mask, PkcsOaepSource::empty()))
}

impl Wraps for Token {
    fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        if plain.len() > LONGEST_WRAPPED {
            return Err(KeyError::Refused(format!("what is to be wrapped is over {LONGEST_WRAPPED} bytes")));
        }
        let id = KeyId::wrapping(label);
        let mut open = self.lock();
        let key = match open.wrapping_key(&id)? {
            Some(key) => key,
            None => open.make_wrapping_key(&id, label)?,
        };
        let blob = open.seal(key, plain, aad)?;
        // What cannot be unwrapped must not be relied on: found out now, and not when a voter is to be opened.
        let again = open.opened(key, &blob, aad)?;
        verify_slices_are_equal(&again, plain)
            .map_err(|_| KeyError::Corrupt("the token does not unwrap what it has wrapped".to_owned()))?;
        Ok(blob)
    }
    fn unwrap(&self, label: &str, blob: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError> {
        let id = KeyId::wrapping(label);
        let mut open = self.lock();
        let key = open.wrapping_key(&id)?.ok_or(KeyError::NotFound(id))?;
        open.opened(key, blob, aad).map(|plain| SecretBytes::new(plain.to_vec()))
    }
}

/// The mechanism of a wrapped value, for people.
pub fn mechanism_of(blob: &[u8]) -> &'static str {
    match blob.first().copied() {
        Some(GCM) => "AES-GCM",
        Some(KEY_WRAP) => "AES key wrap",
        Some(OAEP_SHA256) => "RSA-OAEP with SHA-256",
        Some(OAEP_SHA1) => "RSA-OAEP with SHA-1",
        _ => "unknown",
    }
}
