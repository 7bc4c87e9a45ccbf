//! A task's secrets: a tmpfs of its own, in memory only, gone with the task.
//!
//! Layout: `root/<container>/`, where `root` is 0700 and on a tmpfs (`/run/holdfast-agent/<node>/secrets`). Each mount
//! has a size cap, `nosuid,nodev,noexec`, `noswap` where the kernel has it (6.4), and is read-only once it is written.
//! Its directory belongs to the container's user and may only be listed and entered; the container gets it as a
//! read-only bind.
//!
//! Must never write a value anywhere else, and never put one into an error or a log.

use crate::runtime::ContainerId;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// `TMPFS_MAGIC` (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Files of one task: its secrets and its certificate.
const FILES_MAX: usize = 256;

/// One file for a container.
#[derive(Clone, Copy)]
pub struct SecretFile<'a> {
    /// Its name below `/run/secrets`: one path element.
    pub name: &'a str,
    /// Its content.
    pub value: &'a [u8],
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// Its owner in the container (there is no user namespace: the same on the host).
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Whether the kernel may write a task's secrets to swap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Swap {
    /// The mount has `noswap`.
    Never,
    /// The kernel has no `noswap`: with swap on, what is in memory may reach the disk.
    IfSwapIsOn,
}

/// A task's mounted secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mounted {
    /// The directory to bind into the container.
    pub path: PathBuf,
    /// What the kernel promised.
    pub swap: Swap,
}

/// Why secrets could not be put in place or taken away.
#[derive(Debug, thiserror::Error)]
pub enum SecretFsError {
    /// A file or mount call failed.
    #[error("could not {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name that is not one path element.
    #[error("secret target {0:?} must be a plain file name of at most 255 bytes")]
    Name(String),
    /// Permission bits that a secret must not have.
    #[error("mode {mode:o} of secret {name:?} must be within 0777")]
    Mode {
        /// Of which file.
        name: String,
        /// As asked.
        mode: u32,
    },
    /// More files than a task may have.
    #[error("a task has at most {FILES_MAX} secrets, this one has {0}")]
    TooMany(usize),
    /// There are secrets of that task already.
    #[error("the secrets of {0} are mounted already: remove them first")]
    Exists(ContainerId),
    /// After unmounting, the directory is still a mount.
    #[error("the secrets of {0} are still mounted after unmounting them: something mounted over them")]
    StillThere(ContainerId),
    /// The directory for the mounts is on a disk.
    #[error("{0} is not on a tmpfs: choose a directory below /run")]
    NotMemory(PathBuf),
}

fn failed<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> SecretFsError {
    move |e| SecretFsError::Io { what, path: path.to_owned(), source: e.into() }
}

/// All secret mounts of this node.
#[derive(Clone, Debug)]
pub struct SecretFs {
    root: PathBuf,
}

