//! The OCI runtime specification of a task: hardened, and by construction, since nothing asks for less.
//!
//! Decision: **no container runs as uid 0**, and user namespaces are not used. Uid 0 in a specification or an image
//! becomes [`NOBODY`]. A user namespace would make root inside harmless, but costs either a private copy of each root
//! file system or idmapped mounts that not every file system has; a process that is not root, holds no capability and
//! cannot gain any (`noNewPrivileges`, `nosuid` everywhere) has nothing that a user namespace would take away from it,
//! and the kernel surface that user namespaces open stays shut (`seccomp`).
//!
//! Pure: what the machine has is in [`Facts`]. Must never hold a secret's value; it knows the directory they are in.

use crate::host::Host;
use crate::seccomp;
use holdfast_wire::v1;
use oci_spec::OciSpecError;
use oci_spec::image::Config as ImageConfig;
use oci_spec::runtime as oci;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The uid and gid of a container whose specification and image name none (the `nonroot` of the field's base images).
pub const NOBODY: u32 = 65_532;
/// Where a container finds its secrets.
pub const SECRETS_TARGET: &str = "/run/secrets";
/// Limits of a specification that sets none: 256 MiB, 256 processes.
const MEMORY_DEFAULT: u64 = 256 << 20;
const PIDS_DEFAULT: u32 = 256;
/// Bound of `/tmp`, `/run` and `/dev/shm` each; what is in them counts against the memory limit.
const TMPFS_BYTES: u64 = 64 << 20;
/// A core dump would put a workload's memory, secrets included, on the disk. Not 0: for a dump that is piped to a
/// handler the kernel ignores 0, but takes 1 for "not at all" (fs/coredump.c).
const CORE_BYTES: u64 = 1;
/// Open files: what programs start with, and what they may raise it to.
const OPEN_FILES: u64 = 1024;
const OPEN_FILES_MAX: u64 = 65_536;
/// Scheduling period, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// What a cgroup's CPU shares are a thousandth of a CPU of.
const SHARES_PER_CPU: u64 = 1024;

/// What is known of a task beside its specification.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The container's name; its host name too.
    pub id: &'a str,
    /// The unpacked image, an absolute path.
    pub rootfs: &'a Path,
    /// The image's own configuration.
    pub image: &'a ImageConfig,
    /// The numeric uid and gid of the image's `User`, resolved in the image; `None` if it names none.
    pub image_user: Option<(u32, u32)>,
    /// The task's secret tmpfs on the host, if it has secrets.
    pub secrets: Option<&'a Path>,
    /// Environment from the grant (parameters); wins over image and specification.
    pub env: &'a [(String, String)],
    /// The machine.
    pub host: &'a Host,
}

