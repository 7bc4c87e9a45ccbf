//! A directory that paths cannot leave: every path is resolved by the kernel as if it were `/` (`openat2` with
//! `RESOLVE_IN_ROOT`), and the last element is never followed.
//!
//! So neither `..`, nor an absolute link, nor a link swapped in meanwhile reaches outside; what an image's links mean is
//! what they will mean in the container.

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

/// The longest path of a directory, in bytes: keeps removal's recursion shallow, whatever links make of a layer's paths.
const PATH_MAX: usize = 3000;

/// Who owns an entry, and what may be done with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits; set-user-id and set-group-id are not given on.
    pub(super) mode: u32,
    /// Seconds since the epoch.
    pub(super) mtime: i64,
}

/// An open root.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Everything written so far is on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }

    fn open_in(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::io::retry_on_intr(|| {
            rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
        })
    }

    /// Reads a file of the tree.
    pub(super) fn read(&self, path: &Path) -> io::Result<File> {
        Ok(self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK)?.into())
    }

    fn dir(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open_in(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens the directory `path`, making what is missing of it (0755, root).
    pub(super) fn make_dirs(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.dir(path) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let parent = path.parent().ok_or(Errno::NOENT)?;
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let above = self.make_dirs(parent)?;
        if std::fs::read_link(format!("/proc/self/fd/{}", above.as_raw_fd()))?.as_os_str().len() > PATH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))?;
        Ok(self.dir(path)?)
    }

    /// The directory that `path` is in, and its name there.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        Ok((self.make_dirs(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// A directory; one that is there already keeps its content.
    pub(super) fn put_dir(&self, path: &Path, meta: Meta) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let there = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
        if !there.is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_dir()) {
            remove_at(&dir, name)?;
            drop(self.make_dirs(path)?);
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        own(rustix::fs::openat(&dir, name, flags, Mode::empty())?, meta)
    }

    /// A regular file with what `content` has. Replaces whatever has that name.
    pub(super) fn put_file(&self, path: &Path, meta: Meta, content: &mut impl io::Read) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        remove_at(&dir, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR)?);
        io::copy(content, &mut file)?;
        own(file, meta)
    }

    /// A symbolic link; where it points is the container's business. Replaces whatever has that name.
    pub(super) fn put_symlink(&self, path: &Path, meta: Meta, target: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        remove_at(&dir, name)?;
        rustix::fs::symlinkat(target, &dir, name)?;
        let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
        Ok(rustix::fs::chownat(&dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// A second name for the file `target` of this tree. Replaces whatever has that name.
    pub(super) fn put_link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let target_name = target.file_name().ok_or(Errno::INVAL)?;
        let target_dir = self.dir(target.parent().unwrap_or(Path::new("")))?;
        let there = rustix::fs::statat(&target_dir, target_name, AtFlags::SYMLINK_NOFOLLOW)?;
        let here = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
        if here.is_ok_and(|h| (h.st_dev, h.st_ino) == (there.st_dev, there.st_ino)) {
            return Ok(());
        }
        remove_at(&dir, name)?;
        Ok(rustix::fs::linkat(&target_dir, target_name, &dir, name, AtFlags::empty())?)
    }

    /// Removes `path` and all below it; nothing there is not an error.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        match self.dir(path.parent().unwrap_or(Path::new(""))) {
            Ok(dir) => remove_at(&dir, name),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes all below the directory `path`; nothing there is not an error.
    pub(super) fn clear(&self, path: &Path) -> io::Result<()> {
        match self.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(dir) => clear_dir(&dir),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

fn own(file: impl AsFd, meta: Meta) -> io::Result<()> {
    rustix::fs::fchown(&file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(meta.mode & 0o1777))?;
    let time = Timespec { tv_sec: meta.mtime, tv_nsec: 0 };
    Ok(rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?)
}

fn remove_at(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    clear_dir(&rustix::fs::openat(dir, name, flags, Mode::empty())?)?;
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

fn clear_dir(dir: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove_at(dir, std::os::unix::ffi::OsStrExt::from_bytes(name))?;
        }
    }
    Ok(())
}
