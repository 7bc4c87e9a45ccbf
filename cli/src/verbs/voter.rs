//! `voter`: who takes part in deciding, who waits to, and who never does again.

use super::names;
use super::node::fingerprint;
use crate::app::App;
use crate::args::{SignTo, VoterVerb};
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::output::{age, time};
use crate::signing;
use data_encoding::HEXLOWER;
use holdfast_wire::v1;
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::time::Instant;
use v1::command::Action;

/// The state of a voter that was cut off.
const EVICTED: &str = "evicted";
/// The state of one that was, and that the others cannot do without yet.
const LEAVING: &str = "leaving";
/// How long an eviction is waited for, and the pause between two looks.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// Whether a voter was evicted, be it that the others can do without it already or not.
pub fn is_evicted(v: &v1::VoterView) -> bool {
    v.state == EVICTED || v.state == LEAVING
}

/// Runs the verb.
pub async fn run(app: &App, verb: VoterVerb) -> Result<(), Failure> {
    match verb {
        VoterVerb::Ls => ls(app).await,
        VoterVerb::Admit { id, key, to } => admit(app, &id, &key, &to).await,
        VoterVerb::Evict { voter, compromised, yes, to } => evict(app, voter, compromised, yes, &to).await,
        VoterVerb::RotateDiskKeys { to } => rotate_disk_keys(app, &to).await,
    }
}

/// The voters and who waits to become one.
pub async fn list(c: &Cluster) -> Result<v1::VoterList, Failure> {
    c.read(async |mut r| r.list_voters(v1::Ack {}).await).await
}

/// A voter, as documents show it; `leader_log` is how long the log is that it should have.
pub fn document(v: &v1::VoterView, leader_log: u64) -> Value {
    json!({
        "id": v.id, "state": v.state, "leader": v.leader, "term": v.term, "last_log": v.last_log, "applied": v.applied,
        "lag": (v.state != "unknown").then(|| leader_log.saturating_sub(v.last_log)), "service_addr": v.service_addr,
        "join_addr": v.join_addr, "peer_addr": v.peer_addr, "unlock_epoch": v.unlock_epoch,
        "disk_key_order": v.disk_key_order, "keyring_term": v.keyring_term, "recovery_version": v.recovery_version,
    })
}

async fn ls(app: &App) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let (all, now) = (list(&c).await?, clock::now());
    let leader_log = all.voters.iter().map(|v| v.last_log).max().unwrap_or(0);
    let applicant = |n: &v1::NodeView| json!({"id": n.id, "state": n.state, "key": HEXLOWER.encode(key_of(n)), "joined_at": time(n.joined_at_ms)});
    let doc = json!({
        "voters": all.voters.iter().map(|v| document(v, leader_log)).collect::<Vec<_>>(),
        "applicants": all.applicants.iter().map(applicant).collect::<Vec<_>>(),
    });
    app.out.show(&doc, || {
        let mut text = table(app, &all.voters);
        if !all.applicants.is_empty() {
            let row = |n: &v1::NodeView| {
                vec![n.id.clone(), n.state.clone(), HEXLOWER.encode(key_of(n)), age(now, n.joined_at_ms)]
            };
            text.push('\n');
            text.push_str(
                &app.out.table(&["waits as", "state", "key", "since"], all.applicants.iter().map(row).collect()),
            );
        }
        text
    })
}

/// The table of voters.
pub fn table(app: &App, voters: &[v1::VoterView]) -> String {
    let row = |v: &v1::VoterView| {
        let role = if v.leader { "leader" } else { "" };
        let number = |n: u64| if n == 0 { "-".to_owned() } else { n.to_string() };
        vec![
            v.id.to_string(),
            v.state.clone(),
            role.to_owned(),
            v.term.to_string(),
            v.applied.to_string(),
            number(v.unlock_epoch),
            number(v.recovery_version),
            v.keyring_term.to_string(),
            v.service_addr.clone(),
        ]
    };
    let head = ["voter", "state", "role", "term", "applied", "unlock", "recovery", "keyring", "service"];
    app.out.table(&head, voters.iter().map(row).collect())
}

/// The key that an applicant joined with.
fn key_of(n: &v1::NodeView) -> &[u8] {
    if n.pending_spki_sha256.is_empty() { &n.spki_sha256 } else { &n.pending_spki_sha256 }
}

async fn admit(app: &App, id: &str, key: &str, to: &SignTo) -> Result<(), Failure> {
    let unread = || {
        Failure::new(Code::Usage, "--key is not a SHA-256 in hex", "copy the fingerprint from the machine's console")
    };
    let key = fingerprint(key).ok_or_else(unread)?;
    let c = Cluster::connect(app).await?;
    let all = list(&c).await?;
    let applicant = names::one_of("voter", id, &all.applicants, |n| n.id.clone())?;
    let spki_sha256 = key.to_vec();
    let admit = Action::AdmitVoter(v1::AdmitVoter { id: applicant.id.clone(), spki_sha256 });
    if signing::command(app, &c, to, admit).await?.is_none() {
        return Ok(());
    }
    let voters = list(&c).await?.voters;
    // Numbers only grow, so the newest is the highest.
    let number = voters.iter().map(|v| v.id).max().unwrap_or(0);
    app.out.done(
        &json!({"id": applicant.id, "admitted": true, "voter": number}),
        &format!("{} is admitted as voter {number}; see `holdfast voter ls` for when it takes part", applicant.id),
    )
}

