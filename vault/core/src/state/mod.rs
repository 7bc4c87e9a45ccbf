//! The replicated state: maps keyed by id, with the indexes that look-ups need. Secrets only as Records.
//!
//! STORED: a snapshot is this struct in postcard behind a format byte; golden file `vault/core/golden/state.hex`.

mod approval;
mod budget;
mod charter;
mod denied;
mod ending;
mod era;
mod frozen;
mod grants;
mod holders;
mod hosts;
mod identity;
mod index;
mod live;
mod news;
mod placements;
mod requests;
mod rhythm;
mod roots;
mod rotation;
mod row;
mod rows;
mod silence;
mod spent;
mod standing;
mod stops;
mod terms;
mod unlock;
mod voters;

pub use budget::Budget;
pub(crate) use era::EraBefore;
pub use grants::{GrantRow, GrantState};
pub use holders::{Notice, Noticed, PastKey, REJOIN_MOST};
pub use identity::{CertRow, Identity, IdentityState, Presented};
pub use rhythm::third_over;
pub use roots::{GivenRoot, RetiredRoot, RootKind, RootStep, RootTarget, Rotation};
pub use rows::{
    Issuer, Lease, MandateRow, RootRow, SecretRow, SecretVersion, ServiceRow, SpecVersion, StkRow, TokenRow,
};
pub use unlock::{NextUnlock, Unlock, UnlockKey, WantedSlots};
pub use voters::{VoterRow, VoterState};

pub(crate) use charter::publisher_vouches;
pub(crate) use grants::Denials;
pub(crate) use index::Index;
pub(crate) use live::Live;
pub(crate) use placements::Placement;
pub(crate) use requests::RequestRow;
pub(crate) use row::Row;
pub(crate) use silence::Silence;
pub(crate) use terms::UnderTerms;

use holdfast_types::{
    ClusterId, CommandId, Digest, GrantId, MandateId, Millis, Namespace, NodeId, OrchId, SecretRef, ServiceRef,
    TokenId, TrustDomain, VoterId, sha256,
};
use holdfast_wire::{merkle::Frontier, v1};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Why a snapshot is not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Not a state, or of another version.
    #[error("snapshot does not decode: of another version, or damaged")]
    Decode,
    /// Decodes, and contradicts itself.
    #[error("snapshot contradicts itself: {0}")]
    Inconsistent(&'static str),
}

const FORMAT: u8 = 7;

