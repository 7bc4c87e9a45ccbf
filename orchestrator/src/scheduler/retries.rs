//! When things are tried again: waits that double, and a queue of what falls due.
//!
//! No clock: whoever asks brings the time.

use holdfast_types::{GrantId, Millis, NodeId, TaskId};
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest wait; a task that ran for so long starts over with the shortest.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// The first wait.
const FIRST: Duration = Duration::from_secs(1);

/// The wait after `failures` in a row (at least 1): 1 s, doubling to [`LONGEST`].
pub(super) fn wait_after(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST)
}

/// When a budget that is used up at `now` is free again for certain: the vault counts over a minute that slides, in slots of 5 s.
pub(super) fn budget_again(now: Millis) -> Millis {
    now.plus(Duration::from_secs(65))
}

/// What falls due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// The place of a task may be filled again.
    Retry(TaskId),
    /// A task was watched for long enough.
    Watched(TaskId, GrantId),
    /// A node may have been away for too long.
    NodeAway(NodeId),
    /// The vault may not have let a protected task go.
    LetGo(TaskId, GrantId),
    /// A lease may have ended.
    Leases,
}

/// What falls due and when, in the order in which it was asked for.
#[derive(Default)]
pub(super) struct Timers {
    entries: BTreeMap<(Millis, u64), Due>,
    next: u64,
}

impl Timers {
    pub(super) fn add(&mut self, at: Millis, due: Due) {
        self.entries.insert((at, self.next), due);
        self.next += 1;
    }
    /// The next time at which something falls due.
    pub(super) fn next(&self) -> Option<Millis> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }
    /// What has fallen due by `now`.
    pub(super) fn take(&mut self, now: Millis) -> Vec<Due> {
        let later = self.entries.split_off(&(Millis(now.0.saturating_add(1)), 0));
        std::mem::replace(&mut self.entries, later).into_values().collect()
    }
}

/// How often in a row, and until when to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) times: u32,
    pub(super) until: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_one_second_to_a_minute() {
        let seconds: Vec<u64> = (1..=9).map(|n| wait_after(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(wait_after(u32::MAX), LONGEST);
    }

    #[test]
    fn what_falls_due_together_keeps_its_order() {
        let mut timers = Timers::default();
        let node = |n: u32| Due::NodeAway(NodeId::parse(&format!("node-{n}")).unwrap());
        timers.add(Millis(5), node(1));
        timers.add(Millis(7), node(2));
        timers.add(Millis(5), node(3));
        assert_eq!(timers.take(Millis(4)), []);
        assert_eq!(timers.take(Millis(5)), [node(1), node(3)]);
        assert_eq!(timers.next(), Some(Millis(7)));
    }

    #[test]
    fn a_budget_is_waited_for_until_all_of_it_is_free_again() {
        assert_eq!(budget_again(Millis(60_000)), Millis(125_000));
    }
}
