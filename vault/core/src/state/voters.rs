//! Voters: who takes part, how far each is known to have been, and what each said of itself.
//!
//! LAW: a voter's number is never given to another (`a_voters_number_is_never_given_to_another`).

use super::{Identity, IdentityState, State, Unlock};
use crate::command::{CertFacts, VoterSaid};
use crate::refusal::{Code, Refusal};
use holdfast_types::{Digest, Millis, Role, VoterId, sha256};
use serde::{Deserialize, Serialize};

/// Longest address that a voter may give.
const MAX_ADDR: usize = 300;

/// Where a voter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoterState {
    /// Part of the cluster: learner or voter, as Raft's membership says.
    Member,
    /// It never takes part again. The row stays, so that its certificate is refused for ever.
    Evicted,
}

/// A voter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VoterRow {
    /// Where it stands.
    pub state: VoterState,
    /// X25519 public key to which keyring terms are boxed.
    pub kem_pk: [u8; 32],
    /// Generation of that key.
    pub kem_gen: u32,
    /// Keyring terms boxed to it.
    pub terms: Vec<(u32, Vec<u8>)>,
    /// Where other voters reach it; empty until it says so.
    pub peer_addr: String,
    /// Listener S.
    pub service_addr: String,
    /// Listener J.
    pub join_addr: String,
    /// `H(SubjectPublicKeyInfo)` of its TLS key, approved by operators; `None` for the founding voter until its first
    /// certificate.
    pub spki: Option<Digest>,
    /// Its TLS certificate.
    pub cert: Option<CertFacts>,
    /// The newest one that it said it shows: until it shows the one above, others meet with this one.
    pub shown: Option<CertFacts>,
    /// Epoch of the newest Bundle there was when it last reported.
    pub acked: u64,
    /// The newest boot that it reported.
    pub boot: (u64, [u8; 16]),
    /// Newest unlock epoch that a slot on its disk is sealed to; 0 = none.
    pub unlock_epoch: u64,
    /// Charter version that its recovery slot is sealed for.
    pub recovery_version: u64,
    /// Newest order to replace its disk key that it has carried out.
    pub disk_key_order: u64,
    /// The log up to this index was on its disk.
    pub progress: u64,
    /// It granted a vote, or led, in this Raft term.
    pub vote_term: u64,
    /// The newest Raft term in which it said that it leads.
    pub led: u64,
    /// What it held when it was evicted, if that counts as known to others.
    pub exposed: Option<Exposed>,
}

/// What a compromised voter held: all of it is open until something else took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    /// When it was evicted.
    pub at: Millis,
    /// The keyring term that was active.
    pub term: u32,
    /// Public halves of the statement keys.
    pub stks: Vec<[u8; 32]>,
    /// Hash of the issuer that signed.
    pub issuer: Option<Digest>,
    /// The epoch of the unlock key.
    pub unlock_epoch: u64,
}

