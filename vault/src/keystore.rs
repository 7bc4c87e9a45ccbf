//! The keys that an unlocked voter works with: the opened keyring, the signers behind the key port, the statement key.

use crate::disk::ident::Ident;
use holdfast_hsm::{KeyError, KeyId, KeyPort, Purpose, SoftwareKeys};
use holdfast_pki::issue::IssuerCa;
use holdfast_pki::keys::CertSigner;
use holdfast_transport::failure::Failure;
use holdfast_types::{Millis, Secret, VoterId, kind};
use holdfast_vault_core::{Keyring, State};
use holdfast_wire::boxes::{PrivateKey, derive_keypair};
use holdfast_wire::keys::{Ed25519Key, SignError};
use std::sync::Arc;

/// A key of the port as a signer of certificates.
pub struct PortSigner {
    port: Arc<SoftwareKeys>,
    id: KeyId,
    sec1: Vec<u8>,
}
impl PortSigner {
    /// The key `id` of `port`.
    pub fn new(port: &Arc<SoftwareKeys>, id: KeyId) -> Result<Self, KeyError> {
        Ok(Self { port: Arc::clone(port), id, sec1: port.public(&id)? })
    }
}
impl CertSigner for PortSigner {
    fn sec1(&self) -> Vec<u8> {
        self.sec1.clone()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        self.port.sign_p256(&self.id, msg).map_err(|e| SignError(e.to_string()))
    }
}

/// Everything that is opened while the voter is unlocked.
pub struct Opened {
    /// The keyring.
    pub keyring: Keyring,
    /// The signing root.
    pub root: PortSigner,
    /// The issuer.
    pub issuer: IssuerCa<PortSigner>,
    /// The statement key in use.
    pub stk: Ed25519Key,
    /// Where CA keys live.
    pub port: Arc<SoftwareKeys>,
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

/// Opens every live term of the keyring with the voter's KEM key, and with the keyring everything sealed under it.
pub fn open(state: &State, ident: &Ident, voter: VoterId, now: Millis) -> Result<Opened, Failure> {
    let cluster = state.cluster_id().ok_or_else(corrupt("founding"))?;
    let active = state.active_term();
    let terms = terms(state, ident, voter)?;
    if !terms.iter().any(|(term, _)| *term == active) {
        return Err(corrupt("keyring box")());
    }
    let keyring = Keyring::open_all(cluster, Secret::take(&mut random32()?), terms, active);
    let port = Arc::new(SoftwareKeys::new());
    let signer = |purpose: Purpose, sealed: &holdfast_vault_core::SealedKey| {
        let pkcs8 = keyring.open("ca", &sealed.name, 1, &sealed.record).map_err(crate::failure::refused)?;
        let id = port
            .import(purpose, sealed.name.as_bytes(), &pkcs8)
            .map_err(|e| Failure::failed("key-port", e.to_string()))?;
        PortSigner::new(&port, id).map_err(|e| Failure::failed("key-port", e.to_string()))
    };
    let root = signer(Purpose::Root, &state.signing_root().ok_or_else(corrupt("root"))?.key)?;
    let row = state.issuer().ok_or_else(corrupt("issuer"))?;
    let issuer = IssuerCa::open(&row.der, signer(Purpose::Issuer, &row.key)?)
        .map_err(|e| Failure::failed("key-port", e.to_string()))?;
    // After a long rest none may be in its window: the newest opens the vault, and is replaced before anything is signed.
    let stk = state.stk(now).or(state.newest_stk()).ok_or_else(corrupt("statement key"))?;
    let seed = keyring.open("stk", &stk.key.name, 1, &stk.key.record).map_err(crate::failure::refused)?;
    let stk = Ed25519Key::from_seed(Secret::from_slice(seed.expose()).ok_or_else(corrupt("statement key"))?);
    Ok(Opened { keyring, root, issuer, stk, port })
}
