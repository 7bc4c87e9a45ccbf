//! A root without the ones before it: where none of them can sign, the Bundle that lists the new one is shown, and Admins sign it
//! one by one. What they signed is looked at again here, as every verifier will.
//!
//! LAW: nothing but the signatures of as many Admins as change the charter adds a root that no trusted root signed for (INV8,
//! `too_few_admins_or_none_in_force_add_no_root`).

use super::submit::By;
use super::{Event, Step};
use crate::command::NewRoot;
use crate::log::Draft;
use crate::refusal::Refusal;
use holdfast_types::sha256;
use holdfast_wire::charter;
use holdfast_wire::statement::StatementError;
use prost::Message as _;

impl Step<'_> {
    /// The root is made, and shown. LAW: it is trusted by nobody until Admins have signed for it
    /// (`nobody_but_enough_admins_adds_a_root_that_no_root_signed_for`).
    pub(super) fn root_propose(&mut self, n: NewRoot) -> Result<(), Refusal> {
        let wanted = self.wanted_root(&n)?;
        if !wanted.without_old {
            return Err(Refusal::changed("trusted roots sign for this root"));
        }
        let st = n.statement().ok_or_else(|| Refusal::corrupt("bundle"))?;
        self.state.may_propose(&st, &n.der)?;
        let leaf = Draft::new("root.propose", "vault", sha256(&[&n.der]).hex()).with("ordered_by", &wanted.by);
        self.leaf(leaf.with("key", n.key.word()).with("bundle_sha256", sha256(&[&st.payload])));
        let s = &mut *self.state;
        s.rotation.proposed = Some(Box::new(n));
        s.rotation.since = self.at;
        s.keys_moved();
        self.event(Event::Trust);
        Ok(())
    }

    /// Admins signed the Bundle that is shown: with enough of them, the root is trusted. Who has signed changes nothing by signing
    /// again.
    pub(super) fn approve_root(&mut self, by: &By<'_>) -> Result<(), Refusal> {
        let Some(held) = self.state.with_approval(by.st, self.at)? else { return Ok(()) };
        let leaf = by.draft("command", "root").with("action", "approve-root");
        let leaf = leaf.with("bundle_sha256", sha256(&[&held.payload]));
        match charter::verify_bundle(&self.state.charter, &held) {
            Ok(_) => {}
            Err(StatementError::Threshold { .. }) => {
                if let Some(n) = &mut self.state.rotation.proposed {
                    n.bundle = held.encode_to_vec();
                }
                self.state.rotation.since = self.at;
                self.leaf(leaf);
                self.event(Event::Trust);
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
        let proposed = self.state.rotation.proposed.as_deref().cloned();
        let mut n = proposed.ok_or_else(|| Refusal::changed("no root waits for Admins"))?;
        let wanted = self.wanted_root(&n)?;
        self.state.may_propose(&held, &n.der)?;
        let signed = self.state.follows_at(&held)?;
        n.bundle = held.encode_to_vec();
        // The one with the order may have been sealed anew since.
        if let Some(given) = &wanted.given {
            n.key = given.key.clone();
        }
        self.leaf(leaf);
        let s = &mut *self.state;
        s.rotation.gone = s.roots.iter().map(crate::state::RootRow::sha256).collect();
        s.epoch = signed.doc.epoch.saturating_sub(1);
        self.put_root(n, &wanted.by, &signed);
        Ok(())
    }
}