async fn evict(app: &App, voter: u64, compromised: bool, yes: bool, to: &SignTo) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let all = list(&c).await?.voters;
    let row = all.iter().find(|v| v.id == voter);
    let row = row.ok_or_else(|| Failure::not_found(format!("voter: {voter}"), "list them with `holdfast voter ls`"))?;
    let before = is_evicted(row);
    if !before && !yes {
        confirm(voter)?;
    }
    if !before || compromised {
        let evict = Action::EvictVoter(v1::EvictVoter { voter_id: voter, compromised });
        // Of one that was evicted as compromised before nothing changes, and what it could read is listed once more.
        if signing::command(app, &c, to, evict).await?.is_none() {
            return Ok(());
        }
    }
    until_gone(app, &c, voter).await?;
    if compromised {
        return exposed(app, &c, voter, before).await;
    }
    let doc = json!({"voter": voter, "evicted": true, "compromised": false});
    let next = "the keyring is renewed without it: see `holdfast keyring status`";
    app.out.done(&doc, &format!("voter {voter} is evicted for ever; {next}"))
}

/// What a voter could read that counts as compromised, and what is left to do. The vault replaces its own keys by itself.
async fn exposed(app: &App, c: &Cluster, voter: u64, before: bool) -> Result<(), Failure> {
    let unlisted = |f: Failure| Failure {
        message: format!("voter {voter} is evicted, but what it could read cannot be listed: {}", f.message),
        help: "list them with `holdfast secret ls`, and change every one at its source".into(),
        ..f
    };
    let list = c.read(|mut r| async move { r.list_secrets(names::list(None, None, false)).await }).await;
    let secrets = list.map_err(unlisted)?.secrets;
    let named = |s: &v1::SecretView| format!("{}/{}", s.namespace, s.name);
    let autolock = c.read(async |mut r| r.get_status(v1::Ack {}).await).await.map_err(unlisted)?.autolock;
    let mut todo = Vec::new();
    if autolock {
        todo.push("holdfast unlock-key rotate --compromised");
    }
    if !secrets.is_empty() {
        todo.push("change every secret that is listed at its source, and put the new value with `holdfast secret put`");
    }
    todo.push("if the vault keeps the root's key itself, replace the root: docs/operations/voters.md says how");
    todo.push("look at `holdfast status`: the alarm `compromised` ends when nothing is left in use");
    let all: Vec<Value> = secrets.iter().map(|s| json!({"secret": named(s), "version": s.version})).collect();
    let doc = json!({"voter": voter, "evicted": true, "compromised": true, "secrets": all, "todo": todo});
    app.out.show(&doc, || {
        let mut text = if before {
            format!(
                "voter {voter} was evicted before, and what it held counts as known\n\
                 keyring, statement key and issuer are replaced by the vault itself\n"
            )
        } else {
            format!(
                "voter {voter} is evicted for ever, and what it held counts as known\n\
                 keyring, statement key and issuer are replaced by the vault itself, now\n"
            )
        };
        text.push_str(if secrets.is_empty() { "no secret is stored that it could read\n" } else { "it could read:\n" });
        secrets.iter().for_each(|s| text.push_str(&format!("  {} version {}\n", named(s), s.version)));
        text.push_str("left to do:\n");
        todo.iter().for_each(|t| text.push_str(&format!("  {t}\n")));
        text
    })
}

/// Waits until the others can do without it: a machine that is switched off before may take their quorum along.
async fn until_gone(app: &App, c: &Cluster, voter: u64) -> Result<(), Failure> {
    let deadline = Instant::now() + app.timeout(PATIENCE);
    while list(c).await?.voters.iter().any(|v| v.id == voter && v.state != EVICTED) {
        if Instant::now() >= deadline {
            let what =
                format!("voter {voter} is evicted, and the others still need it to finish the change of the voters");
            let help = "leave it running, and start the voters that are down; `holdfast voter ls` shows it as evicted, not \
                        leaving, once it can go";
            return Err(Failure::new(Code::Unavailable, what, help));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Asks on the terminal; without one nothing is evicted by accident.
fn confirm(voter: u64) -> Result<(), Failure> {
    let help = "add --yes if it is to be cut off for ever";
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Code::Usage, "an eviction is for ever, and nobody is there to be asked", help));
    }
    let mut typed = String::new();
    crate::output::ask(&format!("voter {voter} is cut off for ever; type its number to go on: "));
    let read = std::io::stdin().read_line(&mut typed);
    read.map_err(|e| Failure::new(Code::Io, format!("cannot read from the terminal: {e}"), help))?;
    if typed.trim() == voter.to_string() {
        Ok(())
    } else {
        Err(Failure::new(Code::Usage, "not confirmed: nothing was changed", help))
    }
}

async fn rotate_disk_keys(app: &App, to: &SignTo) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    if signing::command(app, &c, to, Action::RotateDiskKeys(v1::RotateDiskKeys {})).await?.is_none() {
        return Ok(());
    }
    let line = "every voter replaces its disk key: see `holdfast voter ls`";
    app.out.done(&json!({"ordered": true}), line)
}
