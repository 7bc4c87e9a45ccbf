//! Bringing a cluster back: first what its operators are to sign, then, once they have, the command.

use super::found::{era_keys, listed};
use super::{FoundingKeys, prepared};
use crate::command::{Command, VoterFacts};
use crate::entropy::Entropy;
use crate::held::Prepared;
use crate::keys::Keyring;
use crate::refusal::{Code, Refusal};
use crate::reset::ResetFacts;
use crate::state::{IdentityState, State};
use holdfast_types::{Digest, Millis, Role};
use holdfast_wire::charter::verify_reset;
use holdfast_wire::v1;
use prost::Message as _;
use std::time::Duration;

/// What a new era begins with.
pub struct Resetting<'a> {
    /// The cluster as it was.
    pub state: &'a State,
    /// Every live term, and the new one, which is active.
    pub keys: &'a Keyring,
    /// The era's root, issuer and statement key.
    pub made: &'a FoundingKeys<'a>,
    /// The one voter: the state's next number.
    pub voter: VoterFacts,
    /// `H(SubjectPublicKeyInfo)` of its TLS key.
    pub spki: Digest,
    /// Public half of the unlock key; `None` = autolock off.
    pub unlock_pk: Option<[u8; 32]>,
    /// The signed checkpoint of the log as it is known; may be empty.
    pub checkpoint: Vec<u8>,
    /// Why, in the operators' words.
    pub reason: String,
    /// Nodes and orchestrators that were removed since, in the operators' words too.
    pub removed: Vec<String>,
    /// The keys of the era before may be a thief's.
    pub compromised: bool,
}

/// A new era that waits for its operators' signatures.
pub struct PlannedReset {
    doc: v1::Reset,
    facts: ResetFacts,
    charter: v1::Charter,
}

/// Makes everything that a new era needs.
pub fn plan_reset(
    r: Resetting<'_>,
    issuer_life: Duration,
    now: Millis,
    entropy: &mut Entropy,
) -> Result<PlannedReset, Refusal> {
    let (cluster, era) = (r.state.cluster()?.id, r.state.era().saturating_add(1));
    let removed = removable(r.state, r.removed)?;
    let term = r.keys.active();
    let keys = era_keys(r.keys, r.made, &cluster, era, issuer_life, now, entropy)?;
    let recovery = r.state.charter().recovery.clone().unwrap_or_default().public_key;
    let mut terms = Vec::new();
    for t in r.keys.terms() {
        let (to, random) = (&r.voter, entropy.draw("term-box"));
        terms.push((t, r.keys.box_term(t, to.id.0, &to.kem_pk, to.kem_gen, random)?));
    }
    let doc = v1::Reset {
        cluster_id: cluster.0.to_vec(),
        era,
        prev_checkpoint: r.checkpoint,
        roots: vec![keys.root_der.clone()],
        stks: vec![listed(r.made.stk, &keys.stk)],
        voters: vec![r.voter.id.0],
        min_charter_version: r.state.charter().version,
        reason: r.reason,
        request_id: entropy.draw16("request").to_vec(),
        issued_at_ms: now.0,
        removed,
        compromised: r.compromised,
    };
    let facts = ResetFacts {
        statement: Vec::new(),
        signers: Vec::new(),
        keys,
        voter: r.voter,
        spki: r.spki,
        term,
        terms,
        recovery_box: r.keys.box_for_recovery(term, &recovery, entropy.draw("recovery-box"))?,
        unlock_pk: r.unlock_pk,
    };
    Ok(PlannedReset { doc, facts, charter: r.state.charter().clone() })
}

/// Those of `ids` that are not removed already, each once. An id that is not known is a mistake, or of somebody who joined
/// later and does not come back anyway: its operator says which.
fn removable(state: &State, mut ids: Vec<String>) -> Result<Vec<String>, Refusal> {
    ids.sort_unstable();
    ids.dedup();
    let mut removed = Vec::new();
    for id in ids {
        let row = state.identities.get(&id).filter(|i| matches!(i.role, Role::Node | Role::Orch));
        let row = row.ok_or_else(|| Refusal::not_found("node or orchestrator in the backup with the id", &id))?;
        if row.state != IdentityState::Removed {
            removed.push(id);
        }
    }
    Ok(removed)
}

impl PlannedReset {
    /// What is to be signed.
    pub fn document(&self) -> &v1::Reset {
        &self.doc
    }
    /// The command, if enough Admins signed exactly that.
    pub fn complete(mut self, st: &v1::Statement, now: Millis, entropy: &mut Entropy) -> Result<Prepared<()>, Refusal> {
        let signed = verify_reset(&self.charter, st)?;
        if signed.doc != self.doc {
            return Err(Refusal::new(Code::BadCredential, "what was signed is not the reset that was shown"));
        }
        let counted = |o: &&v1::Operator| o.key.as_ref().is_some_and(|k| signed.signers.iter().any(|s| s.key == k.key));
        self.facts.signers = self.charter.operators.iter().filter(counted).map(|o| o.id.clone()).collect();
        self.facts.statement = st.encode_to_vec();
        Ok(prepared(now, entropy, Command::Reset(Box::new(self.facts)), ()))
    }
}
