//! The node follows its cluster: into a new era, through rotations that it slept through, and with what it held before.

use super::{Believed, Denied};
use holdfast_orchestrator_core::verify::News;
use holdfast_wire::before::held_before;
use holdfast_wire::v1::{HeldBefore, TrustView};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Believed {
    /// Follows the cluster into the era that `shown` proves; `false`: it proves none after ours. What was remembered of the era
    /// before goes first, so that no crash leaves the new era with it.
    pub async fn begin_era(self: &Arc<Self>, shown: TrustView) -> Result<bool, Denied> {
        let this = self.clone();
        self.judge_news(move |i| {
            let News::Todo(next) = i.trust.observe_era(&shown)? else { return Ok(false) };
            let mut memory = i.memory.clone();
            memory.begin_era();
            i.memory_file.save(&memory)?;
            (i.memory, i.early) = (memory, None);
            i.put_into_force(next.trust(), &this.tls)?;
            this.time_floor.store(i.trust.time_floor().0, Ordering::Relaxed);
            Ok(true)
        })
        .await
    }

    /// Follows the charters and bundles that `shown` proves to continue ours, through any number of rotations; `false`: none does.
    pub async fn catch_up(self: &Arc<Self>, shown: TrustView) -> Result<bool, Denied> {
        let this = self.clone();
        self.judge_news(move |i| {
            let Some(next) = i.trust.catch_up(&shown.charter_chain, &shown.bundle_chain)? else { return Ok(false) };
            i.put_into_force(next, &this.tls)?;
            Ok(true)
        })
        .await
    }

    /// What is to be shown to the vault of this era of the one before: a part of it that a vault reads, newest first kept.
    pub fn before(&self) -> Option<HeldBefore> {
        let b = self.locked(|i| i.trust.before().cloned())?;
        let held = held_before(b.revocations, &b.bundles);
        if held.is_none() {
            tracing::warn!("what was held of the era before is too long to be shown to the vault");
        }
        held
    }
    /// The vault of this era has seen it, and what follows from it is committed.
    pub async fn before_was_seen(self: &Arc<Self>) -> Result<(), Denied> {
        self.judge(|i| {
            let mut next = i.trust.clone();
            next.forget_before();
            i.files.save_anchors(&next)?;
            i.trust = next;
            Ok(())
        })
        .await
    }
}
