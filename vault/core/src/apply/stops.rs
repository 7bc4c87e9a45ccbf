//! Tasks that an orchestrator stopped though their owners want them: many within a minute are told.

use super::Step;
use crate::log::Draft;
use holdfast_types::{GrantId, OrchId};

impl Step<'_> {
    /// Who may order the node of this grant to stop it, if its owner did not.
    pub(super) fn stopped_by(&self, id: &GrantId) -> Option<OrchId> {
        let g = self.state.grants.get(id).filter(|g| self.state.is_wanted(g))?;
        let holder = self.state.leases.get(&g.service.namespace).filter(|l| l.until > self.at);
        Some(holder.map_or_else(|| g.orch.clone(), |l| l.orch.clone()))
    }

    /// A task that its owner wants was stopped by an orchestrator: that is its right, and told when it is many.
    pub(super) fn stop_counts(&mut self, orch: &OrchId) {
        if let Some(stops) = self.state.count_stop(orch, self.at) {
            self.leaf(Draft::new("alarm/stop-rate", "vault", format!("orch/{orch}")).with("stops", stops));
        }
    }
}
