//! Backups: complete, or refused.

use crate::samples::*;
use holdfast_types::Secret;
use holdfast_wire::backup::{BackupError, CHUNK, Content, MAGIC, Opener, Outline, StreamKey, frame_length, part};
use holdfast_wire::keys::StatementSigner as _;
use holdfast_wire::v1::{self, backup_part::Part};
use holdfast_wire::{backup, boxes};
use proptest::prelude::*;

/// What came out of a backup: its state and its leaves.
type Whole = (Vec<u8>, Vec<Vec<u8>>);

fn read(file: &[u8]) -> Result<Vec<v1::BackupPart>, BackupError> {
    let mut rest = file.strip_prefix(MAGIC).ok_or(BackupError::Malformed("magic"))?;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(BackupError::CutShort)?;
        let (bytes, after) = after.split_at_checked(frame_length(*length)?).ok_or(BackupError::CutShort)?;
        parts.push(part(bytes)?);
        rest = after;
    }
    Ok(parts)
}

/// Opens everything, as a vault does that is brought back, and then asks who signed it.
fn open(parts: &[v1::BackupPart], key: &StreamKey) -> Result<Whole, BackupError> {
    let (mut outline, mut leaves) = (Outline::default(), Vec::new());
    let mut inside: Option<(Opener, Content)> = None;
    for p in parts {
        outline.take(p)?;
        match &p.part {
            Some(Part::Head(head)) => inside = Some((Opener::new(key, head)?, Content::new(head))),
            Some(Part::Chunk(chunk)) => {
                let (opener, content) = inside.as_mut().ok_or(BackupError::CutShort)?;
                let plain = opener.open(chunk)?;
                leaves.extend(content.push(plain.expose())?);
            }
            Some(Part::End(_)) | None => {}
        }
    }
    let (opener, content) = inside.ok_or(BackupError::CutShort)?;
    opener.finish()?;
    let state = content.finish()?.to_vec();
    outline.finish(&[signer(1).public()])?;
    Ok((state, leaves))
}

fn whole(file: &[u8]) -> Result<Whole, BackupError> {
    open(&read(file)?, &stream_key())
}

#[test]
fn a_backup_comes_back_whole_and_its_key_opens_with_the_recovery_key_alone() {
    let parts = backup_parts(BACKUP_STATE, &backup_leaves());
    assert_eq!(whole(&backup_file(&parts)).unwrap(), (BACKUP_STATE.to_vec(), backup_leaves()));
    let Some(Part::Head(head)) = &parts[0].part else { panic!("no head") };
    assert!(backup::open_key(head, &CLUSTER, &recipient().0).unwrap().ct_eq(&stream_key()));
    let (other, _) = boxes::derive_keypair(&[99; 32]);
    assert!(backup::open_key(head, &CLUSTER, &other).is_err());
    let moved = v1::BackupHead { era: 2, ..head.clone() };
    assert!(backup::open_key(&moved, &CLUSTER, &recipient().0).is_err());
}

#[test]
fn a_backup_opens_under_one_key_alone() {
    let parts = backup_parts(BACKUP_STATE, &backup_leaves());
    assert_eq!(open(&parts, &Secret::take(&mut [9; 32])).unwrap_err(), BackupError::Chunk(0));
}

#[test]
fn a_backup_that_is_cut_anywhere_is_refused() {
    let file = backup_file(&backup_parts(BACKUP_STATE, &backup_leaves()));
    for end in 0..file.len() {
        assert!(whole(&file[..end]).is_err(), "cut at {end}");
    }
    assert!(whole(&[file.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn every_single_bit_of_a_backup_counts() {
    let file = backup_file(&backup_parts(BACKUP_STATE, &backup_leaves()));
    for bit in 0..file.len() * 8 {
        let mut altered = file.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(whole(&altered).is_err(), "bit {bit}");
    }
}

#[test]
fn chunks_cannot_be_left_out_repeated_or_exchanged() {
    let state = vec![5; 3 * CHUNK + 17];
    let parts = backup_parts(&state, &backup_leaves());
    assert_eq!(parts.len(), 1 + 4 + 1);
    assert_eq!(open(&parts, &stream_key()).unwrap().0, state);
    let without =
        |n: usize| parts.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, p)| p.clone()).collect::<Vec<_>>();
    for n in 0..parts.len() {
        assert!(open(&without(n), &stream_key()).is_err(), "part {n} left out");
    }
    let mut exchanged = parts.clone();
    exchanged.swap(1, 2);
    assert!(open(&exchanged, &stream_key()).is_err());
    let mut repeated = parts.clone();
    repeated.insert(2, parts[2].clone());
    assert!(open(&repeated, &stream_key()).is_err());
}

#[test]
fn an_end_that_another_signed_is_refused() {
    let mut outline = Outline::default();
    for p in backup_parts(BACKUP_STATE, &backup_leaves()) {
        outline.take(&p).unwrap();
    }
    assert!(matches!(outline.finish(&[signer(2).public()]), Err(BackupError::Signature(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_state_and_leaves_round_trip(
        state in prop::collection::vec(any::<u8>(), 0..3000),
        entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
    ) {
        let leaves: Vec<Vec<u8>> = entries.iter().map(|e| [[7; 32].as_slice(), e].concat()).collect();
        let file = backup_file(&backup_parts(&state, &leaves));
        prop_assert_eq!(whole(&file).unwrap(), (state, leaves));
    }
    #[test]
    fn no_bytes_at_all_are_a_backup(b in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(whole(&b).is_err());
        prop_assert!(whole(&[MAGIC.as_slice(), &b].concat()).is_err());
    }
}
