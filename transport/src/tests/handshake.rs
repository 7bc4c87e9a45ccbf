//! Who gets through, and what they are told if not.

use super::world::*;
use crate::failure::FailureKind;
use crate::keys::PrivateKey;
use crate::server::{Connections, Limits};
use crate::tls::{Admission, Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, Peer, Refused, ServerTls};
use holdfast_types::{Digest, Millis, Role};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn a_peer_is_known_to_the_service_by_its_certificate() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let link = dial(server.addr, ca.client(Role::Node, "node-a")).await.unwrap();
    assert_eq!(link.server.peer.id, ca.id(Role::Vault, "1"));
    assert_eq!(whoami_over(&link).await.unwrap().id, "node/node-a");
    assert!(server.connections.is_connected(&ca.id(Role::Node, "node-a")));
    assert!(!server.connections.is_connected(&ca.id(Role::Node, "node-b")));
}

#[tokio::test]
async fn a_client_of_another_listener_is_refused() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let tls = ClientTls::mutual(ca.cell(Role::Vault, "2"), ca.trust(), Expect::Role(Role::Vault), Alpn::Peer);
    let failure = dial(server.addr, tls).await.unwrap_err();
    assert_eq!(failure.code, "wrong-listener");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let tls = ClientTls::mutual(IdentityCell::empty(), ca.trust(), Expect::Role(Role::Vault), Alpn::Service);
    let failure = whoami(server.addr, tls).await.unwrap_err();
    assert_eq!((failure.kind, failure.code.as_ref()), (FailureKind::Refused, "certificate-refused"));
    assert!(server.connections.is_empty());
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused() {
    let (ca, other) = (Ca::new("one"), Ca::new("two"));
    let server = vault(&ca).await;
    let tls = ClientTls::mutual(other.cell(Role::Node, "node-a"), ca.trust(), Expect::Role(Role::Vault), Alpn::Service);
    let failure = whoami(server.addr, tls).await.unwrap_err();
    assert_eq!((failure.kind, failure.code.as_ref()), (FailureKind::Refused, "certificate-refused"));
}

