//! One service: its goal, its tasks, and the counts from which its next step is computed without looking at each task.

use super::nodes::{NodeIx, Nodes, ZoneIx};
use super::spread::Spread;
use super::words::{NodeState, Progress, Resources, StopReason, TaskState, Wanted};
use holdfast_types::{Digest, ServiceRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is to become of a service.
pub(super) enum Goal {
    /// Somebody else's: its tasks only take up room.
    Foreign,
    Run(Arc<Wanted>),
    Remove,
}

pub(super) struct Task {
    pub(super) node: NodeIx,
    pub(super) zone: ZoneIx,
    pub(super) template: Digest,
    pub(super) resources: Resources,
    pub(super) state: TaskState,
}

/// How a task stands to the goal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Current,
    Outdated,
    Displaced,
    Stopping,
    /// Stopping, and of an older template: until it has ended, its replacement is part of a rollout.
    Retiring,
}
impl Group {
    /// Told to stop: it takes up its place, and nothing else.
    fn is_ending(self) -> bool {
        matches!(self, Self::Stopping | Self::Retiring)
    }
}

pub(super) struct Service {
    pub(super) name: ServiceRef,
    pub(super) goal: Goal,
    pub(super) spread: Spread,
    /// The new version failed: no task of the old one is stopped for it.
    pub(super) halted: bool,
    /// Tasks for which the last search found no node; while there are any, only freed nodes are looked at.
    pub(super) unplaced: u32,
    tasks: BTreeMap<u32, (Task, Group)>,
    held: BTreeSet<u32>,
    current: BTreeSet<u32>,
    outdated: BTreeSet<u32>,
    /// Those of them that do not run.
    outdated_down: BTreeSet<u32>,
    displaced: BTreeSet<u32>,
    stopping: BTreeSet<u32>,
    retiring: BTreeSet<u32>,
    current_running: u32,
    /// All slots below it are taken.
    lowest: u32,
}

impl Service {
    pub(super) fn new(name: ServiceRef) -> Self {
        Self {
            name,
            goal: Goal::Foreign,
            spread: Spread::default(),
            halted: false,
            unplaced: 0,
            tasks: BTreeMap::new(),
            held: BTreeSet::new(),
            current: BTreeSet::new(),
            outdated: BTreeSet::new(),
            outdated_down: BTreeSet::new(),
            displaced: BTreeSet::new(),
            stopping: BTreeSet::new(),
            retiring: BTreeSet::new(),
            current_running: 0,
            lowest: 1,
        }
    }

    pub(super) fn task(&self, slot: u32) -> Option<&Task> {
        self.tasks.get(&slot).map(|(task, _)| task)
    }
    pub(super) fn slots(&self) -> Vec<u32> {
        self.tasks.keys().copied().collect()
    }
    /// Nothing is left to be known of it.
    pub(super) fn is_over(&self) -> bool {
        self.tasks.is_empty() && !matches!(self.goal, Goal::Run(_))
    }

    /// Adds or replaces the task in `slot`.
    pub(super) fn put(&mut self, slot: u32, task: Task, nodes: &Nodes) {
        self.take(slot);
        self.held.remove(&slot);
        let group = self.group_of(&task, nodes);
        if !group.is_ending() {
            self.spread.add(&task);
        }
        self.members(group).insert(slot);
        if group == Group::Outdated && task.state != TaskState::Running {
            self.outdated_down.insert(slot);
        }
        self.current_running += u32::from(group == Group::Current && task.state == TaskState::Running);
        self.tasks.insert(slot, (task, group));
    }

    /// Removes the task in `slot`.
    pub(super) fn take(&mut self, slot: u32) -> Option<Task> {
        let (task, group) = self.tasks.remove(&slot)?;
        if !group.is_ending() {
            self.spread.remove(&task);
        }
        self.members(group).remove(&slot);
        self.outdated_down.remove(&slot);
        self.current_running -= u32::from(group == Group::Current && task.state == TaskState::Running);
        self.lowest = self.lowest.min(slot);
        Some(task)
    }

