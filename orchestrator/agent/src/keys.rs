//! The node's keys for boxes: an HPKE key pair and a PSK a renewal period, in memory-backed files only.
//!
//! They lie below the runtime directory, which must be a tmpfs: an agent may restart, but a host that was switched off
//! has lost them and renews at once (protocol, secrets). Two generations are held, so that a grant that was under way
//! during a renewal still opens. LAW: one TLS key has one HPKE key, also when the reply to a renewal was lost
//! (`a_lost_reply_is_followed_by_the_same_keys`).

use crate::state::{StateError, file};
use holdfast_orchestrator_core::verify::NodeKey;
use holdfast_types::{Digest, Secret, kind};
use holdfast_wire::boxes::{Psk, derive_keypair};
use rustix::fs::statfs;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize as _, Zeroizing};

/// Generations that are held: the current one and the one before.
const HELD: usize = 2;
/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (statfs(2)).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The files.
    #[error(transparent)]
    State(#[from] StateError),
    /// They would reach a disk.
    #[error("{0} is not on a tmpfs, and keys must not reach a disk: choose a runtime_dir below /run")]
    NotMemory(PathBuf),
    /// The source of entropy failed.
    #[error("there is no entropy: {0}")]
    Entropy(getrandom::Error),
    /// What the vault gave is no PSK.
    #[error("the vault gave no usable key with the certificate")]
    Psk,
}

