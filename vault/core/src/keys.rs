//! The opened keyring: terms in locked memory, and what is derived from them.

use crate::refusal::{Code, Refusal};
use hkdf::Hkdf;
use holdfast_types::{ClusterId, NodeId, Secret, SecretBytes, kind};
use holdfast_wire::boxes::{self, BoxError, PrivateKey, Psk};
use holdfast_wire::keys::key_id;
use holdfast_wire::record::{self, Place, RecordKey};
use sha2::Sha256;
use std::collections::BTreeMap;
use zeroize::Zeroize as _;

/// Purpose of a term's box to the recovery key.
const RECOVERY: &str = "keyring-rec";

/// Keyring terms that this voter has opened, and the key that hedges its salts.
pub struct Keyring {
    terms: BTreeMap<u32, Secret<kind::KeyringTerm, 32>>,
    active: u32,
    cluster: ClusterId,
    hedge: Secret<kind::HedgeKey, 32>,
    /// The private intake key of each term, beside the name that boxes to it bear: every value that an operator puts is
    /// opened with one, and deriving it costs as much as opening.
    intakes: BTreeMap<u32, ([u8; 16], PrivateKey)>,
}

impl Keyring {
    /// A keyring of all terms that are alive, of which `active` seals what is new.
    pub fn open_all(
        cluster: ClusterId,
        hedge: Secret<kind::HedgeKey, 32>,
        terms: Vec<(u32, Secret<kind::KeyringTerm, 32>)>,
        active: u32,
    ) -> Self {
        Self::with(cluster, hedge, terms.into_iter().collect(), active)
    }
    /// A keyring with one active term.
    pub fn new(
        cluster: ClusterId,
        term: u32,
        key: Secret<kind::KeyringTerm, 32>,
        hedge: Secret<kind::HedgeKey, 32>,
    ) -> Self {
        Self::with(cluster, hedge, BTreeMap::from([(term, key)]), term)
    }
    fn with(
        cluster: ClusterId,
        hedge: Secret<kind::HedgeKey, 32>,
        terms: BTreeMap<u32, Secret<kind::KeyringTerm, 32>>,
        active: u32,
    ) -> Self {
        let mut keyring = Self { terms, active, cluster, hedge, intakes: BTreeMap::new() };
        let derived = |term: &u32| keyring.intake(*term).ok().map(|(sk, pk)| (*term, (key_id(&pk), sk)));
        keyring.intakes = keyring.terms.keys().filter_map(derived).collect();
        keyring
    }
    /// The term under which new records are sealed.
    pub fn active(&self) -> u32 {
        self.active
    }
    /// The terms that are open.
    pub fn terms(&self) -> impl Iterator<Item = u32> {
        self.terms.keys().copied()
    }
    fn term(&self, term: u32) -> Result<&Secret<kind::KeyringTerm, 32>, Refusal> {
        self.terms
            .get(&term)
            .ok_or_else(|| Refusal::new(Code::Unavailable, format!("keyring term {term} is not open on this voter")))
    }
    /// Seals a value as a record of the active term.
    pub fn seal(
        &self,
        purpose: &str,
        path: &str,
        rev: u64,
        value: &[u8],
        random: [u8; 32],
    ) -> Result<Vec<u8>, Refusal> {
        let key = RecordKey { key: self.term(self.active)?.expose(), term: self.active };
        record::seal(key, &self.cluster, &Place::Record { purpose, path, rev }, value, random, &self.hedge)
            .map_err(|e| Refusal::invalid(e.to_string()))
    }
    /// Opens a record of any term that is still held.
    pub fn open(&self, purpose: &str, path: &str, rev: u64, sealed: &[u8]) -> Result<SecretBytes, Refusal> {
        let term = record::term_of(sealed).map_err(|_| Refusal::corrupt(purpose))?;
        let key = RecordKey { key: self.term(term)?.expose(), term };
        record::open(key, &self.cluster, &Place::Record { purpose, path, rev }, sealed)
            .map_err(|_| Refusal::corrupt(purpose))
    }
    fn derive(&self, term: u32, label: &[u8], context: &[u8]) -> Result<[u8; 32], Refusal> {
        let mut out = [0; 32];
        let info = [b"holdfast/v1/", label, &[0], &self.cluster.0, context].concat();
        Hkdf::<Sha256>::new(None, self.term(term)?.expose())
            .expand(&info, &mut out)
            .map_err(|_| Refusal::corrupt("keyring term"))?;
        Ok(out)
    }
    /// The PSK shared with one generation of one node's key; nothing of it is stored.
    pub fn node_psk(&self, term: u32, node: &NodeId, seq: u64) -> Result<Psk, Refusal> {
        Ok(Secret::take(&mut self.shared_with(term, node, seq)?))
    }
    /// The same as the reply to its node carries it: it is about to leave in a message, so locked memory for a moment
    /// in between would cost six system calls and protect nothing.
    pub fn node_psk_reply(&self, term: u32, node: &NodeId, seq: u64) -> Result<Vec<u8>, Refusal> {
        let mut psk = self.shared_with(term, node, seq)?;
        let reply = psk.to_vec();
        psk.zeroize();
        Ok(reply)
    }
    fn shared_with(&self, term: u32, node: &NodeId, seq: u64) -> Result<[u8; 32], Refusal> {
        let context = [boxes::lp(node.as_str().as_bytes()).as_slice(), &seq.to_be_bytes()].concat();
        self.derive(term, b"node-psk", &context)
    }
    /// The intake key pair of a term: operators box secret values to its public half, which the Bundle lists.
    pub fn intake(&self, term: u32) -> Result<(PrivateKey, [u8; 32]), Refusal> {
        let ikm: Secret<kind::HpkeKey, 32> = Secret::take(&mut self.derive(term, b"intake", &[])?);
        Ok(boxes::derive_keypair(ikm.expose()))
    }
    /// Opens a box to an intake key of a term that is still open: an operator may have fetched the Bundle just before a newer
    /// one.
    pub fn open_intake(&self, aad: &[u8], sealed: &[u8]) -> Result<SecretBytes, BoxError> {
        let kid = boxes::parse(sealed)?.kid;
        let (_, sk) = self.intakes.values().rev().find(|(known, _)| *known == kid).ok_or(BoxError::OtherKey)?;
        let c = boxes::Context { purpose: "intake", cluster: &self.cluster, aad };
        boxes::open_known(&kid, sk, &c, None, sealed)
    }
    /// Boxes a term to a voter's KEM key: `keyring` purpose, bound to term, voter and key generation.
    pub fn box_term(
        &self,
        term: u32,
        voter: u64,
        kem_pk: &[u8],
        kem_gen: u32,
        random: [u8; 32],
    ) -> Result<Vec<u8>, Refusal> {
        let aad = term_aad(term, voter, kem_gen);
        let c = boxes::Context { purpose: "keyring", cluster: &self.cluster, aad: &aad };
        boxes::seal(kem_pk, &c, None, self.term(term)?.expose(), random).map_err(|e| Refusal::invalid(e.to_string()))
    }
    /// Boxes a term to the recovery key: `keyring-rec` purpose, bound to the term.
    pub fn box_for_recovery(&self, term: u32, pk: &[u8], random: [u8; 32]) -> Result<Vec<u8>, Refusal> {
        let aad = term.to_be_bytes();
        let c = boxes::Context { purpose: RECOVERY, cluster: &self.cluster, aad: &aad };
        boxes::seal(pk, &c, None, self.term(term)?.expose(), random).map_err(|e| Refusal::invalid(e.to_string()))
    }
    /// Opens the recovery key's box of a term.
    pub fn open_recovery_box(
        cluster: &ClusterId,
        sk: &PrivateKey,
        term: u32,
        b: &[u8],
    ) -> Result<Secret<kind::KeyringTerm, 32>, Refusal> {
        let aad = term.to_be_bytes();
        let c = boxes::Context { purpose: RECOVERY, cluster, aad: &aad };
        let raw = boxes::open(sk, &c, None, b).map_err(|_| Refusal::corrupt("recovery box"))?;
        Secret::from_slice(raw.expose()).ok_or_else(|| Refusal::corrupt("recovery box"))
    }
    /// Opens a voter's box of a term.
    pub fn open_term(
        cluster: &ClusterId,
        sk: &PrivateKey,
        term: u32,
        voter: u64,
        kem_gen: u32,
        b: &[u8],
    ) -> Result<Secret<kind::KeyringTerm, 32>, Refusal> {
        let aad = term_aad(term, voter, kem_gen);
        let c = boxes::Context { purpose: "keyring", cluster, aad: &aad };
        let raw = boxes::open(sk, &c, None, b).map_err(|_| Refusal::corrupt("keyring box"))?;
        Secret::from_slice(raw.expose()).ok_or_else(|| Refusal::corrupt("keyring box"))
    }
}

fn term_aad(term: u32, voter: u64, kem_gen: u32) -> Vec<u8> {
    [term.to_be_bytes().as_slice(), &voter.to_be_bytes(), &kem_gen.to_be_bytes()].concat()
}
