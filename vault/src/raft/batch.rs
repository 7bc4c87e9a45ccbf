//! What one raft entry carries: the commands of many callers, packed so that they share one disk flush.
//!
//! Must never: look into a command.
//!
//! STORED: `(u32 length big endian, command)*`, inside the sealed log entry.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// Longest command in bytes: two padded secrets of 500 KiB and their statement.
pub const MAX_COMMAND: usize = 2 << 20;

/// A raft entry's commands. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch(Arc<[u8]>);

impl Batch {
    /// Packs `commands`, each at most [`MAX_COMMAND`] bytes; `None` if one is longer.
    pub fn pack<'a>(commands: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let commands: Vec<&[u8]> = commands.into_iter().collect();
        let mut out = Vec::with_capacity(commands.iter().map(|c| 4 + c.len()).sum());
        for c in commands {
            let len = u32::try_from(c.len()).ok().filter(|_| c.len() <= MAX_COMMAND)?;
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(c);
        }
        Some(Self(out.into()))
    }

    /// The commands in order; `None` if the bytes are not a batch.
    pub fn commands(&self) -> Option<Vec<&[u8]>> {
        let (mut rest, mut out) = (&*self.0, Vec::new());
        while !rest.is_empty() {
            let (len, tail) = rest.split_first_chunk::<4>()?;
            let (command, tail) = tail.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            out.push(command);
            rest = tail;
        }
        Some(out)
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Batch {
    fn from(v: Vec<u8>) -> Self {
        Self(v.into())
    }
}
/// In one piece: an append to another voter is made of hardly anything else.
impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}
impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_bytes(Whole)
    }
}
struct Whole;
impl Visitor<'_> for Whole {
    type Value = Batch;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch")
    }
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Batch, E> {
        Ok(Batch(bytes.into()))
    }
}
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}
impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
