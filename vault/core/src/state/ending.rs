//! What runs out before long, so that somebody hears of it in time: without a mandate nothing is started or extended in a
//! namespace, and without a valid spec nothing of a service.

use super::{MandateRow, State};
use holdfast_types::{Millis, Namespace, ServiceRef};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long ahead an end is told.
const AHEAD: Duration = Duration::from_secs(14 * 24 * 3600);

impl MandateRow {
    /// Whether it is for this namespace.
    pub fn covers(&self, namespace: &Namespace) -> bool {
        self.namespaces.iter().any(|n| n == "*" || n == namespace.as_str())
    }
}

impl State {
    /// Namespaces with services whose last mandate ends within two weeks, with its end; `None` where there is none.
    pub fn mandates_ending(&self, now: Millis) -> Vec<(Namespace, Option<Millis>)> {
        let in_use = self.services.iter().filter(|(_, row)| row.active).map(|(name, _)| &name.namespace);
        let namespaces: BTreeSet<&Namespace> = in_use.collect();
        let last = |ns: &Namespace| {
            let live = self.mandates.values().filter(|m| !m.revoked && now < m.not_after && m.covers(ns));
            live.map(|m| m.not_after).max()
        };
        let ends = namespaces.into_iter().map(|ns| (ns.clone(), last(ns)));
        ends.filter(|(_, end)| end.is_none_or(|end| end <= now.plus(AHEAD))).collect()
    }

    /// Services whose newest spec is not valid any more in two weeks, with its end.
    pub fn specs_ending(&self, now: Millis) -> Vec<(&ServiceRef, Millis)> {
        let active = self.services.iter().filter(|(_, row)| row.active);
        let ends = active.filter_map(|(name, row)| Some((name, Millis(row.newest()?.valid_until_ms))));
        ends.filter(|(_, end)| *end <= now.plus(AHEAD)).collect()
    }
}
