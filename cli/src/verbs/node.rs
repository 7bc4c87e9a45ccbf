//! `node`: nodes and orchestrators, their admission and their end.

use super::names;
use crate::app::App;
use crate::args::{Node, SignTo};
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::output::{age, time, words};
use crate::signing;
use crate::spec::is_label;
use data_encoding::HEXLOWER;
use holdfast_types::{Digest, Zone};
use holdfast_wire::v1;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use v1::command::Action;

mod exposure;

pub use exposure::boxed;
use exposure::exposure;

/// The state of what has been removed.
const REMOVED: &str = "removed";

/// Runs the verb.
pub async fn run(app: &App, verb: Node) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    match verb {
        Node::Ls => ls(app, &c).await,
        Node::Inspect { id } => inspect(app, &c, &id).await,
        Node::Approve { id, key, to } => approve(app, &c, &id, &key, &to).await,
        Node::Drain { id, to } => drain(app, &c, &id, true, &to).await,
        Node::Activate { id, to } => drain(app, &c, &id, false, &to).await,
        Node::Zone { id, zone, to } => place(app, &c, &id, Place::Zone(zone), &to).await,
        Node::Label { id, labels, to } => place(app, &c, &id, Place::Labels(labels), &to).await,
        Node::Quarantine { id, reason, to } => quarantine(app, &c, &id, reason, &to).await,
        Node::Release { id, key, to } => release(app, &c, &id, &key, &to).await,
        Node::Exposure { id } => exposed(app, &c, &id).await,
        Node::Rm { id, to } => rm(app, &c, &id, &to).await,
    }
}

/// 64 hex digits, with or without colons and a leading `sha256:`.
pub fn fingerprint(key: &str) -> Option<Digest> {
    let key = key.trim().to_lowercase();
    Digest::parse(&key.strip_prefix("sha256:").unwrap_or(&key).replace(':', ""))
}

async fn nodes(c: &Cluster) -> Result<Vec<v1::NodeView>, Failure> {
    Ok(c.read(async |mut r| r.list_nodes(names::list(None, None, true)).await).await?.nodes)
}

/// The node or orchestrator whose id is `id` or begins with it.
pub async fn find(c: &Cluster, id: &str) -> Result<v1::NodeView, Failure> {
    let all = nodes(c).await?;
    names::one_of("node", id, &all, |n| n.id.clone()).cloned()
}

async fn grants(c: &Cluster, node: &str) -> Result<Vec<v1::GrantView>, Failure> {
    let mut all = c.read(async |mut r| r.list_grants(names::list(None, None, true)).await).await?.grants;
    all.retain(|g| g.node_id == node);
    Ok(all)
}

fn document(n: &v1::NodeView) -> Value {
    json!({
        "id": n.id, "role": n.role, "state": n.state, "zone": n.zone, "labels": n.labels, "connected": connected(n),
        "key": HEXLOWER.encode(fingerprint_shown(n)), "serial": n.serial, "seq": n.seq,
        "not_after": time(n.not_after_ms), "joined_at": time(n.joined_at_ms),
    })
}

/// The key to approve while it waits, the key in use afterwards.
fn fingerprint_shown(n: &v1::NodeView) -> &[u8] {
    if n.spki_sha256.is_empty() { &n.pending_spki_sha256 } else { &n.spki_sha256 }
}

/// Whether the vault has a stream to a node; an orchestrator has none of that kind.
fn connected(n: &v1::NodeView) -> Option<bool> {
    (n.role == "node").then_some(n.connected)
}

fn yes_or_no(connected: Option<bool>) -> &'static str {
    match connected {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    }
}

async fn ls(app: &App, c: &Cluster) -> Result<(), Failure> {
    let (all, now) = (nodes(c).await?, clock::now());
    let row = |n: &v1::NodeView| {
        let link = yes_or_no(connected(n));
        let (state, joined) = (n.state.clone(), age(now, n.joined_at_ms));
        vec![n.id.clone(), n.role.clone(), state, link.to_owned(), n.zone.clone(), words(&n.labels), joined]
    };
    let head = ["id", "role", "state", "connected", "zone", "labels", "joined"];
    app.out.list("nodes", all.iter().map(document).collect(), &head, all.iter().map(row).collect())
}

async fn inspect(app: &App, c: &Cluster, id: &str) -> Result<(), Failure> {
    let n = find(c, id).await?;
    let mut tasks = grants(c, &n.id).await?;
    tasks.retain(|g| matches!(g.state.as_str(), "issued" | "running"));
    let mut doc = document(&n);
    if let Value::Object(map) = &mut doc {
        map.insert("tasks".to_owned(), tasks.iter().map(super::grant::document).collect());
    }
    app.out.show(&doc, || {
        let ends = age(clock::now(), n.not_after_ms);
        let certificate = if n.serial.is_empty() { "none yet".to_owned() } else { format!("serial {}, ends {ends}", n.serial) };
        format!(
            "id           {}\nrole         {}\nstate        {}\nzone         {}\nlabels       {}\nkey          sha256:{}\n\
             certificate  {certificate}\nconnected    {}\n\n{}",
            n.id, n.role, app.out.state(&n.state), n.zone, words(&n.labels), HEXLOWER.encode(fingerprint_shown(&n)),
            yes_or_no(connected(&n)), super::grant::human(&app.out, &tasks)
        )
    })
}

