//! Opening a voter's slots on this machine: the unlock or recovery key turns a box into that voter's disk key.
//!
//! The key itself is never sent anywhere; only the disk key of the one voter goes back over its own socket.

use crate::errors::{Code, Failure};
use holdfast_types::{ClusterId, Secret, kind};
use holdfast_wire::boxes::{self, BoxError, Context, PrivateKey};
use holdfast_wire::keys::key_id;
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
    /// The half that voters see.
    pub public: [u8; 32],
    key: PrivateKey,
}

/// What opens a disk: its key and, while it is being replaced, that of the other generation too.
pub struct Opened {
    /// The key of the current generation.
    pub disk_key: DiskKey,
    /// The key of the generation that is about to take over, with its number.
    pub other: Option<(u32, DiskKey)>,
    /// The kind of the slot that was opened.
    pub slot: SlotKind,
}

/// A box in which an unlock secret lies for whoever has the one after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The epoch of the secret inside.
    pub older: u64,
    /// The box.
    pub sealed: Vec<u8>,
}

impl SlotKey {
    /// The private key made of `secret`, 32 bytes of key material (RFC 9180, DeriveKeyPair), and its public half.
    pub fn derive(kind: SlotKind, secret: &[u8; 32]) -> (Self, [u8; 32]) {
        let (key, public) = boxes::derive_keypair(secret);
        (Self { kind, public, key }, public)
    }
    /// Reads one, and works out its public half.
    pub fn parse_with_public(text: &str) -> Result<(Self, [u8; 32]), Failure> {
        parse_secret(text).map(|(kind, secret)| Self::derive(kind, secret.expose()))
    }
    /// Opens the slot of this key's kind that holds the current disk key.
    pub fn open(&self, cluster: &ClusterId, slots: &v1::SlotBoxes) -> Result<DiskKey, Failure> {
        self.open_generation(cluster, slots, slots.dk_gen)
    }
    fn open_generation(&self, cluster: &ClusterId, slots: &v1::SlotBoxes, dk_gen: u32) -> Result<DiskKey, Failure> {
        let mut seen = None;
        let ours = |s: &&v1::SlotBox| s.kind == self.kind.word() && generation(s, slots) == dk_gen;
        for slot in slots.slots.iter().filter(ours) {
            let aad = boxes::slot_aad(slots.voter_id, dk_gen, slot.epoch);
            let context = Context { purpose: self.kind.purpose(), cluster, aad: &aad };
            match boxes::open(&self.key, &context, None, &slot.r#box) {
                Ok(key) => {
                    return Secret::from_slice(key.expose()).ok_or_else(|| damaged("it does not hold a disk key"));
                }
                // A slot of another epoch beside a damaged one of ours says nothing about ours.
                Err(BoxError::OtherKey) if seen.is_some() => {}
                Err(e) => seen = Some(e),
            }
        }
        Err(match seen {
            None => no_slot(self.kind, slots),
            Some(BoxError::OtherKey) => bad_key(self.kind, slots),
            Some(BoxError::Open) => damaged("it is for this key, and was altered or made for another voter or cluster"),
            Some(
                e
                @ (BoxError::Malformed | BoxError::Unknown | BoxError::Mode | BoxError::PublicKey | BoxError::TooLong),
            ) => damaged(&e.to_string()),
        })
    }
    /// Opens a chain: the secret before this one.
    fn older(&self, cluster: &ClusterId, chain: &Chain) -> Option<Self> {
        let aad = boxes::chain_aad(chain.older);
        let context = Context { purpose: CHAIN_PURPOSE, cluster, aad: &aad };
        let secret = boxes::open(&self.key, &context, None, &chain.sealed).ok()?;
        let secret: Secret<kind::UnlockSecret, 32> = Secret::from_slice(secret.expose())?;
        Some(Self::derive(SlotKind::Unlock, secret.expose()).0)
    }
}

/// What a chain is sealed for.
pub const CHAIN_PURPOSE: &str = "unlock-chain";

