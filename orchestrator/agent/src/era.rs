//! The way to what this node slept through: when no vault that it believes can be reached, it asks at the join listeners that it
//! knows what the cluster's documents are now. Bundles that continue its own lead through any number of root rotations; if its
//! operators have begun a new era, it follows them there (protocol, root rotation and disaster).
//!
//! Nothing proves who answers there. What counts is signatures: those of roots that are believed already
//! ([`Believed::catch_up`]), or the operators' ([`Believed::begin_era`]).

use crate::believed::{Believed, Standing};
use crate::node::Node;
use crate::state::StateDir;
use crate::tasks::ground::Ground;
use holdfast_transport::client::Dialer;
use holdfast_transport::failure::Failure;
use holdfast_transport::join::{ask_trust, learn_addrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// From the first failure to the first question, and from one question to the next.
const REST: Duration = Duration::from_secs(5);
/// Most of the addresses that an answer may add to ours: they are not signed.
const MOST_ADDRS: usize = 8;

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Nothing that is believed and new.
    Nothing,
    /// Bundles or charters that continue ours.
    Documents,
    /// A new era.
    Era,
}

/// Looks for what was missed.
pub struct Eras {
    state: Arc<StateDir>,
    configured: Vec<String>,
    /// When to ask; `None` while a vault is reached.
    next: Mutex<Option<Instant>>,
}

impl Eras {
    /// At the join listeners that the vault told of, kept in `state`, and at those of the configuration.
    pub fn new(state: Arc<StateDir>, configured: Vec<String>) -> Self {
        Self { state, configured, next: Mutex::new(None) }
    }
    /// A vault that is believed was reached.
    pub fn reached(&self) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
    /// None was reached, because of `failure`: asks, if it is time to.
    pub async fn look<G: Ground>(&self, node: &Node<G>, failure: &Failure) {
        if ["renew-first", "identity-refused"].contains(&failure.code.as_ref()) {
            if self.is_due(true) {
                node.renewals.wanted.notify_one();
            }
            return;
        }
        // Who was removed for ever has nothing to follow, but into a new era, where no voter of this one is believed.
        if failure.code == "certificate-refused" && node.believed.standing() == Standing::Removed {
            return;
        }
        if !failure.leader_addrs().is_empty() || !self.is_due(failure.code == "server-not-trusted") {
            return;
        }
        if self.follow(&node.believed, &node.vault).await == Followed::Era {
            node.renewals.wanted.notify_one();
        }
    }

    /// Asks everybody, and follows the first who shows something that continues what is believed.
    pub async fn follow(&self, believed: &Arc<Believed>, vault: &Dialer) -> Followed {
        for shown in ask_trust(self.addrs().await).await {
            let [told, joins] = [&shown.service_addrs, &shown.join_addrs]
                .map(|told| told.iter().take(MOST_ADDRS).cloned().collect::<Vec<String>>());
            match believed.begin_era(shown.clone()).await {
                Ok(true) => {
                    tracing::warn!(vault = ?told, "the cluster's operators began a new era: this node follows");
                    vault.prefer(told.clone());
                    // Before the renewal, which writes the same file.
                    self.keep(told, joins).await;
                    return Followed::Era;
                }
                Ok(false) => {}
                Err(denied) => {
                    tracing::warn!(%denied, "a new era is shown that is not believed");
                    continue;
                }
            }
            match believed.catch_up(shown).await {
                Ok(true) => {
                    tracing::info!(vault = ?told, "the documents of the cluster that this node had missed are believed");
                    vault.prefer(told);
                    return Followed::Documents;
                }
                Ok(false) => {}
                Err(denied) => tracing::warn!(%denied, "documents are shown that are not believed"),
            }
        }
        Followed::Nothing
    }

    fn is_due(&self, at_once: bool) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = next.map_or(at_once, |at| at <= now);
        if due || next.is_none() {
            *next = Some(now + REST);
        }
        due
    }
    /// Keeps the addresses, before those that are known: a restart shows the same era once more, and that is no news then.
    async fn keep(&self, services: Vec<String>, joins: Vec<String>) {
        let state = self.state.clone();
        let keep = move || {
            let mut node = state.load_node().ok().flatten()?;
            for (kept, told) in [(&mut node.service_addrs, services), (&mut node.join_addrs, joins)] {
                learn_addrs(kept, &told, 2 * MOST_ADDRS);
            }
            state.save_node(&node).ok()
        };
        if !matches!(tokio::task::spawn_blocking(keep).await, Ok(Some(()))) {
            tracing::warn!("where the vaults of the new era are could not be kept");
        }
    }
    /// The join listeners that are known.
    pub async fn addrs(&self) -> Vec<String> {
        let state = self.state.clone();
        let kept = tokio::task::spawn_blocking(move || state.load_node().ok().flatten()).await.ok().flatten();
        let mut addrs = kept.map(|node| node.join_addrs).unwrap_or_default();
        addrs.extend(self.configured.iter().cloned());
        addrs.sort_unstable();
        addrs.dedup();
        addrs
    }
}