async fn approve(app: &App, c: &Cluster, id: &str, key: &str, to: &SignTo) -> Result<(), Failure> {
    let key = named_key(key)?;
    let n = find(c, id).await?;
    let approve = Action::ApproveIdentity(v1::ApproveIdentity { id: n.id.clone(), spki_sha256: key.to_vec() });
    if signing::command(app, c, to, approve).await?.is_none() {
        return Ok(());
    }
    app.out.done(&json!({"id": n.id, "approved": true}), &format!("{} is approved", n.id))
}

fn named_key(key: &str) -> Result<Digest, Failure> {
    let unread = || Failure::new(Code::Usage, "--key is not a SHA-256 in hex", "copy the fingerprint from its console");
    fingerprint(key).ok_or_else(unread)
}

async fn quarantine(app: &App, c: &Cluster, id: &str, reason: Option<String>, to: &SignTo) -> Result<(), Failure> {
    let (n, reason) = (find(c, id).await?, reason.unwrap_or_default());
    let quarantine = Action::QuarantineNode(v1::QuarantineNode { id: n.id.clone(), reason });
    if signing::command(app, c, to, quarantine).await?.is_none() {
        return Ok(());
    }
    app.out.done(&json!({"id": n.id, "state": "quarantined"}), &format!("{} is quarantined", n.id))
}

async fn release(app: &App, c: &Cluster, id: &str, key: &str, to: &SignTo) -> Result<(), Failure> {
    let key = named_key(key)?;
    let n = find(c, id).await?;
    let release = Action::ReleaseIdentity(v1::ReleaseIdentity { id: n.id.clone(), spki_sha256: key.to_vec() });
    if signing::command(app, c, to, release).await?.is_none() {
        return Ok(());
    }
    app.out.done(&json!({"id": n.id, "released": true}), &format!("{} goes on once it renews with this key", n.id))
}

async fn drain(app: &App, c: &Cluster, id: &str, drain: bool, to: &SignTo) -> Result<(), Failure> {
    let n = find(c, id).await?;
    let order = Action::SetDrain(v1::SetDrain { id: n.id.clone(), drain });
    if signing::command(app, c, to, order).await?.is_none() {
        return Ok(());
    }
    let state = if drain { "draining" } else { "ready" };
    app.out.done(&json!({"id": n.id, "state": state}), &format!("{} is {state}", n.id))
}

/// What is changed of where a node is.
enum Place {
    Zone(String),
    Labels(Vec<String>),
}

async fn place(app: &App, c: &Cluster, id: &str, change: Place, to: &SignTo) -> Result<(), Failure> {
    let n = find(c, id).await?;
    let (zone, labels) = match change {
        Place::Zone(zone) => (Zone::parse(&zone).map_err(names::wrong)?.as_str().to_owned(), n.labels),
        Place::Labels(given) => (n.zone, labelled(n.labels, &given)?),
    };
    let order = v1::SetPlace { id: n.id.clone(), zone: zone.clone(), labels: labels.clone() };
    if signing::command(app, c, to, Action::SetPlace(order)).await?.is_none() {
        return Ok(());
    }
    let line = format!("{} is in zone {zone}, labels {}", n.id, words(&labels));
    app.out.done(&json!({"id": n.id, "zone": zone, "labels": labels}), &line)
}

/// The labels that it has after `given`: `key=value` sets one, `key-` takes it away.
fn labelled(mut labels: Vec<String>, given: &[String]) -> Result<Vec<String>, Failure> {
    for g in given {
        let (key, set) = match (g.split_once('='), g.strip_suffix('-')) {
            (Some((key, _)), _) if is_label(g) => (key, Some(g.clone())),
            (None, Some(key)) if !key.is_empty() => (key, None),
            (_, _) => return Err(names::wrong(format!("{g:?} is neither of the form key=value nor key-"))),
        };
        labels.retain(|l| l.split_once('=').is_none_or(|(k, _)| k != key));
        labels.extend(set);
    }
    labels.sort_unstable();
    Ok(labels)
}

