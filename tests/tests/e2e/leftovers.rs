//! What a world leaves behind: containers that outlive their agents, and mounts.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Ends the processes that outlive an agent on purpose: its containers and their shims, found by their state folder.
pub fn end_tasks(state: &Path) {
    let needle = state.to_str().unwrap().to_owned();
    let procs = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let mine = procs.filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| String::from_utf8_lossy(&c).contains(&needle))
    });
    for pid in mine.collect::<Vec<_>>() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for p in children.split_whitespace().map(str::to_owned).chain([pid.to_string()]) {
            drop(Command::new("kill").args(["-9", &p]).stderr(Stdio::null()).status());
        }
    }
}

/// Detaches what is mounted below `dir`.
pub fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut below: Vec<_> =
        mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|m| Path::new(m).starts_with(dir)).collect();
    below.sort_by_key(|m| std::cmp::Reverse(m.len()));
    for m in below {
        drop(Command::new("umount").args(["-l", m]).stderr(Stdio::null()).status());
    }
}