impl VoterRow {
    /// A voter that has said nothing yet.
    pub fn new(kem_pk: [u8; 32], kem_gen: u32, terms: Vec<(u32, Vec<u8>)>, spki: Option<Digest>) -> Self {
        Self {
            state: VoterState::Member,
            kem_pk,
            kem_gen,
            terms,
            peer_addr: String::new(),
            service_addr: String::new(),
            join_addr: String::new(),
            spki,
            cert: None,
            shown: None,
            acked: 0,
            boot: (0, [0; 16]),
            unlock_epoch: 0,
            recovery_version: 0,
            disk_key_order: 0,
            progress: 0,
            vote_term: 0,
            led: 0,
            exposed: None,
        }
    }
    /// The number of its next certificate.
    pub(crate) fn next_seq(&self) -> u64 {
        self.cert.as_ref().map_or(1, |c| c.seq + 1)
    }
    /// Notes what it said. What only grows is not taken back: a voter that has not caught up yet says less than it did.
    pub(crate) fn take(&mut self, said: VoterSaid, leads: Option<u64>) {
        if self.has_next_kem(&said) {
            (self.kem_gen, self.kem_pk) = said.kem;
        }
        if self.begins_to_show(&said) {
            self.shown = self.cert.clone();
        }
        self.unlock_epoch = said.unlock_epoch;
        self.recovery_version = self.recovery_version.max(said.recovery_version);
        self.disk_key_order = self.disk_key_order.max(said.disk_key_order);
        self.boot = said.boot;
        self.peer_addr = said.peer_addr;
        self.service_addr = said.service_addr;
        self.join_addr = said.join_addr;
        self.led = leads.map_or(self.led, |t| t.max(self.led));
        self.vote_term = self.vote_term.max(self.led);
    }
    /// Whether it ever said something of itself: before that it has no disk.
    pub fn has_been_up(&self) -> bool {
        self.boot.0 > 0
    }
    /// Whether `said` asks for the keyring's terms, boxed to its next KEM key.
    pub fn has_next_kem(&self, said: &VoterSaid) -> bool {
        said.kem.0 > self.kem_gen
    }
    /// Whether `said` is what is known already of its process, its addresses and its KEM key.
    pub(crate) fn knows_process(&self, said: &VoterSaid) -> bool {
        self.boot == said.boot
            && !self.has_next_kem(said)
            && self.peer_addr == said.peer_addr
            && self.service_addr == said.service_addr
            && self.join_addr == said.join_addr
    }
    /// Whether it said for the first time that it shows its newest certificate.
    pub(crate) fn begins_to_show(&self, said: &VoterSaid) -> bool {
        self.cert.as_ref().is_some_and(|c| c.serial == said.serial && self.shown.as_ref() != Some(c))
    }
    /// Whether `said` is what is known already of its slots and its disk key.
    pub(crate) fn knows_slots(&self, said: &VoterSaid) -> bool {
        self.unlock_epoch == said.unlock_epoch
            && self.recovery_version >= said.recovery_version
            && self.disk_key_order >= said.disk_key_order
    }
    /// Why `said` cannot be of this voter now. Asked when a report is prepared, and again when it is applied.
    pub(crate) fn hears(&self, id: VoterId, said: &VoterSaid, unlock: &Unlock) -> Result<(), Refusal> {
        if self.state == VoterState::Evicted {
            return Err(Refusal::credential(format!("voter {id} was evicted")));
        }
        if said.boot.0 == 0 {
            return Err(Refusal::invalid("a voter's boots are counted from 1"));
        }
        if is_older(said.boot, self.boot) {
            let (was, is) = (self.boot.0, said.boot.0);
            let why = format!("voter {id} was at its start {was}; start {is} is of an older disk, or of a copy");
            return Err(Refusal::new(Code::RolledBack, why));
        }
        let addrs = [&said.peer_addr, &said.service_addr, &said.join_addr];
        if addrs.iter().any(|a| a.len() > MAX_ADDR || a.chars().any(|c| c.is_control() || c.is_whitespace())) {
            return Err(Refusal::invalid("a voter's address is not one"));
        }
        // An older generation is of a voter that has not caught up: its address counts all the same.
        let (kem_gen, kem_pk) = said.kem;
        let other = kem_gen == self.kem_gen && kem_pk != self.kem_pk;
        let skips = kem_gen.saturating_sub(self.kem_gen) > 1;
        if other || skips || (self.has_next_kem(said) && kem_pk == self.kem_pk) {
            return Err(Refusal::changed(format!("voter {id} has another KEM key than the one known, or the next")));
        }
        let newest = unlock.next.as_ref().map_or(unlock.epoch, |n| n.epoch);
        if said.disk_key_order > unlock.disk_key_order || said.unlock_epoch > newest {
            return Err(Refusal::changed(format!("voter {id} obeyed an order that is not known here yet")));
        }
        Ok(())
    }
}

/// Of two processes that claim to be one voter, the one that booted later counts.
fn is_older(said: (u64, [u8; 16]), known: (u64, [u8; 16])) -> bool {
    said.0 < known.0 || (said.0 == known.0 && said.1 != known.1)
}