/// A printed unlock or recovery key: its kind and its secret.
pub fn parse_secret(text: &str) -> Result<(SlotKind, Secret<kind::UnlockSecret, 32>), Failure> {
    let kind = if text.trim_start().starts_with("hf_recovery_") { SlotKind::Recovery } else { SlotKind::Unlock };
    let parsed = match kind {
        SlotKind::Unlock => parse_unlock(text),
        SlotKind::Recovery => parse_recovery(text).map(|k| Secret::take(&mut { *k.expose() })),
    };
    let help = "give the whole key as `holdfast init` printed it: hf_unlock_v1_… or hf_recovery_v1_…";
    parsed.map(|secret| (kind, secret)).map_err(|e| Failure::new(Code::BadKey, e, help))
}

/// Slots of the time before there were two generations do not name theirs.
fn generation(slot: &v1::SlotBox, slots: &v1::SlotBoxes) -> u32 {
    if slot.dk_gen == 0 { slots.dk_gen } else { slot.dk_gen }
}

/// Rotations that were begun anew skip epochs, so the number of the secret inside is one of these many before.
const SKIPPED: u64 = 8;

/// A chain under each number that the secret inside may have, given one near it: a box opens under one of them only.
pub fn chains_near(epoch: u64, sealed: &[u8]) -> Vec<Chain> {
    if sealed.is_empty() {
        return Vec::new();
    }
    let older = epoch.saturating_sub(SKIPPED)..=epoch;
    older.rev().map(|older| Chain { older, sealed: sealed.to_vec() }).collect()
}

/// The chain that a voter's disk bears.
pub fn chains_of(slots: &v1::SlotBoxes) -> Vec<Chain> {
    chains_near(slots.chain_epoch, &slots.chain)
}

/// Adds to `keys` what they open by `chains`, however many steps back: a voter that slept through rotations opens with the
/// present key.
pub fn follow(keys: &mut Vec<SlotKey>, cluster: &ClusterId, chains: &[Chain]) {
    // Each round goes one rotation back and finds a key that was not there, so there are at most as many as chains.
    for _ in chains {
        let unlocking = keys.iter().filter(|k| k.kind == SlotKind::Unlock);
        let mut opened = unlocking.flat_map(|k| chains.iter().filter_map(move |c| k.older(cluster, c)));
        let new = opened.find(|o| keys.iter().all(|k| k.public != o.public));
        let Some(new) = new else { return };
        keys.push(new);
    }
}

/// Opens a voter with whichever of `keys` opens it; both generations while its disk key is being replaced.
pub fn open_with(keys: &[SlotKey], cluster: &ClusterId, slots: &v1::SlotBoxes) -> Result<Opened, Failure> {
    let (disk_key, slot) = one_generation(keys, cluster, slots, slots.dk_gen)?;
    let other = match slots.dk_pending {
        0 => None,
        pending => Some((pending, one_generation(keys, cluster, slots, pending)?.0)),
    };
    Ok(Opened { disk_key, other, slot })
}

fn one_generation(
    keys: &[SlotKey],
    cluster: &ClusterId,
    slots: &v1::SlotBoxes,
    dk_gen: u32,
) -> Result<(DiskKey, SlotKind), Failure> {
    let mut why: Option<Failure> = None;
    for key in keys {
        match key.open_generation(cluster, slots, dk_gen) {
            Ok(disk_key) => return Ok((disk_key, key.kind)),
            // Damage says more than a key that does not fit, and that more than a slot that is not there.
            Err(f) if why.as_ref().is_none_or(|w| telling(&f) > telling(w)) => why = Some(f),
            Err(_) => {}
        }
    }
    Err(why.unwrap_or_else(|| Failure::new(Code::BadKey, "no key was given", "give one with --key-file")))
}

fn telling(f: &Failure) -> u8 {
    [Code::NoSlot, Code::BadKey, Code::Corrupt].iter().position(|c| f.code == c.word()).map_or(0, |p| p as u8 + 1)
}

