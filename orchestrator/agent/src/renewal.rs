//! Renewal: asks the vault for the next certificate and the next keys for boxes.
//!
//! When, and the rules of the chain (the key persisted before the request, the same request after a lost reply), are
//! `holdfast_transport::renew`'s; here is through which connection, and what a node gets beside a certificate. A node whose
//! certificate is over first follows the bundles that it slept through, then comes back by its key at the join listener. There it
//! hears, too, that it was removed while it was cut off.

use crate::believed::{Denied, Document, Standing};
use crate::era::Eras;
use crate::node::Node;
use crate::removal;
use crate::state::{NodeFile, StateDir};
use crate::tasks::ground::Ground;
use holdfast_pki::csr::Request;
use holdfast_transport::check_clock;
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::join::learn_addrs;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::rejoin::{Answer, Rejoin};
use holdfast_transport::renew::{Authority, Renewed};
use holdfast_transport::rpc::identity_client::IdentityClient;
use holdfast_transport::tls::ClientTls;
use holdfast_types::Digest;
use holdfast_wire::v1::{Challenge, Issued, RenewRequest, TrustView};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a node that was told that it is removed asks whether it is, beside its starts.
const ONCE_A_DAY: Duration = Duration::from_secs(24 * 3600);
/// Most addresses that one answer may tell of each listener.
const MOST_ADDRS: usize = 8;
/// For one renewal, following the leader included.
const PATIENCE: Duration = Duration::from_secs(30);

/// The vault's `Identity` service, over connections that present our current certificate; and its join listener, where that
/// is over.
pub struct Vault<G: Ground> {
    /// The node: what it believes, its keys for boxes, and the way to the vault.
    pub node: Arc<Node<G>>,
    /// Where the vault's addresses are kept.
    pub state: Arc<StateDir>,
    /// The way to what was missed.
    pub eras: Arc<Eras>,
    /// When a removed node asked last whether it is one.
    pub asked: Mutex<Option<Instant>>,
}

impl<G: Ground> Authority for Vault<G> {
    async fn renew(&self, csr: Vec<u8>) -> Result<Renewed, Failure> {
        let (spki, hpke_pub) = self.offer(&csr).await?;
        let request = RenewRequest { csr, hpke_pub, bundle_epoch: self.node.believed.versions().0 };
        let op = |channel| {
            let request = request.clone();
            async move { IdentityClient::new(channel).renew(request).await }
        };
        let issued = self.node.vault.call(PATIENCE, op).await?;
        self.settle(spki, issued).await
    }

    async fn rejoin(&self, csr: Vec<u8>, old: PrivateKey) -> Result<Renewed, Failure> {
        let believed = &self.node.believed;
        // What it has seen signed it is told again seldom: whoever signed may have been a thief, and be gone.
        let removed = believed.standing() == Standing::Removed;
        if removed && !self.asks_again() {
            return Err(removal::refusal());
        }
        let (spki, hpke_pub) = self.offer(&csr).await?;
        self.eras.follow(believed, &self.node.vault).await;
        let addrs = self.eras.addrs().await;
        let dialer = Dialer::new(addrs, ClientTls::rejoin(believed.tls()), Timing::default());
        let rejoin = Rejoin::open(&dialer, believed.node_id().as_str()).await?;
        // The status of now names no node that was removed long ago: such a one believes it with its certificate alone.
        let challenge = rejoin.challenge().clone();
        if !removed {
            self.believe(&challenge).await?;
        }
        match rejoin.prove(&old, csr, hpke_pub, believed.versions().0).await? {
            Answer::Issued(issued) => {
                if removed {
                    self.believe(&challenge).await?;
                }
                tracing::info!("the vault took this node back by its key");
                self.settle(spki, issued).await
            }
            Answer::Removed(said) => Err(removal::hear(&self.node, said).await),
        }
    }
}

impl<G: Ground> Vault<G> {
    /// Whether a node that was told that it is removed asks once more: after each start, and once a day.
    fn asks_again(&self) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = asked.is_none_or(|at| at.elapsed() >= ONCE_A_DAY);
        if due {
            *asked = Some(Instant::now());
        }
        due
    }

    /// The HPKE key that goes with the key of `csr`.
    async fn offer(&self, csr: &[u8]) -> Result<(Digest, Vec<u8>), Failure> {
        let spki = Request::parse(csr).map_err(|e| lost(&e))?.spki_sha256();
        Ok((spki, self.node.believed.offer_key(spki).await.map_err(|e| lost(&e))?.to_vec()))
    }

    /// The documents of a server that TLS believes: those that continue ours count, and a Status of now.
    async fn believe(&self, shown: &Challenge) -> Result<(), Failure> {
        let refused = |e: Denied| Failure::refused("cluster-not-believed", format!("the vault's documents: {e}"));
        let status = shown.status.as_ref();
        status.map_or(Ok(()), check_clock)?;
        let chains = TrustView {
            charter_chain: shown.charter_chain.clone(),
            bundle_chain: shown.bundle_chain.clone(),
            ..TrustView::default()
        };
        self.node.believed.catch_up(chains).await.map_err(refused)?;
        if let Some(status) = status {
            self.node.believed.observe(Document::Status(status.clone())).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Keeps what came with the certificate. Before the certificate is promoted: a crash in between asks again, with the same keys.
    async fn settle(&self, spki: Digest, issued: Issued) -> Result<Renewed, Failure> {
        if issued.id != self.node.believed.node_id().as_str() {
            return Err(Failure::refused("certificate-not-ours", "the vault renewed somebody else's certificate"));
        }
        self.node.believed.accept_key(spki, issued.seq, issued.node_psk).await.map_err(|e| lost(&e))?;
        // Nobody signs where the vault is: what was known before is dialled after it, and no answer drives all of that out.
        let few = |told: Vec<String>| told.into_iter().take(MOST_ADDRS).collect::<Vec<_>>();
        let (service_addrs, join_addrs) = (few(issued.service_addrs), few(issued.join_addrs));
        self.node.vault.prefer(service_addrs.iter().cloned());
        let (id, seq, state) = (issued.id, issued.seq, self.state.clone());
        let keep = move || {
            let known = state.load_node()?;
            let (mut services, mut joins) = known.map(|n| (n.service_addrs, n.join_addrs)).unwrap_or_default();
            learn_addrs(&mut services, &service_addrs, 4 * MOST_ADDRS);
            learn_addrs(&mut joins, &join_addrs, 4 * MOST_ADDRS);
            state.save_node(&NodeFile { id, service_addrs: services, seq, join_addrs: joins })
        };
        let kept = tokio::task::spawn_blocking(keep).await;
        kept.map_err(|e| lost(&e))?.map_err(|e| lost(&e))?;
        let renew_after = u64::try_from(issued.renew_after_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        Ok(Renewed { chain: issued.chain, renew_after })
    }
}

fn lost(e: &dyn Display) -> Failure {
    Failure::failed("state", e.to_string())
}
