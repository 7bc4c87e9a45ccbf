//! The one task that owns the scheduler: it takes what happened, in order, and passes the orders on.
//!
//! Never waits for anybody but its own inbox: a slow node or a slow vault delays nobody else.

use crate::absent::{Absent, RETURN};
use crate::scheduler::{Order, Scheduler};
use holdfast_orchestrator_core::plan::Resources;
use holdfast_transport::daemon::{Heartbeat, PULSE, Readiness};
use holdfast_transport::failure::Failure;
use holdfast_transport::now;
use holdfast_types::{GrantId, Millis, NodeId, ServiceRef, TaskId};
use holdfast_wire::v1::session_order;
use holdfast_wire::v1::{DirectoryEvent, GrantRequest, GrantResult, LeaseState, SessionOrder, Statement, grant_result};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Orders to a node that wait to be sent.
pub type Orders = mpsc::Sender<Result<SessionOrder, Status>>;

/// A node and the number of the session by which it was asked something.
pub type Asked = (NodeId, u64);

/// An operator's request for logs.
pub struct LogsAsked {
    /// What the operator signed.
    pub request: Statement,
    /// Of which service.
    pub service: ServiceRef,
    /// Of which task, if not of all.
    pub task: Option<TaskId>,
    /// Is told who was asked.
    pub asked: oneshot::Sender<BTreeSet<Asked>>,
}

/// A request for logs that waits for nodes whose session is being replaced.
struct Waiting {
    logs: LogsAsked,
    nodes: BTreeSet<NodeId>,
    until: Instant,
}

/// What happened.
pub enum Input {
    /// The vault says which leases we hold.
    Leases(Vec<LeaseState>),
    /// The connection to the vault is gone.
    VaultLost,
    /// There is another connection to the vault in place of the one before, with a directory from its beginning.
    VaultMoved,
    /// The directory speaks.
    Directory(Box<DirectoryEvent>),
    /// The answer to a request for grants.
    Granted {
        /// Which request.
        ticket: u64,
        /// The answer, or why there is none.
        answer: Result<Vec<GrantResult>, Failure>,
    },
    /// A node's session began.
    Opened {
        /// Which node.
        node: NodeId,
        /// Number of the session; a later one has a higher number.
        session: u64,
        /// What the node can bear.
        capacity: Resources,
        /// Grants that it holds.
        held: BTreeSet<GrantId>,
        /// Where to put its orders.
        orders: Orders,
    },
    /// A node's session ended.
    Closed {
        /// Which node.
        node: NodeId,
        /// Which session.
        session: u64,
    },
    /// A node took what was assigned, or refused it.
    Answered {
        /// Which node.
        node: NodeId,
        /// Which grant.
        grant: GrantId,
        /// Why not, if not.
        refusal: Option<String>,
    },
    /// A task is over, says its node.
    Over {
        /// Which node.
        node: NodeId,
        /// Its grant.
        grant: GrantId,
    },
    /// An operator asks for logs.
    Logs(LogsAsked),
}

/// What the vault is to be told.
#[derive(Debug)]
pub enum VaultOrder {
    /// Ask for grants.
    Request {
        /// Comes back with the answer.
        ticket: u64,
        /// What is asked for.
        requests: Vec<GrantRequest>,
    },
    /// Give grants back.
    Release {
        /// Which.
        grants: Vec<GrantId>,
        /// Why.
        reason: &'static str,
    },
    /// Ask for leases now.
    KeepLease,
}

/// Inputs taken before orders are made: what arrives together is planned together.
const BATCH: usize = 256;
/// Longest sleep: after it the clock is looked at again, and the watchdog hears of it.
const NAP: Duration = PULSE;

/// See the file's head.
pub struct Control {
    scheduler: Scheduler,
    inbox: mpsc::Receiver<Input>,
    vault: mpsc::UnboundedSender<VaultOrder>,
    sessions: BTreeMap<NodeId, (u64, Orders)>,
    absent: Absent,
    waiting: Vec<Waiting>,
    readiness: Readiness,
    heart: Heartbeat,
    leases_heard: bool,
}

impl Control {
    /// Over `scheduler`; takes from `inbox`, orders of the vault by `vault`, says in `readiness` whether it works, and
    /// beats `heart` with each turn.
    pub fn new(
        scheduler: Scheduler,
        inbox: mpsc::Receiver<Input>,
        vault: mpsc::UnboundedSender<VaultOrder>,
        readiness: Readiness,
        heart: Heartbeat,
    ) -> Self {
        let (sessions, absent) = (BTreeMap::new(), Absent::new(Instant::now()));
        Self { scheduler, inbox, vault, sessions, absent, waiting: Vec::new(), readiness, heart, leases_heard: false }
    }

