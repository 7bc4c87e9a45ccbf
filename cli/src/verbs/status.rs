//! `status`: voters, roots, nodes and alarms; of a sealed voter, what its socket tells.

use super::{keyring, root, unlock_key, voter};
use crate::app::App;
use crate::args::Socket as SocketArg;
use crate::client::Cluster;
use crate::clock;
use crate::errors::Failure;
use crate::output::{Tone, age, time};
use crate::socket::Socket;
use data_encoding::HEXLOWER;
use holdfast_transport::failure::FailureKind;
use holdfast_wire::v1;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;

/// Runs the verb: the cluster if it can be reached, else the voter on this machine.
pub async fn run(app: &App, a: SocketArg) -> Result<(), Failure> {
    if let Some(path) = a.vault_socket {
        return local(app, &path, None).await;
    }
    match cluster(app).await {
        Err(f) if f.kind == FailureKind::Unavailable => match app.socket(None) {
            Ok(path) if path.exists() => local(app, &path, Some(f)).await,
            Ok(_) | Err(_) => Err(f),
        },
        done => done,
    }
}

async fn cluster(app: &App) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let s = c.read(async |mut r| r.get_status(v1::Ack {}).await).await?;
    remember(&c, &s)?;
    let doors = doors(&c).await;
    app.out.show(&document(&s, &doors), || human(app, &s, &doors))
}

/// What the voters behind the context's sockets say: their sockets, numbers and states. A sealed one is seen only so.
async fn doors(c: &Cluster) -> Vec<(String, u64, String)> {
    let mut all = Vec::new();
    for path in c.ctx.settings.sockets() {
        let asked = async { Socket::connect(&path, Duration::from_secs(2)).await?.seal_status().await };
        // Another cluster's voter, or none at all, is nothing to report of this one.
        let Ok(s) = asked.await else { continue };
        if s.cluster_id == c.ctx.cluster.0 {
            all.push((path.display().to_string(), s.voter_id, s.state));
        }
    }
    all
}

/// Keeps the addresses of all voters, so that the next command finds one that is up.
fn remember(c: &Cluster, s: &v1::StatusView) -> Result<(), Failure> {
    let addrs = |of: fn(&v1::VoterView) -> &str| -> Vec<String> {
        s.voters.iter().map(of).filter(|a| !a.is_empty()).map(ToOwned::to_owned).collect()
    };
    let mut settings = c.ctx.settings.clone();
    let (service, join) = (addrs(|v| &v.service_addr), addrs(|v| &v.join_addr));
    if !service.is_empty() && !join.is_empty() {
        (settings.service_addrs, settings.join_addrs) = (service, join);
    }
    if settings == c.ctx.settings { Ok(()) } else { c.ctx.dir.write_settings(&settings) }
}

async fn local(app: &App, path: &Path, why: Option<Failure>) -> Result<(), Failure> {
    let mut socket = Socket::connect(path, app.timeout(Duration::from_secs(15))).await?;
    let s = socket.seal_status().await?;
    super::seal::remember_addresses(app, &s)?;
    // An open voter whose cluster cannot be reached through its service listener has no quorum to answer with.
    let state = if why.is_some() && s.state == "ready" { "no-quorum" } else { s.state.as_str() };
    let voter = json!({"id": s.voter_id, "state": s.state, "slots": s.slots, "service_addr": s.service_addr, "join_addr": s.join_addr});
    let (applicant, key) = (s.applicant.clone(), HEXLOWER.encode(&s.spki_sha256));
    let document = json!({
        "state": state, "cluster_id": HEXLOWER.encode(&s.cluster_id), "autolock": s.autolock, "reason": s.reason,
        "hsm": null, "voters": [voter], "nodes": {}, "alarms": [], "leader": (s.leader != 0).then_some(s.leader),
        "applicant": applicant, "key": key,
    });
    app.out.show(&document, || {
        let reason = why.map(|f| f.message).or((!s.reason.is_empty()).then_some(s.reason));
        let reason = reason.map(|r| format!("reason    {r}\n")).unwrap_or_default();
        let slots = if s.slots.is_empty() { "-".to_owned() } else { s.slots.join(", ") };
        let waits = if applicant.is_empty() {
            String::new()
        } else {
            format!("waits as  {applicant}, key {key}: holdfast voter admit {applicant} --key {key}\n")
        };
        format!(
            "state     {}\nvoter     {}\n{waits}slots     {slots}\nautolock  {}\n{reason}",
            app.out.state(state),
            // A voter has no number before it is founded.
            if s.voter_id == 0 { "-".to_owned() } else { s.voter_id.to_string() },
            on(s.autolock)
        )
    })
}

fn on(b: bool) -> &'static str {
    if b { "on" } else { "off" }
}

