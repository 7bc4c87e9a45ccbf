//! Live node sessions: who is connected, and a bounded queue of pushes to each.

use holdfast_types::NodeId;
use holdfast_wire::v1::{self, node_push::Push};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Pushes that may wait for one node; a node that lets more wait is cut off and starts over with a full picture.
const QUEUE: usize = 256;

type Sender = mpsc::Sender<Result<v1::NodePush, tonic::Status>>;

/// Sessions by node.
#[derive(Default)]
pub struct Hub(Mutex<Sessions>);

#[derive(Default)]
struct Sessions {
    next: u64,
    by_node: HashMap<NodeId, Session>,
}

struct Session {
    number: u64,
    from: Option<IpAddr>,
    pushes: Sender,
}

/// A session that was entered.
pub struct Entered {
    /// Its number.
    pub number: u64,
    /// What is pushed to it.
    pub pushes: Pushes,
    /// Where the session was that it took the place of, if that was another address.
    pub beside: Option<IpAddr>,
}

/// The receiving end of a session's pushes.
pub type Pushes = mpsc::Receiver<Result<v1::NodePush, tonic::Status>>;

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // Every change is one insertion or removal: a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Enters a session; an earlier one of the same node ends. If that was at another address, both are told to renew: two
    /// holders of one identity then ask for two certificates.
    pub fn enter(&self, node: &NodeId, from: Option<IpAddr>) -> Entered {
        let (tx, pushes) = mpsc::channel(QUEUE);
        let mut s = self.lock();
        s.next += 1;
        let number = s.next;
        let before = s.by_node.insert(node.clone(), Session { number, from, pushes: tx.clone() });
        drop(s);
        let elsewhere = |b: &Session| b.from.is_some() && from.is_some() && b.from != from && !b.pushes.is_closed();
        let beside = before.filter(elsewhere);
        if let Some(other) = &beside {
            for session in [&other.pushes, &tx] {
                // Whose queue is full or gone has no use for it.
                drop(session.try_send(Ok(v1::NodePush { push: Some(Push::RenewNow(v1::RenewNow {})) })));
            }
        }
        Entered { number, pushes, beside: beside.and_then(|b| b.from) }
    }
    /// Ends session `number`, if it is still the node's.
    pub fn leave(&self, node: &NodeId, number: u64) -> bool {
        let mut s = self.lock();
        let mine = s.by_node.get(node).is_some_and(|open| open.number == number);
        if mine {
            s.by_node.remove(node);
        }
        mine
    }
    /// Whether a node has a session.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.lock().by_node.contains_key(node)
    }
    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.lock().by_node.len()
    }
    /// Pushes to one node, if it is connected.
    pub fn push(&self, node: &NodeId, push: Push) {
        let mut s = self.lock();
        let open = s.by_node.get(node);
        let full = open.is_some_and(|open| open.pushes.try_send(Ok(v1::NodePush { push: Some(push) })).is_err());
        if full {
            s.by_node.remove(node);
        }
    }
    /// Ends every session: each node comes back and starts over with a full picture.
    pub fn end_all(&self) {
        self.lock().by_node.clear();
    }
    /// Pushes to every node.
    pub fn push_all(&self, push: &Push) {
        let told = |open: &Session| open.pushes.try_send(Ok(v1::NodePush { push: Some(push.clone()) })).is_ok();
        self.lock().by_node.retain(|_, open| told(open));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_missed_events_every_session_ends_and_starts_over() {
        let (hub, nodes) = (Hub::default(), [1, 2].map(|n| NodeId::from_random([n; 16])));
        let mut sessions = nodes.each_ref().map(|n| hub.enter(n, None).pushes);
        hub.end_all();
        for (node, pushes) in nodes.iter().zip(&mut sessions) {
            assert!(!hub.is_connected(node));
            assert!(matches!(pushes.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)), "its stream goes on");
        }
        let open = hub.enter(&nodes[0], None);
        assert!(hub.is_connected(&nodes[0]) && hub.leave(&nodes[0], open.number));
    }

    #[test]
    fn of_two_sessions_of_one_node_the_later_stays_and_from_two_addresses_both_are_told_to_renew() {
        let (hub, node) = (Hub::default(), NodeId::from_random([1; 16]));
        let at = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let renews = |pushes: &mut Pushes| {
            let told = pushes.try_recv();
            matches!(told, Ok(Ok(v1::NodePush { push: Some(Push::RenewNow(_)) })))
        };
        let mut first = hub.enter(&node, at(1));
        let mut again = hub.enter(&node, at(1));
        assert_eq!((first.beside, again.beside), (None, None), "the same machine, back over a new connection");
        assert!(!renews(&mut first.pushes) && !renews(&mut again.pushes));
        let mut other = hub.enter(&node, at(2));
        assert_eq!(other.beside, at(1));
        assert!(renews(&mut again.pushes) && renews(&mut other.pushes));
        assert!(!hub.leave(&node, again.number) && hub.leave(&node, other.number));
        // A session that is gone is no second one.
        let gone = hub.enter(&node, at(1));
        drop(gone.pushes);
        assert_eq!(hub.enter(&node, at(2)).beside, None);
    }
}
