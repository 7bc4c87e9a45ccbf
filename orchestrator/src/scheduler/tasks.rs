//! Tasks: the current incarnation of each, from its place in the queue on. Their ends: `ends`.

use super::Scheduler;
use super::ends::ended;
use super::grants::{Grant, GrantState};
use super::retries::Due;
use super::services::Version;
use holdfast_orchestrator_core::plan::{Event, Resources, Retry, StopReason, TaskSeen, TaskState};
use holdfast_types::{GrantId, Millis, NodeId, ServiceRef, TaskId};
use holdfast_wire::v1::{GrantView, Stop};
use std::time::Duration;

/// How long the vault is given to let a protected task go, before it is asked again.
const LET_GO: Duration = Duration::from_secs(15);

/// Whether the node may have the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handed {
    /// We have not given it, or the node has said no.
    No,
    /// We have given it, or the node has said that it holds it.
    Yes,
    /// An earlier process, or another orchestrator, was granted it.
    Unknown,
}

/// How far an incarnation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits to be asked for.
    Queued,
    /// Asked for, with this ticket.
    Asked(u64),
    /// Granted.
    Live { grant: GrantId, task_gen: u64, handed: Handed },
}

/// The current incarnation of a task.
pub(super) struct Task {
    pub(super) service: ServiceRef,
    pub(super) version: u64,
    pub(super) node: NodeId,
    pub(super) phase: Phase,
    /// Its grant was given to this process.
    pub(super) ours: bool,
    /// It is to end; nothing restarts it for ending.
    pub(super) stop: bool,
    /// Its grant was given back.
    pub(super) released: bool,
    /// Its node refused it.
    pub(super) refused: bool,
    pub(super) running_since: Option<Millis>,
    /// Somebody will look when it has run for long enough.
    watched: bool,
    /// The vault was asked to let it go, and will be asked again.
    asked_for: bool,
}

impl Task {
    pub(super) fn queued(service: ServiceRef, version: u64, node: NodeId) -> Self {
        let phase = Phase::Queued;
        Self {
            service,
            version,
            node,
            phase,
            ours: false,
            stop: false,
            released: false,
            refused: false,
            running_since: None,
            watched: false,
            asked_for: false,
        }
    }
    fn grant(&self) -> Option<GrantId> {
        match self.phase {
            Phase::Live { grant, .. } => Some(grant),
            Phase::Queued | Phase::Asked(_) => None,
        }
    }
}

impl Scheduler {
    // ---- what the directory says ----------------------------------------------------------------------------------

    pub(super) fn grant_shown(&mut self, now: Millis, view: &GrantView) {
        let (Some(id), Some(grant)) = (GrantId::from_slice(&view.grant_id), Grant::read(view)) else { return };
        if let Some(shows) = &mut self.shows {
            shows.grants.insert(id);
        }
        self.grants.insert(id, grant);
        self.judge(now, &id);
    }

    pub(super) fn grant_gone(&mut self, now: Millis, id: &GrantId) {
        let gone = self.grants.remove(id);
        let task = gone.map(|g| g.task).or_else(|| self.task_of(id));
        if let Some(task) = task.filter(|t| self.tasks.get(t).and_then(Task::grant) == Some(*id)) {
            self.end(now, &task, None);
        }
    }
    fn task_of(&self, id: &GrantId) -> Option<TaskId> {
        self.tasks.iter().find(|(_, t)| t.grant() == Some(*id)).map(|(task, _)| task.clone())
    }
    pub(super) fn granted_to_tasks(&self) -> impl Iterator<Item = GrantId> {
        self.tasks.values().filter_map(Task::grant)
    }

    /// What a grant of the directory means for its task.
    pub(super) fn judge(&mut self, now: Millis, id: &GrantId) {
        let Some(g) = self.grants.get(id).cloned() else { return };
        match self.tasks.get(&g.task).map(|t| t.phase) {
            Some(Phase::Live { grant, .. }) if grant == *id => self.follow(now, &g),
            // Two incarnations at once: the newer one stays.
            Some(Phase::Live { grant, task_gen, .. }) if g.is_live() => {
                if task_gen > g.task_gen {
                    self.release(&g.task, *id, "another incarnation took its place");
                } else {
                    self.release(&g.task, grant, "another incarnation took its place");
                    self.adopt(now, *id, &g);
                }
            }
            // Whether it is the one that was asked for is told by the answer.
            Some(Phase::Asked(_) | Phase::Live { .. }) => {}
            Some(Phase::Queued) if g.is_live() => self.adopt(now, *id, &g),
            None if !self.is_at_its_end(id, &g) => self.adopt(now, *id, &g),
            Some(Phase::Queued) | None => {}
        }
    }

