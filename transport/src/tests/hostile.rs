//! Peers that do not use this crate: other versions, other key exchanges, stolen certificates, silence.

use super::gullible::Gullible;
use super::world::*;
use crate::keys::PrivateKey;
use crate::server::{Connections, Limits, PerSource};
use crate::tls::{Alpn, ClientTls, IdentityCell};
use holdfast_types::Role;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::server::ServerConfig;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, SupportedProtocolVersion};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn provider(groups: Vec<&'static dyn SupportedKxGroup>) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() })
}

/// A client as others would build it.
fn stranger(
    identity: Arc<IdentityCell>,
    groups: Vec<&'static dyn SupportedKxGroup>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider(groups))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_client_cert_resolver(identity);
    config.alpn_protocols = vec![Alpn::Service.as_bytes().to_vec()];
    config
}

async fn shake(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("vault").unwrap();
    within(TlsConnector::from(config.clone()).connect(name, tcp)).await
}

const OURS: &[&dyn SupportedKxGroup] = &[aws_lc_rs::kx_group::X25519MLKEM768];

#[tokio::test]
async fn tls_1_2_is_refused() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let groups = aws_lc_rs::ALL_KX_GROUPS.to_vec();
    let config = stranger(ca.cell(Role::Node, "node-a"), groups, &rustls::version::TLS12);
    let error = shake(server.addr, &Arc::new(config)).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn a_client_with_another_key_exchange_is_refused() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let others: Vec<_> =
        aws_lc_rs::ALL_KX_GROUPS.iter().copied().filter(|g| g.name() != NamedGroup::X25519MLKEM768).collect();
    assert!(others.iter().any(|g| g.name() == NamedGroup::X25519));
    for group in others {
        let config = stranger(ca.cell(Role::Node, "node-a"), vec![group], &rustls::version::TLS13);
        let error = shake(server.addr, &Arc::new(config)).await.unwrap_err();
        assert!(error.to_string().contains("HandshakeFailure"), "{:?}: {error}", group.name());
    }
    // The same client with our group gets in, so it was the group.
    let config = stranger(ca.cell(Role::Node, "node-a"), OURS.to_vec(), &rustls::version::TLS13);
    let stream = shake(server.addr, &Arc::new(config)).await.unwrap();
    assert_eq!(stream.get_ref().1.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_server_with_another_key_exchange_is_refused() {
    let ca = Ca::new("one");
    let (addr, accepted) = raw_server(&ca, vec![aws_lc_rs::kx_group::X25519]).await;
    let failure = dial(addr, ClientTls::join(ca.anchor())).await.unwrap_err();
    assert_eq!(failure.code, "handshake-failed");
    assert!(within(accepted).await.unwrap().is_err());
}

/// A join listener that is not ours; gives the handshake's outcome and the first bytes after it.
async fn raw_server(
    ca: &Ca,
    groups: Vec<&'static dyn SupportedKxGroup>,
) -> (SocketAddr, tokio::task::JoinHandle<io::Result<Vec<u8>>>) {
    let mut config = ServerConfig::builder_with_provider(provider(groups))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(ca.cell(Role::Vault, "1"));
    config.alpn_protocols = vec![Alpn::Join.as_bytes().to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await?;
        let mut preface = vec![0; 24];
        stream.read_exact(&mut preface).await?;
        Ok(preface)
    });
    (addr, accepted)
}

