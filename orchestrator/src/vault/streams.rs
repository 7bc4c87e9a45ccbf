//! What goes over one link to the vault: questions about leases and their answers, and the directory.

use crate::before::Before;
use holdfast_transport::client::Link;
use holdfast_transport::failure::Failure;
use holdfast_transport::now;
use holdfast_transport::rpc::sched_plane_client::SchedPlaneClient;
use holdfast_wire::v1::{DirectoryEvent, KeepLeaseReply, KeepLeaseRequest, WatchDirectoryRequest};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// For an answer about leases or grants.
pub(super) const ANSWER: Duration = Duration::from_secs(15);
/// Between two questions while no lease is held.
const WITHOUT_LEASE: Duration = Duration::from_secs(5);
/// Bounds of the time between two questions: a third of the lease, within these.
pub(super) const ASK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(20));
/// A hundred grants with a secret of 500 KiB each, twice.
const MAX_GRANTS: usize = 128 << 20;

/// The streams of one link.
pub(super) struct Streams {
    pub(super) client: SchedPlaneClient<Channel>,
    pub(super) ask: mpsc::Sender<KeepLeaseRequest>,
    leases: Streaming<KeepLeaseReply>,
    directory: Streaming<DirectoryEvent>,
}

/// What the vault says over a link.
pub(super) enum Said {
    Leases(KeepLeaseReply),
    Event(Box<DirectoryEvent>),
}

impl Streams {
    /// Shows what was held of the era before, once in an era.
    pub(super) async fn open(link: &Link, held: &Before) -> Result<Self, Failure> {
        let before = held.to_show();
        let request = WatchDirectoryRequest { before: before.clone() };
        let mut client = SchedPlaneClient::new(link.channel.clone()).max_decoding_message_size(MAX_GRANTS);
        let (ask, questions) = mpsc::channel(4);
        let opened = timeout(ANSWER, async {
            let leases = client.keep_lease(ReceiverStream::new(questions)).await?.into_inner();
            let directory = client.watch_directory(request).await?.into_inner();
            Ok((leases, directory))
        });
        let (leases, directory) = opened.await.map_err(late)?.map_err(|status| link.explain(status))?;
        if before.is_some() {
            tracing::info!(vault = %link.addr, "the vault was shown what was held of the era before");
            held.was_shown(before.as_ref());
        }
        Ok(Self { client, ask, leases, directory })
    }
    /// The next that is said. Nothing is lost if nobody waits for it to the end.
    pub(super) async fn said(&mut self, link: &Link) -> Result<Said, Failure> {
        let said = tokio::select! {
            reply = self.leases.message() => reply.map(|reply| reply.map(Said::Leases)),
            event = self.directory.message() => event.map(|event| event.map(|event| Said::Event(Box::new(event)))),
        };
        said.map_err(|status| link.explain(status))?.ok_or_else(ended)
    }
}

/// When to ask for the leases again.
pub(super) struct LeaseClock {
    pub(super) next: Instant,
    /// When the question was put that is not answered yet.
    asked: Option<Instant>,
}

impl LeaseClock {
    pub(super) fn new() -> Self {
        Self { next: Instant::now(), asked: None }
    }
    pub(super) fn ask(
        &mut self,
        questions: &mpsc::Sender<KeepLeaseRequest>,
        request: KeepLeaseRequest,
    ) -> Result<(), Failure> {
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
    pub(super) fn heard(&mut self, reply: &KeepLeaseReply) {
        self.asked = None;
        let left = reply.leases.iter().map(|l| holdfast_types::Millis(l.until_ms).since(now())).min();
        let wait = left.map_or(WITHOUT_LEASE, |left| (left / 3).clamp(ASK.0, ASK.1));
        self.next = Instant::now() + wait;
    }
}

pub(super) fn late(_: tokio::time::error::Elapsed) -> Failure {
    Failure::unavailable("timed-out", format!("no answer within {ANSWER:?}"))
}
pub(super) fn ended() -> Failure {
    Failure::unavailable("connection-lost", "the vault ended the stream")
}
