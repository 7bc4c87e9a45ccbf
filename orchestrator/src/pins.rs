//! Who may connect to our listener: nodes by the pins of the directory, operators by their chain.
//!
//! A certificate that a stolen CA key has made is in no directory, so it opens nothing here (protocol, registry pin).
//! Pins are kept while the vault is away; a node whose pin changed or ended is cut off at once.

use holdfast_transport::server::{ConnPeer, Connections};
use holdfast_transport::tls::{Admission, Peer, Refused};
use holdfast_types::{Digest, Role, SpiffeId, TrustDomain};
use holdfast_wire::v1::directory_event::Event as Shown;
use holdfast_wire::v1::{DirectoryEvent, NodeView};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A certificate: serial and key.
type Certificate = (String, Digest);

#[derive(Default)]
struct Known {
    /// Certificates that count, by node.
    nodes: HashMap<String, Vec<Certificate>>,
    /// Nodes that the present stream has shown, until it is complete.
    shown: Option<HashSet<String>>,
}

/// The pins, and the connections that they rule.
pub struct Pins {
    known: Mutex<Known>,
    connections: Connections,
    trust_domain: TrustDomain,
}

impl Pins {
    /// Nobody is known yet.
    pub fn new(connections: Connections, trust_domain: TrustDomain) -> Self {
        Self { known: Mutex::default(), connections, trust_domain }
    }
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new stream of the directory begins.
    pub fn begin(&self) {
        self.known().shown = Some(HashSet::new());
    }
    /// Takes what an event says about pins.
    pub fn take(&self, event: &DirectoryEvent) {
        match &event.event {
            Some(Shown::Node(view)) => self.pin(view),
            Some(Shown::NodeGone(id)) => self.unpin(id),
            Some(Shown::Synced(_)) => {
                let mut known = self.known();
                let Some(shown) = known.shown.take() else { return };
                let gone: Vec<String> = known.nodes.keys().filter(|id| !shown.contains(*id)).cloned().collect();
                drop(known);
                gone.iter().for_each(|id| self.unpin(id));
            }
            Some(Shown::Service(_) | Shown::ServiceGone(_) | Shown::Grant(_) | Shown::GrantGone(_)) | None => {}
        }
    }

    fn pin(&self, view: &NodeView) {
        let counts = view.role == "node" && matches!(view.state.as_str(), "ready" | "draining");
        let shown = [(&view.serial, &view.spki_sha256), (&view.pending_serial, &view.pending_spki_sha256)];
        let certificate = |(serial, spki): (&String, &Vec<u8>)| Some((serial.clone(), Digest::from_slice(spki)?));
        let pins: Vec<_> = shown.into_iter().filter(|(s, _)| counts && !s.is_empty()).filter_map(certificate).collect();
        {
            let mut known = self.known();
            if let Some(shown) = &mut known.shown {
                shown.insert(view.id.clone());
            }
            if pins.is_empty() {
                known.nodes.remove(&view.id);
            } else {
                known.nodes.insert(view.id.clone(), pins);
            }
        }
        self.cut_off(&view.id);
    }
    fn unpin(&self, id: &str) {
        self.known().nodes.remove(id);
        self.cut_off(id);
    }
    /// Ends the connections of a node that would not be admitted any more.
    fn cut_off(&self, id: &str) {
        let name = SpiffeId::new(self.trust_domain.clone(), Role::Node, id);
        let stale = |c: &ConnPeer| c.peer.as_ref().is_some_and(|p| !self.is_pinned(p));
        let closed = self.connections.close_those(&name, stale);
        if closed > 0 {
            tracing::info!(node = id, closed, "connections closed: the node's certificate does not count any more");
        }
    }
    fn is_pinned(&self, peer: &Peer) -> bool {
        let is = |(serial, spki): &Certificate| *serial == peer.serial_hex && *spki == peer.spki_sha256;
        self.known().nodes.get(&peer.id.name).is_some_and(|pins| pins.iter().any(is))
    }
}

impl Admission for Pins {
    fn admit(&self, peer: &Peer, _from: SocketAddr) -> Result<(), Refused> {
        match peer.id.role {
            Role::Node if self.is_pinned(peer) => Ok(()),
            Role::Node => Err(Refused("the directory does not show this certificate".to_owned())),
            // The directory has no operators; what one asks for is signed, and nodes judge it.
            Role::Op => Ok(()),
            Role::Vault | Role::Orch | Role::Svc => Err(Refused("only nodes and operators connect here".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::Millis;
    use holdfast_wire::v1::Synced;

    const KEY: Digest = Digest([7; 32]);

    fn pins() -> Pins {
        Pins::new(Connections::new(), TrustDomain::parse("test.example").unwrap())
    }
    fn peer(role: Role, name: &str, serial: &str) -> Peer {
        Peer {
            id: SpiffeId::new(TrustDomain::parse("test.example").unwrap(), role, name),
            serial_hex: serial.to_owned(),
            spki_sha256: KEY,
            not_after: Millis(i64::MAX),
            leaf_der: Vec::new(),
            root_sha256: Digest([0; 32]),
        }
    }
    fn node(id: &str, state: &str, serial: &str) -> DirectoryEvent {
        let view = NodeView {
            id: id.into(),
            role: "node".into(),
            state: state.into(),
            serial: serial.into(),
            spki_sha256: KEY.to_vec(),
            ..NodeView::default()
        };
        DirectoryEvent { event: Some(Shown::Node(view)) }
    }
    fn admits(pins: &Pins, peer: &Peer) -> bool {
        pins.admit(peer, SocketAddr::from(([127, 0, 0, 1], 1))).is_ok()
    }

    #[test]
    fn a_node_is_admitted_by_the_certificate_that_the_directory_shows_and_no_other() {
        let pins = pins();
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "aa")));
        pins.take(&node("node-1", "ready", "aa"));
        assert!(admits(&pins, &peer(Role::Node, "node-1", "aa")));
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "bb")));
        assert!(!admits(&pins, &peer(Role::Node, "node-2", "aa")));
        pins.take(&node("node-1", "quarantined", "aa"));
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "aa")));
    }

    #[test]
    fn an_empty_serial_pins_nobody() {
        let pins = pins();
        pins.take(&node("node-1", "ready", ""));
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "")));
    }

    #[test]
    fn what_a_new_picture_does_not_show_is_gone_once_it_is_complete() {
        let pins = pins();
        pins.take(&node("node-1", "ready", "aa"));
        pins.begin();
        assert!(admits(&pins, &peer(Role::Node, "node-1", "aa")));
        pins.take(&node("node-2", "ready", "aa"));
        pins.take(&DirectoryEvent { event: Some(Shown::Synced(Synced::default())) });
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "aa")));
        assert!(admits(&pins, &peer(Role::Node, "node-2", "aa")));
    }

    #[test]
    fn operators_come_by_their_chain_and_other_roles_not_at_all() {
        let pins = pins();
        assert!(admits(&pins, &peer(Role::Op, "ann", "aa")));
        for role in [Role::Vault, Role::Orch, Role::Svc] {
            assert!(!admits(&pins, &peer(role, "x", "aa")));
        }
    }
}
