//! The one place of this crate that reads a clock or rolls dice. Pure crates get both as arguments.

use crate::failure::Failure;
use holdfast_types::{Millis, rough};
use holdfast_wire::statement;
use holdfast_wire::v1::{Statement, Status};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time now; the epoch itself if the machine's clock stands before it.
pub fn now() -> Millis {
    Millis(0).plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

/// A clock that is further off than this is wrong: certificates, commands and grants live for minutes.
const TOLERANCE: Duration = Duration::from_secs(60);

/// Compares this machine's clock with the Status that a vault shows us: one of the two is wrong if they are more than a
/// minute apart. A Status that cannot be read is for others to refuse.
pub fn check_clock(status: &Statement) -> Result<(), Failure> {
    let Ok(s) = statement::peek::<Status>(status) else { return Ok(()) };
    compare(now(), Millis(s.issued_at_ms), Millis(s.expires_at_ms))
}

/// A Status is signed anew long before it `expires`: an old one makes no clock wrong.
fn compare(now: Millis, issued: Millis, expires: Millis) -> Result<(), Failure> {
    let (ahead, behind) = (now.since(expires), issued.since(now));
    if ahead.max(behind) <= TOLERANCE {
        return Ok(());
    }
    let what = format!("this machine's clock says {now}, the vault's said {issued}");
    Err(differs(now.since(issued).max(behind), &what))
}

/// A clock that is off by `off` or more, as far as `what` tells.
pub(crate) fn differs(off: Duration, what: &str) -> Failure {
    let by = if off > TOLERANCE { format!("by {} or more", rough(off)) } else { "too much".to_owned() };
    Failure::failed("clock", format!("this machine's clock and the vault's differ {by}: {what}"))
        .help("set both clocks right, for instance with `timedatectl set-ntp true`, and try again")
}

/// `base` times a factor drawn evenly from `1 - spread` to `1 + spread`; `spread` is in 0..=1.
pub(crate) fn jittered(base: Duration, spread: f64) -> Duration {
    // Without entropy everybody waits the same time: worse spacing, nothing else.
    let unit = getrandom::u32().map_or(0.5, |r| f64::from(r) / f64::from(u32::MAX));
    base.mul_f64((1.0 + spread * (2.0 * unit - 1.0)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_hours_off_is_told_by_how_much_and_one_of_a_minute_is_not() {
        let issued = Millis(1_800_000_000_000);
        let (expires, hour) = (issued.plus(Duration::from_secs(120)), Duration::from_secs(3600));
        for fine in [issued, issued.minus(TOLERANCE), expires.plus(TOLERANCE)] {
            assert_eq!(compare(fine, issued, expires), Ok(()));
        }
        for off in [issued.minus(5 * hour), issued.plus(5 * hour)] {
            let failure = compare(off, issued, expires).unwrap_err();
            assert!(failure.message.contains("differ by 5h"), "{failure}");
            assert_eq!((failure.code.as_ref(), failure.kind.exit_code()), ("clock", 1));
        }
    }

    #[test]
    fn jitter_stays_within_its_spread() {
        for _ in 0..1000 {
            let d = jittered(Duration::from_secs(10), 0.2);
            assert!(Duration::from_secs(8) <= d && d <= Duration::from_secs(12), "{d:?}");
        }
    }
}
