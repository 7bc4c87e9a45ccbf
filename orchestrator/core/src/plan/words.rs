//! What the planner is told and what it answers.

use holdfast_types::{Digest, NodeId, ServiceRef, TaskId, Zone};

/// What a task reserves, or a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}
impl Resources {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
    pub(super) fn within(self, bound: Self) -> bool {
        self.cpu_milli <= bound.cpu_milli && self.memory_bytes <= bound.memory_bytes
    }
}

/// What may be done with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It takes tasks.
    Ready,
    /// It takes none, and those it has move away.
    Draining,
    /// It takes none, and those it has stay until they are reported ended: its leases may still run.
    Unready,
}

/// A node as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Which one.
    pub id: NodeId,
    /// What may be done with it.
    pub state: NodeState,
    /// Where it stands.
    pub zone: Zone,
    /// `key=value` texts.
    pub labels: Vec<String>,
    /// What its tasks may reserve together.
    pub capacity: Resources,
}

/// Which comes first when a task is replaced by one of a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The new one runs before the old one is stopped; up to `parallelism` tasks more than wanted.
    StartFirst,
    /// The old one has ended before the new one starts; up to `parallelism` tasks fewer than wanted.
    StopFirst,
}

/// How a new version is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// Tasks in motion at a time; 0 means all.
    pub parallelism: u32,
    /// Which comes first.
    pub order: Order,
}

/// A service as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which one.
    pub service: ServiceRef,
    /// The spec's version; placements name it. A new version resumes a halted rollout.
    pub version: u64,
    /// Digest of all that makes a running task outdated when it changes (so not the number of replicas).
    pub template: Digest,
    /// How many tasks.
    pub replicas: u32,
    /// What each reserves.
    pub resources: Resources,
    /// Zones in which it may run; none allows no node.
    pub zones: Vec<Zone>,
    /// Labels that a node must bear, all of them.
    pub labels: Vec<String>,
    /// There are never more tasks than replicas, not even while one replaces another.
    pub exclusive: bool,
    /// How a new version is rolled out.
    pub update: Update,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Placed, not yet known to be well.
    Starting,
    /// Up, healthy, and past the time for which the service's update policy watches it.
    Running,
    /// Told to stop, not yet ended.
    Stopping,
}

/// A task that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSeen {
    /// Which one.
    pub task: TaskId,
    /// Where.
    pub node: NodeId,
    /// The template that it was started from.
    pub template: Digest,
    /// What it reserves.
    pub resources: Resources,
    /// How far it is.
    pub state: TaskState,
}

/// When a task that ended may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// At once.
    Now,
    /// After [`Event::RetryDue`]: its back-off runs, or it is done for good.
    Later,
}

/// One change of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node is new or has changed.
    Node(NodeSeen),
    /// A node is gone for good, and its tasks with it. Whoever must wait for their leases first says
    /// [`NodeState::Unready`], and this when they have ended.
    NodeGone(NodeId),
    /// A service is wanted, or wanted otherwise.
    Service(Wanted),
    /// A service is no longer wanted: its tasks are stopped.
    ServiceRemoved(ServiceRef),
    /// A service is somebody else's now: its tasks take up room and are left alone, as are those of an unheard-of one.
    ServiceReleased(ServiceRef),
    /// A task is new or has changed.
    Task(TaskSeen),
    /// A task has ended, or its placement was refused.
    TaskEnded {
        /// Which one.
        task: TaskId,
        /// Where; news of an earlier incarnation elsewhere is ignored.
        node: NodeId,
        /// It ended by its own fault. In the middle of a rollout this halts it, if the task was of the new version.
        failed: bool,
        /// When its place may be filled again.
        retry: Retry,
    },
    /// A task that has done its work: its place is not filled, until [`Event::RetryDue`] or another version.
    Hold(TaskId),
    /// The place of a task that ended with [`Retry::Later`] may be filled.
    RetryDue(TaskId),
}

/// Why a task is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The service was removed.
    Removed,
    /// There are more tasks than replicas.
    ScaledDown,
    /// The task is of an older template.
    Outdated,
    /// The node is draining, or left the service's zones or labels.
    Displaced,
}
impl StopReason {
    /// The reason in a word, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::ScaledDown => "scaled-down",
            Self::Outdated => "outdated",
            Self::Displaced => "displaced",
        }
    }
}

/// What is to be done. The planner takes it as begun; what became of it is told by events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a task.
    Place {
        /// Of which service.
        service: ServiceRef,
        /// Of which version of its spec.
        version: u64,
        /// Under which id.
        task: TaskId,
        /// Where.
        node: NodeId,
    },
    /// Stop a task.
    Stop {
        /// Which one.
        task: TaskId,
        /// Where it runs.
        node: NodeId,
        /// Why.
        reason: StopReason,
    },
}

/// How a service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Tasks of the wanted template, well placed and running.
    pub running: u32,
    /// Such tasks that are not running yet.
    pub starting: u32,
    /// Tasks of another template.
    pub outdated: u32,
    /// Tasks that have to leave their node.
    pub displaced: u32,
    /// Tasks told to stop.
    pub stopping: u32,
    /// Places kept free until their retry is due.
    pub held: u32,
    /// Tasks for which no node has room.
    pub unplaced: u32,
    /// The new version failed, and its rollout waits for another version.
    pub halted: bool,
}
