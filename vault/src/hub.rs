//! Live node sessions: who is connected, and a bounded queue of pushes to each.
//!
//! Of two sessions of one node the later counts. Two holders of its key show by that: from two addresses at once, and from one,
//! as machines behind one address are, by taking each other's place again and again with one certificate. An agent has one
//! session, comes back to it when it ended, and moves to another under its next certificate alone.

use holdfast_types::NodeId;
use holdfast_wire::v1::{self, node_push::Push};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Pushes that may wait for one node; a node that lets more wait is cut off and starts over with a full picture.
const QUEUE: usize = 256;
/// So often within [`ALTERNATING`] live sessions took each other's place, with one certificate and from one address: that is two
/// holders. A machine whose connections break unseen by the vault comes back too, but not so fast so often.
const TURNS: usize = 4;
const ALTERNATING: Duration = Duration::from_secs(15);

type Sender = mpsc::Sender<Result<v1::NodePush, tonic::Status>>;

/// Sessions by node.
#[derive(Default)]
pub struct Hub(Mutex<Sessions>);

#[derive(Default)]
struct Sessions {
    next: u64,
    by_node: HashMap<NodeId, Session>,
}

struct Session {
    number: u64,
    from: Option<SocketAddr>,
    /// Of the certificate that it began with.
    serial: String,
    /// When sessions from this address with this certificate took each other's place until it was this one's turn.
    turns: Vec<Instant>,
    pushes: Sender,
}

impl Session {
    fn is_elsewhere(&self, from: Option<SocketAddr>) -> bool {
        self.from.zip(from).is_some_and(|(here, there)| here.ip() != there.ip())
    }
    /// The turns as they are once this session's place is taken at `now`. A renewed certificate begins anew.
    fn turns(&self, from: Option<SocketAddr>, serial: &str, now: Instant) -> Vec<Instant> {
        let one_address = self.from.zip(from).is_some_and(|(here, there)| here.ip() == there.ip());
        if !one_address || self.serial != serial {
            return Vec::new();
        }
        let lately = |at: &Instant| now.saturating_duration_since(*at) < ALTERNATING;
        self.turns.iter().copied().filter(lately).chain([now]).collect()
    }
}

/// A session that was entered.
pub struct Entered {
    /// Its number.
    pub number: u64,
    /// What is pushed to it.
    pub pushes: Pushes,
    /// Where the session was that it took the place of, if there seem to be two holders.
    pub beside: Option<SocketAddr>,
}

