//! Messages among voters: openraft's own, in postcard, and what is asked of them before raft sees them.
//!
//! Must never: take bytes that are left over, or a message whose sender is another than the one that TLS proved.

use super::machine::Machine;
use super::snapshot::Carried;
use super::voter::Voter;
use super::{LogId, SnapshotMeta, Types, Vote};
use futures::future::BoxFuture;
use holdfast_types::VoterId;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{RPCTypes, Snapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::sync::Arc;

/// Longest message among voters. An append is the largest: 2 MiB of entries, or one entry that is larger.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Largest snapshot that is taken from another voter, and so the memory that taking one needs.
pub const MAX_SNAPSHOT: u64 = 512 << 20;

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRpc {
    /// Entries, or a heartbeat.
    Append,
    /// A vote.
    Vote,
    /// Whether a vote would be granted.
    PreVote,
    /// To lead in the sender's place.
    TransferLeader,
}

impl PeerRpc {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Append, Self::Vote, Self::PreVote, Self::TransferLeader];

    pub(super) fn kind(self) -> RPCTypes {
        match self {
            Self::Append => RPCTypes::AppendEntries,
            Self::Vote | Self::PreVote => RPCTypes::Vote,
            Self::TransferLeader => RPCTypes::TransferLeader,
        }
    }
}

/// Why a message has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// It is no such message, or another voter's.
    #[error("{0}")]
    Refused(String),
    /// A voter spoke as another one.
    #[error("{0}")]
    Impostor(String),
    /// This voter cannot answer now, or has stopped.
    #[error("{0}")]
    Unavailable(String),
}

/// Where messages of other voters go.
pub trait Receiver: Send + Sync {
    /// The answer to a message of voter `from`.
    fn receive<'a>(
        &'a self,
        rpc: PeerRpc,
        from: VoterId,
        body: &'a [u8],
    ) -> BoxFuture<'a, Result<Vec<u8>, ReceiveError>>;

    /// Installs a snapshot of leader `from`.
    fn receive_snapshot<'a>(
        &'a self,
        from: VoterId,
        vote: &'a [u8],
        meta: &'a [u8],
        data: Vec<u8>,
    ) -> BoxFuture<'a, Result<Vec<u8>, ReceiveError>>;
}

pub(super) fn encode<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    postcard::to_stdvec(message).ok()
}

/// A message from its bytes, all of them.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    if body.len() > MAX_MESSAGE {
        return None;
    }
    postcard::take_from_bytes(body).ok().and_then(|(message, rest)| rest.is_empty().then_some(message))
}

/// A request to lead: whose place, who is asked, and how far its log must reach.
type Transfer = (Vote, u64, Option<LogId>);

fn question<T: DeserializeOwned>(body: &[u8]) -> Result<T, ReceiveError> {
    decode(body).ok_or_else(|| ReceiveError::Refused("this is no message that a voter sends".into()))
}

fn answer<T: Serialize>(message: &T) -> Result<Vec<u8>, ReceiveError> {
    encode(message).ok_or_else(|| ReceiveError::Unavailable("an answer could not be encoded".into()))
}

fn stopped(e: impl Display) -> ReceiveError {
    ReceiveError::Unavailable(format!("this voter has stopped: {e}"))
}

/// A voter speaks for itself: candidates of their candidacy, leaders of their lead.
fn speaks_for_itself(vote: &Vote, from: VoterId) -> Result<(), ReceiveError> {
    let named = vote.leader_id.voted_for;
    if named == from.0 {
        return Ok(());
    }
    tracing::error!(from = from.0, named, "a voter spoke as another; its message was refused");
    Err(ReceiveError::Impostor(format!("voter {from} may not speak as voter {named}")))
}

/// Whether a leader of this vote can have such a snapshot: none reaches beyond its own term. openraft ends itself over another.
pub(super) fn may_have(vote: &Vote, meta: &SnapshotMeta) -> bool {
    meta.last_log_id.as_ref().is_none_or(|last| last.leader_id.term <= vote.leader_id.term)
}

