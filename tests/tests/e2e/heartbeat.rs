//! The vault's heartbeat, as a node hears it: one Sync stream under a real node's identity, without its agent.

use super::callers::{Calls, machine};
use super::world::{PATIENCE, World, eventually};
use holdfast_transport::rpc::node_plane_client::NodePlaneClient;
use holdfast_transport::tls::IdentityCell;
use holdfast_wire::statement;
use holdfast_wire::v1::node_push::Push;
use holdfast_wire::v1::{NodePush, NodeReport, Status};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

async fn next(pushes: &mut Streaming<NodePush>) -> Push {
    let push = timeout(PATIENCE, pushes.message()).await.expect("no push in time").unwrap();
    push.expect("the stream was closed").push.expect("a push of an unknown kind")
}

/// A Status without what each has of its own: its times, and the log as it stands.
fn rest(status: &Status) -> Status {
    Status { issued_at_ms: 0, expires_at_ms: 0, checkpoint: Vec::new(), ..status.clone() }
}

#[test]
fn a_node_hears_a_new_status_each_time_one_is_due_and_nothing_else() {
    let mut w = World::everything();
    // Who holds the lease is settled: it is told too.
    eventually("a session with the orchestrator", || w.agents[0].log_text().contains("session opened").then_some(()));
    w.agents[0].kill();
    let calls = Calls::believing(&w);
    let link = calls.service(&w, &IdentityCell::new(machine(&w.agent_state(0)))).unwrap();
    let heard: Vec<Status> = Runtime::new().unwrap().block_on(async {
        let (out, reports) = mpsc::channel(1);
        out.send(NodeReport { complete: true, ..NodeReport::default() }).await.unwrap();
        let mut client = NodePlaneClient::new(link.channel.clone());
        let mut pushes = client.sync(ReceiverStream::new(reports)).await.unwrap().into_inner();
        // What a node may lack comes first, and ends with the answer to its report.
        while !matches!(next(&mut pushes).await, Push::ReportAck(_)) {}
        let mut heard = Vec::new();
        for _ in 0..3 {
            let push = next(&mut pushes).await;
            let Push::Status(st) = &push else { panic!("a push without a reason: {push:?}") };
            heard.push(statement::peek::<Status>(st).unwrap());
        }
        heard
    });
    let issued: Vec<i64> = heard.iter().map(|s| s.issued_at_ms).collect();
    assert!(issued.is_sorted_by(|earlier, later| earlier < later), "{issued:?}");
    // Two intervals of 2 s each; the first may have been late.
    assert!(issued[2] - issued[0] >= 2000, "more often than configured: {issued:?}");
    for status in &heard {
        assert_eq!(status.expires_at_ms - status.issued_at_ms, 120_000, "{status:?}");
        assert_eq!(rest(status), rest(&heard[0]));
    }
}
