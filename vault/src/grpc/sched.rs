//! The scheduler plane: leases, grants and the directory. An orchestrator gets ciphertext and names, nothing else.

use super::Answers;
use crate::answered::Answered;
use crate::beside;
use crate::cluster::{Caller, Cluster};
use crate::failure::refused;
use crate::keystore::random32;
use crate::leases;
use crate::merged;
use crate::registry::Events;
use crate::rights::Rpc;
use crate::roots;
use crate::seen::{addr_of, from};
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::sched_plane_server::SchedPlane;
use holdfast_types::{GrantId, NodeId, OrchId};
use holdfast_vault_core::prepare::{self, GrantBatch, GrantReply, RequestKey};
use holdfast_vault_core::{Command, Committed, Entropy, Event, Refusal, State};
use holdfast_wire::v1::{self, directory_event::Event as Shown, grant_result};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// Serves orchestrators.
pub struct SchedService(Arc<Cluster>, Answered);

fn orch_of(c: &Caller) -> Result<OrchId, Failure> {
    OrchId::parse(&c.id).map_err(|e| Failure::invalid("invalid-input", e.to_string()))
}

/// The address under which nodes find an orchestrator that `said` one. Every node is told of a change, so it may change now
/// and then, not all the time.
fn address(known: String, said: String, may_change: impl FnOnce() -> bool) -> String {
    if known != said && (known.is_empty() || may_change()) { said } else { known }
}

impl SchedService {
    /// Serves the orchestrators of `cluster`.
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self(cluster, Answered::default())
    }

    async fn keep(cluster: &Cluster, orch: &OrchId, said: String) -> Result<v1::KeepLeaseReply, Failure> {
        let known = cluster.look(|s| s.session_addr(orch))?;
        leases::lead(cluster).await?;
        let may_change = || cluster.throttle.allows(&format!("address/{orch}"), cluster.clock.now());
        let session_addr = address(known, said, may_change);
        let life_ms = i64::try_from(cluster.config.lives.lease.as_millis()).unwrap_or(i64::MAX);
        cluster.propose(Command::KeepLease { orch: orch.clone(), session_addr, life_ms }).await?;
        Self::leases(cluster, orch)
    }

    /// The leases as they are, its own and those that it waits for, and whether it is to renew its certificate.
    fn leases(cluster: &Cluster, orch: &OrchId) -> Result<v1::KeepLeaseReply, Failure> {
        let now = cluster.now()?;
        let (leases, others, renew_now) = cluster.look(|s| {
            (s.leases_of(orch.as_str(), now), s.leases_of_others(orch, now), roots::is_old(s, orch.as_str()))
        })?;
        Ok(v1::KeepLeaseReply { leases, status: Some(cluster.status()?), renew_now, others })
    }

    /// What the leader has to say to an orchestrator unasked: that another root signs, or that nobody schedules a namespace that
    /// it may schedule, since its holder was removed or its mandate is new.
    fn unasked(
        cluster: &Cluster,
        orch: &OrchId,
        news: &Result<Events, RecvError>,
    ) -> Result<Option<v1::KeepLeaseReply>, Failure> {
        let may_concern = match news {
            Ok(events) => events.contains(&Event::Trust),
            Err(_) => true,
        };
        if !may_concern {
            return Ok(None);
        }
        let now = cluster.now()?;
        let free = |s: &State| s.leases_of_others(orch, now).iter().any(|l| l.until_ms <= now.0);
        if !cluster.look(|s| roots::is_old(s, orch.as_str()) || free(s))? {
            return Ok(None);
        }
        Self::leases(cluster, orch).map(Some)
    }

    /// Receipts for what was committed: one checkpoint for the whole batch.
    fn results(&self, replies: Vec<GrantReply>, done: &Committed) -> Result<Vec<v1::GrantResult>, Failure> {
        let (note, size, _) = self.0.checkpoint()?;
        let mut out = Vec::with_capacity(replies.len());
        for (reply, order) in replies.into_iter().zip(done.orders()) {
            let result = match (reply, order) {
                (GrantReply::Issued { grant, boxes, .. }, Ok(leaf)) => {
                    let receipt = Some(self.receipt(*leaf, &note, size)?);
                    grant_result::Result::Issued(v1::GrantIssued { grant: Some(grant), receipt, boxes })
                }
                (GrantReply::Issued { .. }, Err(r)) => denied(r),
                (GrantReply::Denied(r), _) => denied(&r),
            };
            out.push(v1::GrantResult { result: Some(result) });
        }
        Ok(out)
    }

    /// Proof that `leaf` is in the log of the checkpoint `note`.
    fn receipt(&self, leaf: u64, note: &[u8], size: u64) -> Result<v1::Receipt, Failure> {
        let (salt, entry) = self.0.leaf(leaf)?;
        let inclusion = self.0.inclusion(leaf, size)?;
        Ok(v1::Receipt { leaf_index: leaf, entry, salt, inclusion, checkpoint: note.to_vec() })
    }

    /// What this very request was answered a moment ago, proven by the log of now.
    fn again(&self, key: &RequestKey) -> Result<Option<v1::RequestGrantsReply>, Failure> {
        let Some(mut reply) = self.1.again(key, Instant::now()) else { return Ok(None) };
        let (note, size, _) = self.0.checkpoint()?;
        for result in &mut reply.results {
            if let Some(grant_result::Result::Issued(issued)) = &mut result.result
                && let Some(receipt) = &mut issued.receipt
            {
                *receipt = self.receipt(receipt.leaf_index, &note, size)?;
            }
        }
        Ok(Some(reply))
    }
}

