//! Keeping our certificate alive: renewed over the connection that is open, then the connection is made anew.
//!
//! LAW: once the new certificate is in use, nothing is said with the old one any more: to the vault that would look like
//! a second holder (protocol, renewal chain R5). So the owner of the connection finishes its calls when told that a
//! renewal is done, and dials again (`after_a_renewal_no_call_goes_over_a_connection_of_the_old_certificate`).
//!
//! A certificate that is over opens no connection: we come back by its key, at the join listener. The bundles that we slept
//! through are followed by [`crate::trust`], which asks for them while there is no connection.

use crate::trust::Told;
use holdfast_transport::check_clock;
use holdfast_transport::client::{Dialer, Link, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::rejoin::{Answer, Rejoin};
use holdfast_transport::renew::{Authority, Renewed};
use holdfast_transport::rpc::identity_client::IdentityClient;
use holdfast_transport::tls::{ClientTls, TrustCell};
use holdfast_wire::v1::{Issued, RenewRequest};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// For a connection and the answer, together.
const PATIENCE: Duration = Duration::from_secs(30);

/// The vault: over the connection that is open now, or at its join listeners.
pub struct Vault {
    /// The connection.
    pub link: watch::Receiver<Option<Link>>,
    /// The epoch of the bundle that we believe.
    pub bundle: watch::Receiver<u64>,
    /// Our id.
    pub id: String,
    /// Join listeners.
    pub join_addrs: Vec<String>,
    /// The roots that we believe.
    pub trust: Arc<TrustCell>,
    /// Where the vault is, as it said with the newest certificate: [`crate::trust`] keeps it.
    pub told: watch::Sender<Told>,
}

impl Authority for Vault {
    async fn renew(&self, csr: Vec<u8>) -> Result<Renewed, Failure> {
        let late = |_| Failure::unavailable("timed-out", format!("no answer within {PATIENCE:?}"));
        let issued = timeout(PATIENCE, async {
            let stopping = |_| Failure::unavailable("stopped", "the orchestrator is stopping");
            let link = self.link.clone().wait_for(Option::is_some).await.map_err(stopping)?.clone();
            let link = link.ok_or_else(|| Failure::unavailable("unreachable", "no connection to the vault"))?;
            let request = RenewRequest { csr, hpke_pub: Vec::new(), bundle_epoch: self.epoch() };
            let answer = IdentityClient::new(link.channel.clone()).renew(request).await;
            answer.map(tonic::Response::into_inner).map_err(|status| link.explain(status))
        });
        Ok(self.settle(issued.await.map_err(late)??))
    }

    async fn rejoin(&self, csr: Vec<u8>, old: PrivateKey) -> Result<Renewed, Failure> {
        let tls = ClientTls::rejoin(self.trust.clone());
        let mut addrs = self.told.borrow().join_addrs.clone();
        let older: Vec<String> = self.join_addrs.iter().filter(|a| !addrs.contains(a)).cloned().collect();
        addrs.extend(older);
        let dialer = Dialer::new(addrs, tls, Timing::default());
        let rejoin = Rejoin::open(&dialer, &self.id).await?;
        rejoin.challenge().status.as_ref().map_or(Ok(()), check_clock)?;
        let issued = match rejoin.prove(&old, csr, Vec::new(), self.epoch()).await? {
            Answer::Issued(issued) => issued,
            Answer::Removed(_) => {
                return Err(Failure::refused("identity-refused", "this identity is removed")
                    .help("the machine joins again, with an empty state directory and a new token"));
            }
        };
        tracing::info!(id = %self.id, "the vault took us back by our key");
        Ok(self.settle(issued))
    }
}

impl Vault {
    fn epoch(&self) -> u64 {
        *self.bundle.borrow()
    }

    /// Passes on what came with the certificate.
    fn settle(&self, issued: Issued) -> Renewed {
        self.told.send_replace(Told { service_addrs: issued.service_addrs, join_addrs: issued.join_addrs });
        let renew_after = u64::try_from(issued.renew_after_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        Renewed { chain: issued.chain, renew_after }
    }
}
