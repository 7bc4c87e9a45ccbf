//! An identity whose certificate is over comes back by the key that the registry knows (protocol, bound-key rejoin).
//!
//! Whoever asks has no certificate. Nothing is verified for an id and key that the registry does not know, and every refusal
//! before the proof is one and the same. One that was removed does not come back; while it could have, it is told so.

use super::identity::{issued, parse_csr};
use super::{Leader, prepared};
use crate::command::Command;
use crate::entropy::Entropy;
use crate::held::Prepared;
use crate::refusal::Refusal;
use crate::state::{Identity, IdentityState, Presented};
use holdfast_pki::csr::MAX_CSR;
use holdfast_pki::keys::SubjectKey;
use holdfast_types::{Digest, Role, rough, sha256};
use holdfast_wire::v1;

/// Longest public keys that are looked at.
const MAX_SPKI: usize = 512;
/// Longest text about where somebody spoke from.
const MAX_FROM: usize = 600;

/// What is answered to whoever proved a key of a machine.
pub enum Back {
    /// Its next certificate, once that is committed; `None`: it has two holders.
    Comes(Box<Prepared<Option<v1::Issued>>>),
    /// It was removed: [`removal`](super::removal) tells it.
    Removed,
}

/// The bytes that the old key signs: `"holdfast/v1/rejoin" ‖ nonce ‖ H(id) ‖ H(csr) ‖ H(hpke_pub)`.
pub fn rejoin_message(nonce: &[u8; 32], id: &str, csr: &[u8], hpke_pub: &[u8]) -> Vec<u8> {
    let hashes = [id.as_bytes(), csr, hpke_pub].map(|part| sha256(&[part]).0);
    [b"holdfast/v1/rejoin".as_slice(), nonce, hashes.as_flattened()].concat()
}

/// Judges the proof of the old key, and gives a certificate for a new one; or none if the key is one that was retired, so that
/// the identity has two holders. `from`: where the caller is, for the log.
///
/// Whether its certificate is over already is not asked: whose clock is ahead comes back all the same, and proves no less than
/// for a renewal.
pub fn rejoin(
    leader: &Leader<'_>,
    nonce: &[u8; 32],
    id: &str,
    proof: &v1::RejoinProof,
    from: &str,
    entropy: &mut Entropy,
) -> Result<Back, Refusal> {
    let row = leader.state.identities.get(id).filter(|i| matches!(i.role, Role::Node | Role::Orch));
    let row = row.ok_or_else(unknown)?;
    if proof.csr.len() > MAX_CSR || proof.spki.len() > MAX_SPKI || proof.hpke_pub.len() > MAX_SPKI {
        return Err(unknown());
    }
    let proven = sha256(&[&proof.spki]);
    let presented = row.proven(&proven);
    if presented == Presented::Unknown {
        return Err(unknown());
    }
    let key = SubjectKey::from_spki(&proof.spki).map_err(|_| unknown())?;
    let message = rejoin_message(nonce, id, &proof.csr, &proof.hpke_pub);
    if !holdfast_wire::keys::verify(key.public(), &message, &proof.signature) {
        return Err(unknown());
    }
    // From here on the caller is known to hold a key that was this identity's.
    if row.state == IdentityState::Removed {
        return in_time(leader, row, &proven).map(|()| Back::Removed).map_err(|_| unknown());
    }
    let request = parse_csr(&proof.csr)?;
    let spki = request.spki_sha256();
    let released = row.is_released(&spki);
    if !released && !matches!(row.state, IdentityState::Ready | IdentityState::Draining) {
        return Err(row.state.into());
    }
    in_time(leader, row, &proven)?;
    let from: String = from.chars().filter(|c| !c.is_control()).take(MAX_FROM).collect();
    let fork = |what: &str| Command::Fork { id: id.to_owned(), detail: format!("{what}; it came from {from}") };
    // Whatever it asks for: a stale copy may ask with the very key that the other holder has moved on to (R5).
    if presented == Presented::Retired && !released {
        let what = "a key that was replaced was used to come back";
        return Ok(comes(prepared(leader.now, entropy, fork(what), None)));
    }
    if spki == proven || matches!(row.proven(&spki), Presented::Current | Presented::Retired) {
        return Err(Refusal::invalid("a machine comes back with a new key, not with one that it had"));
    }
    let seq = match &row.pending {
        Some(p) if p.spki == spki => p.seq,
        Some(_) if presented == Presented::Current && !released => {
            let what = "two different keys ask for the next certificate";
            return Ok(comes(prepared(leader.now, entropy, fork(what), None)));
        }
        Some(_) | None => row.next_seq(),
    };
    let hpke = if row.role == Role::Node { Some(leader.hpke(seq, &proof.hpke_pub)?) } else { None };
    let m = leader.mint(request.key(), row.role, id, seq, entropy)?;
    let cert = m.facts.clone();
    let reply = issued(leader, id, m, hpke.as_ref())?;
    let command = Command::Rejoin { id: id.to_owned(), cert, hpke, acked: proof.bundle_epoch, from };
    Ok(comes(prepared(leader.now, entropy, command, Some(reply))))
}

fn comes(p: Prepared<Option<v1::Issued>>) -> Back {
    Back::Comes(Box::new(p))
}

fn unknown() -> Refusal {
    Refusal::credential("no machine with this id and key is waited for here; it joins again with a new token")
}

/// A certificate that ended too long ago is no credential any more. Time in which no vault ran does not count: who could not
/// come back is not late.
fn in_time(leader: &Leader<'_>, row: &Identity, proven: &Digest) -> Result<(), Refusal> {
    let since = leader.state.ran_since(leader.now, leader.lives.rejoin);
    let Some(end) = row.ends_with(proven).filter(|end| *end < since) else { return Ok(()) };
    let why = format!(
        "its certificate ended {} ago, and a machine comes back within {} in which a vault runs; it joins again with a new \
         token",
        rough(leader.now.since(end)),
        rough(leader.lives.rejoin)
    );
    Err(Refusal::credential(why))
}
