//! Commit before release, as types: what is said to the outside waits inside a [`Held`] for the witness of its commit.
//!
//! LAW: nothing signed for a caller exists outside before its log leaf is committed
//! (test `nothing_leaves_before_its_leaf_is_committed`).

use crate::apply::Committed;
use crate::command::Stamped;

/// Something that may only be seen once its command has been applied.
pub struct Held<T>(T);
impl<T> Held<T> {
    pub(crate) fn new(t: T) -> Self {
        Self(t)
    }
    /// Hands it out against the witness of the commit; the witness is used up.
    pub fn release(self, witness: Committed) -> (T, Committed) {
        (self.0, witness)
    }
}

/// A command to propose and what will be said when it is committed.
pub struct Prepared<T> {
    /// To be proposed to the cluster as it is.
    pub command: Stamped,
    /// To be released with the witness that `apply` gives for `command`.
    pub held: Held<T>,
}
