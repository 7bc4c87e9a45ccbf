//! The planner: from what is wanted and what is seen to what is to be done.
//!
//! Pure and incremental: [`Planner::apply`] takes changes, [`Planner::plan`] looks at what they touched and at nothing
//! else. It holds no clock and no authority: back-off is the caller's, and every placement is still the vault's to grant.
//! The same events in the same order give the same actions.

mod arena;
mod balance;
mod candidates;
mod nodes;
mod service;
mod spread;
#[cfg(test)]
mod tests;
mod words;

pub use words::{
    Action, Event, NodeSeen, NodeState, Order, Progress, Resources, Retry, StopReason, TaskSeen, TaskState, Update,
    Wanted,
};

use arena::{Arena, Ix};
use balance::Balance;
use candidates::Candidates;
use holdfast_types::{NodeId, ServiceRef, TaskId};
use nodes::{NodeIx, Nodes};
use service::{Cut, Goal, Service, Task};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

type ServiceIx = Ix<Service>;

/// What is wanted and seen, indexed for the next step.
#[derive(Default)]
pub struct Planner {
    nodes: Nodes,
    services: Arena<Service>,
    by_name: HashMap<ServiceRef, ServiceIx>,
    /// Services that something happened to since the last plan.
    dirty: BTreeSet<ServiceIx>,
    /// Services with tasks that no node has room for.
    waiting: BTreeSet<ServiceIx>,
}

