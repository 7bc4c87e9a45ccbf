//! A node that was removed ends what it runs: its operators said so by a list that the vault signed (protocol, states of a node).
//! It does not wait for its leases, nor for anybody who would tell it once more; and it never starts anything again.

use crate::believed::Standing;
use crate::node::Node;
use crate::tasks::ground::Ground;
use std::time::Duration;

/// Time to end by itself for a task of a node whose certificates do not count any more.
pub const GRACE: Duration = Duration::from_secs(1);

/// Ends everything, if this node was removed.
pub fn obey<G: Ground>(node: &Node<G>) {
    if node.believed.standing() == Standing::Removed {
        let tasks = node.tasks.stop_all(GRACE, "its node was removed");
        tracing::warn!(tasks, "this node was removed from its cluster: its tasks end");
    }
}
