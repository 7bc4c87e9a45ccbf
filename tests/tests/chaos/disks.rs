//! What goes wrong with disks: small ones that fill up. What is done to a process that waits for its disk is in `traced`.

use crate::net::VOTERS;
use crate::traced::Traced;
use crate::voters::{Voter, Voters};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How small a voter's small disk is.
const SMALL: &str = "size=160m,mode=0700";
/// What takes the room on a disk.
const BALLAST: &str = "ballast";

/// Puts a small disk where a voter's state will be. This process has mounts of its own, which go with it.
pub fn small(voter: &Voter) {
    let dir = voter.state_dir();
    fs::create_dir_all(&dir).unwrap();
    mount(&dir, SMALL);
}

fn mount(dir: &Path, options: &str) {
    let o = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir).output().unwrap();
    assert!(o.status.success(), "mount: {}", String::from_utf8_lossy(&o.stderr));
}

/// The small disks of a cluster, taken away before its folder is.
pub struct SmallDisks(Vec<PathBuf>);
impl SmallDisks {
    pub fn of(v: &Voters) -> Self {
        assert_eq!(v.all.len(), VOTERS);
        Self(v.all.iter().map(Voter::state_dir).collect())
    }
}
impl Drop for SmallDisks {
    fn drop(&mut self) {
        for dir in &self.0 {
            // Lazily: the voters are ended after this.
            drop(Command::new("umount").arg("-l").arg(dir).stderr(Stdio::null()).status());
        }
    }
}

/// Leaves no byte of room beside the voter's state.
pub fn fill(dir: &Path) {
    let mut ballast = OpenOptions::new().create(true).append(true).open(dir.join(BALLAST)).unwrap();
    let block = vec![0x5a; 1 << 20];
    // From large to small pieces: the last of them does not fit either.
    for size in [block.len(), 64 << 10, 4 << 10, 1] {
        while ballast.write_all(&block[..size]).is_ok() {}
    }
}

/// Gives the room back.
pub fn free(dir: &Path) {
    fs::remove_file(dir.join(BALLAST)).unwrap();
}

/// That these faults are faults at all.
pub fn really() {
    let dir = tempfile::tempdir().unwrap();
    mount(dir.path(), "size=1m");
    let disk = SmallDisks(vec![dir.path().to_owned()]);
    fill(dir.path());
    assert!(fs::write(dir.path().join("more"), [1; 4096]).is_err(), "there is room on a full disk");
    free(dir.path());
    fs::write(dir.path().join("more"), [1; 4096]).unwrap();
    drop(disk);
    // Its first write comes when it is told to: it is traced by then.
    let script =
        "import os, sys\nsys.stdin.readline()\nf = open(sys.argv[1], 'w')\nos.fsync(f.fileno())\nprint('synced')\n";
    let mut c = Command::new("python3");
    c.args(["-c", script]).arg(dir.path().join("file")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = c.spawn().unwrap();
    let traced = Traced::begin(child.id(), "signal=SIGKILL:when=1");
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let o = child.wait_with_output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&o.status), Some(9), "{o:?}");
    assert!(o.stdout.is_empty(), "it went on after its write");
    traced.wait();
}
