//! Voters: what the leader adds to an admission, judges of a report, and knows of who is behind a peer's key.

use super::{Leader, prepared};
use crate::command::{Command, VoterMark, VoterSaid};
use crate::entropy::Entropy;
use crate::held::Prepared;
use crate::refusal::Refusal;
use crate::state::{State, VoterState};
use holdfast_pki::csr::Request;
use holdfast_types::{Digest, Role, VoterId};
use holdfast_wire::v1;
use serde::{Deserialize, Serialize};

/// What the leader adds to an AdmitVoter. STORED: in postcard, beside the operators' statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The number that the voter gets: the last one given + 1, a precondition.
    pub id: VoterId,
    /// Every live keyring term, boxed to the KEM key that it joined with: a precondition.
    pub terms: Vec<(u32, Vec<u8>)>,
}
impl Admission {
    /// Encodes for a submission.
    pub fn encode(&self) -> Vec<u8> {
        // Plain data into a growing vector: cannot fail; an empty admission is refused by `decode`.
        postcard::to_stdvec(self).unwrap_or_default()
    }
    /// Decodes; `None` if the bytes are not one admission.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (a, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(a)
    }
}

/// What is known of a TLS key that speaks, or answers, as a voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPin {
    /// It is that member's key: believed, whatever its certificate's age.
    Member,
    /// The number is higher than every one known here, so that voter may have been admitted since: by a full chain check.
    Newer,
    /// It is the key of a voter that was evicted: it is not spoken with, but about its going.
    Leaving,
    /// That voter was evicted, and this is not even its key.
    Evicted,
    /// The key is not that voter's.
    Unknown,
}

/// Looks a peer's key up.
pub fn peer_pin(state: &State, id: VoterId, spki: &Digest) -> PeerPin {
    match state.voter(id) {
        Some(v) if v.state == VoterState::Evicted && v.spki.as_ref() == Some(spki) => PeerPin::Leaving,
        Some(v) if v.state == VoterState::Evicted => PeerPin::Evicted,
        Some(v) if v.spki.as_ref() == Some(spki) => PeerPin::Member,
        None if id > state.last_voter() => PeerPin::Newer,
        Some(_) | None => PeerPin::Unknown,
    }
}

/// The marks that are worth an entry: of members, `at_least` entries further than known, or of a newer vote.
pub fn progress(state: &State, marks: &[VoterMark], at_least: u64) -> Option<Command> {
    let news = |m: &&VoterMark| {
        let known = state.voter(m.id).filter(|v| v.state == VoterState::Member);
        known.is_some_and(|v| {
            m.vote_term > v.vote_term || m.index.checked_sub(v.progress).is_some_and(|n| n >= at_least.max(1))
        })
    };
    let marks: Vec<VoterMark> = marks.iter().filter(news).copied().collect();
    (!marks.is_empty()).then_some(Command::Progress(marks))
}

/// What voter `id` says of itself, to be committed; `None` if all of it is known. `leads`: its Raft term, if it leads.
///
/// A report of a start before the newest known one is `rolled-back`: the voter's disk is an older one, or a copy.
pub fn voter_said(
    leader: &Leader<'_>,
    id: VoterId,
    said: &v1::VoterReport,
    leads: Option<u64>,
    entropy: &mut Entropy,
) -> Result<Option<Prepared<v1::VoterReportReply>>, Refusal> {
    let facts = facts(said)?;
    let row = leader.state.voter(id).ok_or_else(|| Refusal::not_found("voter", id))?;
    row.hears(id, &facts, &leader.state.unlock)?;
    let (kem_gen, kem_pk) = facts.kem;
    let terms = if row.has_next_kem(&facts) { leader.boxed_terms(id, &kem_pk, kem_gen, entropy)? } else { Vec::new() };
    let (mut cert, mut reply) = (None, v1::VoterReportReply::default());
    if !said.csr.is_empty() {
        let request = Request::parse(&said.csr).map_err(|e| Refusal::invalid(e.to_string()))?;
        if row.spki.is_some_and(|known| known != request.spki_sha256()) {
            return Err(Refusal::credential(format!("voter {id} was admitted with another key")));
        }
        let m = leader.mint(request.key(), Role::Vault, &id.to_string(), row.next_seq(), entropy)?;
        (cert, reply.chain) = (Some(m.facts), m.chain);
    }
    if cert.is_none()
        && row.knows_process(&facts)
        && row.knows_slots(&facts)
        && !row.begins_to_show(&facts)
        && leads.is_none_or(|term| term <= row.led)
    {
        return Ok(None);
    }
    let command = Command::VoterReported { id, leads, facts, cert, terms };
    Ok(Some(prepared(leader.now, entropy, command, reply)))
}

