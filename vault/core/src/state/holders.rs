//! Who may come back as an identity: the keys that it had, when its certificates were over, and what was noticed of it.

use super::{CertRow, Identity, IdentityState, Presented, State};
use holdfast_types::{Digest, Millis, Role};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A key is remembered for this long after its certificate ended, of the time in which a vault ran: the longest time for which
/// an identity can come back by it, or be seen to have two holders.
pub const REJOIN_MOST: Duration = Duration::from_secs(90 * 86_400);
/// Most keys remembered of one identity beside those of its certificates.
pub(super) const MAX_PAST: usize = 128;
/// Longest text kept of what was noticed, in characters.
const MAX_DETAIL: usize = 800;
/// How long a session in two places, or a return, is spoken of.
const NOTICED: Duration = Duration::from_secs(86_400);

/// What was noticed of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Two keys claimed it.
    Fork,
    /// It had two sessions at a time, from two addresses.
    Concurrent,
    /// It came back after its certificate was over.
    Rejoin,
}

/// The last thing that was noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noticed {
    /// What.
    pub what: Notice,
    /// When.
    pub at: Millis,
    /// Where both holders were, of a fork and of two sessions at a time, as the log has it; its begin, if it is long.
    pub detail: String,
}

impl Noticed {
    pub(crate) fn new(what: Notice, at: Millis, detail: &str) -> Self {
        Self { what, at, detail: detail.chars().take(MAX_DETAIL).collect() }
    }
}

/// The key of a certificate that is over and retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastKey {
    /// `H(SubjectPublicKeyInfo)`.
    pub spki: Digest,
    /// When its certificate ended.
    pub ended: Millis,
}

impl Identity {
    /// What it means that somebody holds the key `spki`, whatever certificate there is for it.
    pub fn proven(&self, spki: &Digest) -> Presented {
        let of = |c: &CertRow| c.spki == *spki;
        if self.current.iter().any(of) {
            Presented::Current
        } else if self.pending.as_ref().is_some_and(of) {
            Presented::Pending
        } else if self.retired.iter().any(of) || self.past.iter().any(|k| k.spki == *spki) {
            Presented::Retired
        } else {
            Presented::Unknown
        }
    }
    /// When the last certificate for the key `spki` ended or will end.
    pub fn ends_with(&self, spki: &Digest) -> Option<Millis> {
        let certs = self.current.iter().chain(&self.pending).chain(&self.retired).filter(|c| c.spki == *spki);
        let past = self.past.iter().filter(|k| k.spki == *spki).map(|k| k.ended);
        certs.map(|c| c.not_after).chain(past).max()
    }
    /// Whether it works and no certificate of it is valid at `now`: it comes back by its key, or joins again.
    pub fn is_expired(&self, now: Millis) -> bool {
        let works = matches!(self.state, IdentityState::Ready | IdentityState::Draining);
        works && !self.current.is_empty() && self.current.iter().chain(&self.pending).all(|c| c.not_after <= now)
    }
    /// Whether it is quarantined, and operators named `key` as the one with which it goes on.
    pub fn is_released(&self, key: &Digest) -> bool {
        self.state == IdentityState::Quarantined && self.released.as_ref() == Some(key)
    }
    /// Its state as it is shown at `now`.
    pub fn shown_state(&self, now: Millis) -> &'static str {
        if self.is_expired(now) { "expired" } else { self.state.as_str() }
    }
    /// Forgets what is retired and over, but for the keys of what ended at `known` or later.
    pub(crate) fn forget_ended(&mut self, now: Millis, known: Millis) {
        let (live, over): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.retired).into_iter().partition(|c| c.not_after > now);
        self.retired = live;
        self.remember(over);
        self.past.retain(|k| k.ended >= known);
    }
    /// Remembers the keys of certificates that are not kept any more.
    pub(crate) fn remember(&mut self, certs: impl IntoIterator<Item = CertRow>) {
        for c in certs {
            match self.past.iter_mut().find(|k| k.spki == c.spki) {
                Some(known) => known.ended = known.ended.max(c.not_after),
                None => self.past.push(PastKey { spki: c.spki, ended: c.not_after }),
            }
        }
        let surplus = self.past.len().saturating_sub(MAX_PAST);
        self.past.drain(..surplus);
    }
}

impl State {
    /// Keys whose certificates ended before this are known no more at `now`.
    pub(crate) fn keys_since(&self, now: Millis) -> Millis {
        self.ran_since(now, REJOIN_MOST)
    }
    /// Machines of which `what` is to be spoken at `now`: forks until somebody sees to them, the others for a day.
    pub fn noticed(&self, what: Notice, now: Millis) -> Vec<&str> {
        self.noticed_of(what, now).into_iter().map(|(id, _)| id).collect()
    }
    /// The same, each with where its holders were.
    pub fn noticed_of(&self, what: Notice, now: Millis) -> Vec<(&str, &str)> {
        let spoken = |i: &Identity, n: &Noticed| {
            n.what == what
                && match what {
                    Notice::Fork => i.state == IdentityState::Quarantined,
                    Notice::Concurrent | Notice::Rejoin => {
                        i.state != IdentityState::Removed && now.since(n.at) <= NOTICED
                    }
                }
        };
        let machines = self.identities.iter().filter(|(_, i)| !matches!(i.role, Role::Op | Role::Vault));
        let noticed = machines.filter_map(|(id, i)| i.noticed.as_ref().map(|n| (id, i, n)));
        noticed.filter(|(_, i, n)| spoken(i, n)).map(|(id, _, n)| (id.as_str(), n.detail.as_str())).collect()
    }
}
