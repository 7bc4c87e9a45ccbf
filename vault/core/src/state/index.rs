//! Indexes: derived from the state, rebuilt after a snapshot, never stored.

use super::{GrantRow, GrantState, Live, State, UnderTerms};
use crate::command::Command;
use holdfast_types::{GrantId, Millis, NodeId, ServiceRef, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// Look-ups that must not scan.
#[derive(Debug, Default, Clone)]
pub(crate) struct Index {
    /// Grants that are not over, by node.
    pub by_node: BTreeMap<NodeId, BTreeSet<GrantId>>,
    /// Grants that are not over, by service.
    pub by_service: BTreeMap<ServiceRef, BTreeSet<GrantId>>,
    /// Grants that are not over, by task.
    pub by_task: BTreeMap<TaskId, BTreeSet<GrantId>>,
    /// Number of live grants, by service.
    pub live_of: BTreeMap<ServiceRef, usize>,
    /// Live grants, by the full name of a secret that they were given.
    pub by_secret: BTreeMap<String, BTreeSet<GrantId>>,
    /// When a grant next needs attention: lapse, extension, or removal once over.
    pub due: BTreeSet<(Millis, GrantId)>,
    /// When a running grant's lease should be extended: a quarter of it is over.
    pub extend: BTreeSet<(Millis, GrantId)>,
    /// Number of live grants.
    pub live: u64,
    /// What is sealed under which keyring term.
    pub under: UnderTerms,
    /// Whose certificate is under which root.
    pub living: Live,
}

/// How long a grant that is over is still shown.
pub(crate) const KEEP_OVER_MS: i64 = 10 * 60 * 1000;

impl Index {
    pub fn build(s: &State) -> Self {
        let mut ix = Self::default();
        for id in s.grants.keys() {
            ix.add(s, id);
        }
        ix.under = UnderTerms::build(s);
        ix.living = Live::build(s);
        ix
    }
    /// When `id` needs attention next.
    fn due_at(s: &State, id: &GrantId) -> Option<Millis> {
        use GrantState as G;
        let g = s.grants.get(id)?;
        Some(match g.state {
            // Of an exclusive task it is not enough that its node may not start it any more: it may have, unheard of.
            G::Issued | G::Revoked if g.exclusive => g.ends().max(g.start_before),
            G::Issued => g.start_before,
            // After the lease comes grace: only then is a task over that nobody heard of (protocol, life of a grant).
            G::Running => g.ends(),
            G::Revoked | G::Ended | G::Lapsed => Millis(g.over.unwrap_or(g.issued).0.saturating_add(KEEP_OVER_MS)),
        })
    }
    fn extend_at(g: &GrantRow) -> Option<Millis> {
        let again = Millis(g.held_back.0.saturating_add(g.life_ms / 4));
        (g.state == GrantState::Running).then_some(g.quarter_over().max(again))
    }
    pub fn add(&mut self, s: &State, id: &GrantId) {
        let Some(g) = s.grants.get(id) else { return };
        if g.may_run() {
            self.by_node.entry(g.node.clone()).or_default().insert(*id);
            self.by_service.entry(g.service.clone()).or_default().insert(*id);
            self.by_task.entry(g.task.clone()).or_default().insert(*id);
        }
        if g.state.is_live() {
            self.live += 1;
            *self.live_of.entry(g.service.clone()).or_default() += 1;
            for (name, _) in &g.secrets {
                self.by_secret.entry(name.clone()).or_default().insert(*id);
            }
        }
        if let Some(t) = Self::due_at(s, id) {
            self.due.insert((t, *id));
        }
        if let Some(t) = Self::extend_at(g) {
            self.extend.insert((t, *id));
        }
    }
    pub fn remove(&mut self, s: &State, id: &GrantId) {
        let Some(g) = s.grants.get(id) else { return };
        take(&mut self.by_node, &g.node, id);
        take(&mut self.by_service, &g.service, id);
        take(&mut self.by_task, &g.task, id);
        if g.state.is_live() {
            self.live = self.live.saturating_sub(1);
            match self.live_of.get_mut(&g.service) {
                Some(n) if *n > 1 => *n -= 1,
                Some(_) | None => drop(self.live_of.remove(&g.service)),
            }
            for (name, _) in &g.secrets {
                take(&mut self.by_secret, name, id);
            }
        }
        if let Some(t) = Self::due_at(s, id) {
            self.due.remove(&(t, *id));
        }
        if let Some(t) = Self::extend_at(g) {
            self.extend.remove(&(t, *id));
        }
    }
}

impl State {
    /// Changes a grant and keeps the indexes true.
    pub(crate) fn change_grant(&mut self, id: &GrantId, f: impl FnOnce(&mut GrantRow)) {
        let mut ix = std::mem::take(&mut self.index);
        ix.remove(self, id);
        if let Some(g) = self.grants.get_mut(id) {
            f(g);
        }
        ix.add(self, id);
        self.index = ix;
    }
    pub(crate) fn insert_grant(&mut self, id: GrantId, row: GrantRow) {
        self.grants.insert(id, row);
        let mut ix = std::mem::take(&mut self.index);
        ix.add(self, &id);
        self.index = ix;
    }
    pub(crate) fn forget_grant(&mut self, id: &GrantId) {
        let mut ix = std::mem::take(&mut self.index);
        ix.remove(self, id);
        self.grants.remove(id);
        self.index = ix;
    }
    /// True if a `Tick` would change something at `now`, or nothing was written for long.
    pub fn is_due(&self, now: Millis) -> bool {
        let grants = self.index.due.first().is_some_and(|(t, _)| *t <= now);
        let used = !(self.commands.is_empty()
            && self.accepted.is_empty()
            && self.requests.is_empty()
            && self.tokens.is_empty()
            && self.denials.is_empty()
            && self.stops.is_empty()
            && !self.revoked.values().any(|r| r.until > self.last_prune));
        grants || self.is_quiet(now) || (used && now.0.saturating_sub(self.last_prune.0) >= PRUNE_EVERY_MS)
    }
    /// Extends the leases of which a quarter is over, `most` at a time. A lease runs on only where its node `hears` of it:
    /// a node out of contact comes to the end of its lease, and then of its grace.
    pub fn extensions(&self, now: Millis, most: usize, hears: impl Fn(&NodeId) -> bool) -> Option<Command> {
        let due = self.index.extend.iter().take_while(|(t, _)| *t <= now).take(most);
        let rows = due.filter_map(|(_, id)| self.grants.get(id).map(|g| (id, g)));
        let (heard, away): (Vec<_>, Vec<_>) = rows.partition(|(_, g)| hears(&g.node));
        let grants: Vec<_> = heard.into_iter().map(|(id, g)| g.extended(id, now)).collect();
        let away: Vec<_> = away.into_iter().map(|(id, _)| *id).collect();
        (!grants.is_empty() || !away.is_empty()).then_some(Command::Extend { grants, away })
    }

    /// The same for a node that is back, whose leases were held back while it was away.
    pub fn extensions_of(&self, node: &NodeId, now: Millis) -> Option<Command> {
        let quarter_over = |g: &GrantRow| g.state == GrantState::Running && g.quarter_over() <= now;
        let due = self.grants_of_node(node).filter(|(_, g)| quarter_over(g));
        let grants: Vec<_> = due.map(|(id, g)| g.extended(id, now)).collect();
        (!grants.is_empty()).then_some(Command::Extend { grants, away: Vec::new() })
    }

    /// Whether a task was told to end on `node` that has not said that it is over.
    pub fn ends_on(&self, node: &NodeId) -> bool {
        self.grants_of_node(node).any(|(_, g)| g.state == GrantState::Revoked && !g.task_state.is_empty())
    }

    /// Grants that run on `node`.
    pub fn running_on(&self, node: &NodeId) -> Vec<GrantId> {
        self.grants_of_node(node).filter(|(_, g)| g.state == GrantState::Running).map(|(id, _)| *id).collect()
    }
}

/// Takes `id` out of the set at `key`; an empty set goes.
fn take<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<GrantId>>, key: &K, id: &GrantId) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(id);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

/// How often used-up ids are pruned.
const PRUNE_EVERY_MS: i64 = 60_000;
