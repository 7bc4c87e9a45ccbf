//! The connection to the vault: leases, the directory and grants, all over one link.
//!
//! One link, because all of it is said by one certificate: see [`crate::renewal`]. When it breaks, everything begins
//! anew with another picture of the directory; nothing is carried over but what the scheduler knows.

use crate::control::{Input, VaultOrder};
use crate::pins::Pins;
use holdfast_transport::client::{Backoff, Dialer, Link};
use holdfast_transport::failure::Failure;
use holdfast_transport::now;
use holdfast_transport::renew::Renewals;
use holdfast_transport::rpc::sched_plane_client::SchedPlaneClient;
use holdfast_types::GrantId;
use holdfast_wire::v1::{
    DirectoryEvent, GrantRequest, GrantResult, KeepLeaseReply, KeepLeaseRequest, ReleaseGrantsRequest,
    RequestGrantsRequest, Statement, WatchDirectoryRequest,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

/// For an answer about leases or grants.
const ANSWER: Duration = Duration::from_secs(15);
/// For a certificate that has to be renewed before anything else.
const RENEWAL: Duration = Duration::from_secs(30);
/// Between two questions while no lease is held.
const WITHOUT_LEASE: Duration = Duration::from_secs(5);
/// Bounds of the time between two questions: a third of the lease, within these.
const ASK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(20));
/// A hundred grants with a secret of 500 KiB each, twice.
const MAX_GRANTS: usize = 128 << 20;
/// Most grants that the vault takes back in one call.
const MAX_RELEASES: usize = 1000;

/// What the connection is made of.
pub struct Vault {
    /// Where the vault is.
    pub dialer: Arc<Dialer>,
    /// What happens goes there.
    pub inbox: mpsc::Sender<Input>,
    /// What is to be asked comes from there.
    pub orders: mpsc::UnboundedReceiver<VaultOrder>,
    /// The directory's pins.
    pub pins: Arc<Pins>,
    /// How nodes reach us, `host:port`.
    pub session_addr: String,
    /// The link that is open, for renewals.
    pub open: watch::Sender<Option<Link>>,
    /// The epoch of the bundle that we believe.
    pub bundle: watch::Receiver<u64>,
    /// Rises with every new certificate of ours.
    pub renewed: watch::Receiver<u64>,
    /// To renew at once.
    pub renewals: Arc<Renewals>,
    /// The last Status that the vault showed.
    pub status: watch::Sender<Option<Statement>>,
}

/// The streams of one link.
struct Streams {
    client: SchedPlaneClient<Channel>,
    ask: mpsc::Sender<KeepLeaseRequest>,
    leases: Streaming<KeepLeaseReply>,
    directory: Streaming<DirectoryEvent>,
}

