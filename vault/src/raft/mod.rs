//! The replicated log of the vault: openraft over fjall, everything on the disk sealed by the disk key.
//!
//! The one module that knows openraft and fjall; the rest of the vault sees [`Machine`], [`Voter`] and [`Proposer`].
//! Must never: acknowledge what is not on disk, write a value in clear, reuse a voter id, or set `allow_log_reversion`.

mod audit;
mod batch;
mod behind;
mod candidacy;
mod codec;
mod fill;
mod heard;
mod log;
mod machine;
mod members;
mod message;
mod network;
mod proposer;
mod replay;
mod reseal;
mod rest;
mod seed;
mod snapshot;
mod store;
mod voter;
mod writer;

pub use audit::{AuditStore, Node, Staged};
pub use batch::{Batch, MAX_COMMAND};
pub use fill::{Filled, Filling};
pub use log::LogStore;
pub use machine::{Frozen, Machine, MachineError, Shared, StateMachine, Stopped, Unwritten};
pub use members::{Members, decides};
pub use message::{MAX_MESSAGE, MAX_SNAPSHOT, PeerRpc, ReceiveError, Receiver, read_again, samples};
pub use network::{PeerClient, PeerNetwork, SentSnapshot, Wire, WireError};
pub use openraft::ServerState;
pub use proposer::{ProposeError, Proposer};
pub use replay::Kept;
pub use store::{Store, StoreError};
pub use voter::{Options, StartError, Status, Voter};

use openraft::{BasicNode, EntryPayload};

/// Raft term as the log stores it: the standard kind, one leader a term.
pub type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;

openraft::declare_raft_types!(
    /// openraft's type parameters for the vault. Replies do not go through openraft (`R = ()`): see [`Proposer`].
    pub Types:
        D = Batch,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        Term = u64,
        LeaderId = LeaderId,
);

pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type Payload = EntryPayload<Batch, u64, BasicNode>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod corruption_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod stored_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
