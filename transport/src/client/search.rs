//! When a call is made again that nobody has answered: at once where somebody said who leads, soon while the voters elect, and
//! otherwise later each time.

use super::backoff::Backoff;
use crate::failure::{Failure, FailureKind};
use std::time::Duration;
use tokio::time::Instant;

/// An election is over within this time, or something is wrong: from then on the pauses grow.
const ELECTION: Duration = Duration::from_secs(5);
/// Servers asked without a pause between them, at most: hints may lead in a circle.
const HOPS: usize = 4;

/// One call's search for whoever answers it.
pub(super) struct Search {
    begun: Instant,
    electing: Backoff,
    dialling: Backoff,
    /// Who was asked, or named, since the last pause.
    asked: Vec<String>,
}

impl Search {
    /// For a call that begins now.
    pub(super) fn new(now: Instant) -> Self {
        let electing = Backoff::new(Duration::from_millis(50), Duration::from_millis(250));
        Self { begun: now, electing, dialling: Backoff::dialling(), asked: Vec::new() }
    }

    /// The server at `addr` has answered, and not with what was asked for.
    pub(super) fn asked(&mut self, addr: &str) {
        self.asked.push(addr.to_owned());
    }

    /// How long to wait after `failure`.
    pub(super) fn pause(&mut self, failure: &Failure, now: Instant) -> Duration {
        let leaders = failure.leader_addrs();
        if self.asked.len() < HOPS && leaders.iter().any(|a| !self.asked.contains(a)) {
            self.asked.extend(leaders);
            return Duration::ZERO;
        }
        self.asked.clear();
        if is_electing(failure) && now.saturating_duration_since(self.begun) < ELECTION {
            self.electing.next_delay()
        } else {
            self.dialling.next_delay()
        }
    }
}

/// Whether this is what callers see when a leader went and there is no next one yet. A follower names the one that it heard last,
/// dead or not.
fn is_electing(failure: &Failure) -> bool {
    failure.kind == FailureKind::NotLeader
        || matches!(&*failure.code, "no-leader" | "connection-lost" | "outcome-unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_hint_is_followed_at_once_and_one_that_leads_back_is_not() {
        let now = Instant::now();
        let mut search = Search::new(now);
        search.asked("follower:1");
        assert_eq!(search.pause(&Failure::not_leader(["leader:1"]), now), Duration::ZERO);
        // Nobody is there, so the follower was asked again, and names the same.
        search.asked("follower:1");
        assert!(search.pause(&Failure::not_leader(["leader:1"]), now) > Duration::ZERO);
        // After a pause the leader may be back: it is asked without another one.
        search.asked("follower:1");
        assert_eq!(search.pause(&Failure::not_leader(["leader:1"]), now), Duration::ZERO);
    }

    #[test]
    fn however_many_are_named_only_a_few_are_asked_without_a_pause() {
        let now = Instant::now();
        let mut search = Search::new(now);
        let named = (0..100).map(|n| Failure::not_leader([format!("another:{n}")]));
        let at_once = named.take_while(|hint| search.pause(hint, now).is_zero()).count();
        assert_eq!(at_once, HOPS);
    }

    #[test]
    fn while_the_voters_elect_the_leader_is_looked_for_often_and_nobody_else_is() {
        let begun = Instant::now();
        let lost = Failure::unavailable("connection-lost", "the connection broke");
        let nobody = Failure::unavailable("no-leader", "no voter leads at the moment");
        let mut search = Search::new(begun);
        let soon: Vec<Duration> = (0..20).map(|n| search.pause(if n == 0 { &lost } else { &nobody }, begun)).collect();
        assert!(soon.iter().all(|p| MS(25) <= *p && *p <= MS(375)), "{soon:?}");
        // An election does not last for ever, and a vault that cannot be reached is not electing.
        let unreachable = Failure::unavailable("unreachable", "none of the servers can be reached");
        for (failure, at) in [(&nobody, begun + ELECTION), (&unreachable, begun)] {
            let mut search = Search::new(begun);
            let longest = (0..20).map(|_| search.pause(failure, at)).max();
            assert!(longest >= Some(MS(2500)), "{longest:?} after {failure}");
        }
    }
}
