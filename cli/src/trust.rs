//! What this machine believes of its cluster: the charter chain from the cluster's name, the bundle chain from the anchor.
//!
//! Belief only moves forward: an older bundle or charter than the stored one is never taken.

use crate::charter;
use crate::errors::Failure;
use holdfast_pki::bundle::{follow, verify_bundle_chain};
use holdfast_pki::chain::Anchors;
use holdfast_types::{ClusterId, Digest, TrustDomain};
use holdfast_wire::statement::{self, Verified};
use holdfast_wire::v1;

/// Verified charters and the bundle in force.
#[derive(Debug, Clone)]
pub struct Trust {
    charters: Vec<Verified<v1::Charter>>,
    bundle: Verified<v1::Bundle>,
    chains: v1::TrustView,
    cluster: ClusterId,
}

impl Trust {
    /// Believes chains that start at the cluster's name and at a root that `anchor` commits to.
    pub fn verify(chains: v1::TrustView, cluster: &ClusterId, anchor: &Digest) -> Result<Self, Failure> {
        let charters = charter::verify_chain(&chains.charter_chain, cluster)?;
        let first =
            chains.bundle_chain.first().ok_or_else(|| Failure::untrusted("there is no bundle in the answer"))?;
        let mut roots = statement::peek::<v1::Bundle>(first).map_err(Failure::untrusted)?.roots;
        roots.retain(|r| cluster.anchor(r) == *anchor);
        if roots.is_empty() {
            return Err(Failure::untrusted("no root of the first bundle is the one that the anchor names"));
        }
        let bundle = verify_bundle_chain(&chains.bundle_chain, &roots, cluster).map_err(Failure::untrusted)?;
        Ok(Self { charters, bundle, chains, cluster: *cluster })
    }
    /// Believes what the cluster says now, if it continues what is believed already; `true` if there was news.
    pub fn advance(&mut self, answer: &v1::TrustView) -> Result<bool, Failure> {
        let mut next = self.clone();
        for st in &answer.bundle_chain {
            if statement::peek::<v1::Bundle>(st).map_err(Failure::untrusted)?.epoch > next.bundle.doc.epoch {
                next.bundle = follow(&next.bundle, st, &self.cluster).map_err(Failure::untrusted)?;
                next.chains.bundle_chain.push(st.clone());
            }
        }
        for st in &answer.charter_chain {
            let version = statement::peek::<v1::Charter>(st).map_err(Failure::untrusted)?.version;
            let Some(current) = next.charters.last() else { break };
            if version > current.doc.version {
                let newer = charter::follow(current, st)?;
                next.charters.push(newer);
                next.chains.charter_chain.push(st.clone());
            }
        }
        let news = next.chains != self.chains;
        *self = next;
        Ok(news)
    }
    /// The chains, for storing.
    pub fn chains(&self) -> &v1::TrustView {
        &self.chains
    }
    /// The bundle in force.
    pub fn bundle(&self) -> &v1::Bundle {
        &self.bundle.doc
    }
    /// Every charter, version 1 first.
    pub fn charters(&self) -> &[Verified<v1::Charter>] {
        &self.charters
    }
    /// The trust domain, as the charter names it.
    pub fn trust_domain(&self) -> Result<TrustDomain, Failure> {
        let name = self.charters.last().map(|c| c.doc.trust_domain.as_str()).unwrap_or_default();
        TrustDomain::parse(name).map_err(Failure::untrusted)
    }
    /// The roots in force, for TLS.
    pub fn anchors(&self) -> Result<Anchors, Failure> {
        Anchors::new(&self.bundle.doc.roots, self.trust_domain()?).map_err(Failure::untrusted)
    }
    /// Every statement key that the bundles ever listed: old checkpoints were signed by old keys.
    pub fn checkpoint_keys(&self) -> Vec<v1::PublicKey> {
        self.bundle.doc.stks.iter().filter_map(|s| s.key.clone()).collect()
    }
}
