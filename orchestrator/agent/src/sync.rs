//! The stream to the vault: reports go up, and what the vault has signed comes down.
//!
//! Made before broken: a new certificate is used on a new stream, which begins with a complete report, before the old
//! stream is let go; its first use is what puts it into force (protocol, renewal chain R4).

use crate::believed::{Denied, Document, Standing};
use crate::era::Eras;
use crate::node::Node;
use crate::removal;
use crate::reports::Reader;
use crate::session::Sessions;
use crate::tasks::ground::Ground;
use holdfast_transport::check_clock;
use holdfast_transport::client::{Backoff, Link};
use holdfast_transport::daemon::{Heartbeat, PULSE, Readiness, systemd};
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::node_plane_client::NodePlaneClient;
use holdfast_types::GrantId;
use holdfast_wire::v1::node_push::Push;
use holdfast_wire::v1::{HeldBefore, NodePush, NodeReport, Statement, TaskReport};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// Reports that wait for the vault to read them.
const QUEUE: usize = 256;
/// For the answer to the opening of a stream.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two attempts to move to a new certificate while the old stream still works.
const MOVE: Duration = Duration::from_secs(5);
/// Time to end by itself for a task whose grant the vault takes back.
const REVOKE_GRACE: Duration = Duration::from_secs(5);

/// So many older statuses in a row are of a vault that was set back: a leader that was followed unawares sends no more.
const SET_BACK: u32 = 3;

/// The vault's side of a node.
pub struct VaultSync<G: Ground> {
    /// The node.
    pub node: Arc<Node<G>>,
    /// Whom the vault names.
    pub sessions: Sessions<G>,
    /// Whether the node can take work.
    pub readiness: Readiness,
    /// The way into a new era.
    pub eras: Arc<Eras>,
    /// Beats while the stream is served, or a new one is waited for.
    pub heart: Heartbeat,
}

struct Stream {
    out: mpsc::Sender<NodeReport>,
    pushes: Streaming<NodePush>,
    reader: Reader,
    told: (u64, u64),
    link: Link,
    /// The first report showed what was held of the era before.
    shows: bool,
    /// Statuses in a row that are older than what was seen.
    older: u32,
}

/// What goes with the first report of a stream, which tells everything that the node runs.
struct First {
    before: Option<HeldBefore>,
}

/// How a stream ended that did not fail.
enum Ended {
    /// The vault closed it.
    Closed,
    /// There is a newer one.
    Moved(Box<Stream>),
}