/// Why a specification cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Neither specification nor image says what to run.
    #[error("nothing to run: the image has no entrypoint or command; set `command` in the service")]
    NoCommand,
    /// More was asked for than this agent gives.
    #[error("isolation {0:?} is not offered by this node: use \"default\"")]
    Isolation(String),
    /// A path inside the container is not absolute and plain.
    #[error("{what} {path:?} must be an absolute path without '..', and no system directory")]
    Path {
        /// Which setting.
        what: &'static str,
        /// As given.
        path: String,
    },
    /// A variable's name is not one.
    #[error("environment variable name {0:?} is empty or holds '=' or a zero byte")]
    Env(String),
    /// A limit is larger than the kernel can count.
    #[error("the limit on {0} is too large")]
    Limit(&'static str),
    /// The specification library refused its input.
    #[error("the runtime specification could not be put together: {0}")]
    Oci(#[from] OciSpecError),
}

/// The uid and gid that the task runs as: the specification's, else the image's, never 0.
pub fn user(spec: &v1::Spec, image_user: Option<(u32, u32)>) -> (u32, u32) {
    match (spec.user, image_user) {
        (0, Some((uid, gid))) if uid != 0 => (uid, if gid == 0 { uid } else { gid }),
        (0, _) => (NOBODY, NOBODY),
        (user, _) => (user, user),
    }
}

/// Puts the specification together.
pub fn build(spec: &v1::Spec, facts: &Facts<'_>) -> Result<oci::Spec, SpecError> {
    if !matches!(spec.isolation.as_str(), "" | "default") {
        return Err(SpecError::Isolation(spec.isolation.clone()));
    }
    let root = oci::RootBuilder::default().path(facts.rootfs).readonly(true).build()?;
    let mut built = oci::Spec::default();
    built
        .set_version("1.0.2".to_owned())
        .set_hostname(Some(facts.id.replace('.', "-").chars().take(63).collect()))
        .set_root(Some(root))
        .set_process(Some(process(spec, facts)?))
        .set_mounts(Some(mounts(spec, facts)?))
        .set_annotations(None)
        .set_linux(Some(linux(spec, facts)?));
    Ok(built)
}

fn process(spec: &v1::Spec, facts: &Facts<'_>) -> Result<oci::Process, SpecError> {
    let (uid, gid) = user(spec, facts.image_user);
    let image_dir = facts.image.working_dir().as_deref().filter(|d| !d.is_empty());
    let cwd = if spec.workdir.is_empty() { image_dir.unwrap_or("/") } else { &spec.workdir };
    let no_capabilities = oci::LinuxCapabilitiesBuilder::default()
        .bounding(oci::Capabilities::default())
        .effective(oci::Capabilities::default())
        .inheritable(oci::Capabilities::default())
        .permitted(oci::Capabilities::default())
        .ambient(oci::Capabilities::default())
        .build()?;
    let built = oci::ProcessBuilder::default()
        .terminal(false)
        .user(oci::UserBuilder::default().uid(uid).gid(gid).umask(0o022_u32).build()?)
        .args(command(spec, facts.image)?)
        .env(environment(spec, facts)?)
        .cwd(plain_path("workdir", cwd)?)
        .capabilities(no_capabilities)
        .no_new_privileges(true)
        .rlimits(vec![
            rlimit(oci::PosixRlimitType::RlimitCore, CORE_BYTES, CORE_BYTES, facts.host.core_max)?,
            rlimit(oci::PosixRlimitType::RlimitNofile, OPEN_FILES, OPEN_FILES_MAX, facts.host.open_files_max)?,
        ])
        .build()?;
    Ok(built)
}

/// A limit of `soft` and `hard`, as far as the machine gives it.
fn rlimit(typ: oci::PosixRlimitType, soft: u64, hard: u64, most: u64) -> Result<oci::PosixRlimit, OciSpecError> {
    oci::PosixRlimitBuilder::default().typ(typ).soft(soft.min(most)).hard(hard.min(most)).build()
}

/// As in the field: `command` replaces the entrypoint and the image's arguments, `args` only the latter.
fn command(spec: &v1::Spec, image: &ImageConfig) -> Result<Vec<String>, SpecError> {
    let entrypoint = image.entrypoint().clone().unwrap_or_default();
    let arguments = image.cmd().clone().unwrap_or_default();
    let mut all = match (spec.command.is_empty(), spec.args.is_empty()) {
        (true, true) => [entrypoint, arguments].concat(),
        (true, false) => [entrypoint, spec.args.clone()].concat(),
        (false, _) => [spec.command.clone(), spec.args.clone()].concat(),
    };
    all.retain(|a| !a.contains('\0'));
    if all.first().is_none_or(String::is_empty) { Err(SpecError::NoCommand) } else { Ok(all) }
}

/// One value a name; the later source wins. Sorted, so that equal inputs give equal bytes.
fn environment(spec: &v1::Spec, facts: &Facts<'_>) -> Result<Vec<String>, SpecError> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env = BTreeMap::from([("PATH", path)]);
    let of_image = facts.image.env().as_deref().unwrap_or_default();
    env.extend(of_image.iter().filter_map(|e| e.split_once('=')));
    env.extend(spec.env.iter().map(|e| (e.name.as_str(), e.value.as_str())));
    env.extend(facts.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let good = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
    env.into_iter()
        .map(|(name, value)| match good(name) && !value.contains('\0') {
            true => Ok(format!("{name}={value}")),
            false => Err(SpecError::Env(name.to_owned())),
        })
        .collect()
}

fn mount(target: &str, kind: &str, source: &Path, options: &[&str]) -> Result<oci::Mount, SpecError> {
    let options: Vec<String> = options.iter().map(|&o| o.to_owned()).collect();
    Ok(oci::MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()?)
}

/// Owned by the task's user: `runc` gives a tmpfs the mode of the directory below it, whatever `mode=` says.
fn tmpfs(target: &str, mode: &str, (uid, gid): (u32, u32), bytes: u64) -> Result<oci::Mount, SpecError> {
    let own = [format!("uid={uid}"), format!("gid={gid}"), format!("size={bytes}")];
    let [uid, gid, size] = own.each_ref().map(String::as_str);
    mount(target, "tmpfs", Path::new("tmpfs"), &["nosuid", "nodev", "noexec", mode, uid, gid, size])
}

fn mounts(spec: &v1::Spec, facts: &Facts<'_>) -> Result<Vec<oci::Mount>, SpecError> {
    let owner = user(spec, facts.image_user);
    let none = Path::new("none");
    let device_options = ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"];
    let terminal_options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let mut all = vec![
        mount("/proc", "proc", none, &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", none, &device_options)?,
        mount("/dev/pts", "devpts", none, &terminal_options)?,
        tmpfs("/dev/shm", "mode=1777", owner, TMPFS_BYTES)?,
        mount("/dev/mqueue", "mqueue", none, &["nosuid", "noexec", "nodev"])?,
        mount("/sys", "sysfs", none, &["nosuid", "noexec", "nodev", "ro"])?,
        tmpfs("/tmp", "mode=1777", owner, TMPFS_BYTES)?,
        // Also keeps the secrets' mount point out of the image, which is shared and never written to.
        tmpfs("/run", "mode=0755", owner, TMPFS_BYTES)?,
    ];
    for wanted in &spec.tmpfs {
        let target = plain_path("tmpfs target", &wanted.target)?;
        all.retain(|m| m.destination() != &target);
        let bytes = if wanted.size_bytes == 0 { TMPFS_BYTES } else { wanted.size_bytes };
        all.push(tmpfs(&wanted.target, "mode=1777", owner, bytes)?);
    }
    if let Some(secrets) = facts.secrets {
        let options = ["bind", "ro", "nosuid", "nodev", "noexec", "private"];
        all.push(mount(SECRETS_TARGET, "bind", secrets, &options)?);
    }
    Ok(all)
}

fn linux(spec: &v1::Spec, facts: &Facts<'_>) -> Result<oci::Linux, SpecError> {
    use oci::LinuxNamespaceType as Ns;
    let own = [Ns::Pid, Ns::Network, Ns::Mount, Ns::Uts, Ns::Ipc, Ns::Cgroup];
    let namespaces = own.map(|typ| oci::LinuxNamespaceBuilder::default().typ(typ).build());
    let paths = |list: &[&str]| list.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
    let built = oci::LinuxBuilder::default()
        .namespaces(namespaces.into_iter().collect::<Result<Vec<_>, _>>()?)
        .cgroups_path(facts.host.cgroup_parent.join(facts.id))
        .resources(resources(spec, facts)?)
        .rootfs_propagation("private")
        .seccomp(seccomp::profile()?)
        .masked_paths(paths(&MASKED))
        .readonly_paths(paths(&READ_ONLY))
        .build()?;
    Ok(built)
}

/// What tells about the machine or its other tenants.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What would change the machine.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn resources(spec: &v1::Spec, facts: &Facts<'_>) -> Result<oci::LinuxResources, SpecError> {
    let wanted = spec.resources.unwrap_or_default();
    let or = |value: u64, default: u64| if value == 0 { default } else { value };
    let bytes = or(wanted.memory_bytes, MEMORY_DEFAULT);
    let bytes = i64::try_from(bytes).map_err(|_| SpecError::Limit("memory"))?;
    let mut memory = oci::LinuxMemoryBuilder::default().limit(bytes);
    if facts.host.swap_accounting {
        // Memory and swap together: no swap, so that what is secret in memory stays there.
        memory = memory.swap(bytes);
    }
    let pids = i64::from(if wanted.pids == 0 { PIDS_DEFAULT } else { wanted.pids });
    let mut all = oci::LinuxResourcesBuilder::default()
        .devices(vec![oci::LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?])
        .memory(memory.build()?)
        .pids(oci::LinuxPidsBuilder::default().limit(pids).build()?);
    if wanted.cpu_milli > 0 {
        let milli = u64::from(wanted.cpu_milli);
        let quota = i64::try_from(milli.saturating_mul(CPU_PERIOD_US / 1000)).map_err(|_| SpecError::Limit("cpu"))?;
        // The kernel takes no less: 1 ms of quota, 2 shares.
        let cpu = oci::LinuxCpuBuilder::default()
            .period(CPU_PERIOD_US)
            .quota(quota.max(1000))
            .shares((milli.saturating_mul(SHARES_PER_CPU) / 1000).max(2));
        all = all.cpu(cpu.build()?);
    }
    Ok(all.build()?)
}

/// Absolute, without `.` and `..`, and not a place that the runtime itself fills.
fn plain_path(what: &'static str, path: &str) -> Result<PathBuf, SpecError> {
    let bad = || SpecError::Path { what, path: path.to_owned() };
    let parsed = Path::new(path);
    let mut parts = parsed.components();
    let plain = parts.next() == Some(Component::RootDir) && parts.all(|c| matches!(c, Component::Normal(_)));
    let system = ["/proc", "/sys", "/dev", SECRETS_TARGET];
    let is_system = what != "workdir" && (path == "/" || system.iter().any(|s| parsed.starts_with(s)));
    if plain && !is_system && !path.contains('\0') { Ok(parsed.to_owned()) } else { Err(bad()) }
}
