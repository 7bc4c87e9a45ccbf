//! A copy of the state that a snapshot is made of, and that keys in a token sign over.

use super::{Index, State};

impl State {
    /// A copy to be encoded, or to prepare a change of the keys over: without what is derived, which is as large as the directory
    /// and not stored. Entries wait while it is made. Must never: be asked who is alive. In a copy nobody is, so that guards of a
    /// rotation look at the state itself, before a change is prepared and again where it is applied.
    pub fn frozen(&self) -> Self {
        Self {
            founded: self.founded.clone(),
            voters: self.voters.clone(),
            last_voter: self.last_voter,
            unlock: self.unlock.clone(),
            recovery_terms: self.recovery_terms.clone(),
            term_since: self.term_since,
            keyring_ordered: self.keyring_ordered,
            roots: self.roots.clone(),
            issuers: self.issuers.clone(),
            rotation: self.rotation.clone(),
            stks: self.stks.clone(),
            bundles: self.bundles.clone(),
            term: self.term,
            identities: self.identities.clone(),
            tokens: self.tokens.clone(),
            secrets: self.secrets.clone(),
            services: self.services.clone(),
            vouchers: self.vouchers.clone(),
            mandates: self.mandates.clone(),
            leases: self.leases.clone(),
            grants: self.grants.clone(),
            deleted_secrets: self.deleted_secrets.clone(),
            budgets: self.budgets.clone(),
            denials: self.denials.clone(),
            stops: self.stops.clone(),
            placements: self.placements.clone(),
            commands: self.commands.clone(),
            accepted: self.accepted.clone(),
            requests: self.requests.clone(),
            revoked: self.revoked.clone(),
            denied_digests: self.denied_digests.clone(),
            lockdown: self.lockdown,
            epoch: self.epoch,
            rev: self.rev,
            last_at: self.last_at,
            silences: self.silences.clone(),
            last_prune: self.last_prune,
            log_size: self.log_size,
            log_peaks: self.log_peaks.clone(),
            resets: self.resets.clone(),
            before: self.before.clone(),
            index: Index::default(),
            charter: self.charter.clone(),
        }
    }
}
