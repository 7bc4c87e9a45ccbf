//! Backups: of what somebody brings, only what was made with the key opens, and what opens is whole.

use super::damaged;
use holdfast_types::{ClusterId, Secret};
use holdfast_wire::backup::{self, BackupError, Content, MAGIC, Opener, Outline, Sealer, StreamKey};
use holdfast_wire::keys::{Ed25519Key, StatementSigner};
use holdfast_wire::v1::backup_part::Part;
use holdfast_wire::{statement, v1};
use std::sync::LazyLock;

fn key() -> StreamKey {
    Secret::take(&mut [11; 32])
}

fn signer() -> Ed25519Key {
    Ed25519Key::from_seed(Secret::take(&mut [1; 32]))
}

static HONEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let head = v1::BackupHead {
        cluster_id: ClusterId([7; 32]).0.to_vec(),
        backup_id: vec![1; 16],
        era: 1,
        state_bytes: 5,
        leaves: 1,
        ..v1::BackupHead::default()
    };
    let mut sealer = Sealer::new(&key(), &head).unwrap();
    assert!(sealer.push(b"state").unwrap().is_empty());
    assert!(sealer.push(&backup::leaf(&[3; 40]).unwrap()).unwrap().is_empty());
    let (chunk, sha256) = sealer.finish().unwrap();
    let end = v1::Backup {
        cluster_id: head.cluster_id.clone(),
        backup_id: head.backup_id.clone(),
        era: 1,
        sha256: sha256.to_vec(),
        ..v1::Backup::default()
    };
    let end = statement::sign(&end, &[&signer()]).unwrap();
    let parts = [Part::Head(head), Part::Chunk(chunk), Part::End(end)];
    let frames = parts.map(|p| backup::frame(&v1::BackupPart { part: Some(p) }).unwrap());
    [MAGIC.to_vec(), frames.concat()].concat()
});

fn read(file: &[u8]) -> Result<(), BackupError> {
    let mut rest = file.strip_prefix(MAGIC).ok_or(BackupError::Malformed("magic"))?;
    let mut outline = Outline::default();
    let mut inside = None;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(BackupError::CutShort)?;
        let (bytes, after) = after.split_at_checked(backup::frame_length(*length)?).ok_or(BackupError::CutShort)?;
        let part = backup::part(bytes)?;
        outline.take(&part)?;
        match &part.part {
            Some(Part::Head(head)) => inside = Some((Opener::new(&key(), head)?, Content::new(head))),
            Some(Part::Chunk(chunk)) => {
                let (opener, content) = inside.as_mut().ok_or(BackupError::CutShort)?;
                content.push(opener.open(chunk)?.expose())?;
            }
            Some(Part::End(_)) | None => {}
        }
        rest = after;
    }
    let (opener, content) = inside.ok_or(BackupError::CutShort)?;
    opener.finish()?;
    content.finish()?;
    outline.finish(&[signer().public()]).map(drop)
}

/// A backup from anywhere: the honest one is read, and nothing else is.
pub fn backup(data: &[u8]) {
    assert_eq!(read(&HONEST), Ok(()));
    let altered = damaged(&HONEST, data);
    assert!(read(&altered).is_err() || altered == *HONEST);
    assert!(read(data).is_err());
    assert!(read(&[MAGIC.as_slice(), data].concat()).is_err());
}
