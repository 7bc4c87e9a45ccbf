//! Who is at the door, by source address: no single address takes all places.
//!
//! An address is let go of with its last connection, so the table is never longer than the listener has places. An IPv6
//! source is its /64: whoever has one address has them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bounds of one source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerSource {
    /// Connections at a time, those in their handshake included.
    pub connections: usize,
    /// Handshakes at a time.
    pub handshakes: usize,
}

#[derive(Default)]
struct Open {
    connections: usize,
    handshakes: usize,
}

/// The sources that have connections now.
#[derive(Clone)]
pub(super) struct Sources {
    bounds: PerSource,
    open: Arc<Mutex<HashMap<IpAddr, Open>>>,
}

impl Sources {
    pub(super) fn new(bounds: PerSource) -> Self {
        Self { bounds, open: Arc::default() }
    }
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A seat for one more connection from `addr`, which begins with its handshake; `None` if it has enough.
    pub(super) fn sit(&self, addr: IpAddr) -> Option<Seat> {
        let source = source_of(addr);
        let mut all = self.open();
        let held = all.get(&source).map_or((0, 0), |o| (o.connections, o.handshakes));
        if held.0 >= self.bounds.connections || held.1 >= self.bounds.handshakes {
            return None;
        }
        let open = all.entry(source).or_default();
        open.connections += 1;
        open.handshakes += 1;
        Some(Seat { sources: self.clone(), source, shaking: true })
    }
    fn leave(&self, source: &IpAddr, shaking: bool, for_good: bool) {
        let mut all = self.open();
        let Some(open) = all.get_mut(source) else { return };
        open.handshakes -= usize::from(shaking);
        open.connections -= usize::from(for_good);
        if open.connections == 0 {
            all.remove(source);
        }
    }
}

/// One connection's place among those of its source; leaving it is dropping this.
pub(super) struct Seat {
    sources: Sources,
    source: IpAddr,
    shaking: bool,
}
impl Seat {
    /// The handshake is done.
    pub(super) fn shaken(&mut self) {
        if std::mem::replace(&mut self.shaking, false) {
            self.sources.leave(&self.source, true, false);
        }
    }
}
impl Drop for Seat {
    fn drop(&mut self) {
        self.sources.leave(&self.source, self.shaking, true);
    }
}

fn source_of(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn a_source_has_so_many_seats_and_another_one_its_own() {
        let sources = Sources::new(PerSource { connections: 3, handshakes: 2 });
        let mut first = sources.sit(at("192.0.2.1")).unwrap();
        let _second = sources.sit(at("::ffff:192.0.2.1")).unwrap();
        assert!(sources.sit(at("192.0.2.1")).is_none(), "two handshakes are under way");
        first.shaken();
        let third = sources.sit(at("192.0.2.1")).unwrap();
        first.shaken();
        assert!(sources.sit(at("192.0.2.1")).is_none(), "three connections are open");
        assert!(sources.sit(at("192.0.2.2")).is_some());
        drop(third);
        assert!(sources.sit(at("192.0.2.1")).is_some());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_source() {
        let sources = Sources::new(PerSource { connections: 1, handshakes: 1 });
        let _one = sources.sit(at("2001:db8::1")).unwrap();
        assert!(sources.sit(at("2001:db8::ffff:2")).is_none());
        assert!(sources.sit(at("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_a_source_that_has_left() {
        let sources = Sources::new(PerSource { connections: 2, handshakes: 2 });
        let mut seat = sources.sit(at("192.0.2.1")).unwrap();
        seat.shaken();
        drop((seat, sources.sit(at("192.0.2.9"))));
        assert!(sources.open().is_empty());
    }
}
