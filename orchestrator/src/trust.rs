//! Whom we believe: the cluster's documents from the join on, and the roots in them for TLS.
//!
//! A Status that names another bundle than ours is a hint to fetch the documents again, where anybody may read them;
//! they count only because each is signed by what we believed before.

use crate::state::{ClusterFile, StateDir};
use holdfast_orchestrator_core::verify::{News, NodeTrust, Refusal};
use holdfast_pki::chain::Anchors;
use holdfast_transport::check_clock;
use holdfast_transport::client::{Dialer, Link, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::join::{ask_trust, documents, one_cluster};
use holdfast_transport::tls::{ClientTls, Server, TrustCell};
use holdfast_types::{Digest, TrustDomain, sha256};
use holdfast_wire::statement;
use holdfast_wire::v1::{Challenge, Statement, Status, TrustView};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long no vault is reached before we ask whether there is a new era, and between two questions.
const LOST: Duration = Duration::from_secs(5);
/// Most of the addresses that an answer may add to ours: they are not signed.
const MOST_ADDRS: usize = 8;
/// Shortest time between two fetches of documents.
const REST: Duration = Duration::from_secs(30);

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
}

/// The documents in force, on disk and in TLS.
pub struct Believed {
    trust: NodeTrust,
    file: ClusterFile,
    state: StateDir,
    tls: Arc<TrustCell>,
}

impl Believed {
    /// From what was kept.
    pub fn open(state: StateDir, file: ClusterFile) -> Result<Self, Failure> {
        let anchor = Digest::from_slice(&file.anchor);
        let anchor = anchor.ok_or_else(|| Failure::failed("corrupt", "the kept anchor has not 32 bytes"))?;
        let trust = NodeTrust::join(anchor, &file.charters, &file.bundles).map_err(disbelief)?;
        let tls = TrustCell::new(anchors(&trust)?);
        Ok(Self { trust, file, state, tls })
    }
    /// The roots that TLS believes; they follow the bundle.
    pub fn tls(&self) -> Arc<TrustCell> {
        self.tls.clone()
    }
    /// Our trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.trust.trust_domain()
    }

    /// Until `stop`: fetches the documents again whenever a Status of `hints` names another bundle, and looks for a new era while
    /// no vault that we believe is reached.
    pub async fn follow(mut self, mut hints: watch::Receiver<Option<Statement>>, way: Way, stop: CancellationToken) {
        let rounds = async {
            loop {
                let changed = tokio::select! {
                    changed = hints.changed() => changed,
                    () = tokio::time::sleep(LOST) => {
                        if way.link.borrow().is_none() {
                            self.look_for_an_era(&way).await;
                        }
                        continue;
                    }
                };
                if changed.is_err() {
                    return;
                }
                let hint = hints.borrow_and_update().clone();
                if !hint.is_some_and(|st| self.is_news(&st)) {
                    continue;
                }
                if let Err(failure) = self.refresh().await {
                    tracing::warn!(code = %failure.code, "the cluster's documents were not renewed: {failure}");
                }
                tokio::time::sleep(REST).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
    }

    fn is_news(&self, status: &Statement) -> bool {
        let named = statement::peek::<Status>(status).map(|s| s.bundle_sha256);
        let ours = self.file.bundles.last().map(|st| sha256(&[&st.payload]).to_vec());
        named.is_ok_and(|n| Some(n) != ours)
    }

    /// Asks at the join listeners that we know; what is said there counts only as far as our operators signed it.
    async fn look_for_an_era(&mut self, way: &Way) {
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
            let older = kept.iter().filter(|a| !told.contains(a));
            *kept = told.iter().take(MOST_ADDRS).chain(older).take(4 * MOST_ADDRS).cloned().collect();
        }
        self.state.save(&file)?;
        self.tls.swap(roots);
        (self.trust, self.file) = (next, file);
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
        self.adopt(&shown)
    }

    /// Puts what is new into force, after it is on disk.
    fn adopt(&mut self, shown: &Challenge) -> Result<(), Failure> {
        let mut next = self.trust.clone();
        for st in &shown.charter_chain {
            match next.observe_charter(st).map_err(disbelief)? {
                News::Todo(charter) => next.adopt_charter(charter),
                News::AlreadyDone | News::Stale => {}
            }
        }
        for st in &shown.bundle_chain {
            match next.observe_bundle(st).map_err(disbelief)? {
                News::Todo(bundle) => next.adopt_bundle(bundle),
                News::AlreadyDone | News::Stale => {}
            }
        }
        let roots = anchors(&next)?;
        let saved = next.saved();
        let file = ClusterFile { charters: saved.charters, bundles: saved.bundles, ..self.file.clone() };
        self.state.save(&file)?;
        tracing::info!(epoch = next.bundle().epoch, charter = next.charter().head().version, "documents renewed");
        self.tls.swap(roots);
        (self.trust, self.file) = (next, file);
        Ok(())
    }
}
