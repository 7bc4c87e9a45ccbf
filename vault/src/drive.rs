//! What the leader does by itself: tells nodes what changed, signs Status, lets things run out, renews keys and itself.

use crate::cluster::Cluster;
use crate::failure::refused;
use crate::hsm;
use crate::keyring;
use crate::keystore::{self, random32};
use crate::leases;
use crate::members;
use crate::registry::Events;
use crate::removal;
use crate::reports;
use crate::roots;
use holdfast_hsm::Purpose;
use holdfast_transport::client::Backoff;
use holdfast_transport::daemon::Heartbeat;
use holdfast_transport::failure::Failure;
use holdfast_types::{GrantId, Millis, NodeId, Secret};
use holdfast_vault_core::prepare::{self, Pin};
use holdfast_vault_core::{Command, Event};
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::statement::peek;
use holdfast_wire::v1::{self, node_push::Push};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

/// How often the leader looks whether something ran out.
const TICK: Duration = Duration::from_millis(500);
/// How long a leader among several voters waits for them.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the others have to say that this voter leads still.
const CONFIRM: Duration = Duration::from_secs(2);
/// After an own key or certificate could not be renewed, first and longest: each attempt may be in the log for ever, and what only
/// met an election must not wait for as long as an issuer lives.
const RENEW_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Most leases extended in one entry.
const EXTEND_BATCH: usize = 500;

/// Follows the events until `stop`: one task for all nodes, so that an event costs what it must tell and no more.
pub async fn follow(cluster: Arc<Cluster>, mut events: Receiver<Events>, stop: CancellationToken) {
    let mut every = tokio::time::interval(cluster.config.status_every);
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => push_status(&cluster).await,
            e = events.recv() => match e {
                Ok(events) => tell(&cluster, &events),
                Err(RecvError::Lagged(_)) => catch_up(&cluster),
                Err(RecvError::Closed) => return,
            },
        };
        if let Err(e) = told {
            tracing::warn!(error = %e, "could not tell the nodes what changed: they start over");
            cluster.hub.end_all();
        }
    }
}

/// Events were missed: what they would have told is made up for. Keys are opened again, connections of identities that no
/// longer count are closed, and every node starts over with a full picture.
fn catch_up(cluster: &Cluster) -> Result<(), Failure> {
    tracing::warn!("too much changed at once: every node starts over");
    let closed = cluster
        .connections
        .close_where(|c| c.peer.as_ref().is_some_and(|p| matches!(cluster.pin(p), Ok(Pin::State(_) | Pin::Unknown))));
    tracing::info!(connections = closed, "closed connections of identities that no longer count");
    cluster.hub.end_all();
    cluster.standing.renew_trust()?;
    reopen(cluster)
}

/// A leader that is cut off does not know that another one leads: what it would sign as the newest may have been revoked. So it
/// asks first, and lets its nodes look for the one that leads if the others do not answer.
async fn push_status(cluster: &Cluster) -> Result<(), Failure> {
    if !cluster.leads() {
        return Ok(());
    }
    if !matches!(tokio::time::timeout(CONFIRM, cluster.confirm_leading()).await, Ok(Ok(()))) {
        if cluster.hub.len() > 0 {
            tracing::warn!("too few voters answer: the nodes are told nothing, and look for the one that leads");
            cluster.hub.end_all();
        }
        return Ok(());
    }
    cluster.hub.push_all(&Push::Status(cluster.status()?));
    Ok(())
}

/// Everything about trust that a node may lack: sent on change, and again whole if events were missed.
fn push_trust(cluster: &Cluster) -> Result<(), Failure> {
    for push in trust_pushes(cluster, u64::MAX, u64::MAX)? {
        cluster.hub.push_all(&push);
    }
    Ok(())
}

