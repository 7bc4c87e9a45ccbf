//! Whom we believe: the cluster's documents from the join on, and the roots in them for TLS.
//!
//! A Status that names a bundle that we have not seen is a hint to fetch the documents again, where anybody may read them;
//! they count only because each is signed by what we believed before. So does what we slept through, rotation or era, when no
//! vault that we believe is left.

use crate::before::Before;
use crate::state::{ClusterFile, StateDir};
use holdfast_orchestrator_core::verify::{News, NodeTrust, Refusal};
use holdfast_pki::chain::Anchors;
use holdfast_transport::check_clock;
use holdfast_transport::client::{Backoff, Dialer, Link, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::join::{ask_trust, documents, learn_addrs, one_cluster};
use holdfast_transport::now;
use holdfast_transport::tls::{ClientTls, Server, TrustCell};
use holdfast_types::{Digest, TrustDomain, sha256};
use holdfast_wire::before::held_before;
use holdfast_wire::statement;
use holdfast_wire::v1::{Challenge, Revocations, Statement, Status, TrustView};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long no vault is reached before we ask whether there is a new era, and between two questions.
const LOST: Duration = Duration::from_secs(5);
/// Most of the addresses that an answer may add to ours: they are not signed.
const MOST_ADDRS: usize = 8;
/// Shortest time between two fetches of documents, and the longest while they fail.
const REST: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

fn disbelief(e: Refusal) -> Failure {
    Failure::refused("cluster-not-believed", format!("the vault's documents: {e}"))
}

/// Judges a join's challenge: documents that `anchor` pins, of the very cluster that TLS has proven.
pub fn believe(anchor: Digest, server: &Server, shown: &Challenge) -> Result<NodeTrust, Failure> {
    let trust = NodeTrust::join(anchor, &shown.charter_chain, &shown.bundle_chain).map_err(disbelief)?;
    shown.status.as_ref().map_or(Ok(()), check_clock)?;
    one_cluster(server, trust.cluster(), trust.trust_domain())?;
    Ok(trust)
}

/// The roots in force.
pub fn anchors(trust: &NodeTrust) -> Result<Anchors, Failure> {
    let roots = Anchors::new(&trust.bundle().roots, trust.trust_domain().clone());
    roots.map_err(|e| Failure::refused("cluster-not-believed", format!("the bundle's roots: {e}")))
}

/// The way to the vault.
pub struct Way {
    /// The connection that is open.
    pub link: watch::Receiver<Option<Link>>,
    /// Who dials it.
    pub dialer: Arc<Dialer>,
    /// Join listeners of the configuration, beside those that we joined at.
    pub configured: Vec<String>,
    /// What came with each renewal.
    pub told: watch::Receiver<Told>,
    /// The list of revocations, as it came last.
    pub listed: watch::Receiver<Option<Statement>>,
}

/// Where the vault says that its voters are, with each certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Service listeners.
    pub service_addrs: Vec<String>,
    /// Join listeners.
    pub join_addrs: Vec<String>,
}

/// The documents in force, on disk and in TLS.
pub struct Believed {
    trust: NodeTrust,
    file: ClusterFile,
    state: StateDir,
    tls: Arc<TrustCell>,
    epoch: watch::Sender<u64>,
    /// Revocations whose statement key is of a bundle that we have not seen.
    unproven: Option<Statement>,
    before: Arc<Before>,
}

