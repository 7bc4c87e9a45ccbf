//! What a peer shows in a handshake: its certificate chain.

use super::damaged;
use holdfast_pki::chain::{Anchors, Peer, Usage, read_leaf, verify_by_anchor, verify_peer};
use holdfast_pki::issue::{ISSUER_LIFE, IssuerCa, ROOT_LIFE, RootCa, new_root};
use holdfast_pki::keys::{CertSigner, SubjectKey};
use holdfast_transport::keys::PrivateKey;
use holdfast_types::{ClusterId, Digest, Millis, SpiffeId, TrustDomain};
use holdfast_wire::keys::SignError;
use std::sync::LazyLock;
use std::time::Duration;

const CLUSTER: ClusterId = ClusterId([7; 32]);
const NOW: Millis = Millis(1_800_000_000_000);

struct Key(PrivateKey);
impl Key {
    fn new() -> Self {
        Self(PrivateKey::generate().unwrap())
    }
    fn subject(&self) -> SubjectKey {
        SubjectKey::from_spki(self.0.spki_der()).unwrap()
    }
}
impl CertSigner for Key {
    fn sec1(&self) -> Vec<u8> {
        self.subject().sec1().unwrap().to_vec()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        self.0.sign(msg).map_err(|e| SignError(e.to_string()))
    }
}

/// A chain in the midst of a rotation, and what is to be believed of it.
struct Scene {
    /// Leaf, issuer, the new root certified by the old one, both roots.
    chain: Vec<Vec<u8>>,
    /// The old root alone is trusted.
    anchors: Anchors,
    anchor: Digest,
    peer: Peer,
}

/// Certificates as a verifier takes them.
macro_rules! certs {
    ($ders:expr) => {
        &$ders.iter().map(|der| der.as_slice().into()).collect::<Vec<_>>()
    };
}

static HONEST: LazyLock<Scene> = LazyLock::new(|| {
    let (old_key, new_key, issuer_key, leaf_key) = (Key::new(), Key::new(), Key::new(), Key::new());
    let root = |key: &Key, n| new_root(key, &CLUSTER, [n; 16], NOW, ROOT_LIFE).unwrap().der;
    let (old, new) = (root(&old_key, 1), root(&new_key, 2));
    let cross = RootCa::open(&old, &old_key).unwrap().cross(&new, [3; 16], NOW).unwrap().der;
    let ca = RootCa::open(&new, &new_key).unwrap();
    let issuer = ca.issuer(&issuer_key.subject(), [4; 16], NOW, ISSUER_LIFE).unwrap().der;
    let id = SpiffeId::parse("spiffe://prod.example.org/vault/1").unwrap();
    let ca = IssuerCa::open(&issuer, &issuer_key).unwrap();
    let leaf = ca.leaf(&leaf_key.subject(), &id, [5; 16], NOW, Duration::from_secs(86_400)).unwrap().der;
    let anchors = Anchors::new(&[&old], TrustDomain::parse("prod.example.org").unwrap()).unwrap();
    let anchor = CLUSTER.anchor(&old);
    let chain = vec![leaf, issuer, cross, new, old];
    let peer = verify_peer(certs!(chain), &anchors, NOW, Usage::Server).unwrap();
    Scene { chain, anchors, anchor, peer }
});

/// A chain from the network: one certificate of the honest chain is damaged, and one is the fuzzer's own. Whatever is
/// believed of it is the honest peer, whole; the fuzzer makes no other, for it holds no key.
pub fn chain(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let honest = &*HONEST;
    let at = usize::from(*which) % honest.chain.len();
    let (mut hurt, mut own, mut longer) = (honest.chain.clone(), honest.chain.clone(), honest.chain.clone());
    hurt[at] = damaged(&honest.chain[at], data);
    own[at] = data.to_vec();
    longer.insert(at, data.to_vec());
    for shown in [hurt, own, longer, vec![data.to_vec()]] {
        if let Ok(peer) = verify_peer(certs!(shown), &honest.anchors, NOW, Usage::Server) {
            assert_eq!(peer, honest.peer);
        }
        if let Ok((cluster, peer)) = verify_by_anchor(certs!(shown), &honest.anchor, NOW) {
            assert_eq!((cluster, peer), (CLUSTER, honest.peer.clone()));
        }
        if let Ok(said) = read_leaf(certs!(shown), Usage::Server) {
            assert!(!said.has_path());
        }
    }
}
