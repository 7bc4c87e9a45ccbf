//! Where sensitive services have been placed: the first time on a node waits, for an approver or for the delay.
//!
//! A scheduler that was taken over could draw a sensitive service, and with it its secrets, to a node of its own. It
//! cannot do so unseen: what it asks for is told at once, and nothing comes of it for a quarter of an hour.

use super::State;
use crate::refusal::{Code, Refusal};
use holdfast_types::{Millis, NodeId, ServiceRef};
use serde::{Deserialize, Serialize};

/// How long a first placement that nobody approves is held (protocol, budgets).
const HELD_MS: i64 = 15 * 60_000;
/// A first placement that was asked for and not made within this time is asked for anew, and told anew.
const ASKED_MS: i64 = 24 * 3_600_000;

/// A sensitive service and a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Placement {
    /// Asked for the first time then; nothing was placed yet.
    Asked(Millis),
    /// Approved by an operator, or placed before.
    Known,
}

impl State {
    fn placement(&self, service: &ServiceRef, node: &NodeId, at: Millis) -> Option<Placement> {
        let found = self.placements.get(service)?.get(node).copied();
        found.filter(|p| !matches!(p, Placement::Asked(t) if at.0 > t.0.saturating_add(ASKED_MS)))
    }

    /// Whether a sensitive service may be placed on a node now.
    pub(crate) fn placement_allowed(&self, service: &ServiceRef, node: &NodeId, at: Millis) -> Result<(), Refusal> {
        let free = match self.placement(service, node, at) {
            Some(Placement::Known) => return Ok(()),
            Some(Placement::Asked(t)) => Millis(t.0.saturating_add(HELD_MS)),
            None => Millis(at.0.saturating_add(HELD_MS)),
        };
        if at >= free {
            return Ok(());
        }
        let why =
            format!("the first placement of {service} on {node} is held until {free} unless an approver permits it");
        Err(Refusal { policies: vec!["L0-budget".into()], ..Refusal::new(Code::Pending, why) })
    }

    /// Notes that a first placement was asked for; false if that was known, or is none.
    pub(crate) fn ask_placement(&mut self, service: &ServiceRef, node: &NodeId, at: Millis) -> bool {
        let sensitive = self
            .services
            .get(service)
            .filter(|s| s.active)
            .is_some_and(|s| s.versions.iter().filter_map(super::SpecVersion::spec).any(|spec| spec.sensitive));
        let here = self.identities.get(node.as_str()).is_some_and(|n| n.state == super::IdentityState::Ready);
        let news = sensitive && here && self.placement(service, node, at).is_none();
        if news {
            self.set_placement(service, node, Placement::Asked(at));
        }
        news
    }

    pub(crate) fn set_placement(&mut self, service: &ServiceRef, node: &NodeId, p: Placement) {
        self.placements.entry(service.clone()).or_default().insert(node.clone(), p);
    }

    /// First placements that are held at `now`.
    pub fn held_placements(&self, now: Millis) -> impl Iterator<Item = (&ServiceRef, &NodeId)> {
        let held = move |p: &Placement| matches!(p, Placement::Asked(t) if now.0 < t.0.saturating_add(HELD_MS));
        let of = self.placements.iter().flat_map(|(s, nodes)| nodes.iter().map(move |(n, p)| (s, n, p)));
        of.filter(move |(_, _, p)| held(p)).map(|(s, n, _)| (s, n))
    }
}
