//! The era after a scene's.

use super::{DAY, MINUTE, NOW, RootKey, Scene, signed, stk};
use holdfast_wire::v1;

/// An era as it is shown, before anything in it is signed.
pub struct Next {
    pub root: RootKey,
    pub reset: v1::Reset,
    pub bundle: v1::Bundle,
}

impl Next {
    /// The statement key of the era.
    pub const STK: u8 = 51;

    pub fn after(s: &Scene) -> Self {
        let root = RootKey::new();
        let roots = vec![root.certificate(&s.cluster)];
        let stks = vec![stk(Self::STK, NOW - MINUTE, NOW + 20 * DAY)];
        let reset = v1::Reset {
            cluster_id: s.cluster.0.to_vec(),
            era: 2,
            roots: roots.clone(),
            stks: stks.clone(),
            voters: vec![4],
            min_charter_version: 1,
            reason: "burnt".into(),
            request_id: vec![1; 16],
            issued_at_ms: NOW,
            ..v1::Reset::default()
        };
        let bundle = v1::Bundle {
            cluster_id: s.cluster.0.to_vec(),
            era: 2,
            epoch: 1,
            roots,
            stks,
            intake_pk: vec![6; 32],
            ..v1::Bundle::default()
        };
        Self { root, reset, bundle }
    }
    pub fn shown(&self, s: &Scene, signers: &[u8]) -> v1::TrustView {
        v1::TrustView {
            charter_chain: s.trust.saved().charters,
            bundle_chain: vec![self.root.sign_bundle(&self.bundle)],
            resets: vec![signed(&self.reset, signers)],
            ..v1::TrustView::default()
        }
    }
}
