//! What happens to connections that are open.

use super::world::*;
use crate::failure::{Failure, FailureKind};
use crate::gather::gather;
use crate::server::{ConnPeer, Connections, Limits, is_replaced};
use crate::tls::{Admission, Alpn, ClientTls, Expect, Peer, Refused, ServerTls};
use holdfast_types::Role;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// How an open stream ended.
async fn end<T>(stream: &mut Streaming<T>) -> Failure {
    let error = within(stream.message()).await.err().expect("the stream must break, not end in order");
    Failure::from(error)
}

#[tokio::test]
async fn identities_are_swapped_under_an_open_stream() {
    let ca = Ca::new("one");
    let (server_cell, client_cell) = (ca.cell(Role::Vault, "1"), ca.cell(Role::Node, "node-a"));
    let tls = ServerTls::mutual(server_cell.clone(), ca.trust(), Arc::new(Everybody::default()), Alpn::Service);
    let server = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    let tls = ClientTls::mutual(client_cell.clone(), ca.trust(), Expect::Role(Role::Vault), Alpn::Service);
    let old = dial(server.addr, tls.clone()).await.unwrap();
    let mut pushes = stream(&old).await;
    let old_leaf = whoami_over(&old).await.unwrap().chain;

    server_cell.swap(ca.identity(Role::Vault, "1"));
    client_cell.swap(ca.identity(Role::Node, "node-a"));

    let new = dial(server.addr, tls).await.unwrap();
    assert_ne!(
        new.server.peer.serial_hex, old.server.peer.serial_hex,
        "new connections see the new server certificate"
    );
    assert_ne!(whoami_over(&new).await.unwrap().chain, old_leaf, "and present the new client certificate");
    assert_eq!(whoami_over(&old).await.unwrap().chain, old_leaf, "the old connection goes on");
    assert!(futures::poll!(std::pin::pin!(pushes.message())).is_pending(), "and so does its stream");
    assert_eq!(server.connections.of(&ca.id(Role::Node, "node-a")).len(), 2);
}

#[tokio::test]
async fn roots_are_swapped_while_serving() {
    let (ca, other) = (Ca::new("one"), Ca::new("two"));
    let trust = ca.trust();
    let tls =
        ServerTls::mutual(ca.cell(Role::Vault, "1"), trust.clone(), Arc::new(Everybody::default()), Alpn::Service);
    let server = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    let of_other =
        ClientTls::mutual(other.cell(Role::Node, "node-b"), ca.trust(), Expect::Role(Role::Vault), Alpn::Service);
    let link = dial(server.addr, ca.client(Role::Node, "node-a")).await.unwrap();
    whoami_over(&link).await.unwrap();
    assert!(whoami(server.addr, of_other.clone()).await.is_err());
    trust.swap(other.anchors());
    assert_eq!(whoami(server.addr, of_other).await.unwrap().id, "node/node-b");
    assert!(whoami(server.addr, ca.client(Role::Node, "node-c")).await.is_err());
    assert!(whoami_over(&link).await.is_ok(), "trust is asked in handshakes only");
}

#[tokio::test]
async fn what_a_replaced_certificate_opened_can_be_ended_alone() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let id = ca.id(Role::Node, "node-a");
    let old = dial(server.addr, ca.client(Role::Node, "node-a")).await.unwrap();
    let mut pushes = stream(&old).await;
    let replaced = server.connections.of(&id)[0].peer.as_ref().unwrap().serial_hex.clone();
    let mut late = tonic::Request::new(());
    late.extensions_mut().insert(server.connections.of(&id)[0].clone());
    assert!(!is_replaced(&late));
    let new = dial(server.addr, ca.client(Role::Node, "node-a")).await.unwrap();
    whoami_over(&new).await.unwrap();

    let is_older = |c: &ConnPeer| c.peer.as_ref().is_some_and(|p| p.serial_hex == replaced);
    assert_eq!(server.connections.close_those(&ca.id(Role::Node, "node-b"), is_older), 0);
    server.connections.replace_those(&id, is_older);
    assert!(is_replaced(&late), "what it still brings is known to come over a replaced certificate's connection");
    assert!(futures::poll!(std::pin::pin!(pushes.message())).is_pending(), "a mark ends nothing");
    assert_eq!(server.connections.close_those(&id, is_older), 1);
    assert_eq!(end(&mut pushes).await.kind, FailureKind::Unavailable);
    assert!(whoami_over(&new).await.is_ok(), "the new certificate's connection ended as well");
}

#[tokio::test]
async fn closing_an_identity_ends_its_streams_at_once_and_nobody_elses() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let (a, b) = (ca.id(Role::Node, "node-a"), ca.id(Role::Node, "node-b"));
    let link_a = dial(server.addr, ca.client(Role::Node, "node-a")).await.unwrap();
    let link_b = dial(server.addr, ca.client(Role::Node, "node-b")).await.unwrap();
    let (mut stream_a, mut stream_b) = (stream(&link_a).await, stream(&link_b).await);

    assert_eq!(server.connections.close(&a), 1);
    assert!(!server.connections.is_connected(&a));
    assert_eq!(end(&mut stream_a).await.kind, FailureKind::Unavailable);
    assert_eq!(whoami_over(&link_a).await.unwrap_err().kind, FailureKind::Unavailable);

    assert!(futures::poll!(std::pin::pin!(stream_b.message())).is_pending());
    assert_eq!(server.connections.close_where(|c| c.peer.as_ref().is_some_and(|p| p.id == b)), 1);
    assert_eq!(end(&mut stream_b).await.kind, FailureKind::Unavailable);
    assert_eq!(server.connections.close(&ca.id(Role::Node, "node-c")), 0);
}

