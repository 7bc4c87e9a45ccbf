//! What the tests share: a node on a temporary directory, and the busybox that its containers run.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

pub mod oci;
pub mod registry;

use holdfast_agent::host::Host;
use holdfast_agent::runtime::{Backend, ContainerId, Containers, Exit, Layout, Status, logs};
use holdfast_agent::secretfs::SecretFs;
use holdfast_agent::spec::{self, Facts};
use holdfast_wire::v1;
use oci_spec::image::Config as ImageConfig;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

pub const APPLETS: [&str; 22] = [
    "sh", "cat", "ls", "sleep", "dd", "touch", "id", "hostname", "stat", "unshare", "mount", "kill", "true", "false",
    "echo", "env", "ln", "chmod", "grep", "pwd", "seq", "readlink",
];

/// These tests make real containers and real mounts: they need root and say so.
pub fn need_root() {
    assert!(rustix::process::geteuid().is_root(), "run these tests as root: they make containers and mounts");
}

/// The static busybox of Debian's `busybox-static`.
pub fn busybox() -> PathBuf {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let found = places.iter().map(PathBuf::from).find(|p| p.exists());
    found.expect("busybox is missing: apt-get install busybox-static")
}

pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_holdfast-agent"))
}

/// A root file system with busybox and the mount points that `spec` names.
pub fn write_rootfs(root: &Path) {
    for dir in ["bin", "proc", "dev", "sys", "tmp", "run", "etc"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy(busybox(), root.join("bin/busybox")).unwrap();
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

/// A node with one back end; its containers and directories are gone when it is dropped.
pub struct Node {
    pub dir: TempDir,
    pub layout: Layout,
    pub containers: Containers,
    pub rootfs: PathBuf,
    pub cgroup: PathBuf,
}

pub fn libcontainer(root: &Path) -> Backend {
    Backend::Libcontainer { program: program(), root: root.join("oci") }
}
pub fn runc(root: &Path) -> Backend {
    Backend::Runc { program: "runc".into(), root: root.join("oci") }
}

impl Node {
    pub fn new(backend: fn(&Path) -> Backend) -> Self {
        need_root();
        let dir = TempDir::new().unwrap();
        let rootfs = dir.path().join("rootfs");
        write_rootfs(&rootfs);
        let layout = Layout {
            state_dir: dir.path().join("state"),
            program: program(),
            backend: backend(dir.path()),
            log_bytes: 1 << 20,
        };
        let containers = Containers::open(layout.clone()).unwrap();
        let name = dir.path().file_name().unwrap().to_string_lossy().to_lowercase().replace('.', "");
        Self { containers, layout, rootfs, cgroup: PathBuf::from(format!("/holdfast-test-{name}")), dir }
    }

    pub fn spec(&self, id: &ContainerId, wanted: &v1::Spec, secrets: Option<&Path>) -> oci_spec::runtime::Spec {
        self.spec_of(id, wanted, secrets, (&ImageConfig::default(), None))
    }

    pub fn spec_of(
        &self,
        id: &ContainerId,
        wanted: &v1::Spec,
        secrets: Option<&Path>,
        (image, image_user): (&ImageConfig, Option<(u32, u32)>),
    ) -> oci_spec::runtime::Spec {
        let host = Host::probe(&self.cgroup);
        let facts = Facts { id: id.as_str(), rootfs: &self.rootfs, image, image_user, secrets, env: &[], host: &host };
        spec::build(wanted, &facts).unwrap()
    }

    pub async fn start(&self, id: &ContainerId, wanted: &v1::Spec) {
        self.containers.start(id, self.spec(id, wanted, None)).await.unwrap();
    }

    /// Runs a shell script to its end.
    pub async fn run(&self, name: &str, script: &str) -> (Exit, String) {
        self.run_spec(name, &shell(script)).await
    }

    pub async fn run_spec(&self, name: &str, wanted: &v1::Spec) -> (Exit, String) {
        let id = ContainerId::parse(name).unwrap();
        self.start(&id, wanted).await;
        let exit = within(self.containers.wait(&id)).await.unwrap();
        (exit, self.output(&id))
    }

    pub fn output(&self, id: &ContainerId) -> String {
        let lines = logs::tail(&self.containers.log_dir(id), 0).unwrap();
        lines.iter().map(|l| String::from_utf8_lossy(&l.text).into_owned() + "\n").collect()
    }

    pub fn init_pid(&self, id: &ContainerId) -> u32 {
        let held = self.containers.held().unwrap();
        match held.into_iter().find(|h| h.id == *id).and_then(|h| h.status) {
            Some(Status::Running { pid, .. }) => pid,
            other => panic!("{id} is not running but {other:?}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let runtime = self.layout.backend.runtime();
        use holdfast_agent::runtime::Runtime as _;
        for id in runtime.list().unwrap_or_default() {
            runtime.delete(&id).ok();
        }
        if let Ok(secrets) = SecretFs::open(self.dir.path().join("secrets")) {
            secrets.sweep(&BTreeSet::new()).ok();
        }
        // One directory a hierarchy is left by the runtimes: the parent of all containers' cgroups.
        let parent = self.cgroup.strip_prefix("/").unwrap();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            fs::remove_dir(hierarchy.path().join(parent)).ok();
        }
        fs::remove_dir(Path::new("/sys/fs/cgroup").join(parent)).ok();
    }
}

pub fn shell(script: &str) -> v1::Spec {
    v1::Spec { command: vec!["/bin/sh".into(), "-c".into(), script.into()], ..Default::default() }
}

/// Everything that a test waits for comes well within this, or never.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("nothing happened within a minute")
}

/// Waits until `seen` says so.
pub async fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        while !seen() {
            tick.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), wait).await.is_ok(), "waited in vain for: {what}");
}
