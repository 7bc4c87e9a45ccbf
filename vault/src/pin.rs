//! The registry pin in the handshakes of listener S.

use crate::cluster::Cluster;
use holdfast_transport::tls::{Admission, Peer, Refused};
use holdfast_types::Millis;
use holdfast_vault_core::prepare::{self, Pin};
use holdfast_vault_core::{IdentityState, State};
use std::net::SocketAddr;
use std::sync::Arc;

/// Asks the registry in every handshake, so that a stranger does not even get a connection.
pub struct RegistryPin(pub Arc<Cluster>);
impl Admission for RegistryPin {
    fn admit(&self, peer: &Peer, _from: SocketAddr) -> Result<(), Refused> {
        if !self.0.leads() {
            // This voter may not know the newest certificates; each call is told where the leader is, and no more.
            return Ok(());
        }
        let no = |why: String| Err(Refused::Unsaid(why));
        match self.0.pin(peer) {
            // A retired certificate gets in, so that the call can record the fork and refuse.
            // So does the one of an identity that operators released: it may renew, and nothing else.
            Ok(Pin::Good | Pin::Activate(_) | Pin::Fork | Pin::Released) => Ok(()),
            Ok(Pin::Unknown) => {
                let (cluster, peer) = (Arc::clone(&self.0), peer.clone());
                tokio::spawn(async move { cluster.unknown_certificate(&peer).await });
                no("certificate is not in the registry".to_owned())
            }
            Ok(Pin::State(IdentityState::Removed)) => Err(Refused::Removed),
            Ok(Pin::State(s)) => no(format!("identity is {}", s.as_str())),
            Err(e) => no(e.to_string()),
        }
    }
    /// After a reset: a machine of the era before gets in by its key, to renew and for nothing else.
    fn knows_key(&self, peer: &Peer, now: Millis) -> bool {
        let kept = |s: &State| {
            prepare::kept_from_before(s, peer.id.role, &peer.id.name, &peer.serial_hex, &peer.spki_sha256, s.time(now))
        };
        self.0.look(kept).unwrap_or(false)
    }
}
