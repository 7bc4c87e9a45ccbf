//! Rows that copies of the state share: a copy for a snapshot costs next to nothing, and a row is copied when it is changed
//! while another copy has it.
//!
//! STORED: written and read as what is in it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A row. Whoever changes it changes it in one copy of the state alone.
#[derive(Debug, Clone)]
pub(crate) struct Row<T>(Arc<T>);

impl<T> From<T> for Row<T> {
    fn from(row: T) -> Self {
        Self(Arc::new(row))
    }
}

impl<T> Deref for Row<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Row<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: Serialize> Serialize for Row<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        T::serialize(&self.0, s)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Row<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        T::deserialize(d).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the unexpected")]
    use super::*;

    #[test]
    fn a_row_is_shared_until_it_is_changed_in_one_copy_and_written_as_what_is_in_it() {
        let mut row = Row::from((7_u64, "seven".to_owned()));
        let copy = row.clone();
        assert!(std::ptr::eq(&*row, &*copy), "one row");
        (*row).0 = 8;
        assert_eq!(((*row).0, (*copy).0), (8, 7));
        let written = postcard::to_stdvec(&copy).unwrap();
        assert_eq!(written, postcard::to_stdvec(&(7_u64, "seven")).unwrap());
        let read: Row<(u64, String)> = postcard::from_bytes(&written).unwrap();
        assert_eq!(*read, *copy);
    }
}