/// Charters and Bundles after the versions a node has, the Status, the revocations it names, and the orchestrators.
/// `u64::MAX` stands for "all but the newest".
pub fn trust_pushes(cluster: &Cluster, has_charter: u64, has_epoch: u64) -> Result<Vec<Push>, Failure> {
    let opened = cluster.opened.load();
    cluster.look(|s| {
        let now = s.time(cluster.clock.now());
        let (charters, bundles) = (s.charter_chain(), s.bundle_chain());
        let newer = |chain: Vec<v1::Statement>, has: u64, version: &dyn Fn(&v1::Statement) -> u64| {
            let last = chain.len().saturating_sub(1);
            let wanted =
                |(i, st): &(usize, v1::Statement)| if has == u64::MAX { *i == last } else { version(st) > has };
            chain.into_iter().enumerate().filter(wanted).map(|(_, st)| st).collect::<Vec<_>>()
        };
        let charter_version = |st: &v1::Statement| peek::<v1::Charter>(st).map_or(0, |c| c.version);
        let bundle_epoch = |st: &v1::Statement| peek::<v1::Bundle>(st).map_or(0, |b| b.epoch);
        let charters = newer(charters, has_charter, &charter_version);
        let mut p = links(charters, newer(bundles, has_epoch, &bundle_epoch));
        // A node believes a revocation list only if its Status names it: the Status goes first.
        p.push(Push::Status(prepare::status(s, &opened.stk, now, cluster.config.lives.status).map_err(refused)?));
        p.push(Push::Revocations(prepare::revocations(s, &opened.stk).map_err(refused)?));
        p.push(Push::Orchestrators(v1::OrchestratorList { orchestrators: s.orchestrators(now) }));
        Ok::<_, Failure>(p)
    })?
}

/// Charters and Bundles in an order that can be followed one by one: a Bundle that Admins signed is judged by the charter in force,
/// so the one that it names goes before it, and those after that one behind it.
fn links(charters: Vec<v1::Statement>, bundles: Vec<v1::Statement>) -> Vec<Push> {
    let mut charters = charters.into_iter().peekable();
    let mut all = Vec::new();
    for st in bundles {
        let named = peek::<v1::Bundle>(&st).map_or(0, |b| b.charter_version);
        let until_named = |c: &v1::Statement| peek::<v1::Charter>(c).is_ok_and(|c| c.version <= named);
        while let Some(charter) = charters.next_if(until_named) {
            all.push(Push::Charter(charter));
        }
        all.push(Push::Bundle(st));
    }
    all.extend(charters.map(Push::Charter));
    all
}

/// Passes one command's events on: to the nodes they concern, and to this voter itself.
fn tell(cluster: &Arc<Cluster>, events: &[Event]) -> Result<(), Failure> {
    let (mut revoked, mut extended, mut condemned) = (Vec::new(), Vec::new(), Vec::new());
    let (mut keys, mut trust) = (false, false);
    let leads = cluster.leads();
    for e in events {
        match e {
            // Nodes belong to whoever leads: this voter has nothing to tell them.
            Event::GrantRevoked(_) | Event::GrantExtended(_) if !leads => {}
            Event::GrantRevoked(id) => revoked.push(*id),
            Event::GrantExtended(id) => extended.push(*id),
            Event::Revoked(id) => condemned.push(id.clone()),
            Event::Keys => keys = true,
            Event::Trust => trust = true,
            Event::Identity(_)
            | Event::Service(_)
            | Event::Grant(_)
            | Event::GrantGone(_)
            | Event::Slots
            | Event::Voters => {}
        }
    }
    for id in condemned {
        // The node is told first what was taken from it, then cut off; everything it asks in between is refused.
        tokio::spawn(removal::cut_off(Arc::clone(cluster), id));
    }
    if keys {
        reopen(cluster)?;
    }
    if trust {
        cluster.standing.renew_trust()?;
    }
    if !leads {
        return Ok(());
    }
    if trust {
        push_trust(cluster)?;
    }
    // Most news concern those who watch the directory alone.
    if revoked.is_empty() && extended.is_empty() {
        return Ok(());
    }
    let opened = cluster.opened.load();
    let now = cluster.now()?;
    for (node, ids) in by_node(cluster, &revoked)? {
        let st = cluster
            .look(|s| prepare::revoke(s, &opened.stk, &node, &ids, "taken back by the vault", now))?
            .map_err(refused)?;
        cluster.hub.push(&node, Push::Revoke(st));
    }
    for (node, ids) in by_node(cluster, &extended)? {
        push_leases(cluster, &node, &ids)?;
    }
    Ok(())
}