#[tokio::test]
async fn a_server_of_another_role_name_or_cluster_is_not_trusted() {
    let (ca, other) = (Ca::new("one"), Ca::new("two"));
    let server = vault(&ca).await;
    let cell = ca.cell(Role::Node, "node-a");
    let cases = [
        (ca.trust(), Expect::Role(Role::Orch), "expected orch, found vault/1"),
        (ca.trust(), Expect::Id(ca.id(Role::Vault, "2")), "expected vault/2, found vault/1"),
        (other.trust(), Expect::Role(Role::Vault), "trusted root"),
    ];
    for (trust, expect, words) in cases {
        let failure =
            dial(server.addr, ClientTls::mutual(cell.clone(), trust, expect, Alpn::Service)).await.unwrap_err();
        assert_eq!((failure.kind, failure.code.as_ref()), (FailureKind::Refused, "server-not-trusted"));
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[tokio::test]
async fn a_node_cannot_pose_as_a_server() {
    let ca = Ca::new("one");
    let tls =
        ServerTls::mutual(ca.cell(Role::Node, "node-a"), ca.trust(), Arc::new(Everybody::default()), Alpn::Service);
    let server = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    let tls = ClientTls::mutual(
        ca.cell(Role::Node, "node-b"),
        ca.trust(),
        Expect::Id(ca.id(Role::Node, "node-a")),
        Alpn::Service,
    );
    let failure = dial(server.addr, tls).await.unwrap_err();
    assert_eq!(failure.code, "server-not-trusted");
}

/// Refuses one name.
struct AllBut(&'static str);
impl Admission for AllBut {
    fn admit(&self, peer: &Peer, _: SocketAddr) -> Result<(), Refused> {
        if peer.id.name == self.0 { Err(Refused::Unsaid("another certificate is pinned".to_owned())) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_good_certificate_that_is_not_pinned_is_refused() {
    let ca = Ca::new("one");
    let tls = ca.vault(Arc::new(AllBut("node-b")));
    let server = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    let failure = whoami(server.addr, ca.client(Role::Node, "node-b")).await.unwrap_err();
    assert_eq!((failure.kind, failure.code.as_ref()), (FailureKind::Refused, "identity-refused"));
    assert!(!failure.message.contains("pinned"), "the reason is for the server's log only");
    assert!(server.connections.is_empty());
    assert!(whoami(server.addr, ca.client(Role::Node, "node-a")).await.is_ok());
}

/// Refuses everybody for ever.
struct Gone;
impl Admission for Gone {
    fn admit(&self, _: &Peer, _: SocketAddr) -> Result<(), Refused> {
        Err(Refused::Removed)
    }
}

#[tokio::test]
async fn an_identity_that_is_gone_for_ever_is_told_so_and_another_one_no_more_than_no() {
    let ca = Ca::new("one");
    let server = start(ca.vault(Arc::new(Gone)), Echo::default(), Connections::new(), Limits::default()).await;
    let failure = whoami(server.addr, ca.client(Role::Node, "node-a")).await.unwrap_err();
    assert_eq!((failure.kind, failure.code.as_ref()), (FailureKind::Refused, "certificate-refused"));
    assert!(failure.message.contains("for ever"), "{failure}");
    assert!(server.connections.is_empty());
}

#[tokio::test]
async fn a_server_without_an_identity_accepts_nobody() {
    let ca = Ca::new("one");
    let tls = ServerTls::mutual(IdentityCell::empty(), ca.trust(), Arc::new(Everybody::default()), Alpn::Service);
    let server = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    let failure = dial(server.addr, ca.client(Role::Node, "node-a")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unavailable);
}

#[tokio::test]
async fn a_join_learns_the_cluster_from_the_anchor_and_stays_anonymous() {
    let ca = Ca::new("one");
    let tls = ServerTls::server_only(ca.cell(Role::Vault, "1"));
    let server = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    for tls in [ClientTls::join(ca.anchor()), ClientTls::rejoin(ca.trust())] {
        let link = dial(server.addr, tls).await.unwrap();
        assert!(link.server.cluster.is_none_or(|c| c == ca.cluster));
        let failure = whoami_over(&link).await.unwrap_err();
        assert_eq!(failure.code, "bad-credential");
    }
    let link = dial(server.addr, ClientTls::join(ca.anchor())).await.unwrap();
    assert_eq!(link.server.cluster, Some(ca.cluster));
}

#[tokio::test]
async fn an_orchestrator_cannot_serve_a_join() {
    let ca = Ca::new("one");
    let tls = ServerTls::server_only(ca.cell(Role::Orch, "orch-a"));
    let server = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    for tls in [ClientTls::join(ca.anchor()), ClientTls::rejoin(ca.trust())] {
        assert_eq!(dial(server.addr, tls).await.unwrap_err().code, "server-not-trusted");
    }
}

/// Knows one key, whatever its chain.
struct ByKey(Digest);
impl Admission for ByKey {
    fn admit(&self, _: &Peer, _: SocketAddr) -> Result<(), Refused> {
        Ok(())
    }
    fn knows_key(&self, peer: &Peer, _: Millis) -> bool {
        peer.spki_sha256 == self.0
    }
}

#[tokio::test]
async fn a_key_that_is_known_gets_in_without_a_chain_and_no_other_does() {
    let (ca, before) = (Ca::new("one"), Ca::new("two"));
    let key = PrivateKey::generate().unwrap();
    let chain = before.chain(key.spki_der(), &before.id(Role::Node, "node-a"), Duration::from_secs(3600));
    let known = LocalIdentity::new(&chain, &key).unwrap();
    let tls = ca.vault(Arc::new(ByKey(key.spki_sha256())));
    let server = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    let client =
        |identity| ClientTls::mutual(IdentityCell::new(identity), ca.trust(), Expect::Role(Role::Vault), Alpn::Service);
    assert_eq!(whoami(server.addr, client(known)).await.unwrap().id, "node/node-a");
    // The same name with another key.
    let failure = whoami(server.addr, client(before.identity(Role::Node, "node-a"))).await.unwrap_err();
    assert_eq!(failure.code, "certificate-refused");
}

#[tokio::test]
async fn whoever_answers_at_a_join_listener_can_be_asked_without_being_believed() {
    let ca = Ca::new("one");
    let tls = ServerTls::server_only(ca.cell(Role::Vault, "1"));
    let server = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    let link = dial(server.addr, ClientTls::unproven()).await.unwrap();
    assert_eq!(link.server.cluster, None);
    assert!(!link.server.peer.has_path());
    // Not where certificates are asked for.
    assert_eq!(dial(vault(&ca).await.addr, ClientTls::unproven()).await.unwrap_err().code, "wrong-listener");
}