impl<G: Ground> VaultSync<G> {
    /// Until `stop`: keeps one stream open.
    pub async fn run(&self, stop: &CancellationToken) {
        let streams = async {
            let mut backoff = Backoff::dialling();
            let mut ready: Option<Stream> = None;
            let mut renewed = self.node.renewals.done.subscribe();
            loop {
                let stream = match ready.take() {
                    Some(stream) => Ok(stream),
                    None => self.heart.during(self.open()).await,
                };
                let ended = match stream {
                    Ok(stream) => {
                        backoff.reset();
                        self.eras.reached();
                        self.serve(stream).await
                    }
                    Err(failure) => Err(failure),
                };
                match ended {
                    Ok(Ended::Moved(stream)) => {
                        ready = Some(*stream);
                        continue;
                    }
                    Ok(Ended::Closed) => tracing::info!("the vault closed the stream"),
                    Err(failure) => {
                        self.explain(&failure);
                        if failure.code == "certificate-refused" {
                            self.node.renewals.refused();
                        }
                        self.heart.during(self.eras.look(&self.node, &failure)).await;
                    }
                }
                self.disconnected();
                let rest = sleep(backoff.next_delay());
                tokio::select! {
                    () = self.heart.during(rest) => {}
                    // With a certificate of now it may be let in at once.
                    _ = renewed.changed() => {}
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = streams => {}
        }
    }

    fn explain(&self, failure: &Failure) {
        let leaders = failure.leader_addrs();
        if leaders.is_empty() {
            tracing::warn!(code = %failure.code, details = ?failure.details, help = failure.help.as_deref(), "no stream to the vault: {failure}");
        } else {
            self.node.vault.prefer(leaders);
        }
    }
    fn disconnected(&self) {
        metrics::gauge!("holdfast_agent_vault_connected").set(0.0);
        let (obstacle, status) = match self.node.believed.standing() {
            Standing::Removed => ("this node was removed from its cluster", "removed from its cluster; nothing runs"),
            Standing::Counts | Standing::Revoked => ("no stream to the vault", "no stream to the vault; tasks run on"),
        };
        self.readiness.not_ready(obstacle);
        systemd::status(status);
    }

    /// A new stream, begun with everything that the node runs.
    async fn open(&self) -> Result<Stream, Failure> {
        let node = &self.node;
        let link = node.vault.dial().await?;
        let (out, outgoing) = mpsc::channel(QUEUE);
        let mut reader = node.reports.reader();
        let told = node.believed.versions();
        let before = node.believed.before();
        let shows = before.is_some();
        report(&out, told, reader.take(&node.reports), Some(First { before }))?;
        let mut client = NodePlaneClient::new(link.channel.clone());
        let late = |_| Failure::unavailable("timed-out", format!("no answer within {ANSWER:?}"));
        let opened = timeout(ANSWER, client.sync(ReceiverStream::new(outgoing))).await.map_err(late)?;
        let pushes = opened.map_err(|status| link.explain(status))?.into_inner();
        metrics::gauge!("holdfast_agent_vault_connected").set(1.0);
        tracing::info!(vault = %link.server.peer.id.short(), addr = %link.addr, "stream to the vault opened");
        Ok(Stream { out, pushes, reader, told, link, shows, older: 0 })
    }

    async fn serve(&self, mut stream: Stream) -> Result<Ended, Failure> {
        let node = &self.node;
        let mut trust = node.believed.changes();
        let mut renewed = node.renewals.done.subscribe();
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = pulse.tick() => self.heart.beat(),
                push = stream.pushes.message() => match push? {
                    Some(push) => self.take(push.push, &mut stream).await,
                    None => return Ok(Ended::Closed),
                },
                () = stream.reader.changed() => {
                    let news = stream.reader.take(&node.reports);
                    report(&stream.out, stream.told, news, None)?;
                }
                _ = trust.changed() => {
                    let versions = node.believed.versions();
                    if versions != stream.told {
                        stream.told = versions;
                        report(&stream.out, versions, Vec::new(), None)?;
                    }
                    self.check_ready();
                }
                _ = renewed.changed() => {
                    return Ok(Ended::Moved(Box::new(self.heart.during(self.move_on(&mut stream)).await?)));
                }
            }
        }
    }

    /// Opens the next stream while the old one is still served. The vault ends the old one when the new certificate is
    /// used first; that may be heard before the new stream's own answer.
    async fn move_on(&self, old: &mut Stream) -> Result<Stream, Failure> {
        let mut next = pin!(async {
            loop {
                match self.open().await {
                    Ok(next) => return next,
                    Err(failure) => self.explain(&failure),
                }
                sleep(MOVE).await;
            }
        });
        loop {
            tokio::select! {
                next = &mut next => {
                    tracing::debug!(left = %old.link.addr, "moved to a stream under the new certificate");
                    return Ok(next);
                }
                push = old.pushes.message() => match push {
                    Ok(Some(push)) => self.take(push.push, old).await,
                    Ok(None) | Err(_) => {
                        let gone = |_| Failure::unavailable("closed", "the vault closed the stream");
                        return timeout(ANSWER, next).await.map_err(gone);
                    }
                },
            }
        }
    }

    fn check_ready(&self) {
        if self.node.believed.can_start() {
            self.readiness.ready();
            systemd::status("connected to the vault");
        }
    }

