//! One sample of each format, made without any randomness: the golden files hold exactly these bytes.

use holdfast_types::{ClusterId, Digest, Secret, TokenId, kind, sha256};
use holdfast_wire::backup::{self, Sealer, StreamKey};
use holdfast_wire::boxes::{self, Context, PrivateKey, Psk};
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::note::{Checkpoint, origin};
use holdfast_wire::record::{self, Place, RecordKey};
use holdfast_wire::share::{KeyShare, ShareKind};
use holdfast_wire::token::{JoinToken, TokenRole};
use holdfast_wire::v1::backup_part::Part;
use holdfast_wire::{statement, v1};

pub const CLUSTER: ClusterId = ClusterId([7; 32]);
pub const AAD: &[u8] = b"what it is bound to";
pub const PLAINTEXT: &[u8] = b"attack at dawn";
pub const PLACE: Place<'static> = Place::Record { purpose: "secret", path: "shop/db-password", rev: 3 };
pub const TERM: u32 = 2;

pub fn signer(seed: u8) -> Ed25519Key {
    Ed25519Key::from_seed(Secret::take(&mut [seed; 32]))
}
pub fn voucher() -> v1::Voucher {
    v1::Voucher {
        cluster_id: CLUSTER.0.to_vec(),
        repository: "r.local/shop/web".into(),
        digest: vec![0xd1; 32],
        issued_at_ms: 1_800_000_000_000,
    }
}
pub fn statement() -> v1::Statement {
    statement::sign(&voucher(), &[&signer(1), &signer(2)]).unwrap()
}
pub fn signed_file() -> v1::SignedFile {
    v1::SignedFile { cluster_id: CLUSTER.0.to_vec(), statement: Some(statement()), r#box: base_box() }
}

pub fn recipient() -> (PrivateKey, [u8; 32]) {
    boxes::derive_keypair(&[3; 32])
}
pub fn psk(seed: u8) -> Psk {
    Secret::take(&mut [seed; 32])
}
pub const CONTEXT: Context<'static> = Context { purpose: "secret", cluster: &CLUSTER, aad: AAD };
pub fn base_box() -> Vec<u8> {
    boxes::seal(&recipient().1, &CONTEXT, None, PLAINTEXT, [4; 32]).unwrap()
}
pub fn psk_box() -> Vec<u8> {
    boxes::seal(&recipient().1, &CONTEXT, Some(&psk(5)), PLAINTEXT, [4; 32]).unwrap()
}

pub const RECORD_KEY: RecordKey<'static> = RecordKey { key: &[6; 32], term: TERM };
pub fn hedge() -> Secret<kind::HedgeKey, 32> {
    Secret::take(&mut [8; 32])
}
pub fn record_of(key: RecordKey<'_>, place: &Place<'_>, plaintext: &[u8]) -> Vec<u8> {
    record::seal(key, &CLUSTER, place, plaintext, [9; 32], &hedge()).unwrap()
}
pub fn record() -> Vec<u8> {
    record_of(RECORD_KEY, &PLACE, PLAINTEXT)
}

pub fn join_token() -> JoinToken {
    JoinToken {
        role: TokenRole::Node,
        id: TokenId([1; 8]),
        anchor: Digest([2; 32]),
        secret: Secret::take(&mut [3; 20]),
    }
}
pub fn unlock_key() -> Secret<kind::UnlockSecret, 32> {
    Secret::take(&mut [10; 32])
}

pub fn checkpoint() -> Checkpoint {
    Checkpoint { origin: origin("prod.example.org", 1), size: 42, root: sha256(&[b"root"]) }
}
pub fn note() -> Vec<u8> {
    checkpoint().sign(&signer(1)).unwrap()
}

pub const BACKUP_STATE: &[u8] = b"everything that is known";
pub fn backup_leaves() -> Vec<Vec<u8>> {
    vec![[[1; 32].as_slice(), b"first"].concat(), [[2; 32].as_slice(), b"second"].concat()]
}
pub fn stream_key() -> StreamKey {
    Secret::take(&mut [11; 32])
}
pub fn backup_parts(state: &[u8], leaves: &[Vec<u8>]) -> Vec<v1::BackupPart> {
    let mut head = v1::BackupHead {
        cluster_id: CLUSTER.0.to_vec(),
        backup_id: vec![12; 16],
        era: 1,
        raft_index: 9,
        state_bytes: state.len() as u64,
        leaves: leaves.len() as u64,
        charter_version: 1,
        made_at_ms: 1_800_000_000_000,
        checkpoint: note(),
        ..v1::BackupHead::default()
    };
    head.key_box = backup::box_key(&head, &CLUSTER, &recipient().1, &stream_key(), [13; 32]).unwrap();
    let mut sealer = Sealer::new(&stream_key(), &head).unwrap();
    let mut chunks = sealer.push(state).unwrap();
    for leaf in leaves {
        chunks.extend(sealer.push(&backup::leaf(leaf).unwrap()).unwrap());
    }
    let (last, sha) = sealer.finish().unwrap();
    chunks.push(last);
    let end = v1::Backup {
        cluster_id: head.cluster_id.clone(),
        backup_id: head.backup_id.clone(),
        era: head.era,
        raft_index: head.raft_index,
        checkpoint: head.checkpoint.clone(),
        sha256: sha.to_vec(),
        made_at_ms: head.made_at_ms,
    };
    let end = statement::sign(&end, &[&signer(1)]).unwrap();
    let part = |p| v1::BackupPart { part: Some(p) };
    let middle = chunks.into_iter().map(|c| part(Part::Chunk(c)));
    std::iter::once(part(Part::Head(head.clone()))).chain(middle).chain([part(Part::End(end))]).collect()
}
pub fn backup_file(parts: &[v1::BackupPart]) -> Vec<u8> {
    let frames = parts.iter().map(|p| backup::frame(p).unwrap());
    std::iter::once(backup::MAGIC.to_vec()).chain(frames).collect::<Vec<_>>().concat()
}
pub fn key_share() -> KeyShare {
    KeyShare {
        kind: ShareKind::Unlock,
        id: 3,
        threshold: 2,
        epoch: 7,
        cluster: KeyShare::prefix_of(&CLUSTER),
        body: Secret::take(&mut [5; 32]),
    }
}