    /// A task that somebody else asked for, or this process before it was started again.
    fn adopt(&mut self, now: Millis, id: GrantId, g: &Grant) {
        let Ok(service) = g.task.service() else { return };
        self.remove_task(&g.task);
        let mut task = Task::queued(service, g.version, g.node.clone());
        task.phase = Phase::Live { grant: id, task_gen: g.task_gen, handed: Handed::Unknown };
        task.running_since = (g.task_state == "running").then_some(g.issued);
        self.insert_task(g.task.clone(), task);
        self.heard_of(&g.task);
        self.follow(now, g);
        if self.is_synced() {
            self.claim(now, &g.task);
        }
    }

    /// The current incarnation's grant has changed.
    fn follow(&mut self, now: Millis, g: &Grant) {
        let Some(task) = self.tasks.get(&g.task) else { return };
        let Some(id) = task.grant() else { return };
        if self.is_at_its_end(&id, g) {
            return self.end(now, &g.task, Some(g));
        }
        let running = g.state == GrantState::Running && g.task_state == "running";
        let monitor = self.work_of(&g.task).map(Version::monitor).unwrap_or_default();
        let Some(task) = self.tasks.get_mut(&g.task) else { return };
        // Whoever took the grant back, nothing restarts the task for ending now.
        task.stop |= g.state == GrantState::Revoked && !task.refused;
        task.running_since = running.then_some(task.running_since.unwrap_or(now));
        let well_at = task.running_since.map(|since| since.plus(monitor));
        let ahead = well_at.filter(|at| *at > now);
        if let Some(at) = ahead
            && !task.watched
        {
            self.timers.add(at, Due::Watched(g.task.clone(), id));
        }
        task.watched = ahead.is_some();
        let state = match g.state {
            GrantState::Revoked => TaskState::Stopping,
            GrantState::Running if well_at.is_some_and(|at| at <= now) => TaskState::Running,
            GrantState::Issued | GrantState::Running | GrantState::Ended | GrantState::Lapsed => TaskState::Starting,
        };
        self.tell_planner(&g.task, state);
    }

    pub(super) fn watched(&mut self, now: Millis, task: &TaskId, id: &GrantId) {
        let current = self.tasks.get(task).and_then(Task::grant) == Some(*id);
        if let Some(g) = self.grants.get(id).filter(|_| current).cloned() {
            self.follow(now, &g);
        }
    }

    /// Nothing runs under the grant any more, and nothing ever will.
    fn is_at_its_end(&self, id: &GrantId, g: &Grant) -> bool {
        if g.is_over() {
            return true;
        }
        let node = self.nodes.get(&g.node);
        let exclusive = self.work_of(&g.task).is_some_and(|v| v.spec.exclusive);
        let lost = node.is_none_or(|n| n.lost) && !exclusive;
        let task = self.tasks.get(&g.task).filter(|t| t.grant() == Some(*id));
        // Revoked before its node had it: nobody is left to report its end.
        let never_there = g.task_state.is_empty() && task.and_then(handed) == Some(Handed::No);
        g.state == GrantState::Revoked && (lost || never_there)
    }

    // ---- what is done about it ------------------------------------------------------------------------------------

    /// What was to be given back before the directory was lost may not have been: it is judged again.
    pub(super) fn forget_releases(&mut self) {
        self.tasks.values_mut().for_each(|t| t.released = false);
    }

    /// Looks whether a granted task has somebody who carries it; if not, its grant is given back.
    pub(super) fn claim(&mut self, now: Millis, task: &TaskId) {
        let Some((t, id)) = self.tasks.get(task).and_then(|t| Some((t, t.grant()?))) else { return };
        let Some(g) = self.grants.get(&id).cloned() else { return };
        let (lost, here) = self.nodes.get(&t.node).map_or((true, false), |n| (n.lost, n.session.is_some()));
        if lost && g.is_live() && g.protected {
            self.ask_to_let_go(now, task, id, "its node is lost");
        } else if lost && g.is_live() {
            self.release(task, id, "its node is lost");
        } else if here && g.state == GrantState::Issued && handed(t) == Some(Handed::No) {
            self.release(task, id, "its node never got it");
        } else {
            self.follow(now, &g);
        }
    }

