//! Whether a live grant could still be issued: asked when its ground moves, and before its lease is extended.
//!
//! What an operator moved under a grant (its node's place, its secrets' rules) takes it back at once. What only ran out
//! (mandate, validity of its spec, work that no active version asks for), or runs an image that is denied, is extended no more: the task has the rest of
//! its lease and grace to be replaced. Decided from committed state alone, by every voter alike.

use super::{GrantRow, GrantState, Identity, IdentityState, MandateRow, SecretRow, SpecVersion, State};
use crate::prepare::reads;
use holdfast_types::{GrantId, Millis, NodeId, SecretRef, Zone};
use holdfast_wire::specs::template;
use holdfast_wire::v1;
use std::ops::Deref;

/// Why a grant is taken back.
type Why = &'static str;

impl State {
    /// The newest active spec that asks for the work that a grant does: its own, or a later one of another size or validity.
    fn spec_of(&self, g: &GrantRow) -> Option<&v1::Spec> {
        let row = self.services.get(&g.service).filter(|s| s.active)?;
        row.versions.iter().rev().filter_map(SpecVersion::spec).find(|s| template(s) == g.template)
    }

    /// What keeps `g` from its node. Work that no active version asks for any more is judged by the node's state alone.
    fn misplaced(&self, g: &GrantRow, node: &Identity) -> Option<Why> {
        let spec = self.spec_of(g);
        let outside = |s: &v1::Spec| !s.zones.iter().any(|z| Zone::parse(z).is_ok_and(|z| node.zone.within(&z)));
        let unlabelled = |s: &v1::Spec| !s.node_labels.iter().all(|l| node.labels.contains(l));
        if spec.is_some_and(outside) {
            Some("its node is not in the service's zones any more")
        } else if spec.is_some_and(unlabelled) {
            Some("its node has not the labels that the service wants any more")
        } else if !self.zone_mandated(g, node) {
            Some("its node is not in the mandate's zones any more")
        } else {
            g.secrets.iter().find_map(|(name, _)| self.withheld(g, node, self.secret_named(name, g)))
        }
    }

    /// A secret's row.
    pub(crate) fn secret(&self, name: &SecretRef) -> Option<&SecretRow> {
        self.secrets.get(name).map(Deref::deref)
    }

    fn secret_named(&self, name: &str, g: &GrantRow) -> Option<&SecretRow> {
        self.secret(&SecretRef::parse(name, g.service.namespace.as_str()).ok()?)
    }

    /// Why `g` could not be given a secret any more. No node is attested yet, so what is for attested nodes is for none.
    fn withheld(&self, g: &GrantRow, node: &Identity, secret: Option<&SecretRow>) -> Option<Why> {
        match secret {
            None => Some("a secret that it was given is deleted"),
            Some(s) if !reads(&s.readers, &g.service) => Some("its service may not read one of its secrets any more"),
            Some(s) if s.attested_only || !s.zones.iter().any(|z| node.zone.within(z)) => {
                Some("one of its secrets may not be on its node any more")
            }
            Some(_) => None,
        }
    }

    /// The mandate it was issued under, whatever became of that since, or one that covers it now, reaches its node.
    fn zone_mandated(&self, g: &GrantRow, node: &Identity) -> bool {
        let reaches = |m: &MandateRow| m.zones.iter().any(|z| node.zone.within(z));
        self.mandates.get(&g.mandate).is_some_and(reaches)
            || self.mandates.values().any(|m| !m.revoked && m.covers(&g.service.namespace) && reaches(m))
    }

    /// A live mandate covers it: its own, or one that followed.
    fn mandated(&self, g: &GrantRow, node: &Identity, now: Millis) -> bool {
        let covers = |m: &MandateRow| {
            !m.revoked
                && now < m.not_after
                && m.covers(&g.service.namespace)
                && m.zones.iter().any(|z| node.zone.within(z))
        };
        self.mandates.get(&g.mandate).is_some_and(covers) || self.mandates.values().any(covers)
    }