    async fn take(&self, push: Option<Push>, stream: &mut Stream) {
        let node = &self.node;
        match push {
            Some(Push::Status(st)) => {
                if let Err(failure) = check_clock(&st) {
                    tracing::warn!(code = %failure.code, "{}", failure.line());
                }
                let refusal = node.believed.set_back(&st);
                stream.older = if refusal.is_some() { stream.older.saturating_add(1) } else { 0 };
                if let Some((refusal, newest)) = refusal.filter(|_| stream.older == SET_BACK) {
                    node.accuser.set_back(&refusal, &st, newest);
                }
                self.observe(Document::Status(st.clone()), &st).await;
            }
            Some(Push::Bundle(st)) => self.observe(Document::Bundle(st.clone()), &st).await,
            Some(Push::Revocations(st)) => self.observe(Document::Revocations(st.clone()), &st).await,
            Some(Push::Charter(st)) => self.observe(Document::Charter(st.clone()), &st).await,
            Some(Push::LeaseExt(st)) => match node.believed.extend(&st) {
                Ok(extended) => node.tasks.extend(&extended),
                Err(refusal) => node.accuser.document(&refusal, Some(&st)),
            },
            Some(Push::Revoke(st)) => self.revoke(st).await,
            Some(Push::RenewNow(_)) => node.renewals.wanted.notify_one(),
            Some(Push::ReportAck(ack)) => {
                // Reports are acknowledged in their order, and the first one once what it showed is committed.
                if std::mem::take(&mut stream.shows)
                    && let Err(error) = node.believed.before_was_seen().await
                {
                    tracing::warn!(%error, "what was held of the era before is shown once more");
                }
                for id in ack.grant_ids.iter().filter_map(|id| GrantId::from_slice(id)) {
                    if stream.reader.acknowledged(&node.reports, &id) {
                        node.tasks.forget(id).await;
                    }
                }
            }
            Some(Push::Orchestrators(list)) => self.sessions.set(&list),
            None => tracing::debug!("a push of a kind that this version does not know"),
        }
    }

    async fn observe(&self, document: Document, st: &Statement) {
        let node = &self.node;
        let before = node.believed.standing();
        match node.believed.observe(document).await {
            Ok(changed) => tracing::debug!(kind = %st.r#type, changed, "document from the vault"),
            // A link is missing: the whole chain is there for everybody to read.
            Err(Denied::Refused(refusal)) if refusal.code == "bundle-gap" => {
                let followed = self.heart.during(self.eras.follow(&node.believed, &node.vault)).await;
                tracing::info!(?followed, "a bundle came that does not follow ours");
            }
            Err(denied) => self.denied(&denied, st),
        }
        if before != Standing::Removed {
            removal::obey(node);
        }
    }

    async fn revoke(&self, st: Statement) {
        let node = &self.node;
        let revoked = match node.believed.revoke(st.clone()).await {
            Ok(revoked) => revoked,
            Err(denied) => return self.denied(&denied, &st),
        };
        let counts = node.believed.standing() == Standing::Counts;
        let grace = if counts { REVOKE_GRACE } else { removal::GRACE };
        for id in revoked {
            tracing::warn!(grant = %id, "the vault takes the grant back");
            if !node.tasks.stop(&id, grace, "its grant was revoked") && !node.reports.knows(&id) {
                let detail = "revoked before it was started".to_owned();
                let report =
                    TaskReport { grant_id: id.to_vec(), state: "stopped".to_owned(), detail, ..TaskReport::default() };
                node.reports.put(id, 0, report);
            }
        }
    }

    fn denied(&self, denied: &Denied, st: &Statement) {
        match denied {
            Denied::Refused(refusal) => self.node.accuser.document(refusal, Some(st)),
            Denied::State(error) => {
                tracing::error!(%error, help = error.help(), kind = %st.r#type, "a document was not put into force");
            }
            Denied::Keys(_) | Denied::Roots(_) | Denied::Unproven(_) | Denied::Interrupted => {
                tracing::error!(error = %denied, kind = %st.r#type, "a document was not put into force");
            }
        }
    }
}

/// Sends without waiting. A vault reads at a pace, and the queue holds a burst; whoever has still more to say begins anew, with
/// one report of everything.
fn report(
    out: &mpsc::Sender<NodeReport>,
    (bundle_epoch, charter_version): (u64, u64),
    tasks: Vec<TaskReport>,
    first: Option<First>,
) -> Result<(), Failure> {
    let complete = first.is_some();
    let before = first.and_then(|f| f.before);
    let sent = out.try_send(NodeReport { bundle_epoch, charter_version, tasks, complete, before });
    sent.map_err(|_| Failure::unavailable("vault-stalled", "the vault does not read what it is told"))
}
