//! The leader's time: the machine's clock, followed at a bounded pace.
//!
//! Committed time never goes back, so a clock that is set ahead by mistake must not take the log along: every token,
//! command and lease would be over for good. The time given here runs at half to double the pace of the clock
//! since boot, towards the machine's clock: a mistake of an hour's duration costs at most an hour, whatever it said.
//! A vault that starts takes the machine's clock as it is (docs/decisions/0011).
//!
//! LAW: it never goes back and never jumps (test `time_runs_at_half_to_double_pace_whatever_the_clock_says`).

use holdfast_transport::failure::Failure;
use holdfast_types::{Millis, rough};
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A machine's clock further away than this is worth an alarm; the protocol's bound between voters.
const ALARM_MS: u64 = 5_000;

/// A clock further behind the log than this was never set; one that was corrected by less only raises an alarm.
const CLOCK_BEHIND: Duration = Duration::from_secs(24 * 3600);

/// The time as given so far.
pub struct Clock {
    given: Mutex<Given>,
}

/// A time that was given, and when by the clock since boot.
#[derive(Clone, Copy)]
struct Given {
    time: Millis,
    at: Duration,
}
impl Given {
    /// The time at `at`, towards `wall`.
    fn next(self, wall: Millis, at: Duration) -> Self {
        let passed = at.saturating_sub(self.at);
        let (least, most) = (self.time.plus(passed / 2), self.time.plus(passed * 2));
        // What rounding takes from a pace of half or double is below a millisecond a call: it is kept for the next one.
        let time = wall.clamp(least, most);
        if time == self.time { self } else { Self { time, at } }
    }
}

impl Clock {
    /// Starts at the machine's clock.
    pub fn start() -> Self {
        Self { given: Mutex::new(Given { time: holdfast_transport::now(), at: since_boot() }) }
    }
    /// The time now.
    pub fn now(&self) -> Millis {
        let (wall, at) = (holdfast_transport::now(), since_boot());
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        *given = given.next(wall, at);
        given.time
    }
}

/// Time since the machine came up, sleep included: a machine that slept an hour is an hour further.
fn since_boot() -> Duration {
    let t = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// What is wrong with the machine's clock, beside the time in use; `None` while they agree.
pub fn complaint(wall: Millis, time: Millis) -> Option<String> {
    let apart = wall.0.abs_diff(time.0);
    (apart > ALARM_MS).then(|| {
        let side = if wall > time { "ahead of" } else { "behind" };
        format!(
            "this machine's clock is {} s {side} the time of the log, which follows it slowly; set the clock right, or \
             restart the vault if the clock is right and ahead",
            apart / 1000
        )
    })
}

/// A voter whose clock stands before the last entry of its own log would sign what nobody believes.
pub fn is_not_behind(wall: Millis, last: Millis) -> Result<(), Failure> {
    let behind = last.since(wall);
    if behind <= CLOCK_BEHIND {
        return Ok(());
    }
    let what =
        format!("this machine's clock is {} behind the last entry of this voter's log, of {last}", rough(behind));
    Err(Failure::failed("clock", what).help("set the clock right, then start or unlock this voter again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const T0: Millis = Millis(1_000_000);

    /// The time after `clock` (seconds since the start: by the clock since boot, by the machine's) was read in steps.
    fn after(clock: &[(u64, i64)]) -> i64 {
        let begin = Given { time: T0, at: S(0) };
        let read = |g: Given, (at, wall): &(u64, i64)| g.next(Millis(T0.0 + wall * 1000), S(*at));
        (clock.iter().fold(begin, read).time.0 - T0.0) / 1000
    }

    #[test]
    fn time_runs_at_half_to_double_pace_whatever_the_clock_says() {
        assert_eq!(after(&[(10, 10), (20, 20)]), 20, "a good clock is followed exactly");
        assert_eq!(after(&[(10, 1_000_000)]), 20, "ahead by days");
        assert_eq!(after(&[(10, -1_000_000)]), 5, "back by days");
        assert_eq!(
            after(&[(10, i64::MAX / 1_000_000), (20, 20)]),
            25,
            "and it is found again: 20 at most, then slowly"
        );
        assert_eq!(after(&[(10, -1_000_000), (15, 15)]), 15, "also from behind");
    }

    /// One handler that stamps with the machine's clock would undo all of this.
    #[test]
    fn no_handler_reads_the_machines_clock() {
        let handlers = concat!(env!("CARGO_MANIFEST_DIR"), "/src/grpc");
        let mut read = 0;
        for file in std::fs::read_dir(handlers).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.matches("transport::now()").count();
            let shown = text.matches("complaint(holdfast_transport::now()").count();
            assert_eq!(calls, shown, "{} uses the machine's clock", path.display());
            read += 1;
        }
        assert!(read > 5, "the handlers were not read");
    }

    #[test]
    fn an_hour_ahead_by_mistake_for_a_minute_costs_a_minute_at_most() {
        assert_eq!(after(&[(60, 3660), (61, 61)]), 120);
        assert_eq!(after(&[(60, 3660), (61, 61), (181, 181)]), 181, "two minutes later all is as it was");
    }

    #[test]
    fn a_machine_that_was_stopped_for_a_day_is_followed_within_a_day() {
        let day = 86_400_i64;
        assert_eq!(after(&[(1, day), (day as u64, 2 * day)]), 2 * day);
    }

    #[test]
    fn calls_closer_than_a_millisecond_do_not_hold_the_time_up() {
        let tick = Duration::from_micros(300);
        let end = (1..=10_000).fold(Given { time: T0, at: S(0) }, |g, i| {
            let at = tick * i;
            g.next(T0.plus(at), at)
        });
        assert_eq!(end.time.0 - T0.0, 3000);
        let fast = (1..=10_000).fold(Given { time: T0, at: S(0) }, |g, i| g.next(Millis(i64::MAX), tick * i));
        assert!((5_000..=6_000).contains(&(fast.time.0 - T0.0)), "{}", fast.time.0 - T0.0);
    }

    #[test]
    fn a_clock_that_is_off_is_complained_of_with_what_to_do() {
        assert_eq!(complaint(T0, T0.plus(S(5))), None);
        assert!(complaint(T0.plus(S(60)), T0).unwrap().contains("60 s ahead of"));
        assert!(complaint(T0, T0.plus(S(60))).unwrap().contains("60 s behind"));
    }
}