/// The receiving end of a session's pushes.
pub type Pushes = mpsc::Receiver<Result<v1::NodePush, tonic::Status>>;

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // Every change is one insertion or removal: a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Enters a session that began with the certificate `serial`; an earlier one of the same node ends. If there seem to be two
    /// holders of the identity, both are told to renew: they then ask for two certificates.
    pub fn enter(&self, node: &NodeId, from: Option<SocketAddr>, serial: &str, now: Instant) -> Entered {
        let (tx, pushes) = mpsc::channel(QUEUE);
        let mut s = self.lock();
        s.next += 1;
        let number = s.next;
        // One that is gone was not taken the place of.
        let before = s.by_node.remove(node).filter(|b| !b.pushes.is_closed());
        let mut turns = before.as_ref().map(|b| b.turns(from, serial, now)).unwrap_or_default();
        let alternate = turns.len() >= TURNS;
        if alternate {
            turns.clear();
        }
        let session = Session { number, from, serial: serial.to_owned(), turns, pushes: tx.clone() };
        s.by_node.insert(node.clone(), session);
        drop(s);
        let beside = before.filter(|b| alternate || b.is_elsewhere(from));
        if let Some(other) = &beside {
            for session in [&other.pushes, &tx] {
                // Whose queue is full or gone has no use for it.
                drop(session.try_send(Ok(v1::NodePush { push: Some(Push::RenewNow(v1::RenewNow {})) })));
            }
        }
        Entered { number, pushes, beside: beside.and_then(|b| b.from) }
    }
    /// Ends session `number`, if it is still the node's.
    pub fn leave(&self, node: &NodeId, number: u64) -> bool {
        let mut s = self.lock();
        let mine = s.by_node.get(node).is_some_and(|open| open.number == number);
        if mine {
            s.by_node.remove(node);
        }
        mine
    }
    /// Whether a node has a session.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.lock().by_node.contains_key(node)
    }
    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.lock().by_node.len()
    }
    /// Pushes to one node, if it is connected.
    pub fn push(&self, node: &NodeId, push: Push) {
        let mut s = self.lock();
        let open = s.by_node.get(node);
        let full = open.is_some_and(|open| open.pushes.try_send(Ok(v1::NodePush { push: Some(push) })).is_err());
        if full {
            s.by_node.remove(node);
        }
    }
    /// Ends every session: each node comes back and starts over with a full picture.
    pub fn end_all(&self) {
        self.lock().by_node.clear();
    }
    /// Pushes to every node.
    pub fn push_all(&self, push: &Push) {
        let told = |open: &Session| open.pushes.try_send(Ok(v1::NodePush { push: Some(push.clone()) })).is_ok();
        self.lock().by_node.retain(|_, open| told(open));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u8, port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::from(([10, 0, 0, host], port)))
    }

    fn renews(pushes: &mut Pushes) -> bool {
        matches!(pushes.try_recv(), Ok(Ok(v1::NodePush { push: Some(Push::RenewNow(_)) })))
    }

    #[test]
    fn after_missed_events_every_session_ends_and_starts_over() {
        let (hub, nodes, now) = (Hub::default(), [1, 2].map(|n| NodeId::from_random([n; 16])), Instant::now());
        let mut sessions = nodes.each_ref().map(|n| hub.enter(n, None, "01", now).pushes);
        hub.end_all();
        for (node, pushes) in nodes.iter().zip(&mut sessions) {
            assert!(!hub.is_connected(node));
            assert!(matches!(pushes.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)), "its stream goes on");
        }
        let open = hub.enter(&nodes[0], None, "01", now);
        assert!(hub.is_connected(&nodes[0]) && hub.leave(&nodes[0], open.number));
    }

    #[test]
    fn of_two_sessions_of_one_node_the_later_stays_and_from_two_addresses_both_are_told_to_renew() {
        let (hub, node, now) = (Hub::default(), NodeId::from_random([1; 16]), Instant::now());
        let mut first = hub.enter(&node, at(1, 1), "01", now);
        let mut again = hub.enter(&node, at(1, 2), "01", now);
        assert_eq!((first.beside, again.beside), (None, None), "the same machine, back over a new connection");
        assert!(!renews(&mut first.pushes) && !renews(&mut again.pushes));
        let mut other = hub.enter(&node, at(2, 1), "01", now);
        assert_eq!(other.beside, at(1, 2));
        assert!(renews(&mut again.pushes) && renews(&mut other.pushes));
        assert!(!hub.leave(&node, again.number) && hub.leave(&node, other.number));
        // A session that is gone is no second one.
        let gone = hub.enter(&node, at(1, 1), "01", now);
        drop(gone.pushes);
        assert_eq!(hub.enter(&node, at(2, 1), "01", now).beside, None);
    }

    /// Sessions that take each other's place, each `every` so long, with these certificates: those that seemed to be a second
    /// holder's, by their port, and those that were told to renew.
    fn taking_turns(every: Duration, serial: impl Fn(u16) -> String) -> (Vec<u16>, Vec<u16>) {
        let (hub, node, mut now) = (Hub::default(), NodeId::from_random([1; 16]), Instant::now());
        let (mut second, mut open) = (Vec::new(), Vec::new());
        for port in 1..=12 {
            let entered = hub.enter(&node, at(1, port), &serial(port), now);
            second.extend(entered.beside.map(|_| port));
            open.push((port, entered.pushes));
            now += every;
        }
        let told = open.iter_mut().filter_map(|(port, pushes)| renews(pushes).then_some(*port)).collect();
        (second, told)
    }

    #[test]
    fn two_holders_behind_one_address_take_each_others_place_and_are_told_and_one_that_renews_or_flaps_is_not() {
        let one = |_| "01".to_owned();
        let (second, told) = taking_turns(Duration::from_millis(200), one);
        assert_eq!(second, [5, 9], "four turns after the first session, and as many again");
        assert_eq!(told, [4, 5, 8, 9], "both, each time");
        let nobody = (Vec::new(), Vec::new());
        let renewed = |port: u16| format!("{port:02}");
        assert_eq!(taking_turns(Duration::from_millis(1), renewed), nobody, "a stream that moves under the next one");
        // Twice with each, as when the answer to the first attempt was lost.
        let twice = |port: u16| format!("{:02}", port / 2);
        assert_eq!(taking_turns(Duration::from_millis(1), twice), nobody);
        assert_eq!(taking_turns(Duration::from_secs(5), one), nobody, "connections that break unseen");
    }
}
