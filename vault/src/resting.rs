//! After a busy while, what it left in memory is given back: tables of the storage engine that are not on disk yet, and what
//! is free of the heap.
//!
//! Must never: do so while the voter is busy. It would be taken again at once, and those who write would wait.

use crate::heap;
use crate::raft::{Store, StoreError};
use crate::standing::Standing;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the log still grows.
const LOOK: Duration = Duration::from_secs(2);
/// Entries applied from one look to the next that count as busy.
const BUSY: u64 = 200;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// What was written goes from the engine's memory into files.
    Store,
    /// What is held of it still goes, and then what is free of the heap.
    Heap,
    Nothing,
}

/// How far the log was at the last look, and what is due if it is nearly there at the next.
#[derive(Debug)]
struct Looks {
    applied: u64,
    snapshot: Option<u64>,
    due: Due,
}

impl Looks {
    /// A voter that has just started holds what its start needed.
    fn after_start(applied: u64, snapshot: Option<u64>) -> Self {
        Self { applied, snapshot, due: Due::Store }
    }

    fn look(&mut self, applied: u64, snapshot: Option<u64>) -> Due {
        let busy = applied.saturating_sub(self.applied) >= BUSY || snapshot != self.snapshot;
        (self.applied, self.snapshot) = (applied, snapshot);
        if busy {
            self.due = Due::Store;
            return Due::Nothing;
        }
        let next = if self.due == Due::Store { Due::Heap } else { Due::Nothing };
        std::mem::replace(&mut self.due, next)
    }
}

/// Looks until `stop`.
pub async fn tend(standing: Arc<Standing>, stop: CancellationToken) {
    let far = || {
        let status = standing.voter.status();
        (status.applied.unwrap_or_default(), status.snapshot)
    };
    let (applied, snapshot) = far();
    let mut looks = Looks::after_start(applied, snapshot);
    let mut every = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let (applied, snapshot) = far();
        let due = looks.look(applied, snapshot);
        if due == Due::Nothing {
            continue;
        }
        let store = standing.store.clone();
        match tokio::task::spawn_blocking(move || rest(&store, due)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "memory of the store was not given back"),
            Err(e) => tracing::warn!(error = %e, "giving memory back ended by a panic"),
        }
    }
}

fn rest(store: &Store, due: Due) -> Result<(), StoreError> {
    match due {
        Due::Store => store.flush_tables(),
        Due::Heap => {
            store.forget_flushed()?;
            heap::give_back();
            Ok(())
        }
        Due::Nothing => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_a_busy_while_and_never_in_it() {
        let mut looks = Looks::after_start(10, None);
        let quiet = |looks: &mut Looks, at| [looks.look(at, None), looks.look(at + 1, None), looks.look(at + 2, None)];
        assert_eq!(quiet(&mut looks, 10), [Due::Store, Due::Heap, Due::Nothing], "after the start");
        assert_eq!(quiet(&mut looks, 13), [Due::Nothing; 3]);
        for n in 1..5 {
            assert_eq!(looks.look(15 + n * BUSY, None), Due::Nothing, "while it is busy");
        }
        let now = 15 + 4 * BUSY;
        assert_eq!(looks.look(now, None), Due::Store);
        assert_eq!(looks.look(now + BUSY, None), Due::Nothing, "busy again before it came to the heap");
        assert_eq!(quiet(&mut looks, now + BUSY), [Due::Store, Due::Heap, Due::Nothing]);
    }

    #[test]
    fn what_a_snapshot_needed_is_given_back_on_a_voter_that_is_not_busy() {
        let mut looks = Looks::after_start(10, None);
        let told = [None, None, None, Some(10), Some(10), Some(10), Some(10)].map(|snapshot| looks.look(10, snapshot));
        let expected = [Due::Store, Due::Heap, Due::Nothing, Due::Nothing, Due::Store, Due::Heap, Due::Nothing];
        assert_eq!(told, expected);
    }
}
