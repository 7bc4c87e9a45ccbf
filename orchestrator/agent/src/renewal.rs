//! Renewal: asks the vault for the next certificate and the next keys for boxes.
//!
//! When, and the rules of the chain (the key persisted before the request, the same request after a lost reply), are
//! `holdfast_transport::renew`'s; here is through which connection, and what a node gets beside a certificate.

use crate::believed::Believed;
use crate::state::{NodeFile, StateDir};
use holdfast_pki::csr::Request;
use holdfast_transport::client::Dialer;
use holdfast_transport::failure::Failure;
use holdfast_transport::renew::{Authority, Renewed};
use holdfast_transport::rpc::identity_client::IdentityClient;
use holdfast_wire::v1::RenewRequest;
use std::sync::Arc;
use std::time::Duration;

/// For one renewal, following the leader included.
const PATIENCE: Duration = Duration::from_secs(30);

/// The vault's `Identity` service, over connections that present our current certificate.
pub struct Vault {
    /// Dials the vault.
    pub dialer: Arc<Dialer>,
    /// Holds the keys for boxes.
    pub believed: Arc<Believed>,
    /// Where the vault's addresses are kept.
    pub state: Arc<StateDir>,
}

impl Authority for Vault {
    async fn renew(&self, csr: Vec<u8>) -> Result<Renewed, Failure> {
        let lost = |e: &dyn std::fmt::Display| Failure::failed("state", e.to_string());
        let spki = Request::parse(&csr).map_err(|e| lost(&e))?.spki_sha256();
        let hpke_pub = self.believed.offer_key(spki).await.map_err(|e| lost(&e))?.to_vec();
        let request = RenewRequest { csr, hpke_pub };
        let op = |channel| {
            let request = request.clone();
            async move { IdentityClient::new(channel).renew(request).await }
        };
        let issued = self.dialer.call(PATIENCE, op).await?;
        if issued.id != self.believed.node_id().as_str() {
            return Err(Failure::refused("certificate-not-ours", "the vault renewed somebody else's certificate"));
        }
        // Before the certificate is promoted: a crash in between renews again, with the same keys.
        self.believed.accept_key(spki, issued.seq, issued.node_psk).await.map_err(|e| lost(&e))?;
        let (service_addrs, join_addrs) = (issued.service_addrs, issued.join_addrs);
        let node = NodeFile { id: issued.id, service_addrs, seq: issued.seq, join_addrs };
        if !node.service_addrs.is_empty() {
            self.dialer.set_addrs(node.service_addrs.clone());
        }
        let state = self.state.clone();
        let kept = tokio::task::spawn_blocking(move || state.save_node(&node)).await;
        kept.map_err(|e| lost(&e))?.map_err(|e| lost(&e))?;
        let renew_after = u64::try_from(issued.renew_after_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        Ok(Renewed { chain: issued.chain, renew_after })
    }
}
