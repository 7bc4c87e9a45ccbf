//! Nodes that are away for a moment: whoever asks them something waits until they are back, and not for those that are gone.

use holdfast_types::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a node may be away and still be waited for: what a new session takes, also of an agent that starts again.
pub const RETURN: Duration = Duration::from_secs(5);

/// Since when nodes are away.
pub struct Absent {
    /// When this orchestrator began: a node that it has not seen yet is away since then.
    began: Instant,
    since: BTreeMap<NodeId, Instant>,
}

impl Absent {
    /// Nobody has left yet; `began` is now.
    pub fn new(began: Instant) -> Self {
        Self { began, since: BTreeMap::new() }
    }
    /// The node's session ended.
    pub fn left(&mut self, node: NodeId, now: Instant) {
        self.since.retain(|_, since| *since + RETURN > now);
        self.since.insert(node, now);
    }
    /// The node has a session.
    pub fn came(&mut self, node: &NodeId) {
        self.since.remove(node);
    }
    /// Until when `node`, which has no session, is waited for; `None`: it is gone.
    pub fn back_by(&self, node: &NodeId, now: Instant) -> Option<Instant> {
        let back_by = *self.since.get(node).unwrap_or(&self.began) + RETURN;
        (back_by > now).then_some(back_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_waited_for_while_it_may_be_on_its_way_back() {
        let began = Instant::now();
        let later = began + 10 * RETURN;
        let node = |n: u32| NodeId::parse(&format!("node-{n}")).unwrap();
        let mut absent = Absent::new(began);
        assert_eq!(absent.back_by(&node(1), began), Some(began + RETURN), "nobody has come yet");
        assert_eq!(absent.back_by(&node(1), began + RETURN), None);
        absent.left(node(1), later);
        assert_eq!(absent.back_by(&node(1), later), Some(later + RETURN));
        assert_eq!(absent.back_by(&node(2), later), None, "nobody else is waited for");
        assert_eq!(absent.back_by(&node(1), later + RETURN), None, "it is gone");
        absent.came(&node(1));
        assert_eq!(absent.back_by(&node(1), later), None);
        absent.left(node(1), later);
        absent.left(node(2), later + RETURN);
        assert_eq!(absent.since.len(), 1, "those that are gone take no room");
    }
}