/// Everything the voters agree on.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct State {
    pub(crate) founded: Option<Cluster>,
    pub(crate) voters: BTreeMap<VoterId, VoterRow>,
    /// The highest number given to a voter.
    pub(crate) last_voter: u64,
    pub(crate) unlock: Unlock,
    /// Every live keyring term, boxed to the recovery key.
    pub(crate) recovery_terms: BTreeMap<u32, Vec<u8>>,
    /// When the active keyring term began.
    pub(crate) term_since: Millis,
    /// A new term is wanted at once: an operator said so, or a voter was evicted.
    pub(crate) keyring_ordered: bool,
    pub(crate) roots: Vec<RootRow>,
    pub(crate) issuers: Vec<Issuer>,
    /// The rotation of the root under way, and what is left of those before.
    pub(crate) rotation: Rotation,
    pub(crate) stks: Vec<StkRow>,
    pub(crate) bundles: Vec<Vec<u8>>,
    pub(crate) term: u32,
    pub(crate) identities: BTreeMap<String, Row<Identity>>,
    pub(crate) tokens: BTreeMap<TokenId, TokenRow>,
    pub(crate) secrets: BTreeMap<SecretRef, Row<SecretRow>>,
    pub(crate) services: BTreeMap<ServiceRef, ServiceRow>,
    pub(crate) vouchers: BTreeMap<Digest, Vec<Vec<u8>>>,
    pub(crate) mandates: BTreeMap<MandateId, MandateRow>,
    pub(crate) leases: BTreeMap<Namespace, Lease>,
    pub(crate) grants: BTreeMap<GrantId, GrantRow>,
    pub(crate) deleted_secrets: BTreeMap<SecretRef, u64>,
    pub(crate) budgets: BTreeMap<budget::Scope, Budget>,
    pub(crate) denials: BTreeMap<OrchId, Denials>,
    pub(crate) stops: BTreeMap<OrchId, stops::Stops>,
    pub(crate) placements: BTreeMap<ServiceRef, BTreeMap<NodeId, Placement>>,
    pub(crate) commands: BTreeMap<CommandId, Millis>,
    pub(crate) accepted: BTreeMap<Digest, AcceptedRow>,
    pub(crate) requests: BTreeMap<[u8; 16], RequestRow>,
    pub(crate) revoked: BTreeMap<String, Revoked>,
    pub(crate) denied_digests: Vec<Digest>,
    pub(crate) lockdown: bool,
    pub(crate) epoch: u64,
    pub(crate) rev: u64,
    pub(crate) last_at: Millis,
    /// When no vault ran, oldest first, as far back as it matters to anybody.
    pub(crate) silences: Vec<Silence>,
    pub(crate) last_prune: Millis,
    pub(crate) log_size: u64,
    pub(crate) log_peaks: Vec<Digest>,
    /// What began each era but the first, as operators signed it, oldest first.
    pub(crate) resets: Vec<Vec<u8>>,
    /// The era before this one, as far as it is known here.
    pub(crate) before: Option<EraBefore>,
    #[serde(skip)]
    pub(crate) index: Index,
    #[serde(skip)]
    pub(crate) charter: v1::Charter,
}

/// What never changes within an era, and the charter chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub id: ClusterId,
    pub trust_domain: TrustDomain,
    pub era: u64,
    pub charters: Vec<Vec<u8>>,
    pub policy_version: u64,
}

/// Where an accepted statement is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its last leaf.
    pub leaf: u64,
    /// The directory revision after it.
    pub rev: u64,
}

/// An accepted statement, by the hash of its payload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AcceptedRow {
    pub answer: Accepted,
    pub until: Millis,
}

/// An identity whose certificates must not count any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Revoked {
    pub not_before_seq: u64,
    /// When the last of them is over.
    pub until: Millis,
    /// When it was removed.
    pub removed: Option<Millis>,
    /// Keys that it had before a release.
    pub keys: Vec<Digest>,
    /// It was released: what does not count any more is the certificates for `keys`.
    pub released: bool,
}

