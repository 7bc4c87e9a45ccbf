//! The one place of this crate that reads a clock or rolls dice. Pure crates get both as arguments.

use holdfast_types::Millis;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time now; the epoch itself if the machine's clock stands before it.
pub fn now() -> Millis {
    Millis(0).plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
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
    fn jitter_stays_within_its_spread() {
        for _ in 0..1000 {
            let d = jittered(Duration::from_secs(10), 0.2);
            assert!(Duration::from_secs(8) <= d && d <= Duration::from_secs(12), "{d:?}");
        }
    }
}
