//! The scheduler's state: what the directory, the nodes and the leases say, and the orders that follow from it.
//!
//! Pure: no clock, no entropy, no IO; events come in with the time, [`Scheduler::take_orders`] gives what is to be done.
//! It holds no authority (the vault grants, nodes judge) and nothing that must survive it: everything is built again
//! from the directory and the nodes' greetings.
//!
//! LAW: nothing is placed or stopped in a namespace whose lease is not held
//! (`nothing_is_placed_without_a_lease`).
//! LAW: what became of a task is taken from the directory alone, so no place is filled again before the vault knows
//! that it is free (`a_stopped_task_is_replaced_once_the_vault_knows`).

mod ends;
mod grants;
mod nodes;
mod requests;
mod retries;
mod services;
mod tasks;
#[cfg(test)]
mod tests;

use grants::Grant;
use holdfast_orchestrator_core::plan::{Action, Event, Planner};
use holdfast_types::{GrantId, Millis, Namespace, NodeId, ServiceRef, TaskId};
use holdfast_wire::v1::directory_event::Event as Shown;
use holdfast_wire::v1::{Assign, DirectoryEvent, GrantRequest, LeaseState, ServiceView, Stop};
use nodes::Node;
use requests::Requests;
use retries::{Denial, Due, Timers, budget_again};
use services::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tasks::Task;

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Ask the vault for grants; the answer goes to [`Scheduler::granted`] with the same ticket.
    Request {
        /// Which request.
        ticket: u64,
        /// At most [`MAX_REQUESTS`].
        requests: Vec<GrantRequest>,
    },
    /// Give grants back to the vault, which tells their nodes.
    Release {
        /// At most [`MAX_REQUESTS`].
        grants: Vec<GrantId>,
        /// Why, for the vault's log.
        reason: &'static str,
    },
    /// Hand a grant to its node.
    Assign {
        /// Which node.
        node: NodeId,
        /// What it needs to judge and start the task.
        assign: Box<Assign>,
    },
    /// Tell a node to stop a task.
    Stop {
        /// Which node.
        node: NodeId,
        /// Which task.
        stop: Stop,
    },
    /// Ask for leases now: a namespace without one has appeared.
    KeepLease,
}

/// Most grants in one request or release.
pub const MAX_REQUESTS: usize = 100;

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a node may be away before its tasks are placed elsewhere.
    pub node_lost_after: Duration,
    /// How long a stopped task has to end by itself.
    pub stop_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    fence: u64,
    until: Millis,
}

/// What a directory stream has shown before it is complete; what is not among it is gone.
#[derive(Default)]
struct Shows {
    nodes: BTreeSet<NodeId>,
    services: BTreeSet<ServiceRef>,
    grants: BTreeSet<GrantId>,
}

/// See the file's head.
pub struct Scheduler {
    settings: Settings,
    planner: Planner,
    services: BTreeMap<ServiceRef, Service>,
    nodes: BTreeMap<NodeId, Node>,
    /// Grants of the directory.
    grants: BTreeMap<GrantId, Grant>,
    /// The current incarnation of each task.
    tasks: BTreeMap<TaskId, Task>,
    leases: BTreeMap<Namespace, Lease>,
    requests: Requests,
    /// Grants to give back with the next orders, by reason.
    releases: BTreeMap<&'static str, Vec<GrantId>>,
    /// Services that were denied on a node.
    denials: BTreeMap<(ServiceRef, NodeId), Denial>,
    /// Namespaces whose budget is used up, and until when.
    paused: BTreeMap<Namespace, Millis>,
    /// Failures in a row of each task's place.
    failures: BTreeMap<TaskId, u32>,
    timers: Timers,
    orders: Vec<Order>,
    /// `Some` while a directory stream is not complete; `None` once it is.
    shows: Option<Shows>,
}