impl SecretFs {
    /// Opens (and makes, 0700) the directory for the mounts.
    pub fn open(root: PathBuf) -> Result<Self, SecretFsError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(failed("create", &root))?;
        rustix::fs::chmod(&root, Mode::RWXU).map_err(failed("protect", &root))?;
        Ok(Self { root })
    }

    /// Where the secrets of `id` are, or would be.
    pub fn path(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// Mounts a fresh tmpfs of at most `bytes` for `id`, to be entered by `owner` (uid, gid), and writes `files`.
    /// If anything fails nothing is left.
    pub fn mount(
        &self,
        id: &ContainerId,
        owner: (u32, u32),
        bytes: u64,
        files: &[SecretFile<'_>],
    ) -> Result<Mounted, SecretFsError> {
        check(files)?;
        let path = self.path(id);
        if path.exists() {
            return Err(SecretFsError::Exists(id.clone()));
        }
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed("create", &path))?;
        let put = mount_tmpfs(&path, bytes).and_then(|swap| {
            let dir = open_dir(&path)?;
            rustix::fs::fchown(&dir, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
                .map_err(failed("hand over", &path))?;
            rustix::fs::fchmod(&dir, Mode::RUSR | Mode::XUSR).map_err(failed("protect", &path))?;
            drop(dir);
            self.write(id, files)?;
            Ok(Mounted { path: path.clone(), swap })
        });
        put.inspect_err(|_| {
            // The first error is the one to tell.
            self.remove(id).ok();
        })
    }

    /// Writes `files` into mounted secrets, each whole or not at all; others stay as they are. Also while the container
    /// runs: its own view is read-only throughout.
    pub fn write(&self, id: &ContainerId, files: &[SecretFile<'_>]) -> Result<(), SecretFsError> {
        check(files)?;
        let path = self.path(id);
        remount(&path, false)?;
        let dir = open_dir(&path)?;
        let written = files.iter().try_for_each(|file| write_file(&dir, file).map_err(failed("write to", &path)));
        drop(dir);
        let closed = remount(&path, true);
        written.and(closed)
    }

    /// Overwrites, removes and unmounts the secrets of `id`, and makes sure that they are gone. Removing what is not
    /// there is not an error.
    pub fn remove(&self, id: &ContainerId) -> Result<(), SecretFsError> {
        let path = self.path(id);
        if !path.exists() {
            return Ok(());
        }
        while is_mount_point(&self.root, &path)? {
            // Some other mount namespace may hold this tmpfs for longer than we do: empty it, then let go of it.
            remount(&path, false)?;
            empty(&path).map_err(failed("empty", &path))?;
            rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .map_err(failed("unmount", &path))?;
        }
        fs::remove_dir(&path).map_err(failed("remove", &path))?;
        if path.exists() { Err(SecretFsError::StillThere(id.clone())) } else { Ok(()) }
    }

    /// Removes the secrets of every container that is not in `keep`; returns whose they were. For the agent's start.
    pub fn sweep(&self, keep: &BTreeSet<ContainerId>) -> Result<Vec<ContainerId>, SecretFsError> {
        let mut swept = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed("list", &self.root))? {
            let name = entry.map_err(failed("list", &self.root))?.file_name();
            let Some(id) = name.to_str().and_then(|n| ContainerId::parse(n).ok()) else { continue };
            if !keep.contains(&id) {
                self.remove(&id)?;
                swept.push(id);
            }
        }
        Ok(swept)
    }
}

fn check(files: &[SecretFile<'_>]) -> Result<(), SecretFsError> {
    if files.len() > FILES_MAX {
        return Err(SecretFsError::TooMany(files.len()));
    }
    for file in files {
        let name = file.name;
        if name.is_empty() || name.len() > 255 || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(SecretFsError::Name(name.chars().take(80).collect()));
        }
        if file.mode & !0o777 != 0 {
            return Err(SecretFsError::Mode { name: name.to_owned(), mode: file.mode });
        }
    }
    Ok(())
}

const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Makes `dir` a tmpfs of its own unless it lies on one already: keys and secrets never reach a disk, also on machines
/// whose `/run` is one. Where there is `swap_in_clear` one that may be swapped out does not count, as long as nothing lies
/// in it. Stays mounted when the agent ends, so that a restarted agent finds its keys and its tasks' secrets.
pub fn ensure_memory(dir: &Path, swap_in_clear: bool) -> Result<Swap, SecretFsError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| SecretFsError::Io {
        what: "create",
        path: dir.to_owned(),
        source: e,
    })?;
    let dir: &Path = &fs::canonicalize(dir).map_err(failed("find", dir))?;
    let in_memory = rustix::fs::statfs(dir).is_ok_and(|s| s.f_type == TMPFS_MAGIC);
    if in_memory && has_noswap(&fs::read_to_string("/proc/self/mounts").unwrap_or_default(), dir) {
        return Ok(Swap::Never);
    }
    // Over what an earlier agent left there nothing is mounted: it must be found again.
    let is_empty = fs::read_dir(dir).map_err(failed("list", dir))?.next().is_none();
    if in_memory && !(swap_in_clear && is_empty) {
        return Ok(Swap::IfSwapIsOn);
    }
    let mount = |options: &std::ffi::CStr| rustix::mount::mount("holdfast-agent", dir, "tmpfs", FLAGS, options);
    match mount(c"mode=0700,size=64m,noswap") {
        Ok(()) => Ok(Swap::Never),
        Err(Errno::INVAL) if in_memory => Ok(Swap::IfSwapIsOn),
        Err(Errno::INVAL) => mount(c"mode=0700,size=64m").map(|()| Swap::IfSwapIsOn),
        Err(e) => Err(e),
    }
    .map_err(failed("mount a tmpfs on", dir))
}

