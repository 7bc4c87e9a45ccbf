//! The keys that an unlocked voter works with: the opened keyring, the signers behind the key port, the statement key.

use crate::disk::ident::Ident;
use crate::hsm::Token;
use holdfast_hsm::{KeyError, KeyId, KeyPort, Purpose, SoftwareKeys};
use holdfast_pki::bundle::sec1_of_cert;
use holdfast_pki::issue::IssuerCa;
use holdfast_pki::keys::CertSigner;
use holdfast_transport::failure::Failure;
use holdfast_types::{Digest, Millis, Secret, SecretBytes, VoterId, kind};
use holdfast_vault_core::prepare::AtRest;
use holdfast_vault_core::{CaKey, Keyring, RootRow, State};
use holdfast_wire::boxes::{PrivateKey, derive_keypair};
use holdfast_wire::keys::{ALG_P256, Ed25519Key, SignError, verify};
use holdfast_wire::v1;
use std::sync::{Arc, OnceLock};

/// Signed by a key in a token before it is certified: no beginning of anything else that a CA signs.
const PAIR: &[u8] = b"holdfast: one pair";

/// A key of a port as a signer of certificates: in this process' memory or in a token. It may take as long as a token takes.
pub struct PortSigner {
    port: Arc<dyn KeyPort>,
    id: KeyId,
    sec1: Vec<u8>,
    /// Where it was found: whoever made it in a token himself gave it an id of his own.
    found: OnceLock<KeyId>,
}
impl PortSigner {
    /// The key `id` of `port`.
    pub fn new<P: KeyPort + 'static>(port: &Arc<P>, id: KeyId) -> Result<Self, KeyError> {
        Self::of(Arc::clone(port) as Arc<dyn KeyPort>, id)
    }
    /// The same of whichever port.
    pub fn of(port: Arc<dyn KeyPort>, id: KeyId) -> Result<Self, KeyError> {
        let sec1 = port.public(&id)?;
        Ok(Self { port, id, sec1, found: OnceLock::new() })
    }
    /// The key `id` of `port`, or whichever there belongs to this certificate: the port is not asked before something is to be
    /// signed.
    pub fn of_certificate(port: Arc<dyn KeyPort>, id: KeyId, der: &[u8]) -> Result<Self, Failure> {
        let sec1 = sec1_of_cert(der).ok_or_else(corrupt("CA certificate"))?;
        Ok(Self { port, id, sec1, found: OnceLock::new() })
    }
    /// Whether the key can be used now.
    pub fn answers(&self) -> Result<(), KeyError> {
        self.call(|id| self.port.public(id)).map(drop)
    }
    /// That the public half which lies beside the key is its own. Whoever may write to a token may lay another there, and a
    /// certificate for it would be his.
    fn is_a_pair(&self) -> Result<(), KeyError> {
        let signature = self.port.sign_p256(&self.id, PAIR)?;
        let public = v1::PublicKey { alg: ALG_P256, key: self.sec1.clone() };
        if verify(&public, PAIR, &signature) {
            return Ok(());
        }
        Err(KeyError::Corrupt(format!("the public key beside the key {} is not its own", self.id)))
    }
    fn call<T>(&self, call: impl Fn(&KeyId) -> Result<T, KeyError>) -> Result<T, KeyError> {
        match call(self.found.get().unwrap_or(&self.id)) {
            Err(KeyError::NotFound(id)) => {
                let found = find(&*self.port, &self.sec1)?.ok_or(KeyError::NotFound(id))?;
                call(self.found.get_or_init(|| found))
            }
            done => done,
        }
    }
}
impl CertSigner for PortSigner {
    fn sec1(&self) -> Vec<u8> {
        self.sec1.clone()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        self.call(|id| self.port.sign_p256(id, msg)).map_err(|e| SignError(e.to_string()))
    }
}

