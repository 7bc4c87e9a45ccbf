//! A running voter: the log, the machine behind it, and what is known about both.
//!
//! Must never: start over a log that does not reach back to the state, or assume that it is alone.

use super::machine::{Machine, Shared, StateMachine, Stopped};
use super::network::PeerNetwork;
use super::proposer::{ProposeError, Proposer};
use super::store::{Store, StoreError};
use super::{LogStore, Types};
use holdfast_types::VoterId;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{Fatal, InitializeError, LinearizableReadError, RaftError};
use openraft::{BasicNode, Config, RaftMetrics, ReadPolicy, ServerState, SnapshotPolicy};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Commands that a start applies again at most, or little more: an entry may hold hundreds of them.
const REPLAY: u64 = 20_000;

/// How a voter runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its id, never used before by another.
    pub id: VoterId,
    /// A snapshot is taken every so many raft entries, and the log before it purged.
    pub snapshot_every: u64,
}

impl Options {
    /// Entries kept behind a snapshot, so that a voter that lags a little needs no snapshot.
    fn keep(&self) -> u64 {
        self.snapshot_every / 10
    }

    fn config(&self) -> Result<Config, StartError> {
        let config = Config {
            cluster_name: "vault".into(),
            heartbeat_interval: 100,
            election_timeout_min: 500,
            // openraft takes this for the leader's lease too: whoever heard a leader within it votes for nobody, and stands only
            // after it and a timeout of its own. A leader that died is followed by another one after 1.25 to 1.5 s.
            election_timeout_max: 750,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep(),
            enable_pre_vote: Some(true),
            // Entries reach followers before they are on this disk: whoever led when it was killed may have sent more than it
            // has, and as the leader of the same term would give the same numbers to other entries.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        config.validate().map_err(|e| StartError::Options(e.to_string()))
    }
}

/// Why a voter does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The options contradict each other.
    #[error("raft options are not usable: {0}")]
    Options(String),
    /// This voter already belongs to a cluster.
    #[error("this voter already belongs to a cluster")]
    AlreadyFounded,
    /// The state could not be brought back from snapshot and log.
    #[error("cannot start raft: {0}")]
    Fatal(String),
}

impl From<Fatal<Types>> for StartError {
    fn from(e: Fatal<Types>) -> Self {
        Self::Fatal(e.to_string())
    }
}

/// What is known about a voter at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Leader, follower, candidate or learner.
    pub state: ServerState,
    /// Raft term.
    pub term: u64,
    /// Index of the last log entry.
    pub last_log: Option<u64>,
    /// Index of the last applied entry.
    pub applied: Option<u64>,
    /// Index of the last entry in the current snapshot.
    pub snapshot: Option<u64>,
    /// Index of the last purged entry.
    pub purged: Option<u64>,
    /// Who leads, as far as this voter knows.
    pub leader: Option<VoterId>,
    /// The fatal error that stopped it, if one did: the process should exit.
    pub fatal: Option<String>,
}

impl From<&RaftMetrics<Types>> for Status {
    fn from(m: &RaftMetrics<Types>) -> Self {
        Self {
            state: m.state,
            term: m.current_term,
            last_log: m.last_log_index,
            applied: m.last_applied.map(|l| l.index),
            snapshot: m.snapshot.map(|l| l.index),
            purged: m.purged.map(|l| l.index),
            leader: m.current_leader.map(VoterId),
            fatal: m.running_state.as_ref().err().map(ToString::to_string),
        }
    }
}

/// A running voter; clones are the same. Dropping it without [`Voter::shutdown`] is a crash, which it survives.
pub struct Voter<M: Machine> {
    pub(super) raft: openraft::Raft<Types, StateMachine<M>>,
    pub(super) network: PeerNetwork,
    /// Held while the membership changes.
    pub(super) changing: Arc<Mutex<()>>,
    /// Whether it stands for election.
    pub(super) stands: Arc<AtomicBool>,
    machine: Shared<M>,
    proposer: Proposer<M::Reply>,
    since_snapshot: Arc<AtomicU64>,
}

impl<M: Machine> Clone for Voter<M> {
    fn clone(&self) -> Self {
        Self {
            raft: self.raft.clone(),
            network: self.network.clone(),
            changing: Arc::clone(&self.changing),
            stands: Arc::clone(&self.stands),
            machine: self.machine.clone(),
            proposer: self.proposer.clone(),
            since_snapshot: Arc::clone(&self.since_snapshot),
        }
    }
}

