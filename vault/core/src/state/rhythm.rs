//! When keys and certificates are replaced: once a third of their life is over (protocol, every key).
//!
//! So three issuers and three statement keys are alive at a time: one is in use, an older one still verifies what it
//! signed, and of the statement keys the newest is known to every node one period before it signs anything.
//!
//! What an evicted voter held that counts as compromised is replaced at once, whatever its age, as soon as the keyring is
//! (`what_a_compromised_voter_held_is_replaced_at_once_and_listed_no_more`).

use super::State;
use crate::command::CaKey;
use holdfast_types::Millis;
use std::time::Duration;

/// Whether a third of the life that began at `from` is over.
pub fn third_over(now: Millis, from: Millis, until: Millis) -> bool {
    now >= from.plus(until.since(from) / 3)
}

impl State {
    /// Whether the cluster can sign with its root: what an offline one is to sign is asked for instead.
    fn root_at_hand(&self) -> bool {
        self.signing_root().is_none_or(|r| r.key != CaKey::Offline)
    }

    /// Whether a new issuer is to be made. The one before it signs no more, and goes on in the chains of its leaves.
    pub fn issuer_due(&self, now: Millis) -> bool {
        let due = self.issuer().is_none_or(|i| third_over(now, i.since, i.not_after));
        self.root_at_hand() && (due || self.is_issuer_exposed())
    }

    /// Whether a new keyring term is to be made: one was ordered, or the active one has lived for `life`.
    pub fn keyring_due(&self, now: Millis, life: Duration) -> bool {
        self.is_founded() && (self.keyring_ordered || now >= self.term_since.plus(life))
    }

    /// Whether a new term is due and waits: a Bundle lists its intake key, a root signs that, and the key of the one that signs is
    /// offline. A statement key signs no Bundle, or whoever has one would say which roots are trusted.
    pub fn keyring_waits(&self, now: Millis, life: Duration) -> bool {
        self.keyring_due(now, life) && !self.root_at_hand()
    }

    /// Whether a new statement key is to be made, where each lives for `life`. The newest counts, also while its window has
    /// not opened yet: its life began when it was made.
    pub fn stk_due(&self, now: Millis, life: Duration) -> bool {
        let exposed = self.stks.iter().any(|k| k.until > now && self.is_exposed_stk(&k.public));
        self.root_at_hand() && (exposed || self.newest_stk().is_none_or(|k| k.until.since(now) <= life / 3 * 2))
    }

    /// For how long a statement key that is made at `now` is only listed: one period. After a long rest it is shorter, so
    /// that a key is in its window at any time; where none is, or that one is exposed, the new one counts at once.
    pub(crate) fn stk_lead(&self, now: Millis, life: Duration) -> Duration {
        let signs = self.stk(now).is_some_and(|k| !self.is_exposed_stk(&k.public));
        let last = self.stks.iter().map(|k| k.until).max().filter(|_| signs);
        last.map_or(Duration::ZERO, |until| (until.since(now) / 2).min(life / 3))
    }
}
