//! Leases of orchestrators: who schedules a namespace, until when, and the fence that grows with each other holder.

use super::{Event, Step};
use crate::log::Draft;
use crate::refusal::Refusal;
use crate::state::{IdentityState, Lease, MandateRow, State};
use holdfast_types::{Millis, Namespace, OrchId, Role};

impl Step<'_> {
    pub(super) fn keep_lease(&mut self, orch: &OrchId, session_addr: String, life_ms: i64) -> Result<(), Refusal> {
        let row = self.state.identities.get_mut(orch.as_str()).filter(|r| r.role == Role::Orch);
        let row = row.ok_or_else(|| Refusal::not_found("orchestrator", orch))?;
        if row.state != IdentityState::Ready {
            return Err(Refusal::credential("this orchestrator is not ready"));
        }
        if row.session_addr != session_addr {
            row.session_addr = session_addr;
            self.event(Event::Trust);
        }
        let until = Millis(self.at.0.saturating_add(life_ms));
        let wanted: Vec<Namespace> = self.state.leasable(orch, self.at);
        for ns in wanted {
            self.lease(ns, orch, until);
        }
        Ok(())
    }

    fn lease(&mut self, ns: Namespace, orch: &OrchId, until: Millis) {
        let at = self.at;
        let last = self.state.leases.get(&ns);
        let fence = match last {
            Some(l) if l.orch == *orch => l.fence,
            Some(l) if l.until > at => return,
            Some(l) => l.fence + 1,
            None => 1,
        };
        let change = last.is_none_or(|l| l.fence != fence);
        self.state.leases.insert(ns.clone(), Lease { orch: orch.clone(), fence, until });
        if change {
            self.leaf(Draft::new("lease.change", format!("orch/{orch}"), ns.to_string()).with("fence", fence));
            self.event(Event::Trust);
        }
    }

    /// Leases that lived at `since`, when the vault was heard last, live for a whole one from now: nobody could keep them
    /// meanwhile. Holders and fences stay what they were, and whoever may not schedule any more gets nothing.
    pub(super) fn extend_leases(&mut self, since: Millis, life_ms: i64) -> Result<(), Refusal> {
        let (at, until) = (self.at, Millis(self.at.0.saturating_add(life_ms)));
        let s = &mut *self.state;
        let goes_on = |ns: &Namespace, l: &Lease| l.until > since && l.until < until && s.may_schedule(&l.orch, ns, at);
        let kept: Vec<Namespace> = s.leases.iter().filter(|(ns, l)| goes_on(ns, l)).map(|(ns, _)| ns.clone()).collect();
        let mut lapsed = false;
        for ns in kept {
            if let Some(lease) = s.leases.get_mut(&ns) {
                lapsed |= lease.until <= at;
                lease.until = until;
            }
        }
        if lapsed {
            self.event(Event::Trust);
        }
        Ok(())
    }
}

impl State {
    /// Whether `orch` is at work, and a live mandate lets it schedule `ns`.
    fn may_schedule(&self, orch: &OrchId, ns: &Namespace, at: Millis) -> bool {
        let row = self.identities.get(orch.as_str());
        let is_ready = row.is_some_and(|r| r.role == Role::Orch && r.state == IdentityState::Ready);
        let is_live = |m: &MandateRow| !m.revoked && at < m.not_after && m.orchestrators.contains(orch);
        is_ready && self.mandates.values().any(|m| is_live(m) && m.covers(ns))
    }
    /// Namespaces with services that `orch`'s live mandates cover.
    pub(crate) fn leasable(&self, orch: &OrchId, at: Millis) -> Vec<Namespace> {
        let mine: Vec<_> = self
            .mandates
            .values()
            .filter(|m| !m.revoked && at < m.not_after && m.orchestrators.contains(orch))
            .collect();
        let covered = |ns: &Namespace| mine.iter().any(|m| m.covers(ns));
        let mut all: Vec<Namespace> =
            self.services.iter().filter(|(_, r)| r.active).map(|(s, _)| s.namespace.clone()).collect();
        all.extend(self.leases.keys().cloned());
        all.sort();
        all.dedup();
        all.retain(covered);
        all
    }
}
