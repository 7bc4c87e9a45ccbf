//! What goes over one link to the vault: questions about leases and their answers, and the directory.

use crate::before::Before;
use holdfast_transport::client::Link;
use holdfast_transport::failure::Failure;
use holdfast_transport::now;
use holdfast_transport::rpc::sched_plane_client::SchedPlaneClient;
use holdfast_types::Millis;
use holdfast_wire::v1::{DirectoryEvent, KeepLeaseReply, KeepLeaseRequest, LeaseState, WatchDirectoryRequest};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// For an answer about leases or grants.
pub(super) const ANSWER: Duration = Duration::from_secs(15);
/// Between two questions while no lease is held, or another's is waited for: so that it is taken over within 5 s of its end,
/// whatever the clocks say.
const WITHOUT_LEASE: Duration = Duration::from_secs(4);
/// Least time until another's lease is asked for: whoever's clock is ahead would ask all the time.
const AWAITED: Duration = Duration::from_secs(1);
/// After the end of another's lease, so that those who wait for it do not all ask at once; in milliseconds, drawn between these.
const SPREAD_MS: (u64, u64) = (50, 250);
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
        // Without entropy all wait for the same time: no more than one of them is given the lease.
        let drawn = getrandom::u32().map_or(0, |r| u64::from(r) % (SPREAD_MS.1 - SPREAD_MS.0));
        self.next = Instant::now() + wait(reply, now(), Duration::from_millis(SPREAD_MS.0 + drawn));
    }
}

/// How long until the leases are asked for again: an own one is kept up long before its end, another's is asked for `spread` after
/// it.
fn wait(reply: &KeepLeaseReply, now: Millis, spread: Duration) -> Duration {
    let first = |leases: &[LeaseState]| leases.iter().map(|l| Millis(l.until_ms).since(now)).min();
    let own = first(&reply.leases).map_or(WITHOUT_LEASE, |left| (left / 3).clamp(ASK.0, ASK.1));
    first(&reply.others).map_or(own, |left| own.min((left + spread).clamp(AWAITED, WITHOUT_LEASE)))
}

pub(super) fn late(_: tokio::time::error::Elapsed) -> Failure {
    Failure::unavailable("timed-out", format!("no answer within {ANSWER:?}"))
}
pub(super) fn ended() -> Failure {
    Failure::unavailable("connection-lost", "the vault ended the stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);
    const SPREAD: Duration = Duration::from_millis(100);

    /// When it asks again, whose own leases and those of others end in so many milliseconds.
    fn asks_in(own: &[i64], others: &[i64]) -> u128 {
        let all = |left: &[i64]| -> Vec<LeaseState> {
            left.iter().map(|ms| LeaseState { until_ms: NOW.0 + ms, ..LeaseState::default() }).collect()
        };
        let reply = KeepLeaseReply { leases: all(own), others: all(others), ..KeepLeaseReply::default() };
        wait(&reply, NOW, SPREAD).as_millis()
    }

    #[test]
    fn a_lease_of_another_is_asked_for_when_it_ends() {
        assert_eq!(asks_in(&[], &[2_500]), 2_600);
        assert_eq!(asks_in(&[60_000], &[2_500]), 2_600, "also by one that holds another namespace");
        assert_eq!(asks_in(&[60_000], &[50_000, 2_500]), 2_600, "the one that ends first");
        assert_eq!(asks_in(&[60_000], &[]), 20_000);
        assert_eq!(asks_in(&[600], &[2_500]), 200, "its own is kept up before");
    }

    #[test]
    fn whatever_the_clocks_say_a_lease_of_another_is_asked_for_every_four_seconds_and_not_all_the_time() {
        for own in [&[][..], &[60_000][..]] {
            assert_eq!(asks_in(own, &[40_000]), 4_000, "this clock is behind, or its holder may be removed");
            assert_eq!(asks_in(own, &[-30_000]), 1_000, "this clock is ahead, or nobody holds it");
        }
    }
}
