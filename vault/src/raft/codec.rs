//! How log entries and marks are written, before they are sealed.
//!
//! Must never: accept bytes that it would not write.
//!
//! STORED: log value = `raft term u64 | record`, record plaintext = `0` blank | `1` batch | `2` membership (postcard).
//! Golden file `vault/golden/log.hex`. The term is in clear because it is needed to open the record, and in its AAD, so it cannot be altered.

use super::store::StoreError;
use super::{Batch, Entry, LogId, Payload};
use crate::disk::keys::{At, DiskKeys};
use crate::disk::keyspace;
use serde::{Serialize, de::DeserializeOwned};

type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<super::Types>;

const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// A log id from its parts.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// Seals an entry for its place in the log.
pub(super) fn seal_entry(keys: &DiskKeys, e: &Entry) -> Result<Vec<u8>, StoreError> {
    let mut plain = Vec::new();
    match &e.payload {
        Payload::Blank => plain.push(BLANK),
        Payload::Normal(b) => {
            plain.push(BATCH);
            plain.extend_from_slice(b.as_bytes());
        }
        Payload::Membership(m) => {
            plain.push(MEMBERSHIP);
            plain.extend(encode(m)?);
        }
    }
    let term = e.log_id.leader_id.term;
    let at = At { keyspace: keyspace::LOG, index: e.log_id.index, raft_term: term };
    let mut value = term.to_be_bytes().to_vec();
    value.extend(keys.seal(at, &plain)?);
    Ok(value)
}

/// The term of a stored entry, before it is opened.
pub(super) fn term_of(index: u64, value: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let corrupt = StoreError::Corrupt { keyspace: "log", index };
    value.split_first_chunk::<8>().map(|(t, sealed)| (u64::from_be_bytes(*t), sealed)).ok_or(corrupt)
}

/// Opens the entry stored at `index`.
pub(super) fn open_entry(keys: &DiskKeys, index: u64, value: &[u8]) -> Result<Entry, StoreError> {
    let corrupt = || StoreError::Corrupt { keyspace: "log", index };
    let (term, sealed) = term_of(index, value)?;
    let plain = keys.open(At { keyspace: keyspace::LOG, index, raft_term: term }, sealed).map_err(|_| corrupt())?;
    let payload = match plain.expose().split_first().ok_or_else(corrupt)? {
        (&BLANK, []) => Payload::Blank,
        (&BATCH, b) => Payload::Normal(Batch::from(b.to_vec())),
        (&MEMBERSHIP, b) => Payload::Membership(decode(b).ok_or_else(corrupt)?),
        _ => return Err(corrupt()),
    };
    Ok(Entry { log_id: log_id(term, index), payload })
}

/// A mark (vote, committed, snapshot header) as bytes.
pub(super) fn encode<T: Serialize>(v: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(v).map_err(|_| StoreError::Encode)
}

/// A mark from its bytes, all of them.
pub(super) fn decode<T: DeserializeOwned>(b: &[u8]) -> Option<T> {
    postcard::take_from_bytes(b).ok().and_then(|(v, rest)| rest.is_empty().then_some(v))
}
