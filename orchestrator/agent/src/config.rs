//! The agent's configuration: TOML, unknown keys refused, all faults told together. Nothing in it is a secret.

use holdfast_image::{is_registry, read_roots};
use holdfast_transport::daemon::{ConfigError, LogFormat, is_dialable, load_toml};
use holdfast_types::parse_size;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Keys that `HOLDFAST_…` variables may replace.
const OVERRIDABLE: [&str; 9] = [
    "state_dir",
    "runtime_dir",
    "vault",
    "vault_service",
    "health",
    "runtime",
    "log_format",
    "capacity.cpu",
    "capacity.memory",
];

/// Which container runtime makes new containers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// The one inside this program.
    #[default]
    Embedded,
    /// `runc`, found in `PATH`.
    Runc,
}

/// What a file may say.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    state_dir: PathBuf,
    runtime_dir: PathBuf,
    vault: Vec<String>,
    vault_service: Vec<String>,
    health: String,
    runtime: RuntimeKind,
    capacity: RawCapacity,
    insecure_registries: Vec<String>,
    registry_roots: Vec<PathBuf>,
    log_format: LogFormat,
    cgroup: PathBuf,
    log_size: String,
    allow_swap: bool,
}
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCapacity {
    cpu: Option<String>,
    memory: Option<String>,
}
impl Default for RawConfig {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/holdfast-agent".into(),
            runtime_dir: "/run/holdfast-agent".into(),
            vault: Vec::new(),
            vault_service: Vec::new(),
            health: "127.0.0.1:7423".into(),
            runtime: RuntimeKind::default(),
            capacity: RawCapacity::default(),
            insecure_registries: Vec::new(),
            registry_roots: Vec::new(),
            log_format: LogFormat::default(),
            cgroup: "/holdfast".into(),
            log_size: "10Mi".into(),
            allow_swap: false,
        }
    }
}

/// What this machine offers to tasks; 0: as much as it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capacity {
    /// Thousandths of a processor.
    pub cpu_milli: u32,
    /// Bytes.
    pub memory_bytes: u64,
}

/// A configuration without faults.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// What outlives a reboot.
    pub state_dir: PathBuf,
    /// What must not; on a tmpfs.
    pub runtime_dir: PathBuf,
    /// Addresses of the vault's join listeners, for the first start; the command line's come first.
    pub vault: Vec<String>,
    /// Addresses of the vault's service listeners, beside those that the vault tells.
    pub vault_service: Vec<String>,
    /// The health listener: a loopback address; port 0 takes a free one.
    pub health: SocketAddr,
    /// The container runtime.
    pub runtime: RuntimeKind,
    /// What tasks may use.
    pub capacity: Capacity,
    /// Registries, `host[:port]`, that are spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// Roots of trust for registries, DER, beside the system's.
    pub registry_roots: Vec<Vec<u8>>,
    /// How events are written.
    pub log_format: LogFormat,
    /// The cgroup above all containers.
    pub cgroup: PathBuf,
    /// Bound of each of a container's two log files, in bytes.
    pub log_bytes: u64,
    /// Start although keys and secrets could be swapped out in clear.
    pub allow_swap: bool,
}

/// Reads and checks the file `path`, with the environment `env` over it; all faults are told together.
pub fn load(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let raw: RawConfig = load_toml(path, &OVERRIDABLE, env)?;
    check(raw).map_err(|faults| ConfigError::Values { path: path.to_owned(), faults })
}

/// What there is without a file.
pub fn defaults() -> Result<Config, ConfigError> {
    check(RawConfig::default()).map_err(|faults| ConfigError::Values { path: "without --config".into(), faults })
}

