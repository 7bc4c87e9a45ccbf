//! A world of nodes and tasks, kept as plainly as can be: the planner's actions are checked against it one by one.

use crate::plan::*;
use holdfast_types::{Digest, NodeId, ServiceRef, TaskId, Zone, sha256};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) node: NodeId,
    pub(super) template: Digest,
    pub(super) resources: Resources,
    pub(super) state: TaskState,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) planner: Planner,
    pub(super) nodes: BTreeMap<NodeId, NodeSeen>,
    pub(super) wanted: BTreeMap<ServiceRef, Wanted>,
    pub(super) tasks: BTreeMap<TaskId, Running>,
    pub(super) held: BTreeSet<TaskId>,
    /// Everything that was planned, for comparing two runs.
    pub(super) history: Vec<Action>,
}

pub(super) fn service(n: usize) -> ServiceRef {
    ServiceRef::of("shop", &format!("s{n}")).unwrap()
}
pub(super) fn task(service_no: usize, slot: u32) -> TaskId {
    TaskId::new(&service(service_no), slot)
}
pub(super) fn node_id(n: usize) -> NodeId {
    NodeId::parse(&format!("node-{n}")).unwrap()
}
pub(super) fn cpu(n: u64) -> Resources {
    Resources { cpu_milli: n, memory_bytes: n }
}
pub(super) fn node(n: usize, zone: &str, capacity: u64) -> NodeSeen {
    NodeSeen {
        id: node_id(n),
        state: NodeState::Ready,
        zone: Zone::parse(zone).unwrap(),
        labels: vec![],
        capacity: cpu(capacity),
    }
}
pub(super) fn template(n: u8) -> Digest {
    sha256(&[&[n]])
}
/// Service `n` with one unit for each replica, anywhere, updated one at a time, the new task first.
pub(super) fn wanted(n: usize, replicas: u32) -> Wanted {
    Wanted {
        service: service(n),
        version: 1,
        template: template(1),
        replicas,
        resources: cpu(1),
        zones: vec![Zone::all()],
        labels: vec![],
        exclusive: false,
        update: Update { parallelism: 1, order: Order::StartFirst },
    }
}

/// Ready nodes with ten units each in the zones given, numbered from 0.
pub(super) fn world(zones: &[&str]) -> World {
    let mut w = World::default();
    for (n, zone) in zones.iter().enumerate() {
        w.node(node(n, zone, 10));
    }
    w
}
pub(super) fn placed(actions: &[Action]) -> Vec<(TaskId, usize)> {
    let number = |id: &NodeId| id.as_str().trim_start_matches("node-").parse().unwrap();
    actions
        .iter()
        .filter_map(|a| match a {
            Action::Place { task, node, .. } => Some((task.clone(), number(node))),
            Action::Stop { .. } => None,
        })
        .collect()
}
pub(super) fn stopped(actions: &[Action]) -> Vec<(TaskId, StopReason)> {
    actions
        .iter()
        .filter_map(|a| match a {
            Action::Stop { task, reason, .. } => Some((task.clone(), *reason)),
            Action::Place { .. } => None,
        })
        .collect()
}
pub(super) fn slots(w: &World, s: usize) -> Vec<u32> {
    let mut slots: Vec<u32> = w.of(&service(s)).iter().map(|(id, _)| id.slot()).collect();
    slots.sort_unstable();
    slots
}
pub(super) fn update(order: Order, parallelism: u32) -> Update {
    Update { parallelism, order }
}
pub(super) fn version_2(s: usize, replicas: u32) -> Wanted {
    Wanted { version: 2, template: template(2), ..wanted(s, replicas) }
}

/// How many tasks the update policy lets a service have more or fewer than replicas.
fn parallelism(w: &Wanted) -> usize {
    if w.update.parallelism == 0 { w.replicas.max(1) as usize } else { w.update.parallelism as usize }
}

impl World {
    pub(super) fn node(&mut self, seen: NodeSeen) {
        self.nodes.insert(seen.id.clone(), seen.clone());
        self.planner.apply(Event::Node(seen));
    }
    pub(super) fn node_state(&mut self, n: usize, state: NodeState) {
        let seen = NodeSeen { state, ..self.nodes[&node_id(n)].clone() };
        self.node(seen);
    }
    pub(super) fn node_gone(&mut self, id: &NodeId) {
        self.nodes.remove(id);
        self.tasks.retain(|_, t| t.node != *id);
        self.planner.apply(Event::NodeGone(id.clone()));
    }
    pub(super) fn want(&mut self, w: Wanted) {
        self.wanted.insert(w.service.clone(), w.clone());
        self.planner.apply(Event::Service(w));
    }
    pub(super) fn leave(&mut self, name: &ServiceRef, event: fn(ServiceRef) -> Event) {
        self.wanted.remove(name);
        self.planner.apply(event(name.clone()));
    }
    pub(super) fn running(&mut self, id: &TaskId) {
        self.tasks.get_mut(id).unwrap().state = TaskState::Running;
        self.report(id);
    }
    pub(super) fn report(&mut self, id: &TaskId) {
        let t = self.tasks[id].clone();
        let (node, template) = (t.node, t.template);
        let seen = TaskSeen { task: id.clone(), node, template, resources: t.resources, state: t.state };
        self.planner.apply(Event::Task(seen));
    }
    pub(super) fn end(&mut self, id: &TaskId, failed: bool, retry: Retry) {
        let t = self.tasks.remove(id).unwrap();
        if retry == Retry::Later {
            self.held.insert(id.clone());
        }
        self.planner.apply(Event::TaskEnded { task: id.clone(), node: t.node, failed, retry });
    }
    pub(super) fn hold(&mut self, id: TaskId) {
        self.held.insert(id.clone());
        self.planner.apply(Event::Hold(id));
    }
    pub(super) fn retry_due(&mut self, id: &TaskId) {
        self.held.remove(id);
        self.planner.apply(Event::RetryDue(id.clone()));
    }

