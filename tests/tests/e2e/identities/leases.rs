//! A copy of an orchestrator's disk, used from another address beside the orchestrator itself.

use super::thief::{ELSEWHERE, detour};
use crate::callers::{Calls, machine};
use crate::seen::{alarm, is, log, shown};
use crate::world::{World, eventually};
use holdfast_transport::client::Link;
use holdfast_transport::rpc::sched_plane_client::SchedPlaneClient;
use holdfast_transport::tls::IdentityCell;
use holdfast_wire::v1::KeepLeaseRequest;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Opens a second lease stream over `link`, asks for nothing, and waits until it is told to renew.
async fn told_to_renew(link: &Link) {
    let mut client = SchedPlaneClient::new(link.channel.clone());
    let mut replies = client.keep_lease(tokio_stream::pending::<KeepLeaseRequest>()).await.unwrap().into_inner();
    while !replies.message().await.unwrap().expect("the stream ended before the order to renew").renew_now {}
}

#[test]
fn a_copied_orchestrator_shows_at_once_by_its_second_lease_stream_and_both_addresses_are_named() {
    let mut w = World::founded();
    w.add_orchestrator();
    let (calls, runtime) = (Calls::believing(&w), Runtime::new().unwrap());
    let before = shown(&w, "orchestrator");
    let stolen = IdentityCell::new(machine(&w.path("orch")));
    let port = detour(&runtime, w.service);
    let link = calls.service_at(port, &stolen).unwrap();
    runtime.block_on(async {
        let told = tokio::time::timeout(Duration::from_secs(15), told_to_renew(&link));
        told.await.expect("nobody told the thief to renew");
    });
    // The orchestrator was told as well: the next certificate is its own, and the thief's is a retired one.
    eventually("the orchestrator to have renewed and the copy to show", || {
        drop(calls.ask(calls.service_at(port, &stolen), "SchedPlane/ReleaseGrants"));
        is(&w, "orchestrator", "quarantined").then_some(())
    });
    let (text, id) = (log(&w), before["id"].as_str().unwrap().to_owned());
    let tripped = text.lines().find(|line| line.contains("identity.concurrent")).expect("the log says nothing of it");
    assert!(tripped.contains(ELSEWHERE) && tripped.contains("127.0.0.1") && tripped.contains(&id), "{tripped}");
    assert!(text.contains("identity.fork") && alarm(&w, "identity-fork").is_some());
}
