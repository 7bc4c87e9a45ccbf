//! Refused grants in the log: each with its reason, until one orchestrator's refusals in a minute are too many.
//!
//! After that they are counted, and the number is one leaf: refusals must not be a way to flood the log.

use super::Step;
use crate::log::Draft;
use crate::refusal::Code;
use crate::state::Denials;
use holdfast_types::OrchId;

/// Refusals of one orchestrator that are written one by one in a minute.
const ONE_BY_ONE: u32 = 10;
/// How long a used-up budget is shown as an alarm.
const ALARM_MS: i64 = 3_600_000;

impl Step<'_> {
    /// A refused grant. A used-up budget has a leaf of its own, once a minute.
    pub(super) fn denied(&mut self, orch: &OrchId, service: &str, node: &str, code: &str, policies: &[String]) {
        let minute = self.at.0.div_euclid(60_000);
        if self.state.denials.get(orch).is_some_and(|d| d.minute != minute) {
            self.count_denials(orch);
        }
        let at = self.at;
        let d = self.state.denials.entry(orch.clone()).or_default();
        d.minute = minute;
        let hit =
            code == Code::BudgetExhausted.as_str() && d.budget_hit.is_none_or(|t| t.0.div_euclid(60_000) != minute);
        if hit {
            d.budget_hit = Some(at);
        }
        let told = d.written < ONE_BY_ONE;
        if told {
            d.written += 1;
        } else {
            d.untold += 1;
        }
        let draft = |kind| Draft::new(kind, format!("orch/{orch}"), service).with("node", node);
        if told {
            let version = self.state.founded.as_ref().map_or(0, |c| c.policy_version);
            let denied = draft("grant.denied").with("code", code).with("policies", policies.join(","));
            self.leaf(denied.with("policy_version", version));
        }
        if hit {
            self.leaf(draft("budget.hit"));
        }
    }

    /// The minute is over: what was not written one by one is written as a number.
    fn count_denials(&mut self, orch: &OrchId) {
        let Some(d) = self.state.denials.get_mut(orch) else { return };
        let untold = std::mem::take(&mut d.untold);
        d.written = 0;
        if untold > 0 {
            self.leaf(Draft::new("grant.denied", format!("orch/{orch}"), "*").with("count", untold));
        }
    }

    /// Numbers of minutes that are over, and nothing of those who asked for too much long ago.
    pub(super) fn prune_denials(&mut self) {
        let (at, minute) = (self.at.0, self.at.0.div_euclid(60_000));
        let over = |d: &Denials| d.minute != minute;
        let ended: Vec<OrchId> = self.state.denials.iter().filter(|(_, d)| over(d)).map(|(o, _)| o.clone()).collect();
        for orch in ended {
            self.count_denials(&orch);
        }
        let alarming = |d: &Denials| d.budget_hit.is_some_and(|t| at.saturating_sub(t.0) < ALARM_MS);
        self.state.denials.retain(|_, d| !over(d) || alarming(d));
    }
}
