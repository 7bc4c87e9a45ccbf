//! What this machine can do for containers, probed once at start and said in `status`. Never guesses: what cannot be
//! read counts as absent.

use rustix::process::{Resource, getrlimit};
use std::path::{Path, PathBuf};

/// What `spec` must know of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// The cgroup that holds all containers of this agent, e.g. `/holdfast`.
    pub cgroup_parent: PathBuf,
    /// Whether the kernel accounts swap, so that it can be forbidden to a container.
    pub swap_accounting: bool,
    /// The highest bound on open files that the agent may give on (without CAP_SYS_RESOURCE no more than its own).
    pub open_files_max: u64,
    /// The highest bound on core dumps, in bytes, that the agent may give on.
    pub core_max: u64,
}

impl Host {
    /// Looks at this machine.
    pub fn probe(cgroup_parent: &Path) -> Self {
        let hard = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let v1 = Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
        let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && Path::new("/proc/swaps").exists();
        Self {
            cgroup_parent: cgroup_parent.to_owned(),
            swap_accounting: v1 || v2,
            open_files_max: hard(Resource::Nofile),
            core_max: hard(Resource::Core),
        }
    }
}
