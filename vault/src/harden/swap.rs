//! Swap that could carry keys to a disk in clear: found by [`unencrypted_swap`], judged here; and whether keys can be locked in
//! memory at all.
//!
//! Must never: go on over swap in clear, or with keys that may be swapped out, unless the configuration allows it.

use super::{HardenError, Unprivileged};
use holdfast_transport::daemon::unencrypted_swap;

/// What was found about swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapState {
    /// No swap, or only encrypted (dm-crypt) or in memory (zram).
    Safe,
    /// Unencrypted swap, allowed by configuration: `status` must say so.
    AllowedUnencrypted,
}

/// Swap was looked at, and is safe or was allowed.
#[derive(Debug)]
#[must_use]
pub struct SwapChecked {
    pub(super) swap: SwapState,
}

impl Unprivileged {
    /// Third step: refuses to go on over unencrypted swap, and where no memory can be locked, unless `allow_swap`.
    pub fn check_swap(self, allow_swap: bool) -> Result<SwapChecked, HardenError> {
        if !holdfast_types::may_lock() && !allow_swap {
            return Err(HardenError::Unlocked);
        }
        let found = unencrypted_swap().map_err(|source| HardenError::Kernel { step: "read /proc/swaps", source })?;
        Ok(SwapChecked { swap: judge(found, allow_swap)? })
    }
}

pub(super) fn judge(unencrypted: Option<String>, allow_swap: bool) -> Result<SwapState, HardenError> {
    match unencrypted {
        None => Ok(SwapState::Safe),
        Some(_) if allow_swap => Ok(SwapState::AllowedUnencrypted),
        Some(device) => Err(HardenError::Swap(device)),
    }
}
