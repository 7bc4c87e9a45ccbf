//! The Bundle that Admins are to sign in the place of roots that cannot: what is shown of it, and what they have signed.

use super::State;
use crate::command::{Command, NewRoot};
use crate::refusal::Refusal;
use holdfast_types::Millis;
use holdfast_wire::charter::{self, PUT_CHARTER};
use holdfast_wire::keys::key_id;
use holdfast_wire::statement::{self, MAX_SIGS};
use holdfast_wire::v1;

impl State {
    /// Whether the root that was made without the old ones may still be added: nothing that it follows has moved.
    pub(crate) fn is_proposed(&self, now: Millis) -> bool {
        let Some(n) = self.rotation.proposed.as_deref() else { return false };
        let lives = n.issuer_der.is_empty() || n.issuer_not_after > now;
        lives && n.statement().is_some_and(|st| self.may_propose(&st, &n.der).is_ok())
    }
    /// Whether `bundle` lists exactly `roots`, in any order.
    pub(crate) fn lists(bundle: &v1::Bundle, roots: &[Vec<u8>]) -> bool {
        bundle.roots.len() == roots.len() && roots.iter().all(|r| bundle.roots.contains(r))
    }
    /// Whether Admins may sign `st` for the root `der`: it follows the newest Bundle under the charter in force, and lists the
    /// trusted roots and this one.
    pub(crate) fn may_propose(&self, st: &v1::Statement, der: &[u8]) -> Result<(), Refusal> {
        let shown: v1::Bundle = statement::peek(st)?;
        let roots: Vec<Vec<u8>> = self.roots_der().into_iter().chain([der.to_vec()]).collect();
        let listed = Self::lists(&shown, &roots);
        let after = self.bundle_sha256().is_some_and(|d| shown.prev_sha256 == d.0) && shown.epoch > self.epoch;
        let here = shown.era == self.era() && self.cluster_id().is_some_and(|c| shown.cluster_id == c.0);
        if listed && after && here && shown.charter_version == self.charter.version && shown.charter_version > 0 {
            return Ok(());
        }
        Err(Refusal::changed("the bundle, its roots or the charter moved meanwhile"))
    }
    /// The Bundle that is shown, with what Admins signed of it in `st`; `None`: nothing new, it is in force already or has these
    /// signatures.
    pub(crate) fn with_approval(&self, st: &v1::Statement, now: Millis) -> Result<Option<v1::Statement>, Refusal> {
        let newest = self.bundles.last().and_then(|b| Command::statement(b));
        if newest.is_some_and(|newest| newest.payload == st.payload) {
            return Ok(None);
        }
        let held = self.rotation.proposed.as_deref().filter(|_| self.is_proposed(now)).and_then(NewRoot::statement);
        let mut held = held.ok_or_else(|| Refusal::changed("no root waits for Admins to sign its bundle"))?;
        if held.payload != st.payload {
            return Err(Refusal::changed("this is not the bundle that is shown: fetch it again and sign that"));
        }
        let before = held.sigs.len();
        let good = statement::verify::<v1::Bundle>(st, &charter::admins(&self.charter), 1)?.signers;
        for s in st.sigs.iter().filter(|s| good.iter().any(|k| key_id(&k.key).as_slice() == s.key_id)) {
            if !held.sigs.iter().any(|h| h.key_id == s.key_id) {
                held.sigs.push(s.clone());
            }
        }
        if held.sigs.len() > MAX_SIGS {
            return Err(Refusal::invalid(format!("a bundle has {MAX_SIGS} signatures at most")));
        }
        Ok((held.sigs.len() > before).then_some(held))
    }
    /// How many have signed, in words.
    pub(crate) fn approvals(&self) -> String {
        let held = self.rotation.proposed.as_deref().and_then(NewRoot::statement).unwrap_or_default();
        let admins = charter::admins(&self.charter);
        let signed = |k: &&v1::PublicKey| held.sigs.iter().any(|s| key_id(&k.key).as_slice() == s.key_id);
        let (signed, needed) = (admins.iter().filter(signed).count(), charter::threshold(&self.charter, PUT_CHARTER));
        format!("{signed} of {needed} Admins have signed for the new root: see holdfast root approve")
    }
}
