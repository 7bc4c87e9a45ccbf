//! How fast one caller may go: a burst at once, then an even pace (generic cell rate).
//!
//! An identity with a good certificate can still be hostile: what it may add to the log and to a leader's work is bounded
//! by its name, however many connections and streams it opens.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Entries of the log that one machine causes by reports, leases, requests and releases of grants: 200 at once, 20 a second.
pub const ENTRIES: (Duration, u32) = (Duration::from_millis(50), 200);
/// Certificates that one machine is given: this many at once, and as many again in the life of one.
pub const CERTIFICATES: u32 = 32;
/// Callers remembered before those whose burst is whole again are forgotten.
const SWEEP: usize = 256;

/// One kind of turn, paced for each caller by itself.
pub struct Pace {
    every: Duration,
    burst: u32,
    callers: Mutex<Callers>,
}

struct Callers {
    /// When each would be even again, had it gone at an even pace.
    even: HashMap<String, Instant>,
    sweep_at: usize,
}

impl Pace {
    /// `burst` turns at once, then one `every` so long.
    pub fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, callers: Mutex::new(Callers { even: HashMap::new(), sweep_at: SWEEP }) }
    }

    /// Takes a turn for `who` at `now`, or says how long until there is one.
    pub fn take(&self, who: &str, now: Instant) -> Result<(), Duration> {
        let mut c = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let even = c.even.get(who).copied().map_or(now, |t| t.max(now));
        let ahead = even.duration_since(now);
        let most = self.every * self.burst.saturating_sub(1);
        if ahead > most {
            return Err(ahead.saturating_sub(most));
        }
        c.even.insert(who.to_owned(), even + self.every);
        if c.even.len() >= c.sweep_at {
            c.even.retain(|_, t| *t > now);
            c.sweep_at = SWEEP.max(c.even.len() * 2);
        }
        Ok(())
    }

    /// Waits for a turn of `who`.
    pub async fn turn(&self, who: &str) {
        while let Err(wait) = self.take(who, Instant::now()) {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    fn taken(p: &Pace, who: &str, times: u32, now: Instant) -> usize {
        (0..times).filter(|_| p.take(who, now).is_ok()).count()
    }

    #[test]
    fn a_caller_has_its_burst_then_its_pace_and_takes_nobody_elses() {
        let (p, t) = (Pace::new(EVERY, 5), Instant::now());
        assert_eq!((taken(&p, "a", 100, t), taken(&p, "b", 100, t)), (5, 5));
        assert_eq!(p.take("a", t), Err(EVERY));
        assert_eq!(taken(&p, "a", 100, t + EVERY * 2), 2, "two seconds give two turns");
        assert_eq!(taken(&p, "a", 100, t + EVERY * 1000), 5, "rest gives the burst back and no more");
    }

    #[test]
    fn callers_that_rest_are_forgotten() {
        let (p, t) = (Pace::new(EVERY, 1), Instant::now());
        for n in 0..10 * SWEEP {
            let now = t + EVERY * 2 * u32::try_from(n).unwrap();
            assert!(p.take(&n.to_string(), now).is_ok());
        }
        assert!(p.callers.lock().unwrap().even.len() <= SWEEP);
    }

    #[tokio::test]
    async fn whoever_is_too_fast_waits() {
        let every = Duration::from_millis(10);
        let (p, t) = (Pace::new(every, 2), Instant::now());
        for _ in 0..5 {
            p.turn("a").await;
        }
        assert!(t.elapsed() >= every * 3);
    }
}
