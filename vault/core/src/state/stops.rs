//! Tasks that orchestrators stopped though their owners want them: allowed, and told when it is many.

use super::budget::Window;
use super::{GrantRow, IdentityState, ServiceRow, State};
use holdfast_types::{Millis, OrchId};
use holdfast_wire::specs::template;
use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60_000;
/// How long it is shown as an alarm that somebody stopped many.
const ALARM_MS: i64 = 3_600_000;
/// So many within a minute are never too many.
const FEW: u64 = 10;
/// Nor is one in so many of all that run.
const SHARE: u64 = 10;

/// What one orchestrator stopped.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stops {
    window: Window,
    /// When they were last told to be too many.
    told: Option<Millis>,
}

impl State {
    /// Whether what `g` does is wanted as it is, on a node that takes work: nobody's change asks to stop it.
    pub(crate) fn is_wanted(&self, g: &GrantRow) -> bool {
        let takes_work = self.identities.get(g.node.as_str()).is_some_and(|n| n.state == IdentityState::Ready);
        let newest = self.services.get(&g.service).filter(|s| s.active).and_then(ServiceRow::newest);
        takes_work && newest.is_some_and(|s| template(s) == g.template && g.task.slot() <= s.replicas_max)
    }
    /// Counts one; if they are too many within a minute, and were not told in this one, how many.
    pub(crate) fn count_stop(&mut self, orch: &OrchId, at: Millis) -> Option<u32> {
        let live = self.index.live;
        let s = self.stops.entry(orch.clone()).or_default();
        s.window.add(MINUTE_MS, 1, at);
        let stops = s.window.sum(MINUTE_MS, at);
        let usual = FEW.max(live.saturating_add(u64::from(stops)) / SHARE);
        let minute = |t: Millis| t.0.div_euclid(MINUTE_MS);
        if u64::from(stops) <= usual || s.told.is_some_and(|t| minute(t) == minute(at)) {
            return None;
        }
        s.told = Some(at);
        Some(stops)
    }
    pub(crate) fn prune_stops(&mut self, at: Millis) {
        let told = |s: &Stops| s.told.is_some_and(|t| at.0.saturating_sub(t.0) < ALARM_MS);
        self.stops.retain(|_, s| told(s) || s.window.sum(MINUTE_MS, at) > 0);
    }
    /// Orchestrators that stopped many within the hour.
    pub fn stopping(&self, now: Millis) -> impl Iterator<Item = &OrchId> {
        let lately = move |t: Millis| now.0.saturating_sub(t.0) < ALARM_MS;
        self.stops.iter().filter(move |(_, s)| s.told.is_some_and(lately)).map(|(o, _)| o)
    }
}
