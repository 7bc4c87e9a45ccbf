//! What this voter is at the moment: without a disk, joining, sealed, catching up, or open. Only the unix socket speaks
//! before it is open.

use crate::cluster::Cluster;
use crate::disk::DiskError;
use crate::disk::slots::{Recipient, Slots};
use crate::standing::Standing;
use crate::unsaid::Unsaid;
use arc_swap::ArcSwap;
use holdfast_types::{ClusterId, Digest, Secret, VoterId, kind};
use holdfast_wire::boxes::{PrivateKey, derive_keypair};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A voter that waits for `voter admit`.
pub struct Applied {
    /// The id under which it waits.
    pub id: String,
    /// The key that it joined with.
    pub spki: Digest,
}

/// A voter whose disk is open and that is not at work.
#[derive(Clone)]
pub struct Who {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub voter: VoterId,
    /// Its open disk and its log, once that runs.
    pub standing: Option<Arc<Standing>>,
    /// Why it is not at work yet.
    pub waits: Waits,
}

/// Why a voter whose disk is open is not at work yet.
#[derive(Clone)]
pub struct Waits(Arc<ArcSwap<String>>);
impl Default for Waits {
    fn default() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Self::OTHERS.to_owned())))
    }
}
impl Waits {
    const OTHERS: &'static str = "waits for the other voters";
    /// It is `why`; true if that is news.
    pub fn because(&self, why: String) -> bool {
        let news = *self.said() != why;
        self.0.store(Arc::new(why));
        news
    }
    /// It is the others that are not there yet.
    pub fn for_others(&self) {
        self.because(Self::OTHERS.to_owned());
    }
    /// In words.
    pub fn said(&self) -> Arc<String> {
        self.0.load_full()
    }
}

/// The phases of a voter process.
pub enum Phase {
    /// No disk yet: waits for `init`.
    Uninitialized,
    /// No disk yet: joins a cluster that runs. `None` until the cluster has answered.
    Joining(Option<Applied>),
    /// Its disk key is not here.
    Sealed(Slots),
    /// Unlocked, catching up.
    Recovering(Who),
    /// Its disk is older than what others know of it, or it was evicted: it never takes part again.
    RolledBack(Who, String),
    /// At work.
    Open(Arc<Cluster>),
}
impl Phase {
    /// The word that `status` shows.
    pub fn word(&self) -> &'static str {
        match self {
            Phase::Uninitialized => "uninitialized",
            Phase::Joining(_) => "joining",
            Phase::Sealed(_) => "sealed",
            Phase::Recovering(_) => "recovering",
            Phase::RolledBack(..) => "rolled-back",
            Phase::Open(_) => "ready",
        }
    }
}

/// Attempts to open a slot: at most five a minute (protocol, voter process states).
#[derive(Default)]
pub struct Attempts(Vec<Instant>);
impl Attempts {
    const MOST: usize = 5;
    const WINDOW: Duration = Duration::from_secs(60);
    /// Counts one more; false if there were too many lately.
    pub fn allow(&mut self, now: Instant) -> bool {
        self.0.retain(|t| now.duration_since(*t) < Self::WINDOW);
        if self.0.len() >= Self::MOST {
            return false;
        }
        self.0.push(now);
        true
    }
}

/// The current phase, and one door through which it changes.
pub struct Gate {
    phase: ArcSwap<Phase>,
    /// Held while the phase changes: `init` and `unlock` never run twice at once.
    pub door: Mutex<Attempts>,
    /// What the leader is to hear of it.
    pub unsaid: Arc<Unsaid>,
    /// Why the token does not open this voter, as it was found last.
    token: std::sync::Mutex<String>,
    /// What disk keys are boxed to on their way here: so that none ever lies in a buffer of the connection, from which
    /// nothing would wipe it.
    answer: Secret<kind::HpkeKey, 32>,
}
impl Gate {
    /// Starts in `phase`, with a key of its own.
    pub fn new(phase: Phase) -> Result<Self, DiskError> {
        let answer = Secret::filled(|b| getrandom::fill(b).map_err(|_| DiskError::Entropy))?;
        Ok(Self {
            phase: ArcSwap::from_pointee(phase),
            door: Mutex::default(),
            unsaid: Arc::default(),
            token: std::sync::Mutex::default(),
            answer,
        })
    }
    /// The token does not open this voter, and why; said in the log when it is news.
    pub fn why_not(&self, why: &str) {
        let mut last = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != why {
            tracing::warn!("this voter stays sealed: {why}");
            why.clone_into(&mut last);
        }
    }
    /// What a sealed voter waits for.
    pub fn waits_for(&self) -> String {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if token.is_empty() {
            "the disk key is not here".to_owned()
        } else {
            format!("the disk key is not here: {token}")
        }
    }
    /// The key pair that disk keys are boxed to.
    pub fn answer(&self) -> (PrivateKey, [u8; 32]) {
        derive_keypair(self.answer.expose())
    }
    /// The phase now.
    pub fn phase(&self) -> Arc<Phase> {
        self.phase.load_full()
    }
    /// Moves on.
    pub fn set(&self, phase: Phase) {
        self.phase.store(Arc::new(phase));
    }
}

/// `unlock(1)`, `recovery(1)`, `plain`: how a slot is named to people.
pub fn slot_name(r: Recipient) -> String {
    match r {
        Recipient::Unlock { epoch } => format!("unlock({epoch})"),
        Recipient::Recovery { charter_version } => format!("recovery({charter_version})"),
        Recipient::Plain => "plain".to_owned(),
        Recipient::Credential { .. } => "credential".to_owned(),
        Recipient::Hsm { .. } => "hsm".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_voter_waits_is_said_where_all_see_it_and_is_news_once() {
        let waits = Waits::default();
        let seen = waits.clone();
        assert!(waits.because("a box does not open".to_owned()));
        assert!(!waits.because("a box does not open".to_owned()));
        assert_eq!(*seen.said(), "a box does not open");
        waits.for_others();
        assert_eq!(*seen.said(), "waits for the other voters");
    }

    #[test]
    fn the_sixth_attempt_within_a_minute_is_refused() {
        let (mut a, t) = (Attempts::default(), Instant::now());
        assert!((0..5).all(|_| a.allow(t)));
        assert!(!a.allow(t + Duration::from_secs(59)));
        assert!(a.allow(t + Duration::from_secs(61)));
    }
}
