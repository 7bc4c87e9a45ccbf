//! Opening a voter's slots on this machine: the unlock or recovery key turns a box into that voter's disk key.
//!
//! The key itself is never sent anywhere; only the disk key of the one voter goes back over its own socket.

use crate::errors::{Code, Failure};
use holdfast_types::{ClusterId, Secret, kind};
use holdfast_wire::boxes::{self, BoxError, Context, PrivateKey};
use holdfast_wire::token::{parse_recovery, parse_unlock};
use holdfast_wire::v1;

/// A voter's disk key.
pub type DiskKey = Secret<kind::DiskKey, 32>;

/// Which slots a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// Opened by the unlock key.
    Unlock,
    /// Opened by the recovery key.
    Recovery,
}
impl SlotKind {
    /// As slots name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unlock => "unlock",
            Self::Recovery => "recovery",
        }
    }
    fn purpose(self) -> &'static str {
        match self {
            Self::Unlock => "unlock-slot",
            Self::Recovery => "recovery-slot",
        }
    }
}

/// The private half of an unlock or recovery key.
pub struct SlotKey {
    /// Which slots it is for.
    pub kind: SlotKind,
    key: PrivateKey,
}

impl SlotKey {
    /// The private key made of `secret`, 32 bytes of key material (RFC 9180, DeriveKeyPair), and its public half.
    pub fn derive(kind: SlotKind, secret: &[u8; 32]) -> (Self, [u8; 32]) {
        let (key, public) = boxes::derive_keypair(secret);
        (Self { kind, key }, public)
    }
    /// Reads a printed unlock or recovery key.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        Self::parse_with_public(text).map(|(key, _)| key)
    }
    /// Reads one, and works out its public half.
    pub fn parse_with_public(text: &str) -> Result<(Self, [u8; 32]), Failure> {
        let kind = if text.trim_start().starts_with("hf_recovery_") { SlotKind::Recovery } else { SlotKind::Unlock };
        let parsed = match kind {
            SlotKind::Unlock => parse_unlock(text).map(|k| Self::derive(kind, k.expose())),
            SlotKind::Recovery => parse_recovery(text).map(|k| Self::derive(kind, k.expose())),
        };
        let help = "give the whole key as `holdfast init` printed it: hf_unlock_v1_… or hf_recovery_v1_…";
        parsed.map_err(|e| Failure::new(Code::BadKey, e, help))
    }
    /// Opens the slot of this key's kind.
    pub fn open(&self, cluster: &ClusterId, slots: &v1::SlotBoxes) -> Result<DiskKey, Failure> {
        let mut seen = None;
        for slot in slots.slots.iter().filter(|s| s.kind == self.kind.word()) {
            let aad = boxes::slot_aad(slots.voter_id, slots.dk_gen, slot.epoch);
            let context = Context { purpose: self.kind.purpose(), cluster, aad: &aad };
            match boxes::open(&self.key, &context, None, &slot.r#box) {
                Ok(key) => {
                    return Secret::from_slice(key.expose()).ok_or_else(|| damaged("it does not hold a disk key"));
                }
                Err(e) => seen = Some(e),
            }
        }
        Err(match seen {
            None => no_slot(self.kind, slots),
            Some(BoxError::OtherKey | BoxError::Open) => bad_key(self.kind, slots),
            Some(
                e
                @ (BoxError::Malformed | BoxError::Unknown | BoxError::Mode | BoxError::PublicKey | BoxError::TooLong),
            ) => damaged(&e.to_string()),
        })
    }
}

fn bad_key(kind: SlotKind, slots: &v1::SlotBoxes) -> Failure {
    let what = format!("this {} key does not open voter {}", kind.word(), slots.voter_id);
    let help = "use the current key of this cluster; after a rotation the older one no longer fits";
    Failure::new(Code::BadKey, what, help).with("voter", slots.voter_id)
}

fn no_slot(kind: SlotKind, slots: &v1::SlotBoxes) -> Failure {
    let have: Vec<_> = slots.slots.iter().map(|s| s.kind.as_str()).collect();
    let what = format!("voter {} has no {} slot; it has: {}", slots.voter_id, kind.word(), have.join(", "));
    Failure::new(Code::BadKey, what, "use a key of a kind that it has").with("voter", slots.voter_id)
}

fn damaged(why: &str) -> Failure {
    Failure::new(
        Code::Failed,
        format!("a slot is damaged: {why}"),
        "use the recovery key; without it, restore the vault's state directory whole, from its newest copy",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_wire::token::print_key;

    fn slots(cluster: &ClusterId, pk: &[u8], kind: SlotKind) -> v1::SlotBoxes {
        let aad = boxes::slot_aad(1, 2, 3);
        let c = Context { purpose: kind.purpose(), cluster, aad: &aad };
        let sealed = boxes::seal(pk, &c, None, &[42; 32], [1; 32]).unwrap();
        let slot = v1::SlotBox { kind: kind.word().into(), epoch: 3, r#box: sealed };
        v1::SlotBoxes { cluster_id: cluster.0.to_vec(), voter_id: 1, dk_gen: 2, slots: vec![slot] }
    }

    #[test]
    fn the_printed_key_opens_its_slot_and_no_other() {
        let cluster = ClusterId([5; 32]);
        for (kind, word) in [(SlotKind::Unlock, "unlock"), (SlotKind::Recovery, "recovery")] {
            let secret = Secret::<kind::UnlockSecret, 32>::take(&mut [7; 32]);
            let (_, pk) = SlotKey::derive(kind, secret.expose());
            let s = slots(&cluster, &pk, kind);
            let key = SlotKey::parse(&format!(" {}\n", print_key(word, &secret).as_str())).unwrap();
            assert_eq!(key.open(&cluster, &s).unwrap().expose(), &[42; 32]);
            let other = SlotKey::derive(kind, &[8; 32]).0;
            let f = other.open(&cluster, &s).unwrap_err();
            assert_eq!((f.code.as_ref(), f.exit_code()), ("bad-key", 3));
            assert_eq!(key.open(&ClusterId([6; 32]), &s).unwrap_err().code, "bad-key");
        }
    }

    #[test]
    fn a_missing_slot_and_a_damaged_one_are_told_apart() {
        let cluster = ClusterId([5; 32]);
        let (key, pk) = SlotKey::derive(SlotKind::Unlock, &[7; 32]);
        let mut s = slots(&cluster, &pk, SlotKind::Recovery);
        assert!(key.open(&cluster, &s).unwrap_err().message.contains("has no unlock slot; it has: recovery"));
        s.slots.iter_mut().for_each(|b| b.kind = "unlock".into());
        s.slots.iter_mut().for_each(|b| b.r#box.truncate(9));
        assert_eq!(key.open(&cluster, &s).unwrap_err().code, "failed");
        assert_eq!(SlotKey::parse("hf_unlock_v1_nonsense").err().unwrap().code, "bad-key");
    }
}