impl Vault {
    /// Stays connected until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::dialling();
        while let Some(link) = self.dialer.dial_until(&stop).await {
            self.renewed.mark_unchanged();
            let begun = Instant::now();
            let ended = self.attend(&link, &stop).await;
            self.open.send_replace(None);
            if self.inbox.send(Input::VaultLost).await.is_err() || stop.is_cancelled() {
                return;
            }
            match ended {
                Ok(()) => continue,
                Err(failure) => {
                    tracing::warn!(code = %failure.code, vault = %link.addr, "the vault is lost: {failure}");
                    self.dialer.prefer(failure.leader_addrs());
                    // One that is quarantined may have been released meanwhile: it asks with its next key.
                    if failure.code == "identity-refused" {
                        self.renewals.wanted.notify_one();
                    }
                    if failure.code == "certificate-refused" {
                        self.renewals.refused();
                    }
                }
            }
            if begun.elapsed() > ANSWER {
                backoff.reset();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.refuse_for(backoff.next_delay()) => {}
            }
        }
    }

    /// While there is no connection, what is asked for is not answered.
    async fn refuse_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let order = tokio::select! {
                () = sleep_until(end) => return,
                Some(order) = self.orders.recv() => order,
            };
            if let VaultOrder::Request { ticket, .. } = order {
                let answer = Err(Failure::unavailable("unreachable", "no connection to the vault"));
                if self.inbox.send(Input::Granted { ticket, answer }).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn streams(&self, link: &Link) -> Result<Streams, Failure> {
        let mut client = SchedPlaneClient::new(link.channel.clone()).max_decoding_message_size(MAX_GRANTS);
        let (ask, questions) = mpsc::channel(4);
        let opened = timeout(ANSWER, async {
            let leases = client.keep_lease(ReceiverStream::new(questions)).await?.into_inner();
            let directory = client.watch_directory(WatchDirectoryRequest {}).await?.into_inner();
            Ok((leases, directory))
        });
        let (leases, directory) = opened.await.map_err(late)?.map_err(|status| link.explain(status))?;
        Ok(Streams { client, ask, leases, directory })
    }

    /// One link, to its end: `Ok` if it ended because our certificate is new, or by `stop`.
    async fn attend(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), Failure> {
        let mut s = match self.streams(link).await {
            Err(failure) if failure.code == "renew-first" => return self.renew_first(link, stop).await,
            streams => streams?,
        };
        tracing::info!(vault = %link.addr, "connected to the vault");
        self.pins.begin();
        self.open.send_replace(Some(link.clone()));
        let (mut calls, mut releases) = (JoinSet::new(), Releases::default());
        let mut lease = LeaseClock::new();
        let mut renewing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = self.renewed.changed() => {
                    finish(calls, releases.call).await;
                    return Ok(());
                }
                () = sleep_until(lease.next) => {
                    lease.ask(&s.ask, self.question())?;
                }
                // Roots are given up once everybody is known to believe the next one: the vault is told at once.
                Ok(()) = self.bundle.changed() => {
                    lease.ask(&s.ask, self.question())?;
                }
                reply = s.leases.message() => {
                    let reply = reply.map_err(|status| link.explain(status))?.ok_or_else(ended)?;
                    lease.heard(&reply);
                    // Said again until it is done; once is enough for a link, since a renewal makes the next one.
                    if reply.renew_now && !renewing {
                        renewing = true;
                        self.renewals.wanted.notify_one();
                    }
                    self.status.send_if_modified(|last| *last != reply.status && { last.clone_from(&reply.status); true });
                    self.tell(Input::Leases(reply.leases)).await?;
                }
                event = s.directory.message() => {
                    let event = event.map_err(|status| link.explain(status))?.ok_or_else(ended)?;
                    self.pins.take(&event);
                    self.tell(Input::Directory(event)).await?;
                }
                Some(order) = self.orders.recv() => match order {
                    VaultOrder::KeepLease => lease.ask(&s.ask, self.question())?,
                    VaultOrder::Request { ticket, requests } => {
                        let (client, inbox) = (s.client.clone(), self.inbox.clone());
                        calls.spawn(async move {
                            let answer = request(client, requests).await;
                            inbox.send(Input::Granted { ticket, answer }).await.map_err(|_| stopping())
                        });
                    }
                    VaultOrder::Release { grants, reason } => {
                        releases.waiting.entry(reason).or_default().extend(grants);
                        releases.next(&s.client);
                    }
                },
                Some(done) = calls.join_next() => done.unwrap_or_else(|_| Err(stopping()))?,
                // A release that failed is derived again from the next picture.
                Some(done) = releases.call.join_next() => {
                    done.unwrap_or_else(|_| Err(stopping()))?;
                    releases.next(&s.client);
                }
            }
        }
    }

    /// Our certificate is of an era before: over this link it is renewed, and nothing else is said.
    async fn renew_first(&mut self, link: &Link, stop: &CancellationToken) -> Result<(), Failure> {
        tracing::info!(vault = %link.addr, "a new era: the certificate is renewed first");
        self.open.send_replace(Some(link.clone()));
        self.renewals.wanted.notify_one();
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            renewed = timeout(RENEWAL, self.renewed.changed()) => renewed.map(drop).map_err(late),
        }
    }

    fn question(&self) -> KeepLeaseRequest {
        KeepLeaseRequest { session_addr: self.session_addr.clone(), bundle_epoch: *self.bundle.borrow() }
    }

    async fn tell(&self, input: Input) -> Result<(), Failure> {
        self.inbox.send(input).await.map_err(|_| stopping())
    }
}

