//! The end of dropped roots' keys: they were destroyed, or the token that has them is gone for good, as Admins say.

use super::submit::By;
use super::{Event, Step};
use crate::command::CaKey;
use crate::log::Draft;
use crate::refusal::Refusal;
use holdfast_types::Digest;

impl Step<'_> {
    /// Twice is as good as once: who destroys again finds nothing.
    pub(super) fn root_destroyed(&mut self, root: Digest) -> Result<(), Refusal> {
        if self.key_ended(root)? {
            self.leaf(Draft::new("root.destroyed", "vault", root.hex()));
        }
        Ok(())
    }

    /// Nothing waits any more for keys in a token that nobody can destroy. Whoever finds the token has them.
    pub(super) fn forget_keys(&mut self, by: &By<'_>) -> Result<(), Refusal> {
        for root in self.state.keys_to_forget()? {
            self.key_ended(root)?;
            self.leaf(by.draft("command", "root").with("action", "forget-root-key").with("root", root));
        }
        self.event(Event::Trust);
        Ok(())
    }

    /// Keys in the token that nothing used any more are gone.
    pub(super) fn keys_destroyed(&mut self, names: &[String]) -> Result<(), Refusal> {
        let gone: Vec<String> = self.state.spent_keys().into_iter().filter(|n| names.contains(n)).collect();
        self.state.rotation.spent.retain(|n| !gone.contains(n));
        for name in gone {
            self.leaf(Draft::new("root.destroyed", "vault", name));
        }
        Ok(())
    }

    /// Nothing is left of it that is ours; false: nothing was.
    fn key_ended(&mut self, root: Digest) -> Result<bool, Refusal> {
        let retired = self.state.rotation.retired.iter_mut().find(|r| r.sha256 == root);
        let retired = retired.ok_or_else(|| Refusal::not_found("dropped root", root))?;
        if retired.destroyed {
            return Ok(false);
        }
        (retired.key, retired.destroyed) = (CaKey::Offline, true);
        retired.issuers.clear();
        self.state.rotation.since = self.at;
        self.state.keys_moved();
        self.event(Event::Keys);
        Ok(true)
    }
}
