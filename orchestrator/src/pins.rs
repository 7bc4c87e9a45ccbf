//! Who may connect to our listener: nodes by the pins of the directory, operators by their chain.
//!
//! A certificate that a stolen CA key has made is in no directory, so it opens nothing here (protocol, registry pin).
//! Pins are kept while the vault is away; a node whose pins ended is cut off at once.
//!
//! A node that renewed its certificate is no such node: connections of the certificate before go on for a moment, in which
//! it moves to the next one. No new one is opened by it.

use holdfast_transport::server::{ConnPeer, Connections};
use holdfast_transport::tls::{Admission, Peer, Refused};
use holdfast_types::{Digest, Role, SpiffeId, TrustDomain};
use holdfast_wire::v1::directory_event::Event as Shown;
use holdfast_wire::v1::{DirectoryEvent, NodeView};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long connections of a replaced certificate go on; the vault's are as long.
const MOVING: Duration = Duration::from_secs(1);

/// A certificate: serial and key.
type Certificate = (String, Digest);

/// What is known of one node.
#[derive(Default)]
struct Pinned {
    /// Certificates that count.
    counts: Vec<Certificate>,
    /// Certificates that counted before, and until when their connections go on.
    replaced: Vec<(Certificate, Instant)>,
}

impl Pinned {
    /// `counts` from now on; what is not among it any more is replaced.
    fn renew(&mut self, counts: Vec<Certificate>, now: Instant) {
        let until = now + MOVING;
        let before = std::mem::replace(&mut self.counts, counts);
        self.replaced.extend(before.into_iter().map(|certificate| (certificate, until)));
        self.replaced.retain(|(certificate, until)| *until > now && !self.counts.contains(certificate));
    }
    /// When the last connection of a replaced certificate ends.
    fn moved_by(&self) -> Option<Instant> {
        self.replaced.iter().map(|(_, until)| *until).max()
    }
}

#[derive(Default)]
struct Known {
    /// The nodes of which a certificate counts.
    nodes: HashMap<String, Pinned>,
    /// Nodes that the present stream has shown, until it is complete.
    shown: Option<HashSet<String>>,
}

impl Known {
    fn counts(&self, peer: &Peer) -> bool {
        self.nodes.get(&peer.id.name).is_some_and(|n| n.counts.iter().any(|c| is_of(c, peer)))
    }
    /// Whether a connection that is open goes on.
    fn may_stay(&self, peer: &Peer, now: Instant) -> bool {
        let moves = |(c, until): &(Certificate, Instant)| is_of(c, peer) && *until > now;
        self.counts(peer) || self.nodes.get(&peer.id.name).is_some_and(|n| n.replaced.iter().any(moves))
    }
}

fn is_of((serial, spki): &Certificate, peer: &Peer) -> bool {
    *serial == peer.serial_hex && *spki == peer.spki_sha256
}

/// The pins, and the connections that they rule. Clones are the same pins.
#[derive(Clone)]
pub struct Pins {
    known: Arc<Mutex<Known>>,
    connections: Connections,
    trust_domain: TrustDomain,
}

impl Pins {
    /// Nobody is known yet.
    pub fn new(connections: Connections, trust_domain: TrustDomain) -> Self {
        Self { known: Arc::default(), connections, trust_domain }
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
            Some(
                Shown::Service(_)
                | Shown::ServiceGone(_)
                | Shown::Grant(_)
                | Shown::GrantGone(_)
                | Shown::Revocations(_),
            )
            | None => {}
        }
    }

    fn pin(&self, view: &NodeView) {
        let counts = view.role == "node" && matches!(view.state.as_str(), "ready" | "draining");
        let shown = [(&view.serial, &view.spki_sha256), (&view.pending_serial, &view.pending_spki_sha256)];
        let certificate = |(serial, spki): (&String, &Vec<u8>)| Some((serial.clone(), Digest::from_slice(spki)?));
        let pins: Vec<_> = shown.into_iter().filter(|(s, _)| counts && !s.is_empty()).filter_map(certificate).collect();
        let moved_by = {
            let mut known = self.known();
            if let Some(shown) = &mut known.shown {
                shown.insert(view.id.clone());
            }
            if pins.is_empty() {
                known.nodes.remove(&view.id);
                None
            } else {
                let node = known.nodes.entry(view.id.clone()).or_default();
                node.renew(pins, Instant::now());
                node.moved_by()
            }
        };
        self.cut_off(&view.id);
        if let Some(moved_by) = moved_by {
            let (pins, id) = (self.clone(), view.id.clone());
            tokio::spawn(async move {
                sleep_until(moved_by).await;
                pins.cut_off(&id);
            });
        }
    }
    fn unpin(&self, id: &str) {
        self.known().nodes.remove(id);
        self.cut_off(id);
    }
    /// Ends the connections of a node that may not go on.
    fn cut_off(&self, id: &str) {
        let name = SpiffeId::new(self.trust_domain.clone(), Role::Node, id);
        let now = Instant::now();
        let stale = |c: &ConnPeer| c.peer.as_ref().is_some_and(|p| !self.known().may_stay(p, now));
        let closed = self.connections.close_those(&name, stale);
        if closed > 0 {
            tracing::info!(node = id, closed, "connections closed: the node's certificate does not count any more");
        }
    }
}

