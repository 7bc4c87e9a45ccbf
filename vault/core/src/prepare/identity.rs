//! Joining by token, collecting after approval, operators' logins, renewal, and the registry pin.

use super::{Leader, Minted, prepared};
use crate::command::{CertFacts, Command, HpkeFacts};
use crate::entropy::Entropy;
use crate::held::Prepared;
use crate::refusal::{Code, Refusal};
use crate::state::{Identity, IdentityState, Presented, State, VoterState};
use holdfast_pki::csr::{MAX_CSR, Request};
use holdfast_pki::keys::SubjectKey;
use holdfast_types::{Digest, Millis, NodeId, OrchId, Role, Secret, TokenId, VoterId, rough};
use holdfast_wire::statement;
use holdfast_wire::token::join_mac_matches;
use holdfast_wire::v1;
use prost::Message as _;
use std::time::Duration;

/// What a join came to.
#[derive(Debug)]
pub enum JoinOutcome {
    /// A certificate.
    Issued(v1::Issued),
    /// An operator must approve first.
    Pending(v1::Pending),
}

pub(super) fn parse_csr(der: &[u8]) -> Result<Request, Refusal> {
    Request::parse(der).map_err(|e| Refusal::invalid(e.to_string()))
}

/// What somebody who waits is told.
pub enum Approved {
    /// Nobody has approved or admitted it yet.
    Waits,
    /// A node or orchestrator: its first certificate.
    Issued(Prepared<v1::Issued>),
    /// A voter: its number, its first certificate, and what it makes its disk with.
    Voter(Prepared<v1::VoterAdmitted>),
}

/// Checks a join's proof and admits it: at once, or pending approval if the token says so.
///
/// The MAC is checked before anything asymmetric: an unauthenticated caller costs one HMAC.
pub fn join(
    leader: &Leader<'_>,
    token: TokenId,
    nonce: &[u8; 32],
    proof: &v1::Proof,
    entropy: &mut Entropy,
) -> Result<Prepared<JoinOutcome>, Refusal> {
    let bad =
        || Refusal::credential("this join token is not known here, expired, used up or revoked; create another one");
    let t = leader
        .state
        .tokens
        .get(&token)
        .filter(|t| !t.revoked && t.uses_left > 0 && t.expires > leader.now)
        .ok_or_else(bad)?;
    let mac = leader.keys.open("token", &format!("token/{}", token.hex()), 1, &t.mac)?;
    let mac = Secret::from_slice(mac.expose()).ok_or_else(|| Refusal::corrupt("token"))?;
    if proof.csr.len() > MAX_CSR || !join_mac_matches(&mac, nonce, &proof.csr, &proof.hpke_pub, &proof.mac) {
        return Err(bad());
    }
    let request = parse_csr(&proof.csr)?;
    let (role, id) = match t.role.as_str() {
        "node" => (Role::Node, NodeId::from_random(entropy.draw16("id")).to_string()),
        "orchestrator" => (Role::Orch, OrchId::from_random(entropy.draw16("id")).to_string()),
        "voter" => (Role::Vault, VoterId::applicant(entropy.draw16("id"))),
        _ => return Err(Refusal::corrupt("token")),
    };
    // Of a voter it is the KEM key that keyring terms will be boxed to.
    let hpke = if role == Role::Orch { None } else { Some(leader.hpke(1, &proof.hpke_pub)?) };
    let (spki_der, spki) = (request.spki_der().to_vec(), request.spki_sha256());
    if t.approval || role == Role::Vault {
        let reply = JoinOutcome::Pending(v1::Pending { id: id.clone(), spki_sha256: spki.to_vec() });
        return Ok(prepared(
            leader.now,
            entropy,
            Command::Join { token, id, role, cert: None, spki_der, spki, hpke },
            reply,
        ));
    }
    let m = leader.mint(request.key(), role, &id, 1, entropy)?;
    let facts = m.facts.clone();
    let reply = JoinOutcome::Issued(issued(leader, &id, m, hpke.as_ref())?);
    Ok(prepared(leader.now, entropy, Command::Join { token, id, role, cert: Some(facts), spki_der, spki, hpke }, reply))
}

pub(super) fn issued(
    leader: &Leader<'_>,
    id: &str,
    m: Minted,
    hpke: Option<&HpkeFacts>,
) -> Result<v1::Issued, Refusal> {
    Ok(v1::Issued {
        id: id.to_owned(),
        chain: m.chain,
        node_psk: hpke.map(|h| leader.psk(id, h)).transpose()?.unwrap_or_default(),
        seq: m.facts.seq,
        service_addrs: leader.state.service_addrs(),
        join_addrs: leader.state.join_addrs(),
        renew_after_ms: i64::try_from(m.renew_after.as_millis()).unwrap_or(i64::MAX),
    })
}

