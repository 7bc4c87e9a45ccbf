//! The next charter: who may do what, and which recovery key opens everything, from now on.

use super::submit::By;
use super::{Event, Step};
use crate::refusal::Refusal;
use crate::state::Identity;
use holdfast_types::Role;
use holdfast_wire::keys::key_id;
use holdfast_wire::{boxes, v1};

impl Step<'_> {
    /// LAW: a charter counts only with the Admins of the one before it and its own
    /// (`the_next_charter_needs_the_old_and_the_new_admins`).
    pub(super) fn put_charter(
        &mut self,
        by: &By<'_>,
        shown: v1::Charter,
        raw: &[u8],
        sealed: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        self.state.next_charter(by.st)?;
        let recovery = shown
            .recovery
            .as_ref()
            .and_then(|r| <[u8; 32]>::try_from(r.public_key.as_slice()).ok())
            .ok_or_else(|| Refusal::invalid("the charter names no recovery key"))?;
        let new_key = self.state.recovery_pk() != Some(recovery);
        if new_key {
            self.rebox_for_recovery(&recovery, sealed)?;
        }
        let gone = self.dismissed(&shown);
        let version = shown.version;
        let s = &mut *self.state;
        s.charter = shown;
        if let Some(c) = &mut s.founded {
            c.charters.push(raw.to_vec());
        }
        self.leaf(by.draft("charter", version).with("recovery_key", if new_key { "new" } else { "same" }));
        if new_key {
            // An old copy of a disk and the old key would open it as it is today, and the terms in its log.
            self.replace_disk_keys();
            self.state.keyring_ordered = true;
        }
        self.next_epoch();
        // Each voter's recovery slot names the charter's version, also where the key is the same.
        self.event(Event::Slots);
        for id in gone {
            self.event(Event::Revoked(id));
        }
        Ok(())
    }

    /// Every term that is alive, boxed to another recovery key: all of them, or nothing.
    fn rebox_for_recovery(&mut self, pk: &[u8; 32], sealed: Option<&[u8]>) -> Result<(), Refusal> {
        let boxed: Vec<(u32, Vec<u8>)> = sealed
            .and_then(|b| postcard::from_bytes(b).ok())
            .ok_or_else(|| Refusal::invalid("the keyring is not boxed to the new recovery key"))?;
        let live = self.state.recovery_terms.keys();
        let right = live.eq(boxed.iter().map(|(t, _)| t))
            && boxed.iter().all(|(_, b)| boxes::parse(b).is_ok_and(|p| p.kid == key_id(pk)));
        if !right {
            return Err(Refusal::changed("the keyring moved meanwhile; try again"));
        }
        self.state.recovery_terms = boxed.into_iter().collect();
        Ok(())
    }

    /// Operators with certificates whose key the next charter does not name any more: their connections end. Their
    /// certificates count only as long as the charter names them.
    fn dismissed(&mut self, next: &v1::Charter) -> Vec<String> {
        let key_in = |c: &v1::Charter, id: &str| c.operators.iter().find(|o| o.id == id).and_then(|o| o.key.clone());
        let before = &self.state.charter;
        let rows = self.state.identities.iter_mut().filter(|(_, i)| i.role == Role::Op);
        let changed = rows.filter(|(id, _)| key_in(before, id) != key_in(next, id));
        changed.map(|(id, row)| dismiss(id, row)).collect()
    }
}

fn dismiss(id: &str, row: &mut Identity) -> String {
    // Moved, not dropped: the numbers of later certificates go on.
    let mut certs = std::mem::take(&mut row.current);
    row.retired.append(&mut certs);
    id.to_owned()
}
