//! What goes on beside a test, in threads of its own.

use std::sync::atomic::{AtomicBool, Ordering};

/// Says that it is over when it goes, however the test goes on.
pub struct Stop<'a>(pub &'a AtomicBool);
impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
