//! When a container that has ended is started again. Pure: the caller has the clock, and asks its grant first.

use super::Exit;
use std::time::Duration;

/// The first wait, and the wait after a run that counts as healthy.
const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// A run at least this long ends a series of failures.
const HEALTHY: Duration = Duration::from_secs(60);

/// `restart` of a service's specification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestartPolicy {
    /// Whatever its exit.
    Always,
    /// Unless it exited with code 0.
    OnFailure,
    /// Not at all.
    Never,
}

/// What to do about a container that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Start it again after this time.
    After(Duration),
    /// Leave it.
    No,
}

impl RestartPolicy {
    /// `always`, `on-failure` or `never`; anything else is `None`.
    pub fn parse(s: &str) -> Option<Self> {
        match s {
            "always" => Some(Self::Always),
            "on-failure" => Some(Self::OnFailure),
            "never" => Some(Self::Never),
            _ => None,
        }
    }

    /// What follows an `exit` after running for `ran`, where `last` was the wait before that run (zero: the first).
    /// Waits double from 1 s to 60 s while runs stay shorter than 60 s.
    pub fn after(self, exit: &Exit, ran: Duration, last: Duration) -> Restart {
        let again = match self {
            Self::Always => true,
            Self::OnFailure => !exit.success(),
            Self::Never => false,
        };
        if !again {
            return Restart::No;
        }
        let wait = if ran >= HEALTHY { FIRST } else { last.saturating_mul(2).clamp(FIRST, LONGEST) };
        Restart::After(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Exit = Exit { code: Some(0), signal: None, oom_killed: false, at_ms: 0 };
    const KILLED: Exit = Exit { code: None, signal: Some(9), oom_killed: true, at_ms: 0 };

    #[test]
    fn the_policy_decides_by_the_exit() {
        let after = |policy: RestartPolicy, exit: &Exit| policy.after(exit, Duration::ZERO, Duration::ZERO);
        assert_eq!(after(RestartPolicy::Always, &OK), Restart::After(FIRST));
        assert_eq!(after(RestartPolicy::OnFailure, &OK), Restart::No);
        assert_eq!(after(RestartPolicy::OnFailure, &KILLED), Restart::After(FIRST));
        assert_eq!(after(RestartPolicy::Never, &KILLED), Restart::No);
        assert_eq!(RestartPolicy::parse("unless-stopped"), None);
    }

    #[test]
    fn waits_double_until_a_healthy_run() {
        let mut last = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let Restart::After(wait) = RestartPolicy::Always.after(&KILLED, Duration::from_secs(2), last) else {
                panic!("always means always");
            };
            waits.push(wait.as_secs());
            last = wait;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(RestartPolicy::Always.after(&KILLED, HEALTHY, last), Restart::After(FIRST));
    }
}