fn denied(r: &Refusal) -> grant_result::Result {
    let (code, reason, policies) = (r.code.as_str().to_owned(), r.reason.clone(), r.policies.clone());
    grant_result::Result::Denied(v1::GrantDenied { code, reason, policies })
}

/// One event as the directory shows it.
fn shown(s: &State, cluster: &Cluster, e: &Event) -> Option<Shown> {
    let connected = |id: &str| NodeId::parse(id).is_ok_and(|n| cluster.hub.is_connected(&n));
    Some(match e {
        Event::Identity(id) | Event::Revoked(id) => Shown::Node(s.node_view(id, connected(id))?),
        Event::Service(name) => match s.service_view(name) {
            Some(v) => Shown::Service(v),
            None => Shown::ServiceGone(v1::ServiceKey {
                namespace: name.namespace.to_string(),
                service: name.name.to_string(),
            }),
        },
        Event::Grant(id) | Event::GrantRevoked(id) | Event::GrantExtended(id) => Shown::Grant(s.grant_view(id)?),
        Event::GrantGone(id) => Shown::GrantGone(id.to_vec()),
        Event::Trust | Event::Keys | Event::Slots | Event::Voters => return None,
    })
}

fn picture(s: &State, cluster: &Cluster) -> Vec<Shown> {
    let connected = |id: &str| NodeId::parse(id).is_ok_and(|n| cluster.hub.is_connected(&n));
    let mut all: Vec<Shown> =
        s.machine_ids().filter_map(|id| s.node_view(id, connected(id))).map(Shown::Node).collect();
    all.extend(s.service_names().filter_map(|n| s.service_view(n)).map(Shown::Service));
    all.extend(s.grants().filter_map(|(id, _)| s.grant_view(id)).map(Shown::Grant));
    all
}

async fn show(tx: &mpsc::Sender<Result<v1::DirectoryEvent, Status>>, event: Shown) -> Result<(), ()> {
    tx.send(Ok(v1::DirectoryEvent { event: Some(event) })).await.map_err(drop)
}

