//! Secrets put by an operator over connections of its own, signed and sealed before the clock starts.

use crate::Failed;
use crate::cluster::random;
use crate::load::{Load, Taken};
use holdfast_pki::chain::Anchors;
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::rpc::command_plane_client::CommandPlaneClient;
use holdfast_transport::tls::{Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, TrustCell};
use holdfast_types::{ClusterId, Role, Secret, TrustDomain, sha256};
use holdfast_wire::boxes::{self, Context};
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::v1::{self, command::Action};
use holdfast_wire::{padding, statement};
use prost::Message as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;
use tonic::transport::Channel;

/// An operator as the tool's context holds it.
pub struct Operator {
    key: Ed25519Key,
    cluster: ClusterId,
    intake: Vec<u8>,
    tls: ClientTls,
}

impl Operator {
    /// Reads the only context under `home`; somebody has logged in with it.
    pub fn load(home: &Path) -> Result<Self, Failed> {
        let mut contexts = std::fs::read_dir(home.join("contexts"))?;
        let dir = contexts.next().ok_or("there is no context")??.path();
        let text = std::fs::read_to_string(dir.join("context.toml"))?;
        let value = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(key)?.trim_start().strip_prefix('='));
            line.map(|v| v.trim().trim_matches('"').to_owned()).ok_or_else(|| format!("context.toml has no {key}"))
        };
        let cluster = ClusterId::parse(&value("cluster-id")?).ok_or("cluster-id")?;
        let mut seed = unhex(std::fs::read_to_string(dir.join("operator.key"))?.trim())?;
        let key = Ed25519Key::from_seed(Secret::take(&mut seed));
        let trust = v1::TrustView::decode(std::fs::read(dir.join("trust.pb"))?.as_slice())?;
        let bundle: v1::Bundle = statement::peek(trust.bundle_chain.last().ok_or("no bundle")?)?;
        let anchors = Anchors::new(&bundle.roots, TrustDomain::parse(&value("trust-domain")?)?)?;
        let login = v1::Issued::decode(std::fs::read(dir.join("login.pb"))?.as_slice())?;
        let login_key = PrivateKey::from_pkcs8(&std::fs::read(dir.join("login.key"))?)?;
        let identity = IdentityCell::new(LocalIdentity::new(&login.chain, &login_key)?);
        let tls = ClientTls::mutual(identity, TrustCell::new(anchors), Expect::Role(Role::Vault), Alpn::Service);
        Ok(Self { key, cluster, intake: bundle.intake_pk, tls })
    }

    /// A connection to the service listener at `addr`.
    pub async fn dial(&self, addr: &str) -> Result<Channel, Failed> {
        Ok(Dialer::new([addr], self.tls.clone(), Timing::default()).dial().await?.channel)
    }

    /// One way to the leader among the service listeners at `addrs`.
    pub fn dialer(&self, addrs: impl IntoIterator<Item = String>) -> Dialer {
        Dialer::new(addrs, self.tls.clone(), Timing::default())
    }

    /// A signed command that puts version `version` of `bench/<name>`.
    pub fn put(&self, name: &str, version: u64, value: &[u8]) -> Result<v1::SubmitRequest, Failed> {
        let id: [u8; 16] = random()?;
        let aad = boxes::intake_aad(&format!("bench/{name}"), version, &id);
        let context = Context { purpose: "intake", cluster: &self.cluster, aad: &aad };
        let sealed = boxes::seal(&self.intake, &context, None, &padding::pad(value), random()?)?;
        let put = v1::PutSecret {
            namespace: "bench".to_owned(),
            name: name.to_owned(),
            version,
            box_sha256: sha256(&[&sealed]).to_vec(),
            readers: vec!["bench/*".to_owned()],
            zones: vec!["*".to_owned()],
            attested_only: false,
        };
        let command = v1::Command {
            cluster_id: self.cluster.0.to_vec(),
            era: 1,
            command_id: id.to_vec(),
            expires_at_ms: holdfast_transport::now().plus(Duration::from_secs(900)).0,
            expect_rev: 0,
            action: Some(Action::PutSecret(put)),
        };
        Ok(v1::SubmitRequest { statement: Some(statement::sign(&command, &[&self.key])?), r#box: sealed })
    }

    /// `clients` clients at `addr`, each on a connection of its own, put values of `bytes` bytes for `span`: each the
    /// versions of one secret, one after the other. `most`: versions that each has ready.
    pub async fn puts(
        &self,
        addr: &str,
        clients: usize,
        bytes: usize,
        most: usize,
        span: Duration,
    ) -> Result<Taken, Failed> {
        self.ready(addr, clients, bytes, most, span).await?.run().await
    }

    /// The same clients, connected, with all that they will put signed and sealed, before they begin.
    pub async fn ready(
        &self,
        addr: &str,
        clients: usize,
        bytes: usize,
        most: usize,
        span: Duration,
    ) -> Result<Load, Failed> {
        let mut load = Load::new(span);
        let run = u64::from_be_bytes(random()?);
        for c in 0..clients {
            let (name, value) = (format!("c{c}-{run:x}"), vec![7; bytes]);
            let ready = (1..=most as u64).map(|v| self.put(&name, v, &value)).collect::<Result<Vec<_>, _>>()?;
            let (ready, channel) = (Arc::new(ready), self.dial(addr).await?);
            load.client(move |n| {
                let (request, channel) = (ready.get(n).cloned(), channel.clone());
                async move {
                    match request {
                        Some(request) => submit(channel, request).await,
                        None => Ok(false),
                    }
                }
            });
        }
        Ok(load)
    }

    /// Puts `names` secrets of `bytes` bytes at `addr`, by as many clients as `clients`.
    pub async fn fill(self: &Arc<Self>, addr: &str, clients: usize, names: usize, bytes: usize) -> Result<(), Failed> {
        let mut running = Vec::with_capacity(clients);
        for c in 0..clients {
            let (me, channel) = (Arc::clone(self), self.dial(addr).await?);
            running.push(tokio::spawn(async move {
                for n in (c..names).step_by(clients) {
                    let request = me.put(&format!("n{n}"), 1, &vec![7; bytes])?;
                    submit(channel.clone(), request).await?;
                }
                Ok::<(), Failed>(())
            }));
        }
        for client in running {
            client.await??;
        }
        Ok(())
    }
}

/// Submits until it is accepted: a leader that is busy says so. `false`: what it was sealed to is not held any more.
pub async fn submit(channel: Channel, request: v1::SubmitRequest) -> Result<bool, Failed> {
    loop {
        match CommandPlaneClient::new(channel.clone()).submit(request.clone()).await {
            Ok(_) => return Ok(true),
            Err(s) if s.message().contains("fetch the trust bundle again") => return Ok(false),
            Err(s) if s.code() == Code::ResourceExhausted => tokio::task::yield_now().await,
            Err(s) => return Err(s.into()),
        }
    }
}

fn unhex(text: &str) -> Result<[u8; 32], Failed> {
    let digits = (0..text.len() / 2).map(|i| text.get(2 * i..2 * i + 2).unwrap_or_default());
    let bytes: Vec<u8> = digits.map(|d| u8::from_str_radix(d, 16)).collect::<Result<_, _>>()?;
    Ok(bytes.try_into().map_err(|_| "operator.key is not 32 bytes")?)
}
