//! Swap on this node: keys and secrets are kept in memory, and memory that is swapped out in clear is a disk.
//!
//! Must never: start over swap that is not encrypted, where the kernel may write keys or secrets to it, unless the
//! configuration says so.

use crate::secretfs::{Swap, ensure_memory};
use holdfast_transport::daemon::unencrypted_swap;
use holdfast_transport::failure::Failure;
use std::path::Path;

/// Makes `runtime_dir` a place in memory, and refuses one that could be swapped out in clear unless `allow_swap`.
pub fn keep_in_memory(runtime_dir: &Path, allow_swap: bool) -> Result<(), Failure> {
    let unread =
        |e: std::io::Error| Failure::failed("runtime-dir", format!("cannot read /proc/swaps: {e}")).help("mount /proc");
    let in_clear = unencrypted_swap().map_err(unread)?;
    let kept = ensure_memory(runtime_dir, in_clear.is_some()).map_err(|e| {
        Failure::failed("runtime-dir", e.to_string())
            .help("runtime_dir must be on a tmpfs of root with room, such as below /run")
    })?;
    judge(in_clear.as_deref(), kept, runtime_dir, allow_swap)
}

fn judge(in_clear: Option<&str>, kept: Swap, runtime_dir: &Path, allow_swap: bool) -> Result<(), Failure> {
    let Some(device) = in_clear.filter(|_| kept == Swap::IfSwapIsOn) else { return Ok(()) };
    let dir = runtime_dir.display();
    let said = format!("swap on {device} is not encrypted, and keys and secrets in {dir} may be written to it");
    if allow_swap {
        tracing::warn!("{said}: allow_swap is set");
        return Ok(());
    }
    Err(Failure::failed("runtime-dir", said).help("turn it off, encrypt it, or set allow_swap = true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_refuses_swap_in_clear_unless_it_is_allowed_or_cannot_be_reached() {
        let at = |device, kept, allow| judge(device, kept, Path::new("/run/x"), allow);
        let refused = at(Some("/dev/sda2"), Swap::IfSwapIsOn, false).unwrap_err();
        assert_eq!((refused.code.as_ref(), refused.kind.exit_code()), ("runtime-dir", 1));
        assert!(refused.message.contains("/dev/sda2") && refused.message.contains("/run/x"), "{refused:?}");
        assert!(refused.help.unwrap().contains("allow_swap"));
        at(Some("/dev/sda2"), Swap::IfSwapIsOn, true).unwrap();
        at(Some("/dev/sda2"), Swap::Never, false).unwrap();
        at(None, Swap::IfSwapIsOn, false).unwrap();
    }
}
