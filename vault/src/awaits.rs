//! Which questions of applicants were answered: none is answered twice, so what was recorded of one is worth nothing.
//!
//! A question bears the time at which its applicant signed it (decision 0052). The answer may hold a key that is shared
//! with the applicant alone, so a question is good once, and only in the order in which questions were asked.

use holdfast_types::Millis;
use holdfast_vault_core::prepare::AWAIT_SKEW;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Applicants remembered before those whose last question is too old to be asked again are forgotten.
const SWEEP: usize = 256;

/// The time of each applicant's last question. Only those get in whose signature was verified: applicants of the registry.
pub struct Awaits(Mutex<Asked>);

struct Asked {
    last: HashMap<String, Millis>,
    sweep_at: usize,
}

impl Default for Awaits {
    fn default() -> Self {
        Self(Mutex::new(Asked { last: HashMap::new(), sweep_at: SWEEP }))
    }
}

impl Awaits {
    /// Takes the question that `id` signed at `at`; false if it asked this one or a later one before.
    pub fn take(&self, id: &str, at: Millis, now: Millis) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.last.get(id).is_some_and(|last| *last >= at) {
            return false;
        }
        asked.last.insert(id.to_owned(), at);
        if asked.last.len() >= asked.sweep_at {
            // Twice the skew: what is forgotten here is refused for its age, also if `now` was read a little apart.
            asked.last.retain(|_, at| now.since(*at) <= AWAIT_SKEW * 2);
            asked.sweep_at = SWEEP.max(asked.last.len() * 2);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Millis = Millis(1_800_000_000_000);

    fn later(ms: i64) -> Millis {
        Millis(T0.0 + ms)
    }

    #[test]
    fn a_question_is_answered_once_and_no_older_one_after_it() {
        let a = Awaits::default();
        assert!(a.take("node-1", T0, T0));
        assert!(!a.take("node-1", T0, later(1)), "the same again");
        assert!(!a.take("node-1", later(-1), later(1)), "an older one");
        assert!(a.take("node-1", later(2_000), later(2_000)), "the next one");
        assert!(a.take("node-2", T0, later(2_000)), "another's");
    }

    #[test]
    fn applicants_are_forgotten_only_when_their_questions_are_too_old_to_count() {
        let a = Awaits::default();
        for n in 0..10_000 {
            let at = later(n * 1_000);
            assert!(a.take(&format!("node-{n}"), at, at));
            assert!(!a.take(&format!("node-{n}"), at, at));
        }
        assert!(a.0.lock().unwrap().last.len() <= 2 * SWEEP);
        let now = later(10_000 * 1_000);
        for n in (10_000 - 120)..10_000 {
            assert!(!a.take(&format!("node-{n}"), later(n * 1_000), now), "still in time, and answered: {n}");
        }
    }
}