/// The whole picture, then what changes, until the orchestrator leaves or falls too far behind.
async fn watch(cluster: Arc<Cluster>, tx: mpsc::Sender<Result<v1::DirectoryEvent, Status>>) -> Result<(), ()> {
    let (mut events, mut told) = (cluster.events(), None);
    let whole = cluster.look(|s| picture(s, &cluster)).map_err(drop)?;
    for e in whole.into_iter().chain(revocations(&cluster, &mut told)) {
        show(&tx, e).await?;
    }
    show(&tx, Shown::Synced(v1::Synced { revision: 0 })).await?;
    loop {
        let news = match events.recv().await {
            Ok(news) => news,
            Err(RecvError::Lagged(_)) => {
                let f = Failure::unavailable("lagged", "too many changes were missed; watch again");
                return tx.send(Err(f.into())).await.map_err(drop);
            }
            Err(RecvError::Closed) => return Ok(()),
        };
        let visible: Vec<Shown> =
            cluster.look(|s| news.iter().filter_map(|e| shown(s, &cluster, e)).collect()).map_err(drop)?;
        let trust = if news.contains(&Event::Trust) { revocations(&cluster, &mut told) } else { None };
        for e in visible.into_iter().chain(trust) {
            show(&tx, e).await?;
        }
    }
}

/// The list of now, for the orchestrator to remember: what is back from a backup is told by the fleet who was removed since.
/// `None` if it is the one of the era and epoch that it was `told` already: much is news of trust, and leaves the list as it is.
fn revocations(cluster: &Cluster, told: &mut Option<(u64, u64)>) -> Option<Shown> {
    let list = cluster.look(|s| {
        let now = Some((s.era(), s.epoch()));
        (now != *told).then(|| (now, prepare::revocation_list(s)))
    });
    let (now, list) = list.ok()??;
    // Signed where no entry waits for it.
    match list.and_then(|list| prepare::sign_revocations(&list, &cluster.opened.load().stk)) {
        Ok(list) => {
            *told = now;
            Some(Shown::Revocations(list))
        }
        Err(refusal) => {
            tracing::warn!(%refusal, "the revocations were not shown to an orchestrator");
            None
        }
    }
}

#[tonic::async_trait]
impl SchedPlane for SchedService {
    type KeepLeaseStream = Answers<v1::KeepLeaseReply>;
    type WatchDirectoryStream = Answers<v1::DirectoryEvent>;

