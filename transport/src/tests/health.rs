//! The health listener, asked over plain HTTP.

use super::world::within;
use crate::daemon::{Health, Readiness};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(tcp.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn readiness_follows_the_daemon_and_liveness_does_not() {
    let readiness = Readiness::not_yet("sealed");
    let health = Health::bind("127.0.0.1:0".parse().unwrap(), readiness.clone()).await.unwrap();
    let (addr, stop) = (health.addr(), CancellationToken::new());
    let serving = tokio::spawn(health.serve(stop.clone()));
    let not_ready = get(addr, "/readyz").await;
    assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.ends_with("sealed\n"), "{not_ready}");
    assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200"));
    readiness.ready();
    assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 200"));
    readiness.not_ready("no quorum");
    assert!(get(addr, "/readyz").await.starts_with("HTTP/1.1 503"));
    metrics::counter!("holdfast_test_total").increment(3);
    assert!(get(addr, "/metrics").await.contains("holdfast_test_total 3"));
    stop.cancel();
    within(serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn health_is_never_served_to_the_network() {
    let bound = Health::bind("0.0.0.0:0".parse().unwrap(), Readiness::not_yet("starting")).await;
    let failure = bound.err().unwrap();
    assert!(failure.message.contains("loopback") && failure.kind.exit_code() == 2, "{failure}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_what_to_do() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let failure = Health::bind(addr, Readiness::not_yet("starting")).await.err().unwrap();
    assert!(failure.message.contains(&addr.to_string()) && failure.help.unwrap().contains("port"));
}
