//! The last moments of an identity that counts no more: it is told what was taken from it, says that it has ended that, and is
//! cut off.

use crate::cluster::Cluster;
use holdfast_types::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until, timeout_at};

/// What was pushed has this long to get out, at least.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// A node has this long to say that what was taken back is over.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Cuts `id` off once all that was taken back from it is over, and 2 s from now in any case. What it asks meanwhile is refused.
pub async fn cut_off(cluster: Arc<Cluster>, id: String) {
    let begun = Instant::now();
    let mut events = cluster.events();
    while runs(&cluster, &id) {
        match timeout_at(begun + LAST_ANSWERS, events.recv()).await {
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
            Ok(Err(RecvError::Closed)) | Err(_) => break,
        }
    }
    sleep_until(begun + LAST_WORDS).await;
    cluster.close(&id);
}

/// Whether a task runs there, as far as is known, that was told to end and can be heard to.
fn runs(cluster: &Cluster, id: &str) -> bool {
    let Ok(node) = NodeId::parse(id) else { return false };
    cluster.leads() && cluster.hub.is_connected(&node) && cluster.look(|s| s.ends_on(&node)).unwrap_or(false)
}
