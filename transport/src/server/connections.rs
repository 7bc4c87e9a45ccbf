//! Who is connected now, by identity, and how to end that.
//!
//! Revocation works through here: certificates and trust are only looked at in handshakes, so a connection of a peer
//! that lost its rights lives until somebody closes it.

use crate::failure::Failure;
use crate::tls::Peer;
use holdfast_types::SpiffeId;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The other end of a connection. In every request's extensions, as an `Arc`.
#[derive(Debug)]
pub struct ConnPeer {
    /// The verified peer; `None` on the join listener.
    pub peer: Option<Peer>,
    /// Where it dials from.
    pub addr: SocketAddr,
    /// Its certificate is being replaced: see [`Connections::replace_those`].
    pub(crate) replaced: AtomicBool,
}

/// The verified peer that sent `request`.
pub fn peer_of<T>(request: &tonic::Request<T>) -> Result<&Peer, Failure> {
    let conn = request.extensions().get::<Arc<ConnPeer>>();
    conn.and_then(|c| c.peer.as_ref())
        .ok_or_else(|| Failure::refused("bad-credential", "this call needs a connection with a client certificate"))
}

/// Whether `request` came over a connection whose certificate was replaced meanwhile: what was on its way still arrives.
pub fn is_replaced<T>(request: &tonic::Request<T>) -> bool {
    request.extensions().get::<Arc<ConnPeer>>().is_some_and(|c| c.replaced.load(Ordering::Acquire))
}

/// The connections of a process, of all its listeners or of one: clones share one registry.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    /// Connections without a client certificate are under `None`.
    by_id: HashMap<Option<SpiffeId>, HashMap<u64, Entry>>,
}

struct Entry {
    conn: Arc<ConnPeer>,
    token: CancellationToken,
}

impl Connections {
    /// Nobody is connected yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// Ends all connections of `id`, streams included, at once; how many there were.
    pub fn close(&self, id: &SpiffeId) -> usize {
        let open = self.open();
        let Some(entries) = open.by_id.get(&Some(id.clone())) else { return 0 };
        entries.values().for_each(|e| e.token.cancel());
        entries.len()
    }
    /// Marks the connections of `id` for which `older` holds: their certificate is about to be replaced. They go on.
    pub fn replace_those(&self, id: &SpiffeId, older: impl Fn(&ConnPeer) -> bool) {
        let open = self.open();
        let entries = open.by_id.get(&Some(id.clone())).into_iter().flat_map(HashMap::values);
        entries.filter(|e| older(&e.conn)).for_each(|e| e.conn.replaced.store(true, Ordering::Release));
    }
    /// Ends the connections of `id` for which `condemned` holds; how many there were.
    pub fn close_those(&self, id: &SpiffeId, condemned: impl Fn(&ConnPeer) -> bool) -> usize {
        let open = self.open();
        let entries = open.by_id.get(&Some(id.clone())).into_iter().flat_map(HashMap::values);
        entries.filter(|e| condemned(&e.conn)).map(|e| e.token.cancel()).count()
    }
    /// Ends the connections for which `condemned` holds; how many there were. Looks at every connection.
    pub fn close_where(&self, condemned: impl Fn(&ConnPeer) -> bool) -> usize {
        let open = self.open();
        let hit = open.by_id.values().flat_map(HashMap::values).filter(|e| condemned(&e.conn));
        hit.map(|e| e.token.cancel()).count()
    }
    /// True if `id` has a connection that was not told to end.
    pub fn is_connected(&self, id: &SpiffeId) -> bool {
        let open = self.open();
        open.by_id.get(&Some(id.clone())).is_some_and(|e| e.values().any(|e| !e.token.is_cancelled()))
    }
    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.open().by_id.values().map(HashMap::len).sum()
    }
    /// True if nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.open().by_id.is_empty()
    }
    /// The other ends of `id`'s connections.
    pub fn of(&self, id: &SpiffeId) -> Vec<Arc<ConnPeer>> {
        let open = self.open();
        open.by_id.get(&Some(id.clone())).map_or_else(Vec::new, |e| e.values().map(|e| e.conn.clone()).collect())
    }

    pub(crate) fn register(&self, peer: Option<Peer>, addr: SocketAddr, listener: &CancellationToken) -> Registration {
        let (id, token) = (peer.as_ref().map(|p| p.id.clone()), listener.child_token());
        let conn = Arc::new(ConnPeer { peer, addr, replaced: AtomicBool::new(false) });
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        let entry = Entry { conn: conn.clone(), token: token.clone() };
        open.by_id.entry(id).or_default().insert(number, entry);
        Registration { connections: self.clone(), number, conn, token }
    }
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connections({})", self.len())
    }
}

/// A connection's place in the registry; leaving it is dropping this.
pub(crate) struct Registration {
    connections: Connections,
    number: u64,
    pub(crate) conn: Arc<ConnPeer>,
    pub(crate) token: CancellationToken,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let id = self.conn.peer.as_ref().map(|p| p.id.clone());
        let mut open = self.connections.open();
        if let Some(entries) = open.by_id.get_mut(&id) {
            entries.remove(&self.number);
            if entries.is_empty() {
                open.by_id.remove(&id);
            }
        }
    }
}
