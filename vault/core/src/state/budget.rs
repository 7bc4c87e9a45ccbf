//! Counters of what orchestrators were granted: in no minute, and in no hour, is it more than their mandate says.
//!
//! The windows slide: counts lie in slots of a twelfth of a window, and those count that may lie in it. What was spent is free
//! again after the window and at most one slot.

use super::{MandateRow, State};
use holdfast_types::{MandateId, Millis, NodeId, OrchId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
/// Slots of a window, beside the present one.
const SLOTS: i64 = 12;

/// Counts of a span that slides. LAW: no span of that length has more in it than the sum at its end says
/// (`no_span_of_a_window_has_more_in_it_than_was_told`).
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Window(Vec<(i64, u32)>);

fn slot_of(span_ms: i64, now: Millis) -> i64 {
    now.0.div_euclid(span_ms / SLOTS)
}

impl Window {
    /// What was counted within `span_ms` before `now`, and up to a slot longer.
    pub fn sum(&self, span_ms: i64, now: Millis) -> u32 {
        let slot = slot_of(span_ms, now);
        let within = self.0.iter().filter(|(s, _)| s.saturating_add(SLOTS) >= slot);
        within.fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }
    /// Counts `n` more.
    pub fn add(&mut self, span_ms: i64, n: u32, now: Millis) {
        let slot = slot_of(span_ms, now);
        self.0.retain(|(s, _)| s.saturating_add(SLOTS) >= slot);
        match self.0.last_mut() {
            Some((s, count)) if *s == slot => *count = count.saturating_add(n),
            Some(_) | None => self.0.push((slot, n)),
        }
    }
}

/// Whose counters: mandates of the same orchestrators and namespaces share theirs, so that the next one is no second budget.
pub(crate) type Scope = (Vec<OrchId>, Vec<String>);

impl MandateRow {
    pub(crate) fn scope(&self) -> Scope {
        let (mut orchestrators, mut namespaces) = (self.orchestrators.clone(), self.namespaces.clone());
        orchestrators.sort();
        namespaces.sort();
        (orchestrators, namespaces)
    }
}

/// Counters of the mandates of one scope.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Budget {
    grants: BTreeMap<String, Window>,
    novel: Window,
    known: BTreeSet<(NodeId, String)>,
    /// When it was last spent from.
    last: Millis,
}
impl Budget {
    /// Grants issued for `namespace` within a minute before `now`.
    pub fn used(&self, namespace: &str, now: Millis) -> u32 {
        self.grants.get(namespace).map_or(0, |w| w.sum(MINUTE_MS, now))
    }
    /// New (secret, node) pairs within an hour before `now`.
    pub fn novelty(&self, now: Millis) -> u32 {
        self.novel.sum(HOUR_MS, now)
    }
    /// Which of `secrets` were never boxed to `node` under these mandates.
    pub fn new_pairs(&self, node: &NodeId, secrets: &[(String, u64)]) -> u32 {
        let n = secrets.iter().filter(|(s, _)| !self.known.contains(&(node.clone(), s.clone()))).count();
        u32::try_from(n).unwrap_or(u32::MAX)
    }
    fn spend(&mut self, namespace: &str, node: &NodeId, secrets: &[(String, u64)], now: Millis) {
        self.grants.entry(namespace.to_owned()).or_default().add(MINUTE_MS, 1, now);
        let fresh = self.new_pairs(node, secrets);
        if fresh > 0 {
            self.novel.add(HOUR_MS, fresh, now);
            self.known.extend(secrets.iter().map(|(s, _)| (node.clone(), s.clone())));
        }
        self.last = now;
    }
    pub(crate) fn forget_node(&mut self, node: &NodeId) {
        self.known.retain(|(n, _)| n != node);
    }
}

impl State {
    /// The counters that a mandate is held against.
    pub(crate) fn budget_of(&self, m: &MandateRow) -> Option<&Budget> {
        self.budgets.get(&m.scope())
    }
    /// A grant was issued.
    pub(crate) fn spend(
        &mut self,
        mandate: &MandateId,
        namespace: &str,
        node: &NodeId,
        secrets: &[(String, u64)],
        now: Millis,
    ) {
        if let Some(scope) = self.mandates.get(mandate).map(MandateRow::scope) {
            self.budgets.entry(scope).or_default().spend(namespace, node, secrets, now);
        }
    }
    /// Forgets the counters of mandates that are over, and not before their windows are.
    pub(crate) fn prune_budgets(&mut self, now: Millis) {
        let live: BTreeSet<Scope> =
            self.mandates.values().filter(|m| now < m.not_after).map(MandateRow::scope).collect();
        let spent = |b: &Budget| now.0.saturating_sub(b.last.0) <= 2 * HOUR_MS;
        self.budgets.retain(|scope, b| live.contains(scope) || spent(b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_of_a_window_has_more_in_it_than_was_told() {
        const MOST: u32 = 7;
        let (mut w, mut spent, mut at) = (Window::default(), Vec::new(), 1_234_567_i64);
        let short = [0, 1, 4_999, 977, 3, 31_000, 5_000].into_iter().cycle();
        let long = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60_001].into_iter().cycle();
        for (short, long) in short.zip(long).take(1_500) {
            at += short + long;
            let now = Millis(at);
            while w.sum(MINUTE_MS, now) < MOST {
                w.add(MINUTE_MS, 1, now);
                spent.push(at);
            }
            let within = spent.iter().filter(|t| **t > at - MINUTE_MS).count();
            assert!(within <= MOST as usize, "{within} within a minute at {at}");
        }
        assert!(spent.len() > 300, "and it is free again in time");
        assert!(w.0.len() <= 13);
        assert_eq!(w.sum(MINUTE_MS, Millis(at + MINUTE_MS + MINUTE_MS / SLOTS)), 0);
    }
}