    /// What the node's greeting says about a task that was granted for it.
    pub(super) fn heard_of(&mut self, task: &TaskId) {
        let Some(t) = self.tasks.get_mut(task) else { return };
        let Some(node) = self.nodes.get(&t.node).filter(|n| n.session.is_some()) else { return };
        if let Phase::Live { grant, handed, .. } = &mut t.phase {
            *handed = if node.holds(grant) { Handed::Yes } else { Handed::No };
        }
    }

    pub(super) fn refused(&mut self, now: Millis, node: &NodeId, id: &GrantId, reason: &str) {
        let Some(task) = self.grants.get(id).map(|g| g.task.clone()).or_else(|| self.task_of(id)) else { return };
        let Some(t) = self.tasks.get_mut(&task).filter(|t| t.grant() == Some(*id) && t.node == *node) else { return };
        if let Phase::Live { handed, .. } = &mut t.phase {
            *handed = Handed::No;
        }
        t.refused = true;
        let service = t.service.clone();
        self.deny(now, &service, node, reason, &[]);
        self.release(&task, *id, "its node refused it");
        self.judge(now, id);
    }

    /// Gives a grant back, once, where that is ours to do.
    pub(super) fn release(&mut self, task: &TaskId, id: GrantId, reason: &'static str) {
        let leased = task.service().is_ok_and(|s| self.leases.contains_key(&s.namespace));
        let granted_to_us = |t: &Task| t.grant() == Some(id) && t.ours;
        if !leased && !self.tasks.get(task).is_some_and(granted_to_us) {
            return;
        }
        if let Some(t) = self.tasks.get_mut(task).filter(|t| t.grant() == Some(id))
            && std::mem::replace(&mut t.released, true)
        {
            return;
        }
        self.releases.entry(reason).or_default().push(id);
    }

    /// The planner wants the task to end.
    pub(super) fn stop(&mut self, now: Millis, task: &TaskId, reason: StopReason) {
        let Some(t) = self.tasks.get_mut(task) else { return };
        tracing::info!(%task, node = %t.node, reason = reason.as_str(), "task is to stop");
        t.stop = true;
        match t.phase {
            Phase::Queued => self.withdraw(task),
            // Its grant is given back when it comes.
            Phase::Asked(_) => {}
            Phase::Live { .. } => self.send_stop(now, task),
        }
    }

    /// Sends the order to stop, if the task is to end and its node is here to take the order. Of a protected task the node
    /// takes none from us: the vault is asked to let it go, and asked again while it does not.
    pub(super) fn send_stop(&mut self, now: Millis, task: &TaskId) {
        let Some(t) = self.tasks.get(task).filter(|t| t.stop) else { return };
        if let Some(id) = self.protected_grant(task) {
            return self.ask_to_let_go(now, task, id, "its service changed");
        }
        if t.released {
            return;
        }
        let here = self.nodes.get(&t.node).is_some_and(|n| n.session.is_some());
        let revoked = t.grant().and_then(|g| self.grants.get(&g)).is_some_and(|g| g.state == GrantState::Revoked);
        let Some(fence) = self.fence(&t.service.namespace).filter(|_| here && !revoked) else { return };
        let stop = Stop {
            task_id: task.to_string(),
            namespace: t.service.namespace.to_string(),
            fence,
            revocation: None,
            timeout_ms: u32::try_from(self.settings.stop_timeout.as_millis()).unwrap_or(u32::MAX),
        };
        self.orders.push(super::Order::Stop { node: t.node.clone(), stop });
    }

    /// The grant of a task that only the vault's word ends.
    fn protected_grant(&self, task: &TaskId) -> Option<GrantId> {
        let id = self.tasks.get(task)?.grant()?;
        let shown = self.grants.get(&id).map(|g| g.protected);
        shown.unwrap_or_else(|| self.version_of(task).is_some_and(|v| v.spec.protected)).then_some(id)
    }

