//! Whether a statement is news: the next of its kind, and not one that was here before.
//!
//! Asked before it is proposed, so that what would change nothing makes no entry of the log, and again where it is applied.

use super::State;
use crate::refusal::Refusal;
use crate::state::Accepted;
use holdfast_types::{CommandId, Digest, MandateId, SecretRef, ServiceRef};
use holdfast_wire::statement::peek;
use holdfast_wire::v1;

impl State {
    /// `version`, if it is the one that a service's next spec must have.
    pub(crate) fn next_spec(&self, name: &ServiceRef, version: u64) -> Result<u64, Refusal> {
        let next = self.last_version(name) + 1;
        if version == next {
            return Ok(next);
        }
        Err(Refusal::changed(format!("the spec's version must be {next}, it is {version}")))
    }
    /// `version`, if it is the one that a secret's next value must have.
    pub(crate) fn next_secret(&self, name: &SecretRef, version: u64) -> Result<u64, Refusal> {
        let next = self.last_secret_version(name) + 1;
        if version == next {
            return Ok(next);
        }
        Err(Refusal::changed(format!("the secret's next version is {next}, the command says {version}")))
    }
    /// A mandate is never put again, not even once it was revoked.
    pub(crate) fn new_mandate(&self, id: &MandateId) -> Result<(), Refusal> {
        if self.mandates.contains_key(id) {
            return Err(Refusal::changed(format!("mandate {id} exists already")));
        }
        Ok(())
    }
    /// A command's id counts once.
    pub(crate) fn new_command(&self, id: &CommandId) -> Result<(), Refusal> {
        if self.commands.contains_key(id) {
            return Err(Refusal::changed("this command was carried out before"));
        }
        Ok(())
    }
    /// Whether this voucher is stored, with each of its signatures.
    pub(crate) fn has_voucher(&self, st: &v1::Statement) -> bool {
        let digest = peek::<v1::Voucher>(st).ok().and_then(|v| Digest::from_slice(&v.digest));
        let stored = digest.and_then(|d| self.vouchers.get(&d)).into_iter().flatten();
        let signed = |by: &v1::Statement| st.sigs.iter().all(|s| by.sigs.iter().any(|h| h.key_id == s.key_id));
        let same = |by: &v1::Statement| by.payload == st.payload && signed(by);
        stored.filter_map(|b| crate::Command::statement(b)).any(|by| same(&by))
    }
    /// The answer to what changes nothing: the log and the directory as they are.
    pub(crate) fn unchanged(&self) -> Accepted {
        Accepted { leaf: self.log_size.saturating_sub(1), rev: self.rev }
    }
}
