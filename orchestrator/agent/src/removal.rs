//! A node that was removed ends what it runs: its operators said so by a list that the vault signed (protocol, states of a node).
//! It does not wait for its leases, nor for anybody who would tell it once more; and it never starts anything again.
//!
//! It hears of it as of any document while it is connected; and if it was cut off, once it reaches a vault and proves its key.

use crate::believed::{Document, Standing};
use crate::node::Node;
use crate::tasks::ground::Ground;
use holdfast_transport::failure::Failure;
use holdfast_wire::v1::Removed;
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

/// The vault's word that this node was removed is as good as what is signed in it: a Status, and the Revocations that it names.
/// Why there is no certificate is returned.
///
/// LAW: nothing else ends a task (`a_removal_that_is_heard_of_late_is_obeyed_if_it_is_signed_and_of_this_node`).
pub async fn hear<G: Ground>(node: &Node<G>, said: Removed) -> Failure {
    let documents = [said.status.map(Document::Status), said.revocations.map(Document::Revocations)];
    for document in documents.into_iter().flatten() {
        if let Err(denied) = node.believed.observe(document).await {
            return Failure::refused(
                "cluster-not-believed",
                format!("the vault's word that this node was removed: {denied}"),
            );
        }
    }
    if node.believed.standing() != Standing::Removed {
        let unproven = "the vault says that this node was removed, and shows nothing signed that says so";
        return Failure::refused("cluster-not-believed", unproven);
    }
    obey(node);
    refusal()
}

/// What a node says of itself that was removed.
pub fn refusal() -> Failure {
    Failure::refused("identity-refused", "this identity is removed: the node was taken out of its cluster for ever")
        .help("the machine joins again, as another node, with an empty state directory and a new token")
}
