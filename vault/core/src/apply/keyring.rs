//! Terms of the keyring: a new one, records that move to it, and the end of the old ones.

use super::submit::By;
use super::{Event, Step};
use crate::command::{Command, HpkeFacts, NewTerm, Rewrapped};
use crate::log::Draft;
use crate::refusal::Refusal;
use holdfast_types::{VoterId, sha256};
use holdfast_wire::keys::key_id;
use holdfast_wire::{boxes, record, statement, v1};

/// The key that a box is sealed to.
fn boxed_to(b: &[u8], pk: &[u8; 32]) -> bool {
    boxes::parse(b).is_ok_and(|p| p.kid == key_id(pk))
}

impl Step<'_> {
    pub(super) fn order_keyring(&mut self, by: &By<'_>) -> Result<(), Refusal> {
        // Ordered twice before it came: one new term is what both wanted.
        self.state.keyring_ordered = true;
        self.leaf(by.draft("command", "keyring").with("action", "rotate-keyring"));
        Ok(())
    }

    /// LAW: a term is boxed to the members at this moment and to nobody else
    /// (`an_evicted_voter_has_no_box_of_the_next_term`).
    pub(super) fn keyring_add(&mut self, t: NewTerm) -> Result<(), Refusal> {
        let s = &*self.state;
        let st = Command::statement(&t.bundle).ok_or_else(|| Refusal::corrupt("bundle"))?;
        let b: v1::Bundle = statement::peek(&st)?;
        if t.term != s.term + 1 || b.epoch != s.epoch + 1 {
            return Err(Refusal::changed("the keyring or the epoch moved meanwhile"));
        }
        let given: Vec<(VoterId, u32)> = t.boxes.iter().map(|(id, key_gen, _)| (*id, *key_gen)).collect();
        let members: Vec<(VoterId, u32)> = s.voters().map(|(id, v)| (id, v.kem_gen)).collect();
        let boxed = t.boxes.iter().all(|(id, _, sealed)| s.voter(*id).is_some_and(|v| boxed_to(sealed, &v.kem_pk)));
        if given != members || !boxed {
            return Err(Refusal::changed("the voters or their keys changed meanwhile"));
        }
        if !s.recovery_pk().is_some_and(|pk| boxed_to(&t.recovery_box, &pk)) {
            return Err(Refusal::changed("the recovery key changed meanwhile"));
        }
        let term = t.term;
        let draft = Draft::new("keyring.add", "vault", term.to_string()).with("voters", t.boxes.len());
        self.leaf(draft.with("bundle_sha256", sha256(&[&st.payload])));
        let at = self.at;
        let s = &mut *self.state;
        for (id, _, sealed) in t.boxes {
            if let Some(v) = s.voters.get_mut(&id) {
                v.terms.push((term, sealed));
            }
        }
        s.recovery_terms.insert(term, t.recovery_box);
        s.term = term;
        s.term_since = at;
        s.keyring_ordered = false;
        s.bundles.push(t.bundle);
        self.next_epoch();
        self.event(Event::Keys);
        Ok(())
    }

    /// Records move to the active term. One that was replaced meanwhile stays as it is now: its value is another.
    pub(super) fn rewrap(&mut self, records: Vec<Rewrapped>) -> Result<(), Refusal> {
        let active = self.state.term;
        if records.iter().any(|r| record::term_of(&r.record) != Ok(active)) {
            return Err(Refusal::changed("the keyring moved meanwhile"));
        }
        let mut moved = 0u64;
        for r in records {
            let old = self.state.lying(&r.at);
            let same = |rev, now: &[u8]| rev == r.rev && record::term_of(now).is_ok_and(|t| t < active);
            if old.is_some_and(|l| same(l.rev, l.record)) {
                self.state.lay(r.at, r.record);
                moved += 1;
            }
        }
        if moved > 0 {
            self.leaf(Draft::new("keyring.rewrap", "vault", active.to_string()).with("records", moved));
        }
        Ok(())
    }

    /// The boxes of these terms go. What is left of them in the log goes with the voters' disk keys, which they replace.
    pub(super) fn keyring_destroy(&mut self, terms: &[u32]) -> Result<(), Refusal> {
        let idle = self.state.destroyable_terms();
        if terms.is_empty() || !terms.iter().all(|t| idle.contains(t)) {
            return Err(Refusal::changed("something is still sealed under this keyring term"));
        }
        let s = &mut *self.state;
        s.voters.values_mut().for_each(|v| v.terms.retain(|(t, _)| !terms.contains(t)));
        s.recovery_terms.retain(|t, _| !terms.contains(t));
        let mut gone = terms.to_vec();
        gone.sort_unstable();
        gone.dedup();
        for term in gone {
            self.leaf(Draft::new("keyring.destroy", "vault", term.to_string()));
        }
        self.replace_disk_keys();
        self.event(Event::Keys);
        Ok(())
    }

    /// A record that was sealed before its term was destroyed must not come in after: nothing would open it.
    pub(super) fn live_record(&self, sealed: &[u8]) -> Result<(), Refusal> {
        let term = record::term_of(sealed).map_err(|_| Refusal::corrupt("record"))?;
        self.live_term(term)
    }

    /// The same for a node's key.
    pub(super) fn live_hpke(&self, hpke: Option<&HpkeFacts>) -> Result<(), Refusal> {
        hpke.map_or(Ok(()), |h| self.live_term(h.term))
    }

    fn live_term(&self, term: u32) -> Result<(), Refusal> {
        if self.state.recovery_terms.contains_key(&term) {
            return Ok(());
        }
        Err(Refusal::changed(format!("keyring term {term} was destroyed meanwhile; try again")))
    }
}
