//! Statements that are sent again: anybody may relay one, as often as it likes.
//!
//! LAW: what would change nothing is answered or refused before it is proposed: it makes no entry of the log
//! (`a_statement_that_changes_nothing_is_answered_before_it_is_proposed`).

use super::Leader;
use super::submit::invalid;
use crate::refusal::Refusal;
use crate::state::{Accepted, publisher_vouches};
use holdfast_types::{CommandId, Digest, MandateId, SecretRef, ServiceRef};
use holdfast_wire::keys::key_id;
use holdfast_wire::statement::{Document, peek};
use holdfast_wire::v1;
use v1::command::Action;

/// What a statement is answered with that was accepted within the last day, or is held already with all its signatures;
/// `None`: it is to be decided.
pub fn known(leader: &Leader<'_>, st: &v1::Statement) -> Option<Accepted> {
    let accepted = leader.state.accepted(&st.payload);
    accepted.or_else(|| leader.holds(st).then(|| leader.state.unchanged()))
}

impl Leader<'_> {
    /// Whether a statement that may come again with more signatures came without any.
    fn holds(&self, st: &v1::Statement) -> bool {
        match st.r#type.as_str() {
            v1::Voucher::TYPE => self.voucher(st).is_ok_and(|(_, st)| self.state.has_voucher(&st)),
            v1::Bundle::TYPE => self.approvers(st).is_ok() && self.state.with_approval(st, self.now) == Ok(None),
            _ => false,
        }
    }

    /// Refuses what is not the next of its kind. Whatever was accepted before is neither, and is answered as it was then.
    pub(super) fn check_news(&self, st: &v1::Statement) -> Result<(), Refusal> {
        if self.state.accepted(&st.payload).is_some() {
            return Ok(());
        }
        match st.r#type.as_str() {
            v1::Spec::TYPE => {
                let spec: v1::Spec = peek(st)?;
                let name = ServiceRef::of(&spec.namespace, &spec.service).map_err(invalid)?;
                self.state.next_spec(&name, spec.version).map(drop)
            }
            v1::Mandate::TYPE => {
                let m: v1::Mandate = peek(st)?;
                self.state.new_mandate(&MandateId::parse(&m.mandate_id).map_err(invalid)?)
            }
            v1::Command::TYPE => self.check_new_command(&peek(st)?),
            _ => Ok(()),
        }
    }

    fn check_new_command(&self, c: &v1::Command) -> Result<(), Refusal> {
        let id = CommandId::from_slice(&c.command_id).ok_or_else(|| invalid("a command id has 16 bytes"))?;
        self.state.new_command(&id)?;
        if let Some(Action::PutSecret(p)) = &c.action {
            let name = SecretRef::of(&p.namespace, &p.name).map_err(invalid)?;
            self.state.next_secret(&name, p.version)?;
        }
        Ok(())
    }

    /// The publishers who vouch, and the statement with their signatures alone: others are not checked, so not kept.
    pub(super) fn voucher(&self, st: &v1::Statement) -> Result<(Vec<String>, v1::Statement), Refusal> {
        let v: v1::Voucher = peek(st)?;
        let digest = Digest::from_slice(&v.digest).ok_or_else(|| invalid("a voucher names a SHA-256 digest"))?;
        if v.cluster_id != self.state.cluster()?.id.0 {
            return Err(Refusal::changed("this voucher is for another cluster"));
        }
        let who: Vec<_> = self.state.charter.publishers.iter().filter(|p| publisher_vouches(p, st, &digest)).collect();
        if who.is_empty() {
            return Err(Refusal::credential("no publisher of the charter vouches for this image"));
        }
        let mut st = st.clone();
        st.sigs.retain(|s| who.iter().flat_map(|p| &p.keys).any(|k| key_id(&k.key).as_slice() == s.key_id));
        Ok((who.iter().map(|p| p.id.clone()).collect(), st))
    }
}
