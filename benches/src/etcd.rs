//! etcd as a peer: real processes on the same disk, and a client that keeps up with it.

use crate::Failed;
use crate::cluster::world::free_port;
use crate::load::{Load, Taken};
use prost::Message;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

/// How long a cluster may take to have a leader.
const START: Duration = Duration::from_secs(20);

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`, of which nothing is read.
#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

/// `etcdserverpb.StatusRequest`.
#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

/// `etcdserverpb.StatusResponse`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// `etcdserverpb.ResponseHeader`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// A cluster of etcd, gone when dropped.
pub struct Etcd {
    processes: Vec<Child>,
    clients: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for m in &mut self.processes {
            drop(m.kill());
            drop(m.wait());
        }
    }
}

impl Etcd {
    /// `n` members with their usual settings: every write is in a write-ahead log and synced before it is answered.
    pub fn start(n: usize) -> Result<Self, Failed> {
        let dir = tempfile::Builder::new().prefix("hf-etcd-").tempdir()?;
        let urls: Vec<(String, String)> = (0..n).map(|_| (url(), url())).collect();
        let cluster: Vec<String> = urls.iter().enumerate().map(|(i, (_, peer))| format!("m{i}={peer}")).collect();
        let mut members = Vec::new();
        for (i, (client, peer)) in urls.iter().enumerate() {
            let mut c = Command::new("etcd");
            c.args(["--name", &format!("m{i}"), "--data-dir"]).arg(dir.path().join(format!("m{i}")));
            c.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
            c.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
            c.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new", "--log-level", "error"]);
            let started = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            members.push(started.map_err(|e| format!("etcd does not start ({e}): apt-get install etcd-server"))?);
        }
        Ok(Self { processes: members, clients: urls.into_iter().map(|(client, _)| client).collect(), _dir: dir })
    }

    /// The addresses of all members.
    pub fn members(&self) -> &[String] {
        &self.clients
    }

    /// The address of the member that leads.
    pub async fn leader(&self) -> Result<String, Failed> {
        for addr in &self.clients {
            let mut grpc = tonic::client::Grpc::new(connect(addr).await?);
            grpc.ready().await?;
            let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
            let codec = tonic_prost::ProstCodec::<StatusRequest, StatusResponse>::default();
            let status = grpc.unary(tonic::Request::new(StatusRequest {}), path, codec).await?.into_inner();
            if status.header.is_some_and(|h| h.member_id == status.leader) {
                return Ok(addr.clone());
            }
        }
        Err("no member of etcd leads".into())
    }

    /// Puts values of `bytes` bytes from `clients` clients, a connection each, spread over `addrs`.
    pub async fn puts(addrs: &[String], clients: usize, bytes: usize, span: Duration) -> Result<Taken, Failed> {
        let mut channels = Vec::with_capacity(clients);
        let addrs = addrs.iter().cycle().take(clients);
        for addr in addrs {
            channels.push(connect(addr).await?);
        }
        if let Some(c) = channels.first() {
            ready(c.clone()).await?;
        }
        let value = vec![7; bytes];
        let mut load = Load::new(span);
        for (i, channel) in channels.into_iter().enumerate() {
            let value = value.clone();
            load.client(move |n| {
                let key = format!("c{i}").into_bytes();
                let request = PutRequest { key, value: value.clone() };
                let channel = channel.clone();
                async move {
                    let _ = n;
                    put(channel, request).await.map(|()| true)
                }
            });
        }
        load.run().await
    }
}

fn url() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

async fn connect(addr: &str) -> Result<Channel, Failed> {
    let until = Instant::now() + START;
    loop {
        match Endpoint::from_shared(addr.to_owned())?.tcp_nodelay(true).connect().await {
            Ok(channel) => return Ok(channel),
            Err(e) if Instant::now() > until => return Err(format!("etcd at {addr} does not answer: {e}").into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn ready(channel: Channel) -> Result<(), Failed> {
    let until = Instant::now() + START;
    loop {
        match put(channel.clone(), PutRequest { key: b"ready".to_vec(), value: Vec::new() }).await {
            Ok(()) => return Ok(()),
            Err(e) if Instant::now() > until => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn put(channel: Channel, request: PutRequest) -> Result<(), Failed> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
    grpc.unary(tonic::Request::new(request), path, codec).await?;
    Ok(())
}
