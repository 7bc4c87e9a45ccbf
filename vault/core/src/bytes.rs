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

/// The same where there may be none.
pub(crate) mod option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    struct Piece<'a>(&'a [u8]);
    impl Serialize for Piece<'_> {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            s.serialize_bytes(self.0)
        }
    }
    struct Own(Vec<u8>);
    impl<'de> Deserialize<'de> for Own {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            super::deserialize(d).map(Self)
        }
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(Piece).serialize(s)
    }
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Own>::deserialize(d)?.map(|o| o.0))
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
        #[serde(with = "crate::bytes::option")]
        none: Option<Vec<u8>>,
        #[serde(with = "crate::bytes::option")]
        some: Option<Vec<u8>>,
    }
    #[derive(Serialize, Deserialize)]
    struct Pieces {
        shared: Vec<u8>,
        own: Vec<u8>,
        none: Option<Vec<u8>>,
        some: Option<Vec<u8>>,
    }

    #[test]
    fn bytes_are_written_as_vectors_of_bytes_are() {
        for n in [0, 1, 127, 128, 20_000] {
            let (shared, own, some) = (vec![0xab; n], vec![0xff; n / 2], vec![0x80; n / 3 + 1]);
            let pieces = Pieces { shared: shared.clone(), own: own.clone(), none: None, some: Some(some.clone()) };
            let whole = Whole { shared: shared.as_slice().into(), own, none: None, some: Some(some) };
            let written = postcard::to_stdvec(&pieces).unwrap();
            assert_eq!(postcard::to_stdvec(&whole).unwrap(), written);
            let back: Whole = postcard::from_bytes(&written).unwrap();
            assert!(back.shared == whole.shared && back.own == whole.own);
            assert!(back.none.is_none() && back.some == whole.some);
            let cut = written.split_last().unwrap().1;
            assert!(postcard::from_bytes::<Whole>(cut).is_err());
        }
    }
}