/// Tells a node the leases of these grants of its own.
pub fn push_leases(cluster: &Cluster, node: &NodeId, grants: &[GrantId]) -> Result<(), Failure> {
    let (opened, now) = (cluster.opened.load(), cluster.now()?);
    let st = cluster.look(|s| prepare::lease_ext(s, &opened.stk, node, grants, now))?.map_err(refused)?;
    cluster.hub.push(node, Push::LeaseExt(st));
    Ok(())
}

fn by_node(cluster: &Cluster, ids: &[GrantId]) -> Result<BTreeMap<NodeId, Vec<GrantId>>, Failure> {
    cluster.look(|s| {
        let mut nodes = BTreeMap::<_, Vec<_>>::new();
        for id in ids {
            if let Some(g) = s.grant(id) {
                nodes.entry(g.node.clone()).or_default().push(*id);
            }
        }
        nodes
    })
}

/// New keys were committed: open them.
pub fn reopen(cluster: &Cluster) -> Result<(), Failure> {
    let _held = cluster.reopening.lock().unwrap_or_else(PoisonError::into_inner);
    let ident = reports::ident(&cluster.standing)?;
    let token = cluster.standing.token.as_ref();
    let opened = cluster.look(|s| keystore::open(s, &ident, cluster.id, s.time(cluster.clock.now()), token))??;
    cluster.opened.store(Arc::new(opened));
    Ok(())
}

/// Ticks until `stop`, each time with a beat of `work`: what has run out, leases to extend, keys and certificates to
/// renew.
pub async fn tick(cluster: Arc<Cluster>, work: Heartbeat, stop: CancellationToken) {
    let mut every = tokio::time::interval(TICK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut renew_after, mut again) = (Instant::now(), Backoff::new(RENEW_AGAIN.0, RENEW_AGAIN.1));
    let mut answered = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => work.beat(),
        }
        if cluster.voter.bound_replay().await.is_err() {
            tracing::debug!("raft has stopped: no snapshot is taken");
        }
        if let Err(e) = in_time(&cluster, one_tick(&cluster)).await {
            tracing::warn!(error = %e, "periodic work was not done");
        }
        // What could not be renewed without the token waits no longer once that answers.
        let answers = cluster.token_word() == hsm::OK;
        if answers && !answered {
            renew_after = Instant::now();
        }
        answered = answers;
        if Instant::now() < renew_after {
            continue;
        }
        if let Err(e) = in_time(&cluster, renewals(&cluster)).await {
            // Each attempt is in the log for ever.
            renew_after = Instant::now() + again.next_delay();
            tracing::warn!(error = %e, "not all of the vault's own keys and certificates were renewed and stored");
        } else {
            again.reset();
        }
    }
}

/// A leader that its peers cannot hear waits, and is not stuck: its work is given up and begun again. Alone, what does not
/// end is this machine's disk, and nothing here may hide it.
async fn in_time(cluster: &Cluster, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    if cluster.standing.is_alone() {
        return work.await;
    }
    let late = |_| Failure::unavailable("no-quorum", "too few voters answer");
    tokio::time::timeout(PATIENCE, work).await.map_err(late)?
}

