//! A small, deterministic cluster, of one voter at first: software keys, no clock, no socket. Every step goes prepare → apply.
//!
//! LAW checked at each step here: a refused command that writes no leaf leaves the state as it was but for the time
//! (test `a_refused_command_changes_nothing`); leaves are numbered without gaps.
#![allow(dead_code, unused_imports, reason = "the world offers more than each test takes")]

mod machines;
mod operators;
mod voters;

pub use machines::{Machine, Token, csr};
pub use operators::{charter, image, secret};
pub use voters::{boot, csr_of};

use aws_lc_rs::encoding::AsBigEndian as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use holdfast_pki::issue::{IssuerCa, ROOT_LIFE};
use holdfast_pki::keys::CertSigner;
use holdfast_policy::Policies;
use holdfast_types::{ClusterId, Digest, Millis, Secret, SecretBytes, VoterId, kind, sha256};
use holdfast_vault_core::prepare::{self, AtRest, FoundingKeys, Leader, Lives, RootMaterial};
use holdfast_vault_core::{
    Applied, Command, Committed, Entropy, Keyring, Leaf, Prepared, Refusal, RootTarget, Stamped, State, command_voter,
};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::keys::{Ed25519Key, SignError};
use holdfast_wire::v1;
use prost::Message as _;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

static POLICIES: LazyLock<Policies> = LazyLock::new(|| Policies::builtin().unwrap());

/// A P-256 key in memory.
pub struct SoftKey(EcdsaKeyPair);
impl SoftKey {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }
    pub fn pkcs8(&self) -> SecretBytes {
        SecretBytes::new(self.0.to_pkcs8v1().unwrap().as_ref().to_vec())
    }
    pub fn private(&self) -> SecretBytes {
        SecretBytes::new(self.0.private_key().as_be_bytes().unwrap().as_ref().to_vec())
    }
}
impl CertSigner for SoftKey {
    fn sec1(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.0.sign(&SystemRandom::new(), msg).map_err(|e| SignError(e.to_string()))?;
        Ok(signature.as_ref().to_vec())
    }
}

/// An Ed25519 key that follows from a name.
pub fn named_key(name: &str) -> Ed25519Key {
    Ed25519Key::from_seed(Secret::take(&mut sha256(&[b"key of ", name.as_bytes()]).0))
}

/// 2026-01-01T00:00:00Z.
pub const START: Millis = Millis(1_767_225_600_000);

pub struct World {
    pub state: State,
    pub now: Millis,
    /// All commands in order, refused ones too.
    pub log: Vec<Stamped>,
    pub leaves: Vec<Leaf>,
    pub keys: Keyring,
    pub policies: &'static Policies,
    pub root: SoftKey,
    /// Open since the founding.
    pub issuer: Option<IssuerCa<SoftKey>>,
    pub stk: Ed25519Key,
    /// The first voter's TLS key.
    pub tls: rcgen::KeyPair,
    pub lives: Lives,
    pub cluster: ClusterId,
    /// Set: every step is checked against the laws. Benches clear it.
    pub checked: bool,
    operators: BTreeMap<&'static str, Ed25519Key>,
    steps: Cell<u64>,
}

