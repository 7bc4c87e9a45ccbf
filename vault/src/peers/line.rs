//! The kept connection to one other voter.
//!
//! It is dialled by a task of its own, never within a call: raft's calls are given up after a fraction of a second, and a
//! handshake that each of them began anew would never be done.

use holdfast_transport::client::{Backoff, Dialer, Link, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::tls::ClientTls;
use holdfast_transport::tls::peers::PeerTls;
use holdfast_types::VoterId;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A voter that does not answer for so long is not there.
pub(super) const TIMING: Timing = Timing {
    connect: Duration::from_secs(2),
    keep_alive: Duration::from_secs(1),
    keep_alive_timeout: Duration::from_secs(2),
};
/// A connection that lasted so long was a good one: the next is dialled at once.
const GOOD: Duration = Duration::from_secs(2);

/// An established connection.
#[derive(Clone)]
pub(super) struct Up {
    pub(super) link: Link,
    since: Instant,
}

#[derive(Clone)]
enum State {
    Idle,
    Dialling,
    Up(Box<Up>),
    Down { why: Failure, until: Instant },
}

/// How often it failed, and what was said of that last.
struct Tries {
    backoff: Backoff,
    said: Option<String>,
}

pub(super) struct Line {
    to: VoterId,
    addr: String,
    dialer: Dialer,
    state: watch::Sender<State>,
    tries: Mutex<Tries>,
}

impl Line {
    pub(super) fn new(to: VoterId, addr: &str, tls: PeerTls) -> Arc<Self> {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        Arc::new(Self {
            to,
            addr: addr.to_owned(),
            dialer: dialer(to, addr, tls),
            state: watch::Sender::new(State::Idle),
            tries: Mutex::new(Tries { backoff, said: None }),
        })
    }

    pub(super) fn leads_to(&self, addr: &str) -> bool {
        self.addr == addr
    }

    /// The connection; why there is none, if dialling failed a moment ago.
    pub(super) async fn up(self: &Arc<Self>) -> Result<Up, Failure> {
        let mut state = self.state.subscribe();
        loop {
            self.dial_if_due();
            let now = state.borrow_and_update().clone();
            match now {
                State::Up(up) => return Ok(*up),
                State::Down { why, .. } => return Err(why),
                State::Idle | State::Dialling => {}
            }
            state.changed().await.map_err(|_| Failure::unavailable("stopping", "this voter is stopping"))?;
        }
    }

    fn dial_if_due(self: &Arc<Self>) {
        let due = self.state.send_if_modified(|s| {
            let due = match s {
                State::Idle => true,
                State::Down { until, .. } => Instant::now() >= *until,
                State::Dialling | State::Up(_) => false,
            };
            if due {
                *s = State::Dialling;
            }
            due
        });
        if due {
            tokio::spawn(Arc::clone(self).dial());
        }
    }

    async fn dial(self: Arc<Self>) {
        let state = match self.dialer.dial().await {
            Ok(link) => {
                tracing::info!(voter = self.to.0, addr = %self.addr, "connected to a voter");
                super::lock(&self.tries).said = None;
                State::Up(Box::new(Up { link, since: Instant::now() }))
            }
            Err(why) => self.down(why),
        };
        self.state.send_replace(state);
    }

    /// No connection for a while; said in the log when it is news.
    fn down(&self, why: Failure) -> State {
        let mut tries = super::lock(&self.tries);
        if tries.said.as_deref() != Some(why.message.as_str()) {
            tracing::warn!(voter = self.to.0, addr = %self.addr, code = %why.code, "no connection to a voter: {}", why.line());
            tries.said = Some(why.message.clone());
        }
        State::Down { why, until: Instant::now() + tries.backoff.next_delay() }
    }

    /// The voter has called: what was in the way a moment ago may be gone, and the next call dials.
    pub(super) fn is_there(&self) {
        self.state.send_if_modified(|s| {
            let waits = matches!(s, State::Down { .. });
            if waits {
                *s = State::Idle;
            }
            waits
        });
    }

    /// A call over `up` failed: the connection is given up if that was why.
    pub(super) fn failed(&self, up: &Up, failure: &Failure) {
        if !matches!(&*failure.code, "connection-lost" | "certificate-refused" | "identity-refused" | "cancelled") {
            return;
        }
        if up.since.elapsed() >= GOOD {
            super::lock(&self.tries).backoff.reset();
        }
        self.state.send_if_modified(|s| {
            let same = matches!(s, State::Up(now) if now.since == up.since);
            if same {
                *s = self.down(failure.clone());
            }
            same
        });
    }
}

/// Dials voter `to` alone, and believes nobody else there.
pub(super) fn dialer(to: VoterId, addr: &str, tls: PeerTls) -> Dialer {
    Dialer::new([addr], ClientTls::peer(tls, to.0), TIMING)
}