impl Believed {
    /// From what was kept.
    pub fn open(state: StateDir, file: ClusterFile) -> Result<Self, Failure> {
        let anchor = Digest::from_slice(&file.anchor);
        let anchor = anchor.ok_or_else(|| Failure::failed("corrupt", "the kept anchor has not 32 bytes"))?;
        let trust = NodeTrust::join(anchor, &file.charters, &file.bundles).map_err(disbelief)?;
        let tls = TrustCell::new(anchors(&trust)?);
        let epoch = watch::Sender::new(trust.bundle().epoch);
        Ok(Self { trust, file, state, tls, epoch, unproven: None, before: Arc::default() })
    }
    /// The roots that TLS believes; they follow the bundle.
    pub fn tls(&self) -> Arc<TrustCell> {
        self.tls.clone()
    }
    /// Our trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.trust.trust_domain()
    }

    /// What the vault is to be shown of the era before.
    pub fn before(&self) -> Arc<Before> {
        self.before.clone()
    }

    /// The epoch of the bundle in force, and of each that follows it.
    pub fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Until `stop`: fetches the documents again whenever a Status of `hints` names another bundle, and looks for what we slept
    /// through, a new era too, while no vault that we believe is reached.
    pub async fn follow(mut self, mut hints: watch::Receiver<Option<Statement>>, way: Way, stop: CancellationToken) {
        let rounds = async {
            let mut again = Backoff::new(REST.0, REST.1);
            let (mut told, mut listed) = (way.told.clone(), way.listed.clone());
            loop {
                let changed = tokio::select! {
                    changed = hints.changed() => changed,
                    Ok(()) = told.changed() => {
                        let newest = told.borrow_and_update().clone();
                        if let Err(failure) = self.learn(&newest, &way.dialer) {
                            tracing::warn!(code = %failure.code, "the vault's addresses were not kept: {failure}");
                        }
                        continue;
                    }
                    Ok(()) = listed.changed() => {
                        let newest = listed.borrow_and_update().clone();
                        self.remember(newest);
                        continue;
                    }
                    () = tokio::time::sleep(LOST) => {
                        if way.link.borrow().is_none() {
                            self.look_around(&way).await;
                        }
                        continue;
                    }
                };
                if changed.is_err() {
                    return;
                }
                while way.link.borrow().is_some() && self.is_behind(&hints.borrow_and_update()) {
                    if let Err(failure) = self.refresh().await {
                        tracing::warn!(code = %failure.code, "the cluster's documents were not renewed: {failure}");
                    }
                    if self.is_behind(&hints.borrow()) {
                        tokio::time::sleep(again.next_delay()).await;
                    }
                }
                again.reset();
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
    }

    /// Keeps where the vault is, on disk too: voters come and go while we are up, and we may start again long after. Nobody signs
    /// it: what was known before is dialled after it, and no answer drives all of that out.
    fn learn(&mut self, told: &Told, dialer: &Dialer) -> Result<(), Failure> {
        let mut file = self.file.clone();
        for (kept, newest) in [(&mut file.service_addrs, &told.service_addrs), (&mut file.join_addrs, &told.join_addrs)]
        {
            learn_addrs(kept, newest.get(..MOST_ADDRS).unwrap_or(newest), 4 * MOST_ADDRS);
        }
        dialer.prefer(told.service_addrs.iter().take(MOST_ADDRS).cloned());
        if file != self.file {
            self.state.save(&file)?;
            self.file = file;
        }
        Ok(())
    }

    /// Remembers who was revoked, for the vault of the next era: nothing here is decided by it.
    fn remember(&mut self, listed: Option<Statement>) {
        let Some(list) = listed.or_else(|| self.unproven.take()) else { return };
        match self.trust.remember_revocations(now(), &list) {
            Ok(newer) => {
                self.unproven = None;
                let revoked = statement::peek::<Revocations>(&list).map_or(0, |r| r.revoked.len());
                if newer && revoked > 0 {
                    tracing::info!(revoked, "who was revoked is remembered, for the vault of the next era");
                }
            }
            // Its key may be of a bundle that is fetched in a moment.
            Err(refusal) => {
                tracing::debug!(%refusal, "revocations are not believed");
                self.unproven = Some(list);
            }
        }
    }

    /// True if `hint` names a bundle that we have never seen.
    fn is_behind(&self, hint: &Option<Statement>) -> bool {
        let named = hint.as_ref().and_then(|st| statement::peek::<Status>(st).ok()).map(|s| s.bundle_sha256);
        let is_ours = |named: &[u8]| self.file.bundles.iter().any(|st| sha256(&[&st.payload]).0 == *named);
        named.is_some_and(|named| !is_ours(&named))
    }

    /// Asks at the join listeners that we know. What is said there counts only as far as the roots that we believe signed it, or our
    /// operators.
    async fn look_around(&mut self, way: &Way) {
        let mut addrs: Vec<String> = self.file.join_addrs.iter().chain(&way.configured).cloned().collect();
        addrs.sort_unstable();
        addrs.dedup();
        for shown in ask_trust(addrs).await {
            match self.begin_era(&shown) {
                Ok(true) => {
                    tracing::warn!(era = self.trust.bundle().era, "the cluster's operators began a new era: we follow");
                    way.dialer.prefer(self.file.service_addrs.iter().cloned());
                    return;
                }
                Ok(false) => {}
                Err(failure) => {
                    tracing::warn!(code = %failure.code, "a new era is shown that is not believed: {failure}");
                    continue;
                }
            }
            match self.adopt(&shown.charter_chain, &shown.bundle_chain) {
                Ok(true) => {
                    way.dialer.prefer(shown.service_addrs.into_iter().take(MOST_ADDRS));
                    return;
                }
                Ok(false) => {}
                Err(failure) => {
                    tracing::warn!(code = %failure.code, "documents are shown that are not believed: {failure}");
                }
            }
        }
    }

    /// Follows the cluster into the era that `shown` proves, after it is on disk; `false`: it proves none after ours.
    fn begin_era(&mut self, shown: &TrustView) -> Result<bool, Failure> {
        let News::Todo(next) = self.trust.observe_era(shown).map_err(disbelief)? else { return Ok(false) };
        let next = next.trust();
        let (roots, saved) = (anchors(&next)?, next.saved());
        let mut file = self.file.clone();
        (file.anchor, file.charters, file.bundles) = (saved.anchor.to_vec(), saved.charters, saved.bundles);
        for (kept, told) in [(&mut file.service_addrs, &shown.service_addrs), (&mut file.join_addrs, &shown.join_addrs)]
        {
            learn_addrs(kept, told.get(..MOST_ADDRS).unwrap_or(told), 4 * MOST_ADDRS);
        }
        self.unproven = None;
        self.put_into_force(next, roots, file)?;
        let held = self.trust.before().and_then(|b| held_before(b.revocations.clone(), &b.bundles));
        if held.is_none() {
            tracing::info!("nothing is held of the era before that the vault could be shown");
        }
        self.before.keep(held);
        Ok(true)
    }

    async fn refresh(&mut self) -> Result<(), Failure> {
        let addrs = self.file.join_addrs.iter().cloned();
        let dialer = Dialer::new(addrs, ClientTls::rejoin(self.tls.clone()), Timing::default());
        let shown = match documents(&dialer).await {
            Err(failure) if !failure.leader_addrs().is_empty() => {
                dialer.prefer(failure.leader_addrs());
                documents(&dialer).await?
            }
            answer => answer?,
        };
        self.adopt(&shown.charter_chain, &shown.bundle_chain).map(drop)
    }

    /// Puts what continues ours into force, after it is on disk; `false`: nothing does.
    fn adopt(&mut self, charters: &[Statement], bundles: &[Statement]) -> Result<bool, Failure> {
        let Some(next) = self.trust.catch_up(charters, bundles).map_err(disbelief)? else { return Ok(false) };
        let (roots, saved) = (anchors(&next)?, next.saved());
        let file = ClusterFile { charters: saved.charters, bundles: saved.bundles, ..self.file.clone() };
        self.put_into_force(next, roots, file)?;
        tracing::info!(
            epoch = self.trust.bundle().epoch,
            charter = self.trust.charter().head().version,
            "documents renewed"
        );
        Ok(true)
    }

    fn put_into_force(&mut self, next: NodeTrust, roots: Anchors, file: ClusterFile) -> Result<(), Failure> {
        self.state.save(&file)?;
        self.tls.swap(roots);
        (self.trust, self.file) = (next, file);
        self.epoch.send_replace(self.trust.bundle().epoch);
        self.remember(None);
        Ok(())
    }
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