    /// Gives a protected task's grant back. The vault may have reasons to keep it, and does not say so: it is asked again.
    fn ask_to_let_go(&mut self, now: Millis, task: &TaskId, id: GrantId, reason: &'static str) {
        let Some(t) = self.tasks.get_mut(task).filter(|t| !t.asked_for) else { return };
        (t.asked_for, t.released) = (true, false);
        self.release(task, id, reason);
        self.timers.add(now.plus(LET_GO), Due::LetGo(task.clone(), id));
    }

    /// The vault was asked to let a protected task go: if it did not, it is asked again.
    pub(super) fn ask_again(&mut self, now: Millis, task: &TaskId, id: &GrantId) {
        let live = self.grants.get(id).is_some_and(Grant::is_live);
        let Some(t) = self.tasks.get_mut(task).filter(|t| t.grant() == Some(*id)) else { return };
        t.asked_for = false;
        if live && t.stop && self.wanted_again(task) {
            self.keep(now, task, id);
        } else if live && self.tasks.get(task).is_some_and(|t| t.stop) {
            self.send_stop(now, task);
        } else if live {
            self.claim(now, task);
        }
    }

    /// What was to end is what its service wants, after another change: the vault does not let it go any more.
    fn wanted_again(&self, task: &TaskId) -> bool {
        let Some(t) = self.tasks.get(task) else { return false };
        let newest = self.services.get(&t.service).and_then(|s| s.newest());
        let same = |v: &Version| newest.is_some_and(|(_, n)| n.template == v.template);
        let within = newest.is_some_and(|(_, n)| task.slot() <= n.spec.replicas_max);
        let stays = self.nodes.get(&t.node).is_some_and(super::nodes::Node::takes_work);
        within && stays && self.work_of(task).is_some_and(same)
    }
    /// A task that was told to stop goes on, for the planner as well.
    fn keep(&mut self, now: Millis, task: &TaskId, id: &GrantId) {
        let (Some(t), Some(g)) = (self.tasks.get_mut(task), self.grants.get(id).cloned()) else { return };
        t.stop = false;
        let node = t.node.clone();
        tracing::info!(%task, %node, "task is wanted again");
        self.planner.apply(ended(task, &node, false, Retry::Now));
        self.follow(now, &g);
    }

    /// Takes a task out of the queue as if it had never been placed.
    pub(super) fn withdraw(&mut self, task: &TaskId) {
        if self.tasks.get(task).is_some_and(|t| t.phase == Phase::Queued)
            && let Some(t) = self.remove_task(task)
        {
            self.planner.apply(ended(task, &t.node, false, Retry::Now));
        }
    }

    // ---- bookkeeping ----------------------------------------------------------------------------------------------

    pub(super) fn insert_task(&mut self, id: TaskId, task: Task) {
        self.nodes.entry(task.node.clone()).or_default().tasks.insert(id.clone());
        self.tasks.insert(id, task);
    }
    pub(super) fn remove_task(&mut self, id: &TaskId) -> Option<Task> {
        let task = self.tasks.remove(id)?;
        if let Some(node) = self.nodes.get_mut(&task.node) {
            node.tasks.remove(id);
        }
        Some(task)
    }
    /// The version that a task was granted under, while it is active.
    pub(super) fn version_of(&self, task: &TaskId) -> Option<&Version> {
        let t = self.tasks.get(task)?;
        self.services.get(&t.service)?.version(t.version)
    }
    /// The same, or a later version of the same work.
    pub(super) fn work_of(&self, task: &TaskId) -> Option<&Version> {
        let granted = self.tasks.get(task).and_then(Task::grant).and_then(|id| self.grants.get(&id)?.template);
        self.version_of(task).or_else(|| self.services.get(&self.tasks.get(task)?.service)?.like(granted?))
    }
    fn tell_planner(&mut self, id: &TaskId, state: TaskState) {
        let Some(t) = self.tasks.get(id) else { return };
        let work = self.work_of(id);
        let template = work.map_or_else(|| Version::unknown(t.version), |v| v.template);
        let resources = work.map_or(Resources::default(), Version::resources);
        let seen = TaskSeen { task: id.clone(), node: t.node.clone(), template, resources, state };
        self.planner.apply(Event::Task(seen));
    }
}

fn handed(t: &Task) -> Option<Handed> {
    match t.phase {
        Phase::Live { handed, .. } => Some(handed),
        Phase::Queued | Phase::Asked(_) => None,
    }
}