impl Scheduler {
    /// Knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            planner: Planner::default(),
            services: BTreeMap::new(),
            nodes: BTreeMap::new(),
            grants: BTreeMap::new(),
            tasks: BTreeMap::new(),
            leases: BTreeMap::new(),
            requests: Requests::default(),
            releases: BTreeMap::new(),
            denials: BTreeMap::new(),
            paused: BTreeMap::new(),
            failures: BTreeMap::new(),
            timers: Timers::default(),
            orders: Vec::new(),
            shows: Some(Shows::default()),
        }
    }

    /// The directory is complete, so plans are made.
    pub fn is_synced(&self) -> bool {
        self.shows.is_none()
    }
    /// When [`Scheduler::wake`] wants to be called.
    pub fn next_wake(&self) -> Option<Millis> {
        self.timers.next()
    }
    /// The nodes on which tasks of `service` are, or the one task of it.
    pub fn nodes_of(&self, service: &ServiceRef, task: Option<&TaskId>) -> BTreeSet<NodeId> {
        let wanted = |(id, t): &(&TaskId, &Task)| t.service == *service && task.is_none_or(|one| one == *id);
        self.tasks.iter().filter(wanted).map(|(_, t)| t.node.clone()).collect()
    }

    /// What is to be done now. Orders count as carried out: what became of them is told by events.
    pub fn take_orders(&mut self, now: Millis) -> Vec<Order> {
        if self.is_synced() {
            self.plan(now);
            self.send_requests();
        }
        for (reason, grants) in std::mem::take(&mut self.releases) {
            let batches = grants.chunks(MAX_REQUESTS);
            self.orders.extend(batches.map(|g| Order::Release { grants: g.to_vec(), reason }));
        }
        std::mem::take(&mut self.orders)
    }

    fn plan(&mut self, now: Millis) {
        loop {
            let actions = self.planner.plan();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Place { service, version, task, node } => self.place(now, service, version, task, node),
                    Action::Stop { task, reason, .. } => self.stop(now, &task, reason),
                }
            }
        }
    }

    /// Something may have fallen due.
    pub fn wake(&mut self, now: Millis) {
        for due in self.timers.take(now) {
            match due {
                Due::Retry(task) => self.retry(now, &task),
                Due::Watched(task, grant) => self.watched(now, &task, &grant),
                Due::NodeAway(node) => self.lose_if_away(now, &node),
                Due::LetGo(task, grant) => self.ask_again(now, &task, &grant),
                Due::Leases => {
                    let ended: Vec<_> =
                        self.leases.iter().filter(|(_, l)| l.until <= now).map(|(n, _)| n.clone()).collect();
                    ended.iter().for_each(|n| self.lease_lost(n));
                }
            }
        }
    }

    // ---- leases -------------------------------------------------------------------------------------------------

    /// The leases that the vault says we hold: these and no others.
    pub fn leases(&mut self, now: Millis, held: &[LeaseState]) {
        let live = held.iter().filter(|l| l.until_ms > now.0);
        let held: BTreeMap<Namespace, Lease> = live
            .filter_map(|l| {
                Some((Namespace::parse(&l.namespace).ok()?, Lease { fence: l.fence, until: Millis(l.until_ms) }))
            })
            .collect();
        let lost: Vec<_> = self.leases.keys().filter(|n| !held.contains_key(n)).cloned().collect();
        lost.iter().for_each(|n| self.lease_lost(n));
        if let Some(first) = held.values().map(|l| l.until).min() {
            self.timers.add(first, Due::Leases);
        }
        for (namespace, lease) in held {
            let before = self.leases.insert(namespace.clone(), lease);
            if before.is_none() {
                tracing::info!(%namespace, fence = lease.fence, "lease gained");
                self.take_over(now, &namespace);
            }
        }
    }

    fn lease_lost(&mut self, namespace: &Namespace) {
        self.leases.remove(namespace);
        tracing::warn!(%namespace, "lease lost: nothing is scheduled there");
        for task in self.tasks_in(namespace) {
            self.withdraw(&task);
        }
        for name in self.services_in(namespace) {
            self.planner.apply(Event::ServiceReleased(name));
        }
    }

    /// The namespace is ours to schedule, and the directory is complete.
    fn take_over(&mut self, now: Millis, namespace: &Namespace) {
        if !self.is_synced() || !self.leases.contains_key(namespace) {
            return;
        }
        for name in self.services_in(namespace) {
            self.want(&name);
        }
        for task in self.tasks_in(namespace) {
            self.claim(now, &task);
        }
    }

    fn fence(&self, namespace: &Namespace) -> Option<u64> {
        self.leases.get(namespace).map(|l| l.fence)
    }
    fn services_in(&self, namespace: &Namespace) -> Vec<ServiceRef> {
        self.services.keys().filter(|s| s.namespace == *namespace).cloned().collect()
    }
    fn tasks_in(&self, namespace: &Namespace) -> Vec<TaskId> {
        self.tasks.iter().filter(|(_, t)| t.service.namespace == *namespace).map(|(id, _)| id.clone()).collect()
    }

    // ---- the directory ------------------------------------------------------------------------------------------

    /// The connection to the vault ended: requests under way stay unanswered, and nothing is planned until another
    /// directory is complete.
    pub fn vault_lost(&mut self, now: Millis) {
        self.shows = Some(Shows::default());
        self.abandon_requests(now);
    }

    /// The connection to the vault was replaced by another one, and nothing is unanswered: only the directory is shown anew.
    pub fn vault_moved(&mut self) {
        self.shows = Some(Shows::default());
    }

    /// One event of the directory. What cannot be read is ignored: it is not for us to repair.
    pub fn directory(&mut self, now: Millis, event: DirectoryEvent) {
        match event.event {
            Some(Shown::Node(view)) => self.node_shown(now, &view),
            Some(Shown::NodeGone(id)) => drop(NodeId::parse(&id).map(|id| self.node_gone(now, &id))),
            Some(Shown::Service(view)) => self.service_shown(&view),
            Some(Shown::ServiceGone(key)) => {
                drop(ServiceRef::of(&key.namespace, &key.service).map(|name| self.service_gone(&name)));
            }
            Some(Shown::Grant(view)) => self.grant_shown(now, &view),
            Some(Shown::GrantGone(id)) => drop(GrantId::from_slice(&id).map(|id| self.grant_gone(now, &id))),
            Some(Shown::Synced(_)) => self.complete(now),
            // For the vault of the next era, and nothing to us.
            Some(Shown::Revocations(_)) | None => {}
        }
    }

    /// The picture is whole: what it did not show is gone.
    fn complete(&mut self, now: Millis) {
        let Some(shows) = self.shows.take() else { return };
        let services: Vec<_> = self.services.keys().filter(|k| !shows.services.contains(*k)).cloned().collect();
        services.iter().for_each(|name| self.service_gone(name));
        let grants: BTreeSet<_> = self.grants.keys().copied().chain(self.granted_to_tasks()).collect();
        grants.difference(&shows.grants).for_each(|id| self.grant_gone(now, id));
        let nodes: Vec<_> = self.nodes.keys().filter(|k| !shows.nodes.contains(*k)).cloned().collect();
        nodes.iter().for_each(|id| self.node_gone(now, id));
        self.count_absence_from(now);
        self.forget_releases();
        let namespaces: Vec<_> = self.leases.keys().cloned().collect();
        namespaces.iter().for_each(|n| self.take_over(now, n));
        let (nodes, services, grants) = (self.nodes.len(), self.services.len(), self.grants.len());
        tracing::info!(nodes, services, grants, "the directory is complete");
    }

    fn service_shown(&mut self, view: &ServiceView) {
        let Ok(name) = ServiceRef::of(&view.namespace, &view.service) else { return };
        if view.removing {
            return self.service_gone(&name);
        }
        if let Some(shows) = &mut self.shows {
            shows.services.insert(name.clone());
        }
        if self.services_in(&name.namespace).is_empty() && !self.leases.contains_key(&name.namespace) {
            self.orders.push(Order::KeepLease);
        }
        self.services.entry(name.clone()).or_default().update(view);
        if self.is_synced() {
            self.want(&name);
        }
    }

    /// Tells the planner what is wanted, if it is ours to want.
    fn want(&mut self, name: &ServiceRef) {
        if !self.leases.contains_key(&name.namespace) {
            return;
        }
        if let Some(wanted) = self.services.get(name).and_then(|s| s.wanted(name)) {
            self.planner.apply(Event::Service(wanted));
            // A new version lets go of all places that were held.
            self.hold_what_is_done(name);
        }
    }

    fn service_gone(&mut self, name: &ServiceRef) {
        self.services.remove(name);
        self.denials.retain(|(service, _), _| service != name);
        let event =
            if self.leases.contains_key(&name.namespace) { Event::ServiceRemoved } else { Event::ServiceReleased };
        self.planner.apply(event(name.clone()));
    }

    fn pause(&mut self, now: Millis, namespace: &Namespace, reason: &str) -> Millis {
        let until = budget_again(now);
        if self.paused.insert(namespace.clone(), until).is_none_or(|before| before <= now) {
            tracing::warn!(%namespace, reason, "budget used up: the namespace waits for a minute");
        }
        until
    }
}
