//! The unlock key: its epoch, the rotation under way, and the orders that voters carry out on their own disks.
//!
//! Agrees with the model of the rotation: every voter can be opened with a key that the operator was told to keep, at any
//! moment (`every_voter_can_be_opened_at_every_step_of_a_rotation`), in each of the model's states
//! (`a_rotation_reaches_the_states_of_its_model_and_no_other_and_each_voter_opens_in_every_one`).

use super::{State, VoterRow};
use crate::refusal::Refusal;
use holdfast_types::{Digest, Millis, VoterId};
use holdfast_wire::keys::key_id;
use holdfast_wire::{boxes, v1};
use serde::{Deserialize, Serialize};

/// One unlock key, as the cluster knows it: never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockKey {
    /// X25519 public key.
    pub pk: [u8; 32],
    /// Shares needed; 0 = one secret.
    pub threshold: u32,
    /// SHA-256 of each share.
    pub share_digests: Vec<Digest>,
}

/// The key that is about to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextUnlock {
    /// Its epoch: the present one + 1.
    pub epoch: u64,
    /// The key.
    pub key: UnlockKey,
    /// Box of the present secret to the next key; empty where there is none.
    pub chain: Vec<u8>,
    /// The present key is in wrong hands: every voter replaces its disk key too.
    pub compromised: bool,
    /// When it began.
    pub since: Millis,
}

/// All about unlocking. STORED with the state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Unlock {
    /// The epoch in force; 1 from the founding on.
    pub epoch: u64,
    /// The key in force; `None` = autolock is off.
    pub key: Option<UnlockKey>,
    /// The rotation under way.
    pub next: Option<NextUnlock>,
    /// Box of the secret before the one in force to the one in force, for a voter that slept through the rotation, with the
    /// epoch of the secret that it opens to. Kept until the next rotation.
    pub chain: Option<(u64, Vec<u8>)>,
    /// How many times voters were ordered to replace their disk keys.
    pub disk_key_order: u64,
}

/// Most shares that an unlock key is split into.
const MAX_SHARES: usize = 255;

impl UnlockKey {
    /// The key that a Prepare names, if what it says fits together. Whether its time has come, `apply` decides.
    pub(crate) fn read(p: &v1::UnlockPrepare) -> Result<Self, Refusal> {
        let pk = <[u8; 32]>::try_from(p.pk.as_slice())
            .map_err(|_| Refusal::invalid("an unlock key's public half has 32 bytes"))?;
        let digests: Option<Vec<Digest>> = p.share_digests.iter().map(|d| Digest::from_slice(d)).collect();
        let share_digests = digests.ok_or_else(|| Refusal::invalid("a share's digest has 32 bytes"))?;
        let (k, n) = (p.threshold as usize, share_digests.len());
        let one_secret = k == 0 && n == 0;
        if !(one_secret || ((1..=n).contains(&k) && n <= MAX_SHARES)) {
            return Err(Refusal::invalid(format!("an unlock key of {n} shares cannot need {k} of them")));
        }
        if !p.chain.is_empty() {
            let to = boxes::parse(&p.chain).map_err(|e| Refusal::invalid(format!("the chain: {e}")))?.kid;
            if to != key_id(&pk) {
                return Err(Refusal::invalid("the chain is not boxed to the next unlock key"));
            }
            if p.compromised {
                return Err(Refusal::invalid("from a compromised unlock key no chain leads to the next one"));
            }
        }
        Ok(Self { pk, threshold: p.threshold, share_digests })
    }
}

impl Unlock {
    /// The epoch that the next key must have: none is ever used for two keys, also not of one that never took over.
    pub fn next_epoch(&self) -> u64 {
        self.next.as_ref().map_or(self.epoch, |n| n.epoch) + 1
    }
}