#[tokio::test]
async fn a_join_sends_nothing_to_a_server_of_another_root() {
    let (ours, theirs) = (Ca::new("one"), Ca::new("two"));
    let (addr, accepted) = raw_server(&theirs, OURS.to_vec()).await;
    let failure = dial(addr, ClientTls::join(ours.anchor())).await.unwrap_err();
    assert_eq!(failure.code, "server-not-trusted");
    // The server saw an alert where the client's last handshake message should be: not one application byte.
    let outcome = within(accepted).await.unwrap().unwrap_err();
    assert!(outcome.to_string().contains("CertificateUnknown"), "{outcome}");

    // The same server gets the HTTP/2 preface from a client that it belongs to, so the test can tell.
    let (addr, accepted) = raw_server(&theirs, OURS.to_vec()).await;
    let _link = dial(addr, ClientTls::join(theirs.anchor())).await.unwrap();
    assert_eq!(within(accepted).await.unwrap().unwrap(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}

#[tokio::test]
async fn a_root_of_the_same_name_in_another_cluster_does_not_match_the_anchor() {
    // Same charter, so the same cluster id, but another root key: what a thief of the charter would build.
    let (ours, forged) = (Ca::new("one"), Ca::new("one"));
    assert_eq!(ours.cluster, forged.cluster);
    let (addr, accepted) = raw_server(&forged, OURS.to_vec()).await;
    assert_eq!(dial(addr, ClientTls::join(ours.anchor())).await.unwrap_err().code, "server-not-trusted");
    assert!(within(accepted).await.unwrap().is_err());
}

#[tokio::test]
async fn no_session_is_ever_resumed() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    // The client keeps rustls's default: it would resume if it could.
    let config = Arc::new(stranger(ca.cell(Role::Node, "node-a"), OURS.to_vec(), &rustls::version::TLS13));
    for _ in 0..2 {
        let mut stream = shake(server.addr, &config).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        // The server's settings arrive after any ticket would have.
        within(stream.read_u8()).await.unwrap();
        let tls = stream.get_ref().1;
        assert_eq!((tls.handshake_kind(), tls.tls13_tickets_received()), (Some(HandshakeKind::Full), 0));
    }
}

#[tokio::test]
async fn a_client_that_names_no_protocol_is_dropped() {
    let ca = Ca::new("one");
    let server = vault(&ca).await;
    let mut config = stranger(ca.cell(Role::Node, "node-a"), OURS.to_vec(), &rustls::version::TLS13);
    config.alpn_protocols.clear();
    let mut stream = shake(server.addr, &Arc::new(config)).await.unwrap();
    assert!(matches!(within(stream.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    within(until_empty(&server.connections)).await;
}

async fn until_empty(connections: &Connections) {
    while !connections.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_replayed_certificate_is_never_shown_to_admission() {
    let ca = Ca::new("one");
    let asked = Arc::new(Everybody::default());
    let server = start(ca.vault(asked.clone()), Echo::default(), Connections::new(), Limits::default()).await;
    // The chain is public knowledge, the key is the thief's own.
    let stolen = ca.identity(Role::Node, "node-a").chain().to_vec();
    let own = PrivateKey::generate().unwrap().tls_signer().unwrap();
    let mut config = stranger(IdentityCell::empty(), OURS.to_vec(), &rustls::version::TLS13);
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(CertifiedKey::new(stolen, own)));
    let mut stream = shake(server.addr, &Arc::new(config)).await.unwrap();
    let error = within(stream.read(&mut [0; 1])).await.unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
    assert_eq!(asked.asked(), 0);
    assert!(whoami(server.addr, ca.client(Role::Node, "node-a")).await.is_ok());
    assert_eq!(asked.asked(), 1);
}

#[tokio::test]
async fn a_client_that_stays_silent_is_dropped_and_its_place_given_away() {
    let ca = Ca::new("one");
    let limits = Limits { handshake: Duration::from_millis(200), handshakes: 1, ..Limits::default() };
    let tls = ca.vault(Arc::new(Everybody::default()));
    let server = start(tls, Echo::default(), Connections::new(), limits).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    // One byte of a record: begun, never finished.
    silent.write_all(&[22]).await.unwrap();
    assert!(whoami(server.addr, ca.client(Role::Node, "node-a")).await.is_ok());
    assert!(matches!(within(silent.read(&mut [0; 1])).await, Ok(0) | Err(_)));
}

/// Once the bounds were the listener's alone: one address could hold every place, and nobody joined.
#[tokio::test]
async fn one_source_takes_its_share_of_the_places_and_no_more() {
    let ca = Ca::new("one");
    let per_source = PerSource { connections: 2, handshakes: 2 };
    let limits = Limits { connections: 3, per_source, ..Limits::default() };
    let tls = ca.vault(Arc::new(Everybody::default()));
    let server = start(tls, Echo::default(), Connections::new(), limits).await;
    let mut greedy = Vec::new();
    for _ in 0..2 {
        greedy.push(TcpStream::connect(server.addr).await.unwrap());
    }
    let mut third = TcpStream::connect(server.addr).await.unwrap();
    assert!(matches!(within(third.read(&mut [0; 1])).await, Ok(0) | Err(_)), "dropped at once");
    // Somebody else, from another address.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    let tcp = socket.connect(server.addr).await.unwrap();
    let config = Arc::new(stranger(ca.cell(Role::Node, "node-a"), OURS.to_vec(), &rustls::version::TLS13));
    let name = ServerName::try_from("vault").unwrap();
    assert!(within(TlsConnector::from(config).connect(name, tcp)).await.is_ok());
    // A seat that is left is free again.
    greedy.pop();
    let again = async {
        while whoami(server.addr, ca.client(Role::Node, "node-b")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within(again).await;
}
