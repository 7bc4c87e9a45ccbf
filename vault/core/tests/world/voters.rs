//! Voters: what they say of themselves, who waits to become one, and the operators who admit and evict.

use super::{Machine, World};
use holdfast_types::VoterId;
use holdfast_vault_core::prepare::{self, Approved};
use holdfast_vault_core::{Committed, Refusal};
use holdfast_wire::v1;
use rcgen::{CertificateParams, KeyPair};
use v1::command::Action;

/// A request for a certificate of this key.
pub fn csr_of(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

/// A boot as a report bears it.
pub fn boot(count: u64, id: u8) -> Option<v1::Boot> {
    Some(v1::Boot { count, id: vec![id; 16] })
}

impl World {
    /// What voter `id` says when it starts for the `count`th time, with what is known of it otherwise.
    pub fn voter_report(&self, id: u64, count: u64) -> v1::VoterReport {
        let row = self.state.voter(VoterId(id)).unwrap();
        v1::VoterReport {
            boot: boot(count, 1),
            peer_addr: format!("v{id}:7402"),
            service_addr: format!("v{id}:7443"),
            join_addr: format!("v{id}:7444"),
            unlock_epoch: row.unlock_epoch,
            recovery_version: 1,
            disk_key_order: row.disk_key_order,
            kem_gen: row.kem_gen,
            kem_pk: row.kem_pk.to_vec(),
            ..v1::VoterReport::default()
        }
    }
    /// Says it to the leader; the chain that was asked for, or `None` if it was no news.
    pub fn says(
        &mut self,
        id: u64,
        said: &v1::VoterReport,
        leads: Option<u64>,
    ) -> Result<Option<v1::VoterReportReply>, Refusal> {
        match prepare::voter_said(&self.leader(), VoterId(id), said, leads, &mut self.entropy())? {
            Some(p) => self.commit(Ok(p)).map(|(reply, _)| Some(reply)),
            None => Ok(None),
        }
    }
    /// Somebody with a voter's token, who waits.
    pub fn applicant(&mut self) -> Machine {
        let token = self.mint("voter");
        self.try_join(&token).unwrap()
    }
    pub fn admission(&self, m: &Machine) -> v1::Statement {
        let admit = v1::AdmitVoter { id: m.id.clone(), spki_sha256: m.spki.to_vec() };
        self.sign(&self.command(Action::AdmitVoter(admit)), &["ada", "ben"])
    }
    pub fn admit(&mut self, m: &Machine) -> Result<Committed, Refusal> {
        let st = self.admission(m);
        self.submit(&st, &[])
    }
    pub fn evict(&mut self, id: u64, compromised: bool) -> Result<Committed, Refusal> {
        self.act(&["ada", "ben"], Action::EvictVoter(v1::EvictVoter { voter_id: id, compromised }))
    }
    /// What an applicant is told; `None` while it waits.
    pub fn collect_voter(&mut self, m: &Machine) -> Result<Option<v1::VoterAdmitted>, Refusal> {
        let r = self.await_request(m);
        match prepare::approved(&self.leader(), &r, &mut self.entropy())? {
            Approved::Voter(p) => self.commit(Ok(p)).map(|(told, _)| Some(told)),
            Approved::Waits => Ok(None),
            Approved::Issued(_) => panic!("{} is given a machine's certificate", m.id),
        }
    }
    /// One more voter, which is up, with the number it was given.
    pub fn voter(&mut self) -> (u64, Machine) {
        let m = self.applicant();
        self.admit(&m).unwrap();
        let id = self.collect_voter(&m).unwrap().unwrap().voter_id;
        let said = self.voter_report(id, 1);
        self.says(id, &said, None).unwrap().unwrap();
        (id, m)
    }
}