    /// Changes the task in `slot`, whose node or goal may have changed too.
    pub(super) fn regroup(&mut self, slot: u32, nodes: &Nodes, change: impl FnOnce(&mut Task)) {
        if let Some(mut task) = self.take(slot) {
            change(&mut task);
            self.put(slot, task, nodes);
        }
    }

    pub(super) fn hold(&mut self, slot: u32) {
        self.held.insert(slot);
    }
    pub(super) fn unhold(&mut self, slot: u32) -> bool {
        self.lowest = self.lowest.min(slot);
        self.held.remove(&slot)
    }
    pub(super) fn unhold_all(&mut self) {
        self.held.clear();
        self.lowest = 1;
    }

    /// The lowest number that no task and no held place has.
    pub(super) fn free_slot(&mut self) -> u32 {
        while self.tasks.contains_key(&self.lowest) || self.held.contains(&self.lowest) {
            self.lowest += 1;
        }
        self.lowest
    }

    /// Its rollout is under way: a failure of the new version halts it.
    pub(super) fn failed(&mut self, task: &Task) {
        if let Goal::Run(w) = &self.goal {
            self.halted |= task.template == w.template && !self.outdated.is_empty();
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let count = |set: &BTreeSet<u32>| u32::try_from(set.len()).unwrap_or(u32::MAX);
        Progress {
            running: self.current_running,
            starting: count(&self.current) - self.current_running,
            outdated: count(&self.outdated),
            displaced: count(&self.displaced),
            stopping: count(&self.stopping) + count(&self.retiring),
            held: count(&self.held),
            unplaced: self.unplaced,
            halted: self.halted,
        }
    }

    /// Tasks of an older template that were told to stop and have not ended.
    pub(super) fn retiring(&self) -> bool {
        !self.retiring.is_empty()
    }

    /// The place to give up first among those that would otherwise stay: a held one, then the highest slot.
    pub(super) fn to_cut(&self) -> Option<Cut> {
        if let Some(slot) = self.held.last() {
            return Some(Cut::Held(*slot));
        }
        let outdated = self.outdated.last().filter(|_| self.halted);
        self.current.last().max(outdated).copied().map(Cut::Task)
    }

    /// The task to replace first: one that has to leave its node, if `may_move`, then an outdated one: what does not run
    /// before what does, the highest slot first.
    pub(super) fn to_retire(&self, may_move: bool) -> Option<(u32, StopReason)> {
        let displaced = self.displaced.last().filter(|_| may_move).map(|slot| (*slot, StopReason::Displaced));
        let outdated = self.outdated_down.last().or(self.outdated.last());
        let outdated = outdated.filter(|_| !self.halted).map(|slot| (*slot, StopReason::Outdated));
        displaced.or(outdated)
    }

    fn group_of(&self, task: &Task, nodes: &Nodes) -> Group {
        let node = &nodes[task.node];
        match &self.goal {
            Goal::Run(w) if task.state == TaskState::Stopping && task.template != w.template => Group::Retiring,
            _ if task.state == TaskState::Stopping => Group::Stopping,
            Goal::Foreign | Goal::Remove => Group::Current,
            Goal::Run(w) if node.state == NodeState::Draining || (node.known && !nodes.accepts(task.node, w)) => {
                Group::Displaced
            }
            Goal::Run(w) if task.template != w.template => Group::Outdated,
            Goal::Run(_) => Group::Current,
        }
    }

    fn members(&mut self, group: Group) -> &mut BTreeSet<u32> {
        match group {
            Group::Current => &mut self.current,
            Group::Outdated => &mut self.outdated,
            Group::Displaced => &mut self.displaced,
            Group::Stopping => &mut self.stopping,
            Group::Retiring => &mut self.retiring,
        }
    }
}

/// A place to give up.
pub(super) enum Cut {
    Held(u32),
    Task(u32),
}