fn facts(said: &v1::VoterReport) -> Result<VoterSaid, Refusal> {
    let boot = said.boot.as_ref().ok_or_else(|| Refusal::invalid("a report names the voter's boot"))?;
    let mark = <[u8; 16]>::try_from(boot.id.as_slice()).map_err(|_| Refusal::invalid("a boot's id has 16 bytes"))?;
    let kem = <[u8; 32]>::try_from(said.kem_pk.as_slice()).map_err(|_| Refusal::invalid("a KEM key has 32 bytes"))?;
    Ok(VoterSaid {
        peer_addr: said.peer_addr.clone(),
        service_addr: said.service_addr.clone(),
        join_addr: said.join_addr.clone(),
        boot: (boot.count, mark),
        unlock_epoch: said.unlock_epoch,
        recovery_version: said.recovery_version,
        disk_key_order: said.disk_key_order,
        kem: (said.kem_gen, kem),
        serial: said.serial.clone(),
    })
}

impl Leader<'_> {
    /// What a submission of `a` carries: the next number, and the keyring boxed to whoever waits.
    pub(super) fn admission(&self, a: &v1::AdmitVoter, entropy: &mut Entropy) -> Result<Vec<u8>, Refusal> {
        let key =
            Digest::from_slice(&a.spki_sha256).ok_or_else(|| Refusal::invalid("a key fingerprint has 32 bytes"))?;
        let (_, kem) = self.state.applicant(&a.id, &key)?;
        let id = VoterId(self.state.last_voter().0 + 1);
        Ok(Admission { id, terms: self.boxed_terms(id, &kem, 1, entropy)? }.encode())
    }
    /// Every live keyring term, boxed to a voter's KEM key.
    fn boxed_terms(
        &self,
        id: VoterId,
        kem_pk: &[u8; 32],
        kem_gen: u32,
        entropy: &mut Entropy,
    ) -> Result<Vec<(u32, Vec<u8>)>, Refusal> {
        let one = |term| {
            let sealed = self.keys.box_term(term, id.0, kem_pk, kem_gen, entropy.draw("term-box"));
            sealed.map(|b| (term, b))
        };
        self.state.live_terms().map(one).collect()
    }
    /// An admitted applicant's answer: what it needs to make its disk.
    pub(super) fn admitted(&self, id: VoterId, chain: Vec<Vec<u8>>) -> v1::VoterAdmitted {
        let unlock = &self.state.unlock;
        // Also who has not said where it is yet: of the numbers below its own, the new voter believes these alone.
        let others = self.state.voters().filter(|(other, _)| *other != id);
        v1::VoterAdmitted {
            voter_id: id.0,
            chain,
            charter_chain: self.state.charter_chain(),
            bundle_chain: self.state.bundle_chain(),
            unlock_pk: unlock.key.as_ref().map(|k| k.pk.to_vec()).unwrap_or_default(),
            unlock_epoch: unlock.epoch,
            peers: others.map(|(id, v)| v1::VoterPeer { id: id.0, addr: v.peer_addr.clone() }).collect(),
        }
    }
}
