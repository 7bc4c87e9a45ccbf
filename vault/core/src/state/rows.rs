//! Rows of the small tables: roots, issuers, keys, voters, tokens, secrets, services, mandates, leases.

use crate::command::{CaKey, CrossRow, SealedKey};
use holdfast_types::{Digest, Millis, OrchId, Zone};
use holdfast_wire::v1;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A trusted root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootRow {
    /// Certificate, DER.
    pub der: Vec<u8>,
    /// End of its validity.
    pub not_after: Millis,
    /// Its private key.
    pub key: CaKey,
    /// Operators brought it: it is theirs to replace, wherever its key is.
    pub given: bool,
    /// True for the one that signs.
    pub signer: bool,
    /// Since when it is trusted.
    pub since: Millis,
    /// Epoch of the Bundle that listed it first.
    pub added_epoch: u64,
    /// It, certified by other roots, which may be dropped since.
    pub cross: Vec<CrossRow>,
}
impl RootRow {
    /// `H` of its certificate.
    pub fn sha256(&self) -> Digest {
        holdfast_types::sha256(&[&self.der])
    }
}

/// An issuer under a root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issuer {
    /// `H` of the root that signed it.
    pub root: Digest,
    /// Certificate, DER.
    pub der: Vec<u8>,
    /// Its private key.
    pub key: CaKey,
    /// Start of its use.
    pub since: Millis,
    /// End of its validity.
    pub not_after: Millis,
}

/// A statement key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StkRow {
    /// Ed25519 public key.
    pub public: [u8; 32],
    /// Its seed, sealed.
    pub key: SealedKey,
    /// Start of its window.
    pub from: Millis,
    /// End of its window.
    pub until: Millis,
}

/// A join token, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRow {
    /// `node`, `orchestrator` or `voter`.
    pub role: String,
    /// MAC key, as a record at `token/<id>`.
    pub mac: Vec<u8>,
    /// Uses left.
    pub uses_left: u32,
    /// End of validity.
    pub expires: Millis,
    /// Where what joins by it belongs.
    pub zone: Zone,
    /// Labels it gets.
    pub labels: Vec<String>,
    /// Whether an operator must approve.
    pub approval: bool,
    /// Who minted it.
    pub minted_by: String,
    /// Revoked by an operator.
    pub revoked: bool,
}

/// A secret's rules and versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretRow {
    /// Services that may read it, `namespace/name` or `namespace/*`.
    pub readers: Vec<String>,
    /// Zones it may enter.
    pub zones: Vec<Zone>,
    /// Only nodes with a proven machine identity.
    pub attested_only: bool,
    /// The newest version; older ones are shredded when replaced and unused.
    pub version: SecretVersion,
    /// First version's time.
    pub created: Millis,
}

/// One version of a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretVersion {
    /// From 1.
    pub number: u64,
    /// The value, padded, as a record at `namespace/name` with `rev = number`. Shared with the copies of the state that
    /// snapshots are made of.
    #[serde(with = "crate::bytes")]
    pub record: Arc<[u8]>,
    /// When it was put.
    pub at: Millis,
}

/// A service and its active spec versions (two at most).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Oldest first.
    pub versions: Vec<SpecVersion>,
    /// Highest version ever accepted; survives removal.
    pub last_version: u64,
    /// Directory revision of the last change.
    pub rev: u64,
    /// The last version that wanted fewer replicas than the one before it; 0 if none did.
    pub shrunk: u64,
    /// False once removed; the row stays so that an old spec cannot come back.
    pub active: bool,
    /// By slot, the last incarnation of its task.
    pub gens: BTreeMap<u32, u64>,
    /// No incarnation of a slot that is no longer kept was higher than this.
    pub gen_floor: u64,
    /// Slots whose task ended by itself and is not started again, by what the newest version says; kept until a version
    /// that a running task would notice.
    pub done: BTreeSet<u32>,
}
impl ServiceRow {
    /// The newest active spec.
    pub fn newest(&self) -> Option<&v1::Spec> {
        self.versions.last().and_then(SpecVersion::spec)
    }
    /// The last incarnation in `slot`, or a number that none in it exceeded.
    pub fn last_gen(&self, slot: u32) -> u64 {
        self.gens.get(&slot).copied().unwrap_or(self.gen_floor)
    }
    /// Keeps the incarnations of the first `slots` alone; those that come back go on above all that were.
    pub(crate) fn forget_slots(&mut self, slots: u32) {
        let gone = self.gens.split_off(&slots.saturating_add(1));
        self.gen_floor = gone.into_values().fold(self.gen_floor, u64::max);
    }
}

/// An active spec.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SpecVersion {
    /// Its version.
    pub version: u64,
    /// `H(payload)`.
    pub sha256: Digest,
    /// The deployer's Statement, encoded.
    pub statement: Vec<u8>,
    /// The spec inside: derived, read once, asked for by every grant.
    #[serde(skip)]
    pub(crate) spec: Option<Box<v1::Spec>>,
}
impl SpecVersion {
    /// Reads the spec out of the statement, after a snapshot was loaded; false if the stored bytes do not decode.
    pub(crate) fn load(&mut self) -> bool {
        let spec = crate::Command::statement(&self.statement).and_then(|st| holdfast_wire::statement::peek(&st).ok());
        self.spec = spec.map(Box::new);
        self.spec.is_some()
    }
    /// The spec inside.
    pub fn spec(&self) -> Option<&v1::Spec> {
        self.spec.as_deref()
    }
}

/// A mandate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MandateRow {
    /// The operators' Statement, encoded.
    pub statement: Vec<u8>,
    /// `H(payload)`.
    pub sha256: Digest,
    /// Orchestrators it empowers.
    pub orchestrators: Vec<OrchId>,
    /// Namespaces, or `*`.
    pub namespaces: Vec<String>,
    /// Zones.
    pub zones: Vec<Zone>,
    /// End of validity.
    pub not_after: Millis,
    /// Grants a minute and namespace.
    pub per_minute: u32,
    /// New (secret, node) pairs an hour.
    pub novelty: u32,
    /// Revoked by an operator.
    pub revoked: bool,
}

/// Who schedules a namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lease {
    /// The holder.
    pub orch: OrchId,
    /// Increments at every change of holder.
    pub fence: u64,
    /// End, unless kept.
    pub until: Millis,
}