impl State {
    /// The voters, evicted ones included.
    pub fn all_voters(&self) -> impl Iterator<Item = (VoterId, &VoterRow)> {
        self.voters.iter().map(|(k, v)| (*k, v))
    }
    /// The voters that take part.
    pub fn voters(&self) -> impl Iterator<Item = (VoterId, &VoterRow)> {
        self.all_voters().filter(|(_, v)| v.state == VoterState::Member)
    }
    /// Where the voters' service listeners are.
    pub fn service_addrs(&self) -> Vec<String> {
        self.voters().map(|(_, v)| v.service_addr.clone()).filter(|a| !a.is_empty()).collect()
    }
    /// Where their join listeners are.
    pub fn join_addrs(&self) -> Vec<String> {
        self.voters().map(|(_, v)| v.join_addr.clone()).filter(|a| !a.is_empty()).collect()
    }
    /// One voter, evicted or not.
    pub fn voter(&self, id: VoterId) -> Option<&VoterRow> {
        self.voters.get(&id)
    }
    /// The furthest that a voter is known to have been: its log, the term it voted in, its newest boot; and whether it was
    /// evicted. Of a number that was never given nothing is known.
    pub fn high_water(&self, id: VoterId) -> (u64, u64, (u64, [u8; 16]), bool) {
        let evicted = |v: &VoterRow| v.state == VoterState::Evicted;
        self.voter(id).map_or((0, 0, (0, [0; 16]), false), |v| (v.progress, v.vote_term, v.boot, evicted(v)))
    }
    /// The highest number that was given to a voter.
    pub fn last_voter(&self) -> VoterId {
        VoterId(self.last_voter)
    }
    /// The keyring terms that are alive: each voter has a box of each.
    pub(crate) fn live_terms(&self) -> impl Iterator<Item = u32> {
        self.recovery_terms.keys().copied()
    }
    /// Whoever joined with a voter's token, admitted or not, until it is up.
    pub(crate) fn applicant_rows(&self) -> impl Iterator<Item = (&String, &Identity)> {
        let from = self.identities.range(VoterId::APPLICANT.to_owned()..);
        let named = from.take_while(|(id, _)| id.starts_with(VoterId::APPLICANT));
        named.map(|(id, row)| (id, &**row)).filter(|(_, row)| row.role == Role::Vault)
    }
    /// Who waits as `id` to become a voter, and the KEM key that it joined with, if it joined with the TLS key `key`.
    pub(crate) fn applicant(&self, id: &str, key: &Digest) -> Result<(&Identity, [u8; 32]), Refusal> {
        let row = self.identity(id).filter(|r| r.role == Role::Vault);
        let row = row.ok_or_else(|| Refusal::not_found("applicant", id))?;
        if row.state != IdentityState::Pending {
            return Err(Refusal::changed(format!("{id} does not wait for admission")));
        }
        if row.applicant.as_ref().is_none_or(|(_, spki)| spki != key) {
            return Err(Refusal::credential("it joined with another key than the one admitted"));
        }
        if let Some((n, _)) = self.all_voters().find(|(_, v)| v.spki.as_ref() == Some(key)) {
            return Err(Refusal::changed(format!("its key is the one of voter {n}; a new voter has a new key")));
        }
        let kem = row.hpke.first().map(|h| h.pk).ok_or_else(|| Refusal::corrupt("applicant's key"))?;
        Ok((row, kem))
    }
    /// The member whose TLS key this is.
    pub(crate) fn voter_with_key(&self, spki: &Digest) -> Option<(VoterId, &VoterRow)> {
        self.voters().find(|(_, v)| v.spki.as_ref() == Some(spki))
    }
    /// What a voter that runs holds.
    pub(crate) fn held_now(&self) -> Exposed {
        Exposed {
            at: self.last_at,
            term: self.term,
            stks: self.stks.iter().map(|k| k.public).collect(),
            issuer: self.issuer().map(|i| sha256(&[&i.der])),
            unlock_epoch: self.unlock.epoch,
        }
    }
    /// What the voters held that were evicted as compromised and have no box of the active term. While one of them has, what is
    /// sealed under it may be read by that voter: nothing is replaced before the keyring is.
    fn held_by_others(&self) -> impl Iterator<Item = &Exposed> {
        let term = self.term;
        self.all_voters().filter_map(|(_, v)| v.exposed.as_ref()).filter(move |x| x.term < term)
    }
    /// Whether a statement key counts as known to others, and can be replaced.
    pub(crate) fn is_exposed_stk(&self, public: &[u8]) -> bool {
        self.held_by_others().any(|x| x.stks.iter().any(|k| k.as_slice() == public))
    }
    /// The same of the issuer in use.
    pub(crate) fn is_issuer_exposed(&self) -> bool {
        let digest = self.issuer().map(|i| sha256(&[&i.der]));
        digest.is_some() && self.held_by_others().any(|x| x.issuer == digest)
    }
    /// Evicted voters whose keys count as known to others, each with what has not been replaced since.
    pub fn compromised_voters(&self) -> Vec<(VoterId, Vec<&'static str>)> {
        let open = |id: VoterId, x: &Exposed| {
            let mut left = Vec::new();
            if self.live_terms().any(|t| t <= x.term) {
                left.push("keyring");
            }
            if self.stks.iter().any(|k| k.until > self.last_at && x.stks.contains(&k.public)) {
                left.push("statement key");
            }
            if self.issuer().is_some_and(|i| Some(sha256(&[&i.der])) == x.issuer) {
                left.push("issuer");
            }
            if self.unlock.key.is_some() && self.unlock.epoch <= x.unlock_epoch {
                left.push("unlock key");
            }
            (!left.is_empty()).then_some((id, left))
        };
        self.all_voters().filter_map(|(id, v)| open(id, v.exposed.as_ref()?)).collect()
    }
}