impl<M: Machine> Voter<M> {
    /// Answers a message of voter `from`, as TLS proved it.
    pub async fn receive(&self, rpc: PeerRpc, from: VoterId, body: &[u8]) -> Result<Vec<u8>, ReceiveError> {
        match rpc {
            PeerRpc::Append => {
                let q: AppendEntriesRequest<Types> = question(body)?;
                speaks_for_itself(&q.vote, from)?;
                answer(&self.raft.append_entries(q).await.map_err(stopped)?)
            }
            PeerRpc::Vote => {
                let q: VoteRequest<Types> = question(body)?;
                speaks_for_itself(&q.vote, from)?;
                answer(&self.raft.vote(q).await.map_err(stopped)?)
            }
            PeerRpc::PreVote => {
                let q: VoteRequest<Types> = question(body)?;
                speaks_for_itself(&q.vote, from)?;
                answer(&self.raft.pre_vote(q).await.map_err(stopped)?)
            }
            PeerRpc::TransferLeader => {
                let (vote, to, last): Transfer = question(body)?;
                speaks_for_itself(&vote, from)?;
                let q = TransferLeaderRequest::new(vote, to, last);
                answer(&self.raft.handle_transfer_leader(q).await.map_err(stopped)?)
            }
        }
    }

    /// Installs a snapshot of leader `from`, as TLS proved it.
    pub async fn receive_snapshot(
        &self,
        from: VoterId,
        vote: &[u8],
        meta: &[u8],
        data: Vec<u8>,
    ) -> Result<Vec<u8>, ReceiveError> {
        let vote: Vote = question(vote)?;
        let meta: SnapshotMeta = question(meta)?;
        speaks_for_itself(&vote, from)?;
        if !may_have(&vote, &meta) {
            return Err(ReceiveError::Refused("the snapshot reaches beyond the term of its leader".into()));
        }
        let snapshot = Snapshot { meta, snapshot: Carried::sent(data) };
        answer(&self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?)
    }

    /// Where messages of other voters go.
    pub fn receiver(&self) -> Arc<dyn Receiver> {
        Arc::new(self.clone())
    }
}

impl<M: Machine> Receiver for Voter<M> {
    fn receive<'a>(
        &'a self,
        rpc: PeerRpc,
        from: VoterId,
        body: &'a [u8],
    ) -> BoxFuture<'a, Result<Vec<u8>, ReceiveError>> {
        Box::pin(Voter::receive(self, rpc, from, body))
    }

    fn receive_snapshot<'a>(
        &'a self,
        from: VoterId,
        vote: &'a [u8],
        meta: &'a [u8],
        data: Vec<u8>,
    ) -> BoxFuture<'a, Result<Vec<u8>, ReceiveError>> {
        Box::pin(Voter::receive_snapshot(self, from, vote, meta, data))
    }
}

/// What messages look like, one of each kind with its answer: where a fuzzer starts.
pub fn samples() -> Vec<Vec<u8>> {
    let vote = Vote::new(3, 1);
    let last = Some(super::codec::log_id(3, 7));
    let batch = super::Batch::pack([b"one".as_slice(), b"two"]).map(super::Payload::Normal);
    let entry = super::Entry { log_id: super::codec::log_id(3, 8), payload: batch.unwrap_or(super::Payload::Blank) };
    let append = AppendEntriesRequest::<Types> { vote, prev_log_id: last, entries: vec![entry], leader_commit: last };
    let asked = VoteRequest::<Types>::new(vote, last);
    let moved: Transfer = (vote, 2, last);
    let meta = SnapshotMeta { last_log_id: last, last_membership: super::StoredMembership::default() };
    [encode(&append), encode(&asked), encode(&moved), encode(&vote), encode(&meta)].into_iter().flatten().collect()
}

/// `body` read as each kind of message and answer, and written again. For the fuzzer's law.
pub fn read_again(body: &[u8]) -> [Option<Vec<u8>>; 9] {
    fn again<T: Serialize + DeserializeOwned>(body: &[u8]) -> Option<Vec<u8>> {
        decode::<T>(body).and_then(|message| encode(&message))
    }
    [
        again::<AppendEntriesRequest<Types>>(body),
        again::<AppendEntriesResponse<Types>>(body),
        again::<VoteRequest<Types>>(body),
        again::<VoteResponse<Types>>(body),
        again::<Transfer>(body),
        again::<TransferLeaderResponse<Types>>(body),
        again::<Vote>(body),
        again::<SnapshotMeta>(body),
        again::<SnapshotResponse<Types>>(body),
    ]
}
