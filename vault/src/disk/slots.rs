//! The `slots` file: to whom this voter's disk key is sealed. Any one slot opens it (protocol §2.3).
//!
//! Must never: be without a recovery slot, hold the unlock secret, or take a wrong key for a right one.
//!
//! STORED: file `slots`, body in postcard inside the frame of `envelope`; golden file `vault/golden/slots.hex`.

use super::envelope::{Kind, Opened};
use super::hsm::HSM_PURPOSE;
use super::keys::{At, DiskKey, DiskKeys, Generation};
use super::{DiskError, keyspace, random32};
use holdfast_types::{ClusterId, VoterId};
use holdfast_wire::boxes;
use holdfast_wire::keys::key_id;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

const KIND: Kind = Kind { name: "slots", magic: *b"HFSL", format: 1 };
/// What a check record says once opened.
const CHECK: &[u8] = b"holdfast disk key check";
/// Purpose of a box in an `unlock` slot.
pub const UNLOCK_PURPOSE: &str = "unlock-slot";
/// Purpose of a box in a `recovery` slot.
pub const RECOVERY_PURPOSE: &str = "recovery-slot";

/// Purpose of a box in a `credential` slot.
pub const CREDENTIAL_PURPOSE: &str = "credential-slot";

/// Who opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recipient {
    /// The operator's unlock secret of this epoch.
    Unlock {
        /// Unlock epoch e.
        epoch: u64,
    },
    /// The recovery key of this charter version.
    Recovery {
        /// Charter version that names the key.
        charter_version: u64,
    },
    /// Anybody: the disk key lies in clear (an `init` without `--autolock`).
    Plain,
    /// This machine, by a credential that its service manager gives the process (see [`super::credential`]).
    Credential {
        /// X25519 public key of the credential.
        pk: [u8; 32],
    },
    /// This voter's token (see [`super::hsm`]).
    Hsm {
        /// Which one.
        token: [u8; 16],
    },
}

/// One slot: a recipient and the disk key sealed to it.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Which generation of the disk key.
    pub generation: u32,
    /// Who opens it.
    pub recipient: Recipient,
    sealed: Zeroizing<Vec<u8>>,
}

impl Slot {
    /// A slot that holds nothing yet.
    pub(super) fn empty(generation: u32, recipient: Recipient) -> Self {
        Self { generation, recipient, sealed: Zeroizing::default() }
    }
    /// The box to open, or `None` for a plain slot, which has none.
    pub fn boxed(&self) -> Option<&[u8]> {
        (self.recipient != Recipient::Plain).then_some(&self.sealed)
    }
    /// Purpose and additional data that its box is bound to (protocol, Box); `None` for a plain slot.
    pub fn context(&self, voter: VoterId) -> Option<(&'static str, Vec<u8>)> {
        let (purpose, number) = match self.recipient {
            Recipient::Unlock { epoch } => (UNLOCK_PURPOSE, epoch),
            Recipient::Recovery { charter_version } => (RECOVERY_PURPOSE, charter_version),
            Recipient::Credential { .. } => (CREDENTIAL_PURPOSE, 0),
            Recipient::Hsm { .. } => (HSM_PURPOSE, 0),
            Recipient::Plain => return None,
        };
        Some((purpose, boxes::slot_aad(voter.0, self.generation, number)))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("generation", &self.generation)
            .field("recipient", &self.recipient)
            .finish_non_exhaustive()
    }
}

/// The slots file, in memory. Changes reach the disk with [`Slots::store`].
#[derive(Debug, PartialEq, Eq)]
pub struct Slots {
    cluster: ClusterId,
    voter: VoterId,
    body: Body,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    current: u32,
    pending: Option<u32>,
    slots: Vec<Slot>,
    checks: Vec<(u32, Vec<u8>)>,
}

impl Slots {
    /// The slots of a new voter, generation 1: the recovery slot is there from the start.
    pub fn create(
        cluster: ClusterId,
        voter: VoterId,
        dk: &DiskKey,
        charter_version: u64,
        pk_recovery: &[u8],
    ) -> Result<Self, DiskError> {
        let mut s =
            Self { cluster, voter, body: Body { current: 1, pending: None, slots: Vec::new(), checks: Vec::new() } };
        s.add_check(1, dk)?;
        s.seal_to(1, dk, Recipient::Recovery { charter_version }, pk_recovery)?;
        Ok(s)
    }

