//! The charter in force: who may sign what, and how many of them.

use super::{State, StateError};
use crate::refusal::{Code, Refusal};
use holdfast_wire::images::{repository_of, vouched};
use holdfast_wire::statement::{self, Document, News};
use holdfast_wire::{charter, v1};

impl State {
    pub(crate) fn load_charter(&mut self) -> Result<(), StateError> {
        let Some(c) = &self.founded else { return Ok(()) };
        let last = c
            .charters
            .last()
            .and_then(|b| crate::Command::statement(b))
            .ok_or(StateError::Inconsistent("the charter"))?;
        self.charter = statement::peek(&last).map_err(|_| StateError::Inconsistent("the charter"))?;
        Ok(())
    }
    /// The charter in force.
    pub fn charter(&self) -> &v1::Charter {
        &self.charter
    }
    /// The charter that `st` puts in the place of the one in force: signed by enough Admins of both.
    pub(crate) fn next_charter(&self, st: &v1::Statement) -> Result<v1::Charter, Refusal> {
        let chain = charter::CharterChain::verify(&self.charter_chain())?;
        match chain.observe(st)? {
            News::Todo(_) => Ok(statement::peek(st)?),
            News::AlreadyDone | News::Stale => Err(Refusal::changed("this charter is not a new one")),
        }
    }
    /// An operator of the charter.
    pub fn operator(&self, id: &str) -> Option<&v1::Operator> {
        self.charter.operators.iter().find(|o| o.id == id)
    }
    /// Verifies a statement under the charter's operator keys and names the operators whose signatures counted.
    pub(crate) fn signed_by_operators<T: Document>(
        &self,
        st: &v1::Statement,
    ) -> Result<(statement::Verified<T>, Vec<v1::Operator>), Refusal> {
        let v = statement::verify::<T>(st, &charter::keys(&self.charter.operators), 1)?;
        let who: Vec<_> = self
            .charter
            .operators
            .iter()
            .filter(|o| o.key.as_ref().is_some_and(|k| v.signers.iter().any(|s| s.key == k.key)))
            .cloned()
            .collect();
        if who.is_empty() {
            return Err(Refusal::new(Code::Threshold, "no operator of the charter signed this"));
        }
        Ok((v, who))
    }
    /// Publishers of the charter that vouch for `digest` in the repository of `source` by the stored vouchers. A voucher
    /// for another repository says nothing here: nodes refuse it too (protocol, grant, check 8).
    pub(crate) fn publishers_of(&self, digest: &holdfast_types::Digest, source: &str) -> Vec<String> {
        let repository = repository_of(source);
        let vouchers: Vec<v1::Statement> =
            self.vouchers.get(digest).into_iter().flatten().filter_map(|b| crate::Command::statement(b)).collect();
        self.charter
            .publishers
            .iter()
            .filter(|p| vouchers.iter().filter_map(|st| vouched(p, st)).any(|v| is_for(&v, digest, repository)))
            .map(|p| p.id.clone())
            .collect()
    }
}

fn is_for(v: &v1::Voucher, digest: &holdfast_types::Digest, repository: &str) -> bool {
    v.digest == digest.0 && v.repository == repository
}

/// True if `st` is a voucher for `digest` by enough of `p`'s keys, under one of its repository prefixes.
pub(crate) fn publisher_vouches(p: &v1::Publisher, st: &v1::Statement, digest: &holdfast_types::Digest) -> bool {
    vouched(p, st).is_some_and(|v| v.digest == digest.0)
}
