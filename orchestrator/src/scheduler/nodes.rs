//! Nodes: what the directory says of them, whether they are here, and what follows when they are not.
//!
//! A node is here while the vault hears it and it has a session with us. One that is away takes nothing; one that is
//! away for too long is lost, and its grants are given back.

use super::Scheduler;
use super::retries::Due;
use super::tasks::Phase;
use holdfast_orchestrator_core::plan::{Event, NodeSeen, NodeState, Resources};
use holdfast_types::{GrantId, Millis, NodeId, TaskId, Zone};
use holdfast_wire::v1::NodeView;
use std::collections::BTreeSet;

/// How an operator has set the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Ready,
    Draining,
    /// Not admitted yet, or not any more: it may come back.
    Shut,
    Removed,
}

/// What a node said when its session began, and since.
pub(super) struct Session {
    capacity: Resources,
    held: BTreeSet<GrantId>,
}

pub(super) struct Node {
    standing: Standing,
    zone: Zone,
    labels: Vec<String>,
    /// The vault hears it.
    connected: bool,
    pub(super) session: Option<Session>,
    away_since: Option<Millis>,
    pub(super) lost: bool,
    pub(super) tasks: BTreeSet<TaskId>,
}

impl Default for Node {
    /// A node that nobody has described.
    fn default() -> Self {
        Self {
            standing: Standing::Shut,
            zone: Zone::all(),
            labels: Vec::new(),
            connected: false,
            session: None,
            away_since: None,
            lost: false,
            tasks: BTreeSet::new(),
        }
    }
}

impl Node {
    fn is_here(&self) -> bool {
        self.connected && self.session.is_some()
    }
    pub(super) fn takes_work(&self) -> bool {
        matches!(self.standing, Standing::Ready)
    }
    pub(super) fn holds(&self, grant: &GrantId) -> bool {
        self.session.as_ref().is_some_and(|s| s.held.contains(grant))
    }
    fn seen(&self, id: &NodeId) -> NodeSeen {
        let state = match self.standing {
            Standing::Draining => NodeState::Draining,
            Standing::Ready if self.is_here() => NodeState::Ready,
            Standing::Ready | Standing::Shut | Standing::Removed => NodeState::Unready,
        };
        let capacity = self.session.as_ref().map(|s| s.capacity).unwrap_or_default();
        NodeSeen { id: id.clone(), state, zone: self.zone.clone(), labels: self.labels.clone(), capacity }
    }
}

impl Scheduler {
    pub(super) fn node_shown(&mut self, now: Millis, view: &NodeView) {
        let Ok(id) = NodeId::parse(&view.id) else { return };
        if view.role != "node" {
            return;
        }
        if let Some(shows) = &mut self.shows {
            shows.nodes.insert(id.clone());
        }
        let node = self.nodes.entry(id.clone()).or_default();
        node.standing = match view.state.as_str() {
            "ready" => Standing::Ready,
            "draining" => Standing::Draining,
            "removed" => Standing::Removed,
            _ => Standing::Shut,
        };
        // A zone that cannot be read is one in which nothing may run.
        match Zone::parse(&view.zone) {
            Ok(zone) => node.zone = zone,
            Err(_) => node.standing = Standing::Shut,
        }
        node.labels.clone_from(&view.labels);
        node.connected = view.connected;
        self.presence_changed(now, &id);
        if self.nodes.get(&id).is_some_and(|n| n.standing == Standing::Removed) {
            self.lose(now, &id);
        }
    }

    pub(super) fn node_gone(&mut self, now: Millis, id: &NodeId) {
        self.lose(now, id);
        self.nodes.remove(id);
        self.planner.apply(Event::NodeGone(id.clone()));
        self.denials.retain(|(_, node), _| node != id);
    }

    /// A node's session began: what it can bear and what it holds.
    pub fn session_opened(&mut self, now: Millis, id: &NodeId, capacity: Resources, held: BTreeSet<GrantId>) {
        let node = self.nodes.entry(id.clone()).or_default();
        node.session = Some(Session { capacity, held });
        let tasks = node.tasks.clone();
        self.presence_changed(now, id);
        for task in tasks {
            // The greeting is the truth about what was handed over before.
            self.heard_of(&task);
            if self.is_synced() {
                self.claim(now, &task);
            }
            self.send_stop(now, &task);
        }
    }

    /// A node's session ended.
    pub fn session_closed(&mut self, now: Millis, id: &NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.session = None;
            self.presence_changed(now, id);
        }
    }

    /// The node took or refused what was assigned to it.
    pub fn assign_answered(&mut self, now: Millis, id: &NodeId, grant: GrantId, refusal: Option<&str>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        match (refusal, &mut node.session) {
            (None, Some(session)) => drop(session.held.insert(grant)),
            (None, None) => {}
            (Some(reason), _) => self.refused(now, id, &grant, reason),
        }
    }

    /// A task is over, says its node; the directory will say what became of it.
    pub fn task_over(&mut self, id: &NodeId, grant: &GrantId) {
        if let Some(session) = self.nodes.get_mut(id).and_then(|n| n.session.as_mut()) {
            session.held.remove(grant);
        }
    }

    fn presence_changed(&mut self, now: Millis, id: &NodeId) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.is_here() && node.standing != Standing::Removed {
            node.away_since = None;
            node.lost = false;
        } else if node.away_since.is_none() {
            node.away_since = Some(now);
            self.timers.add(now.plus(self.settings.node_lost_after), Due::NodeAway(id.clone()));
        }
        self.planner.apply(Event::Node(node.seen(id)));
    }

    /// Absence counts from now: while the vault was not heard, nobody knew who was here.
    pub(super) fn count_absence_from(&mut self, now: Millis) {
        for (id, node) in self.nodes.iter_mut().filter(|(_, n)| n.away_since.is_some() && !n.lost) {
            node.away_since = Some(now);
            self.timers.add(now.plus(self.settings.node_lost_after), Due::NodeAway(id.clone()));
        }
    }

    pub(super) fn lose_if_away(&mut self, now: Millis, id: &NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        let too_long = node.away_since.is_some_and(|t| t.plus(self.settings.node_lost_after) <= now);
        if too_long && !node.lost && self.is_synced() {
            if !node.tasks.is_empty() {
                tracing::warn!(node = %id, tasks = node.tasks.len(), "node lost: its tasks are placed elsewhere");
            }
            self.lose(now, id);
        }
    }

    /// The node's tasks are given up.
    fn lose(&mut self, now: Millis, id: &NodeId) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.lost = true;
        for task in node.tasks.clone() {
            match self.tasks.get(&task).map(|t| t.phase) {
                Some(Phase::Queued) => self.withdraw(&task),
                // The reply finds the node without session.
                Some(Phase::Asked(_)) | None => {}
                Some(Phase::Live { .. }) => self.claim(now, &task),
            }
        }
    }

    /// Plans the place of `task` with none of the nodes on which its service is denied.
    pub(super) fn retry_elsewhere(&mut self, now: Millis, task: &TaskId, denied: &[NodeId]) {
        let here: Vec<NodeSeen> = denied
            .iter()
            .filter_map(|id| Some(self.nodes.get(id)?.seen(id)))
            .filter(|seen| seen.state == NodeState::Ready)
            .collect();
        // What else waits is planned with all nodes first.
        self.plan(now);
        for seen in &here {
            self.planner.apply(Event::Node(NodeSeen { state: NodeState::Unready, ..seen.clone() }));
        }
        self.planner.apply(Event::RetryDue(task.clone()));
        self.plan(now);
        for seen in here {
            self.planner.apply(Event::Node(seen));
        }
    }
}
