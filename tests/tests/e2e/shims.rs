//! What really runs on a node, whatever anybody says: one shim for each container.

use super::world::{World, eventually};
use std::fs;

/// The shims of agent `n`: one for each container that runs.
pub fn shims(w: &World, n: usize) -> Vec<u32> {
    let folder = w.agent_state(n).join("tasks");
    let folder = folder.to_str().unwrap();
    let is_shim = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("task-shim") && line.contains(folder)
    };
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut found: Vec<u32> = all.filter(is_shim).collect();
    found.sort_unstable();
    found
}

/// As many containers run on all nodes as there should be: none was lost, none runs twice.
pub fn assert_running(w: &World, expected: usize) {
    let all = || -> Vec<u32> { (0..w.agents.len()).flat_map(|n| shims(w, n)).collect() };
    eventually(&format!("{expected} containers, as against shims {:?}", all()), || {
        (all().len() == expected).then_some(())
    });
}