    /// The cluster this voter belongs to.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }
    /// The voter.
    pub fn voter(&self) -> VoterId {
        self.voter
    }
    /// Number of the disk key in use.
    pub fn current(&self) -> u32 {
        self.body.current
    }
    /// Number of the disk key that is replacing it, while it is.
    pub fn pending(&self) -> Option<u32> {
        self.body.pending
    }
    /// Every slot.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.body.slots.iter()
    }

    /// Adds or replaces the slot of `recipient`, a token, with what that wrapped.
    pub(super) fn put_wrapped(&mut self, generation: u32, recipient: Recipient, wrapped: Vec<u8>) {
        self.put(Slot { generation, recipient, sealed: Zeroizing::new(wrapped) });
    }

    /// Adds or replaces the slot of `recipient` (one that has a public key) for generation `generation`, sealed to `pk`.
    pub fn seal_to(&mut self, generation: u32, dk: &DiskKey, recipient: Recipient, pk: &[u8]) -> Result<(), DiskError> {
        self.verify(generation, dk)?;
        let mut slot = Slot::empty(generation, recipient);
        let (purpose, aad) = slot.context(self.voter).ok_or(DiskError::NoSlot)?;
        let context = boxes::Context { purpose, cluster: &self.cluster, aad: &aad };
        slot.sealed = Zeroizing::new(boxes::seal(pk, &context, None, dk.expose(), random32()?)?);
        if let Recipient::Recovery { .. } = recipient {
            self.body
                .slots
                .retain(|s| s.generation != generation || !matches!(s.recipient, Recipient::Recovery { .. }));
        }
        self.put(slot);
        Ok(())
    }

    /// Lays the disk key down in clear. Only for an `init` without `--autolock`; `status` must say so for as long
    /// as it is there.
    pub fn add_plain(&mut self, generation: u32, dk: &DiskKey) -> Result<(), DiskError> {
        self.verify(generation, dk)?;
        self.put(Slot { generation, recipient: Recipient::Plain, sealed: Zeroizing::new(dk.expose().to_vec()) });
        Ok(())
    }

    /// Whether generation `generation` has a slot of `recipient` that is sealed to `pk`.
    pub fn is_sealed_to(&self, generation: u32, recipient: Recipient, pk: &[u8]) -> bool {
        let mut of = self.iter().filter(|s| s.generation == generation && s.recipient == recipient);
        of.any(|s| boxes::parse(&s.sealed).is_ok_and(|b| b.kid == key_id(pk)))
    }

    /// Takes out every slot whose recipient is not `wanted`. Recovery slots stay.
    pub fn retain(&mut self, wanted: impl Fn(Recipient) -> bool) {
        self.body.slots.retain(|s| matches!(s.recipient, Recipient::Recovery { .. }) || wanted(s.recipient));
    }

    /// Takes out the unlock slots of an epoch, or the plain slot. The recovery slot stays: [`DiskError::NoSlot`].
    pub fn remove(&mut self, recipient: Recipient) -> Result<(), DiskError> {
        if matches!(recipient, Recipient::Recovery { .. }) || !self.iter().any(|s| s.recipient == recipient) {
            return Err(DiskError::NoSlot);
        }
        self.body.slots.retain(|s| s.recipient != recipient);
        Ok(())
    }

    /// Begins to replace the disk key: `next` becomes the pending generation. Seal it to its recipients before storing.
    pub fn begin_rotation(
        &mut self,
        next: &DiskKey,
        charter_version: u64,
        pk_recovery: &[u8],
    ) -> Result<u32, DiskError> {
        let number = self.body.pending.unwrap_or(self.body.current).saturating_add(1);
        if self.body.pending.is_some() {
            return Err(DiskError::Corrupt { what: KIND.name, why: "a rotation of the disk key is already under way" });
        }
        self.add_check(number, next)?;
        self.seal_to(number, next, Recipient::Recovery { charter_version }, pk_recovery)?;
        self.body.pending = Some(number);
        Ok(number)
    }

    /// Ends the replacement: only call it when nothing on the disk is sealed by the old key any more.
    pub fn finish_rotation(&mut self) -> Result<(), DiskError> {
        let next = self.body.pending.take().ok_or(DiskError::NoSlot)?;
        self.body.current = next;
        self.body.slots.retain(|s| s.generation == next);
        self.body.checks.retain(|(g, _)| *g == next);
        Ok(())
    }

    /// The disk keys in the plain slots, if autolock is off.
    pub fn plain_keys(&self) -> Vec<DiskKey> {
        let plain = self.iter().filter(|s| s.recipient == Recipient::Plain);
        plain.filter_map(|s| DiskKey::from_slice(&s.sealed)).collect()
    }

    /// Turns recovered disk keys into the keys of this disk. Every live generation must be among `keys`, in any order;
    /// a key that is none of them is [`DiskError::BadKey`].
    pub fn open(&self, keys: Vec<DiskKey>) -> Result<DiskKeys, DiskError> {
        let (mut current, mut pending) = (None, None);
        for key in keys {
            if self.verify(self.body.current, &key).is_ok() {
                current = Some(Generation { number: self.body.current, key });
            } else {
                let number = self.body.pending.ok_or(DiskError::BadKey)?;
                self.verify(number, &key)?;
                pending = Some(Generation { number, key });
            }
        }
        if self.body.pending.is_some() && pending.is_none() {
            return Err(DiskError::BadKey);
        }
        DiskKeys::new(self.cluster, self.voter, current.ok_or(DiskError::BadKey)?, pending)
    }

    /// Whether `dk` is this disk's key of that generation.
    pub fn verify(&self, generation: u32, dk: &DiskKey) -> Result<(), DiskError> {
        let (_, check) = self.body.checks.iter().find(|(g, _)| *g == generation).ok_or(DiskError::NoSlot)?;
        let said = self.probe(generation, dk)?.open(check_at(generation), check).map_err(|_| DiskError::BadKey)?;
        if said.expose() == CHECK { Ok(()) } else { Err(DiskError::BadKey) }
    }

    fn add_check(&mut self, generation: u32, dk: &DiskKey) -> Result<(), DiskError> {
        let sealed = self.probe(generation, dk)?.seal(check_at(generation), CHECK).map_err(|_| DiskError::Entropy)?;
        self.body.checks.push((generation, sealed));
        Ok(())
    }

    fn probe(&self, number: u32, dk: &DiskKey) -> Result<DiskKeys, DiskError> {
        DiskKeys::new(self.cluster, self.voter, Generation { number, key: dk.duplicate() }, None)
    }

    fn put(&mut self, slot: Slot) {
        self.body.slots.retain(|s| (s.generation, s.recipient) != (slot.generation, slot.recipient));
        self.body.slots.push(slot);
    }

    /// The file's bytes.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, DiskError> {
        let body = super::encoded(&self.body).map_err(|_| corrupt("cannot be encoded"))?;
        Ok(KIND.frame(&self.cluster, self.voter, &body))
    }

    /// Reads the file's bytes; strict: what does not encode to the same bytes again is refused.
    pub fn decode(file: &[u8]) -> Result<Self, DiskError> {
        Self::from_opened(KIND.unframe(file)?)
    }

    fn from_opened(o: Opened) -> Result<Self, DiskError> {
        let body: Body = postcard::from_bytes(&o.body).map_err(|_| corrupt("malformed"))?;
        if super::encoded(&body).ok().as_ref() != Some(&o.body) {
            return Err(corrupt("not in canonical form"));
        }
        let live = std::iter::once(body.current).chain(body.pending);
        for g in live {
            let recovery =
                body.slots.iter().any(|s| s.generation == g && matches!(s.recipient, Recipient::Recovery { .. }));
            if !recovery || !body.checks.iter().any(|(c, _)| *c == g) {
                return Err(corrupt("recovery slot or check record missing"));
            }
        }
        Ok(Self { cluster: o.cluster, voter: o.voter, body })
    }

    /// Reads `slots` in `dir`.
    pub fn load(dir: &Path) -> Result<Self, DiskError> {
        Self::from_opened(KIND.read(dir)?)
    }

    /// Writes `slots` in `dir`: atomic, and on disk when this returns.
    pub fn store(&self, dir: &Path) -> Result<(), DiskError> {
        KIND.replace(dir, &self.encode()?)
    }
}

fn corrupt(why: &'static str) -> DiskError {
    DiskError::Corrupt { what: KIND.name, why }
}

fn check_at(generation: u32) -> At {
    At::new(keyspace::CHECK, u64::from(generation))
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
