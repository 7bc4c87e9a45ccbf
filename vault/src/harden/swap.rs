//! Swap that could carry keys to a disk in clear.
//!
//! Must never: take a device for encrypted because it does not look like anything.

use super::{HardenError, Unprivileged};
use std::path::Path;

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
    /// Third step: refuses to go on over unencrypted swap unless `allow_swap`.
    pub fn check_swap(self, allow_swap: bool) -> Result<SwapChecked, HardenError> {
        let table = std::fs::read_to_string("/proc/swaps")
            .map_err(|source| HardenError::Kernel { step: "read /proc/swaps", source })?;
        let swap = judge(first_unencrypted(&table, Path::new("/sys/class/block")), allow_swap)?;
        Ok(SwapChecked { swap })
    }
}

pub(super) fn judge(unencrypted: Option<String>, allow_swap: bool) -> Result<SwapState, HardenError> {
    match unencrypted {
        None => Ok(SwapState::Safe),
        Some(_) if allow_swap => Ok(SwapState::AllowedUnencrypted),
        Some(device) => Err(HardenError::Swap(device)),
    }
}

/// The first entry of `/proc/swaps` that is neither zram nor dm-crypt, as `block` (`/sys/class/block`) tells.
/// A swap file is never taken for encrypted: what lies under its file system is not looked at.
pub(super) fn first_unencrypted(table: &str, block: &Path) -> Option<String> {
    let devices = table.lines().skip(1).filter_map(|l| l.split_whitespace().next());
    devices.map(str::to_owned).find(|d| !is_safe(d, block))
}

fn is_safe(device: &str, block: &Path) -> bool {
    let real = std::fs::canonicalize(device).unwrap_or_else(|_| device.into());
    let Some(name) = real.strip_prefix("/dev").ok().and_then(|n| n.to_str()) else { return false };
    let uuid = std::fs::read_to_string(block.join(name).join("dm/uuid")).unwrap_or_default();
    name.starts_with("zram") || uuid.starts_with("CRYPT-")
}
