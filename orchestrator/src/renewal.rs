//! Keeping our certificate alive: renewed over the connection that is open, then the connection is made anew.
//!
//! LAW: once the new certificate is in use, nothing is said with the old one any more: to the vault that would look like
//! a second holder (protocol, renewal chain R5). So the owner of the connection finishes its calls when told that a
//! renewal is done, and dials again (`after_a_renewal_no_call_goes_over_a_connection_of_the_old_certificate`).

use holdfast_transport::client::Link;
use holdfast_transport::failure::Failure;
use holdfast_transport::renew::{Authority, Renewed};
use holdfast_transport::rpc::identity_client::IdentityClient;
use holdfast_wire::v1::RenewRequest;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// For a connection and the answer, together.
const PATIENCE: Duration = Duration::from_secs(30);

/// The vault, over the connection that is open now.
pub struct OpenLink(pub watch::Receiver<Option<Link>>);

impl Authority for OpenLink {
    async fn renew(&self, csr: Vec<u8>) -> Result<Renewed, Failure> {
        let late = |_| Failure::unavailable("timed-out", format!("no answer within {PATIENCE:?}"));
        let issued = timeout(PATIENCE, async {
            let stopping = |_| Failure::unavailable("stopped", "the orchestrator is stopping");
            let link = self.0.clone().wait_for(Option::is_some).await.map_err(stopping)?.clone();
            let link = link.ok_or_else(|| Failure::unavailable("unreachable", "no connection to the vault"))?;
            let request = RenewRequest { csr, hpke_pub: Vec::new() };
            let answer = IdentityClient::new(link.channel.clone()).renew(request).await;
            answer.map(tonic::Response::into_inner).map_err(|status| link.explain(status))
        });
        let issued = issued.await.map_err(late)??;
        let renew_after = u64::try_from(issued.renew_after_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        Ok(Renewed { chain: issued.chain, renew_after })
    }
}
