//! Check 6: the grant is in the log. A vault that signs without logging is refused (protocol, audit).

use super::refusal::{Refusal, require};
use super::trust::NodeTrust;
use holdfast_types::{Digest, Millis};
use holdfast_wire::note::Checkpoint;
use holdfast_wire::v1::{LogEntry, Receipt};
use holdfast_wire::{merkle, strict};

/// Longest log entry of a grant, in bytes: ids and hashes only.
const MAX_ENTRY: usize = 64 << 10;
/// Bytes of a leaf's salt.
const SALT: usize = 32;
/// `Charter.receipt_mode`: signed by the vault.
const SIGNED: u32 = 0;

/// Two checkpoints of different size: a consistency proof must show that one continues the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Leaves of the smaller tree.
    pub from: u64,
    /// Leaves of the larger tree.
    pub to: u64,
    /// The receipt's note, for [`NodeTrust::observe_checkpoint`].
    pub note: Vec<u8>,
}

impl NodeTrust {
    /// The proof that must be fetched before `receipt` counts as consistent with the held checkpoint.
    pub fn needs_consistency(&self, now: Millis, receipt: &Receipt) -> Result<Option<Gap>, Refusal> {
        let c = self.read_checkpoint(&receipt.checkpoint, &self.stks(now), 6)?;
        Ok(self.gap(&c, receipt))
    }
    fn gap(&self, c: &Checkpoint, receipt: &Receipt) -> Option<Gap> {
        let held = self.checkpoint()?.size;
        (held != c.size).then(|| Gap { from: held.min(c.size), to: held.max(c.size), note: receipt.checkpoint.clone() })
    }
}

/// Verifies the receipt of the grant whose payload hashes to `grant`.
pub(crate) fn check(
    trust: &NodeTrust,
    now: Millis,
    grant: &Digest,
    receipt: Option<&Receipt>,
) -> Result<Option<Gap>, Refusal> {
    let r = receipt
        .ok_or_else(|| Refusal::new(6, "receipt-missing", "the grant comes without a receipt: it was not logged"))?;
    require(trust.charter().head().receipt_mode == SIGNED, 6, "witnesses-unsupported", || {
        "the charter asks for witnessed receipts, which this version cannot check".into()
    })?;
    check_entry(r, grant)?;
    let c = trust.read_checkpoint(&r.checkpoint, &trust.stks(now), 6)?;
    let proof: Option<Vec<Digest>> = r.inclusion.iter().map(|h| Digest::from_slice(h)).collect();
    let leaf = merkle::leaf_hash(&r.salt, &r.entry);
    let included = proof.is_some_and(|p| merkle::verify_inclusion(leaf, r.leaf_index, c.size, &c.root, &p));
    require(included, 6, "inclusion", || format!("leaf {} is not in the log of {} entries", r.leaf_index, c.size))?;
    trust.check_fork(&c, 6)?;
    Ok(trust.gap(&c, r))
}

fn check_entry(r: &Receipt, grant: &Digest) -> Result<(), Refusal> {
    require(r.salt.len() == SALT, 6, "receipt-salt", || format!("a leaf's salt has {SALT} bytes"))?;
    let e: LogEntry =
        strict::decode(&r.entry, MAX_ENTRY).map_err(|e| Refusal::new(6, "receipt-entry", e.to_string()))?;
    require(e.kind == "grant.issued" && e.index == r.leaf_index, 6, "receipt-entry", || {
        "the log entry is not the issue of a grant".into()
    })?;
    let mut named = e.fields.iter().filter(|f| f.name == "grant_sha256");
    let ours = matches!((named.next(), named.next()), (Some(f), None) if f.value == grant.hex());
    require(ours, 6, "receipt-grant", || "the log entry names another grant".into())
}
