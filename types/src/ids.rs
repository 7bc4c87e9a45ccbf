//! Identifiers. Text ids are `[a-z0-9-]`, so that they fit a URI path, a file name and a log line unescaped.

use crate::{Digest, digest::sha256};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Why something is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {why}")]
pub struct IdError {
    what: &'static str,
    why: &'static str,
}

fn check_text(what: &'static str, s: &str) -> Result<(), IdError> {
    if s.is_empty() || s.len() > 64 {
        return Err(IdError { what, why: "it must have 1 to 64 characters" });
    }
    if !s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(IdError { what, why: "only lower-case letters, digits and '-' are allowed" });
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(#[serde(with = "crate::text")] Arc<str>);
        impl $name {
            /// Parses the id; see [`IdError`] for what is refused.
            pub fn parse(s: &str) -> Result<Self, IdError> {
                check_text($what, s)?;
                Ok(Self(s.into()))
            }
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A node: `node-` and 32 hex digits; never reused.
    NodeId, "node id");
text_id!(
    /// An orchestrator: `orch-` and 32 hex digits; never reused.
    OrchId, "orchestrator id");
text_id!(
    /// An operator, as named in the charter.
    OperatorId, "operator id");
text_id!(
    /// A mandate.
    MandateId, "mandate id");

impl NodeId {
    /// A fresh id from 16 random bytes.
    pub fn from_random(r: [u8; 16]) -> Self {
        Self(format!("node-{}", HEXLOWER.encode(&r)).into())
    }
}
impl OrchId {
    /// What every fresh id begins with.
    pub const PREFIX: &str = "orch-";
    /// A fresh id from 16 random bytes.
    pub fn from_random(r: [u8; 16]) -> Self {
        Self(format!("{}{}", Self::PREFIX, HEXLOWER.encode(&r)).into())
    }
}

/// A vault voter's number. Allocated by the cluster, never reused (openraft requires it).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct VoterId(pub u64);
impl VoterId {
    /// What the id of every applicant begins with.
    pub const APPLICANT: &str = "v-";
    /// The id of whoever waits to become a voter, from 16 random bytes: it has no number yet.
    pub fn applicant(r: [u8; 16]) -> String {
        format!("{}{}", Self::APPLICANT, HEXLOWER.encode(&r))
    }
}
impl fmt::Display for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `H(payload of charter v1)`: the cluster's self-certifying name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 32]);
impl ClusterId {
    /// From exactly 32 bytes.
    pub fn from_slice(b: &[u8]) -> Option<Self> {
        b.try_into().ok().map(Self)
    }
    /// The name of the cluster that `charter_v1` (the payload's bytes) founds.
    pub fn of_charter(charter_v1: &[u8]) -> Self {
        Self(sha256(&[charter_v1]).0)
    }
    /// The join anchor: `H("holdfast/v1/anchor" ‖ H(root_der) ‖ cluster_id)` (protocol, token).
    pub fn anchor(&self, root_der: &[u8]) -> Digest {
        sha256(&[b"holdfast/v1/anchor", sha256(&[root_der]).as_bytes(), &self.0])
    }
    /// Lower-case hex, 64 characters.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
    /// From 64 hex characters.
    pub fn parse(s: &str) -> Option<Self> {
        HEXLOWER.decode(s.as_bytes()).ok().and_then(|v| Self::from_slice(&v))
    }
}
impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}
impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({})", self.hex())
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $n:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $n]);
        impl $name {
            /// From exactly the right number of bytes.
            pub fn from_slice(b: &[u8]) -> Option<Self> {
                b.try_into().ok().map(Self)
            }
            /// Lower-case hex.
            pub fn hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }
            /// From lower-case hex.
            pub fn parse(s: &str) -> Option<Self> {
                HEXLOWER.decode(s.as_bytes()).ok().and_then(|v| Self::from_slice(&v))
            }
            /// A copy as a vector, as protobuf wants it.
            pub fn to_vec(self) -> Vec<u8> {
                self.0.to_vec()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }
    };
}
bytes_id!(
    /// A grant: 16 random bytes.
    GrantId, 16);
bytes_id!(
    /// An operator's command: 16 random bytes, accepted once.
    CommandId, 16);
bytes_id!(
    /// A join token's public part: 8 random bytes.
    TokenId, 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_take_only_what_fits_a_uri_path_unescaped() {
        assert!(NodeId::parse("node-00ff").is_ok());
        for bad in ["", "a/b", "A", "a b", "é", &"x".repeat(65)] {
            assert!(NodeId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
