//! Whom the leader tells to renew: orchestrators first, then nodes, at the pace at which renewals are done.
//!
//! At most so many are asked at a time as the last ones took: each renewal that comes makes room for two more, and one that
//! does not come in time halves the room. A node that is not connected is asked when it comes.

use crate::cluster::Cluster;
use holdfast_transport::failure::Failure;
use holdfast_types::{Millis, NodeId, VoterId};
use holdfast_vault_core::State;
use holdfast_wire::v1::{self, node_push::Push};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Renewals under way at a time: at first, at least, at most.
const ROOM: (usize, usize, usize) = (64, 16, 1024);
/// Who was asked and has not renewed is asked again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// So long voters and orchestrators are waited for before nodes are asked (protocol, INV7: an order, not a condition).
const FIRST: Duration = Duration::from_secs(1);

/// Who was called, and who comes next.
#[derive(Default)]
pub struct Calls {
    wake: Notify,
    round: Mutex<Round>,
}

struct Round {
    room: usize,
    /// Who was asked, and when.
    asked: HashMap<NodeId, Instant>,
    /// Who is still to be asked in this round.
    next: VecDeque<NodeId>,
    /// When the round began.
    begun: Option<Instant>,
}

impl Default for Round {
    fn default() -> Self {
        Self { room: ROOM.0, asked: HashMap::new(), next: VecDeque::new(), begun: None }
    }
}

impl Calls {
    /// Has the leader look at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
    /// Nobody was called: another voter leads.
    pub(super) fn forget(&self) {
        *self.lock() = Round::default();
    }
    /// A node came whose certificate is under a root that does not sign any more.
    pub fn came(&self, node: &NodeId) {
        let mut round = self.lock();
        round.asked.remove(node);
        round.next.push_back(node.clone());
        drop(round);
        self.wake();
    }
    fn lock(&self) -> MutexGuard<'_, Round> {
        // Each change is whole by itself: a panic elsewhere leaves nothing half done.
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// Takes out who has renewed, makes room, and says whom to ask now. `old`: whether a node is to renew; `all`: everybody who is.
    fn due(&mut self, now: Instant, old: impl Fn(&NodeId) -> bool, all: impl FnOnce() -> Vec<NodeId>) -> Vec<NodeId> {
        let before = self.asked.len();
        self.asked.retain(|id, _| old(id));
        let done = before - self.asked.len();
        self.room = (self.room + done).min(ROOM.2);
        let waiting = self.asked.len();
        self.asked.retain(|_, at| now.duration_since(*at) < AGAIN);
        if self.asked.len() < waiting {
            self.room = (self.room / 2).max(ROOM.1);
        }
        if self.next.is_empty() && self.begun.is_none_or(|at| now.duration_since(at) >= AGAIN) {
            self.begun = Some(now);
            self.next = all().into();
        }
        let mut due = Vec::new();
        while self.asked.len() < self.room
            && let Some(id) = self.next.pop_front()
        {
            if old(&id) && !self.asked.contains_key(&id) {
                self.asked.insert(id.clone(), now);
                due.push(id);
            }
        }
        due
    }
}

/// Whether `id` has a certificate under another root than the one that signs, and is to renew.
pub fn is_old(s: &State, id: &str) -> bool {
    let signer = s.signing_root_sha256();
    s.roots_of(id).into_iter().any(|root| Some(root) != signer)
}

/// Voters whose certificate is under another root than the one that signs.
fn voters_behind(s: &State) -> impl Iterator<Item = VoterId> {
    let signer = s.signing_root_sha256();
    s.voters().filter(move |(_, v)| v.cert.as_ref().is_some_and(|c| Some(c.root) != signer)).map(|(id, _)| id)
}

/// Tells those who are next.
pub(super) fn call(cluster: &Cluster, now: Millis) -> Result<(), Failure> {
    let at = Instant::now();
    let (first, since) = cluster.look(|s| {
        // Orchestrators stand at the beginning of the list. The switch itself told their lease streams, and each reply does.
        let head = s.to_renew(now, 1).first().is_some_and(|id| NodeId::parse(id).is_err());
        (head || voters_behind(s).next().is_some(), s.rotation().since)
    })?;
    let mut round = cluster.renewals.lock();
    if first && now.since(since) < FIRST {
        return Ok(());
    }
    let due = cluster.look(|s| {
        let old = |id: &NodeId| is_old(s, id.as_str()) && cluster.hub.is_connected(id);
        let all = || {
            let all = s.to_renew(now, usize::MAX);
            all.iter().filter_map(|id| NodeId::parse(id).ok()).filter(|id| cluster.hub.is_connected(id)).collect()
        };
        round.due(at, old, all)
    })?;
    drop(round);
    for node in due {
        cluster.hub.push(&node, Push::RenewNow(v1::RenewNow {}));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::HashSet;

    fn nodes(n: u8) -> Vec<NodeId> {
        (1..=n).map(|n| NodeId::from_random([n; 16])).collect()
    }

    #[test]
    fn so_many_are_asked_at_a_time_as_there_is_room_and_each_renewal_makes_more() {
        let (all, renewed) = (nodes(200), RefCell::new(HashSet::new()));
        let mut round = Round::default();
        let now = Instant::now();
        let look = |round: &mut Round, at| round.due(at, |id| !renewed.borrow().contains(id), || all.clone());
        let first = look(&mut round, now);
        assert_eq!(first.len(), ROOM.0);
        assert!(look(&mut round, now).is_empty(), "nobody renewed, and more were asked");
        renewed.borrow_mut().extend(first.iter().take(10).cloned());
        assert_eq!(look(&mut round, now).len(), 20, "ten renewed: their places, and ten more");
    }

    #[test]
    fn who_does_not_renew_is_asked_again_and_costs_half_the_room() {
        let (all, now) = (nodes(100), Instant::now());
        let mut round = Round::default();
        assert_eq!(round.due(now, |_| true, || all.clone()).len(), ROOM.0);
        let later = round.due(now + AGAIN, |_| true, || panic!("the round is not over"));
        assert_eq!(later.len(), ROOM.0 / 2, "the rest of the round");
        let last = round.due(now + 2 * AGAIN, |_| true, || panic!("the round is not over"));
        assert_eq!((last.len(), round.room), (4, ROOM.1));
    }

    #[test]
    fn a_node_that_comes_is_asked_before_the_next_round() {
        let (calls, all) = (Calls::default(), nodes(2));
        let now = Instant::now();
        let due = |calls: &Calls| calls.lock().due(now, |_| true, Vec::new);
        assert!(due(&calls).is_empty());
        calls.came(&all[1]);
        assert_eq!(due(&calls), [all[1].clone()]);
        // It was asked and is gone, and comes again.
        calls.came(&all[1]);
        assert_eq!(due(&calls), [all[1].clone()]);
    }
}