impl World {
    /// A founded cluster whose voter is up.
    pub fn new() -> Self {
        let charter = operators::charter();
        let cluster = prepare::founding_cluster(&charter).unwrap();
        let keys = Keyring::new(cluster, 1, Secret::take(&mut [7; 32]), Secret::take(&mut [8; 32]));
        let mut w = Self {
            state: State::default(),
            now: START,
            log: Vec::new(),
            leaves: Vec::new(),
            keys,
            policies: &POLICIES,
            root: SoftKey::new(),
            issuer: None,
            stk: named_key("stk"),
            tls: csr().0,
            lives: Lives::default(),
            cluster,
            checked: true,
            operators: operators::keys(),
            steps: Cell::new(0),
        };
        let (_, kem) = derive_keypair(&[9; 32]);
        let issuer = SoftKey::new();
        let (root_pkcs8, issuer_pkcs8) = (w.root.private(), issuer.private());
        let made = FoundingKeys {
            root: &w.root,
            root_key: AtRest::Sealed(&root_pkcs8),
            issuer: &issuer,
            issuer_key: AtRest::Sealed(&issuer_pkcs8),
            stk: &w.stk,
        };
        let voter = command_voter(VoterId(1), kem);
        let p = prepare::found(&charter, &w.keys, &made, voter, None, w.lives.issuer, w.now, &mut w.entropy());
        let (named, _) = w.commit(p).unwrap();
        assert_eq!(named, cluster);
        w.issuer = Some(IssuerCa::open(&w.state.issuer().unwrap().der, issuer).unwrap());
        let said = v1::VoterReport {
            peer_addr: "v:7402".into(),
            service_addr: "v:7443".into(),
            join_addr: "v:7444".into(),
            csr: csr_of(&w.tls),
            ..w.voter_report(1, 1)
        };
        w.says(1, &said, Some(1)).unwrap().unwrap();
        w
    }
    pub fn leader(&self) -> Leader<'_> {
        Leader {
            state: &self.state,
            keys: &self.keys,
            policies: self.policies,
            issuer: self.issuer.as_ref().unwrap(),
            lives: &self.lives,
            now: self.state.time(self.now),
        }
    }
    /// Every term of the keyring that is boxed to voter 1.
    pub fn terms(&self) -> Vec<(u32, Secret<kind::KeyringTerm, 32>)> {
        let row = self.state.voter(VoterId(1)).unwrap();
        let (sk, _) = derive_keypair(&[9; 32]);
        let mut terms = Vec::new();
        for (t, sealed) in &row.terms {
            terms.push((*t, Keyring::open_term(&self.cluster, &sk, *t, 1, row.kem_gen, sealed).unwrap()));
        }
        terms
    }
    /// Opens the keyring anew, as voter 1 does.
    pub fn reopen(&mut self) {
        let active = self.state.active_term();
        self.keys = Keyring::open_all(self.cluster, Secret::take(&mut [8; 32]), self.terms(), active);
    }
    /// Fresh entropy: a counter, so that runs repeat.
    pub fn entropy(&self) -> Entropy {
        self.steps.set(self.steps.get() + 1);
        Entropy::new(sha256(&[b"entropy", &self.steps.get().to_be_bytes()]).0)
    }
    pub fn fresh16(&self) -> [u8; 16] {
        self.entropy().draw16("test")
    }
    pub fn pass(&mut self, ms: i64) {
        self.now = Millis(self.now.0 + ms);
    }
    /// Applies and releases what was prepared.
    pub fn commit<T>(&mut self, p: Result<Prepared<T>, Refusal>) -> Result<(T, Committed), Refusal> {
        let Prepared { command, held } = p?;
        let done = self.apply(command).result?;
        Ok(held.release(done).expect("the witness is of this command"))
    }
    /// Proposes a command that needs no preparation.
    pub fn propose(&mut self, command: Command) -> Applied {
        let salt_seed = self.entropy().draw("salt");
        self.apply(Stamped { at: self.now, salt_seed, command })
    }
    pub fn apply(&mut self, stamped: Stamped) -> Applied {
        let before = self.checked.then(|| self.state.encode());
        if self.checked {
            assert_eq!(
                Stamped::decode(&stamped.encode()).as_ref(),
                Some(&stamped),
                "a command comes back as it went in"
            );
        }
        self.log.push(stamped.clone());
        let at = stamped.at;
        let done = self.state.apply(stamped);
        let first = self.leaves.len() as u64;
        assert!(done.leaves.iter().zip(first..).all(|(l, i)| l.index == i), "leaves are numbered without gaps");
        self.leaves.extend(done.leaves.iter().cloned());
        if let (Some(before), Err(why)) = (before, &done.result) {
            assert!(done.leaves.is_empty() && done.events.is_empty(), "a refused command says nothing: {why}");
            assert!(self.state.encode() == at_time(&before, at), "a refused command changed the state: {why}");
        }
        done
    }
    /// The root that is wanted, with its key and that of its first issuer; the keys of `old` sign for it.
    pub fn root_to_add(
        &self,
        wanted: &RootTarget,
        (root, issuer): (&SoftKey, &SoftKey),
        issuer_name: &str,
        old: &[(Digest, &dyn CertSigner)],
    ) -> Result<Prepared<()>, Refusal> {
        let (pkcs8, issuer_pkcs8) = (root.private(), issuer.private());
        let mut entropy = self.entropy();
        let key = prepare::ca_key(&self.keys, &wanted.name, AtRest::Sealed(&pkcs8), &mut entropy)?;
        let issuer_key = prepare::ca_key(&self.keys, issuer_name, AtRest::Sealed(&issuer_pkcs8), &mut entropy)?;
        let made = RootMaterial { signer: Some(root), der: None, key, issuer, issuer_key, old, life: ROOT_LIFE };
        prepare::add_root(&self.leader(), made, &mut entropy)
    }
    /// The decoded entry of a leaf.
    pub fn entry(&self, leaf: u64) -> v1::LogEntry {
        v1::LogEntry::decode(self.leaves[leaf as usize].entry.as_slice()).unwrap()
    }
    /// Kinds of the leaves since `from`.
    pub fn kinds_since(&self, from: usize) -> Vec<String> {
        (from..self.leaves.len()).map(|i| self.entry(i as u64).kind).collect()
    }
}

/// The same state at a later time: an extension of nothing changes nothing else.
pub fn at_time(state: &[u8], at: Millis) -> Vec<u8> {
    let mut s = State::decode(state).unwrap();
    s.apply(Stamped { at, salt_seed: [0; 32], command: Command::Extend { grants: Vec::new(), away: Vec::new() } });
    s.encode()
}