impl Planner {
    /// Takes one change. Cost: logarithmic, times the tasks of the node or service if that is what changed.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Node(seen) => self.node_seen(seen),
            Event::NodeGone(id) => self.node_gone(&id),
            Event::Service(wanted) => self.service_wanted(wanted),
            Event::ServiceRemoved(name) => self.service_left(&name, Goal::Remove),
            Event::ServiceReleased(name) => self.service_left(&name, Goal::Foreign),
            Event::Task(seen) => self.task_seen(&seen),
            Event::TaskEnded { task, node, failed, retry } => self.task_ended(&task, &node, failed, retry),
            Event::Hold(task) => self.hold(&task),
            Event::RetryDue(task) => self.retry_due(&task),
        }
    }

    /// What is to be done now. Actions count as begun: the next call gives only what follows from further events.
    pub fn plan(&mut self) -> Vec<Action> {
        let freed = self.nodes.take_freed();
        let mut due = std::mem::take(&mut self.dirty);
        if !freed.is_empty() {
            due.extend(&self.waiting);
        }
        let mut actions = Vec::new();
        for service in due {
            self.step(service, &freed, &mut actions);
        }
        actions
    }

    /// How a service is doing; `None` if it is not known.
    pub fn progress(&self, service: &ServiceRef) -> Option<Progress> {
        self.by_name.get(service).map(|ix| self.services[*ix].progress())
    }

    /// The services that have a task for which no node has room.
    pub fn waiting(&self) -> impl Iterator<Item = &ServiceRef> {
        self.waiting.iter().map(|ix| &self.services[*ix].name)
    }

    // ---- changes ------------------------------------------------------------------------------------------------

    fn node_seen(&mut self, seen: NodeSeen) {
        let node = self.nodes.find_or_add(&seen.id);
        self.nodes.describe(node, seen);
        let zone = self.nodes[node].zone;
        for (service, slot) in &self.nodes[node].tasks {
            self.services[*service].regroup(*slot, &self.nodes, |task| task.zone = zone);
            self.dirty.insert(*service);
        }
    }

    fn node_gone(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.find(id) else { return };
        for (service, slot) in self.nodes[node].tasks.clone() {
            self.drop_task(service, slot);
            self.dirty.insert(service);
        }
        // Dropping the last task of a node that nobody described has removed it already.
        if let Some(node) = self.nodes.find(id) {
            self.nodes.remove(node);
        }
    }

    fn service_wanted(&mut self, wanted: Wanted) {
        let ix = self.find_or_add_service(&wanted.service);
        let service = &mut self.services[ix];
        let (same_version, same_place) = match &service.goal {
            Goal::Run(old) if **old == wanted => return,
            Goal::Run(old) => (
                old.version == wanted.version,
                (old.template, &old.zones, &old.labels) == (wanted.template, &wanted.zones, &wanted.labels),
            ),
            Goal::Foreign | Goal::Remove => (false, false),
        };
        service.goal = Goal::Run(Arc::new(wanted));
        service.unplaced = 0;
        if !same_version {
            service.halted = false;
            service.unhold_all();
        }
        if !same_place {
            self.regroup_all(ix);
        }
        self.dirty.insert(ix);
    }

    fn service_left(&mut self, name: &ServiceRef, goal: Goal) {
        let Some(ix) = self.by_name.get(name).copied() else { return };
        let service = &mut self.services[ix];
        service.goal = goal;
        service.unplaced = 0;
        service.halted = false;
        service.unhold_all();
        self.waiting.remove(&ix);
        self.regroup_all(ix);
        self.dirty.insert(ix);
    }

    fn task_seen(&mut self, seen: &TaskSeen) {
        let Ok(name) = seen.task.service() else { return };
        let (ix, slot) = (self.find_or_add_service(&name), seen.task.slot());
        let node = self.nodes.find_or_add(&seen.node);
        let service = &mut self.services[ix];
        self.dirty.insert(ix);
        match service.task(slot) {
            Some(known) if known.node == node && known.resources == seen.resources => {
                // A task told to stop stays told: the report may be older than the order.
                let state = if known.state == TaskState::Stopping { TaskState::Stopping } else { seen.state };
                service.regroup(slot, &self.nodes, |task| {
                    task.state = state;
                    task.template = seen.template;
                });
            }
            Some(_) | None => {
                self.drop_task(ix, slot);
                // The node may have been known by that task alone.
                let node = self.nodes.find_or_add(&seen.node);
                self.add_task(ix, slot, node, seen.template, seen.resources, seen.state);
            }
        }
    }

    fn task_ended(&mut self, id: &TaskId, node: &NodeId, failed: bool, retry: Retry) {
        let Some((ix, slot)) = self.find_slot(id) else { return };
        let here = self.services[ix].task(slot).is_some_and(|t| self.nodes[t.node].id == *node);
        if !here {
            return;
        }
        self.dirty.insert(ix);
        let Some(task) = self.drop_task(ix, slot) else { return };
        let service = &mut self.services[ix];
        if task.state == TaskState::Stopping || !matches!(service.goal, Goal::Run(_)) {
            return;
        }
        if failed {
            service.failed(&task);
        }
        if retry == Retry::Later {
            service.hold(slot);
        }
    }

    fn hold(&mut self, id: &TaskId) {
        let Ok(name) = id.service() else { return };
        let ix = self.find_or_add_service(&name);
        if self.services[ix].task(id.slot()).is_none() {
            self.services[ix].hold(id.slot());
            self.dirty.insert(ix);
        }
    }

    fn retry_due(&mut self, id: &TaskId) {
        if let Some((ix, slot)) = self.find_slot(id)
            && self.services[ix].unhold(slot)
        {
            self.dirty.insert(ix);
        }
    }

    // ---- steps --------------------------------------------------------------------------------------------------

    fn step(&mut self, ix: ServiceIx, freed: &BTreeSet<NodeIx>, actions: &mut Vec<Action>) {
        match &self.services[ix].goal {
            Goal::Foreign => {}
            Goal::Remove => {
                for slot in self.services[ix].slots() {
                    self.stop(ix, slot, StopReason::Removed, actions);
                }
            }
            Goal::Run(wanted) => {
                let wanted = Arc::clone(wanted);
                self.cut(ix, &wanted, actions);
                self.replace_and_place(ix, &wanted, freed, actions);
            }
        }
        if self.services[ix].is_over() {
            self.by_name.remove(&self.services[ix].name);
            self.waiting.remove(&ix);
            self.services.remove(ix);
        }
    }

    fn cut(&mut self, ix: ServiceIx, wanted: &Wanted, actions: &mut Vec<Action>) {
        for _ in 0..Balance::of(&self.services[ix], wanted).surplus() {
            match self.services[ix].to_cut() {
                Some(Cut::Held(slot)) => drop(self.services[ix].unhold(slot)),
                Some(Cut::Task(slot)) => self.stop(ix, slot, StopReason::ScaledDown, actions),
                None => return,
            }
        }
    }

    fn replace_and_place(&mut self, ix: ServiceIx, w: &Wanted, freed: &BTreeSet<NodeIx>, actions: &mut Vec<Action>) {
        let stuck = self.services[ix].unplaced > 0;
        let search = |planner: &Self, count| {
            let (nodes, service) = (&planner.nodes, &planner.services[ix]);
            if stuck {
                // No node had room when all were asked, and only these may have some since.
                Candidates::among(freed.iter().copied(), nodes, service, w)
            } else {
                Candidates::everywhere(count, nodes, service, w)
            }
        };
        let (mut unplaced, mut stopped) = (0, 0);
        let balance = Balance::of(&self.services[ix], w);
        while stopped < balance.retire() {
            let Some((slot, reason)) = self.services[ix].to_retire(unplaced == 0) else { break };
            // Stopping a task that is needed, when no other node could take it, would only lose it.
            let needed = stopped >= balance.spare();
            let leaves_first = needed && reason == StopReason::Displaced && !balance.starts_first();
            if leaves_first && search(self, 1).best().is_none() {
                unplaced = 1;
                continue;
            }
            self.stop(ix, slot, reason, actions);
            stopped += 1;
        }
        let count = Balance::of(&self.services[ix], w).place();
        if count > 0 {
            let among = search(self, count);
            unplaced = count - self.place(ix, w, count, among, actions);
        }
        self.services[ix].unplaced = unplaced;
        if unplaced > 0 {
            self.waiting.insert(ix);
        } else {
            self.waiting.remove(&ix);
        }
    }

    /// Places up to `count` tasks; returns how many.
    fn place(
        &mut self,
        ix: ServiceIx,
        w: &Wanted,
        count: u32,
        mut among: Candidates,
        actions: &mut Vec<Action>,
    ) -> u32 {
        for placed in 0..count {
            let Some(node) = among.best() else { return placed };
            let slot = self.services[ix].free_slot();
            self.add_task(ix, slot, node, w.template, w.resources, TaskState::Starting);
            among.taken(&self.nodes, &self.services[ix], w);
            actions.push(Action::Place {
                service: w.service.clone(),
                version: w.version,
                task: TaskId::new(&w.service, slot),
                node: self.nodes[node].id.clone(),
            });
        }
        count
    }

    fn stop(&mut self, ix: ServiceIx, slot: u32, reason: StopReason, actions: &mut Vec<Action>) {
        let service = &mut self.services[ix];
        let Some(task) = service.task(slot).filter(|t| t.state != TaskState::Stopping) else { return };
        let node = self.nodes[task.node].id.clone();
        actions.push(Action::Stop { task: TaskId::new(&service.name, slot), node, reason });
        service.regroup(slot, &self.nodes, |task| task.state = TaskState::Stopping);
    }

    // ---- tasks and their nodes ----------------------------------------------------------------------------------

    fn add_task(
        &mut self,
        ix: ServiceIx,
        slot: u32,
        node: NodeIx,
        template: holdfast_types::Digest,
        resources: Resources,
        state: TaskState,
    ) {
        self.nodes.reserve(node, (ix, slot), resources);
        let task = Task { node, zone: self.nodes[node].zone, template, resources, state };
        self.services[ix].put(slot, task, &self.nodes);
    }

    fn drop_task(&mut self, ix: ServiceIx, slot: u32) -> Option<Task> {
        let task = self.services[ix].take(slot)?;
        self.nodes.release(task.node, (ix, slot), task.resources);
        let node = &self.nodes[task.node];
        if !node.known && node.tasks.is_empty() {
            self.nodes.remove(task.node);
        }
        Some(task)
    }

    fn regroup_all(&mut self, ix: ServiceIx) {
        for slot in self.services[ix].slots() {
            self.services[ix].regroup(slot, &self.nodes, |_| {});
        }
    }

    fn find_or_add_service(&mut self, name: &ServiceRef) -> ServiceIx {
        if let Some(ix) = self.by_name.get(name) {
            return *ix;
        }
        let ix = self.services.insert(Service::new(name.clone()));
        self.by_name.insert(name.clone(), ix);
        ix
    }

    fn find_slot(&self, task: &TaskId) -> Option<(ServiceIx, u32)> {
        Some((*self.by_name.get(&task.service().ok()?)?, task.slot()))
    }
}
