//! Bytes as one piece: serde takes a vector apart into its elements, which costs a call for each byte of each entry.
//!
//! STORED: what postcard writes is the same either way (`bytes_are_written_as_vectors_of_bytes_are`).

use serde::de::Visitor;
use serde::{Deserializer, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// Writes them.
pub(crate) fn serialize<T: AsRef<[u8]>, S: Serializer>(bytes: &T, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_bytes(bytes.as_ref())
}

/// Reads them.
pub(crate) fn deserialize<'de, T: for<'a> From<&'a [u8]>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    d.deserialize_bytes(Whole(PhantomData))
}

struct Whole<T>(PhantomData<T>);

impl<T: for<'a> From<&'a [u8]>> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<T, E> {
        Ok(T::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the unexpected")]
    use serde::{Deserialize, Serialize};
    use std::sync::Arc;

    #[derive(Serialize, Deserialize)]
    struct Whole {
        #[serde(with = "crate::bytes")]
        shared: Arc<[u8]>,
        #[serde(with = "crate::bytes")]
        own: Vec<u8>,
    }
    #[derive(Serialize, Deserialize)]
    struct Pieces {
        shared: Vec<u8>,
        own: Vec<u8>,
    }

    #[test]
    fn bytes_are_written_as_vectors_of_bytes_are() {
        for n in [0, 1, 127, 128, 20_000] {
            let (shared, own) = (vec![0xab; n], vec![0xff; n / 2]);
            let pieces = postcard::to_stdvec(&Pieces { shared: shared.clone(), own: own.clone() }).unwrap();
            assert_eq!(
                postcard::to_stdvec(&Whole { shared: shared.as_slice().into(), own: own.clone() }).unwrap(),
                pieces
            );
            let back: Whole = postcard::from_bytes(&pieces).unwrap();
            assert!(*back.shared == *shared && back.own == own);
            assert!(postcard::from_bytes::<Whole>(pieces.get(..pieces.len().saturating_sub(1)).unwrap()).is_err());
        }
    }
}