impl<M: Machine> std::fmt::Debug for Voter<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voter").field("status", &self.status()).finish()
    }
}

impl<M: Machine> Voter<M> {
    /// Starts a voter over `store` with an empty `machine`: the snapshot is restored and the committed log replayed before this returns.
    /// The only voter of its cluster leads a moment later without waiting for an election timeout.
    pub async fn start(store: Store, machine: M, options: &Options, network: PeerNetwork) -> Result<Self, StartError> {
        let config = Arc::new(options.config()?);
        let log = LogStore::open(store.clone())?;
        let state = StateMachine::new(machine, store);
        let (shared, replies, since_snapshot) = (state.shared(), state.replies(), state.since_snapshot());
        let raft = openraft::Raft::new(options.id.0, config, network.clone(), log, state).await?;
        if raft.voter_ids().eq([options.id.0]) {
            raft.trigger().elect(false).await?;
        }
        let proposer = Proposer::start(raft.clone(), replies);
        let stands = Arc::new(AtomicBool::new(true));
        Ok(Self { raft, network, changing: Arc::default(), stands, machine: shared, proposer, since_snapshot })
    }

    /// Founds a cluster of this one voter, reachable for later peers at `address`.
    pub async fn found(&self, address: &str) -> Result<(), StartError> {
        let me = BTreeMap::from([(*self.raft.node_id(), BasicNode::new(address))]);
        self.raft.initialize(me).await.map_err(|e| match e {
            RaftError::Fatal(f) => f.into(),
            RaftError::APIError(InitializeError::NotAllowed(_)) => StartError::AlreadyFounded,
            RaftError::APIError(e) => StartError::Fatal(e.to_string()),
        })
    }

    /// Whether this voter belongs to a cluster, founded here or joined.
    pub async fn is_founded(&self) -> Result<bool, Stopped> {
        self.raft.is_initialized().await.map_err(|_| Stopped)
    }

    /// Proposes commands.
    pub fn proposer(&self) -> Proposer<M::Reply> {
        self.proposer.clone()
    }

    /// The machine, for reading what has been applied here.
    pub fn machine(&self) -> Shared<M> {
        self.machine.clone()
    }

    /// Returns once this voter is known to lead and has applied all that was committed: what is read then is current.
    pub async fn confirm_leading(&self) -> Result<(), ProposeError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(f))) => {
                Err(match (f.leader_id, f.leader_node) {
                    (Some(leader), Some(node)) => ProposeError::NotLeader { leader, address: node.addr },
                    _ => ProposeError::Unavailable,
                })
            }
            Err(RaftError::APIError(_)) => Err(ProposeError::Unavailable),
            Err(RaftError::Fatal(_)) => Err(ProposeError::Stopped),
        }
    }

    /// What is known at this moment.
    pub fn status(&self) -> Status {
        Status::from(&*self.raft.metrics().borrow_watched())
    }

    /// Waits until `wanted` holds; `Ok(None)` if it does not within `deadline`.
    pub async fn until(&self, deadline: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Option<Status>, Stopped> {
        let mut metrics = self.raft.metrics();
        let search = async {
            loop {
                let now = Status::from(&*metrics.borrow_watched());
                if wanted(&now) {
                    return Ok(Some(now));
                }
                metrics.changed().await.map_err(|_| Stopped)?;
            }
        };
        tokio::time::timeout(deadline, search).await.unwrap_or(Ok(None))
    }

    /// Takes a snapshot now, e.g. before the old disk key is dropped. It is built beside the running log: wait for `status().snapshot`.
    pub async fn snapshot(&self) -> Result<(), Stopped> {
        self.raft.trigger().snapshot().await.map_err(|_| Stopped)
    }

    /// Takes a snapshot if a start would have to apply many commands again, though the entries are few that hold them.
    pub(crate) async fn bound_replay(&self) -> Result<(), Stopped> {
        if self.since_snapshot.load(Ordering::Relaxed) < REPLAY {
            return Ok(());
        }
        self.snapshot().await
    }

    /// Drops the log up to the entry `upto`, which the snapshot must reach. It goes from the disk a moment later.
    pub(crate) async fn purge(&self, upto: u64) -> Result<(), Stopped> {
        self.raft.trigger().purge_log(upto).await.map_err(|_| Stopped)
    }

    /// Stops taking part. What was acknowledged is on disk.
    pub async fn shutdown(self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::error!(error = %e, "raft ended by a panic");
        }
    }
}