/// Whether any slot or chain is sealed to `public`.
pub fn is_known(public: &[u8; 32], slots: &[&v1::SlotBoxes]) -> bool {
    let kid = key_id(public);
    let sealed_to = |b: &[u8]| boxes::parse(b).is_ok_and(|p| p.kid == kid);
    slots.iter().any(|s| sealed_to(&s.chain) || s.slots.iter().any(|slot| sealed_to(&slot.r#box)))
}

/// Whether an unlock slot of `epoch` is sealed to `public`.
pub fn is_sealed_to(public: &[u8; 32], epoch: u64, slots: &[v1::SlotBoxes]) -> bool {
    let kid = key_id(public);
    let of_epoch = |s: &&v1::SlotBox| s.kind == SlotKind::Unlock.word() && s.epoch == epoch;
    let mut all = slots.iter().flat_map(|s| s.slots.iter().filter(of_epoch));
    all.any(|s| boxes::parse(&s.r#box).is_ok_and(|p| p.kid == kid))
}

fn bad_key(kind: SlotKind, slots: &v1::SlotBoxes) -> Failure {
    let what = format!("this {} key does not open voter {}", kind.word(), slots.voter_id);
    let help = "use the current key of this cluster; after a rotation the older one no longer fits";
    Failure::new(Code::BadKey, what, help).with("voter", slots.voter_id)
}

fn no_slot(kind: SlotKind, slots: &v1::SlotBoxes) -> Failure {
    let have: Vec<_> = slots.slots.iter().map(|s| s.kind.as_str()).collect();
    let what = format!("voter {} has no {} slot; it has: {}", slots.voter_id, kind.word(), have.join(", "));
    Failure::new(Code::NoSlot, what, "use a key of a kind that it has").with("voter", slots.voter_id)
}

fn damaged(why: &str) -> Failure {
    Failure::new(
        Code::Corrupt,
        format!("a slot is damaged: {why}"),
        "try the other key, unlock or recovery; if neither opens it, evict this voter and admit it anew; one that is \
         alone is restored from its newest copy or a backup",
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
        let slot = v1::SlotBox { kind: kind.word().into(), epoch: 3, r#box: sealed, dk_gen: 0 };
        let slots = vec![slot];
        v1::SlotBoxes { cluster_id: cluster.0.to_vec(), voter_id: 1, dk_gen: 2, slots, ..Default::default() }
    }

    #[test]
    fn the_printed_key_opens_its_slot_and_no_other() {
        let cluster = ClusterId([5; 32]);
        for (kind, word) in [(SlotKind::Unlock, "unlock"), (SlotKind::Recovery, "recovery")] {
            let secret = Secret::<kind::UnlockSecret, 32>::take(&mut [7; 32]);
            let (_, pk) = SlotKey::derive(kind, secret.expose());
            let s = slots(&cluster, &pk, kind);
            let key = SlotKey::parse_with_public(&format!(" {}\n", print_key(word, &secret).as_str())).unwrap().0;
            assert_eq!(key.open(&cluster, &s).unwrap().expose(), &[42; 32]);
            let other = SlotKey::derive(kind, &[8; 32]).0;
            let f = other.open(&cluster, &s).unwrap_err();
            assert_eq!((f.code.as_ref(), f.exit_code()), ("bad-key", 3));
            assert_eq!(key.open(&ClusterId([6; 32]), &s).unwrap_err().code, "corrupt");
            let of_another_voter = v1::SlotBoxes { voter_id: 2, ..s };
            assert_eq!(key.open(&cluster, &of_another_voter).unwrap_err().code, "corrupt");
        }
    }

    #[test]
    fn a_missing_slot_and_a_damaged_one_are_told_apart() {
        let cluster = ClusterId([5; 32]);
        let (key, pk) = SlotKey::derive(SlotKind::Unlock, &[7; 32]);
        let mut s = slots(&cluster, &pk, SlotKind::Recovery);
        let none = key.open(&cluster, &s).unwrap_err();
        assert_eq!(none.code, "no-slot");
        assert!(none.message.contains("has no unlock slot; it has: recovery"));
        s.slots.iter_mut().for_each(|b| b.kind = "unlock".into());
        s.slots.iter_mut().for_each(|b| b.r#box.truncate(9));
        assert_eq!(key.open(&cluster, &s).unwrap_err().code, "corrupt");
        assert_eq!(SlotKey::parse_with_public("hf_unlock_v1_nonsense").err().unwrap().code, "bad-key");
    }

    fn key(byte: u8) -> SlotKey {
        SlotKey::derive(SlotKind::Unlock, &[byte; 32]).0
    }
    fn slot(cluster: &ClusterId, of: &SlotKey, dk_gen: u32, epoch: u64, dk: u8) -> v1::SlotBox {
        let aad = boxes::slot_aad(1, dk_gen, epoch);
        let context = Context { purpose: of.kind.purpose(), cluster, aad: &aad };
        let sealed = boxes::seal(&of.public, &context, None, &[dk; 32], [1; 32]).unwrap();
        v1::SlotBox { kind: of.kind.word().into(), epoch, r#box: sealed, dk_gen }
    }
    fn chain(cluster: &ClusterId, older: u64, from: u8, to: u8) -> Vec<u8> {
        let aad = boxes::chain_aad(older);
        let context = Context { purpose: CHAIN_PURPOSE, cluster, aad: &aad };
        boxes::seal(&key(to).public, &context, None, &[from; 32], [2; 32]).unwrap()
    }

    #[test]
    fn the_present_key_opens_a_voter_that_slept_through_rotations() {
        let cluster = ClusterId([5; 32]);
        // The sleeper has a slot of epoch 1 only; the chains lie on the disks of those that were awake.
        let sleeper = v1::SlotBoxes {
            voter_id: 1,
            dk_gen: 1,
            slots: vec![slot(&cluster, &key(1), 1, 1, 9)],
            ..Default::default()
        };
        for chain_epoch in [2, 3] {
            let sealed = chain(&cluster, 2, 2, 3);
            let awake = v1::SlotBoxes { chain: sealed, chain_epoch, ..Default::default() };
            let mut chains = chains_of(&awake);
            chains.push(Chain { older: 1, sealed: chain(&cluster, 1, 1, 2) });
            let mut keys = vec![key(3)];
            assert_eq!(open_with(&keys, &cluster, &sleeper).err().unwrap().code, "bad-key");
            follow(&mut keys, &cluster, &chains);
            assert_eq!(keys.len(), 3);
            assert_eq!(open_with(&keys, &cluster, &sleeper).ok().unwrap().disk_key.expose(), &[9; 32]);
            // Never the other way round: the older key opens nothing newer.
            let mut older = vec![key(1)];
            follow(&mut older, &cluster, &chains);
            assert_eq!(older.len(), 1);
        }
    }

    #[test]
    fn while_a_disk_key_is_replaced_both_generations_are_opened() {
        let cluster = ClusterId([5; 32]);
        let both = vec![slot(&cluster, &key(1), 4, 1, 8), slot(&cluster, &key(1), 5, 1, 9)];
        let mut s = v1::SlotBoxes { voter_id: 1, dk_gen: 4, dk_pending: 5, slots: both, ..Default::default() };
        let opened = open_with(&[key(1)], &cluster, &s).ok().unwrap();
        assert_eq!(opened.disk_key.expose(), &[8; 32]);
        let (pending, other) = opened.other.unwrap();
        assert_eq!((pending, other.expose()), (5, &[9; 32]));
        s.slots.truncate(1);
        assert_eq!(open_with(&[key(1)], &cluster, &s).err().unwrap().code, "no-slot");
        s.dk_pending = 0;
        assert!(open_with(&[key(1)], &cluster, &s).is_ok_and(|o| o.other.is_none()));
    }

    #[test]
    fn of_several_keys_the_one_that_fits_opens_and_the_most_telling_failure_is_reported() {
        let cluster = ClusterId([5; 32]);
        let mut s = v1::SlotBoxes {
            voter_id: 1,
            dk_gen: 1,
            slots: vec![slot(&cluster, &key(1), 1, 1, 8)],
            ..Default::default()
        };
        let recovery = || SlotKey::derive(SlotKind::Recovery, &[1; 32]).0;
        assert!(open_with(&[recovery(), key(2), key(1)], &cluster, &s).is_ok());
        assert_eq!(open_with(&[key(2), recovery()], &cluster, &s).err().unwrap().code, "bad-key");
        assert!(is_known(&key(1).public, &[&s]) && !is_known(&key(2).public, &[&s]));
        if let Some(last) = s.slots[0].r#box.last_mut() {
            *last ^= 1;
        }
        assert_eq!(open_with(&[key(2), key(1), recovery()], &cluster, &s).err().unwrap().code, "corrupt");
    }
}