fn document(s: &v1::StatusView, doors: &[(String, u64, String)]) -> Value {
    let nodes: Map<String, Value> = s.nodes.iter().map(|n| (n.state.clone(), n.count.into())).collect();
    let leader_log = s.voters.iter().map(|v| v.last_log).max().unwrap_or(0);
    let socket = |(path, voter, state): &(String, u64, String)| json!({"path": path, "voter": voter, "state": state});
    let root = |r: &v1::RootView| json!({"sha256": HEXLOWER.encode(&r.sha256), "not_after": time(r.not_after_ms), "signer": r.signer});
    let lease = |l: &v1::LeaseState| json!({"namespace": l.namespace, "holder": l.holder, "fence": l.fence, "until": time(l.until_ms)});
    let orchestrator = |o: &v1::OrchestratorAddr| json!({"id": o.orch_id, "addr": o.addr, "namespaces": o.namespaces});
    json!({
        "state": s.state, "cluster_id": HEXLOWER.encode(&s.cluster_id), "trust_domain": s.trust_domain,
        "voters": s.voters.iter().map(|v| voter::document(v, leader_log)).collect::<Vec<_>>(), "nodes": nodes,
        "roots": s.roots.iter().map(root).collect::<Vec<_>>(), "autolock": s.autolock, "lockdown": s.lockdown,
        "hsm": s.root_rotation.as_ref().filter(|r| !r.hsm.is_empty()).map(|r| r.hsm.clone()),
        "rotation": s.root_rotation.as_ref().map(rotation),
        "alarms": s.alarms.iter().map(|a| json!({"code": a.code, "text": a.text})).collect::<Vec<_>>(),
        "era": s.era, "epoch": s.epoch, "log_size": s.log_size,
        "leases": s.leases.iter().map(lease).collect::<Vec<_>>(),
        "orchestrators": s.orchestrators.iter().map(orchestrator).collect::<Vec<_>>(),
        "services": s.services, "secrets": s.secrets, "live_grants": s.live_grants,
        "unlock": s.unlock.as_ref().map(unlock_key::document), "keyring": s.keyring.as_ref().map(keyring::document),
        "sockets": doors.iter().map(socket).collect::<Vec<_>>(),
    })
}

fn human(app: &App, s: &v1::StatusView, doors: &[(String, u64, String)]) -> String {
    let out = &app.out;
    let nodes: Vec<String> = s.nodes.iter().map(|n| format!("{} {}", n.count, n.state)).collect();
    let nodes = if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") };
    let now = clock::now();
    let mut text = format!(
        "state     {}\ncluster   {}\nera       {}, epoch {}\nautolock  {}\nnodes     {nodes}\nservices  {}, {} live grants, {} secrets\nlog       {} entries\n",
        out.state(&s.state),
        s.trust_domain,
        s.era,
        s.epoch,
        on(s.autolock),
        s.services,
        s.live_grants,
        s.secrets,
        s.log_size
    );
    for r in &s.roots {
        let signer = if r.signer { " (signing)" } else { "" };
        let sha: String = HEXLOWER.encode(&r.sha256).chars().take(16).collect();
        text.push_str(&format!("root      {sha}, ends {}{signer}\n", age(now, r.not_after_ms)));
    }
    if let Some(r) = s.root_rotation.as_ref().filter(|r| !root::is_stable(r)) {
        text.push_str(&format!("rotation  {}; see `holdfast root status`\n", root::words(r)));
    }
    if s.lockdown {
        text.push_str(&format!("{}\n", out.paint("lockdown: nothing starts until it is released", Tone::Bad)));
    }
    for a in &s.alarms {
        text.push_str(&format!("{} {}: {}\n", out.paint("alarm", Tone::Bad), a.code, a.text));
    }
    text.push_str(&keys(s));
    text.push('\n');
    text.push_str(&voter::table(app, &s.voters));
    for (path, voter, state) in doors.iter().filter(|(.., state)| state != "ready") {
        text.push_str(&format!("voter {voter} behind {path} is {}\n", out.state(state)));
    }
    text
}

/// The rotation of the root in brief; `root status` says all of it.
fn rotation(r: &v1::RootsView) -> Value {
    json!({"phase": r.phase, "reissued": r.reissued, "total": r.total, "waits_for": r.waits_for})
}

/// The unlock key and the keyring, and what is under way with them.
fn keys(s: &v1::StatusView) -> String {
    let mut text = String::new();
    if let Some(u) = s.unlock.as_ref().filter(|u| u.autolock || u.pending != 0) {
        let rotation = match u.pending {
            0 => String::new(),
            next => {
                let all = u.ready.len() + u.missing.len();
                format!(", rotating to {next}: {} of {all} voters ready", u.ready.len())
            }
        };
        text.push_str(&format!("unlock    epoch {}{rotation}\n", u.epoch));
    }
    if let Some(k) = &s.keyring {
        let left = if k.older.is_empty() { String::new() } else { format!(", {} records under older terms", k.left) };
        text.push_str(&format!("keyring   term {}{left}\n", k.term));
    }
    text
}
