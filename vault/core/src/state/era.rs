//! What the beginning of an era leaves running: grants of the era before, until their lease and grace are over.

use super::State;
use crate::Command;
use holdfast_types::{GrantId, Millis};
use holdfast_wire::{statement, v1};
use std::time::Duration;

/// The longest lease and the longest grace after it that a charter may allow: a day, and three.
const LONGEST: Duration = Duration::from_secs(96 * 3600);

impl State {
    /// Whether a task that runs under this grant, which is over or not known, is left to the rest of its lease and grace: a reset
    /// ended it, or it was granted after the backup that the era began with. No task has more left than any may
    /// have. (`a_task_of_the_era_before_is_left_to_its_lease_and_no_longer_than_any_may_last`)
    pub fn is_left_from_before(&self, id: &GrantId, now: Millis) -> bool {
        let Some(st) = self.resets.last().and_then(|b| Command::statement(b)) else { return false };
        let Ok(reset) = statement::peek::<v1::Reset>(&st) else { return false };
        let began = Millis(reset.issued_at_ms);
        // What was taken back before the era began stays taken back.
        let by_reset = self.grant(id).is_none_or(|g| g.issued < began && g.over.is_some_and(|over| over >= began));
        by_reset && now < began.plus(LONGEST)
    }
}
