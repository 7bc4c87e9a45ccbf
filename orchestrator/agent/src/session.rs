//! The sessions with orchestrators: the node dials each one that the vault names, takes orders and tells what became
//! of them. An orchestrator is believed in nothing: every order is judged by what is signed inside.
//!
//! Must never open a port, and never tell an orchestrator what evidence there is against it.

use crate::assign::carry_out;
use crate::logs;
use crate::node::Node;
use crate::tasks::ground::Ground;
use holdfast_orchestrator_core::verify::{Refusal, StopAllowed};
use holdfast_transport::client::{Backoff, Dialer, Link, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::session_client::SessionClient;
use holdfast_transport::tls::{Alpn, ClientTls, Expect};
use holdfast_types::{GrantId, Role, SpiffeId};
use holdfast_wire::v1::{Assign, OrchestratorList, Pong, SessionHello, SessionReport, Statement, Stop};
use holdfast_wire::v1::{session_order::Order, session_report::Report};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Orchestrators that a node speaks with at most.
const MAX_SESSIONS: usize = 16;
/// Assignments of one session that are judged at a time, and requests for logs that are answered at a time.
const AT_A_TIME: usize = 16;
/// Reports that wait for the orchestrator to read them.
const QUEUE: usize = 256;
/// For the answer to the opening of a session.
const ANSWER: Duration = Duration::from_secs(10);
/// Time to end by itself, if the order says none; and the longest that an order may say.
const STOP_DEFAULT: Duration = Duration::from_secs(10);
const STOP_LONGEST: Duration = Duration::from_secs(900);

/// All sessions of a node.
pub struct Sessions<G: Ground> {
    node: Arc<Node<G>>,
    stop: CancellationToken,
    open: Mutex<BTreeMap<(String, String), CancellationToken>>,
}

impl<G: Ground> Sessions<G> {
    /// None yet; all end with `stop`.
    pub fn new(node: Arc<Node<G>>, stop: CancellationToken) -> Self {
        Self { node, stop, open: Mutex::default() }
    }

    /// Keeps sessions with exactly the orchestrators of `list`.
    pub fn set(&self, list: &OrchestratorList) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = list.orchestrators.iter().take(MAX_SESSIONS);
        let wanted: Vec<_> = wanted.map(|o| (o.orch_id.clone(), o.addr.clone())).collect();
        open.retain(|key, session| {
            let keep = wanted.contains(key);
            if !keep {
                session.cancel();
            }
            keep
        });
        for (id, addr) in wanted {
            if open.contains_key(&(id.clone(), addr.clone())) {
                continue;
            }
            let stop = self.stop.child_token();
            let session = Session::new(self.node.clone(), &id, &addr);
            open.insert((id, addr), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = session.run() => {}
                }
            });
        }
    }
}

struct Session<G: Ground> {
    node: Arc<Node<G>>,
    peer: SpiffeId,
    dialer: Dialer,
    /// Assignments that are judged.
    judging: Arc<Semaphore>,
    /// Requests for logs that are answered: those may last, and must not keep assignments waiting.
    answering: Arc<Semaphore>,
}

impl<G: Ground> Session<G> {
    fn new(node: Arc<Node<G>>, orch_id: &str, addr: &str) -> Self {
        let trust = node.believed.tls();
        let peer = SpiffeId::new(trust.current().trust_domain().clone(), Role::Orch, orch_id);
        let expect = Expect::Id(peer.clone());
        let tls = ClientTls::mutual(node.identity.clone(), trust, expect, Alpn::Orchestrator);
        let dialer = Dialer::new([addr], tls, Timing::default());
        let slots = || Arc::new(Semaphore::new(AT_A_TIME));
        Self { node, peer, dialer, judging: slots(), answering: slots() }
    }

