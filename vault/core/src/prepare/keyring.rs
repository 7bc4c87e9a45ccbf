//! The keyring: a new term, records that move to it, the end of old terms, and another recovery key.

use super::found::{next_bundle, usable};
use super::{Leader, prepared};
use crate::command::{Command, NewTerm, RecordAt, Rewrapped};
use crate::entropy::Entropy;
use crate::held::Prepared;
use crate::keys::Keyring;
use crate::refusal::{Code, Refusal};
use holdfast_pki::keys::CertSigner;
use holdfast_types::{Secret, kind};
use holdfast_wire::v1;

/// Most bytes of records in one Rewrap, unless one record alone is longer.
const MAX_REWRAP: usize = 1 << 20;

/// The next term, boxed to every member and to the recovery key, with the Bundle that names its intake key. `fresh` is 32
/// random bytes, used for nothing else; the leader too opens the term from its own box, once it is committed.
pub fn new_term(
    leader: &Leader<'_>,
    root: &dyn CertSigner,
    fresh: Secret<kind::KeyringTerm, 32>,
    entropy: &mut Entropy,
) -> Result<Prepared<()>, Refusal> {
    let state = leader.state;
    let (cluster, term) = (state.cluster()?.id, state.active_term() + 1);
    let recovery = state.recovery_pk().ok_or_else(|| Refusal::corrupt("recovery key"))?;
    // Nothing is sealed with this one, so what hedges its salts does not matter.
    let next = Keyring::new(cluster, term, fresh, Secret::take(&mut entropy.draw("hedge")));
    let mut sealed = Vec::new();
    for (id, v) in state.voters() {
        let b = next.box_term(term, id.0, &v.kem_pk, v.kem_gen, entropy.draw("term-box"))?;
        sealed.push((id, v.kem_gen, b));
    }
    let recovery_box = next.box_for_recovery(term, &recovery, entropy.draw("recovery-box"))?;
    let (_, intake) = next.intake(term)?;
    let bundle = next_bundle(state, &[root], leader.now, |b| b.intake_pk = intake.to_vec())?;
    let command = Command::KeyringAdd(Box::new(NewTerm { term, boxes: sealed, recovery_box, bundle }));
    Ok(prepared(leader.now, entropy, command, ()))
}

/// Seals records of older terms anew under the active one, `most` at a time; `None` once none is left. One that does not
/// open keeps its term alive, and does not hold up the others.
pub fn rewrap(leader: &Leader<'_>, most: usize, entropy: &mut Entropy) -> Result<Option<Command>, Refusal> {
    let active = leader.state.active_term();
    let mut old = leader.state.index.under.older(active).peekable();
    if old.peek().is_none() {
        return Ok(None);
    }
    if leader.keys.active() != active {
        return Err(Refusal::new(Code::Unavailable, format!("keyring term {active} is not open on this voter yet")));
    }
    let (mut moved, mut bytes, mut shut) = (Vec::new(), 0, None);
    for at in old {
        if moved.len() >= most || bytes >= MAX_REWRAP {
            break;
        }
        match leader.sealed_anew(at, entropy) {
            Ok(Some(r)) => {
                bytes += r.record.len();
                moved.push(r);
            }
            Ok(None) => {}
            Err(e) => shut = shut.or(Some(e)),
        }
    }
    match shut {
        Some(e) if moved.is_empty() => Err(e),
        Some(_) | None => Ok((!moved.is_empty()).then_some(Command::Rewrap(moved))),
    }
}

impl Leader<'_> {
    /// The same value at the same place and revision: only the term is another.
    fn sealed_anew(&self, at: &RecordAt, entropy: &mut Entropy) -> Result<Option<Rewrapped>, Refusal> {
        let Some(l) = self.state.lying(at) else { return Ok(None) };
        let value = self.keys.open(l.purpose, &l.path, l.rev, l.record)?;
        let record = self.keys.seal(l.purpose, &l.path, l.rev, value.expose(), entropy.draw("rewrap"))?;
        Ok(Some(Rewrapped { at: at.clone(), rev: l.rev, record }))
    }

    /// What a new charter needs beside its statement: if it names another recovery key, every term that is alive, boxed to
    /// that one. Terms that this voter has not opened cannot be boxed, and the charter has to wait.
    pub(super) fn recovery_boxes(&self, c: &v1::Charter, entropy: &mut Entropy) -> Result<Option<Vec<u8>>, Refusal> {
        let pk = usable(c)?;
        if self.state.recovery_pk() == Some(pk) {
            return Ok(None);
        }
        let mut boxed = Vec::new();
        for term in self.state.recovery_terms.keys() {
            boxed.push((*term, self.keys.box_for_recovery(*term, &pk, entropy.draw("recovery-box"))?));
        }
        postcard::to_stdvec(&boxed).map(Some).map_err(|_| Refusal::corrupt("recovery boxes"))
    }

    /// Opens what an operator boxed to an intake key: of the term that the newest Bundle names, or of one before it that is
    /// still alive.
    pub(super) fn opened_intake(&self, aad: &[u8], sealed: &[u8]) -> Result<holdfast_types::SecretBytes, Refusal> {
        self.keys
            .open_intake(aad, sealed)
            .map_err(|e| Refusal::invalid(format!("the sealed value does not open: {e}; fetch the trust bundle again")))
    }
}
