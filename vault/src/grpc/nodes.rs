//! The node plane: one Sync stream a node. Reports go in, trust and orders come out.

use super::Answers;
use crate::beside;
use crate::cluster::{Caller, Cluster};
use crate::drive::{push_leases, trust_pushes};
use crate::failure::refused;
use crate::hub::Entered;
use crate::merged;
use crate::rights::Rpc;
use crate::roots;
use crate::seen::{addr_of, from};
use crate::unsaid::SET_BACK;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::node_plane_server::NodePlane;
use holdfast_transport::server::peer_of;
use holdfast_types::{GrantId, NodeId, sha256};
use holdfast_vault_core::{Command, Event, GrantState, NodeTaskReport, NoteKind, State, prepare};
use holdfast_wire::tasks::is_over;
use holdfast_wire::v1::{self, node_push::Push};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// Serves nodes.
pub struct NodeService(pub Arc<Cluster>);

/// Most tasks in one report.
const MAX_TASKS: usize = 4096;
/// Longest text of a report that is kept.
const MAX_DETAIL: usize = 200;

fn node_of(c: &Caller) -> Result<NodeId, Failure> {
    NodeId::parse(&c.id).map_err(|e| Failure::invalid("invalid-input", e.to_string()))
}

fn printable(s: &str) -> String {
    s.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect()
}

fn report(t: &v1::TaskReport) -> Option<NodeTaskReport> {
    Some(NodeTaskReport {
        grant: GrantId::from_slice(&t.grant_id)?,
        state: printable(&t.state),
        exit_code: t.exit_code,
        detail: printable(&t.detail),
        restarts: t.restarts,
    })
}

struct NodeSession {
    cluster: Arc<Cluster>,
    node: NodeId,
    number: u64,
}

impl NodeSession {
    /// Reads reports until the node leaves; its session ends with it.
    async fn run(self, mut inbound: Streaming<v1::NodeReport>) {
        let why = loop {
            match inbound.message().await {
                Ok(Some(r)) => {
                    if let Err(f) = self.take(r).await {
                        break f.to_string();
                    }
                }
                Ok(None) => break "the node closed it".to_owned(),
                Err(s) => break s.message().to_owned(),
            }
        };
        tracing::info!(node = %self.node, why, "sync session ended");
        if self.cluster.hub.leave(&self.node, self.number) {
            self.cluster.announce(Event::Identity(self.node.to_string()));
        }
    }

    async fn take(&self, r: v1::NodeReport) -> Result<(), Failure> {
        if r.tasks.len() > MAX_TASKS {
            return Err(Failure::invalid("invalid-input", "too many tasks in one report"));
        }
        self.cluster.entries.turn(self.node.as_str()).await?;
        roots::heard(&self.cluster, self.node.as_str(), r.bundle_epoch)?;
        let mut tasks: Vec<_> = r.tasks.iter().filter_map(report).collect();
        if r.complete {
            if let Some(before) = &r.before {
                merged::merge(&self.cluster, before, self.node.as_str()).await?;
            }
            self.give_all(&r).await?;
            tasks.extend(self.vanished(&tasks)?);
        }
        self.revoke_again(&tasks)?;
        let news = self.cluster.look(|s| tasks.iter().any(|t| s.grant(&t.grant).is_some_and(|g| differs(g, t))))?;
        if news {
            self.cluster.propose(Command::Reports { node: self.node.clone(), tasks }).await?;
        }
        let grant_ids = r.tasks.iter().map(|t| t.grant_id.clone()).collect();
        self.cluster.hub.push(&self.node, Push::ReportAck(v1::ReportAck { grant_ids }));
        Ok(())
    }

    /// A node's first report: it gets everything about trust that it lacks, and the leases that moved while it was away.
    async fn give_all(&self, r: &v1::NodeReport) -> Result<(), Failure> {
        for push in trust_pushes(&self.cluster, r.charter_version, r.bundle_epoch)? {
            self.cluster.hub.push(&self.node, push);
        }
        if self.cluster.look(|s| roots::is_old(s, self.node.as_str()))? {
            self.cluster.renewals.came(&self.node);
        }
        let now = self.cluster.now()?;
        if let Some(extend) = self.cluster.look(|s| s.extensions_of(&self.node, now))? {
            self.cluster.propose(extend).await?;
        }
        let running = self.cluster.look(|s| s.running_on(&self.node))?;
        if running.is_empty() { Ok(()) } else { push_leases(&self.cluster, &self.node, &running) }
    }

