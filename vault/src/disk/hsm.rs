//! The slot `hsm`: the disk key wrapped by a key that a token made and keeps, by which the voter opens itself at start.
//!
//! Must never: keep a voter from its other slots because a token is away, or take a blob that was wrapped for another disk.

use super::DiskError;
use super::duty;
use super::keys::{DiskKey, DiskKeys, Generation};
use super::slots::{Recipient, Slot, Slots};
use holdfast_hsm::{KeyError, KeyId, KeyPort};
use holdfast_types::{ClusterId, SecretBytes, VoterId};
use std::path::Path;
use std::sync::Arc;

/// Purpose of a wrapped key in an `hsm` slot.
pub const HSM_PURPOSE: &str = "hsm-slot";

/// A token that wraps disk keys.
pub trait SlotToken: Send + Sync {
    /// Which token it is, by the attributes that the configuration names it by.
    fn id(&self) -> [u8; 16];
    /// Wraps `plain`, bound to `aad`, under the key `label`, which is made if it is not there.
    fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError>;
    /// What was wrapped, if it was under the same label and with the same `aad`.
    fn unwrap(&self, label: &str, wrapped: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError>;
}

/// A token that a voter opens its disk with, if there is one.
pub type OwnToken = Option<Arc<dyn SlotToken>>;

/// Each disk has a key of its own in the token, so that it can be destroyed there alone.
pub fn label(cluster: &ClusterId, voter: VoterId) -> String {
    let short: String = cluster.hex().chars().take(16).collect();
    format!("holdfast-slot-{short}-{voter}")
}

/// Destroys the key that wrapped this disk's, in a token that is to open it no more: an old copy of the slots opens nothing then.
pub fn forget(cluster: &ClusterId, voter: VoterId, token: &dyn KeyPort) -> Result<(), KeyError> {
    token.destroy(&KeyId::wrapping(&label(cluster, voter)))
}

/// What a wrapped key is bound to.
fn bound(slots: &Slots, slot: &Slot) -> Result<Vec<u8>, DiskError> {
    let (purpose, aad) = slot.context(slots.voter()).ok_or(DiskError::NoSlot)?;
    Ok([b"holdfast/v1/".as_slice(), purpose.as_bytes(), &[0], &slots.cluster().0, &aad].concat())
}

/// Wraps one generation of the disk key by `token`, unless it is wrapped by it already.
pub(super) fn seal(slots: &mut Slots, generation: &Generation, token: &dyn SlotToken) -> Result<(), DiskError> {
    let recipient = Recipient::Hsm { token: token.id() };
    if slots.iter().any(|s| s.generation == generation.number && s.recipient == recipient) {
        return Ok(());
    }
    slots.verify(generation.number, &generation.key)?;
    let empty = Slot::empty(generation.number, recipient);
    let (label, aad) = (label(slots.cluster(), slots.voter()), bound(slots, &empty)?);
    let wrapped = token.wrap(&label, generation.key.expose(), &aad)?;
    slots.put_wrapped(generation.number, recipient, wrapped);
    Ok(())
}

/// Gives every live generation of the disk key in `dir` a slot of `token`; they are on disk when this returns. Whether there was
/// something to do.
pub fn bring_slots(dir: &Path, keys: &DiskKeys, token: &dyn SlotToken) -> Result<bool, DiskError> {
    let _alone = keys.changing();
    let (before, mut slots) = (duty::load(dir, keys)?, duty::load(dir, keys)?);
    for generation in keys.for_slots() {
        seal(&mut slots, &generation, token)?;
    }
    let news = slots != before;
    if news {
        slots.store(dir)?;
    }
    Ok(news)
}

/// Whether a slot of this disk is a token's.
pub fn is_wanted_by(slots: &Slots) -> bool {
    slots.iter().any(|s| matches!(s.recipient, Recipient::Hsm { .. }))
}

/// The disk keys of every live generation, unwrapped by `token`; `None` where no slot is a token's.
///
/// # Errors
/// [`DiskError::Token`] if the token does not answer or refuses; [`DiskError::NoSlot`] if the slots are another token's. The
/// voter stays sealed, and an operator opens it, or the token comes back.
pub fn try_open(slots: &Slots, token: &dyn SlotToken) -> Result<Option<Vec<DiskKey>>, DiskError> {
    if !is_wanted_by(slots) {
        return Ok(None);
    }
    let recipient = Recipient::Hsm { token: token.id() };
    let live = std::iter::once(slots.current()).chain(slots.pending());
    let keys = live.map(|generation| {
        let mut ours = slots.iter().filter(|s| s.generation == generation && s.recipient == recipient);
        let slot = ours.next().ok_or(DiskError::NoSlot)?;
        let wrapped = slot.boxed().ok_or(DiskError::NoSlot)?;
        let plain = token.unwrap(&label(slots.cluster(), slots.voter()), wrapped, &bound(slots, slot)?)?;
        let key = DiskKey::from_slice(plain.expose()).ok_or(DiskError::BadKey)?;
        slots.verify(generation, &key)?;
        Ok(key)
    });
    keys.collect::<Result<Vec<_>, _>>().map(Some)
}

#[cfg(test)]
#[path = "hsm_tests.rs"]
mod tests;