/// Revokes the newcomer in the very moment in which it is admitted.
struct Revoking(Connections);
impl Admission for Revoking {
    fn admit(&self, peer: &Peer, _: SocketAddr) -> Result<(), Refused> {
        assert_eq!(self.0.close(&peer.id), 1, "the newcomer must already be in the registry");
        Ok(())
    }
}

#[tokio::test]
async fn a_revocation_during_the_handshake_finds_the_newcomer() {
    let ca = Ca::new("one");
    let connections = Connections::new();
    let tls = ca.vault(Arc::new(Revoking(connections.clone())));
    let server = start(tls, Echo::default(), connections, Limits::default()).await;
    let failure = whoami(server.addr, ca.client(Role::Node, "node-a")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unavailable);
}

#[tokio::test]
async fn a_session_ends_after_its_longest_time_and_with_the_certificate() {
    let ca = Ca::new("one");
    let limits = Limits { session: Duration::from_millis(300), ..Limits::default() };
    let short = start(ca.vault(Arc::new(Everybody::default())), Echo::default(), Connections::new(), limits).await;
    let link = dial(short.addr, ca.client(Role::Node, "node-a")).await.unwrap();
    assert_eq!(end(&mut stream(&link).await).await.kind, FailureKind::Unavailable);

    let long = vault(&ca).await;
    let expiring = crate::tls::IdentityCell::new(ca.identity_for(Role::Node, "node-a", Duration::from_secs(3)));
    let tls = ClientTls::mutual(expiring.clone(), ca.trust(), Expect::Role(Role::Vault), Alpn::Service);
    let link = dial(long.addr, tls).await.unwrap();
    let mut pushes = stream(&link).await;
    assert_eq!(end(&mut pushes).await.kind, FailureKind::Unavailable);
    assert!(crate::now() >= expiring.current().unwrap().not_after());
}

#[tokio::test]
async fn an_ordered_stop_waits_for_the_drain_and_then_ends_what_is_left() {
    let ca = Ca::new("one");
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let tls = ca.vault(Arc::new(Everybody::default()));
    let mut server = start(tls, Echo::default(), Connections::new(), limits).await;
    let link = dial(server.addr, ca.client(Role::Node, "node-a")).await.unwrap();
    let mut pushes = stream(&link).await;
    let asked = std::time::Instant::now();
    server.stop.cancel();
    assert_eq!(end(&mut pushes).await.kind, FailureKind::Unavailable);
    assert!(asked.elapsed() >= limits.drain, "the stream was given its time");
    within(&mut server.task).await.unwrap().unwrap();
    assert!(dial(server.addr, ca.client(Role::Node, "node-a")).await.is_err());
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let ca = Ca::new("one");
    let limits = Limits { connections: 1, ..Limits::default() };
    let tls = ca.vault(Arc::new(Everybody::default()));
    let server = start(tls, Echo::default(), Connections::new(), limits).await;
    let first = dial(server.addr, ca.client(Role::Node, "node-a")).await.unwrap();
    whoami_over(&first).await.unwrap();
    let mut second = std::pin::pin!(whoami(server.addr, ca.client(Role::Node, "node-b")));
    tokio::select! {
        biased;
        _ = &mut second => panic!("there was no place for it"),
        answer = whoami_over(&first) => assert!(answer.is_ok()),
    }
    server.connections.close(&ca.id(Role::Node, "node-a"));
    assert_eq!(second.await.unwrap().id, "node/node-b");
}

#[tokio::test]
async fn what_is_written_before_a_flush_leaves_in_one_piece() {
    let ca = Ca::new("one");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tls, connections) = (ca.vault(Arc::new(Everybody::default())), Connections::new());
    let (addr, everyone) = (listener.local_addr().unwrap(), CancellationToken::new());
    let accepted = async {
        let (tcp, from) = listener.accept().await.unwrap();
        tls.accept(tcp, from, &connections, &everyone).await.unwrap().0
    };
    let client = ca.client(Role::Node, "node-a");
    let dialled = async { client.connect(TcpStream::connect(addr).await.unwrap()).await.unwrap().0 };
    let (mut server, mut near) = within(futures::future::join(accepted, dialled)).await;

    assert_eq!(gather(near.get_mut().1.writer(), b"head ").unwrap(), 5);
    assert_eq!(gather(near.get_mut().1.writer(), b"and body").unwrap(), 8);
    assert!(near.get_ref().1.wants_write(), "it is on its way already");
    within(near.flush()).await.unwrap();
    assert!(!near.get_ref().1.wants_write());
    let mut read = [0; 13];
    within(server.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"head and body");
    // What is long goes at once, and never before what waits.
    assert_eq!(gather(near.get_mut().1.writer(), b"head ").unwrap(), 5);
    let long = [7; 8 << 10];
    assert_eq!(gather(near.get_mut().1.writer(), &long).unwrap(), 0);
    within(near.write_all(&long)).await.unwrap();
    assert!(!near.get_ref().1.wants_write(), "it waits for a flush");
    let mut read = [0; 5 + (8 << 10)];
    within(server.read_exact(&mut read)).await.unwrap();
    assert_eq!(read.split_at(5), (b"head ".as_slice(), long.as_slice()));
}
