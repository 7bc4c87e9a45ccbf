//! A copy of a node's disk, used from another address beside the node itself.

use crate::callers::{Calls, machine};
use crate::seen::{alarm, is, log, shown, works};
use crate::world::{World, eventually};
use holdfast_transport::client::Link;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::rpc::identity_client::IdentityClient;
use holdfast_transport::rpc::node_plane_client::NodePlaneClient;
use holdfast_transport::tls::{IdentityCell, LocalIdentity};
use holdfast_wire::v1::{NodeReport, RenewRequest, node_push};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;

/// Where the thief dials from.
pub const ELSEWHERE: &str = "127.0.0.2";

/// A port whose connections reach `to` from [`ELSEWHERE`].
pub fn detour(runtime: &Runtime, to: u16) -> u16 {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (from, to): (SocketAddr, SocketAddr) =
        (format!("{ELSEWHERE}:0").parse().unwrap(), format!("127.0.0.1:{to}").parse().unwrap());
    runtime.spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(from).unwrap();
                if let Ok(mut far) = socket.connect(to).await {
                    // Either end may go.
                    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                }
            });
        }
    });
    port
}

/// Opens a second Sync stream over `link` and waits until it is told to renew.
async fn told_to_renew(link: &Link) {
    let mut client = NodePlaneClient::new(link.channel.clone());
    let mut pushes = client.sync(tokio_stream::pending::<NodeReport>()).await.unwrap().into_inner();
    loop {
        let push = pushes.message().await.unwrap().expect("the stream ended before the order to renew").push;
        if matches!(push, Some(node_push::Push::RenewNow(_))) {
            return;
        }
    }
}

/// Keeps a Sync stream over `link` until another holder takes its place; whether it was told to renew.
async fn told_before_its_end(link: &Link) -> bool {
    let mut client = NodePlaneClient::new(link.channel.clone());
    let Ok(opened) = client.sync(tokio_stream::pending::<NodeReport>()).await else { return false };
    let mut pushes = opened.into_inner();
    while let Ok(Some(push)) = pushes.message().await {
        if matches!(push.push, Some(node_push::Push::RenewNow(_))) {
            return true;
        }
    }
    false
}

/// The last key that the agent said it asks a certificate for.
pub fn next_key(w: &World) -> Option<String> {
    let text = w.agents[0].log_text();
    let line = text.lines().rev().find(|l| l.contains("the next certificate is asked for with this key"))?;
    let words = line.split(|c: char| !c.is_ascii_hexdigit());
    words.rev().find(|word| word.len() == 64).map(str::to_owned)
}

#[test]
fn a_copied_disk_shows_at_once_both_addresses_are_named_and_the_owner_is_let_go_on() {
    let w = World::everything();
    let (calls, runtime) = (Calls::believing(&w), Runtime::new().unwrap());
    let stolen: LocalIdentity = machine(&w.agent_state(0));
    let port = detour(&runtime, w.service);
    let stolen = IdentityCell::new(stolen);
    let link = calls.service_at(port, &stolen).unwrap();
    // Two sessions of one node, from two addresses: both are told to renew, and the two requests show two keys.
    runtime.block_on(async {
        let told = tokio::time::timeout(Duration::from_secs(15), told_to_renew(&link));
        told.await.expect("nobody told the thief to renew");
        let csr = PrivateKey::generate().unwrap().csr().unwrap();
        let request = RenewRequest { csr, hpke_pub: vec![7; 32], bundle_epoch: 1 };
        // Who of the two comes second is refused; if it is the thief, over a connection that is about to be closed.
        drop(IdentityClient::new(link.channel.clone()).renew(request).await);
    });
    eventually("the identity to be quarantined", || {
        // Whichever certificate counts now, the next contact of the other holder shows it.
        drop(calls.ask(calls.service_at(port, &stolen), "Identity/Renew"));
        is(&w, "node", "quarantined").then_some(())
    });
    let text = log(&w);
    assert!(text.contains("identity.concurrent"), "{text}");
    let fork = text.lines().find(|line| line.contains("identity.fork")).expect("a fork in the log");
    assert!(fork.contains(ELSEWHERE) && fork.contains("127.0.0.1"), "{fork}");
    let told = eventually("the alarm", || alarm(&w, "identity-fork"));
    assert!(told.contains(ELSEWHERE) && told.contains("127.0.0.1"), "{told}");

    // Its operator saw to it: the machine goes on with a key that nobody has had.
    let id = shown(&w, "node")["id"].as_str().unwrap().to_owned();
    eventually("the release", || {
        let key = next_key(&w)?;
        w.cli(&["node", "release", &id, "--key", &key]).status.success().then_some(())
    });
    eventually("the node to be back", || works(&w).then_some(()));
    assert_eq!(alarm(&w, "identity-fork"), None);
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn a_copied_disk_behind_the_nodes_own_address_shows_by_taking_the_nodes_place_again_and_again() {
    let w = World::everything();
    let (calls, runtime) = (Calls::believing(&w), Runtime::new().unwrap());
    let stolen = IdentityCell::new(machine(&w.agent_state(0)));
    assert!(!log(&w).contains("identity.concurrent"));
    // Each comes back whenever the other one was let in.
    eventually("the thief to be told to renew", || {
        let link = calls.service_at(w.service, &stolen).ok()?;
        let told =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(15), told_before_its_end(&link)).await });
        told.is_ok_and(|told| told).then_some(())
    });
    let told = eventually("the alarm", || alarm(&w, "identity-concurrent"));
    assert_eq!(told.matches("127.0.0.1:").count(), 2, "{told}");
    // The node was told as well: the next certificate is its own, and the thief's is a retired one.
    eventually("the copy to show", || {
        drop(calls.ask(calls.service_at(w.service, &stolen), "Identity/Renew"));
        is(&w, "node", "quarantined").then_some(())
    });
    let text = log(&w);
    let tripped = text.lines().find(|line| line.contains("identity.concurrent")).expect("the log says nothing of it");
    assert_eq!(tripped.matches("127.0.0.1:").count(), 2, "{tripped}");
    assert!(text.contains("identity.fork"), "{text}");
}

#[test]
fn an_operators_quarantine_ends_sessions_and_a_release_needs_a_new_key() {
    let w = World::everything();
    let node = shown(&w, "node");
    let (id, key) = (node["id"].as_str().unwrap(), node["key"].as_str().unwrap());
    w.refused(&["node", "release", id, "--key", key], 4);
    w.ok(&["node", "quarantine", id, "--reason", "its disk was copied"]);
    eventually("its session to end", || {
        let node = shown(&w, "node");
        (node["state"] == "quarantined" && node["connected"] == false).then_some(())
    });
    // The key that it had is no new one.
    w.refused(&["node", "release", id, "--key", key], 2);
    eventually("the release", || {
        let next = next_key(&w).filter(|next| next != key)?;
        w.cli(&["node", "release", id, "--key", &next]).status.success().then_some(())
    });
    eventually("the node to be back", || works(&w).then_some(()));
}