/// Grants to give back: one call at a time, since the vault takes so many a second, and what queues behind it goes together.
#[derive(Default)]
struct Releases {
    /// By reason.
    waiting: BTreeMap<&'static str, Vec<GrantId>>,
    /// The one under way.
    call: JoinSet<Result<(), Failure>>,
}

impl Releases {
    /// Makes the next call, if none is under way.
    fn next(&mut self, client: &SchedPlaneClient<Channel>) {
        let Some((reason, mut grants)) = self.call.is_empty().then(|| self.waiting.pop_first()).flatten() else {
            return;
        };
        if grants.len() > MAX_RELEASES {
            self.waiting.insert(reason, grants.split_off(MAX_RELEASES));
        }
        let grant_ids = grants.iter().map(|g| g.to_vec()).collect();
        let mut client = client.clone();
        self.call.spawn(async move {
            let r = ReleaseGrantsRequest { grant_ids, reason: reason.to_owned() };
            timeout(ANSWER, client.release_grants(r)).await.map_err(late)?.map(drop).map_err(Failure::from)
        });
    }
}

async fn request(
    mut client: SchedPlaneClient<Channel>,
    requests: Vec<GrantRequest>,
) -> Result<Vec<GrantResult>, Failure> {
    let mut request_id = vec![0; 16];
    getrandom::fill(&mut request_id).map_err(|e| Failure::failed("no-entropy", e.to_string()))?;
    let answer = timeout(ANSWER, client.request_grants(RequestGrantsRequest { request_id, requests }));
    Ok(answer.await.map_err(late)??.into_inner().results)
}

/// Waits for calls that were begun: each must be judged before our next certificate is in use.
async fn finish(mut calls: JoinSet<Result<(), Failure>>, mut release: JoinSet<Result<(), Failure>>) {
    let all = async {
        while calls.join_next().await.is_some() {}
        while release.join_next().await.is_some() {}
    };
    if timeout(ANSWER, all).await.is_err() {
        tracing::warn!("calls to the vault did not end in time");
    }
    // A moment for what the vault has read and not judged yet.
    sleep(ASK.0).await;
}

/// When to ask for the leases again.
struct LeaseClock {
    next: Instant,
    /// When the question was put that is not answered yet.
    asked: Option<Instant>,
}

impl LeaseClock {
    fn new() -> Self {
        Self { next: Instant::now(), asked: None }
    }
    fn ask(&mut self, questions: &mpsc::Sender<KeepLeaseRequest>, request: KeepLeaseRequest) -> Result<(), Failure> {
        if self.asked.is_some_and(|at| at.elapsed() >= ANSWER) {
            return Err(Failure::unavailable("timed-out", "the vault does not answer about leases"));
        }
        let now = Instant::now();
        self.next = now + WITHOUT_LEASE;
        self.asked.get_or_insert(now);
        match questions.try_send(request) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ended()),
        }
    }
    fn heard(&mut self, reply: &KeepLeaseReply) {
        self.asked = None;
        let left = reply.leases.iter().map(|l| holdfast_types::Millis(l.until_ms).since(now())).min();
        let wait = left.map_or(WITHOUT_LEASE, |left| (left / 3).clamp(ASK.0, ASK.1));
        self.next = Instant::now() + wait;
    }
}

fn late(_: tokio::time::error::Elapsed) -> Failure {
    Failure::unavailable("timed-out", format!("no answer within {ANSWER:?}"))
}
fn ended() -> Failure {
    Failure::unavailable("connection-lost", "the vault ended the stream")
}
fn stopping() -> Failure {
    Failure::unavailable("stopping", "the orchestrator is stopping")
}
