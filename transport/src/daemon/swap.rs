//! Swap that could carry keys and secrets to a disk in clear.
//!
//! Must never: take a device for encrypted because it does not look like anything.

use std::io;
use std::path::Path;

/// A device or file that this machine swaps to and that is not encrypted; `None` if it has no such swap.
///
/// # Errors
/// `/proc/swaps` cannot be read, although the kernel may swap.
pub fn unencrypted_swap() -> io::Result<Option<String>> {
    match std::fs::read_to_string("/proc/swaps") {
        Ok(table) => Ok(first_unencrypted(&table, Path::new("/sys/class/block"))),
        // A kernel that is built without swap has no such file.
        Err(e) if e.kind() == io::ErrorKind::NotFound && Path::new("/proc/self").exists() => Ok(None),
        Err(e) => Err(e),
    }
}

/// The first entry of `/proc/swaps` that is neither zram nor dm-crypt, as `block` (`/sys/class/block`) tells.
/// A swap file is never taken for encrypted: what lies under its file system is not looked at.
fn first_unencrypted(table: &str, block: &Path) -> Option<String> {
    let devices = table.lines().skip(1).filter_map(|l| l.split_whitespace().next());
    devices.map(str::to_owned).find(|d| !is_safe(d, block))
}

fn is_safe(device: &str, block: &Path) -> bool {
    let real = std::fs::canonicalize(device).unwrap_or_else(|_| device.into());
    let Some(name) = real.strip_prefix("/dev").ok().and_then(|n| n.to_str()) else { return false };
    let uuid = std::fs::read_to_string(block.join(name).join("dm/uuid")).unwrap_or_default();
    name.starts_with("zram") || uuid.starts_with("CRYPT-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_safe_only_in_memory_or_encrypted() {
        let sys = tempfile::tempdir().unwrap();
        let uuid = sys.path().join("dm-3/dm/uuid");
        std::fs::create_dir_all(uuid.parent().unwrap()).unwrap();
        std::fs::write(&uuid, "CRYPT-PLAIN-swap\n").unwrap();
        let head = "Filename\tType\tSize\tUsed\tPriority\n";
        let look = |lines: &str| first_unencrypted(&format!("{head}{lines}"), sys.path());
        assert_eq!(look(""), None);
        assert_eq!(look("/dev/dm-3 partition 1 0 -2\n/dev/zram0 partition 1 0 -2\n"), None);
        assert_eq!(look("/dev/dm-3 partition 1 0 -2\n/dev/sda2 partition 1 0 -2\n").as_deref(), Some("/dev/sda2"));
        assert_eq!(look("/swapfile file 1 0 -2\n").as_deref(), Some("/swapfile"));
        // An empty table, as /proc/swaps shows it on a machine without swap, is no swap.
        assert_eq!(first_unencrypted("", sys.path()), None);
    }
}