/// Removes it, and prints the secret versions that it was ever given: those are to be rotated if it was stolen. A node that
/// is removed already gives its list again.
async fn rm(app: &App, c: &Cluster, id: &str, to: &SignTo) -> Result<(), Failure> {
    let n = find(c, id).await?;
    if n.id != id {
        let help = format!("a removal is for ever, so it takes the whole id: holdfast node rm {}", n.id);
        return Err(Failure::new(Code::Usage, format!("{id} is only the start of an id"), help));
    }
    if n.state != REMOVED {
        let remove = Action::RemoveNode(v1::RemoveNode { id: n.id.clone() });
        if signing::command(app, c, to, remove).await?.is_none() {
            return Ok(());
        }
    }
    // The log may be long: what is done, and what is known at once, is said before it is read.
    app.out.note(&removed(&n.id, &lately(c, &n.id).await));
    let given = exposure(app, c, &n, true).await.map_err(|f| unlisted(&n.id, f))?;
    let secrets: Vec<Value> = given.iter().map(|(s, v)| json!({"secret": s, "version": v})).collect();
    app.out.show(&json!({"id": n.id, "removed": true, "secrets": secrets}), || {
        let rows: Vec<_> = given.iter().map(|(s, v)| vec![s.clone(), v.to_string()]).collect();
        if rows.is_empty() {
            return format!("{} is removed; it had been given no secret\n", n.id);
        }
        format!("{} is removed; it had been given\n\n{}", n.id, app.out.table(&["secret", "version"], rows))
    })
}

/// The secret versions of the grants of `node` that the vault still has, as it says without a proof; none if it says nothing.
async fn lately(c: &Cluster, node: &str) -> BTreeSet<String> {
    let grants = grants(c, node).await.unwrap_or_default();
    grants.iter().flat_map(|g| &g.secrets).map(|s| format!("{}@{}", s.name, s.version)).collect()
}

/// What is said of a removal at once.
fn removed(id: &str, lately: &BTreeSet<String>) -> String {
    let had = if lately.is_empty() {
        String::new()
    } else {
        format!("; its last tasks had {}", lately.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    };
    format!("{id} is removed{had}; the log is read for everything that it was ever given")
}

/// The node is removed, and what it was given cannot be told.
fn unlisted(id: &str, f: Failure) -> Failure {
    let again = if f.code == Code::LogWrong.word() {
        "take every secret that it could read for known".to_owned()
    } else {
        format!("repeat `holdfast node rm {id}` to see what it was given")
    };
    Failure { help: format!("{id} is removed; {again}. {}", f.help), ..f }.with("id", id).with("removed", true)
}

/// `node exposure`: the same of a node that is kept, or was removed before.
async fn exposed(app: &App, c: &Cluster, id: &str) -> Result<(), Failure> {
    let n = find(c, id).await?;
    let given = exposure(app, c, &n, n.state == REMOVED).await?;
    let secrets: Vec<Value> = given.iter().map(|(s, v)| json!({"secret": s, "version": v})).collect();
    app.out.show(&json!({"id": n.id, "secrets": secrets}), || {
        let rows: Vec<_> = given.iter().map(|(s, v)| vec![s.clone(), v.to_string()]).collect();
        if rows.is_empty() {
            return format!("{} was given no secret\n", n.id);
        }
        app.out.table(&["secret", "version"], rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_taken_in_the_ways_in_which_consoles_print_it() {
        let d = holdfast_types::sha256(&[b"key"]);
        let colons: Vec<_> =
            d.hex().to_uppercase().as_bytes().chunks(2).map(|c| String::from_utf8_lossy(c).into_owned()).collect();
        for shown in [d.hex(), d.oci(), colons.join(":"), format!(" {}\n", d.hex())] {
            assert_eq!(fingerprint(&shown), Some(d), "{shown}");
        }
        assert_eq!(fingerprint("abcd"), None);
    }

    #[test]
    fn a_label_is_set_once_and_taken_away_by_its_key() {
        let labels = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|g| (*g).to_owned()).collect();
            labelled(vec!["disk=hdd".into(), "rack=7".into()], &given)
        };
        assert_eq!(labels(&["disk=ssd"]).unwrap(), ["disk=ssd", "rack=7"]);
        assert_eq!(labels(&["rack-", "a=b"]).unwrap(), ["a=b", "disk=hdd"]);
        assert_eq!(labels(&["none-"]).unwrap(), ["disk=hdd", "rack=7"]);
        for bad in ["", "-", "disk", "=x"] {
            assert_eq!(labels(&[bad]).unwrap_err().code, "usage", "{bad}");
        }
    }

    #[test]
    fn a_removal_is_said_with_what_the_last_tasks_had() {
        let none = removed("node-1", &BTreeSet::new());
        assert_eq!(none, "node-1 is removed; the log is read for everything that it was ever given");
        let two = removed("node-1", &BTreeSet::from(["shop/a@1".to_owned(), "shop/b@3".to_owned()]));
        assert!(two.starts_with("node-1 is removed; its last tasks had shop/a@1, shop/b@3; the log"), "{two}");
    }
}
