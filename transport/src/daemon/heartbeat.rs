//! Whether a daemon's main loop still turns: the loop says so each time it does, and the watchdog asks.
//!
//! Never beats by itself: what is stuck must look stuck.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a loop that waits for something says that it still does. A loop of your own turns at least as often.
pub const PULSE: Duration = Duration::from_secs(1);

/// When a loop turned last. Shared by clones.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Default for Heartbeat {
    /// Beats once.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heartbeat {
    /// The loop turns.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
    /// Whether the loop has turned within `patience`.
    pub fn has_beaten_within(&self, patience: Duration) -> bool {
        self.has_beaten_within_at(Instant::now(), patience)
    }
    fn has_beaten_within_at(&self, now: Instant, patience: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(last) <= patience
    }
    /// Does `work` and beats while the task that does it is alive: for a wait that may be long, or has an end of its own.
    pub async fn during<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = pulse.tick() => self.beat(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn last(heart: &Heartbeat) -> Instant {
        *heart.0.lock().unwrap()
    }

    #[test]
    fn a_loop_that_has_not_turned_for_longer_than_is_borne_is_stuck() {
        let heart = Heartbeat::default();
        let begun = last(&heart);
        assert!(heart.has_beaten_within_at(begun, Duration::ZERO));
        assert!(heart.has_beaten_within_at(begun + PATIENCE, PATIENCE));
        let late = begun + PATIENCE + Duration::from_millis(1);
        assert!(!heart.has_beaten_within_at(late, PATIENCE));
        // The loop turns again, and whoever holds a clone sees it.
        let seen = heart.clone();
        *heart.0.lock().unwrap() = late;
        assert!(seen.has_beaten_within_at(late + PATIENCE, PATIENCE));
        assert!(!seen.has_beaten_within_at(late + PATIENCE + Duration::from_millis(1), PATIENCE));
    }

    #[tokio::test]
    async fn a_wait_beats_until_it_is_over_and_no_longer() {
        let heart = Heartbeat::default();
        let begun = last(&heart);
        let beaten_twice = async {
            let mut seen = begun;
            for _ in 0..2 {
                while last(&heart) == seen {
                    tokio::task::yield_now().await;
                }
                seen = last(&heart);
            }
            seen
        };
        let seen = tokio::time::timeout(PATIENCE, heart.during(beaten_twice)).await.unwrap();
        assert!(seen > begun);
        assert_eq!(last(&heart), seen, "nothing beats when nobody waits");
    }
}
