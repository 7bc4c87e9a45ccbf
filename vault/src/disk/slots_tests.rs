//! The slots and identity files: right keys open, wrong ones are named, damage is named.

use super::*;
use crate::disk::ident::Ident;
use crate::disk::keys::generate;
use holdfast_types::{Secret, SecretBytes};
use holdfast_wire::boxes::derive_keypair;

const CLUSTER: ClusterId = ClusterId([7; 32]);
const VOTER: VoterId = VoterId(3);
const UNLOCK: Recipient = Recipient::Unlock { epoch: 1 };

fn key(byte: u8) -> DiskKey {
    DiskKey::take(&mut [byte; 32])
}

fn slots(dk: &DiskKey) -> Slots {
    let mut s = Slots::create(CLUSTER, VOTER, dk, 1, &derive_keypair(&[1; 32]).1).unwrap();
    s.seal_to(1, dk, UNLOCK, &derive_keypair(&[2; 32]).1).unwrap();
    s
}

/// What the operator's machine does with a slot's box.
fn unbox(s: &Slots, slot: &Slot, secret: [u8; 32]) -> Result<DiskKey, boxes::BoxError> {
    let (purpose, aad) = slot.context(s.voter()).unwrap();
    let context = boxes::Context { purpose, cluster: s.cluster(), aad: &aad };
    let opened = boxes::open(&derive_keypair(&secret).0, &context, None, slot.boxed().unwrap())?;
    Ok(DiskKey::from_slice(opened.expose()).unwrap())
}

#[test]
fn each_recipient_opens_its_own_slot_and_the_key_opens_the_disk() {
    let dk = key(9);
    let s = slots(&dk);
    for (slot, secret) in s.iter().zip([[1; 32], [2; 32]]) {
        let opened = unbox(&s, slot, secret).unwrap();
        assert!(opened.ct_eq(&dk));
        assert_eq!(s.open(vec![opened]).unwrap().voter(), VOTER);
        assert_eq!(unbox(&s, slot, [3; 32]).err(), Some(boxes::BoxError::OtherKey));
    }
}

#[test]
fn a_wrong_disk_key_is_named_at_once() {
    let s = slots(&key(9));
    assert!(matches!(s.open(vec![key(8)]), Err(DiskError::BadKey)));
    assert!(matches!(s.open(Vec::new()), Err(DiskError::BadKey)));
}

#[test]
fn slots_survive_the_disk_and_any_flipped_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let s = slots(&key(9));
    s.store(dir.path()).unwrap();
    assert_eq!(Slots::load(dir.path()).unwrap(), s);
    let file = std::fs::read(dir.path().join("slots")).unwrap();
    for n in 0..file.len() {
        let mut bad = file.clone();
        bad[n] ^= 0x40;
        assert!(matches!(Slots::decode(&bad), Err(DiskError::Corrupt { .. })), "byte {n}");
        assert!(Slots::decode(&file[..n]).is_err(), "cut at {n}");
    }
}

#[test]
fn a_file_of_a_later_format_is_not_guessed_at() {
    let s = slots(&key(9));
    let later = Kind { format: 2, ..KIND }.frame(s.cluster(), VOTER, b"");
    assert!(matches!(Slots::decode(&later), Err(DiskError::Format { found: 2, .. })));
}

#[test]
fn the_recovery_slot_cannot_be_taken_out() {
    let mut s = slots(&key(9));
    assert!(matches!(s.remove(Recipient::Recovery { charter_version: 1 }), Err(DiskError::NoSlot)));
    s.remove(UNLOCK).unwrap();
    assert!(matches!(s.remove(UNLOCK), Err(DiskError::NoSlot)));
    s.body.slots.clear();
    let without = s.encode().unwrap();
    assert!(matches!(Slots::decode(&without), Err(DiskError::Corrupt { why, .. }) if why.contains("recovery")));
}

#[test]
fn a_plain_slot_opens_the_disk_without_anybody_and_shows_nothing_in_debug() {
    let dk = generate().unwrap();
    let mut s = slots(&dk);
    assert!(s.plain_keys().is_empty());
    s.add_plain(1, &dk).unwrap();
    let again = Slots::decode(&s.encode().unwrap()).unwrap();
    again.open(again.plain_keys()).unwrap();
    assert!(!format!("{again:?}").contains("sealed"));
}

#[test]
fn rotating_the_disk_key_keeps_both_keys_until_it_is_finished() {
    let (old, new) = (key(9), key(10));
    let mut s = slots(&old);
    let at = At::new(keyspace::LOG, 5);
    let before = s.open(vec![key(9)]).unwrap().seal(at, b"old").unwrap();
    assert_eq!(s.begin_rotation(&new, 1, &derive_keypair(&[1; 32]).1).unwrap(), 2);
    assert!(matches!(s.open(vec![key(9)]), Err(DiskError::BadKey)), "the pending key is needed too");
    let both = s.open(vec![key(10), key(9)]).unwrap();
    let after = both.seal(at, b"new").unwrap();
    assert_eq!(both.open(at, &before).unwrap().expose(), b"old");
    s.finish_rotation().unwrap();
    assert!(matches!(s.open(vec![old]), Err(DiskError::BadKey)));
    let keys = s.open(vec![new]).unwrap();
    assert_eq!(keys.open(at, &after).unwrap().expose(), b"new");
    assert!(keys.open(at, &before).is_err());
}

