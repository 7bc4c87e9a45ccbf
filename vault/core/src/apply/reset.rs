//! A new era (protocol, disaster): one voter, new roots and keys, and nothing of the era before that still has force.
//!
//! What is removed stays removed: revocations, tombstones, fences and used ids are kept
//! (`what_was_removed_stays_removed_in_the_next_era`).

use super::submit::By;
use super::{Event, Step};
use crate::command::Command;
use crate::log::Draft;
use crate::refusal::Refusal;
use crate::reset::ResetFacts;
use crate::state::{EraBefore, GrantState, Index, Rotation, Unlock, UnlockKey, VoterRow, VoterState};
use holdfast_types::{Digest, GrantId, sha256};
use holdfast_wire::statement::peek;
use holdfast_wire::v1;
use std::collections::BTreeSet;

impl Step<'_> {
    pub(super) fn reset(&mut self, r: ResetFacts) -> Result<(), Refusal> {
        let st = Command::statement(&r.statement).ok_or_else(|| Refusal::corrupt("reset"))?;
        let doc: v1::Reset = peek(&st)?;
        let cluster = self.state.cluster()?;
        if doc.cluster_id != cluster.id.0 || doc.era != cluster.era.saturating_add(1) {
            return Err(Refusal::changed("the reset is not for the era after this one"));
        }
        if r.term != self.state.term.saturating_add(1) || r.voter.id != self.state.next_voter() {
            return Err(Refusal::changed("the keyring or the voters changed meanwhile"));
        }
        if !doc.removed.is_sorted_by(|a, b| a < b) || !doc.removed.iter().all(|id| self.state.is_removable(id)) {
            return Err(Refusal::changed("who is to be removed is not there, or named twice"));
        }
        let (era, epoch) = (cluster.era, self.state.epoch);
        // Whoever has the keys of the era before could remove everybody by them.
        let newest = self.state.bundles.last().filter(|_| !doc.compromised);
        let before = newest.map(|b| EraBefore {
            era,
            epoch,
            bundle: b.clone(),
            quarantines_of: epoch,
            released: BTreeSet::new(),
        });
        self.end_what_ran();
        let at = self.at;
        let s = &mut *self.state;
        s.before = before;
        if let Some(c) = &mut s.founded {
            c.era = doc.era;
        }
        s.epoch = 0;
        s.resets.push(r.statement);
        s.voters.values_mut().for_each(|v| v.state = VoterState::Evicted);
        s.last_voter = r.voter.id.0;
        let mut row = VoterRow::new(r.voter.kem_pk, r.voter.kem_gen, r.terms, Some(r.spki));
        row.disk_key_order = s.unlock.disk_key_order;
        s.voters.insert(r.voter.id, row);
        s.term = r.term;
        s.term_since = at;
        s.recovery_terms.insert(r.term, r.recovery_box);
        let key = r.unlock_pk.map(|pk| UnlockKey { pk, threshold: 0, share_digests: Vec::new() });
        let (epoch, disk_key_order) = (s.unlock.next_epoch(), s.unlock.disk_key_order);
        s.unlock = Unlock { epoch, key, disk_key_order, ..Unlock::default() };
        s.rotation = Rotation::default();
        // Epochs begin anew, and what was believed was of the era before.
        s.identities.values_mut().for_each(|i| i.acked = 0);
        let actor = r.signers.iter().map(|i| format!("op/{i}")).collect::<Vec<_>>().join(",");
        let before = sha256(&[&doc.prev_checkpoint]).hex();
        let leaf = Draft::new("reset", actor.clone(), doc.era.to_string())
            .with("voter", r.voter.id)
            .with("prev_checkpoint_sha256", before)
            .with("reason", &doc.reason);
        self.take_era_keys(r.keys, leaf.signed(&st));
        self.state.index = Index::build(self.state);
        self.next_epoch();
        [Event::Keys, Event::Slots, Event::Voters].into_iter().for_each(|e| self.event(e));
        let by = By { st: &st, actor, policies: &[], policy_version: 0 };
        doc.removed.iter().try_for_each(|id| self.remove_node(&by, id))
    }

    /// Each that is still here is removed, as by an operator: nobody is brought back, and nobody else is touched.
    pub(super) fn merge_removed(&mut self, ids: &[String], shown_by: &str, sha256: &Digest) -> Result<(), Refusal> {
        for id in ids {
            if self.state.is_removable(id) {
                self.take_out(id, merged("node.remove", id, shown_by, sha256), "vault")?;
            }
        }
        Ok(())
    }

    /// Each that is still here and works is in quarantine, as by an operator; from now on no older list says who is.
    pub(super) fn merge_quarantined(
        &mut self,
        ids: &[String],
        shown_by: &str,
        sha256: &Digest,
        epoch: u64,
    ) -> Result<(), Refusal> {
        // Another may have shown a newer one meanwhile.
        let Some(before) = self.state.before.as_mut().filter(|b| b.quarantines_of <= epoch) else { return Ok(()) };
        before.quarantines_of = epoch;
        for id in ids {
            if self.state.is_to_be_quarantined(id) {
                self.quarantine(id, merged("node.quarantine", id, shown_by, sha256))?;
            }
        }
        Ok(())
    }

    /// LAW: what was decided on before an era began has no force in it, however late its entry comes
    /// (`the_laws_hold_in_every_history_of_odd_seeds`).
    pub(super) fn of_this_era(&self, era: u64) -> Result<(), Refusal> {
        if era == self.state.era() {
            Ok(())
        } else {
            Err(Refusal::changed("it was signed for another era; sign it again"))
        }
    }

    /// Leases are void, and grants of the era before are not extended: their tasks have the rest of lease and grace. Join
    /// tokens pin a root that is no more.
    fn end_what_ran(&mut self) {
        let at = self.at;
        let s = &mut *self.state;
        s.leases.values_mut().for_each(|l| l.until = l.until.min(at));
        s.tokens.clear();
        let live: Vec<GrantId> = s.grants.iter().filter(|(_, g)| g.state.is_live()).map(|(id, _)| *id).collect();
        for id in live {
            s.change_grant(&id, |g| {
                g.state = GrantState::Revoked;
                g.over = Some(at);
            });
        }
    }
}

fn merged(kind: &'static str, id: &str, shown_by: &str, sha256: &Digest) -> Draft {
    Draft::new(kind, "vault", id)
        .with("reason", "it is in the revocations of the era before")
        .with("shown_by", shown_by)
        .with("revocations_sha256", sha256.hex())
}
