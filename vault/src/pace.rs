//! How fast one caller may go: a burst at once, then an even pace (generic cell rate).
//!
//! An identity with a good certificate can still be hostile: what it may add to the log and to a leader's work is bounded
//! by its name, however many connections and streams it opens.

use holdfast_transport::failure::Failure;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Entries of the log that one machine causes by reports, requests and releases of grants, and statements that anybody sends
/// and that change nothing: 200 at once, 20 a second.
pub const ENTRIES: (Duration, u32) = (Duration::from_millis(50), 200);
/// Turns of `KeepLease`, which has a pace of its own: what an orchestrator gives back must not cost it its lease.
pub const LEASES: (Duration, u32) = (Duration::from_millis(200), 5);
/// Longest wait for a turn.
const LINE: Duration = Duration::from_secs(10);
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
        let mut c = self.lock();
        let (even, wait) = self.next(&c, who, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.keep(&mut c, who, even, now);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When `who` would be even, and how long until its next turn.
    fn next(&self, c: &Callers, who: &str, now: Instant) -> (Instant, Duration) {
        let even = c.even.get(who).copied().map_or(now, |t| t.max(now));
        (even, even.duration_since(now).saturating_sub(self.every * self.burst.saturating_sub(1)))
    }

    fn keep(&self, c: &mut Callers, who: &str, even: Instant, now: Instant) {
        c.even.insert(who.to_owned(), even + self.every);
        if c.even.len() >= c.sweep_at {
            c.even.retain(|_, t| *t > now);
            c.sweep_at = SWEEP.max(c.even.len() * 2);
        }
    }

    /// Takes the next turn of `who` there is, behind those that were asked for before, and waits for it; refuses where that
    /// would take longer than [`LINE`].
    pub async fn turn(&self, who: &str) -> Result<(), Failure> {
        let wait = self.reserve(who, Instant::now()).ok_or_else(|| {
            Failure::exhausted("too-many-requests", format!("{who} asks faster than it is answered"))
                .help("ask less often; what was asked before is answered first")
        })?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Gives back a turn that `who` took and did not use.
    pub fn give_back(&self, who: &str) {
        if let Some(even) = self.lock().even.get_mut(who) {
            *even = even.checked_sub(self.every).unwrap_or(*even);
        }
    }

    /// Does `work` without the turn that `who` took, and takes it again afterwards, whatever waits by then: what is only waited
    /// for holds up nobody behind it.
    pub async fn without<T>(&self, who: &str, work: impl Future<Output = T>) -> T {
        self.give_back(who);
        let done = work.await;
        let (mut c, now) = (self.lock(), Instant::now());
        let (even, _) = self.next(&c, who, now);
        self.keep(&mut c, who, even, now);
        done
    }

    /// How long until the next turn of `who`, which is taken; `None` if too many wait already.
    fn reserve(&self, who: &str, now: Instant) -> Option<Duration> {
        let mut c = self.lock();
        let (even, wait) = self.next(&c, who, now);
        (wait <= LINE).then(|| {
            self.keep(&mut c, who, even, now);
            wait
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

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
    fn a_turn_that_is_given_back_was_never_taken_and_one_that_was_not_taken_is_none_more() {
        let (p, t) = (Pace::new(EVERY, 5), Instant::now());
        for _ in 0..100 {
            assert!(p.take("a", t).is_ok());
            p.give_back("a");
        }
        for _ in 0..100 {
            p.give_back("a");
            p.give_back("nobody");
        }
        assert_eq!(taken(&p, "a", 100, t), 5);
    }

    #[tokio::test]
    async fn what_is_waited_for_takes_no_turn_and_what_was_in_vain_does() {
        const AT_ONCE: usize = 100;
        let (p, all) = (Pace::new(EVERY, 5), tokio::sync::Barrier::new(AT_ONCE));
        // All are under way before the first is done: with turns of their own most would be refused.
        let one = || async {
            p.turn("a").await.map_err(|f| f.code)?;
            p.without("a", all.wait()).await;
            p.give_back("a");
            Ok::<_, Cow<'static, str>>(())
        };
        let done = futures::future::join_all((0..AT_ONCE).map(|_| one()));
        let done = tokio::time::timeout(Duration::from_secs(30), done).await.unwrap();
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        for _ in 0..4 {
            p.turn("a").await.unwrap();
            p.without("a", std::future::ready(())).await;
        }
        assert_eq!(taken(&p, "a", 100, Instant::now()), 1, "four were in vain");
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
            p.turn("a").await.unwrap();
        }
        assert!(t.elapsed() >= every * 3);
    }

    #[test]
    fn whoever_waits_is_served_in_turn_and_the_line_is_bounded() {
        let (p, t) = (Pace::new(EVERY, 2), Instant::now());
        let waits: Vec<_> = (0..100).map_while(|_| p.reserve("a", t)).map(|w| w.as_secs()).collect();
        assert_eq!(waits, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "each a turn of its own, none beyond ten seconds");
        assert_eq!(p.reserve("b", t), Some(Duration::ZERO), "another's line is empty");
        assert_eq!(p.reserve("a", t + EVERY), Some(LINE), "as the line moves on, one more finds room");
    }
}
