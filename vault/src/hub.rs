//! Live node sessions: who is connected, and a bounded queue of pushes to each.

use holdfast_types::NodeId;
use holdfast_wire::v1::{self, node_push::Push};
use std::collections::HashMap;
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
    by_node: HashMap<NodeId, (u64, Sender)>,
}

/// The receiving end of a session's pushes.
pub type Pushes = mpsc::Receiver<Result<v1::NodePush, tonic::Status>>;

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // Every change is one insertion or removal: a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Enters a session; an earlier one of the same node ends.
    pub fn enter(&self, node: &NodeId) -> (u64, Pushes) {
        let (tx, rx) = mpsc::channel(QUEUE);
        let mut s = self.lock();
        s.next += 1;
        let number = s.next;
        s.by_node.insert(node.clone(), (number, tx));
        (number, rx)
    }
    /// Ends session `number`, if it is still the node's.
    pub fn leave(&self, node: &NodeId, number: u64) -> bool {
        let mut s = self.lock();
        let mine = s.by_node.get(node).is_some_and(|(n, _)| *n == number);
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
        let full =
            s.by_node.get(node).is_some_and(|(_, tx)| tx.try_send(Ok(v1::NodePush { push: Some(push) })).is_err());
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
        self.lock().by_node.retain(|_, (_, tx)| tx.try_send(Ok(v1::NodePush { push: Some(push.clone()) })).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_missed_events_every_session_ends_and_starts_over() {
        let (hub, nodes) = (Hub::default(), [1, 2].map(|n| NodeId::from_random([n; 16])));
        let mut sessions = nodes.each_ref().map(|n| hub.enter(n).1);
        hub.end_all();
        for (node, pushes) in nodes.iter().zip(&mut sessions) {
            assert!(!hub.is_connected(node));
            assert!(matches!(pushes.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)), "its stream goes on");
        }
        let (number, _pushes) = hub.enter(&nodes[0]);
        assert!(hub.is_connected(&nodes[0]) && hub.leave(&nodes[0], number));
    }
}
