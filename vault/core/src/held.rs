//! Commit before release, as types: what is said to the outside waits inside a [`Held`] for the witness of its commit.
//!
//! LAW: nothing signed for a caller exists outside before its log leaf is committed
//! (test `nothing_leaves_before_its_leaf_is_committed`).

use crate::apply::Committed;
use crate::command::Stamped;

/// Something that may only be seen once its own command has been applied.
pub struct Held<T> {
    value: T,
    of: [u8; 32],
}
impl<T> Held<T> {
    /// `of`: the salt seed of the command, which no other command has.
    pub(crate) fn new(value: T, of: [u8; 32]) -> Self {
        Self { value, of }
    }
    /// Hands it out against the witness of its command's commit. The witness of another command gets nothing.
    pub fn release(self, witness: Committed) -> Option<(T, Committed)> {
        witness.is_of(&self.of).then_some((self.value, witness))
    }
}

/// A command to propose and what will be said when it is committed.
pub struct Prepared<T> {
    /// To be proposed to the cluster as it is.
    pub command: Stamped,
    /// To be released with the witness that `apply` gives for `command`.
    pub held: Held<T>,
}
