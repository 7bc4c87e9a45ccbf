//! `service logs`: the request is signed for the nodes, the answer is sealed for us; the orchestrator relays both unread.

mod printed;

use super::names::wrong;
use crate::app::App;
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::output::time;
use holdfast_transport::client::{Backoff, Dialer};
use holdfast_transport::failure::{Failure as Answer, FailureKind};
use holdfast_transport::rpc::deploy_client::DeployClient;
use holdfast_types::{Secret, ServiceRef, TaskId, kind};
use holdfast_wire::boxes::{self, PrivateKey};
use holdfast_wire::{strict, v1};
use printed::{Printed, Resent};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long nodes answer one request. What is followed for longer is asked for again, which also finds tasks that came
/// up on other nodes.
const REQUEST_LIFE: Duration = Duration::from_secs(20);
/// Longest pause before output that is followed is asked for again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A node says its last word when a request ends. Whoever says nothing for longer than that will not answer any more.
const SILENCE: Duration = Duration::from_secs(25);

/// What is asked for.
struct Wanted<'a> {
    service: &'a ServiceRef,
    /// One task; empty: all of them.
    task_id: String,
    follow: bool,
    /// Lines from the end; 0: all.
    tail: u32,
}

/// Runs the verb. Output that is followed goes on over a node's new certificate, and over an orchestrator or a vault that
/// starts again, until the service is gone.
pub async fn run(app: &App, name: &ServiceRef, task: Option<String>, follow: bool, tail: u32) -> Result<(), Failure> {
    if follow && app.out.is_json() {
        return Err(wrong("--json prints one document and cannot be used with --follow"));
    }
    let task_id = match task {
        Some(t) => TaskId::parse(&t).map_err(wrong)?.as_str().to_owned(),
        None => String::new(),
    };
    let mut wanted = Wanted { service: name, task_id, follow, tail };
    let (mut printed, mut documents) = (Printed::default(), Vec::new());
    print_all(app, &Cluster::connect(app).await?, &wanted, &mut printed, &mut documents).await?;
    if follow {
        wanted.tail = 0;
        return go_on(app, &wanted, &mut printed).await;
    }
    app.out.show(&json!({ "lines": documents }), String::new)
}

/// One answer to its end. A node whose session ends in the midst of it is asked for the rest once it has another one.
async fn print_all(
    app: &App,
    c: &Cluster,
    wanted: &Wanted<'_>,
    printed: &mut Printed,
    documents: &mut Vec<Value>,
) -> Result<(), Failure> {
    let end = Instant::now() + c.patience();
    let mut backoff = Backoff::new(Duration::from_millis(100), LONGEST_PAUSE);
    loop {
        let wait = backoff.next_delay();
        match print(app, c, wanted, printed, documents).await {
            Err(f) if is_broken(&f) && Instant::now() + wait < end => tokio::time::sleep(wait).await,
            ended => return ended,
        }
    }
}

/// The connection broke, or that of a node to the orchestrator.
fn is_broken(failure: &Failure) -> bool {
    failure.code == Code::ConnectionLost.word()
}

/// Asks again whenever the output ended, until the service is gone.
async fn go_on(app: &App, wanted: &Wanted<'_>, printed: &mut Printed) -> Result<(), Failure> {
    let mut backoff = Backoff::new(Duration::from_millis(100), LONGEST_PAUSE);
    loop {
        tokio::time::sleep(backoff.next_delay()).await;
        match again(app, wanted, printed).await {
            Ok(true) => backoff.reset(),
            Ok(false) => return Ok(()),
            Err(f) if matches!(f.kind, FailureKind::Unavailable | FailureKind::NotLeader | FailureKind::NotFound) => {}
            Err(f) => return Err(f),
        }
    }
}

/// Asks for what came since, over connections of its own; false if the service is gone.
async fn again(app: &App, wanted: &Wanted<'_>, printed: &mut Printed) -> Result<bool, Failure> {
    let c = Cluster::connect(app).await?;
    let name = v1::ListRequest {
        namespace: wanted.service.namespace.as_str().to_owned(),
        name: wanted.service.name.as_str().to_owned(),
        all: false,
    };
    let found = c.read(async |mut r| r.list_services(name.clone()).await).await?.services;
    if found.is_empty() {
        return Ok(false);
    }
    print(app, &c, wanted, printed, &mut Vec::new()).await?;
    Ok(true)
}

