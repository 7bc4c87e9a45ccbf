//! Identities and their renewal chain R1–R5 (protocol, renewal chain; model `renewfork.py`).

use super::holders::{MAX_PAST, Noticed, PastKey};
use crate::command::{CertFacts, HpkeFacts};
use holdfast_types::{Digest, Millis, Role, Zone};
use serde::{Deserialize, Serialize};

/// What an identity may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentityState {
    /// Waits for an operator's approval.
    Pending,
    /// Works.
    Ready,
    /// Works, and gets nothing new.
    Draining,
    /// Two holders were seen, or an operator said stop.
    Quarantined,
    /// Gone for ever; the id is never reused.
    Removed,
}
impl IdentityState {
    /// Lower-case word, as users and policies see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
            Self::Removed => "removed",
        }
    }
}

/// A certificate in the chain.
pub type CertRow = CertFacts;

/// What showing a certificate means for the renewal chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// The current certificate.
    Current,
    /// The pending one: R4, activate it.
    Pending,
    /// A retired, unexpired one: R5, a fork.
    Retired,
    /// Not in the registry at all.
    Unknown,
}

/// A node, an orchestrator or an operator in the registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// Node, orchestrator or operator.
    pub role: Role,
    /// What it may do.
    pub state: IdentityState,
    /// Its place; for operators `*`.
    pub zone: Zone,
    /// `key=value`.
    pub labels: Vec<String>,
    /// The certificate in use. Operators may hold several (one a terminal): the newest is last.
    pub current: Vec<CertRow>,
    /// The next one, issued and not yet used.
    pub pending: Option<CertRow>,
    /// Retired and perhaps unexpired ones.
    pub retired: Vec<CertRow>,
    /// HPKE keys of the last two renewal periods.
    pub hpke: Vec<HpkeFacts>,
    /// Keys of certificates that were retired and are over.
    pub past: Vec<PastKey>,
    /// While it is quarantined: the key with which it goes on, as operators named it.
    pub released: Option<Digest>,
    /// What was noticed of it last.
    pub noticed: Option<Noticed>,
    /// Public key that waits for approval, DER, with its hash.
    pub applicant: Option<(Vec<u8>, Digest)>,
    /// Key that an operator approved.
    pub approved: Option<Digest>,
    /// When it joined.
    pub joined: Millis,
    /// Epoch of the newest Bundle that it said it believes; only grows within an era.
    pub acked: u64,
    /// Where nodes find it (orchestrators).
    pub session_addr: String,
    /// Directory revision of its last change.
    pub rev: u64,
}

/// Certificates an operator may hold at once.
const MAX_LOGINS: usize = 16;
/// Retired certificates that are remembered. An honest node renews three times within a certificate's life; one older
/// than these is refused and alarmed as unknown instead of counting as a fork.
const MAX_RETIRED: usize = 32;

impl Identity {
    pub(crate) fn new(role: Role, state: IdentityState, zone: Zone, labels: Vec<String>, joined: Millis) -> Self {
        Self {
            role,
            state,
            zone,
            labels,
            current: Vec::new(),
            pending: None,
            retired: Vec::new(),
            hpke: Vec::new(),
            past: Vec::new(),
            released: None,
            noticed: None,
            applicant: None,
            approved: None,
            joined,
            acked: 0,
            session_addr: String::new(),
            rev: 0,
        }
    }
    /// What showing the certificate (`serial`, `spki`) means.
    ///
    /// A renewal that was asked for twice was answered twice (R2): two serials, one key, one place in the chain. Either
    /// stands for both, or whoever collected the second answer would lock the holder of the first out unseen.
    pub fn presented(&self, serial: &str, spki: &Digest) -> Presented {
        let mut all = self.current.iter().chain(&self.pending).chain(&self.retired);
        let Some(shown) = all.find(|c| c.serial == serial && c.spki == *spki) else { return Presented::Unknown };
        let same = |c: &CertRow| c.seq == shown.seq && c.spki == shown.spki;
        if self.current.iter().any(same) {
            Presented::Current
        } else if self.pending.as_ref().is_some_and(same) {
            Presented::Pending
        } else {
            Presented::Retired
        }
    }
    /// The newest current certificate.
    pub fn certificate(&self) -> Option<&CertRow> {
        self.current.last()
    }
    /// The HPKE key to box to: the newest whose certificate is in use.
    pub fn recipient(&self) -> Option<&HpkeFacts> {
        let seq = self.certificate()?.seq;
        self.hpke.iter().rev().find(|h| h.seq <= seq)
    }
    /// Next number in the chain.
    pub fn next_seq(&self) -> u64 {
        let newest = |c: &CertRow| c.seq;
        self.current.iter().chain(&self.pending).chain(&self.retired).map(newest).max().unwrap_or(0) + 1
    }
    pub(crate) fn login(&mut self, cert: CertRow, now: Millis) {
        self.current.retain(|c| c.not_after > now);
        if self.current.len() >= MAX_LOGINS {
            self.current.remove(0);
        }
        self.current.push(cert);
    }
    pub(crate) fn first(&mut self, cert: CertRow, hpke: Option<HpkeFacts>) {
        self.current = vec![cert];
        self.hpke = hpke.into_iter().collect();
    }
    pub(crate) fn offer(&mut self, cert: CertRow, hpke: Option<HpkeFacts>) {
        if let Some(h) = hpke {
            self.hpke.retain(|k| k.seq < h.seq);
            self.hpke.push(h);
        }
        let replaced = self.pending.replace(cert);
        self.retire(replaced);
    }
    fn retire(&mut self, certs: impl IntoIterator<Item = CertRow>) {
        self.retired.extend(certs);
        let surplus = self.retired.len().saturating_sub(MAX_RETIRED);
        let forgotten: Vec<CertRow> = self.retired.drain(..surplus).collect();
        self.remember(forgotten);
    }
    /// R4: the pending certificate becomes the current one; the old one is retired at once. Where this ends a quarantine, it
    /// tells the keys of certificates of before that are not over. Keys whose certificates ended before `known` are forgotten.
    pub(crate) fn activate(&mut self, now: Millis, known: Millis) -> Option<Vec<Digest>> {
        let next = self.pending.take()?;
        self.forget_ended(now, known);
        let own = next.spki;
        let released = self.released == Some(own);
        let before = std::mem::replace(&mut self.current, vec![next]);
        let mut keys = None;
        if released {
            // A quarantine ends with the first use of the key that operators named. Two holders of the keys of before are what
            // it was for: whoever shows one from now on is a stranger, or a thief would bring the quarantine back at will.
            self.released = None;
            self.state = IdentityState::Ready;
            self.remember(before);
            // Certificates for the named key are more than one where a reply was lost.
            let (same, other): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.retired).into_iter().partition(|c| c.spki == own);
            self.retired = same;
            self.remember(other);
            // Of so many that some are forgotten already the list stays whole, until the last of them is over.
            let all = !(self.past.len() >= MAX_PAST && self.past.first().is_some_and(|k| k.ended > now));
            let past = std::mem::take(&mut self.past);
            keys = all.then(|| past.into_iter().filter(|k| k.ended > now).map(|k| k.spki).collect());
        } else {
            self.retire(before);
        }
        self.applicant = None;
        let keep = self.hpke.len().saturating_sub(2);
        self.hpke.drain(..keep);
        keys
    }
}