impl Admission for Pins {
    fn admit(&self, peer: &Peer, _from: SocketAddr) -> Result<(), Refused> {
        match peer.id.role {
            Role::Node if self.known().counts(peer) => Ok(()),
            Role::Node => Err(Refused::Unsaid("the directory does not show this certificate".to_owned())),
            // The directory has no operators; what one asks for is signed, and nodes judge it.
            Role::Op => Ok(()),
            Role::Vault | Role::Orch | Role::Svc => {
                Err(Refused::Unsaid("only nodes and operators connect here".to_owned()))
            }
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

    #[tokio::test]
    async fn a_node_is_admitted_by_the_certificate_that_the_directory_shows_and_no_other() {
        let pins = pins();
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "aa")));
        pins.take(&node("node-1", "ready", "aa"));
        assert!(admits(&pins, &peer(Role::Node, "node-1", "aa")));
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "bb")));
        assert!(!admits(&pins, &peer(Role::Node, "node-2", "aa")));
        pins.take(&node("node-1", "quarantined", "aa"));
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "aa")));
    }

    /// The directory shows `serial`, and `pending` as the certificate that is to follow it.
    fn renewing(id: &str, serial: &str, pending: &str) -> DirectoryEvent {
        let mut shown = node(id, "ready", serial);
        if let Some(Shown::Node(view)) = &mut shown.event {
            (view.pending_serial, view.pending_spki_sha256) = (pending.into(), KEY.to_vec());
        }
        shown
    }
    fn stays(pins: &Pins, serial: &str, at: Instant) -> bool {
        pins.known().may_stay(&peer(Role::Node, "node-1", serial), at)
    }

    #[tokio::test]
    async fn a_certificate_that_is_issued_and_not_used_yet_is_admitted_beside_the_present_one() {
        let pins = pins();
        pins.take(&renewing("node-1", "aa", "bb"));
        assert!(["aa", "bb"].iter().all(|serial| admits(&pins, &peer(Role::Node, "node-1", serial))));
    }

    #[tokio::test]
    async fn connections_of_a_replaced_certificate_go_on_for_a_moment_and_no_new_one_is_opened_by_it() {
        let pins = pins();
        pins.take(&renewing("node-1", "aa", "bb"));
        let before = Instant::now();
        pins.take(&node("node-1", "ready", "bb"));
        let over = Instant::now() + MOVING;
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "aa")));
        assert!(stays(&pins, "aa", before) && stays(&pins, "bb", before));
        assert!(!stays(&pins, "aa", over) && stays(&pins, "bb", over));
    }

    #[test]
    fn a_replaced_certificate_gets_no_more_time_for_being_shown_again() {
        let (mut node, start) = (Pinned::default(), Instant::now());
        let certificate = |serial: &str| (serial.to_owned(), KEY);
        node.renew(vec![certificate("aa")], start);
        node.renew(vec![certificate("bb")], start);
        node.renew(vec![certificate("bb")], start + MOVING / 2);
        assert_eq!(node.moved_by(), Some(start + MOVING));
        node.renew(vec![certificate("bb")], start + MOVING);
        assert_eq!((node.moved_by(), node.counts), (None, vec![certificate("bb")]));
    }

    #[tokio::test]
    async fn a_node_that_was_taken_its_rights_has_no_moment_left_for_any_certificate() {
        for state in ["quarantined", "removed", "expired"] {
            let pins = pins();
            pins.take(&node("node-1", "ready", "aa"));
            pins.take(&node("node-1", "ready", "bb"));
            pins.take(&node("node-1", state, "bb"));
            assert!(!["aa", "bb"].iter().any(|serial| stays(&pins, serial, Instant::now())), "{state}");
            pins.take(&node("node-1", "ready", "cc"));
            assert!(!stays(&pins, "aa", Instant::now()), "what was taken does not come back");
        }
        let pins = pins();
        pins.take(&node("node-1", "ready", "aa"));
        pins.take(&node("node-1", "ready", "bb"));
        pins.take(&DirectoryEvent { event: Some(Shown::NodeGone("node-1".into())) });
        assert!(!["aa", "bb"].iter().any(|serial| stays(&pins, serial, Instant::now())));
    }

    #[tokio::test]
    async fn an_empty_serial_pins_nobody() {
        let pins = pins();
        pins.take(&node("node-1", "ready", ""));
        assert!(!admits(&pins, &peer(Role::Node, "node-1", "")));
    }

    #[tokio::test]
    async fn what_a_new_picture_does_not_show_is_gone_once_it_is_complete() {
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
