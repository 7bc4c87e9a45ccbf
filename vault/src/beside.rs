//! Two holders of one identity at a time: sessions of orchestrators by the address they come from, and what is written down
//! when there are two. Nodes' sessions are in the hub, which knows the same of them.
//!
//! This voter's own memory: whoever leads next has the sessions that come to it.

use crate::cluster::Cluster;
use holdfast_types::OrchId;
use holdfast_vault_core::Command;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Open lease streams.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    by_orch: HashMap<OrchId, Vec<One>>,
}

struct One {
    number: u64,
    from: Option<IpAddr>,
    told: Arc<Notify>,
}

/// The place of a stream among those of its orchestrator; dropped, it is over.
pub struct Place {
    streams: Streams,
    orch: OrchId,
    number: u64,
    /// Rings when the orchestrator is to renew, since another holder may be at work.
    pub told: Arc<Notify>,
    /// Where the newest other stream came from, if that was another address.
    pub beside: Option<IpAddr>,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // Every change is one insertion or removal: a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Enters a stream. If another one of the same orchestrator is open from another address, all of them are told to renew:
    /// two holders of one identity then ask for two certificates.
    pub fn enter(&self, orch: &OrchId, from: Option<IpAddr>) -> Place {
        let mut open = self.lock();
        open.next += 1;
        let (number, told) = (open.next, Arc::new(Notify::new()));
        let all = open.by_orch.entry(orch.clone()).or_default();
        let elsewhere = |one: &&One| one.from.is_some() && from.is_some() && one.from != from;
        let beside = all.iter().rev().find(elsewhere).and_then(|one| one.from);
        all.push(One { number, from, told: Arc::clone(&told) });
        if beside.is_some() {
            all.iter().for_each(|one| one.told.notify_one());
        }
        drop(open);
        Place { streams: self.clone(), orch: orch.clone(), number, told, beside }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        if let Some(all) = open.by_orch.get_mut(&self.orch) {
            all.retain(|one| one.number != self.number);
            if all.is_empty() {
                open.by_orch.remove(&self.orch);
            }
        }
    }
}

/// A second session of the machine `id`: written down, and both were told to renew.
pub async fn written(cluster: &Cluster, id: &str, from: &str, other: impl std::fmt::Display) {
    if !cluster.throttle.allows(&format!("concurrent/{id}"), cluster.clock.now()) {
        return;
    }
    let detail = format!("a session began at {from} while there was one at {other}");
    if let Err(e) = cluster.propose(Command::Concurrent { id: id.to_owned(), detail }).await {
        tracing::warn!(identity = id, error = %e, "two sessions of one identity could not be written to the log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    /// Whether it was told since it was asked last.
    fn told(place: &Place) -> bool {
        place.told.notified().now_or_never().is_some()
    }

    #[test]
    fn two_streams_of_one_orchestrator_from_two_addresses_are_both_told_to_renew() {
        let (streams, orch) = (Streams::default(), OrchId::from_random([1; 16]));
        let at = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let first = streams.enter(&orch, at(1));
        let again = streams.enter(&orch, at(1));
        assert_eq!((first.beside, again.beside), (None, None), "the same machine, over its next connection");
        assert!(!told(&first) && !told(&again));
        let stranger = streams.enter(&OrchId::from_random([2; 16]), at(3));
        assert_eq!(stranger.beside, None, "another orchestrator has nothing to do with it");
        drop(first);
        let other = streams.enter(&orch, at(2));
        assert_eq!(other.beside, at(1));
        assert!(told(&again) && told(&other) && !told(&stranger));
        assert!(!told(&again), "once");
        // Streams that are over are no second ones, and nothing is kept of them.
        drop((again, other));
        assert_eq!(streams.enter(&orch, at(1)).beside, None);
        drop(stranger);
        assert!(streams.lock().by_orch.is_empty());
    }
}
