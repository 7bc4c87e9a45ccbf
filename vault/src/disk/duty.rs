//! Who may open this voter's disk follows what the cluster decided: the slots file and the sidecar `unlock.chain`.
//!
//! Must never: leave a voter without a slot that its operators hold the key of, or drop a slot before the one that takes over is on disk.

use super::credential::Given;
use super::hsm::OwnToken;
use super::keys::{DiskKeys, Generation};
use super::slots::{Recipient, Slots};
use super::{DiskError, chain};
use holdfast_vault_core::WantedSlots;
use std::path::Path;

/// What the slots file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotsNow {
    /// Newest unlock epoch that a slot is sealed to; 0 = none.
    pub unlock_epoch: u64,
    /// Charter version that the recovery slot is sealed for.
    pub recovery_version: u64,
}

impl SlotsNow {
    /// As `slots` say.
    pub fn of(slots: &Slots) -> Self {
        let mut now = Self { unlock_epoch: 0, recovery_version: 0 };
        for slot in slots.iter() {
            match slot.recipient {
                Recipient::Unlock { epoch } => now.unlock_epoch = now.unlock_epoch.max(epoch),
                Recipient::Recovery { charter_version } => now.recovery_version = charter_version,
                Recipient::Plain | Recipient::Credential { .. } | Recipient::Hsm { .. } => {}
            }
        }
        now
    }
}

/// Makes the slots of the voter in `dir` what `wanted` says; they are on disk when this returns. Besides, a slot is sealed to the
/// credential that the service manager gave this process, if it gave one, and dropped if it did not. Slots of `token` stay,
/// those of others go; [`super::hsm::bring_slots`] makes them.
pub fn bring_slots(dir: &Path, keys: &DiskKeys, wanted: &WantedSlots, token: &OwnToken) -> Result<SlotsNow, DiskError> {
    let own = Own { credential: Given::now(), token: token.as_ref().map(|t| t.id()) };
    bring(dir, keys, wanted, own, &mut |_| Ok(()))
}

/// With what this machine opens the disk by itself.
#[derive(Debug, Clone, Copy)]
struct Own {
    credential: Given,
    token: Option<[u8; 16]>,
}

/// `step` is called after each step that is on disk; its error stops there.
fn bring(
    dir: &Path,
    keys: &DiskKeys,
    wanted: &WantedSlots,
    own: Own,
    step: &mut dyn FnMut(&'static str) -> Result<(), DiskError>,
) -> Result<SlotsNow, DiskError> {
    if wanted.unlock.is_empty() && !wanted.plain {
        return Err(DiskError::NoSlot);
    }
    let _alone = keys.changing();
    let before = load(dir, keys)?;
    let mut slots = load(dir, keys)?;
    for generation in keys.for_slots() {
        seal_all(&mut slots, &generation, wanted, own.credential)?;
    }
    slots.retain(|r| is_wanted(r, wanted, own));
    if let Some((epoch, sealed)) = &wanted.chain
        && !is_chain_there(dir, keys, *epoch, sealed)
    {
        chain::store(dir, keys.cluster(), keys.voter(), *epoch, sealed)?;
        step("the chain is there")?;
    }
    if slots != before {
        slots.store(dir)?;
        step("the slots are as wanted")?;
    }
    if wanted.chain.is_none() && chain::is_there(dir) {
        chain::remove(dir)?;
        step("the chain is gone")?;
    }
    Ok(SlotsNow::of(&slots))
}

pub(super) fn load(dir: &Path, keys: &DiskKeys) -> Result<Slots, DiskError> {
    let slots = Slots::load(dir)?;
    if slots.cluster() != keys.cluster() {
        return Err(DiskError::OtherCluster { what: "slots" });
    }
    if slots.voter() != keys.voter() {
        return Err(DiskError::OtherVoter { what: "slots" });
    }
    Ok(slots)
}

/// One that is damaged or another's is not there: it is made anew.
fn is_chain_there(dir: &Path, keys: &DiskKeys, epoch: u64, sealed: &[u8]) -> bool {
    let found = chain::load(dir, keys.cluster(), keys.voter());
    matches!(found, Ok(Some((e, s))) if e == epoch && s == sealed)
}

/// Seals one generation of the disk key to every recipient that has no slot of it yet.
pub(super) fn seal_all(
    slots: &mut Slots,
    generation: &Generation,
    wanted: &WantedSlots,
    credential: Given,
) -> Result<(), DiskError> {
    let (charter_version, recovery_pk) = wanted.recovery;
    let recovery = (Recipient::Recovery { charter_version }, recovery_pk);
    let unlock = wanted.unlock.iter().map(|(epoch, pk)| (Recipient::Unlock { epoch: *epoch }, *pk));
    let credential = credential.key().map(|pk| (Recipient::Credential { pk }, pk));
    for (recipient, pk) in std::iter::once(recovery).chain(unlock).chain(credential) {
        if !slots.is_sealed_to(generation.number, recipient, &pk) {
            slots.seal_to(generation.number, &generation.key, recipient, &pk)?;
        }
    }
    let is_plain = |s: &super::slots::Slot| s.generation == generation.number && s.recipient == Recipient::Plain;
    if wanted.plain && !slots.iter().any(is_plain) {
        slots.add_plain(generation.number, &generation.key)?;
    }
    Ok(())
}

fn is_wanted(r: Recipient, wanted: &WantedSlots, own: Own) -> bool {
    match r {
        Recipient::Unlock { epoch } => wanted.unlock.iter().any(|(e, _)| *e == epoch),
        Recipient::Recovery { .. } => true,
        Recipient::Plain => wanted.plain,
        Recipient::Credential { pk } => own.credential.keeps(&pk),
        Recipient::Hsm { token } => own.token == Some(token),
    }
}

#[cfg(test)]
#[path = "duty_tests.rs"]
mod tests;