    async fn keep_lease(
        &self,
        request: Request<Streaming<v1::KeepLeaseRequest>>,
    ) -> Result<Response<Self::KeepLeaseStream>, Status> {
        let caller = self.0.admit(&request, Rpc::KeepLease).await?;
        self.0.confirm_leading().await?;
        let orch = orch_of(&caller)?;
        let addr = addr_of(&request);
        let place = self.0.streams.enter(&orch, addr.map(|a| a.ip()));
        if let Some(other) = place.beside {
            beside::written(&self.0, orch.as_str(), &from(addr), other).await;
        }
        let (tx, rx) = mpsc::channel(4);
        let (cluster, mut inbound) = (Arc::clone(&self.0), request.into_inner());
        let mut events = self.0.events();
        tokio::spawn(async move {
            loop {
                let asked = tokio::select! {
                    asked = inbound.message() => asked,
                    // Another stream of this orchestrator came from elsewhere.
                    () = place.told.notified() => {
                        let reply = Self::leases(&cluster, &orch).map(|r| v1::KeepLeaseReply { renew_now: true, ..r });
                        if tx.send(reply.map_err(Status::from)).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    news = events.recv() => {
                        let reply = Self::unasked(&cluster, &orch, &news).map_err(Status::from).transpose();
                        let gone = match reply {
                            Some(reply) => tx.send(reply).await.is_err(),
                            None => false,
                        };
                        if gone || matches!(news, Err(RecvError::Closed)) {
                            return;
                        }
                        continue;
                    }
                };
                let Ok(Some(r)) = asked else { return };
                // Each is an entry of the log: who asks faster waits.
                if let Err(f) = cluster.leases.pace.turn(orch.as_str()).await {
                    drop(tx.send(Err(f.into())).await);
                    return;
                }
                if let Err(f) = roots::heard(&cluster, orch.as_str(), r.bundle_epoch) {
                    drop(tx.send(Err(f.into())).await);
                    return;
                }
                let addr = r.session_addr.chars().take(255).collect();
                let reply = Self::keep(&cluster, &orch, addr).await.map_err(Status::from);
                if tx.send(reply).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(rx))))
    }

    async fn request_grants(
        &self,
        request: Request<v1::RequestGrantsRequest>,
    ) -> Result<Response<v1::RequestGrantsReply>, Status> {
        let caller = self.0.admit(&request, Rpc::RequestGrants).await?;
        let orch = orch_of(&caller)?;
        self.0.entries.turn(orch.as_str()).await?;
        let r = request.into_inner();
        let key = GrantBatch::of(&orch, &r).map_err(refused)?.key();
        if let Some(reply) = self.again(&key)? {
            self.0.confirm_leading().await?;
            return Ok(Response::new(reply));
        }
        let cluster = Arc::clone(&self.0);
        // Policy, boxes and signatures are work: not on the threads that serve connections.
        let decided = tokio::task::spawn_blocking(move || {
            let opened = cluster.opened.load_full();
            let fresh = |n: &NodeId| cluster.hub.is_connected(n);
            let mut batch = GrantBatch::of(&orch, &r).map_err(refused)?;
            while cluster.decide(|l, e| batch.decide_one(l, &opened.stk, &fresh, e))? {}
            Ok::<_, Failure>(batch.prepared(cluster.now()?, &mut Entropy::new(random32()?)))
        });
        let prepared = decided.await.map_err(|_| Failure::failed("failed", "deciding the grants failed"))??;
        let (replies, done) = self.0.commit(prepared).await?;
        let reply = v1::RequestGrantsReply { results: self.results(replies, &done)? };
        self.1.keep(key, &reply, Instant::now());
        Ok(Response::new(reply))
    }

    async fn release_grants(&self, request: Request<v1::ReleaseGrantsRequest>) -> Result<Response<v1::Ack>, Status> {
        let caller = self.0.admit(&request, Rpc::ReleaseGrants).await?;
        let orch = orch_of(&caller)?;
        self.0.entries.turn(orch.as_str()).await?;
        let r = request.into_inner();
        if r.grant_ids.len() > prepare::MAX_BATCH {
            return Err(Failure::invalid("invalid-input", "too many grants at a time").into());
        }
        let grants = r.grant_ids.iter().filter_map(|g| GrantId::from_slice(g)).collect();
        let reason = r.reason.chars().filter(|c| !c.is_control()).take(200).collect();
        self.0.propose(Command::ReleaseGrants { orch, grants, reason }).await?;
        Ok(Response::new(v1::Ack {}))
    }

    async fn watch_directory(
        &self,
        request: Request<v1::WatchDirectoryRequest>,
    ) -> Result<Response<Self::WatchDirectoryStream>, Status> {
        let caller = self.0.admit(&request, Rpc::WatchDirectory).await?;
        self.0.entries.turn(&caller.id).await?;
        self.0.confirm_leading().await?;
        // What it shows counts once it is committed, and is shown until it was answered.
        if let Some(before) = &request.get_ref().before {
            merged::merge(&self.0, before, &caller.id).await?;
        }
        let (tx, rx) = mpsc::channel(256);
        let cluster = Arc::clone(&self.0);
        tokio::spawn(async move {
            if watch(cluster, tx).await.is_err() {
                tracing::debug!("a directory watcher left");
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(rx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Throttle;
    use holdfast_types::Millis;

    #[test]
    fn an_orchestrator_that_moves_all_the_time_is_not_followed_all_the_time() {
        let (throttle, mut known, mut moves) = (Throttle::of_callers(), String::new(), 0);
        for n in 0..100 {
            let now =
                address(known.clone(), format!("10.0.0.{}:7410", n % 2), || throttle.allows("address/o", Millis(0)));
            moves += u32::from(now != known);
            known = now;
        }
        assert_eq!(moves, 11, "the first address and ten changes in a minute");
        let later = address(known.clone(), "10.0.0.9:7410".into(), || throttle.allows("address/o", Millis(60_000)));
        assert_eq!(later, "10.0.0.9:7410");
        assert_eq!(address(known.clone(), known.clone(), || panic!("asked without a change")), known);
    }
}