/// The bytes that `Await` signs: `"holdfast/v1/await" ‖ id ‖ at_ms`.
pub fn await_message(id: &str, at_ms: i64) -> Vec<u8> {
    [b"holdfast/v1/await".as_slice(), id.as_bytes(), &at_ms.to_be_bytes()].concat()
}

/// How far an `Await`'s time may be off, either way.
pub const AWAIT_SKEW: Duration = Duration::from_secs(120);

/// `Await`: whoever proves the applicant's key learns that it still waits, that its clock is off, or gets its
/// certificate. To anybody else nobody waits here. That no question is answered twice is the caller's to see to.
pub fn approved(leader: &Leader<'_>, r: &v1::AwaitRequest, entropy: &mut Entropy) -> Result<Approved, Refusal> {
    let unknown = || Refusal::credential("nobody with this id and key waits here");
    let row = leader.state.identities.get(&r.id).ok_or_else(unknown)?;
    let (spki_der, spki) = row.applicant.as_ref().ok_or_else(unknown)?;
    let key = SubjectKey::from_spki(spki_der).map_err(|_| Refusal::corrupt("applicant's key"))?;
    if !holdfast_wire::keys::verify(key.public(), &await_message(&r.id, r.at_ms), &r.signature) {
        return Err(unknown());
    }
    match row.state {
        IdentityState::Pending => asked_in_time(leader.now, Millis(r.at_ms)).map(|()| Approved::Waits),
        IdentityState::Ready if row.approved == Some(*spki) && row.role == Role::Vault => {
            asked_in_time(leader.now, Millis(r.at_ms))?;
            let (id, voter) = leader.state.voter_with_key(spki).ok_or_else(unknown)?;
            if voter.has_been_up() {
                return Err(unknown());
            }
            let m = leader.mint(&key, Role::Vault, &id.to_string(), 1, entropy)?;
            let command = Command::IssueFirst { id: r.id.clone(), cert: m.facts, hpke: None };
            Ok(Approved::Voter(prepared(leader.now, entropy, command, leader.admitted(id, m.chain))))
        }
        IdentityState::Ready if row.approved == Some(*spki) => {
            asked_in_time(leader.now, Millis(r.at_ms))?;
            let m = leader.mint(&key, row.role, &r.id, 1, entropy)?;
            let hpke = row.hpke.first().map(|h| HpkeFacts { term: leader.keys.active(), ..h.clone() });
            let facts = m.facts.clone();
            let reply = issued(leader, &r.id, m, hpke.as_ref())?;
            let command = Command::IssueFirst { id: r.id.clone(), cert: facts, hpke };
            Ok(Approved::Issued(prepared(leader.now, entropy, command, reply)))
        }
        IdentityState::Ready | IdentityState::Draining | IdentityState::Quarantined | IdentityState::Removed => {
            Err(unknown())
        }
    }
}

fn asked_in_time(now: Millis, at: Millis) -> Result<(), Refusal> {
    let off = now.since(at).max(at.since(now));
    if off <= AWAIT_SKEW {
        return Ok(());
    }
    let side = if at > now { "ahead of" } else { "behind" };
    Err(Refusal::new(Code::Clock, format!("the applicant's clock is {} {side} the vault's", rough(off))))
}

/// An operator proves a charter key and gets a certificate of a few hours.
///
/// What was signed for another session is refused before anything asymmetric, and the request is looked at last: an
/// unauthenticated caller costs one verification at most.
pub fn login(
    leader: &Leader<'_>,
    nonce: &[u8; 32],
    proof: &v1::LoginProof,
    entropy: &mut Entropy,
) -> Result<Prepared<v1::Issued>, Refusal> {
    let st = proof.login.as_ref().ok_or_else(|| Refusal::invalid("the login statement is missing"))?;
    let bad = || Refusal::credential("the login statement is for another cluster, session, key or operator");
    let claimed = statement::peek::<v1::Login>(st)?;
    let for_this = claimed.cluster_id == leader.state.cluster()?.id.0
        && claimed.nonce == nonce
        && claimed.csr_sha256 == holdfast_types::sha256(&[&proof.csr]).0;
    if !for_this {
        return Err(bad());
    }
    let (v, signers) = leader.state.signed_by_operators::<v1::Login>(st)?;
    let l = v.doc;
    if !signers.iter().any(|o| o.id == l.operator_id) {
        return Err(bad());
    }
    let request = parse_csr(&proof.csr)?;
    let seq = leader.state.identity(&l.operator_id).map_or(1, Identity::next_seq);
    let m = leader.mint(request.key(), Role::Op, &l.operator_id, seq, entropy)?;
    let facts = m.facts.clone();
    let reply = issued(leader, &l.operator_id, m, None)?;
    let command = Command::Login { id: l.operator_id, statement: st.encode_to_vec(), cert: facts };
    Ok(prepared(leader.now, entropy, command, reply))
}

