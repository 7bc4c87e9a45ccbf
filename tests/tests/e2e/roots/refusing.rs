//! A machine that is there, says which roots it was told of, and never renews: it holds a rotation up until its certificate is
//! over, and no longer.

use super::{roots, signer, stable, trusted};
use crate::callers::{Calls, machine};
use crate::seen::{log, shown, works};
use crate::world::{World, eventually};
use holdfast_transport::rpc::node_plane_client::NodePlaneClient;
use holdfast_transport::tls::IdentityCell;
use holdfast_wire::statement;
use holdfast_wire::v1::{Bundle, NodeReport, node_push::Push};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// How long a node's certificate lives here.
const LIFE: Duration = Duration::from_secs(12);
/// Beside that: half a second between two looks of the leader, the steps that are left, and the tool that sees them done.
const STEPS: Duration = Duration::from_secs(3);

fn report(bundle_epoch: u64, complete: bool) -> NodeReport {
    NodeReport { bundle_epoch, charter_version: 1, complete, ..NodeReport::default() }
}

/// Talks as a node until the stream ends; counts how often it was told to renew, and does not.
async fn talks_and_never_renews(channel: Channel, told: Arc<AtomicUsize>) {
    let (reports, outgoing) = mpsc::channel(8);
    reports.send(report(1, true)).await.unwrap();
    let opened = NodePlaneClient::new(channel).sync(ReceiverStream::new(outgoing)).await;
    let mut pushes = opened.unwrap().into_inner();
    while let Ok(Some(push)) = pushes.message().await {
        if let Some(Push::Bundle(st)) = &push.push {
            let epoch = statement::peek::<Bundle>(st).unwrap().epoch;
            if reports.send(report(epoch, false)).await.is_err() {
                return;
            }
        }
        if let Some(Push::RenewNow(_)) = &push.push {
            told.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_node_that_talks_and_never_renews_holds_a_rotation_up_until_its_certificate_is_over_and_comes_back_by_its_key() {
    let mut w = World::with_lives("node = \"12s\"");
    w.found();
    w.add_orchestrator();
    w.add_node("eu");
    let (before, id) = (signer(&w), shown(&w, "node")["id"].clone());
    // From now on somebody else speaks for it, with all that its disk holds.
    w.agents[0].kill();
    let (calls, runtime, told) = (Calls::believing(&w), Runtime::new().unwrap(), Arc::new(AtomicUsize::new(0)));
    let link = calls.service(&w, &IdentityCell::new(machine(&w.agent_state(0)))).unwrap();
    let talks = runtime.spawn(talks_and_never_renews(link.channel.clone(), Arc::clone(&told)));
    eventually("the node to be there", || (shown(&w, "node")["connected"] == true).then_some(()));

    let begun = Instant::now();
    w.ok(&["root", "rotate", "--detach"]);
    eventually("the node to be all that is waited for, told to renew, and there", || {
        let now = roots(&w);
        let left = now["stragglers"].as_array()?;
        let alone = left.len() == 1 && left[0]["id"] == id && left[0]["connected"] == true;
        (now["phase"] == "reissuing" && alone && told.load(Ordering::Relaxed) > 0).then_some(())
    });
    let done = stable(&w);
    let took = begun.elapsed();
    assert!(took < LIFE + STEPS, "{took:?} for a certificate of {LIFE:?} and steps of {STEPS:?}");
    assert_eq!(trusted(&done), 1, "{done}");
    assert_ne!(done["signer"], before.as_str());

    // The machine itself has nothing that is believed but its key: that is enough.
    talks.abort();
    drop(link);
    w.start_agent(0, &[]);
    eventually("the node to be back", || works(&w).then_some(()));
    assert_eq!(shown(&w, "node")["id"], id, "under its own id");
    assert!(log(&w).contains("identity.rejoin"));
    assert_eq!(roots(&w)["signer"], done["signer"]);
}
