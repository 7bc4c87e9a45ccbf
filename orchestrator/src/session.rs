//! The listener's sessions: one stream a node. Its greeting and answers go in, orders come out.
//!
//! Who a node is comes from its certificate, never from what it says.

use crate::control::Input;
use crate::logs::Relay;
use crate::rights::Rpc;
use holdfast_orchestrator_core::plan::Resources;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::session_server::Session;
use holdfast_types::{GrantId, NodeId};
use holdfast_wire::tasks::is_over;
use holdfast_wire::v1::session_report::Report;
use holdfast_wire::v1::{Ping, SessionHello, SessionOrder, SessionReport, session_order};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Orders that may wait for one node.
const QUEUE: usize = 1024;
/// A session begins with a greeting within this time.
const GREETING: Duration = Duration::from_secs(10);
/// Between two pings.
const PING: Duration = Duration::from_secs(10);
/// A node that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(35);

/// Serves nodes.
pub struct SessionService {
    inbox: mpsc::Sender<Input>,
    relay: Arc<Relay>,
    sessions: AtomicU64,
}

impl SessionService {
    /// Tells `inbox` what happens, and gives log chunks to `relay`.
    pub fn new(inbox: mpsc::Sender<Input>, relay: Arc<Relay>) -> Self {
        Self { inbox, relay, sessions: AtomicU64::new(0) }
    }
}

#[tonic::async_trait]
impl Session for SessionService {
    type SessionStream = ReceiverStream<Result<SessionOrder, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionReport>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = Rpc::Session.admit(&request)?;
        let node = NodeId::parse(&peer.id.name).map_err(|e| Failure::invalid("invalid-input", e.to_string()))?;
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let (orders, queue) = mpsc::channel(QUEUE);
        let talk = Talk { node, session, inbox: self.inbox.clone(), relay: self.relay.clone() };
        tokio::spawn(talk.run(request.into_inner(), orders));
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

type Orders = mpsc::Sender<Result<SessionOrder, Status>>;

/// One session.
struct Talk {
    node: NodeId,
    session: u64,
    inbox: mpsc::Sender<Input>,
    relay: Arc<Relay>,
}

impl Talk {
    async fn run(self, mut reports: Streaming<SessionReport>, orders: Orders) {
        let Some(hello) = greeting(&mut reports).await else {
            tracing::info!(node = %self.node, "a session did not begin with a greeting");
            return;
        };
        tracing::info!(node = %self.node, tasks = hello.tasks.len(), "session begins");
        let pings = orders.downgrade();
        let capacity = hello.capacity.unwrap_or_default();
        let opened = Input::Opened {
            node: self.node.clone(),
            session: self.session,
            capacity: Resources { cpu_milli: capacity.cpu_milli.into(), memory_bytes: capacity.memory_bytes },
            held: hello
                .tasks
                .iter()
                .filter(|t| !is_over(&t.state))
                .filter_map(|t| GrantId::from_slice(&t.grant_id))
                .collect(),
            orders,
        };
        if self.inbox.send(opened).await.is_err() {
            return;
        }
        let why = self.listen(&mut reports, &pings).await;
        tracing::info!(node = %self.node, why, "session ended");
        // In this order: who is asked by this session in between is heard of by the relay.
        let closed = Input::Closed { node: self.node.clone(), session: self.session };
        if self.inbox.send(closed).await.is_err() {
            tracing::debug!("the orchestrator is stopping");
        }
        self.relay.left(&(self.node, self.session));
    }

    /// Until the session ends; why.
    async fn listen(
        &self,
        reports: &mut Streaming<SessionReport>,
        pings: &mpsc::WeakSender<Result<SessionOrder, Status>>,
    ) -> String {
        let mut ping = interval(PING);
        let (mut heard, mut replaced) = (Instant::now(), false);
        loop {
            tokio::select! {
                report = reports.message() => match report {
                    Ok(Some(report)) => {
                        heard = Instant::now();
                        if !self.take(report).await {
                            return "the orchestrator is stopping".to_owned();
                        }
                    }
                    Ok(None) => return "the node closed it".to_owned(),
                    Err(status) => return status.message().to_owned(),
                },
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE {
                        return "the node is silent".to_owned();
                    }
                    // The queue's end belongs to the control: without it, another session took this one's place. The node
                    // closes this one once it has said what it was asked for.
                    let Some(orders) = pings.upgrade() else {
                        if std::mem::replace(&mut replaced, true) {
                            return "another session took its place".to_owned();
                        }
                        continue;
                    };
                    if let Err(mpsc::error::TrySendError::Closed(_)) = orders.try_send(Ok(order(session_order::Order::Ping(Ping {})))) {
                        return "the node does not listen any more".to_owned();
                    }
                }
            }
        }
    }

    /// False if nobody listens to us any more.
    async fn take(&self, report: SessionReport) -> bool {
        let node = self.node.clone();
        let input = match report.report {
            Some(Report::AssignResult(r)) => GrantId::from_slice(&r.grant_id).map(|grant| {
                let refusal = (!r.accepted).then(|| format!("{}: {}", printable(&r.check), printable(&r.reason)));
                Input::Answered { node, grant, refusal }
            }),
            Some(Report::Task(t)) if is_over(&t.state) => {
                GrantId::from_slice(&t.grant_id).map(|grant| Input::Over { node, grant })
            }
            Some(Report::Log(chunk)) => {
                self.relay.deliver(&(node, self.session), chunk).await;
                None
            }
            Some(Report::Hello(_) | Report::Task(_) | Report::Pong(_)) | None => None,
        };
        match input {
            Some(input) => self.inbox.send(input).await.is_ok(),
            None => true,
        }
    }
}

async fn greeting(reports: &mut Streaming<SessionReport>) -> Option<SessionHello> {
    match timeout(GREETING, reports.message()).await.ok()?.ok()??.report? {
        Report::Hello(hello) => Some(hello),
        Report::AssignResult(_) | Report::Task(_) | Report::Pong(_) | Report::Log(_) => None,
    }
}

fn order(order: session_order::Order) -> SessionOrder {
    SessionOrder { order: Some(order) }
}
/// What a node says is shown to people: bounded, and unable to steer a terminal.
fn printable(s: &str) -> String {
    s.chars().filter(|c| !c.is_control()).take(200).collect()
}
