//! The orders that are not assignments: stop, revoke, extend a lease, show logs.
//!
//! LAW: an orchestrator whose lease is not the newest one known stops nothing; tested by
//! `c23_only_the_holder_of_the_newest_lease_stops_a_task`.

use super::assign::{NodeSelf, check_orchestrator};
use super::memory::TaskMemory;
use super::refusal::{Refusal, require};
use super::trust::NodeTrust;
use holdfast_types::{GrantId, Millis, Namespace, ServiceName, SpiffeId, TaskId};
use holdfast_wire::charter;
use holdfast_wire::statement;
use holdfast_wire::v1::{LeaseExt, LogsRequest, Revoke, Statement, Stop};
use std::time::Duration;

/// The task that a stop names, as the node runs it.
#[derive(Debug, Clone, Copy)]
pub struct RunningTask<'a> {
    /// The grant that it runs under.
    pub grant_id: GrantId,
    /// Its id.
    pub task_id: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Whether it stops only for the vault.
    pub protected: bool,
}

/// A stop that passed: how long the task has to end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopAllowed {
    /// Time between asking and killing.
    pub timeout: Duration,
}

/// Judges a stop that `peer` sent for `task`.
///
/// The fence must be the newest one that a signed document has shown, and `peer` its holder: an unsigned higher fence
/// proves nothing, so it waits for the Status that shows it. A protected task needs the vault's own Revoke as well.
pub fn verify_stop(
    trust: &NodeTrust,
    me: &NodeSelf,
    memory: &TaskMemory,
    peer: &SpiffeId,
    now: Millis,
    task: &RunningTask<'_>,
    stop: &Stop,
) -> Result<StopAllowed, Refusal> {
    check_orchestrator(trust, peer, 0)?;
    let named = stop.task_id == task.task_id && stop.namespace == task.namespace;
    require(named, 0, "stop-task", || format!("the stop is for {} of {}", stop.task_id, stop.namespace))?;
    let (fence, holder) = newest_holder(trust, memory, task.namespace);
    require(stop.fence >= fence, 0, "fence", || {
        format!("fence {} of {} is older than {fence}", stop.fence, task.namespace)
    })?;
    require(stop.fence == fence, 0, "fence-unproven", || {
        format!("no status has shown fence {} of {} yet", stop.fence, task.namespace)
    })?;
    require(holder == Some(peer.name.as_str()), 0, "stop-holder", || {
        format!("{} does not hold the lease of {}", peer.short(), task.namespace)
    })?;
    if task.protected {
        let st = stop
            .revocation
            .as_ref()
            .ok_or_else(|| Refusal::outside("protected", "the task is protected: only the vault may end it"))?;
        let revoked = verify_revoke(trust, me, now, st)?;
        require(revoked.contains(&task.grant_id), 0, "protected", || "the revocation names another grant".into())?;
    }
    Ok(StopAllowed { timeout: Duration::from_millis(stop.timeout_ms.into()) })
}

fn newest_holder<'a>(trust: &'a NodeTrust, memory: &'a TaskMemory, namespace: &str) -> (u64, Option<&'a str>) {
    let shown = trust.holder(namespace).map(|h| (h.fence, h.orch_id.as_str()));
    let granted = memory.max_fence.get(namespace).map(|f| (f.fence, f.orch_id.as_str()));
    // At equal fences the Status, which comes from the vault itself, speaks last.
    granted.into_iter().chain(shown).max_by_key(|(fence, _)| *fence).map_or((0, None), |(fence, id)| (fence, Some(id)))
}

/// Judges a revocation for this node; returns the grants that it ends.
pub fn verify_revoke(trust: &NodeTrust, me: &NodeSelf, now: Millis, st: &Statement) -> Result<Vec<GrantId>, Refusal> {
    let r =
        statement::verify::<Revoke>(st, &trust.stks(now), 1).map_err(Refusal::statement(0, "revoke-signature"))?.doc;
    trust.check_place(&r.cluster_id, r.era)?;
    check_node(me, &r.node_id)?;
    r.grant_ids.iter().map(|g| grant_id(g)).collect()
}

/// One grant's new lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    /// The grant.
    pub grant_id: GrantId,
    /// New end of its lease; an earlier one than the held is to be ignored.
    pub lease_until: Millis,
}

/// Judges a lease extension for this node.
pub fn verify_lease_ext(
    trust: &NodeTrust,
    me: &NodeSelf,
    now: Millis,
    st: &Statement,
) -> Result<Vec<Extended>, Refusal> {
    let x = statement::verify::<LeaseExt>(st, &trust.stks(now), 1)
        .map_err(Refusal::statement(0, "lease-ext-signature"))?
        .doc;
    trust.check_place(&x.cluster_id, x.era)?;
    check_node(me, &x.node_id)?;
    let limit = trust.charter().head().limits.as_ref().map_or(0, |l| l.max_lease_s);
    let within =
        |until: i64| limit == 0 || Millis(until).since(Millis(x.issued_at_ms)) <= Duration::from_secs(limit.into());
    let all = x.extensions.iter().map(|e| {
        require(within(e.lease_until_ms), 0, "lease-limit", || "the lease is longer than the charter allows".into())?;
        Ok(Extended { grant_id: grant_id(&e.grant_id)?, lease_until: Millis(e.lease_until_ms) })
    });
    all.collect()
}

/// Judges an operator's request for logs: signed by a Deployer or Admin who owns the namespace, for this cluster, alive.
pub fn verify_logs_request(trust: &NodeTrust, now: Millis, st: &Statement) -> Result<LogsRequest, Refusal> {
    let shown: LogsRequest = statement::peek(st).map_err(Refusal::statement(0, "logs-malformed"))?;
    let owners = charter::owners(trust.charter().head(), &[charter::DEPLOYER, charter::ADMIN], &shown.namespace);
    let r = statement::verify::<LogsRequest>(st, &owners, 1).map_err(Refusal::statement(0, "logs-signature"))?.doc;
    require(r.cluster_id == trust.cluster().0, 0, "cluster", || "the request belongs to another cluster".into())?;
    require(trust.clock(now).0 <= r.expires_at_ms, 0, "logs-expired", || {
        "the request for logs has expired: ask again".into()
    })?;
    let task_ok = |t: &str| {
        TaskId::parse(t)
            .and_then(|t| t.service())
            .is_ok_and(|s| s.namespace.as_str() == r.namespace && s.name.as_str() == r.service)
    };
    let sound = r.request_id.len() == 16
        && r.reply_pk.len() == 32
        && Namespace::parse(&r.namespace).is_ok()
        && ServiceName::parse(&r.service).is_ok()
        && (r.task_id.is_empty() || task_ok(&r.task_id));
    require(sound, 0, "logs-malformed", || {
        "the request for logs names no service, or its id or key has a wrong length".into()
    })?;
    Ok(r)
}

fn check_node(me: &NodeSelf, node_id: &str) -> Result<(), Refusal> {
    require(node_id == me.node_id.as_str(), 0, "node", || format!("it is for {node_id}, I am {}", me.node_id))
}
fn grant_id(b: &[u8]) -> Result<GrantId, Refusal> {
    GrantId::from_slice(b).ok_or_else(|| Refusal::outside("grant-id", "a grant id has 16 bytes"))
}
