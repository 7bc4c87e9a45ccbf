//! Grants issued a second by the real vault process with one voter: policy, box of one secret of 1 KiB, signature,
//! commit, proof.
//!
//! Beside it: two policy decisions, one box and one signature a grant, on all processors, in the same run.

use crate::cluster::world::World;
use crate::cluster::{self, Machine, random};
use crate::line::{Goal, Line};
use crate::{Failed, floor};
use holdfast_policy::{GrantFacts, MountFacts, NodeFacts, OrchestratorFacts, Policies, SecretFacts, ServiceFacts};
use holdfast_transport::rpc::node_plane_client::NodePlaneClient;
use holdfast_transport::rpc::sched_plane_client::SchedPlaneClient;
use holdfast_types::{ClusterId, NodeId, OrchId, Secret, SecretRef, ServiceRef, TaskId, Zone};
use holdfast_wire::boxes::{self, Context, derive_keypair};
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::token::TokenRole;
use holdfast_wire::v1::{self, grant_result::Result as Granted};
use holdfast_wire::{padding, statement};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

pub const HOW: &str = "one orchestrator calls RequestGrants over mTLS, batches of 100 with one secret of 1 KiB each, 4 batches \
     under way, for 5 s; synced to disk, with receipts";

const BATCH: usize = 100;
const UNDER_WAY: usize = 4;
const SPAN: Duration = Duration::from_secs(5);
const SECRET: [u8; 1024] = [7; 1024];
/// Between two extensions of the lease: well within its life in the cluster of the tests.
const KEEP: Duration = Duration::from_secs(1);

pub fn in_batches() -> Result<Line, Failed> {
    let w = World::founded();
    w.put_secret("bench/password", &SECRET, &[]);
    let value = cluster::runtime()?.block_on(async {
        let node = cluster::join(&w, &w.token("node", &[]), TokenRole::Node).await?;
        let orchestrator = cluster::join(&w, &w.token("orchestrator", &[]), TokenRole::Orchestrator).await?;
        let most = u32::MAX.to_string();
        let mandate = ["mandate", "put", "--orchestrator", &orchestrator.id];
        w.ok(&[&mandate[..], &["--grants-per-minute", &most, "--novelty-per-hour", &most]].concat());
        w.ok(&["service", "deploy", "--detach", "-f", &spec(&w)]);
        connected(&node).await?;
        holding_the_lease(&orchestrator).await?;
        grants_a_second(orchestrator.channel, node.id).await
    })?;
    drop(w);
    Ok(Line { value, unit: "grants/s", beside: alone()?, goal: Goal::AtLeast(1_500.0) })
}

fn spec(w: &World) -> String {
    let text = format!(
        "name = \"web\"\nnamespace = \"bench\"\nimage = {:?}\nreplicas = 10000000\nsecrets = [{{ name = \"password\" }}]\n",
        w.busybox()
    );
    w.write_spec("web", &text)
}

/// The node's Sync stream, which makes it one that the vault hears of; what comes is taken and left unread.
async fn connected(node: &Machine) -> Result<(), Failed> {
    let (reports, outgoing) = mpsc::channel(1);
    reports.send(v1::NodeReport { complete: true, ..v1::NodeReport::default() }).await?;
    let mut pushes = NodePlaneClient::new(node.channel.clone()).sync(ReceiverStream::new(outgoing)).await?.into_inner();
    pushes.message().await?.ok_or("the vault ended the node's stream")?;
    tokio::spawn(async move {
        while let Ok(Some(_)) = pushes.message().await {}
        drop(reports);
    });
    Ok(())
}

