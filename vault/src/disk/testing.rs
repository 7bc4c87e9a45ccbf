//! What the tests of a voter's disk share: a whole voter's directory, the operator's keys to it, and copies.

use super::ident::Ident;
use super::keys::{DiskKey, DiskKeys, generate};
use super::slots::{Recipient, Slots};
use crate::raft::Store;
use holdfast_types::{ClusterId, Secret, SecretBytes, VoterId};
use holdfast_vault_core::WantedSlots;
use holdfast_wire::boxes::{self, derive_keypair};
use std::path::Path;
use std::sync::Arc;

pub const CLUSTER: ClusterId = ClusterId([7; 32]);
pub const VOTER: VoterId = VoterId(1);
/// The secrets that operators hold.
pub const RECOVERY: [u8; 32] = [1; 32];
pub const UNLOCK: [u8; 32] = [2; 32];
pub const NEXT_UNLOCK: [u8; 32] = [3; 32];

pub fn pk(secret: [u8; 32]) -> [u8; 32] {
    derive_keypair(&secret).1
}

pub fn wanted() -> WantedSlots {
    WantedSlots {
        unlock: vec![(1, pk(UNLOCK))],
        plain: false,
        recovery: (1, pk(RECOVERY)),
        chain: None,
        disk_key_order: 0,
    }
}

/// Makes the directory of `voter` of `cluster` with an empty store.
pub fn make_voter(dir: &Path, cluster: ClusterId, voter: VoterId) -> DiskKey {
    std::fs::create_dir_all(dir).unwrap();
    let dk = generate().unwrap();
    let mut slots = Slots::create(cluster, voter, &dk, 1, &pk(RECOVERY)).unwrap();
    slots.seal_to(1, &dk, Recipient::Unlock { epoch: 1 }, &pk(UNLOCK)).unwrap();
    slots.store(dir).unwrap();
    let keys = Arc::new(slots.open(vec![dk.duplicate()]).unwrap());
    ident().store(dir, &keys).unwrap();
    Store::create(dir, keys).unwrap();
    dk
}

pub fn ident() -> Ident {
    Ident {
        kem_ikm: Secret::take(&mut [5; 32]),
        next_kem_ikm: Some(Secret::take(&mut [6; 32])),
        tls_key: SecretBytes::new(b"pkcs8".to_vec()),
        chain: vec![b"leaf".to_vec()],
    }
}

/// The disk keys of every live generation that an operator's `secret` opens in slots of the kind that it is for.
pub fn unlocked(slots: &Slots, recipient: Recipient, secret: [u8; 32]) -> Vec<DiskKey> {
    let (private, _) = derive_keypair(&secret);
    let live: Vec<u32> = std::iter::once(slots.current()).chain(slots.pending()).collect();
    let of = slots.iter().filter(|s| s.recipient == recipient && live.contains(&s.generation));
    let opened = of.map(|slot| {
        let (purpose, aad) = slot.context(slots.voter()).unwrap();
        let context = boxes::Context { purpose, cluster: slots.cluster(), aad: &aad };
        let dk = boxes::open(&private, &context, None, slot.boxed().unwrap()).unwrap();
        DiskKey::from_slice(dk.expose()).unwrap()
    });
    opened.collect()
}

/// The keys of the disk in `dir`, as an operator opens it, by each of the two keys that were to be kept.
pub fn opened(dir: &Path) -> Arc<DiskKeys> {
    let slots = Slots::load(dir).unwrap();
    let by_recovery = unlocked(&slots, Recipient::Recovery { charter_version: 1 }, RECOVERY);
    slots.open(by_recovery).unwrap();
    Arc::new(slots.open(unlocked(&slots, Recipient::Unlock { epoch: 1 }, UNLOCK)).unwrap())
}

/// Copies a file or a whole directory.
pub fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        std::fs::copy(from, to).unwrap();
        return;
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}
