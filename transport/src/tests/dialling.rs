//! Finding a server that answers.

use super::world::*;
use crate::client::{Dialer, Timing};
use crate::failure::{Failure, FailureKind};
use crate::rpc::identity_client::IdentityClient;
use crate::server::{ConnPeer, Connections, Limits};
use crate::tls::{Admission, Alpn, ClientTls, Expect, Peer, Refused};
use holdfast_types::Role;
use holdfast_wire::v1::{Issued, RenewRequest};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(15);

async fn call(dialer: &Dialer, patience: Duration) -> Result<Issued, Failure> {
    let op = |channel| async { IdentityClient::new(channel).renew(RenewRequest::default()).await };
    within(dialer.call(patience, op)).await
}

async fn failing(ca: &Ca, failure: Failure) -> Running {
    let echo = Echo { failure: Some(failure) };
    start(ca.vault(Arc::new(Everybody::default())), echo, Connections::new(), Limits::default()).await
}

/// An address where nobody listens.
async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn dialer(ca: &Ca, addrs: &[SocketAddr]) -> Dialer {
    Dialer::new(addrs.iter().map(SocketAddr::to_string), ca.client(Role::Op, "alice"), Timing::default())
}

#[tokio::test]
async fn a_followers_hint_is_followed_and_remembered() {
    let ca = Ca::new("one");
    let leader = vault(&ca).await;
    let follower = failing(&ca, Failure::not_leader([leader.addr.to_string()])).await;
    let dialer = dialer(&ca, &[follower.addr]);
    assert_eq!(call(&dialer, PATIENCE).await.unwrap().id, "op/alice");
    assert_eq!(dialer.addrs(), [leader.addr.to_string(), follower.addr.to_string()]);
}

#[tokio::test]
async fn a_voter_that_is_unreachable_or_unavailable_is_passed_over() {
    let ca = Ca::new("one");
    let good = vault(&ca).await;
    let sealed = failing(&ca, Failure::unavailable("sealed", "this voter is sealed")).await;
    let dialer = dialer(&ca, &[nowhere().await, sealed.addr, good.addr]);
    assert_eq!(call(&dialer, PATIENCE).await.unwrap().id, "op/alice");
}

#[tokio::test]
async fn a_refusal_is_final() {
    let ca = Ca::new("one");
    let refusal =
        Failure::refused("policy", "policy zone-lock forbids it").help("ask an admin").detail("policy", "zone-lock");
    let server = failing(&ca, refusal.clone()).await;
    assert_eq!(call(&dialer(&ca, &[server.addr]), PATIENCE).await.unwrap_err(), refusal);
}

#[tokio::test]
async fn when_nobody_answers_the_failure_names_every_address() {
    let ca = Ca::new("one");
    let (a, b) = (nowhere().await, nowhere().await);
    let failure = call(&dialer(&ca, &[a, b]), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unavailable);
    let named: Vec<&str> = failure.details.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(named, [a.to_string(), b.to_string()]);
    let none = call(&dialer(&ca, &[]), PATIENCE).await.unwrap_err();
    assert_eq!(none.code, "no-address");
}

#[tokio::test]
async fn a_connection_that_was_closed_is_dialled_again() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let dialer = dialer(&ca, &[server.addr]);
    call(&dialer, PATIENCE).await.unwrap();
    assert_eq!(server.connections.close(&ca.id(Role::Op, "alice")), 1);
    assert_eq!(call(&dialer, PATIENCE).await.unwrap().id, "op/alice");
}

#[tokio::test]
async fn after_a_renewal_no_call_goes_over_a_connection_of_the_old_certificate() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let cell = ca.cell(Role::Node, "node-1");
    let tls = ClientTls::mutual(cell.clone(), ca.trust(), Expect::Role(Role::Vault), Alpn::Service);
    let dialer = Dialer::new([server.addr.to_string()], tls, Timing::default());
    let seen = |server: &Running| server.connections.of(&ca.id(Role::Node, "node-1")).len();
    call(&dialer, PATIENCE).await.unwrap();
    call(&dialer, PATIENCE).await.unwrap();
    assert_eq!(seen(&server), 1);
    let serial = |c: &ConnPeer| c.peer.as_ref().unwrap().serial_hex.clone();
    let old = serial(&server.connections.of(&ca.id(Role::Node, "node-1"))[0]);
    cell.swap(ca.identity(Role::Node, "node-1"));
    call(&dialer, PATIENCE).await.unwrap();
    let now: Vec<String> = server.connections.of(&ca.id(Role::Node, "node-1")).iter().map(|c| serial(c)).collect();
    assert!(now.iter().any(|s| *s != old), "the call went over the connection of certificate {old}");
}

/// Refuses until told otherwise.
#[derive(Default)]
struct Switch(AtomicBool);
impl Admission for Switch {
    fn admit(&self, _: &Peer, _: SocketAddr) -> Result<(), Refused> {
        if self.0.load(Ordering::SeqCst) { Ok(()) } else { Err(Refused::Unsaid("not yet".to_owned())) }
    }
}

#[tokio::test]
async fn a_refused_identity_can_call_again_once_it_is_accepted() {
    let ca = Ca::new("one");
    let switch = Arc::new(Switch::default());
    let server = start(ca.vault(switch.clone()), Echo::default(), Connections::new(), Limits::default()).await;
    let dialer = dialer(&ca, &[server.addr]);
    assert_eq!(call(&dialer, PATIENCE).await.unwrap_err().code, "identity-refused");
    switch.0.store(true, Ordering::SeqCst);
    assert_eq!(call(&dialer, PATIENCE).await.unwrap().id, "op/alice");
}

#[tokio::test]
async fn dialling_goes_on_until_a_server_appears_or_it_is_told_to_stop() {
    let ca = Ca::new("one");
    let stop = CancellationToken::new();
    let dialer = dialer(&ca, &[nowhere().await]);
    let server = vault(&ca).await;
    let mut dialling = std::pin::pin!(dialer.dial_until(&stop));
    assert!(futures::poll!(&mut dialling).is_pending());
    dialer.set_addrs([server.addr.to_string()]);
    assert!(within(dialling).await.is_some());
    stop.cancel();
    dialer.set_addrs([nowhere().await.to_string()]);
    assert!(within(dialer.dial_until(&stop)).await.is_none());
}
