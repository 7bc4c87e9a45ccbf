//! How many observations about one caller are written down: the first few of a minute, and of so many callers alone.
//!
//! Whoever is refused must not fill the log or this memory by asking again under the same name or under new ones.

use holdfast_types::Millis;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Observations about one caller that are written down in a minute.
const OBSERVATIONS: u32 = 10;
/// Callers of whom anything is written down in a minute: identities of the registry.
const CALLERS: usize = 1024;
/// Sources of which anything is written down in a minute, who may call themselves anything: 640 leaves a minute at most.
const STRANGERS: usize = 64;

/// What was written down in the current minute, by caller.
pub struct Throttle {
    seen: Mutex<(i64, HashMap<String, u32>)>,
    most: usize,
}

impl Throttle {
    /// For callers whom the registry knows.
    pub fn of_callers() -> Self {
        Self { seen: Mutex::default(), most: CALLERS }
    }
    /// For those who have proved nothing.
    pub fn of_strangers() -> Self {
        Self { seen: Mutex::default(), most: STRANGERS }
    }
    /// Whether one more observation about `caller` is written down at `now`.
    pub fn allows(&self, caller: &str, now: Millis) -> bool {
        let minute = now.0.div_euclid(60_000);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != minute {
            *seen = (minute, HashMap::new());
        }
        let callers = &mut seen.1;
        if let Some(n) = callers.get_mut(caller) {
            *n = n.saturating_add(1);
            return *n <= OBSERVATIONS;
        }
        callers.len() < self.most && callers.insert(caller.to_owned(), 1).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Millis = Millis(60_000 * 1000);

    fn allowed(t: &Throttle, caller: &str, times: usize, now: Millis) -> usize {
        (0..times).filter(|_| t.allows(caller, now)).count()
    }

    #[test]
    fn ten_observations_about_one_caller_are_written_down_in_a_minute() {
        let t = Throttle::of_callers();
        assert_eq!(allowed(&t, "join/10.0.0.1", 100, T0), 10);
        assert_eq!(allowed(&t, "join/10.0.0.2", 100, T0), 10, "each caller has its own");
        assert_eq!(allowed(&t, "join/10.0.0.1", 100, Millis(T0.0 + 59_999)), 0);
        assert_eq!(allowed(&t, "join/10.0.0.1", 100, Millis(T0.0 + 60_000)), 10);
    }

    #[test]
    fn callers_under_ever_new_names_are_bounded_too() {
        let t = Throttle::of_strangers();
        assert_eq!((0..5000).filter(|n| t.allows(&format!("join/{n}"), T0)).count(), 64);
        assert!(t.allows("join/7", T0), "those that are known keep their share");
        assert!(t.allows("join/4999", Millis(T0.0 + 60_000)));
    }
}