impl State {
    /// Encodes a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        // Plain data into a growing vector: cannot fail; an empty snapshot is refused by `decode`.
        postcard::to_extend(self, vec![FORMAT]).unwrap_or_default()
    }
    /// The same, written to `out` while it is encoded.
    pub fn encode_to<W: Write>(&self, mut out: W) -> io::Result<()> {
        out.write_all(&[FORMAT])?;
        postcard::to_io(self, out).map(drop).map_err(|e| io::Error::other(e.to_string()))
    }
    /// Decodes a snapshot and rebuilds what is derived.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let (&fmt, body) = bytes.split_first().ok_or(StateError::Decode)?;
        if fmt != FORMAT {
            return Err(StateError::Decode);
        }
        let (mut s, rest): (Self, _) = postcard::take_from_bytes(body).map_err(|_| StateError::Decode)?;
        if !rest.is_empty() {
            return Err(StateError::Decode);
        }
        if Frontier::from_parts(s.log_size, s.log_peaks.clone()).is_none() {
            return Err(StateError::Inconsistent("the log's frontier"));
        }
        s.load_charter()?;
        if !s.services.values_mut().flat_map(|r| &mut r.versions).all(rows::SpecVersion::load) {
            return Err(StateError::Inconsistent("a spec"));
        }
        s.index = Index::build(&s);
        Ok(s)
    }
    /// True once the cluster has been founded.
    pub fn is_founded(&self) -> bool {
        self.founded.is_some()
    }
    /// The cluster's name, once founded.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.founded.as_ref().map(|c| c.id)
    }
    /// The trust domain, once founded.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.founded.as_ref().map(|c| &c.trust_domain)
    }
    /// The era; 1 from the founding on.
    pub fn era(&self) -> u64 {
        self.founded.as_ref().map_or(0, |c| c.era)
    }
    /// Counts security changes within the era.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Whether an unlock key guards the voters' disks.
    pub fn autolock(&self) -> bool {
        self.unlock.key.is_some()
    }
    /// What a statement with this payload came to, if it was accepted within the last day: who repeats it because the
    /// answer was lost is answered the same.
    pub fn accepted(&self, payload: &[u8]) -> Option<Accepted> {
        self.accepted.get(&sha256(&[payload])).map(|row| row.answer)
    }
    /// The log's size and root.
    pub fn log_head(&self) -> (u64, Digest) {
        let f = self.frontier();
        (f.size(), f.root())
    }
    /// The time that a command stamped `at` is applied at: never before the last one's. Whoever decides for a command
    /// decides by this time too, or lifetimes would begin before their entry.
    pub fn time(&self, at: Millis) -> Millis {
        at.max(self.last_at)
    }
    /// The time of the last command: when a vault was heard last.
    pub fn last_heard(&self) -> Millis {
        self.last_at
    }
    /// The log's right edge: what all its leaves hash to.
    pub fn frontier(&self) -> Frontier {
        Frontier::from_parts(self.log_size, self.log_peaks.clone()).unwrap_or_default()
    }
    pub(crate) fn cluster(&self) -> Result<&Cluster, crate::Refusal> {
        self.founded.as_ref().ok_or_else(|| {
            crate::Refusal::new(crate::refusal::Code::Unavailable, "this vault has not been founded; run holdfast init")
        })
    }
    /// DER of the trusted roots.
    pub fn roots_der(&self) -> Vec<Vec<u8>> {
        self.roots.iter().map(|r| r.der.clone()).collect()
    }
    /// The root that signs now.
    pub fn signing_root(&self) -> Option<&RootRow> {
        self.roots.iter().find(|r| r.signer)
    }
    /// The issuer that signs leaves now: the newest under the signing root.
    pub fn issuer(&self) -> Option<&Issuer> {
        self.issuer_under(&self.signing_root()?.sha256())
    }
    /// The statement key in use at `now`: the newest whose window is open.
    pub fn stk(&self, now: Millis) -> Option<&StkRow> {
        self.stks.iter().rev().find(|k| k.from <= now && now < k.until)
    }
    /// The statement key made last, whether its window is open yet or not.
    pub fn newest_stk(&self) -> Option<&StkRow> {
        self.stks.last()
    }
    /// The active keyring term.
    pub fn active_term(&self) -> u32 {
        self.term
    }
    /// The Bundle chain, encoded Statements, oldest first.
    pub fn bundle_chain(&self) -> Vec<v1::Statement> {
        self.bundles.iter().filter_map(|b| crate::Command::statement(b)).collect()
    }
    /// What began each era but the first, oldest first.
    pub fn resets(&self) -> Vec<v1::Statement> {
        self.resets.iter().filter_map(|b| crate::Command::statement(b)).collect()
    }
    /// Every live keyring term, boxed to the recovery key.
    pub fn recovery_terms(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.recovery_terms.iter().map(|(term, sealed)| (*term, sealed.as_slice()))
    }
    /// The epoch of the next unlock key.
    pub fn next_unlock_epoch(&self) -> u64 {
        self.unlock.next_epoch()
    }
    /// The number that the next voter gets.
    pub fn next_voter(&self) -> VoterId {
        VoterId(self.last_voter.saturating_add(1))
    }
    /// The charter chain, oldest first.
    pub fn charter_chain(&self) -> Vec<v1::Statement> {
        self.founded.iter().flat_map(|c| &c.charters).filter_map(|b| crate::Command::statement(b)).collect()
    }
}
