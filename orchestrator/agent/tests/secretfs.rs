//! Secrets in memory only: mounted, read-only, swept, gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use holdfast_agent::runtime::ContainerId;
use holdfast_agent::secretfs::{SecretFile, SecretFs, SecretFsError, Swap};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use tempfile::TempDir;

fn secrets() -> (TempDir, SecretFs) {
    assert!(rustix::process::geteuid().is_root(), "run these tests as root: they make mounts");
    let dir = TempDir::new().unwrap();
    let secrets = SecretFs::open(dir.path().join("secrets")).unwrap();
    (dir, secrets)
}
fn id(name: &str) -> ContainerId {
    ContainerId::parse(name).unwrap()
}
fn file<'a>(name: &'a str, value: &'a [u8]) -> SecretFile<'a> {
    SecretFile { name, value, mode: 0o440, uid: 7, gid: 8 }
}
fn mount_options(path: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().find(|l| l.contains(path)).map(str::to_owned)
}

#[test]
fn secrets_lie_on_a_capped_read_only_tmpfs_that_never_swaps_where_the_kernel_can() {
    let (_dir, secrets) = secrets();
    let mounted = secrets.mount(&id("a.b.1"), (7, 8), 64 << 10, &[file("x", b"value")]).unwrap();
    let options = mount_options(mounted.path.to_str().unwrap()).unwrap();
    for option in [" tmpfs ro,", "nosuid", "nodev", "noexec", "size=64k"] {
        assert!(options.contains(option), "{option} is not in {options}");
    }
    assert_eq!(options.contains("noswap"), mounted.swap == Swap::Never, "{options}");
    let meta = fs::metadata(mounted.path.join("x")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o440, 7, 8));
    let meta = fs::metadata(&mounted.path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o500, 7, 8));
    assert!(fs::write(mounted.path.join("x"), "y").is_err());
    secrets.remove(&id("a.b.1")).unwrap();
    assert_eq!(mount_options(mounted.path.to_str().unwrap()), None);
}

#[test]
fn removed_secrets_are_zeros_to_whoever_still_holds_the_file() {
    let (_dir, secrets) = secrets();
    let mounted = secrets.mount(&id("a.b.1"), (0, 0), 64 << 10, &[file("x", b"value")]).unwrap();
    let mut held = fs::File::open(mounted.path.join("x")).unwrap();
    secrets.remove(&id("a.b.1")).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut held, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 5]);
}

#[test]
fn what_does_not_fit_or_is_no_name_leaves_nothing() {
    let (dir, secrets) = secrets();
    let large = vec![b'x'; 256 << 10];
    assert!(matches!(
        secrets.mount(&id("a.b.1"), (0, 0), 64 << 10, &[file("x", &large)]),
        Err(SecretFsError::Io { .. })
    ));
    for name in ["", "..", "a/b", ".hidden", "a\0"] {
        let refused = secrets.mount(&id("a.b.1"), (0, 0), 64 << 10, &[file(name, b"v")]);
        assert!(matches!(refused, Err(SecretFsError::Name(_))), "{name:?}");
    }
    let suid = SecretFile { mode: 0o4755, ..file("x", b"v") };
    assert!(matches!(secrets.mount(&id("a.b.1"), (0, 0), 64 << 10, &[suid]), Err(SecretFsError::Mode { .. })));
    assert_eq!(fs::read_dir(dir.path().join("secrets")).unwrap().count(), 0);
}

#[test]
fn a_restarted_agent_sweeps_the_secrets_of_tasks_that_are_gone() {
    let (dir, secrets) = secrets();
    for name in ["a.b.1", "a.b.2"] {
        secrets.mount(&id(name), (0, 0), 64 << 10, &[file("x", b"v")]).unwrap();
    }
    assert!(matches!(secrets.mount(&id("a.b.1"), (0, 0), 1 << 16, &[]), Err(SecretFsError::Exists(_))));
    let next = SecretFs::open(dir.path().join("secrets")).unwrap();
    assert_eq!(next.sweep(&BTreeSet::from([id("a.b.2")])).unwrap(), [id("a.b.1")]);
    assert!(!next.path(&id("a.b.1")).exists());
    assert_eq!(fs::read(next.path(&id("a.b.2")).join("x")).unwrap(), b"v");
    next.sweep(&BTreeSet::new()).unwrap();
    assert_eq!(mount_options(dir.path().to_str().unwrap()), None);
}
