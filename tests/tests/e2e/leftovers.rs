//! What a world leaves behind: containers that outlive their agents, mounts, and cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

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
            let pid = p.parse().ok().and_then(rustix::process::Pid::from_raw);
            // One that has ended meanwhile is what was wanted.
            pid.and_then(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok());
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

/// The cgroups of this name, one in each hierarchy that has it.
pub fn cgroups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    hierarchies.chain([root.to_owned()]).map(|h| h.join(name)).filter(|dir| dir.is_dir()).collect()
}

/// Takes the cgroups of this name away, with those below them: one is empty a moment after its last process was ended.
pub fn remove_cgroups(name: &str) {
    fn remove(dir: &Path) {
        let below = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir());
        below.for_each(|dir| remove(&dir));
        drop(fs::remove_dir(dir));
    }
    for _ in 0..100 {
        let left = cgroups(name);
        if left.is_empty() {
            return;
        }
        left.iter().for_each(|dir| remove(dir));
        std::thread::sleep(Duration::from_millis(20));
    }
}