/// Replaces what a third of its life is over of.
async fn renewals(cluster: &Arc<Cluster>) -> Result<(), Failure> {
    if !cluster.leads() {
        return Ok(());
    }
    // Where the root's key cannot be used, what needs no root goes on.
    let renewed = renew_keys(cluster, cluster.now()?).await;
    let driven = keyring::drive(cluster).await;
    renewed.and(driven)
}

async fn one_tick(cluster: &Arc<Cluster>) -> Result<(), Failure> {
    leases::goes_on(cluster)?;
    if !cluster.leads() {
        // Nodes belong to whoever leads: what is told here reaches nobody's lease.
        if cluster.hub.len() > 0 {
            cluster.hub.end_all();
        }
        return Ok(());
    }
    leases::lead(cluster).await?;
    let now = cluster.now()?;
    if let Some(extend) = cluster.look(|s| s.extensions(now, EXTEND_BATCH, |n| cluster.hub.is_connected(n)))? {
        cluster.propose(extend).await?;
    }
    if cluster.look(|s| s.is_due(now))? {
        cluster.propose(Command::Tick).await?;
    }
    members::drive(cluster).await
}

/// Makes a new issuer or statement key where a third of a life is over. Both are signed by the root: one that is offline is
/// asked instead, and one in a token may be waited for.
pub async fn renew_keys(cluster: &Arc<Cluster>, now: Millis) -> Result<(), Failure> {
    let life = cluster.config.lives.issuer;
    let (issuer_due, stk_due) = cluster.look(|s| (s.issuer_due(now), s.stk_due(now, life)))?;
    if issuer_due {
        let p = roots::with_keys(cluster, move |leader, opened, entropy| {
            let (now, life) = (leader.now, leader.lives.issuer);
            // First the root: a key that nothing certifies yet would lie in the token for as long as the root's does not answer.
            let root = opened.root()?;
            root.answers().map_err(roots::port)?;
            let name = prepare::issuer_name(leader.state);
            let made = roots::generate(opened, Purpose::Issuer, &name, opened.issuers_in_token)?;
            let p =
                prepare::new_issuer(leader.state, leader.keys, root, &made.signer, made.rests(), life, now, entropy);
            p.map_err(refused)
        });
        cluster.commit(p.await?).await?;
    }
    if stk_due {
        let p = roots::with_keys(cluster, move |leader, opened, entropy| {
            let stk = Ed25519Key::from_seed(Secret::take(&mut random32()?));
            let (now, life, root) = (leader.now, leader.lives.issuer, opened.root()?);
            prepare::new_stk(leader.state, leader.keys, root, &stk, life, now, entropy).map_err(refused)
        });
        cluster.commit(p.await?).await?;
    }
    // A statement key whose window has opened meanwhile comes into use.
    let newest = cluster.look(|s| s.stk(now).map(|k| k.public))?;
    if newest.is_some_and(|p| p != cluster.opened.load().stk.public_bytes()) {
        reopen(cluster)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_wire::statement::sign;

    #[test]
    fn a_bundle_that_admins_signed_comes_after_its_charter_and_before_the_next() {
        let charter = |version| sign(&v1::Charter { version, ..v1::Charter::default() }, &[]).unwrap();
        let bundle = |epoch, charter_version| {
            sign(&v1::Bundle { epoch, charter_version, ..v1::Bundle::default() }, &[]).unwrap()
        };
        let told = links(vec![charter(2), charter(3)], vec![bundle(4, 0), bundle(5, 2), bundle(6, 0)]);
        let word = |p: &Push| {
            if let Push::Charter(st) = p {
                format!("charter {}", peek::<v1::Charter>(st).unwrap().version)
            } else if let Push::Bundle(st) = p {
                format!("bundle {}", peek::<v1::Bundle>(st).unwrap().epoch)
            } else {
                String::new()
            }
        };
        let told: Vec<String> = told.iter().map(word).collect();
        assert_eq!(told, ["bundle 4", "charter 2", "bundle 5", "bundle 6", "charter 3"]);
    }
}
