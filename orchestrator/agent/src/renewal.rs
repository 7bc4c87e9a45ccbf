//! Renewal: asks the vault for the next certificate and the next keys for boxes, in time, and says when it is there.
//!
//! The rules of the chain (the key persisted before the request, the same request after a lost reply) are
//! `holdfast_transport::renew`'s; here is when, through which connection, and what a node gets beside a certificate.

use crate::believed::Believed;
use crate::state::{NodeFile, StateDir};
use holdfast_pki::csr::Request;
use holdfast_transport::client::{Backoff, Dialer};
use holdfast_transport::failure::Failure;
use holdfast_transport::now;
use holdfast_transport::renew::{Authority, Renewed, Renewer};
use holdfast_transport::rpc::identity_client::IdentityClient;
use holdfast_transport::tls::LocalIdentity;
use holdfast_types::Millis;
use holdfast_wire::v1::RenewRequest;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// For one renewal, following the leader included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest sleep: after it the clock is looked at again.
const NAP: Duration = Duration::from_secs(60);

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
        let node = NodeFile { id: issued.id, service_addrs: issued.service_addrs, seq: issued.seq };
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

/// When to renew, and who wants to know that it was done.
#[derive(Debug)]
pub struct Renewals {
    /// Notify it to renew at once.
    pub wanted: Arc<Notify>,
    /// Rises with every new certificate.
    pub done: watch::Sender<u64>,
}
impl Default for Renewals {
    fn default() -> Self {
        Self { wanted: Arc::default(), done: watch::Sender::new(0) }
    }
}

impl Renewals {
    /// Until `stop`: renews when the certificate in `first` is a third through its life, when told to, or at once if
    /// `now_wanted`; then when the vault wants to be asked again.
    pub async fn run(
        &self,
        renewer: &Renewer<Vault>,
        first: &LocalIdentity,
        now_wanted: bool,
        stop: &CancellationToken,
    ) {
        let rounds = async {
            let mut due = if now_wanted { now() } else { third_of_life(first) };
            loop {
                tokio::select! {
                    () = until(due) => {}
                    () = self.wanted.notified() => {}
                }
                due = until_renewed(renewer).await;
                self.done.send_modify(|n| *n += 1);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
    }
}

async fn until_renewed(renewer: &Renewer<Vault>) -> Millis {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
    loop {
        match renewer.renew().await {
            Ok(due) => return due,
            Err(error) => tracing::warn!(%error, "certificate not renewed yet"),
        }
        sleep(backoff.next_delay()).await;
    }
}

async fn until(due: Millis) {
    while now() < due {
        sleep(due.since(now()).min(NAP)).await;
    }
}

fn third_of_life(identity: &LocalIdentity) -> Millis {
    identity.not_before().plus(identity.not_after().since(identity.not_before()) / 3)
}
