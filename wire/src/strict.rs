//! Strict protobuf: a message is accepted only if it is the one canonical encoding of itself.
//!
//! prost drops unknown fields and takes duplicates silently; a restriction that an older program does not know would
//! vanish. Decoding, encoding again and comparing refuses unknown fields, duplicates, over-long varints and reordering.

use prost::Message;
use zeroize::Zeroizing;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrictError {
    /// Longer than the format allows.
    #[error("too long: {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not protobuf, cut short, or a field has the wrong type.
    #[error("malformed or cut short")]
    Malformed,
    /// Decodes, but is not its own canonical encoding: unknown field, duplicate, trailing bytes.
    #[error("not in canonical form (unknown or repeated field, or trailing bytes)")]
    NotCanonical,
}

/// Decodes `bytes` (at most `max` of them) and refuses anything but the canonical encoding.
pub fn decode<M: Message + Default>(bytes: &[u8], max: usize) -> Result<M, StrictError> {
    if bytes.len() > max {
        return Err(StrictError::TooLong { len: bytes.len(), max });
    }
    let m = M::decode(bytes).map_err(|_| StrictError::Malformed)?;
    // What is decoded may hold a key: no copy of it is left behind.
    if *Zeroizing::new(m.encode_to_vec()) != bytes {
        return Err(StrictError::NotCanonical);
    }
    Ok(m)
}