    /// Grants that the registry believes running here and the node does not know.
    fn vanished(&self, told: &[NodeTaskReport]) -> Result<Vec<NodeTaskReport>, Failure> {
        let known: BTreeSet<_> = told.iter().map(|t| t.grant).collect();
        let gone = |grant: GrantId| NodeTaskReport {
            grant,
            state: "failed".into(),
            exit_code: 0,
            detail: "the node does not have it any more".into(),
            restarts: 0,
        };
        self.cluster.look(|s| {
            let lost = s
                .grants_of_node(&self.node)
                .filter(|(id, g)| matches!(g.state, GrantState::Running | GrantState::Revoked) && !known.contains(*id));
            lost.map(|(id, _)| gone(*id)).collect()
        })
    }

    /// Tasks that still run under a grant that is over: the node is told once more.
    fn revoke_again(&self, told: &[NodeTaskReport]) -> Result<(), Failure> {
        let runs = |t: &&NodeTaskReport| !is_over(&t.state);
        let now = self.cluster.now()?;
        let ids: Vec<GrantId> = self.cluster.look(|s| {
            told.iter()
                .filter(runs)
                .map(|t| t.grant)
                .filter(|id| s.grant(id).is_none_or(|g| !g.state.is_live()) && !s.is_left_from_before(id, now))
                .collect()
        })?;
        if ids.is_empty() {
            return Ok(());
        }
        let opened = self.cluster.opened.load();
        let st = self
            .cluster
            .look(|s| prepare::revoke(s, &opened.stk, &self.node, &ids, "its grant is over", now))?
            .map_err(refused)?;
        self.cluster.hub.push(&self.node, Push::Revoke(st));
        Ok(())
    }
}

fn differs(g: &holdfast_vault_core::GrantRow, t: &NodeTaskReport) -> bool {
    g.task_state != t.state
        || g.restarts != t.restarts
        || g.detail != t.detail
        || g.exit_code != t.exit_code
        || g.state == GrantState::Issued
}

#[tonic::async_trait]
impl NodePlane for NodeService {
    type SyncStream = Answers<v1::NodePush>;

    async fn sync(&self, request: Request<Streaming<v1::NodeReport>>) -> Result<Response<Self::SyncStream>, Status> {
        let caller = self.0.admit(&request, Rpc::Sync).await?;
        self.0.confirm_leading().await?;
        let node = node_of(&caller)?;
        self.0.entries.turn(node.as_str()).await?;
        let addr = addr_of(&request);
        let serial = peer_of(&request)?.serial_hex.clone();
        let Entered { number, pushes, beside } = self.0.hub.enter(&node, addr, &serial, Instant::now());
        tracing::info!(node = %node, "sync session begins");
        if let Some(other) = beside {
            beside::written(&self.0, node.as_str(), &from(addr), other).await;
        }
        self.0.announce(Event::Identity(node.to_string()));
        let session = NodeSession { cluster: Arc::clone(&self.0), node, number };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(pushes))))
    }

    async fn report_evidence(&self, request: Request<v1::Evidence>) -> Result<Response<v1::Ack>, Status> {
        let caller = self.0.admit(&request, Rpc::ReportEvidence).await?;
        let e = request.into_inner();
        let subject = e.grant.map_or_else(String::new, |g| sha256(&[&g.payload]).hex());
        let detail = format!("{}: {}", printable(&e.check), printable(&e.detail));
        // Told late, it may be told to the vault that was remembered.
        if e.check == SET_BACK && e.epoch > self.0.look(State::epoch)? {
            self.0.remembered.seen(caller.short(), Instant::now());
        }
        if self.0.evidence_allowed(&caller.id) {
            self.0.note(NoteKind::Evidence, caller.short(), subject, detail).await;
        }
        Ok(Response::new(v1::Ack {}))
    }
}
