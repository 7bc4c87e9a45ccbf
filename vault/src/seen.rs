//! From where each machine called last, and with which certificate: whoever reads of an identity with two holders knows where
//! both are. This voter's own memory since it opened, of machines in the registry alone.

use holdfast_transport::server::ConnPeer;
use holdfast_types::Millis;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Places remembered of one machine.
const PLACES: usize = 4;

/// One certificate in one place.
#[derive(Debug, Clone)]
struct Place {
    serial: String,
    addr: SocketAddr,
    at: Millis,
}

/// Machines and their last places, the newest last.
#[derive(Default)]
pub struct Seen(Mutex<HashMap<String, Vec<Place>>>);

impl Seen {
    /// `id` called from `addr` with the certificate `serial`.
    pub fn note(&self, id: &str, serial: &str, addr: SocketAddr, at: Millis) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = |serial: &str| Place { serial: serial.to_owned(), addr, at };
        let Some(places) = seen.get_mut(id) else {
            seen.insert(id.to_owned(), vec![new(serial)]);
            return;
        };
        // As it nearly always is: the same as the last time.
        if let Some(last) = places.last_mut().filter(|p| p.serial == serial && p.addr.ip() == addr.ip()) {
            (last.addr, last.at) = (addr, at);
            return;
        }
        places.retain(|p| p.serial != serial || p.addr.ip() != addr.ip());
        places.push(new(serial));
        let surplus = places.len().saturating_sub(PLACES);
        places.drain(..surplus);
    }
    /// Where else `id` was, for whoever reads that it called from `addr` with the certificate `serial`: the newest first.
    pub fn elsewhere(&self, id: &str, serial: &str, addr: Option<IpAddr>) -> String {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = seen.get(id).map(Vec::as_slice).unwrap_or_default();
        let other = |p: &&Place| p.serial != serial || Some(p.addr.ip()) != addr;
        let one = |p: &Place| format!("from {} with serial {} at {}", p.addr, p.serial, p.at);
        let told: Vec<String> = places.iter().rev().filter(other).map(one).collect();
        if told.is_empty() {
            return "this voter has heard it nowhere else".to_owned();
        }
        format!("before, it called {}", told.join(", "))
    }
    /// What the log says of a retired certificate that was shown.
    pub fn reused(&self, id: &str, serial: &str, addr: Option<SocketAddr>) -> String {
        let elsewhere = self.elsewhere(id, serial, addr.map(|a| a.ip()));
        format!("a retired certificate (serial {serial}) was used from {}; {elsewhere}", from(addr))
    }
}

/// The address at the other end of the connection that brought `request`.
pub fn addr_of<T>(request: &tonic::Request<T>) -> Option<SocketAddr> {
    request.extensions().get::<Arc<ConnPeer>>().map(|c| c.addr)
}

/// `addr` in words.
pub fn from(addr: Option<SocketAddr>) -> String {
    addr.map_or_else(|| "an unknown address".to_owned(), |a| a.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_places_of_an_identity_with_two_holders_are_told() {
        let seen = Seen::default();
        seen.note("node-1", "aa", at("10.0.0.1:5"), Millis(1_000));
        seen.note("node-1", "aa", at("10.0.0.1:6"), Millis(2_000));
        seen.note("node-1", "bb", at("10.0.0.2:7"), Millis(3_000));
        let told = seen.elsewhere("node-1", "aa", Some(at("10.0.0.1:9").ip()));
        assert!(told.contains("10.0.0.2:7") && told.contains("bb") && !told.contains("10.0.0.1"), "{told}");
        let told = seen.elsewhere("node-1", "bb", Some(at("10.0.0.2:7").ip()));
        assert!(told.contains("10.0.0.1:6") && !told.contains("10.0.0.1:5"), "the last of one place: {told}");
        // The same certificate elsewhere is another place.
        let told = seen.elsewhere("node-1", "bb", Some(at("10.0.0.3:7").ip()));
        assert!(told.find("10.0.0.2:7") < told.find("10.0.0.1:6"), "the newest first: {told}");
        assert!(seen.elsewhere("node-2", "aa", None).contains("nowhere"));
    }

    #[test]
    fn a_machine_that_moves_all_the_time_is_remembered_in_a_few_places() {
        let seen = Seen::default();
        for n in 0..100_u8 {
            seen.note("node-1", "aa", SocketAddr::from(([10, 0, 0, n], 1)), Millis(i64::from(n)));
        }
        assert_eq!(seen.0.lock().unwrap()["node-1"].len(), PLACES);
        assert!(seen.elsewhere("node-1", "bb", None).contains("10.0.0.99:1"));
    }
}
