//! What the beginning of an era leaves: grants of the era before, until their lease and grace are over, and by whom that era's
//! statements were signed.

use super::{IdentityState, Revoked, State};
use crate::Command;
use holdfast_types::{GrantId, Millis, NodeId, Role};
use holdfast_wire::{statement, v1};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest lease and the longest grace after it that a charter may allow: a day, and three.
const LONGEST: Duration = Duration::from_secs(96 * 3600);

/// The longest life of a certificate: for so long after an era began a machine may have had one of the era before.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// Most removals that stay on the list of revocations after the last certificate was over: of more, the oldest are forgotten.
const MOST_REMEMBERED: usize = 4096;

/// The era before, as it was in the backup, or on the disk, that this one began with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EraBefore {
    /// Its number.
    pub era: u64,
    /// The epoch up to which its revocations are known.
    pub epoch: u64,
    /// Its newest Bundle that is known, an encoded Statement.
    pub bundle: Vec<u8>,
    /// The epoch of its newest revocations that were shown: who was in quarantine is not taken from older ones, for a release may
    /// lie between them.
    pub quarantines_of: u64,
    /// Whom operators released from quarantine since: what that era said of them is over.
    pub released: BTreeSet<String>,
}

impl State {
    /// Whether this is a node or an orchestrator that was not removed.
    pub(crate) fn is_removable(&self, id: &str) -> bool {
        let row = self.identities.get(id).filter(|i| matches!(i.role, Role::Node | Role::Orch));
        NodeId::parse(id).is_ok() && row.is_some_and(|i| i.state != IdentityState::Removed)
    }
    /// Whether a quarantine of the era before is news of this identity: it works here, and operators of this era did not release
    /// it from that one already.
    pub(crate) fn is_to_be_quarantined(&self, id: &str) -> bool {
        let works =
            self.is_removable(id) && self.identities.get(id).is_some_and(|i| i.state != IdentityState::Quarantined);
        works && self.before.as_ref().is_some_and(|b| !b.released.contains(id))
    }
    /// Takes off the list of revocations whom it needs no more. A backup may bring back whoever was removed, or is in quarantine,
    /// and the list is what the fleet remembers then: so he stays on it when no certificate of his is left, in quarantine until
    /// operators release him, and removed for as long as he could come back if he had not been.
    /// (`who_was_removed_long_before_the_end_is_remembered_too`)
    pub(crate) fn prune_revoked(&mut self, at: Millis) {
        let (known, identities) = (self.keys_since(at), &self.identities);
        let stopped = |id: &String| identities.get(id).is_some_and(|i| i.state == IdentityState::Quarantined);
        let remembered = |r: &Revoked| r.removed.is_some_and(|t| known < t.plus(LONGEST_LIFE));
        self.revoked.retain(|id, r| r.until > at || stopped(id) || remembered(r));
        let ended = self.revoked.iter().filter(|(_, r)| r.until <= at);
        let mut ended: Vec<(Millis, String)> = ended.filter_map(|(id, r)| Some((r.removed?, id.clone()))).collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(MOST_REMEMBERED);
        for (_, id) in ended.iter().take(surplus) {
            self.revoked.remove(id);
        }
    }
    /// Whether a task that runs under this grant, which is over or not known, is left to the rest of its lease and grace: a reset
    /// ended it, or it was granted after the backup that the era began with. No task has more left than any may
    /// have. (`a_task_of_the_era_before_is_left_to_its_lease_and_no_longer_than_any_may_last`)
    pub fn is_left_from_before(&self, id: &GrantId, now: Millis) -> bool {
        let Some(began) = self.era_began() else { return false };
        // What was taken back before the era began stays taken back.
        let by_reset = self.grant(id).is_none_or(|g| g.issued < began && g.over.is_some_and(|over| over >= began));
        by_reset && now < began.plus(LONGEST)
    }
    /// When its operators began this era; none in the first.
    fn era_began(&self) -> Option<Millis> {
        let st = self.resets.last().and_then(|b| Command::statement(b))?;
        Some(Millis(statement::peek::<v1::Reset>(&st).ok()?.issued_at_ms))
    }
    /// Whether what the era before signed removes nobody any more: no machine that lived then, and may come back, has not come by
    /// `now`, and keys of that era are lost or stolen some day. Time in which no vault ran does not count, as for who comes back.
    /// (`what_an_era_before_signed_removes_nobody_for_ever`, `what_an_era_before_signed_counts_for_as_long_as_machines_may_come_back`)
    pub(crate) fn is_before_over(&self, now: Millis) -> bool {
        self.era_began().is_some_and(|began| self.keys_since(now) >= began.plus(LONGEST_LIFE))
    }
}