    /// Dials and serves, again and again.
    async fn run(&self) {
        let mut backoff = Backoff::dialling();
        loop {
            let opened = async { self.serve(self.dialer.dial().await?, &mut backoff).await };
            match opened.await {
                Ok(()) => tracing::debug!(orchestrator = %self.peer.short(), "session ends, to be opened again"),
                Err(failure) => {
                    tracing::info!(orchestrator = %self.peer.short(), code = %failure.code, details = ?failure.details, "no session: {failure}");
                }
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// One session, until it breaks, the orchestrator is revoked, or we have a new certificate.
    async fn serve(&self, link: Link, backoff: &mut Backoff) -> Result<(), Failure> {
        let node = &self.node;
        let mut renewed = node.renewals.done.subscribe();
        let mut trust = node.believed.changes();
        let (out, outgoing) = mpsc::channel(QUEUE);
        let hello = SessionHello { capacity: Some(node.capacity), tasks: node.reports.held() };
        send(&out, Report::Hello(hello))?;
        let mut client = SessionClient::new(link.channel.clone());
        let late = |_| Failure::unavailable("timed-out", format!("no answer within {ANSWER:?}"));
        let opened = timeout(ANSWER, client.session(ReceiverStream::new(outgoing))).await.map_err(late)??;
        let mut orders = opened.into_inner();
        let mut reader = node.reports.reader();
        tracing::info!(orchestrator = %self.peer.short(), addr = %link.addr, "session opened");
        backoff.reset();
        loop {
            tokio::select! {
                order = orders.message() => match order? {
                    Some(order) => self.obey(order.order, &out).await?,
                    None => return Ok(()),
                },
                () = reader.changed() => {
                    for report in reader.take(&node.reports) {
                        send(&out, Report::Task(report))?;
                    }
                }
                _ = trust.changed() => {
                    if node.believed.is_revoked(&self.peer) {
                        return Err(Failure::refused("peer-revoked", "the orchestrator is revoked"));
                    }
                }
                _ = renewed.changed() => return Ok(()),
            }
        }
    }

    async fn obey(&self, order: Option<Order>, out: &mpsc::Sender<SessionReport>) -> Result<(), Failure> {
        match order {
            Some(Order::Assign(assign)) => self.assign(assign, out).await,
            Some(Order::Stop(stop)) => self.stop(stop),
            Some(Order::Ping(_)) => return send(out, Report::Pong(Pong {})),
            Some(Order::Logs(request)) => self.logs(request, out),
            None => tracing::debug!("an order of a kind that this version does not know"),
        }
        Ok(())
    }

    /// Judged beside the session; beyond [`AT_A_TIME`] the orchestrator has to wait.
    async fn assign(&self, assign: Assign, out: &mpsc::Sender<SessionReport>) {
        let Ok(slot) = self.judging.clone().acquire_owned().await else { return };
        let (node, peer, out) = (self.node.clone(), self.peer.clone(), out.clone());
        tokio::spawn(async move {
            let result = carry_out(&node, peer, assign).await;
            drop(slot);
            // If the session is gone, the next one begins with what is held.
            out.send(SessionReport { report: Some(Report::AssignResult(result)) }).await.ok();
        });
    }

    fn stop(&self, stop: Stop) {
        let (node, peer) = (self.node.clone(), self.peer.clone());
        tokio::task::spawn_blocking(move || {
            let judged = node.tasks.each_of(&stop.task_id, |task| node.believed.may_stop(&peer, task, &stop));
            for (grant, judged) in judged {
                stop_one(&node, &peer, &grant, judged);
            }
        });
    }

    fn logs(&self, request: Statement, out: &mpsc::Sender<SessionReport>) {
        let Ok(slot) = self.answering.clone().try_acquire_owned() else {
            tracing::warn!(orchestrator = %self.peer.short(), "too many requests for logs at once: one is dropped");
            return;
        };
        let (node, out) = (self.node.clone(), out.clone());
        tokio::spawn(async move {
            logs::answer(&node, request, &out).await;
            drop(slot);
        });
    }
}

fn stop_one<G: Ground>(node: &Node<G>, peer: &SpiffeId, grant: &GrantId, judged: Result<StopAllowed, Refusal>) {
    match judged {
        Ok(allowed) => {
            let asked = if allowed.timeout.is_zero() { STOP_DEFAULT } else { allowed.timeout };
            node.tasks.stop(grant, asked.min(STOP_LONGEST), &format!("stopped by {}", peer.short()));
        }
        Err(refusal) => node.accuser.document(&refusal, None),
    }
}

/// Sends without waiting: an orchestrator that does not read is no orchestrator.
fn send(out: &mpsc::Sender<SessionReport>, report: Report) -> Result<(), Failure> {
    let sent = out.try_send(SessionReport { report: Some(report) });
    sent.map_err(|_| Failure::unavailable("peer-stalled", "the orchestrator does not read what it is told"))
}