fn check(raw: RawConfig) -> Result<Config, Vec<String>> {
    let mut faults = Vec::new();
    for (key, path) in [("state_dir", &raw.state_dir), ("runtime_dir", &raw.runtime_dir), ("cgroup", &raw.cgroup)] {
        if !path.is_absolute() {
            faults.push(format!("{key} must be an absolute path"));
        }
    }
    if raw.state_dir == raw.runtime_dir {
        faults.push(
            "state_dir and runtime_dir must be two directories: one outlives a reboot, the other must not".into(),
        );
    }
    for (key, addrs) in [("vault", &raw.vault), ("vault_service", &raw.vault_service)] {
        faults.extend(addrs.iter().filter(|a| !is_dialable(a)).map(|a| format!("{key}: {a:?} is not host:port")));
    }
    for registry in &raw.insecure_registries {
        if !is_registry(registry) {
            faults.push(format!("insecure_registries: {registry:?} is not host or host:port"));
        }
    }
    let registry_roots = roots(&raw.registry_roots, &mut faults);
    let health = raw.health.parse::<SocketAddr>();
    match &health {
        Err(_) => faults.push(format!("health: {:?} is not address:port", raw.health)),
        Ok(addr) if !addr.ip().is_loopback() => faults.push(format!("health: {addr} is not a loopback address")),
        Ok(_) => {}
    }
    let mut told = |key: &str, e: &dyn std::fmt::Display| faults.push(format!("{key}: {e}"));
    let cpu = raw.capacity.cpu.as_deref().map(parse_cpu).transpose().map_err(|e| told("capacity.cpu", &e));
    let memory = raw.capacity.memory.as_deref().map(parse_size).transpose().map_err(|e| told("capacity.memory", &e));
    let log = parse_size(&raw.log_size).map_err(|e| told("log_size", &e));
    if log.as_ref().is_ok_and(|n| *n < 1 << 16) {
        told("log_size", &"at least 64Ki");
    }
    match (health, cpu, memory, log) {
        (Ok(health), Ok(cpu), Ok(memory), Ok(log_bytes)) if faults.is_empty() => Ok(Config {
            state_dir: raw.state_dir,
            runtime_dir: raw.runtime_dir,
            vault: raw.vault,
            vault_service: raw.vault_service,
            health,
            runtime: raw.runtime,
            capacity: Capacity { cpu_milli: cpu.unwrap_or_default(), memory_bytes: memory.unwrap_or_default() },
            insecure_registries: raw.insecure_registries,
            registry_roots,
            log_format: raw.log_format,
            cgroup: raw.cgroup,
            log_bytes,
            allow_swap: raw.allow_swap,
        }),
        _ => Err(faults),
    }
}

/// The certificates in all `files`; a fault for each file that gives none.
fn roots(files: &[PathBuf], faults: &mut Vec<String>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for file in files {
        if !file.is_absolute() {
            faults.push(format!("registry_roots: {} must be an absolute path", file.display()));
            continue;
        }
        match read_roots(file) {
            Ok(roots) => all.extend(roots),
            Err(e) => faults.push(format!("registry_roots: {e}")),
        }
    }
    all
}

