//! How raft reaches the other voters.
//!
//! Must never: pretend that a peer answered. A voter that is not connected is unreachable, for votes and pre-votes too.

use super::{Types, Vote};
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode, RaftNetworkFactory, RaftNetworkV2, Snapshot};
use std::future::Future;

/// Makes a [`PeerClient`] for each other voter.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerNetwork;

/// The way to one other voter.
#[derive(Debug, Clone, Copy)]
pub struct PeerClient {
    target: u64,
}

impl PeerClient {
    fn unreachable(self) -> Unreachable<Types> {
        Unreachable::new(&AnyError::error(format!("voter {} is not connected", self.target)))
    }
}

impl RaftNetworkFactory<Types> for PeerNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> PeerClient {
        PeerClient { target }
    }
}

type SnapshotOf = Snapshot<openraft::alias::CommittedLeaderIdOf<Types>, u64, BasicNode, Vec<u8>>;
type RpcResult<T> = Result<T, RPCError<Types>>;

impl RaftNetworkV2<Types> for PeerClient {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<Types>> {
        Err(self.unreachable().into())
    }

    async fn vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> RpcResult<VoteResponse<Types>> {
        Err(self.unreachable().into())
    }

    async fn pre_vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> RpcResult<VoteResponse<Types>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: SnapshotOf,
        _: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(self.unreachable().into())
    }

    async fn transfer_leader(
        &mut self,
        _: TransferLeaderRequest<Types>,
        _: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<Types>> {
        Err(self.unreachable().into())
    }
}