    /// Whether a protected task may be given up, because its owner changed what is wanted since it was granted.
    ///
    /// Its node does not take work any more, or it was never reported. Or its work is no longer the newest version's; or its
    /// number is beyond the replicas, since there were more of them, or it is one too many beside older ones: then it may go
    /// if it does not run, or if without it as many run as are wanted, less those that an update may stop at a time.
    pub(crate) fn may_let_go(&self, id: &GrantId, g: &GrantRow) -> bool {
        let takes_work = self.identities.get(g.node.as_str()).is_some_and(|n| n.state == IdentityState::Ready);
        if g.state == GrantState::Issued || !takes_work {
            return true;
        }
        let Some(row) = self.services.get(&g.service).filter(|s| s.active) else { return true };
        let Some(newest) = row.newest() else { return false };
        let outdated = template(newest) != g.template;
        let beyond = g.task.slot() > newest.replicas_max;
        if !outdated && !beyond {
            return false;
        }
        let runs = |g: &GrantRow| g.state == GrantState::Running && g.task_state == "running";
        if !runs(g) {
            return true;
        }
        let at_a_time = if outdated { newest.update.as_ref().map_or(1, |u| u.parallelism.max(1)) } else { 0 };
        let done = row.done.iter().filter(|slot| **slot <= newest.replicas_max).count();
        let wanted = (newest.replicas_max.saturating_sub(at_a_time) as usize).saturating_sub(done);
        // Of one that nobody's change made too many, younger ones cannot take the place.
        let counts = |other: &GrantRow| runs(other) && (outdated || row.shrunk > g.version || other.leaf < g.leaf);
        self.grants_of_service(&g.service).filter(|(other, g)| *other != id && counts(g)).count() >= wanted
    }

    /// Live grants on `node` that its place does not fit any more.
    pub(crate) fn displaced(&self, node: &NodeId) -> Vec<(GrantId, Why)> {
        let Some(row) = self.identities.get(node.as_str()) else { return Vec::new() };
        let live = self.grants_of_node(node).filter(|(_, g)| g.state.is_live());
        live.filter_map(|(id, g)| self.misplaced(g, row).map(|why| (*id, why))).collect()
    }

    /// Live grants of sensitive services on `node`.
    pub(crate) fn sensitive_on(&self, node: &NodeId) -> Vec<GrantId> {
        self.grants_of_node(node).filter(|(_, g)| g.sensitive).map(|(id, _)| *id).collect()
    }

    /// Live grants that were given `secret` and could not be given it any more.
    pub(crate) fn unreadable(&self, secret: &SecretRef) -> Vec<(GrantId, Why)> {
        let (name, row) = (secret.to_string(), self.secret(secret));
        let held = self.index.by_secret.get(&name).into_iter().flatten();
        held.filter_map(|id| {
            let g = self.grants.get(id)?;
            let node = self.identities.get(g.node.as_str())?;
            self.withheld(g, node, row).map(|why| (*id, why))
        })
        .collect()
    }

    /// Whether a running grant's lease may be extended: mandate, spec, node and secrets still allow it. LAW: a lockdown or a
    /// denied image ends nothing that runs, or one operator could end every task
    /// (`a_lockdown_stops_grants_and_ends_nothing_that_runs`,
    /// `a_denied_image_is_granted_no_more_and_what_runs_of_it_is_told_and_extended`).
    pub(crate) fn may_go_on(&self, g: &GrantRow, now: Millis) -> bool {
        use IdentityState as I;
        let node = self.identity(g.node.as_str()).filter(|n| matches!(n.state, I::Ready | I::Draining));
        let valid = self.spec_of(g).is_some_and(|s| now.0 < s.valid_until_ms);
        let stands = |n: &Identity| self.mandated(g, n, now) && self.misplaced(g, n).is_none();
        g.state == GrantState::Running && valid && node.is_some_and(stands)
    }
}
