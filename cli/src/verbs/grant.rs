//! `grant`: what runs where by whose leave, and the proof that a grant is in the log.

use super::names;
use crate::app::App;
use crate::args::{Grant, SignTo};
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::output::{Output, age, time};
use crate::signing;
use data_encoding::HEXLOWER;
use holdfast_transport::rpc::log_client::LogClient;
use holdfast_types::Digest;
use holdfast_wire::merkle::{leaf_hash, verify_inclusion};
use holdfast_wire::{strict, v1};
use serde_json::{Value, json};
use v1::command::Action;

/// Runs the verb.
pub async fn run(app: &App, verb: Grant) -> Result<(), Failure> {
    match verb {
        Grant::Ls { namespace, service, all } => ls(app, namespace.as_deref(), service.as_deref(), all).await,
        Grant::Verify { id } => verify(app, &id).await,
        Grant::Revoke { id, to } => revoke(app, &id, &to).await,
    }
}

/// A grant as a document for scripts.
pub fn document(g: &v1::GrantView) -> Value {
    let secret = |s: &v1::GrantSecret| json!({"name": s.name, "version": s.version});
    json!({
        "id": HEXLOWER.encode(&g.grant_id), "namespace": g.namespace, "service": g.service, "version": g.version,
        "node": g.node_id, "task": g.task_id, "task_gen": g.task_gen, "state": g.state, "task_state": g.task_state,
        "exit_code": g.exit_code, "detail": g.detail, "restarts": g.restarts, "issued_at": time(g.issued_at_ms),
        "lease_until": time(g.lease_until_ms), "orchestrator": g.orch_id,
        "secrets": g.secrets.iter().map(secret).collect::<Vec<_>>(),
    })
}

/// Grants as a table, one task a line.
pub fn human(out: &Output, grants: &[v1::GrantView]) -> String {
    let now = clock::now();
    let row = |g: &v1::GrantView| {
        let id: String = HEXLOWER.encode(&g.grant_id).chars().take(12).collect();
        let version = g.version.to_string();
        let (state, task) = (g.state.clone(), g.task_state.clone());
        vec![id, g.task_id.clone(), version, g.node_id.clone(), state, task, age(now, g.issued_at_ms), g.detail.clone()]
    };
    out.table(
        &["grant", "task", "version", "node", "grant state", "task state", "issued", "detail"],
        grants.iter().map(row).collect(),
    )
}

async fn ls(app: &App, namespace: Option<&str>, service: Option<&str>, all: bool) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let grants = list(&c, namespace, service, all).await?;
    let document = json!({"grants": grants.iter().map(document).collect::<Vec<_>>()});
    app.out.show(&document, || human(&app.out, &grants))
}

/// Grants of a namespace or service; `all` includes those that ended.
pub async fn list(
    c: &Cluster,
    namespace: Option<&str>,
    service: Option<&str>,
    all: bool,
) -> Result<Vec<v1::GrantView>, Failure> {
    Ok(c.read(|mut r| async move { r.list_grants(names::list(namespace, service, all)).await }).await?.grants)
}

async fn verify(app: &App, id: &str) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let grants = list(&c, None, None, true).await?;
    let g = names::one_of("grant", id, &grants, |g| HEXLOWER.encode(&g.grant_id))?;
    let (checkpoint, _) = super::log::checkpoint(&c).await?;
    let request = v1::InclusionRequest { leaf_index: g.leaf_index, size: checkpoint.size };
    let proof = c.call(|ch| async move { LogClient::new(ch).inclusion(request).await }).await?;
    check(g, &checkpoint, &proof)?;
    let id = HEXLOWER.encode(&g.grant_id);
    let document = json!({"id": id, "leaf": g.leaf_index, "log_size": checkpoint.size, "verified": true});
    app.out.show(&document, || {
        format!("ok grant {id} is entry {} of the log of {} entries\n", g.leaf_index, checkpoint.size)
    })
}

async fn revoke(app: &App, id: &str, to: &SignTo) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    // One that ended is named as such by the vault.
    let grants = list(&c, None, None, true).await?;
    let g = names::one_of("grant", id, &grants, |g| HEXLOWER.encode(&g.grant_id))?;
    let revoke = Action::RevokeGrant(v1::RevokeGrant { grant_id: g.grant_id.clone() });
    if signing::command(app, &c, to, revoke).await?.is_none() {
        return Ok(());
    }
    let (id, task, node) = (HEXLOWER.encode(&g.grant_id), &g.task_id, &g.node_id);
    let document = json!({"id": id, "task": task, "node": node, "revoked": true});
    app.out.done(&document, &format!("grant {id} is revoked: {task} ends on {node}"))
}

/// The entry must be the issue of this very grant, and in the tree of the signed checkpoint.
fn check(g: &v1::GrantView, c: &holdfast_wire::note::Checkpoint, proof: &v1::InclusionReply) -> Result<(), Failure> {
    let wrong =
        |why: &str| Failure::new(Code::LogWrong, why, "keep this answer as evidence, and run `holdfast log verify`");
    let hashes = proof.hashes.iter().map(|h| Digest::from_slice(h)).collect::<Option<Vec<_>>>();
    let hashes = hashes.ok_or_else(|| wrong("the proof is malformed"))?;
    if !verify_inclusion(leaf_hash(&proof.salt, &proof.entry), g.leaf_index, c.size, &c.root, &hashes) {
        return Err(wrong("the grant's entry is not in the log of the signed checkpoint"));
    }
    let entry: v1::LogEntry = strict::decode(&proof.entry, super::log::MAX_ENTRY).map_err(|e| wrong(&e.to_string()))?;
    let digest = HEXLOWER.encode(&g.grant_sha256);
    let names_it = entry.fields.iter().any(|f| f.name == "grant_sha256" && f.value == digest);
    if entry.kind != "grant.issued" || entry.index != g.leaf_index || !names_it {
        return Err(wrong("the log's entry is not the issue of this grant"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::sha256;
    use holdfast_wire::merkle::Frontier;
    use holdfast_wire::note::Checkpoint;
    use prost::Message as _;

    #[test]
    fn a_grant_counts_only_with_its_own_entry_under_the_signed_root() {
        let digest = sha256(&[b"grant"]);
        let field = v1::Field { name: "grant_sha256".into(), value: digest.hex() };
        let entry =
            v1::LogEntry { index: 1, kind: "grant.issued".into(), fields: vec![field], ..v1::LogEntry::default() };
        let entry = entry.encode_to_vec();
        let (salt, first) = (vec![7; 32], leaf_hash(b"s", b"e"));
        let mut tree = Frontier::default();
        tree.push(first);
        tree.push(leaf_hash(&salt, &entry));
        let c = Checkpoint { origin: "x".into(), size: 2, root: tree.root() };
        let g = v1::GrantView { leaf_index: 1, grant_sha256: digest.to_vec(), ..v1::GrantView::default() };
        let proof = v1::InclusionReply { hashes: vec![first.to_vec()], salt, entry };
        assert!(check(&g, &c, &proof).is_ok());
        let other = v1::GrantView { grant_sha256: vec![1; 32], ..g.clone() };
        assert_eq!(check(&other, &c, &proof).unwrap_err().code, "log-wrong");
        let salted = v1::InclusionReply { salt: vec![8; 32], ..proof.clone() };
        assert_eq!(check(&g, &c, &salted).unwrap_err().code, "log-wrong");
        let elsewhere = Checkpoint { root: sha256(&[b"other"]), ..c };
        assert_eq!(check(&g, &elsewhere, &proof).unwrap_err().code, "log-wrong");
    }
}
