//! Voters: admitted by operators under the next number, evicted for good, and what each says of itself.

use super::submit::By;
use super::{Event, Step};
use crate::command::{CertFacts, VoterMark, VoterSaid};
use crate::log::Draft;
use crate::prepare::Admission;
use crate::refusal::{Code, Refusal};
use crate::state::{IdentityState, Revoked, State, VoterRow, VoterState};
use holdfast_types::{Digest, Role, VoterId};
use holdfast_wire::v1;
use std::collections::BTreeSet;

impl Step<'_> {
    /// Whoever waits as `a.id` becomes a voter. Its number and the terms boxed to it were chosen when this was prepared: both
    /// are preconditions.
    pub(super) fn admit_voter(
        &mut self,
        by: &By<'_>,
        a: &v1::AdmitVoter,
        sealed: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let key =
            Digest::from_slice(&a.spki_sha256).ok_or_else(|| Refusal::invalid("a key fingerprint has 32 bytes"))?;
        let admission = sealed
            .and_then(Admission::decode)
            .ok_or_else(|| Refusal::invalid("what the new voter is given does not decode"))?;
        let (_, kem) = self.state.applicant(&a.id, &key)?;
        if admission.id.0 != self.state.last_voter + 1 {
            return Err(Refusal::changed("another voter was admitted meanwhile; try again"));
        }
        self.state.covers_live_terms(&admission.terms)?;
        self.with_identity(&a.id, |row| {
            row.state = IdentityState::Ready;
            row.approved = Some(key);
            Ok(())
        })?;
        let Admission { id, terms } = admission;
        self.state.last_voter = id.0;
        self.state.voters.insert(id, VoterRow::new(kem, 1, terms, Some(key)));
        self.leaf(by.draft("voter.admit", name(id)).with("applicant", &a.id).with("spki", key));
        self.event(Event::Voters);
        Ok(())
    }

    /// The voter takes part no more, and gets no keyring term that is made from now on: a new one is ordered.
    pub(super) fn evict_voter(&mut self, by: &By<'_>, e: &v1::EvictVoter) -> Result<(), Refusal> {
        let id = VoterId(e.voter_id);
        let row = self.state.known_voter(id)?;
        if row.state == VoterState::Evicted {
            return match (e.compromised, row.exposed.is_some()) {
                (true, false) => {
                    self.found_compromised(by, id);
                    Ok(())
                }
                // Twice is as good as once: whoever repeats it is to see any other refusal.
                (true, true) => Ok(()),
                (false, _) => Err(Refusal::changed(format!("voter {id} was evicted before"))),
            };
        }
        if !self.state.voters().any(|(other, v)| other != id && v.has_been_up()) {
            let why = format!("without voter {id} nobody is left to decide anything; admit another voter first");
            return Err(Refusal::changed(why));
        }
        let exposed = e.compromised.then(|| self.state.held_now());
        let mut revoked = None;
        if let Some(row) = self.state.voters.get_mut(&id) {
            row.state = VoterState::Evicted;
            row.terms.clear();
            row.exposed = exposed;
            revoked = row.cert.as_ref().map(|c| Revoked {
                not_before_seq: c.seq + 1,
                until: c.not_after,
                removed: None,
                keys: Vec::new(),
                released: false,
            });
            let key = row.spki;
            self.forget_applicant(key);
        }
        if let Some(r) = revoked {
            self.state.revoked.insert(name(id), r);
        }
        self.state.keyring_ordered = true;
        self.evict_leaf(by, id, e.compromised);
        self.next_epoch();
        self.event(Event::Voters);
        Ok(())
    }

    /// Of a voter that was evicted before it is known now that others had it, and nobody knows since when: all that is in use
    /// counts as known to them.
    fn found_compromised(&mut self, by: &By<'_>, id: VoterId) {
        let exposed = self.state.held_now();
        if let Some(row) = self.state.voters.get_mut(&id) {
            row.exposed = Some(exposed);
        }
        self.state.keyring_ordered = true;
        self.evict_leaf(by, id, true);
        self.event(Event::Voters);
    }

    fn evict_leaf(&mut self, by: &By<'_>, id: VoterId, compromised: bool) {
        let open = self.state.compromised_voters().into_iter().find(|(v, _)| *v == id).map(|(_, left)| left.join(", "));
        let leaf = by.draft("voter.evict", name(id)).with("compromised", compromised);
        self.leaf(open.into_iter().fold(leaf, |leaf, left| leaf.with("open", left)));
    }

    /// An admitted applicant collects its first certificate; again, if the answer was lost on its way.
    pub(super) fn issue_voter(&mut self, applicant: &str, cert: CertFacts) -> Result<(), Refusal> {
        let waits = || Refusal::new(Code::Pending, "this applicant is not admitted with this key");
        let row = self.state.identities.get(applicant).ok_or_else(waits)?;
        if row.state != IdentityState::Ready || row.approved != Some(cert.spki) {
            return Err(waits());
        }
        let id = self.state.voter_with_key(&cert.spki).map(|(id, _)| id).ok_or_else(waits)?;
        let voter = self.state.voters.get_mut(&id).filter(|v| !v.has_been_up() && cert.seq == 1);
        voter.ok_or_else(|| Refusal::changed("this voter has been up; its certificates follow its first"))?.cert =
            Some(cert.clone());
        self.cert_leaf(&name(id), &cert);
        self.event(Event::Voters);
        Ok(())
    }

    /// What a voter says of itself, as far as it can be true. Its first word makes its join over.
    pub(super) fn voter_reported(
        &mut self,
        id: VoterId,
        leads: Option<u64>,
        facts: VoterSaid,
        cert: Option<CertFacts>,
        terms: Vec<(u32, Vec<u8>)>,
    ) -> Result<(), Refusal> {
        let row = self.state.known_voter(id)?;
        row.hears(id, &facts, &self.state.unlock)?;
        let next_kem = row.has_next_kem(&facts);
        if next_kem {
            self.state.covers_live_terms(&terms)?;
        } else if !terms.is_empty() {
            return Err(Refusal::changed("this KEM key has its boxes already"));
        }
        if let Some(c) = &cert {
            if row.spki.is_some_and(|known| known != c.spki) {
                return Err(Refusal::credential(format!("voter {id} was admitted with another key")));
            }
            if c.seq != row.next_seq() {
                return Err(Refusal::changed("a newer certificate exists"));
            }
        }
        let first = !row.has_been_up();
        let moved = row.service_addr != facts.service_addr || row.join_addr != facts.join_addr;
        let up = !row.knows_process(&facts) || cert.is_some() || leads.is_some_and(|t| t > row.led);
        let slots = !row.knows_slots(&facts);
        let shows = row.begins_to_show(&facts);
        let kem_gen = row.kem_gen.max(facts.kem.0);
        if let Some(c) = &cert {
            self.cert_leaf(&name(id), c);
        }
        if up {
            let leaf = Draft::new("voter.up", "vault", name(id)).with("boot", facts.boot.0).with("kem_gen", kem_gen);
            self.leaf(leads.into_iter().fold(leaf, |leaf, term| leaf.with("term", term)));
        }
        if slots {
            let leaf = Draft::new("unlock.slotready", "vault", name(id)).with("epoch", facts.unlock_epoch);
            let leaf = leaf.with("charter", facts.recovery_version).with("disk_key_order", facts.disk_key_order);
            self.leaf(leaf);
        }
        if cert.is_some() || moved {
            self.event(Event::Trust);
        }
        if up || slots || shows {
            self.event(Event::Voters);
        }
        let newest = self.state.bundle_epoch();
        let Some(row) = self.state.voters.get_mut(&id) else { return Ok(()) };
        row.take(facts, leads);
        row.acked = newest;
        if next_kem {
            row.terms = terms;
        }
        if let Some(c) = cert {
            row.spki = Some(c.spki);
            row.cert = Some(c);
        }
        let key = row.spki;
        if first {
            self.forget_applicant(key);
        }
        Ok(())
    }

    /// How far voters were; it only grows. Too frequent for the log of changes, and decides nothing but who is set back.
    pub(super) fn progress(&mut self, marks: &[VoterMark]) -> Result<(), Refusal> {
        for m in marks {
            let Some(row) = self.state.voters.get_mut(&m.id).filter(|v| v.state == VoterState::Member) else {
                continue;
            };
            row.progress = row.progress.max(m.index);
            row.vote_term = row.vote_term.max(m.vote_term);
        }
        Ok(())
    }

    /// The row of the applicant with this key is over: the voter's own counts, or none.
    fn forget_applicant(&mut self, key: Option<Digest>) {
        let Some(key) = key else { return };
        let of = |(id, row): (&String, &crate::Identity)| (row.approved == Some(key)).then(|| id.clone());
        let over: Vec<String> = self.state.applicant_rows().filter_map(of).collect();
        for id in over {
            self.state.identities.remove(&id);
        }
    }
}

/// As its certificates name it.
fn name(id: VoterId) -> String {
    format!("{}/{id}", Role::Vault)
}

impl State {
    fn known_voter(&self, id: VoterId) -> Result<&VoterRow, Refusal> {
        self.voter(id).ok_or_else(|| Refusal::not_found("voter", id))
    }
    /// Whether `terms` are the live ones, each once.
    fn covers_live_terms(&self, terms: &[(u32, Vec<u8>)]) -> Result<(), Refusal> {
        let given: BTreeSet<u32> = terms.iter().map(|(t, _)| *t).collect();
        if given.len() == terms.len() && given.iter().copied().eq(self.live_terms()) {
            return Ok(());
        }
        Err(Refusal::changed("the keyring changed meanwhile; try again"))
    }
}
