//! How long to wait between attempts: longer each time, and never in step with others.

use crate::clock::jittered;
use std::time::Duration;

/// Waits that double from the first to the longest, each spread by half.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}
impl Backoff {
    /// From `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }
    /// For dialling: 100 ms to 5 s.
    pub fn dialling() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
    /// The next wait: between half and one and a half of the current step.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.longest);
        jittered(step, 0.5)
    }
    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_success() {
        let mut b = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for step in [100, 200, 400, 400] {
            let wait = b.next_delay().as_millis();
            assert!((step / 2..=step * 3 / 2).contains(&wait), "{wait} at step {step}");
        }
        b.reset();
        assert!(b.next_delay() <= Duration::from_millis(150));
    }
}
