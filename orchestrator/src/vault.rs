//! The connection to the vault: leases, the directory and grants, all over one link.
//!
//! One link, because all of it is said by one certificate: see [`crate::renewal`]. When it breaks, everything begins
//! anew with another picture of the directory; nothing is carried over but what the scheduler knows.
//!
//! Made before broken: with a new certificate the next link is opened while the directory is still heard over the old one, so
//! that nodes that renew at the same moment are known.

mod streams;

use crate::before::Before;
use crate::control::{Input, VaultOrder};
use crate::pins::Pins;
use holdfast_transport::client::{Backoff, Dialer, Link};
use holdfast_transport::failure::Failure;
use holdfast_transport::renew::Renewals;
use holdfast_transport::rpc::sched_plane_client::SchedPlaneClient;
use holdfast_types::GrantId;
use holdfast_wire::v1::directory_event::Event as Shown;
use holdfast_wire::v1::{
    GrantRequest, GrantResult, KeepLeaseRequest, ReleaseGrantsRequest, RequestGrantsRequest, Statement,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use streams::{ANSWER, ASK, LeaseClock, Said, Streams, late};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// For all calls that were begun: each gives up by itself before.
const FINISH: Duration = Duration::from_secs(16);
/// For a certificate that has to be renewed before anything else.
const RENEWAL: Duration = Duration::from_secs(30);
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
    /// The last list of revocations that the vault showed.
    pub revocations: watch::Sender<Option<Statement>>,
    /// What the vault is to be shown of the era before.
    pub before: Arc<Before>,
}

/// How a link ended that did not fail.
enum Ended {
    /// There is another one, under our new certificate.
    Moved(Box<(Link, Streams)>),
    /// Our certificate is new, and nothing but that was said over this link.
    Renewed,
    /// We are stopping.
    Stopped,
}

