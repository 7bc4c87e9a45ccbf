//! The sessions with orchestrators: the node dials each one that the vault names, takes orders and tells what became
//! of them. An orchestrator is believed in nothing: every order is judged by what is signed inside.
//!
//! Made before broken: with a new certificate the next session is opened while the old one is served, and the old one still
//! says what it was asked for.
//!
//! Must never open a port, and never tell an orchestrator what evidence there is against it.

use crate::assign::carry_out;
use crate::logs;
use crate::node::Node;
use crate::reports::Reader;
use crate::tasks::ground::Ground;
use holdfast_orchestrator_core::verify::{Refusal, StopAllowed};
use holdfast_transport::client::{Backoff, Dialer, Link, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::session_client::SessionClient;
use holdfast_transport::tls::{Alpn, ClientTls, Expect};
use holdfast_types::{GrantId, Role, SpiffeId};
use holdfast_wire::v1::{Assign, OrchestratorList, Pong, SessionHello, SessionOrder, SessionReport, Statement, Stop};
use holdfast_wire::v1::{session_order::Order, session_report::Report};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// Orchestrators that a node speaks with at most.
const MAX_SESSIONS: usize = 16;
/// Assignments of one session that are judged at a time, and requests for logs that are answered at a time.
const AT_A_TIME: usize = 16;
/// Reports that wait for the orchestrator to read them.
const QUEUE: usize = 256;
/// For the answer to the opening of a session.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two attempts to open the next session while the old one works: an orchestrator hears of our certificate a little later
/// than we do, and of the one before for a moment only.
const MOVE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long an old session is listened to beside the next one.
const LEAVING: Duration = Duration::from_secs(1);
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
        let mut renewed = self.node.renewals.done.subscribe();
        let mut next: Option<(Open, Leaving)> = None;
        loop {
            let opened = match next.take() {
                Some((open, leaving)) => Ok((open, Some(leaving))),
                None => {
                    // What is renewed while we dial is dialled with once more.
                    renewed.mark_unchanged();
                    self.open().await.map(|open| (open, None))
                }
            };
            let ended = match opened {
                Ok((mut open, mut leaving)) => {
                    backoff.reset();
                    tokio::select! {
                        ended = self.serve(&mut open, &mut leaving) => ended,
                        _ = renewed.changed() => {
                            let after = moved(self.next(), self.serve(&mut open, &mut leaving)).await;
                            next = Some((after, Leaving::from(open)));
                            continue;
                        }
                    }
                }
                Err(failure) => Err(failure),
            };
            match ended {
                Ok(()) => tracing::debug!(orchestrator = %self.peer.short(), "session ends, to be opened again"),
                Err(failure) => self.explain(&failure),
            }
            sleep(backoff.next_delay()).await;
        }
    }

    fn explain(&self, failure: &Failure) {
        tracing::info!(orchestrator = %self.peer.short(), code = %failure.code, details = ?failure.details, "no session: {failure}");
    }

    /// A session, begun with what the node holds.
    async fn open(&self) -> Result<Open, Failure> {
        let node = &self.node;
        let link = self.dialer.dial().await?;
        self.counts(&link)?;
        let (out, outgoing) = mpsc::channel(QUEUE);
        let reader = node.reports.reader();
        let hello = SessionHello { capacity: Some(node.capacity), tasks: node.reports.held() };
        send(&out, Report::Hello(hello))?;
        let mut client = SessionClient::new(link.channel.clone());
        let late = |_| Failure::unavailable("timed-out", format!("no answer within {ANSWER:?}"));
        let opened = timeout(ANSWER, client.session(ReceiverStream::new(outgoing))).await.map_err(late)??;
        tracing::info!(orchestrator = %self.peer.short(), addr = %link.addr, "session opened");
        Ok(Open { orders: opened.into_inner(), out, reader, moved: CancellationToken::new(), link })
    }
    /// Refuses an orchestrator that is revoked, and whoever shows a key that it had before it was released from quarantine.
    fn counts(&self, link: &Link) -> Result<(), Failure> {
        let revoked = self.node.believed.is_revoked(&link.server.peer);
        if revoked { Err(Failure::refused("peer-revoked", "the orchestrator is revoked")) } else { Ok(()) }
    }
    /// The session after one that is served meanwhile: tried until there is one.
    async fn next(&self) -> Open {
        let mut backoff = Backoff::new(MOVE.0, MOVE.1);
        loop {
            match self.open().await {
                Ok(open) => return open,
                Err(failure) => self.explain(&failure),
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// One session, until it breaks or the orchestrator is revoked; and what is `leaving` beside it.
    async fn serve(&self, open: &mut Open, leaving: &mut Option<Leaving>) -> Result<(), Failure> {
        let node = &self.node;
        let mut trust = node.believed.changes();
        self.counts(&open.link)?;
        loop {
            tokio::select! {
                order = open.orders.message() => match order? {
                    Some(order) => self.obey(order.order, open).await?,
                    None => return Ok(()),
                },
                () = open.reader.changed() => {
                    for report in open.reader.take(&node.reports) {
                        send(&open.out, Report::Task(report))?;
                    }
                }
                _ = trust.changed() => {
                    self.counts(&open.link)?;
                }
                order = left(leaving) => match (order, &*leaving) {
                    // Of what to start and to stop, the next session was told in its turn: it began with what is held.
                    (Some(Order::Logs(request)), Some(leaving)) => self.logs(request, &leaving.open),
                    (Some(_), _) => {}
                    (None, _) => *leaving = None,
                },
            }
        }
    }

    async fn obey(&self, order: Option<Order>, open: &Open) -> Result<(), Failure> {
        match order {
            Some(Order::Assign(assign)) => self.assign(assign, &open.out).await,
            Some(Order::Stop(stop)) => self.stop(stop),
            Some(Order::Ping(_)) => return send(&open.out, Report::Pong(Pong {})),
            Some(Order::Logs(request)) => self.logs(request, open),
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

    fn logs(&self, request: Statement, open: &Open) {
        let (node, out, moved) = (self.node.clone(), open.out.clone(), open.moved.clone());
        let Ok(slot) = self.answering.clone().try_acquire_owned() else {
            tracing::warn!(orchestrator = %self.peer.short(), "too many requests for logs at once: one is not answered");
            tokio::spawn(async move { logs::decline(&node, &request, &out).await });
            return;
        };
        tokio::spawn(async move {
            logs::answer(&node, request, &out, moved).await;
            drop(slot);
        });
    }
}

/// A session that is open.
struct Open {
    orders: Streaming<SessionOrder>,
    out: mpsc::Sender<SessionReport>,
    reader: Reader,
    /// Cancelled once another session has taken its place.
    moved: CancellationToken,
    link: Link,
}

/// A session that another one has taken the place of. Ends what follows output: whoever wants it asks again.
struct Leaving {
    open: Open,
    until: Instant,
}
impl From<Open> for Leaving {
    fn from(open: Open) -> Self {
        open.moved.cancel();
        Self { open, until: Instant::now() + LEAVING }
    }
}

/// The next order over a session that is left; `None` once the orchestrator has ended it, or had time to.
async fn left(leaving: &mut Option<Leaving>) -> Option<Order> {
    let Some(Leaving { open, until }) = leaving else { return std::future::pending().await };
    timeout_at(*until, open.orders.message()).await.ok()?.ok()??.order
}

/// What `next` gives; `old` is served meanwhile, and may well end before.
async fn moved<T, E>(next: impl Future<Output = T>, old: impl Future<Output = E>) -> T {
    let mut next = pin!(next);
    tokio::select! {
        biased;
        next = &mut next => return next,
        _ = old => {}
    }
    next.await
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn an_old_session_is_served_until_the_next_is_there_and_its_end_does_not_end_the_wait() {
        for ends_before in [false, true] {
            let (served, mut was_served) = oneshot::channel();
            let (is_there, next) = oneshot::channel();
            let (go_on, asked) = oneshot::channel();
            let old = async {
                served.send(()).unwrap();
                go_on.send(()).unwrap();
                if !ends_before {
                    std::future::pending::<()>().await;
                }
            };
            let orchestrator = async {
                asked.await.unwrap();
                is_there.send(7).unwrap();
            };
            let (next, ()) = tokio::join!(moved(async { next.await.unwrap() }, old), orchestrator);
            assert_eq!((next, was_served.try_recv()), (7, Ok(())), "{ends_before}");
        }
    }
}
