//! Indexes: derived from the state, rebuilt after a snapshot, never stored.

use super::State;
use holdfast_types::{GrantId, Millis, NodeId, ServiceRef};
use std::collections::{BTreeMap, BTreeSet};

/// Look-ups that must not scan.
#[derive(Debug, Default, Clone)]
pub(crate) struct Index {
    /// Grants that are not over, by node.
    pub by_node: BTreeMap<NodeId, BTreeSet<GrantId>>,
    /// Grants that are not over, by service.
    pub by_service: BTreeMap<ServiceRef, BTreeSet<GrantId>>,
    /// Number of live grants, by service.
    pub live_of: BTreeMap<ServiceRef, usize>,
    /// When a grant next needs attention: lapse, extension, or removal once over.
    pub due: BTreeSet<(Millis, GrantId)>,
    /// When a running grant's lease should be extended: a quarter of it is over.
    pub extend: BTreeSet<(Millis, GrantId)>,
    /// Number of live grants.
    pub live: u64,
}

/// How long a grant that is over is still shown.
pub(crate) const KEEP_OVER_MS: i64 = 10 * 60 * 1000;

impl Index {
    pub fn build(s: &State) -> Self {
        let mut ix = Self::default();
        for id in s.grants.keys() {
            ix.add(s, id);
        }
        ix
    }
    /// When `id` needs attention next.
    fn due_at(s: &State, id: &GrantId) -> Option<Millis> {
        use super::GrantState as G;
        let g = s.grants.get(id)?;
        Some(match g.state {
            G::Issued => g.start_before,
            // After the lease comes grace: only then is a task over that nobody heard of (protocol, life of a grant).
            G::Running => Millis(g.lease_until.0.saturating_add(g.grace_ms)),
            G::Revoked | G::Ended | G::Lapsed => Millis(g.over.unwrap_or(g.issued).0.saturating_add(KEEP_OVER_MS)),
        })
    }
    fn extend_at(g: &super::GrantRow) -> Option<Millis> {
        let quarter_gone = g.lease_until.0.saturating_sub(g.life_ms / 4 * 3);
        (g.state == super::GrantState::Running).then_some(Millis(quarter_gone))
    }
    pub fn add(&mut self, s: &State, id: &GrantId) {
        let Some(g) = s.grants.get(id) else { return };
        if g.over.is_none() || g.state == super::GrantState::Revoked {
            self.by_node.entry(g.node.clone()).or_default().insert(*id);
            self.by_service.entry(g.service.clone()).or_default().insert(*id);
        }
        if g.state.is_live() {
            self.live += 1;
            *self.live_of.entry(g.service.clone()).or_default() += 1;
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
        if let Some(set) = self.by_node.get_mut(&g.node) {
            set.remove(id);
            if set.is_empty() {
                self.by_node.remove(&g.node);
            }
        }
        if let Some(set) = self.by_service.get_mut(&g.service) {
            set.remove(id);
            if set.is_empty() {
                self.by_service.remove(&g.service);
            }
        }
        if g.state.is_live() {
            self.live = self.live.saturating_sub(1);
            match self.live_of.get_mut(&g.service) {
                Some(n) if *n > 1 => *n -= 1,
                Some(_) | None => drop(self.live_of.remove(&g.service)),
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
    pub(crate) fn change_grant(&mut self, id: &GrantId, f: impl FnOnce(&mut super::GrantRow)) {
        let mut ix = std::mem::take(&mut self.index);
        ix.remove(self, id);
        if let Some(g) = self.grants.get_mut(id) {
            f(g);
        }
        ix.add(self, id);
        self.index = ix;
    }
    pub(crate) fn insert_grant(&mut self, id: GrantId, row: super::GrantRow) {
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
    /// True if a `Tick` would change something at `now`.
    pub fn is_due(&self, now: Millis) -> bool {
        let grants = self.index.due.first().is_some_and(|(t, _)| *t <= now);
        let used = !(self.commands.is_empty()
            && self.requests.is_empty()
            && self.tokens.is_empty()
            && self.revoked.is_empty());
        grants || (used && now.0.saturating_sub(self.last_prune.0) >= PRUNE_EVERY_MS)
    }
    /// Grants whose lease should be extended, with their new ends: running, a quarter of the lease over, still allowed.
    pub fn extensions(&self, now: Millis, most: usize) -> Vec<(GrantId, Millis)> {
        let due = self.index.extend.iter().take_while(|(t, _)| *t <= now);
        let allowed =
            due.filter_map(|(_, id)| self.grants.get(id).filter(|g| self.may_go_on(g, now)).map(|g| (*id, g)));
        allowed.map(|(id, g)| (id, Millis(now.0.saturating_add(g.life_ms)))).take(most).collect()
    }
    /// While mandate, service and node still allow it, a running grant's lease is extended.
    pub(crate) fn may_go_on(&self, g: &super::GrantRow, now: Millis) -> bool {
        use super::IdentityState as I;
        let node = self.identities.get(g.node.as_str()).is_some_and(|n| matches!(n.state, I::Ready | I::Draining));
        let mandate = self.mandates.get(&g.mandate).is_some_and(|m| !m.revoked && now < m.not_after);
        let service = self.services.get(&g.service).is_some_and(|s| s.active);
        g.state == super::GrantState::Running && node && mandate && service && !self.lockdown
    }
}

/// How often used-up ids are pruned.
const PRUNE_EVERY_MS: i64 = 60_000;