    /// Plans, checks each action and carries it out as begun.
    pub(super) fn plan(&mut self) -> Vec<Action> {
        let actions = self.planner.plan();
        for action in &actions {
            match action {
                Action::Place { service, version, task, node } => self.place(service, *version, task, node),
                Action::Stop { task, node, reason } => self.stop(task, node, *reason),
            }
        }
        self.history.extend(actions.iter().cloned());
        actions
    }

    /// Everything begun succeeds, every retry falls due, and so on until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..500 {
            for id in std::mem::take(&mut self.held) {
                self.planner.apply(Event::RetryDue(id));
            }
            let planned = self.plan();
            let moving: Vec<(TaskId, TaskState)> = self
                .tasks
                .iter()
                .map(|(id, t)| (id.clone(), t.state))
                .filter(|(_, s)| *s != TaskState::Running)
                .collect();
            if planned.is_empty() && moving.is_empty() {
                return;
            }
            for (id, state) in moving {
                match state {
                    TaskState::Stopping => self.end(&id, false, Retry::Now),
                    TaskState::Starting | TaskState::Running => self.running(&id),
                }
            }
        }
        panic!("no fixed point: {:?}", self.tasks);
    }

    pub(super) fn of(&self, name: &ServiceRef) -> Vec<(&TaskId, &Running)> {
        self.tasks.iter().filter(|(id, _)| id.service().unwrap() == *name).collect()
    }
    pub(super) fn used(&self, node: &NodeId) -> u64 {
        self.tasks.values().filter(|t| t.node == *node).map(|t| t.resources.cpu_milli).sum()
    }
    /// Whether zone and labels of the node are those that the service asks for.
    pub(super) fn suits(&self, w: &Wanted, id: &NodeId) -> bool {
        let Some(n) = self.nodes.get(id) else { return false };
        w.zones.iter().any(|z| n.zone.within(z)) && w.labels.iter().all(|l| n.labels.contains(l))
    }
    /// Whether a task of the service may stay on the node; nobody says otherwise of a node that is not known.
    pub(super) fn may_stay(&self, w: &Wanted, id: &NodeId) -> bool {
        let state = self.nodes.get(id).map(|n| n.state);
        state.is_none() || state != Some(NodeState::Draining) && self.suits(w, id)
    }
    pub(super) fn has_place(&self, w: &Wanted) -> bool {
        self.nodes.values().any(|n| {
            let room = self.used(&n.id) + w.resources.cpu_milli <= n.capacity.cpu_milli;
            n.state == NodeState::Ready && self.suits(w, &n.id) && room
        })
    }

    fn place(&mut self, name: &ServiceRef, version: u64, id: &TaskId, on: &NodeId) {
        let w = self.wanted.get(name).expect("placed for a service that is wanted").clone();
        assert_eq!((w.version, &id.service().unwrap()), (version, name));
        let n = self.nodes.get(on).expect("placed on a node that exists");
        assert_eq!(n.state, NodeState::Ready, "placed on a node that is not ready");
        assert!(self.suits(&w, on), "placed out of zone or labels");
        let began =
            Running { node: on.clone(), template: w.template, resources: w.resources, state: TaskState::Starting };
        assert!(self.tasks.insert(id.clone(), began).is_none(), "{id} exists");
        assert!(self.used(on) <= n.capacity.cpu_milli, "placed without room");
        let surge = if w.exclusive { 0 } else { parallelism(&w) };
        assert!(self.of(name).len() <= w.replicas as usize + surge, "more tasks than replicas and surge");
        assert!(id.slot() as usize <= w.replicas as usize + surge, "a number that no grant may have");
        let old_one_ends = |t: &Running| t.state == TaskState::Stopping && t.template != w.template;
        let stop_first = w.update.order == Order::StopFirst && self.of(name).iter().any(|(_, t)| old_one_ends(t));
        assert!(!stop_first || self.of(name).len() <= w.replicas as usize, "started before the old one had ended");
    }

    fn stop(&mut self, id: &TaskId, on: &NodeId, reason: StopReason) {
        let t = self.tasks.get_mut(id).expect("stopped a task that exists");
        assert_eq!((&t.node, t.state == TaskState::Stopping), (on, false), "stopped once, where it is");
        t.state = TaskState::Stopping;
        let name = id.service().unwrap();
        match self.wanted.get(&name) {
            None => assert_eq!(reason, StopReason::Removed),
            Some(w) if reason == StopReason::Outdated => {
                let first = w.update.order == Order::StartFirst && !w.exclusive;
                // A new task stands in for an old one as soon as it runs; before that, only the old one counts.
                let counts = |t: &Running| {
                    !first || t.state == TaskState::Running || t.template != w.template || !self.may_stay(w, &t.node)
                };
                let left = self.of(&name).iter().filter(|(_, t)| t.state != TaskState::Stopping && counts(t)).count();
                let fewer = if first { 0 } else { parallelism(w) };
                assert!(left + fewer >= w.replicas as usize, "an update stopped too many at a time");
            }
            Some(_) => assert_ne!(reason, StopReason::Removed),
        }
    }
}