/// The key with this public half.
fn find(port: &dyn KeyPort, sec1: &[u8]) -> Result<Option<KeyId>, KeyError> {
    for id in port.list()? {
        match port.public(&id) {
            Ok(public) if public == sec1 => return Ok(Some(id)),
            // Others' keys lie in a token too, and are none of ours to judge.
            Ok(_) | Err(KeyError::NotFound(_) | KeyError::Refused(_) | KeyError::Corrupt(_)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// A CA key of the cluster's own: made, or found if it was made before.
pub struct NewKey {
    /// Signs with it.
    pub signer: PortSigner,
    /// To be sealed; `None`: it stays in the token.
    pkcs8: Option<SecretBytes>,
}
impl NewKey {
    /// In `token`, or else in `port`, which is memory.
    pub fn make(
        port: &Arc<SoftwareKeys>,
        token: Option<Arc<dyn KeyPort>>,
        purpose: Purpose,
        name: &str,
    ) -> Result<Self, KeyError> {
        let name = name.as_bytes();
        if let Some(token) = token {
            let id = token.generate(purpose, name)?;
            let signer = PortSigner::of(token, id)?;
            // A root signs itself.
            if purpose == Purpose::Issuer {
                signer.is_a_pair()?;
            }
            return Ok(Self { signer, pkcs8: None });
        }
        let id = port.generate(purpose, name)?;
        Ok(Self { signer: PortSigner::new(port, id)?, pkcs8: Some(port.export(&id)?) })
    }
    /// Where it rests.
    pub fn rests(&self) -> AtRest<'_> {
        self.pkcs8.as_ref().map_or(AtRest::Token, AtRest::Sealed)
    }
}

/// Everything that is opened while the voter is unlocked.
pub struct Opened {
    /// The keyring.
    pub keyring: Keyring,
    /// Every trusted root, by the hash of its certificate.
    trusted: Vec<Digest>,
    /// Those whose keys can be used here.
    pub roots: Vec<(Digest, PortSigner)>,
    /// The one of them that signs, if it can be used here.
    pub signing: Option<Digest>,
    /// The issuer.
    pub issuer: IssuerCa<PortSigner>,
    /// The statement key in use.
    pub stk: Ed25519Key,
    /// Where CA keys live that are sealed under the keyring.
    pub port: Arc<SoftwareKeys>,
    /// Where the others live.
    pub token: Option<Arc<dyn KeyPort>>,
    /// Issuers' keys are made there too.
    pub issuers_in_token: bool,
}
impl Opened {
    /// The signing root. Its key may be in a token that this voter has none of, or outside the cluster.
    pub fn root(&self) -> Result<&PortSigner, Failure> {
        let signing = self.roots.iter().find(|(sha256, _)| Some(*sha256) == self.signing);
        signing.map(|(_, signer)| signer).ok_or_else(|| {
            Failure::unavailable("unavailable", "the key of the root that signs cannot be used on this voter")
                .help("see holdfast root status")
        })
    }
    /// Whether this is what `state` says: its roots and its issuer.
    pub fn fits(&self, state: &State) -> bool {
        state.issuer().is_some_and(|i| i.der == self.issuer.der())
            && self.trusted.iter().copied().eq(state.roots().iter().map(RootRow::sha256))
            && self.keyring.active() == state.active_term()
    }
    /// The port that keeps `key`, and its id there; `None` if neither does.
    pub fn place(&self, purpose: Purpose, key: &CaKey) -> Option<(Arc<dyn KeyPort>, KeyId)> {
        place(&self.port, self.token.as_ref(), purpose, key)
    }
}

/// In the place of a port that cannot be asked: each call says why.
pub struct Absent(pub &'static str);

impl Absent {
    fn says<T>(&self) -> Result<T, KeyError> {
        Err(KeyError::Unavailable(self.0.to_owned()))
    }
}
impl KeyPort for Absent {
    fn generate(&self, _: Purpose, _: &[u8]) -> Result<KeyId, KeyError> {
        self.says()
    }
    fn public(&self, _: &KeyId) -> Result<Vec<u8>, KeyError> {
        self.says()
    }
    fn sign_p256(&self, _: &KeyId, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.says()
    }
    fn destroy(&self, _: &KeyId) -> Result<(), KeyError> {
        self.says()
    }
    fn list(&self) -> Result<Vec<KeyId>, KeyError> {
        self.says()
    }
}

/// What a voter without a token says of keys that are in one: they are somewhere, and not here.
const NO_TOKEN: &str = "no token is configured for this voter";

fn place(
    port: &Arc<SoftwareKeys>,
    token: Option<&Arc<dyn KeyPort>>,
    purpose: Purpose,
    key: &CaKey,
) -> Option<(Arc<dyn KeyPort>, KeyId)> {
    match key {
        CaKey::Sealed(k) => Some((Arc::clone(port) as Arc<dyn KeyPort>, KeyId::of(purpose, k.name.as_bytes()))),
        CaKey::Token(name) => token.map(|t| (Arc::clone(t), KeyId::of(purpose, name.as_bytes()))),
        CaKey::Offline => None,
    }
}

/// 32 fresh random bytes from the system.
pub fn random32() -> Result<[u8; 32], Failure> {
    let mut b = [0; 32];
    getrandom::fill(&mut b).map_err(|_| Failure::failed("no-entropy", "the system gives no random bytes"))?;
    Ok(b)
}

fn corrupt(what: &'static str) -> impl Fn() -> Failure {
    move || Failure::failed("corrupt", format!("the {what} of this vault cannot be opened")).help(crate::failure::WHOLE)
}

/// The private half of the KEM key that the cluster knows: the one in use, or the next one if it was taken already.
fn kem_of(ident: &Ident, known: &[u8; 32]) -> Option<PrivateKey> {
    let both = std::iter::once(&ident.kem_ikm).chain(&ident.next_kem_ikm);
    let mut pairs = both.map(|ikm| derive_keypair(ikm.expose()));
    pairs.find_map(|(private, public)| (public == *known).then_some(private))
}

/// A term of the keyring with its number.
pub type Term = (u32, Secret<kind::KeyringTerm, 32>);

/// Opens every live term that is boxed to the voter.
pub fn terms(state: &State, ident: &Ident, voter: VoterId) -> Result<Vec<Term>, Failure> {
    let cluster = state.cluster_id().ok_or_else(corrupt("founding"))?;
    let row = state.voter(voter).ok_or_else(corrupt("voter row"))?;
    let kem = kem_of(ident, &row.kem_pk).ok_or_else(corrupt("KEM key"))?;
    let open = |(term, sealed): &(u32, Vec<u8>)| {
        let key = Keyring::open_term(&cluster, &kem, *term, voter.0, row.kem_gen, sealed);
        key.map(|key| (*term, key)).map_err(crate::failure::refused)
    };
    row.terms.iter().map(open).collect()
}

/// Opens every live term of the keyring with the voter's KEM key, and with the keyring everything sealed under it. Keys in
/// `token` are not asked for: a voter opens whatever its token does.
pub fn open(
    state: &State,
    ident: &Ident,
    voter: VoterId,
    now: Millis,
    token: Option<&Arc<Token>>,
) -> Result<Opened, Failure> {
    let issuers_in_token = token.is_some_and(|t| t.makes_issuers());
    let token = token.map(|t| Arc::clone(t) as Arc<dyn KeyPort>);
    let cluster = state.cluster_id().ok_or_else(corrupt("founding"))?;
    let active = state.active_term();
    let terms = terms(state, ident, voter)?;
    if !terms.iter().any(|(term, _)| *term == active) {
        return Err(corrupt("keyring box")());
    }
    let keyring = Keyring::open_all(cluster, Secret::take(&mut random32()?), terms, active);
    let port = Arc::new(SoftwareKeys::new());
    let signer = |purpose: Purpose, key: &CaKey, der: &[u8]| {
        let failed = |e: KeyError| Failure::failed("key-port", e.to_string());
        if let Some(sealed) = key.sealed() {
            let pkcs8 = keyring.open("ca", &sealed.name, 1, &sealed.record).map_err(crate::failure::refused)?;
            port.import(purpose, sealed.name.as_bytes(), &pkcs8).map_err(failed)?;
        }
        let Some((at, id)) = place(&port, token.as_ref(), purpose, key) else { return Ok(None) };
        PortSigner::of_certificate(at, id, der).map(Some)
    };
    let (trusted, mut roots) = (state.roots().iter().map(RootRow::sha256).collect(), Vec::new());
    for row in state.roots() {
        roots.extend(signer(Purpose::Root, &row.key, &row.der)?.map(|s| (row.sha256(), s)));
    }
    let signing = state.signing_root_sha256().ok_or_else(corrupt("root"))?;
    let signing = Some(signing).filter(|s| roots.iter().any(|(sha256, _)| sha256 == s));
    let row = state.issuer().ok_or_else(corrupt("issuer"))?;
    // A voter opens and follows also where it could not sign a leaf.
    let issuer = match signer(Purpose::Issuer, &row.key, &row.der)? {
        Some(issuer) => issuer,
        None => PortSigner::of_certificate(Arc::new(Absent(NO_TOKEN)), KeyId([0; 16]), &row.der)?,
    };
    let issuer = IssuerCa::open(&row.der, issuer).map_err(|e| Failure::failed("key-port", e.to_string()))?;
    // After a long rest none may be in its window: the newest opens the vault, and is replaced before anything is signed.
    let stk = state.stk(now).or(state.newest_stk()).ok_or_else(corrupt("statement key"))?;
    let seed = keyring.open("stk", &stk.key.name, 1, &stk.key.record).map_err(crate::failure::refused)?;
    let stk = Ed25519Key::from_seed(Secret::from_slice(seed.expose()).ok_or_else(corrupt("statement key"))?);
    Ok(Opened { keyring, trusted, roots, signing, issuer, stk, port, token, issuers_in_token })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_pki::issue::{ROOT_LIFE, new_root};
    use holdfast_types::ClusterId;

    #[test]
    fn a_given_roots_key_is_found_in_the_token_by_its_public_half() {
        let token = Arc::new(SoftwareKeys::new());
        let theirs = token.generate(Purpose::Root, b"made elsewhere").unwrap();
        token.generate(Purpose::Root, b"another").unwrap();
        let (cluster, now) = (ClusterId::of_charter(b"one"), Millis(1_700_000_000_000));
        let root = PortSigner::new(&token, theirs).unwrap();
        let der = new_root(&root, &cluster, [1; 16], now, ROOT_LIFE).unwrap().der;
        let ours = KeyId::of(Purpose::Root, b"root/7");
        let signer = || PortSigner::of_certificate(Arc::clone(&token) as Arc<dyn KeyPort>, ours, &der).unwrap();
        signer().answers().unwrap();
        assert!(signer().sign(b"a certificate").is_ok());
        token.destroy(&theirs).unwrap();
        assert_eq!(signer().answers(), Err(KeyError::NotFound(ours)), "another key was taken for it");
    }

    /// A token in which a stranger's public key lies beside each key.
    struct Swapped(SoftwareKeys);
    impl KeyPort for Swapped {
        fn generate(&self, purpose: Purpose, name: &[u8]) -> Result<KeyId, KeyError> {
            self.0.generate(purpose, name)
        }
        fn public(&self, _: &KeyId) -> Result<Vec<u8>, KeyError> {
            let stranger = self.0.generate(Purpose::Root, b"a stranger's")?;
            self.0.public(&stranger)
        }
        fn sign_p256(&self, id: &KeyId, msg: &[u8]) -> Result<Vec<u8>, KeyError> {
            self.0.sign_p256(id, msg)
        }
        fn destroy(&self, id: &KeyId) -> Result<(), KeyError> {
            self.0.destroy(id)
        }
        fn list(&self) -> Result<Vec<KeyId>, KeyError> {
            self.0.list()
        }
    }

    #[test]
    fn no_issuer_is_made_of_a_public_key_that_was_laid_beside_the_tokens_own() {
        let memory = Arc::new(SoftwareKeys::new());
        let make = |token: Arc<dyn KeyPort>| NewKey::make(&memory, Some(token), Purpose::Issuer, "issuer/1").map(drop);
        make(Arc::new(SoftwareKeys::new())).unwrap();
        let refused = make(Arc::new(Swapped(SoftwareKeys::new())));
        assert!(matches!(&refused, Err(KeyError::Corrupt(why)) if why.contains("is not its own")), "{refused:?}");
    }

    #[test]
    fn a_key_is_looked_for_where_the_state_says_that_it_is() {
        let port = Arc::new(SoftwareKeys::new());
        let token: Arc<dyn KeyPort> = Arc::new(SoftwareKeys::new());
        let at = |token: Option<&Arc<dyn KeyPort>>, key: &CaKey| place(&port, token, Purpose::Root, key).map(|p| p.1);
        let in_token = CaKey::Token("root/5".to_owned());
        assert_eq!(at(Some(&token), &in_token), Some(KeyId::of(Purpose::Root, b"root/5")));
        assert_eq!(at(None, &in_token), None, "a voter without a token has no key that is in one");
        assert_eq!(at(Some(&token), &CaKey::Offline), None);
    }
}