async fn holding_the_lease(orchestrator: &Machine) -> Result<(), Failed> {
    let (ask, outgoing) = mpsc::channel(1);
    let wish = v1::KeepLeaseRequest { session_addr: "127.0.0.1:1".to_owned(), bundle_epoch: 0 };
    ask.send(wish.clone()).await?;
    let mut client = SchedPlaneClient::new(orchestrator.channel.clone());
    let mut replies = client.keep_lease(ReceiverStream::new(outgoing)).await?.into_inner();
    let first = replies.message().await?.ok_or("the vault ended the lease's stream")?;
    if first.leases.is_empty() {
        return Err("the orchestrator got no lease".into());
    }
    tokio::spawn(async move {
        while let Ok(Some(_)) = replies.message().await {
            tokio::time::sleep(KEEP).await;
            if ask.send(wish.clone()).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

async fn grants_a_second(channel: Channel, node: String) -> Result<f64, Failed> {
    let slots = Arc::new(AtomicU32::new(1));
    let start = Instant::now();
    let lines: Vec<_> = (0..UNDER_WAY)
        .map(|_| tokio::spawn(batches(channel.clone(), node.clone(), Arc::clone(&slots), start + SPAN)))
        .collect();
    let mut issued = 0;
    for line in lines {
        issued += line.await??;
    }
    Ok(f64::from(issued) / start.elapsed().as_secs_f64())
}

async fn batches(channel: Channel, node: String, slots: Arc<AtomicU32>, end: Instant) -> Result<u32, Failed> {
    let service = ServiceRef::of("bench", "web")?;
    let one = |slot| v1::GrantRequest {
        namespace: service.namespace.to_string(),
        service: service.name.to_string(),
        version: 0,
        node_id: node.clone(),
        task_id: TaskId::new(&service, slot).to_string(),
        params: Vec::new(),
    };
    let mut client = SchedPlaneClient::new(channel);
    let mut issued = 0;
    while Instant::now() < end {
        let requests = (0..BATCH).map(|_| one(slots.fetch_add(1, Ordering::Relaxed))).collect();
        let request = v1::RequestGrantsRequest { request_id: random::<16>()?.to_vec(), requests };
        for result in client.request_grants(request).await?.into_inner().results {
            match result.result {
                Some(Granted::Issued(grant)) if grant.receipt.is_some() && grant.boxes.len() == 1 => issued += 1,
                Some(Granted::Denied(denied)) => return Err(denied.reason.into()),
                Some(Granted::Issued(_)) | None => return Err("a grant lacks its receipt or its box".into()),
            }
        }
    }
    Ok(issued)
}

/// What the cryptography and the policy of as many grants take by themselves.
fn alone() -> Result<f64, Failed> {
    let (policies, (grant, mount)) = (Policies::builtin()?, facts()?);
    let (_, node_key) = derive_keypair(&random()?);
    let (psk, stk) = (Secret::take(&mut random()?), Ed25519Key::from_seed(Secret::take(&mut random()?)));
    let (cluster, value) = (ClusterId(random()?), padding::pad(&SECRET));
    let context = Context { purpose: "secret", cluster: &cluster, aad: b"aad" };
    let document = v1::Grant { grant_id: vec![1; 16], node_id: grant.node.id.to_string(), ..v1::Grant::default() };
    floor::a_second(|| {
        policies.decide_grant(&grant)?;
        policies.decide_mount(&mount)?;
        boxes::seal(&node_key, &context, Some(&psk), &value, random()?)?;
        statement::sign(&document, &[&stk])?;
        Ok(())
    })
}

fn facts() -> Result<(GrantFacts, MountFacts), Failed> {
    let node = NodeFacts {
        id: NodeId::from_random(random()?),
        zone: Zone::all(),
        state: "ready".to_owned(),
        attested: false,
        status_fresh: true,
    };
    let service = ServiceFacts {
        service: ServiceRef::of("bench", "web")?,
        zones: vec![Zone::all()],
        publishers: vec!["ci".to_owned()],
        sensitive: false,
        isolation: "default".to_owned(),
    };
    let secret = SecretFacts {
        secret: SecretRef::of("bench", "password")?,
        readers: vec!["bench/*".to_owned()],
        zones: vec![Zone::all()],
        attested_only: false,
    };
    let orchestrator = OrchestratorFacts {
        orchestrator: OrchId::from_random(random()?),
        mandate_namespaces: vec!["*".to_owned()],
        mandate_zones: vec![Zone::all()],
        mandate_live: true,
        holds_lease: true,
    };
    let mount = MountFacts { service: service.clone(), secret, node: node.clone(), lockdown: false };
    let grant = GrantFacts {
        orchestrator,
        service,
        node,
        publishers: vec!["ci".to_owned()],
        spec_active: true,
        within_budget: true,
        wants_relaxed: false,
        lockdown: false,
    };
    Ok((grant, mount))
}
