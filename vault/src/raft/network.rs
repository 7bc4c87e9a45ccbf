//! How raft reaches the other voters: openraft's calls as bytes over a [`Wire`], each within its deadline.
//!
//! Must never: pretend that a peer answered. A voter that is not connected is unreachable, for votes and pre-votes too.

use super::machine::TakenSnapshot;
use super::message::{self, PeerRpc};
use super::snapshot::Carried;
use super::{Types, Vote};
use futures::future::BoxFuture;
use holdfast_types::VoterId;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// How long a follower has for writing entries to its disk: of such a call openraft bounds nothing itself.
const WRITING: Duration = Duration::from_secs(2);
/// Longest transfer and installation of a snapshot.
const INSTALLING: Duration = Duration::from_secs(600);

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WireError(pub String);

/// A snapshot on its way.
#[derive(Debug, Clone)]
pub struct SentSnapshot {
    /// The leader's vote.
    pub vote: Vec<u8>,
    /// How far it reaches, and the membership.
    pub meta: Vec<u8>,
    /// The state.
    pub data: Vec<u8>,
}

/// Carries messages to other voters, as the voter that it belongs to. Calls that are dropped are given up.
pub trait Wire: Send + Sync + 'static {
    /// One message to voter `to` at `addr`; its answer.
    fn call<'a>(
        &'a self,
        to: VoterId,
        addr: &'a str,
        rpc: PeerRpc,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<Vec<u8>, WireError>>;

    /// A whole snapshot; the answer says that it has been installed.
    fn snapshot<'a>(
        &'a self,
        to: VoterId,
        addr: &'a str,
        snapshot: SentSnapshot,
    ) -> BoxFuture<'a, Result<Vec<u8>, WireError>>;

    /// Told when voter `to` has granted us its vote in `term`.
    fn granted(&self, to: VoterId, term: u64);
}

/// Where the others are, as the membership says and as it was changed since.
type Addrs = Arc<RwLock<BTreeMap<u64, String>>>;

/// Makes a [`PeerClient`] for each other voter.
#[derive(Clone)]
pub struct PeerNetwork {
    wire: Option<Arc<dyn Wire>>,
    addrs: Addrs,
}

impl PeerNetwork {
    /// Over `wire`.
    pub fn new(wire: Arc<dyn Wire>) -> Self {
        Self { wire: Some(wire), addrs: Addrs::default() }
    }
    /// No way to anybody: for founding, and for tests.
    pub fn alone() -> Self {
        Self { wire: None, addrs: Addrs::default() }
    }
    /// Reaches voter `id` at `addr` from now on.
    pub(super) fn moved(&self, id: u64, addr: &str) {
        self.addrs.write().unwrap_or_else(PoisonError::into_inner).insert(id, addr.to_owned());
    }
}

impl std::fmt::Debug for PeerNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerNetwork")
    }
}

/// The way to one other voter.
#[derive(Debug)]
pub struct PeerClient {
    target: u64,
    network: PeerNetwork,
}

type RpcResult<T> = Result<T, RPCError<Types>>;

impl PeerClient {
    fn unreachable(&self, why: &str) -> Unreachable<Types> {
        Unreachable::from_string(format!("voter {}: {why}", self.target))
    }

    fn timeout(&self, me: u64, action: RPCTypes, timeout: Duration) -> Timeout<Types> {
        Timeout { action, id: me, target: self.target, timeout }
    }

    fn way(&self) -> Result<(Arc<dyn Wire>, String), Unreachable<Types>> {
        let addrs = self.network.addrs.read().unwrap_or_else(PoisonError::into_inner);
        let addr = addrs.get(&self.target).filter(|a| !a.is_empty()).cloned();
        let way = self.network.wire.clone().zip(addr);
        way.ok_or_else(|| self.unreachable("is not connected"))
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        me: u64,
        rpc: PeerRpc,
        question: &Q,
        patience: Duration,
    ) -> RpcResult<A> {
        let (wire, addr) = self.way()?;
        let body = message::encode(question)
            .ok_or_else(|| NetworkError::<Types>::from_string("a message cannot be encoded"))?;
        if body.len() > message::MAX_MESSAGE {
            return Err(
                NetworkError::<Types>::from_string(format!("a message of {} bytes is too long", body.len())).into()
            );
        }
        let answer = tokio::time::timeout(patience, wire.call(VoterId(self.target), &addr, rpc, body)).await;
        let answer = answer.map_err(|_| self.timeout(me, rpc.kind(), patience))?;
        let answer = answer.map_err(|e| self.unreachable(&e.0))?;
        message::decode(&answer).ok_or_else(|| self.unreachable("its answer cannot be read").into())
    }
}

impl RaftNetworkFactory<Types> for PeerNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> PeerClient {
        self.moved(target, &node.addr);
        PeerClient { target, network: self.clone() }
    }
}

impl RaftNetworkV2<Types> for PeerClient {
    type SnapshotData = Carried;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<Types>> {
        let patience = if rpc.entries.is_empty() { option.soft_ttl() } else { WRITING.max(option.soft_ttl()) };
        self.ask(rpc.vote.leader_id.voted_for, PeerRpc::Append, &rpc, patience).await
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> RpcResult<VoteResponse<Types>> {
        let me = rpc.vote.leader_id;
        let answer: VoteResponse<Types> = self.ask(me.voted_for, PeerRpc::Vote, &rpc, option.soft_ttl()).await?;
        if answer.vote_granted && answer.vote == rpc.vote {
            let (wire, _) = self.way()?;
            wire.granted(VoterId(self.target), me.term);
        }
        Ok(answer)
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> RpcResult<VoteResponse<Types>> {
        self.ask(rpc.vote.leader_id.voted_for, PeerRpc::PreVote, &rpc, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: TakenSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let (wire, addr) = self.way()?;
        let read = tokio::task::spawn_blocking(move || snapshot.snapshot.read()).await;
        let unread =
            |why: &dyn Display| NetworkError::<Types>::from_string(format!("the snapshot cannot be read: {why}"));
        let (own, data) = read.map_err(|e| unread(&e))?.map_err(|e| unread(&e))?;
        // Another one may have taken its place: what is sent says of itself how far it reaches.
        let meta = own.unwrap_or(snapshot.meta);
        if !message::may_have(&vote, &meta) {
            return Err(self.unreachable("another leads by now, and the snapshot has entries of its term").into());
        }
        let encoded = message::encode(&vote).zip(message::encode(&meta));
        let (head, meta) = encoded.ok_or_else(|| NetworkError::<Types>::from_string("a message cannot be encoded"))?;
        let sent = SentSnapshot { vote: head, meta, data };
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answer = tokio::time::timeout(INSTALLING, wire.snapshot(VoterId(self.target), &addr, sent)) => answer,
        };
        let late = |_| self.timeout(vote.leader_id.voted_for, RPCTypes::InstallSnapshot, INSTALLING);
        let answer = answer.map_err(late)?.map_err(|e| self.unreachable(&e.0))?;
        message::decode(&answer).ok_or_else(|| self.unreachable("its answer cannot be read").into())
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<Types>> {
        let from = req.from_leader();
        let question = (from, req.to_node_id(), req.last_log_id());
        self.ask(from.leader_id.voted_for, PeerRpc::TransferLeader, &question, option.soft_ttl()).await
    }
}