/// `2`, `1.5` processors or `250m`, thousandths of one; at least one thousandth.
fn parse_cpu(s: &str) -> Result<u32, String> {
    let bad = || format!("{s:?} is not a number of processors: write 2, 1.5 or 250m");
    let milli = match s.strip_suffix('m') {
        Some(milli) => milli.parse::<u32>().map_err(|_| bad())?,
        None => {
            let (whole, part) = s.split_once('.').unwrap_or((s, ""));
            let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
            if part.len() > 3 || !digits(whole) || !digits(part) {
                return Err(bad());
            }
            let thousandths = format!("{part:0<3}").parse::<u32>().map_err(|_| bad())?;
            let whole = whole.parse::<u32>().map_err(|_| bad())?;
            whole.checked_mul(1000).and_then(|w| w.checked_add(thousandths)).ok_or_else(bad)?
        }
    };
    if milli == 0 { Err(bad()) } else { Ok(milli) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        load(&path, env).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default_configuration() {
        let c = loaded("", &[]).unwrap();
        assert_eq!(c, defaults().unwrap());
        assert_eq!((c.health.port(), c.runtime, c.capacity), (7423, RuntimeKind::Embedded, Capacity::default()));
        assert!(!c.allow_swap);
        assert_eq!(c.state_dir, Path::new("/var/lib/holdfast-agent"));
    }

    #[test]
    fn every_key_is_taken() {
        let c = loaded(
            "state_dir = \"/s\"\nruntime_dir = \"/r\"\nvault = [\"a:1\", \"[::1]:2\"]\nvault_service = [\"b.c:3\"]\n\
             health = \"[::1]:0\"\nruntime = \"runc\"\ninsecure_registries = [\"r.local:5000\"]\nlog_format = \"json\"\n\
             cgroup = \"/x\"\nlog_size = \"1Mi\"\nallow_swap = true\ncapacity = { cpu = \"1.5\", memory = \"2Gi\" }\n",
            &[("HOLDFAST_CAPACITY_CPU", "250m"), ("HOLDFAST_RUNTIME_DIR", "/run/x")],
        );
        let c = c.unwrap();
        assert_eq!(c.capacity, Capacity { cpu_milli: 250, memory_bytes: 2 << 30 });
        assert_eq!((c.runtime, c.log_format, c.log_bytes), (RuntimeKind::Runc, LogFormat::Json, 1 << 20));
        assert_eq!((c.runtime_dir, c.vault.len(), c.allow_swap), (PathBuf::from("/run/x"), 2, true));
    }

    #[test]
    fn all_faults_are_told_together() {
        let error = loaded(
            "state_dir = \"s\"\nruntime_dir = \"s\"\nvault = [\"nohost\", \"a:0\", \"::1:5\"]\nhealth = \"0.0.0.0:1\"\n\
             insecure_registries = [\"https://r\"]\nlog_size = \"1\"\ncapacity = { cpu = \"many\", memory = \"1X\" }\n",
            &[],
        );
        let error = error.unwrap_err();
        for fault in [
            "state_dir must be an absolute path",
            "runtime_dir must be an absolute path",
            "must be two directories",
            "\"nohost\" is not host:port",
            "\"a:0\" is not host:port",
            "\"::1:5\" is not host:port",
            "not a loopback address",
            "\"https://r\" is not host",
            "capacity.cpu: \"many\"",
            "capacity.memory: \"1X\"",
            "log_size: at least 64Ki",
        ] {
            assert!(error.contains(fault), "{fault:?} is not in {error}");
        }
    }

    #[test]
    fn roots_for_registries_are_certificates_in_files_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text.pem");
        std::fs::write(&text, "no certificate\n").unwrap();
        let error = loaded(&format!("registry_roots = [\"r.pem\", \"/nowhere/r.pem\", {text:?}]\n"), &[]).unwrap_err();
        for fault in [
            "registry_roots: r.pem must be an absolute path",
            "registry_roots: /nowhere/r.pem: No such file",
            "text.pem: holds no certificate in PEM",
        ] {
            assert!(error.contains(fault), "{fault:?} is not in {error}");
        }
        assert!(loaded("registry_roots = []\n", &[]).unwrap().registry_roots.is_empty());
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(loaded("vaults = []\n", &[]).unwrap_err().contains("vaults"));
        assert!(loaded("capacity = { cpus = \"1\" }\n", &[]).unwrap_err().contains("cpus"));
    }

    #[test]
    fn processors_are_whole_fractions_or_thousandths() {
        for (text, milli) in [("2", 2000), ("1.5", 1500), ("0.25", 250), ("250m", 250)] {
            assert_eq!(parse_cpu(text), Ok(milli));
        }
        for bad in ["", "0", "0m", "-1", "1.2345", "1,5", "x", "99999999999"] {
            assert!(parse_cpu(bad).is_err(), "{bad:?}");
        }
    }
}
