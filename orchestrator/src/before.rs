//! What was held of the era before, until the vault of this one has been shown it.
//!
//! It is in memory and nowhere else: nodes keep theirs on disk, and the first of all that comes with it is enough.

use holdfast_wire::v1::HeldBefore;
use std::sync::{Mutex, PoisonError};

/// At most one era's.
#[derive(Debug, Default)]
pub struct Before(Mutex<Option<HeldBefore>>);

impl Before {
    /// In the place of an earlier one.
    pub fn keep(&self, held: Option<HeldBefore>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }
    /// What is to be shown, if anything is.
    pub fn to_show(&self) -> Option<HeldBefore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// The vault has answered to `shown`: what follows from it is committed.
    pub fn was_shown(&self, shown: Option<&HeldBefore>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref() == shown {
            *held = None;
        }
    }
}