/// STORED (until the next boot): `keys`; golden file `orchestrator/agent/golden/keys.hex`.
#[derive(Clone, PartialEq, prost::Message)]
struct RawKeys {
    #[prost(message, repeated, tag = "1")]
    generations: Vec<RawGeneration>,
    #[prost(message, optional, tag = "2")]
    offered: Option<RawOffered>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct RawGeneration {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(bytes = "vec", tag = "2")]
    ikm: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    psk: Vec<u8>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct RawOffered {
    #[prost(bytes = "vec", tag = "1")]
    spki_sha256: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    ikm: Vec<u8>,
}
impl RawKeys {
    fn wipe(&mut self) {
        for g in &mut self.generations {
            g.ikm.zeroize();
            g.psk.zeroize();
        }
        if let Some(o) = &mut self.offered {
            o.ikm.zeroize();
        }
    }
}

type KeyMaterial = Secret<kind::HpkeKey, 32>;

struct Generation {
    seq: u64,
    ikm: KeyMaterial,
    psk: Psk,
}

/// The held generations, and the HPKE key that was last offered to the vault with a TLS key.
pub struct KeyRing {
    path: PathBuf,
    generations: Vec<Generation>,
    offered: Option<(Digest, KeyMaterial)>,
}

impl KeyRing {
    /// Opens the ring in `runtime_dir` (made 0700); empty after a reboot.
    pub fn open(runtime_dir: &Path) -> Result<Self, KeyError> {
        let at = |source| StateError::Io { path: runtime_dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(runtime_dir).map_err(at)?;
        let kind = statfs(runtime_dir).map_err(|e| at(e.into()))?.f_type;
        if !IN_MEMORY.contains(&kind) {
            return Err(KeyError::NotMemory(runtime_dir.to_owned()));
        }
        Self::load(runtime_dir.join("keys"))
    }

    fn load(path: PathBuf) -> Result<Self, KeyError> {
        let mut raw: RawKeys = file::load(&path)?.unwrap_or_default();
        let corrupt = || KeyError::State(StateError::Corrupt(path.clone()));
        let generations = raw.generations.iter().map(|g| {
            let (ikm, psk) = (Secret::from_slice(&g.ikm), Secret::from_slice(&g.psk));
            Ok(Generation { seq: g.seq, ikm: ikm.ok_or_else(corrupt)?, psk: psk.ok_or_else(corrupt)? })
        });
        let generations = generations.collect::<Result<_, KeyError>>();
        let offered = raw.offered.as_ref().map(|o| {
            let (spki, ikm) = (Digest::from_slice(&o.spki_sha256), Secret::from_slice(&o.ikm));
            Ok::<_, KeyError>((spki.ok_or_else(corrupt)?, ikm.ok_or_else(corrupt)?))
        });
        let offered = offered.transpose();
        raw.wipe();
        Ok(Self { generations: generations?, offered: offered?, path })
    }

    fn save(&self) -> Result<(), KeyError> {
        let generation =
            |g: &Generation| RawGeneration { seq: g.seq, ikm: g.ikm.expose().to_vec(), psk: g.psk.expose().to_vec() };
        let offered =
            |(spki, ikm): &(Digest, KeyMaterial)| RawOffered { spki_sha256: spki.to_vec(), ikm: ikm.expose().to_vec() };
        let mut raw = RawKeys {
            generations: self.generations.iter().map(generation).collect(),
            offered: self.offered.as_ref().map(offered),
        };
        let saved = file::save(&self.path, &raw);
        raw.wipe();
        Ok(saved?)
    }

    /// The HPKE public key to send along with the TLS key `spki`: always the same one for the same TLS key. It is kept
    /// before it is returned.
    pub fn offer(&mut self, spki: Digest) -> Result<[u8; 32], KeyError> {
        if let Some((of, ikm)) = &self.offered
            && *of == spki
        {
            return Ok(derive_keypair(ikm.expose()).1);
        }
        let ikm = Secret::filled(|b| getrandom::fill(b)).map_err(KeyError::Entropy)?;
        let public = derive_keypair(ikm.expose()).1;
        self.offered = Some((spki, ikm));
        self.save()?;
        Ok(public)
    }

    /// Takes the vault's answer for the TLS key `spki`: generation `seq` and its PSK. A key that was offered before a
    /// reboot is lost: that is no error, the ring then stays without that generation and the node renews.
    pub fn accept(&mut self, spki: Digest, seq: u64, psk: Vec<u8>) -> Result<(), KeyError> {
        let psk = Zeroizing::new(psk);
        let psk = Secret::from_slice(&psk).ok_or(KeyError::Psk)?;
        let Some((_, ikm)) = self.offered.as_ref().filter(|(of, _)| *of == spki) else { return Ok(()) };
        self.generations.retain(|g| g.seq != seq);
        self.generations.push(Generation { seq, ikm: ikm.duplicate(), psk });
        self.generations.sort_by_key(|g| g.seq);
        let surplus = self.generations.len().saturating_sub(HELD);
        self.generations.drain(..surplus);
        self.save()
    }

    /// The newest generation held; `None` if none is, so that the node must renew before it can take a secret.
    pub fn newest(&self) -> Option<u64> {
        self.generations.last().map(|g| g.seq)
    }

    /// The keys, for the check of an assignment.
    pub fn node_keys(&self) -> Vec<NodeKey> {
        let key =
            |g: &Generation| NodeKey { seq: g.seq, hpke: derive_keypair(g.ikm.expose()).0, psk: g.psk.duplicate() };
        self.generations.iter().map(key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(dir: &Path) -> KeyRing {
        KeyRing::load(dir.join("keys")).unwrap()
    }

    #[test]
    fn a_lost_reply_is_followed_by_the_same_keys() {
        let dir = tempfile::tempdir().unwrap();
        let first = ring(dir.path()).offer(Digest([1; 32])).unwrap();
        let mut after_restart = ring(dir.path());
        assert_eq!(after_restart.offer(Digest([1; 32])).unwrap(), first);
        after_restart.accept(Digest([1; 32]), 1, vec![5; 32]).unwrap();
        assert_eq!(ring(dir.path()).offer(Digest([1; 32])).unwrap(), first);
        assert_ne!(after_restart.offer(Digest([2; 32])).unwrap(), first);
    }

    #[test]
    fn the_keys_are_stored_as_they_always_were() {
        let raw = RawKeys {
            generations: vec![RawGeneration { seq: 3, ikm: vec![1; 32], psk: vec![2; 32] }],
            offered: Some(RawOffered { spki_sha256: vec![3; 32], ikm: vec![4; 32] }),
        };
        crate::state::golden::holds("keys", &raw);
    }

    #[test]
    fn two_generations_are_held_and_open_their_boxes() {
        let dir = tempfile::tempdir().unwrap();
        let mut r = ring(dir.path());
        let mut publics = Vec::new();
        for seq in 1..=3 {
            let spki = Digest([u8::try_from(seq).unwrap(); 32]);
            publics.push(r.offer(spki).unwrap());
            r.accept(spki, seq, vec![u8::try_from(seq).unwrap(); 32]).unwrap();
        }
        let held = ring(dir.path());
        assert_eq!(held.newest(), Some(3));
        let keys = held.node_keys();
        assert_eq!(keys.iter().map(|k| k.seq).collect::<Vec<_>>(), [2, 3]);
        let cluster = holdfast_types::ClusterId([0; 32]);
        let c = holdfast_wire::boxes::Context { purpose: "secret", cluster: &cluster, aad: b"" };
        let sealed = holdfast_wire::boxes::seal(&publics[2], &c, Some(&keys[1].psk), b"v", [9; 32]).unwrap();
        let opened = holdfast_wire::boxes::open(&keys[1].hpke, &c, Some(&keys[1].psk), &sealed).unwrap();
        assert_eq!(opened.expose(), b"v");
    }

    #[test]
    fn after_a_reboot_an_answer_to_a_lost_key_leaves_the_ring_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut r = ring(dir.path());
        r.accept(Digest([1; 32]), 1, vec![5; 32]).unwrap();
        assert_eq!(r.newest(), None);
        assert!(matches!(r.accept(Digest([1; 32]), 1, vec![5; 31]), Err(KeyError::Psk)));
    }
}
