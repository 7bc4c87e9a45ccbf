//! How belief follows the cluster: into a new era, and through rotations that were slept through.

use super::{Before, Floor, NewEra, NodeTrust};
use crate::verify::bundle::BundleChain;
use crate::verify::refusal::Refusal;
use holdfast_pki::bundle::Admins;
use holdfast_pki::era::{EraError, verify_era};
use holdfast_types::Millis;
use holdfast_wire::statement::{self, News};
use holdfast_wire::v1::{Revocations, Statement, TrustView};

impl NodeTrust {
    /// What was held of the era before; the vault judges it.
    pub fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }
    /// Remembers Revocations for the vault of the next era to see; `false`: they are no newer than those that are held. For whoever
    /// takes no Status, and so decides nothing by them: for all else they are not in force.
    pub fn remember_revocations(&mut self, now: Millis, st: &Statement) -> Result<bool, Refusal> {
        let v = statement::verify::<Revocations>(st, &self.stks(now), 1)
            .map_err(Refusal::statement(0, "revocations-signature"))?;
        self.check_place(&v.doc.cluster_id, v.doc.era)?;
        let newer = self.revocations.as_ref().is_none_or(|(_, held)| held.epoch < v.doc.epoch);
        if newer {
            self.revocations = Some((st.clone(), v.doc));
        }
        Ok(newer)
    }
    /// The vault of this era has seen it.
    pub fn forget_before(&mut self) {
        self.before = None;
    }

    /// Judges an era that anybody may show: its Reset verifies up to the cluster's name. Nothing of the era before counts in it,
    /// but the time, and that not beyond the Reset's: a clock that was driven ahead is the operators' to set right.
    /// LAW: `a_new_era_takes_enough_admins_this_cluster_and_a_later_number`.
    pub fn observe_era(&self, shown: &TrustView) -> Result<News<NewEra>, Refusal> {
        let refused = |e: EraError| Refusal::outside(era_code(&e), e.to_string());
        let Some(era) = verify_era(&self.charter, self.era(), shown).map_err(refused)? else {
            return Ok(News::Stale);
        };
        let admins = Admins::since(&era.charters, self.charter.head().version);
        let bundle = BundleChain::verify(&era.anchor, era.charters.cluster(), admins, &shown.bundle_chain)?;
        let time = self.floor.time.min(Millis(era.reset.issued_at_ms));
        let bundles = || self.bundle.statements().to_vec();
        let before = self.revocations.as_ref().map(|(st, _)| Before { revocations: st.clone(), bundles: bundles() });
        Ok(News::Todo(NewEra(Self {
            anchor: era.anchor,
            charter: era.charters,
            bundle,
            status: None,
            revocations: None,
            checkpoint: None,
            floor: Floor { epoch: 0, time },
            before,
        })))
    }

    /// Follows what continues our charters and our bundles, oldest first, whoever shows it; `None`: nothing does. Links up to ours
    /// are not looked at: whoever joined late does not hold their roots. Persist it before adopting.
    pub fn catch_up(&self, charters: &[Statement], bundles: &[Statement]) -> Result<Option<Self>, Refusal> {
        let (mut next, mut news) = (self.clone(), false);
        // A link that Admins signed is judged by the charter that it names, if that is none older than the one held until now.
        let mut held = self.charter.head().version;
        for st in charters {
            if let News::Todo(n) = next.observe_charter(st)? {
                next.adopt_charter(n);
                news = true;
            }
        }
        for st in bundles {
            if next.bundle.is_behind(st)
                && let News::Todo(n) = next.bundle.observe(st, Admins::since(&next.charter, held))?
            {
                next.adopt_bundle(n);
                held = held.max(next.bundle().charter_version);
                news = true;
            }
        }
        Ok(news.then_some(next))
    }
}

fn era_code(e: &EraError) -> &'static str {
    match e {
        EraError::Charter(e) => e.code(),
        EraError::Reset(_) => "reset-signature",
        EraError::Cluster => "cluster",
        EraError::CharterVersion(_) => "charter-gap",
        EraError::Bundle(_) => "bundle-signature",
        EraError::OtherRoots => "reset-roots",
    }
}
