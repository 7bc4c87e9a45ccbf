//! Landlock: the process sees its own directories, the files by which names are resolved, and nothing else of the file system.
//!
//! Must never: grant execution, or skip a directory that is missing.

use super::{HardenError, SwapChecked, SwapState};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetStatus, Scope,
};
use std::path::{Path, PathBuf};

/// The newest kernel interface asked for; an older kernel gives what it has, and [`Enforcement`] says how much.
const WANTED: ABI = ABI::V6;

/// What the C library reads to find the address of a name: other voters may be known by names.
const RESOLVER: &[&str] =
    &["/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services"];

/// What the vault may see.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    /// Directories it reads and writes: state and socket directory.
    pub write: Vec<PathBuf>,
    /// Files and directories it only reads: configuration and credentials.
    pub read: Vec<PathBuf>,
}

/// How much of the confinement the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// All of it.
    Full,
    /// Only part: an older kernel. `status` must say so.
    Partial,
    /// Nothing: no landlock in this kernel. `status` must say so.
    None,
}

/// The file system is out of reach but for [`Paths`], as far as the kernel enforces it.
#[derive(Debug)]
#[must_use]
pub struct Confined {
    pub(super) swap: SwapState,
    pub(super) files: Enforcement,
}

impl SwapChecked {
    /// Fourth step: confines this thread and those it starts to `paths`. Also shuts abstract sockets and signals to other processes.
    pub fn confine_files(self, paths: &Paths) -> Result<Confined, HardenError> {
        let write = AccessFs::from_all(WANTED) & !(AccessFs::Execute | AccessFs::MakeBlock | AccessFs::MakeChar);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let mut rules =
            Ruleset::default().handle_access(AccessFs::from_all(WANTED))?.scope(Scope::from_all(WANTED))?.create()?;
        let write = paths.write.iter().map(|p| (p.as_path(), write));
        // A system without one of these goes without.
        let resolver = RESOLVER.iter().map(Path::new).filter(|p| p.exists());
        for (path, access) in write.chain(paths.read.iter().map(PathBuf::as_path).chain(resolver).map(|p| (p, read))) {
            rules = rules.add_rule(rule(path, access)?)?;
        }
        let files = match rules.restrict_self()?.ruleset {
            RulesetStatus::FullyEnforced => Enforcement::Full,
            RulesetStatus::PartiallyEnforced => Enforcement::Partial,
            RulesetStatus::NotEnforced => Enforcement::None,
        };
        Ok(Confined { swap: self.swap, files })
    }
}

fn rule(path: &Path, access: BitFlags<AccessFs>) -> Result<PathBeneath<PathFd>, HardenError> {
    let name = |why: String| HardenError::Path { path: path.display().to_string(), why };
    let fd = PathFd::new(path).map_err(|e| name(e.to_string()))?;
    let is_dir = std::fs::metadata(path).map_err(|e| name(e.to_string()))?.is_dir();
    // Rights that only a directory can have are refused by the kernel on a file.
    let access = if is_dir { access } else { access & AccessFs::from_file(WANTED) };
    Ok(PathBeneath::new(fd, access))
}