/// Renewal over the current certificate: R1 a next one, R2 the same again after a lost reply, R3 a fork.
///
/// On a lost reply the same key gets a fresh certificate with the same `seq` (the private key never left the client).
pub fn renew(
    leader: &Leader<'_>,
    id: &str,
    r: &v1::RenewRequest,
    entropy: &mut Entropy,
) -> Result<Prepared<Option<v1::Issued>>, Refusal> {
    // Operators log in again instead: a chain would make a fork of their second terminal. Voters report for theirs.
    let row = leader
        .state
        .identities
        .get(id)
        .filter(|i| !matches!(i.role, Role::Op | Role::Vault))
        .ok_or_else(|| Refusal::not_found("machine", id))?;
    let request = parse_csr(&r.csr)?;
    let spki = request.spki_sha256();
    let released = row.is_released(&spki);
    if row.state == IdentityState::Quarantined && !released {
        return Err(Refusal::credential("it is quarantined, and goes on with the key that operators name alone"));
    }
    let seq = match &row.pending {
        Some(p) if p.spki == spki => p.seq,
        Some(_) if !released => {
            let detail = "two different keys ask for the next certificate".to_owned();
            return Ok(prepared(leader.now, entropy, Command::Fork { id: id.to_owned(), detail }, None));
        }
        Some(_) | None => row.next_seq(),
    };
    let hpke = if row.role == Role::Node { Some(leader.hpke(seq, &r.hpke_pub)?) } else { None };
    let m = leader.mint(request.key(), row.role, id, seq, entropy)?;
    let facts = m.facts.clone();
    let reply = issued(leader, id, m, hpke.as_ref())?;
    Ok(prepared(
        leader.now,
        entropy,
        Command::Renew { id: id.to_owned(), cert: facts, hpke, acked: r.bundle_epoch },
        Some(reply),
    ))
}

/// What the registry says of a client certificate on listener S.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// It is the current one of a working identity.
    Good,
    /// It is the pending one: `Activate` with this serial must be committed before it counts (R4).
    Activate(String),
    /// It was retired: two holders (R5). `Fork` must be committed; the caller is refused.
    Fork,
    /// It is no certificate of the registry: refused, and an alarm.
    Unknown,
    /// The identity is quarantined, and operators named the key with which it goes on: it may renew with that one, and
    /// nothing else.
    Released,
    /// The identity is pending, quarantined or removed.
    State(IdentityState),
}

/// Looks a client certificate up: pin, don't just chain (protocol, registry pin).
pub fn pin(state: &State, role: Role, id: &str, serial: &str, spki: &Digest, now: Millis) -> Pin {
    if role == Role::Vault {
        let voter = id.parse().ok().and_then(|n| state.voter(VoterId(n)));
        let of = voter.filter(|v| v.state == VoterState::Member).and_then(|v| v.cert.as_ref());
        return if of.is_some_and(|c| c.serial == serial && c.spki == *spki) { Pin::Good } else { Pin::Unknown };
    }
    let Some(row) = state.identities.get(id).filter(|r| r.role == role) else { return Pin::Unknown };
    let presented = row.presented(serial, spki);
    if presented == Presented::Unknown {
        return Pin::Unknown;
    }
    if row.state == IdentityState::Quarantined && row.released.is_some() {
        let named = row.pending.as_ref().filter(|p| row.is_released(&p.spki) && presented == Presented::Pending);
        return named.map_or(Pin::Released, |p| Pin::Activate(p.serial.clone()));
    }
    if !matches!(row.state, IdentityState::Ready | IdentityState::Draining) {
        return Pin::State(row.state);
    }
    if role == Role::Op
        && (state.operator(id).is_none() || !row.current.iter().any(|c| c.serial == serial && c.not_after > now))
    {
        return Pin::Unknown;
    }
    match presented {
        Presented::Current => Pin::Good,
        Presented::Pending => Pin::Activate(row.pending.as_ref().map_or_else(String::new, |c| c.serial.clone())),
        Presented::Retired => Pin::Fork,
        Presented::Unknown => Pin::Unknown,
    }
}

/// Whether a certificate of an era before gets in, to be renewed (protocol, disaster): its root is no more, so it counts by the
/// registry alone, as long as it lasts, for a machine that works.
pub fn kept_from_before(state: &State, role: Role, id: &str, serial: &str, spki: &Digest, now: Millis) -> bool {
    let row = state.identity(id).filter(|r| r.role == role && matches!(role, Role::Node | Role::Orch));
    let works = |r: &&Identity| matches!(r.state, IdentityState::Ready | IdentityState::Draining);
    let is = |c: &CertFacts| c.serial == serial && c.spki == *spki && now < c.not_after;
    state.era() > 1 && row.filter(works).is_some_and(|r| r.current.iter().chain(&r.pending).any(is))
}

impl From<IdentityState> for Refusal {
    fn from(s: IdentityState) -> Self {
        Refusal::new(Code::BadCredential, format!("this identity is {}", s.as_str()))
    }
}