    /// Works until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.heart.beat();
            let due = self.scheduler.next_wake().map_or(NAP, |at| at.since(now()).min(NAP));
            let wake = self.waiting.iter().map(|w| w.until).fold(Instant::now() + due, Instant::min);
            let first = tokio::select! {
                () = stop.cancelled() => return,
                input = self.inbox.recv() => match input {
                    Some(input) => Some(input),
                    None => return,
                },
                () = tokio::time::sleep_until(wake) => None,
            };
            let at = now();
            self.scheduler.wake(at);
            let more: Vec<Input> = std::iter::from_fn(|| self.inbox.try_recv().ok()).take(BATCH).collect();
            first.into_iter().chain(more).for_each(|input| self.take(at, input));
            self.ask_those_who_came(Instant::now());
            let started = Instant::now();
            let orders = self.scheduler.take_orders(at);
            metrics::histogram!("holdfast_plan_seconds").record(started.elapsed());
            orders.into_iter().for_each(|order| self.carry_out(order));
            self.tell_readiness();
        }
    }

    fn take(&mut self, at: Millis, input: Input) {
        match input {
            Input::Leases(leases) => {
                self.leases_heard = true;
                self.scheduler.leases(at, &leases);
            }
            Input::VaultLost => {
                self.leases_heard = false;
                self.scheduler.vault_lost(at);
            }
            Input::VaultMoved => self.scheduler.vault_moved(),
            Input::Directory(event) => self.scheduler.directory(at, *event),
            Input::Granted { ticket, answer } => {
                answer.iter().flatten().for_each(count);
                self.scheduler.granted(at, ticket, answer);
            }
            Input::Opened { node, session, capacity, held, orders } => {
                self.sessions.insert(node.clone(), (session, orders));
                self.absent.came(&node);
                self.scheduler.session_opened(at, &node, capacity, held);
                self.count_sessions();
            }
            Input::Closed { node, session } => {
                if self.sessions.get(&node).is_some_and(|(current, _)| *current == session) {
                    self.ended(at, &node);
                }
            }
            Input::Answered { node, grant, refusal } => {
                self.scheduler.assign_answered(at, &node, grant, refusal.as_deref());
            }
            Input::Over { node, grant } => self.scheduler.task_over(&node, &grant),
            Input::Logs(logs) => self.logs(logs, Instant::now()),
        }
    }

    /// A node's session is no more.
    fn ended(&mut self, at: Millis, node: &NodeId) {
        self.sessions.remove(node);
        self.absent.left(node.clone(), Instant::now());
        self.scheduler.session_closed(at, node);
        self.count_sessions();
    }

    /// Asks the nodes for logs, at once or when those are back whose session is being replaced.
    fn logs(&mut self, logs: LogsAsked, now: Instant) {
        let away = |node: NodeId| Some((self.absent.back_by(&node, now)?, node));
        let nodes = self.scheduler.nodes_of(&logs.service, logs.task.as_ref());
        let nodes = nodes.into_iter().filter(|n| !self.sessions.contains_key(n));
        let (until, nodes): (Vec<Instant>, BTreeSet<NodeId>) = nodes.filter_map(away).unzip();
        match until.into_iter().max() {
            Some(until) => self.waiting.push(Waiting { logs, nodes, until: until.min(now + RETURN) }),
            None => self.ask_for_logs(logs),
        }
    }

    /// Requests that wait for nobody any more are put; those whose operator left are dropped.
    fn ask_those_who_came(&mut self, now: Instant) {
        for mut w in std::mem::take(&mut self.waiting) {
            w.nodes.retain(|n| !self.sessions.contains_key(n));
            if w.logs.asked.is_closed() {
                continue;
            }
            if w.nodes.is_empty() || w.until <= now {
                self.ask_for_logs(w.logs);
            } else {
                self.waiting.push(w);
            }
        }
    }

    fn ask_for_logs(&mut self, logs: LogsAsked) {
        let nodes = self.scheduler.nodes_of(&logs.service, logs.task.as_ref());
        let push = |node: NodeId| {
            let (session, _) = self.sessions.get(&node)?;
            let session = *session;
            self.push(&node, session_order::Order::Logs(logs.request.clone())).then_some((node, session))
        };
        let asked = nodes.into_iter().filter_map(push).collect();
        if logs.asked.send(asked).is_err() {
            tracing::debug!("an operator left before the nodes were asked");
        }
    }

    fn carry_out(&mut self, order: Order) {
        let order = match order {
            Order::Request { ticket, requests } => VaultOrder::Request { ticket, requests },
            Order::Release { grants, reason } => VaultOrder::Release { grants, reason },
            Order::KeepLease => VaultOrder::KeepLease,
            Order::Assign { node, assign } => {
                metrics::counter!("holdfast_placements_total").increment(1);
                self.push(&node, session_order::Order::Assign(*assign));
                return;
            }
            Order::Stop { node, stop } => {
                self.push(&node, session_order::Order::Stop(stop));
                return;
            }
        };
        if self.vault.send(order).is_err() {
            tracing::debug!("the connection to the vault has ended");
        }
    }

    /// Puts an order into a node's queue. A node that lets its queue fill up is cut off: its next session begins with
    /// what it holds, and what it missed follows from that.
    fn push(&mut self, node: &NodeId, order: session_order::Order) -> bool {
        let Some((session, orders)) = self.sessions.get(node) else { return false };
        let sent = orders.try_send(Ok(SessionOrder { order: Some(order) })).is_ok();
        if !sent {
            tracing::warn!(%node, session, "the node does not take its orders: its session is ended");
            self.ended(now(), node);
        }
        sent
    }

    fn count_sessions(&self) {
        metrics::gauge!("holdfast_sessions").set(u32::try_from(self.sessions.len()).unwrap_or(u32::MAX));
    }
    fn tell_readiness(&self) {
        match (self.leases_heard, self.scheduler.is_synced()) {
            (true, true) => self.readiness.ready(),
            (false, _) => self.readiness.not_ready("the vault has not answered about leases"),
            (true, false) => self.readiness.not_ready("the directory is not complete"),
        }
    }
}

/// Denials by the policies that decided; by code where none did.
fn count(result: &GrantResult) {
    if let Some(grant_result::Result::Denied(d)) = &result.result {
        let by = if d.policies.is_empty() { d.code.clone() } else { d.policies.join(",") };
        metrics::counter!("holdfast_denials_total", "policy" => by).increment(1);
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