/// What a voter's slots must be now. It makes them so by itself: nothing secret but its own disk key is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSlots {
    /// Unlock keys, each with its epoch: the present one and the one that is about to take over.
    pub unlock: Vec<(u64, [u8; 32])>,
    /// The disk key lies open beside the disk: autolock is off.
    pub plain: bool,
    /// The recovery key, with the version of the charter that names it first.
    pub recovery: (u64, [u8; 32]),
    /// Goes into the sidecar that is read while the voter is locked: a box of an older unlock secret to a newer one, with
    /// the epoch of the secret that it opens to.
    pub chain: Option<(u64, Vec<u8>)>,
    /// Newest order to replace the disk key.
    pub disk_key_order: u64,
}

impl State {
    /// What each voter's slots must be now; `None` before the founding.
    pub fn wanted_slots(&self) -> Option<WantedSlots> {
        let recovery = (self.charter.version, self.recovery_pk()?);
        let u = &self.unlock;
        let present = u.key.iter().map(|k| (u.epoch, k.pk));
        let next = u.next.iter().map(|n| (n.epoch, n.key.pk));
        // From Prepare on the chain lies on every disk: a voter that sleeps through Finalize must find it at any other.
        let begun = u.next.as_ref().filter(|n| !n.chain.is_empty()).map(|n| (u.epoch, n.chain.clone()));
        Some(WantedSlots {
            unlock: present.chain(next).collect(),
            plain: u.key.is_none(),
            recovery,
            chain: begun.or_else(|| u.chain.clone()),
            disk_key_order: u.disk_key_order,
        })
    }
    /// The recovery key of the charter in force.
    pub(crate) fn recovery_pk(&self) -> Option<[u8; 32]> {
        self.charter.recovery.as_ref().and_then(|r| <[u8; 32]>::try_from(r.public_key.as_slice()).ok())
    }
    /// Members whose slots are as the rotation under way wants them, and those whose are not; without one, as the key in
    /// force wants them.
    pub(crate) fn slots_ready(&self) -> (Vec<VoterId>, Vec<VoterId>) {
        let u = &self.unlock;
        let wanted = u.next.as_ref().map(|n| n.epoch).or_else(|| u.key.as_ref().map(|_| u.epoch));
        let ready = |v: &VoterRow| wanted.map_or(v.unlock_epoch == 0, |epoch| v.unlock_epoch >= epoch);
        let (yes, no): (Vec<_>, Vec<_>) = self.voters().partition(|(_, v)| ready(v));
        let ids = |rows: Vec<(VoterId, &VoterRow)>| rows.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        (ids(yes), ids(no))
    }
    /// Members that only an older unlock key than the one in force opens, be it by the chain; where autolock is off, those
    /// that do not open by themselves yet.
    pub(crate) fn left_behind(&self) -> Vec<VoterId> {
        let u = &self.unlock;
        let waits = |v: &VoterRow| match &u.key {
            Some(_) => u.chain.is_some() && v.unlock_epoch < u.epoch,
            None => (1..=u.epoch).contains(&v.unlock_epoch),
        };
        self.voters().filter(|(_, v)| waits(v)).map(|(id, _)| id).collect()
    }
    /// All about unlocking, as operators see it.
    pub fn unlock_view(&self) -> v1::UnlockView {
        let u = &self.unlock;
        let (ready, missing) = self.slots_ready();
        let numbers = |ids: Vec<VoterId>| ids.into_iter().map(|v| v.0).collect::<Vec<_>>();
        let next = u.next.as_ref();
        let key = next.map(|n| &n.key).or(u.key.as_ref());
        v1::UnlockView {
            autolock: self.autolock(),
            epoch: u.epoch,
            pending: next.map_or(0, |n| n.epoch),
            threshold: key.map_or(0, |k| k.threshold),
            share_digests: key.map(|k| k.share_digests.iter().map(|d| d.to_vec()).collect()).unwrap_or_default(),
            ready: numbers(ready),
            missing: numbers(missing),
            compromised: next.is_some_and(|n| n.compromised),
            disk_key_order: u.disk_key_order,
            pending_pk: next.map(|n| n.key.pk.to_vec()).unwrap_or_default(),
            since_ms: next.map_or(0, |n| n.since.0),
            chain: next.is_some_and(|n| !n.chain.is_empty()),
        }
    }
}