#[test]
fn the_identity_comes_back_only_for_its_voter_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let keys = slots(&key(9)).open(vec![key(9)]).unwrap();
    let mut ident = Ident {
        kem_ikm: Secret::take(&mut [5; 32]),
        next_kem_ikm: Some(Secret::take(&mut [6; 32])),
        tls_key: SecretBytes::new(b"pkcs8".to_vec()),
        chain: vec![b"leaf".to_vec()],
    };
    ident.store(dir.path(), &keys).unwrap();
    ident.chain = vec![b"new leaf".to_vec(), b"issuer".to_vec()];
    ident.store(dir.path(), &keys).unwrap();
    let back = Ident::load(dir.path(), &keys).unwrap();
    assert_eq!(
        (back.kem_ikm.expose(), back.tls_key.expose(), &back.chain),
        (&[5; 32], b"pkcs8".as_slice(), &ident.chain)
    );

    let other =
        |cluster, voter, byte| DiskKeys::new(cluster, voter, Generation { number: 1, key: key(byte) }, None).unwrap();
    let load = |k: DiskKeys| Ident::load(dir.path(), &k).unwrap_err();
    assert!(matches!(load(other(CLUSTER, VoterId(4), 9)), DiskError::OtherVoter { what: "ident" }));
    assert!(matches!(load(other(ClusterId([8; 32]), VOTER, 9)), DiskError::OtherCluster { what: "ident" }));
    assert!(matches!(load(other(CLUSTER, VOTER, 8)), DiskError::Corrupt { what: "ident", .. }));
    let path = dir.path().join("ident");
    let file = std::fs::read(&path).unwrap();
    assert!(!file.windows(5).any(|w| w == b"pkcs8"));
    for n in 0..file.len() {
        let mut bad = file.clone();
        bad[n] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(Ident::load(dir.path(), &keys), Err(DiskError::Corrupt { .. })), "byte {n}");
    }
}

/// STORED: golden file. If this fails, old voters cannot be opened any more: make a new format instead.
#[test]
fn the_slots_format_is_what_it_always_was() {
    let golden = include_str!("../../golden/slots.hex");
    let file: Vec<u8> = golden.split_whitespace().flat_map(unhex).collect();
    let s = Slots::decode(&file).unwrap();
    assert_eq!(*s.encode().unwrap(), file);
    assert_eq!((s.cluster(), s.voter(), s.current(), s.pending()), (&CLUSTER, VOTER, 1, None));
    let kinds: Vec<_> = s.iter().map(|slot| slot.recipient).collect();
    assert_eq!(kinds, [Recipient::Recovery { charter_version: 1 }, UNLOCK]);
    let opened = unbox(&s, s.iter().next().unwrap(), [1; 32]).unwrap();
    s.open(vec![opened]).unwrap();
}

/// STORED: golden file; `HOLDFAST_BLESS=1` writes it anew. If this fails, old voters cannot be opened any more.
#[test]
fn the_identity_is_stored_as_it_always_was() {
    let keys = DiskKeys::new(CLUSTER, VOTER, Generation { number: 1, key: key(9) }, None).unwrap();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/ident.hex");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ident");
    if std::env::var_os("HOLDFAST_BLESS").is_some() {
        let ident = Ident {
            kem_ikm: Secret::take(&mut [5; 32]),
            next_kem_ikm: Some(Secret::take(&mut [6; 32])),
            tls_key: SecretBytes::new(b"pkcs8".to_vec()),
            chain: vec![b"leaf".to_vec(), b"issuer".to_vec()],
        };
        ident.store(dir.path(), &keys).unwrap();
        let hex: String = std::fs::read(&path).unwrap().iter().map(|b| format!("{b:02x}")).collect();
        std::fs::write(&golden, hex + "\n").unwrap();
    }
    std::fs::write(&path, unhex(std::fs::read_to_string(golden).unwrap().trim())).unwrap();
    let back = Ident::load(dir.path(), &keys).unwrap();
    assert_eq!((back.kem_ikm.expose(), back.tls_key.expose()), (&[5; 32], b"pkcs8".as_slice()));
    assert_eq!(back.next_kem_ikm.as_ref().map(|k| *k.expose()), Some([6; 32]));
    assert_eq!(back.chain, [b"leaf".to_vec(), b"issuer".to_vec()]);
}

fn unhex(line: &str) -> Vec<u8> {
    (0..line.len()).step_by(2).map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap()).collect()
}
