//! One sample of each format, made without any randomness: the golden files hold exactly these bytes.

use holdfast_types::{ClusterId, Digest, Secret, TokenId, kind, sha256};
use holdfast_wire::boxes::{self, Context, PrivateKey, Psk};
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::note::{Checkpoint, origin};
use holdfast_wire::record::{self, Place, RecordKey};
use holdfast_wire::share::{KeyShare, ShareKind};
use holdfast_wire::token::{JoinToken, TokenRole};
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