/// One request, and all lines of its answer that were not printed before.
async fn print(
    app: &App,
    c: &Cluster,
    wanted: &Wanted<'_>,
    printed: &mut Printed,
    documents: &mut Vec<Value>,
) -> Result<(), Failure> {
    let ikm: Secret<kind::HpkeKey, 32> = clock::random_secret()?;
    let (key, reply_pk) = boxes::derive_keypair(ikm.expose());
    let request = v1::LogsRequest {
        cluster_id: c.ctx.cluster.0.to_vec(),
        request_id: clock::random::<16>()?.to_vec(),
        namespace: wanted.service.namespace.as_str().to_owned(),
        service: wanted.service.name.as_str().to_owned(),
        task_id: wanted.task_id.clone(),
        tail: wanted.tail,
        follow: wanted.follow,
        reply_pk: reply_pk.to_vec(),
        expires_at_ms: clock::now().plus(REQUEST_LIFE).0,
        since_ms: printed.since_ms(),
    };
    let query = v1::LogsQuery { request: Some(c.operator.sign(&request)?) };
    let dialer = orchestrators(c, wanted.service).await?;
    let call = |channel| {
        let query = query.clone();
        async move { DeployClient::new(channel).logs(query).await }
    };
    let mut stream = match dialer.call(c.patience(), call).await {
        // Its orchestrator has given our root up since we asked the vault.
        Err(f) if f.code == Code::CertificateRefused.word() => {
            c.log_in_again().await?;
            dialer.call(c.patience(), call).await?
        }
        answer => answer?,
    };
    printed.taken();
    let mut resent = Resent::default();
    let mut reader = Reader { cluster: c, key: &key, request: &request, seen: BTreeMap::new() };
    loop {
        let said = timeout(SILENCE, stream.message()).await;
        let chunk = match said.unwrap_or_else(|_| Err(silent().into())).map_err(Answer::from) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(()),
            Err(f) if wanted.follow && f.may_pass() => return Ok(()),
            Err(f) => return Err(f.into()),
        };
        let lines = reader.open(&chunk)?;
        if let Some(lost) = reader.lost(&chunk) {
            app.out.note(&lost);
        }
        for line in printed.news(&mut resent, &chunk.task_id, lines.lines) {
            if app.out.is_json() {
                documents.push(document(&chunk, &line));
            } else {
                app.out.raw(&format!("{} | {}\n", chunk.task_id, String::from_utf8_lossy(&line.text)))?;
            }
        }
    }
}

fn silent() -> Answer {
    let help = "see the logs of the agents, or ask for one task with --task";
    Answer::unavailable("timed-out", format!("a node said nothing for {} s", SILENCE.as_secs())).help(help)
}

fn document(chunk: &v1::LogChunk, line: &v1::LogLine) -> Value {
    let stream = if line.stream == 2 { "stderr" } else { "stdout" };
    json!({
        "task": chunk.task_id, "node": chunk.node_id, "at": time(line.at_ms), "stream": stream,
        "text": String::from_utf8_lossy(&line.text),
    })
}

/// Orchestrators that may hold the service's nodes: those with a lease on its namespace first.
async fn orchestrators(c: &Cluster, name: &ServiceRef) -> Result<Dialer, Failure> {
    let mut all = c.read(async |mut r| r.get_status(v1::Ack {}).await).await?.orchestrators;
    all.retain(|o| !o.addr.is_empty());
    let holds = |o: &v1::OrchestratorAddr| o.namespaces.iter().any(|n| n == "*" || n == name.namespace.as_str());
    all.sort_by_key(|o| !holds(o));
    let Some(first) = all.first() else {
        let help = "start an orchestrator, or see `holdfast status`";
        return Err(Failure::new(Code::Unreachable, "no orchestrator is connected to the vault", help));
    };
    let dialer = c.orchestrator(&first.addr)?;
    dialer.set_addrs(all.into_iter().map(|o| o.addr));
    Ok(dialer)
}

/// Opens chunks; only nodes that verified our request know the key they are sealed to.
struct Reader<'a> {
    cluster: &'a Cluster,
    key: &'a PrivateKey,
    request: &'a v1::LogsRequest,
    /// Last sequence number by node and task.
    seen: BTreeMap<(String, String), u64>,
}

impl Reader<'_> {
    fn open(&self, chunk: &v1::LogChunk) -> Result<v1::LogLines, Failure> {
        if chunk.r#box.is_empty() && chunk.end {
            let what = "a node answers too many requests for output already";
            return Err(Answer::unavailable("unavailable", what).help("try again in a moment").into());
        }
        // A node without any task of the service says only that.
        if chunk.task_id.is_empty() && chunk.end {
            return Ok(v1::LogLines::default());
        }
        let task = TaskId::parse(&chunk.task_id).and_then(|t| t.service()).map_err(Failure::untrusted)?;
        if chunk.request_id != self.request.request_id
            || (task.namespace.as_str(), task.name.as_str())
                != (self.request.namespace.as_str(), self.request.service.as_str())
        {
            return Err(Failure::untrusted("the orchestrator answered another request than ours"));
        }
        let aad = chunk_aad(chunk);
        let context = boxes::Context { purpose: "logs", cluster: &self.cluster.ctx.cluster, aad: &aad };
        let text = boxes::open(self.key, &context, None, &chunk.r#box).map_err(Failure::untrusted)?;
        strict::decode(text.expose(), boxes::MAX_PLAINTEXT).map_err(Failure::untrusted)
    }
    /// Says so if the orchestrator left chunks out, or repeated or reordered them.
    fn lost(&mut self, chunk: &v1::LogChunk) -> Option<String> {
        let last = self.seen.insert((chunk.node_id.clone(), chunk.task_id.clone()), chunk.seq);
        let in_order = last.is_none_or(|l| l.checked_add(1) == Some(chunk.seq));
        (!in_order).then(|| format!("some output of {} is missing or out of order", chunk.task_id))
    }
}

/// `request_id ‖ task_id ‖ seq`.
fn chunk_aad(chunk: &v1::LogChunk) -> Vec<u8> {
    [chunk.request_id.as_slice(), chunk.task_id.as_bytes(), &chunk.seq.to_be_bytes()].concat()
}