/// Whether the mount that `dir` lies on, as `/proc/self/mounts` shows it, is never swapped out.
fn has_noswap(mounts: &str, dir: &Path) -> bool {
    let above = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, _, options) = (words.next()?, words.next()?, words.next()?);
        dir.starts_with(at).then_some((at.len(), options))
    });
    // Of two mounts at one place the later line is the one on top, and the one that this takes.
    let mine = above.max_by_key(|(length, _)| *length);
    mine.is_some_and(|(_, options)| options.split(',').any(|o| o == "noswap"))
}

fn mount_tmpfs(path: &Path, bytes: u64) -> Result<Swap, SecretFsError> {
    let plain = format!("mode=0700,size={bytes},nr_inodes={}", FILES_MAX.saturating_mul(2));
    let mount = |options: String| {
        let options = CString::new(options).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount("holdfast-secrets", path, "tmpfs", FLAGS, options.as_c_str())
    };
    let swap = match mount(format!("{plain},noswap")) {
        Ok(()) => Swap::Never,
        Err(Errno::INVAL) => mount(plain).map(|()| Swap::IfSwapIsOn).map_err(failed("mount a tmpfs on", path))?,
        Err(e) => return Err(failed("mount a tmpfs on", path)(e)),
    };
    Ok(swap)
}

fn remount(path: &Path, read_only: bool) -> Result<(), SecretFsError> {
    let on_tmpfs = rustix::fs::statfs(path).is_ok_and(|s| s.f_type == TMPFS_MAGIC);
    if !on_tmpfs {
        return Err(SecretFsError::NotMemory(path.to_owned()));
    }
    let flags = if read_only { FLAGS | MountFlags::RDONLY } else { FLAGS };
    rustix::mount::mount_remount(path, flags, "").map_err(failed("remount", path))
}

fn open_dir(path: &Path) -> Result<OwnedFd, SecretFsError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open", path))
}

/// Writes beside and renames: a reader in the container sees the old content or the new.
fn write_file(dir: &OwnedFd, file: &SecretFile<'_>) -> io::Result<()> {
    let fresh = ".new";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut out = File::from(rustix::fs::openat(dir, fresh, flags, Mode::RUSR | Mode::WUSR)?);
    out.write_all(file.value)?;
    rustix::fs::fchown(&out, Some(Uid::from_raw(file.uid)), Some(Gid::from_raw(file.gid)))?;
    rustix::fs::fchmod(out.as_fd(), Mode::from_raw_mode(file.mode))?;
    rustix::fs::renameat(dir, fresh, dir, file.name)?;
    Ok(())
}

/// Overwrites every file with zeros, then removes it. On a tmpfs this reaches the very pages.
fn empty(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let mut left = entry.metadata()?.len();
            let mut out = File::options().write(true).open(entry.path())?;
            let zeros = [0u8; 4096];
            while left > 0 {
                let n = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                out.write_all(zeros.get(..n).unwrap_or(&zeros))?;
                left = left.saturating_sub(u64::try_from(n).unwrap_or(left));
            }
        }
        fs::remove_file(entry.path())?;
    }
    Ok(())
}

fn is_mount_point(parent: &Path, path: &Path) -> Result<bool, SecretFsError> {
    let device = |p: &Path| fs::symlink_metadata(p).map(|m| m.dev()).map_err(failed("look at", p));
    Ok(device(parent)? != device(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_on_top_says_whether_a_folder_may_be_swapped_out() {
        let mounts = "/dev/sda1 / ext4 rw 0 0\ntmpfs /run tmpfs rw,nosuid,size=1k 0 0\n\
                      holdfast-agent /run/a tmpfs rw,noswap,mode=700 0 0\ntmpfs /run/b tmpfs rw,noswap 0 0\n\
                      tmpfs /run/b tmpfs rw 0 0\n";
        for (dir, never) in
            [("/run/a", true), ("/run/a/keys", true), ("/run", false), ("/run/ab", false), ("/run/b", false)]
        {
            assert_eq!(has_noswap(mounts, Path::new(dir)), never, "{dir}");
        }
        assert!(!has_noswap("", Path::new("/run/a")));
    }
}