impl Vault {
    /// Stays connected until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::dialling();
        let mut next = None;
        loop {
            let (link, streams) = match next.take() {
                Some((link, streams)) => (link, Some(streams)),
                None => {
                    // What is renewed while we dial is dialled with once more.
                    self.renewed.mark_unchanged();
                    let Some(link) = self.dialer.dial_until(&stop).await else { return };
                    (link, None)
                }
            };
            let begun = Instant::now();
            let ended = self.attend(&link, streams, &stop).await;
            self.open.send_replace(None);
            let told = match &ended {
                Ok(Ended::Moved(_)) => Input::VaultMoved,
                Ok(Ended::Renewed | Ended::Stopped) | Err(_) => Input::VaultLost,
            };
            if self.inbox.send(told).await.is_err() || stop.is_cancelled() {
                return;
            }
            match ended {
                Ok(Ended::Moved(open)) => {
                    next = Some(*open);
                    continue;
                }
                Ok(Ended::Renewed | Ended::Stopped) => continue,
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

    /// One link, to its end; `streams` of it, if they are open already.
    async fn attend(
        &mut self,
        link: &Link,
        streams: Option<Streams>,
        stop: &CancellationToken,
    ) -> Result<Ended, Failure> {
        let mut s = match streams {
            Some(streams) => streams,
            None => match Streams::open(link, &self.before).await {
                Err(failure) if failure.code == "renew-first" => return self.renew_first(link, stop).await,
                streams => streams?,
            },
        };
        tracing::info!(vault = %link.addr, "connected to the vault");
        self.pins.begin();
        self.open.send_replace(Some(link.clone()));
        let (mut calls, mut releases) = (JoinSet::new(), Releases::default());
        let mut lease = LeaseClock::new();
        let (mut renewing, mut whole) = (false, false);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(Ended::Stopped),
                _ = self.renewed.changed() => {
                    self.open.send_replace(None);
                    let next = next_link(self.dialer.clone(), self.before.clone(), finish(calls, releases.call));
                    return tokio::select! {
                        () = stop.cancelled() => Ok(Ended::Stopped),
                        next = self.move_on(next, &mut s, link) => next,
                    };
                }
                () = sleep_until(lease.next) => {
                    lease.ask(&s.ask, self.question())?;
                }
                // Roots are given up once everybody is known to believe the next one: the vault is told at once.
                Ok(()) = self.bundle.changed() => {
                    lease.ask(&s.ask, self.question())?;
                }
                said = s.said(link) => match said? {
                    Said::Leases(reply) => {
                        lease.heard(&reply);
                        // Said again until it is done; once is enough for a link, since a renewal makes the next one.
                        if reply.renew_now && !renewing {
                            renewing = true;
                            self.renewals.wanted.notify_one();
                        }
                        self.take(Said::Leases(reply)).await?;
                    }
                    Said::Event(event) => {
                        whole |= matches!(event.event, Some(Shown::Synced(_)));
                        self.take(Said::Event(event)).await?;
                    }
                },
                // Not before the directory is whole: what is granted before would seem to be gone from it.
                Some(order) = self.orders.recv(), if whole => match order {
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

    /// Hears what the old streams say until the `next` ones are open. The vault ends the old ones once the next are in use; that
    /// may be heard before the answer of those.
    async fn move_on(
        &self,
        next: impl Future<Output = Result<Ended, Failure>>,
        old: &mut Streams,
        link: &Link,
    ) -> Result<Ended, Failure> {
        let mut next = pin!(next);
        loop {
            tokio::select! {
                biased;
                next = &mut next => return next,
                said = old.said(link) => match said {
                    Ok(said) => self.take(said).await?,
                    Err(failure) => return timeout(ANSWER, next).await.unwrap_or(Err(failure)),
                },
            }
        }
    }

    async fn take(&self, said: Said) -> Result<(), Failure> {
        match said {
            Said::Leases(reply) => {
                self.status.send_if_modified(|last| {
                    *last != reply.status && {
                        last.clone_from(&reply.status);
                        true
                    }
                });
                self.tell(Input::Leases(reply.leases)).await
            }
            Said::Event(event) => {
                if let Some(Shown::Revocations(list)) = &event.event {
                    self.revocations.send_replace(Some(list.clone()));
                    return Ok(());
                }
                self.pins.take(&event);
                self.tell(Input::Directory(event)).await
            }
        }
    }

    /// Our certificate is of an era before: over this link it is renewed, and nothing else is said.
    async fn renew_first(&mut self, link: &Link, stop: &CancellationToken) -> Result<Ended, Failure> {
        tracing::info!(vault = %link.addr, "a new era: the certificate is renewed first");
        self.open.send_replace(Some(link.clone()));
        self.renewals.wanted.notify_one();
        tokio::select! {
            () = stop.cancelled() => Ok(Ended::Stopped),
            renewed = timeout(RENEWAL, self.renewed.changed()) => renewed.map(|_| Ended::Renewed).map_err(|_| {
                Failure::unavailable("timed-out", format!("the certificate was not renewed within {RENEWAL:?}"))
            }),
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

/// The link after this one, once what was begun over this one is `finished`. What may pass is tried again.
async fn next_link(
    dialer: Arc<Dialer>,
    before: Arc<Before>,
    finished: impl Future<Output = ()>,
) -> Result<Ended, Failure> {
    finished.await;
    let mut backoff = Backoff::dialling();
    loop {
        let opened = async {
            let link = dialer.dial().await?;
            let streams = Streams::open(&link, &before).await?;
            Ok::<_, Failure>(Ended::Moved(Box::new((link, streams))))
        };
        match opened.await {
            Err(failure) if failure.may_pass() => {
                tracing::info!(code = %failure.code, "no link under the new certificate yet: {failure}");
                dialer.prefer(failure.leader_addrs());
            }
            opened => return opened,
        }
        sleep(backoff.next_delay()).await;
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
    if timeout(FINISH, all).await.is_err() {
        tracing::warn!("calls to the vault did not end in time");
    }
    // A moment for what the vault has read and not judged yet.
    sleep(ASK.0).await;
}

fn stopping() -> Failure {
    Failure::unavailable("stopping", "the orchestrator is stopping")
}
