//! The orchestrator's configuration: TOML, unknown keys refused, all faults told together. Nothing in it is a secret.

use crate::scheduler::Settings;
use holdfast_transport::daemon::{ConfigError, LogFormat, is_dialable, load_toml};
use holdfast_types::parse_duration;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Keys that `HOLDFAST_…` variables may replace.
const OVERRIDABLE: [&str; 7] = ["state_dir", "listen", "advertise", "health", "vault", "log_format", "node_lost_after"];

/// What a file may say.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    state_dir: PathBuf,
    listen: String,
    advertise: Option<String>,
    health: String,
    vault: Vec<String>,
    vault_service: Vec<String>,
    node_lost_after: String,
    stop_timeout: String,
    log_format: LogFormat,
}
impl Default for RawConfig {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/holdfast-orchestrator".into(),
            listen: "0.0.0.0:7410".into(),
            advertise: None,
            health: "127.0.0.1:7413".into(),
            vault: Vec::new(),
            vault_service: Vec::new(),
            node_lost_after: "30s".into(),
            stop_timeout: "10s".into(),
            log_format: LogFormat::default(),
        }
    }
}

/// A configuration without faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Our key, our chain and the cluster's documents.
    pub state_dir: PathBuf,
    /// Where nodes and operators dial in; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How others reach that listener; `None`: as it was bound.
    pub advertise: Option<String>,
    /// The health listener: a loopback address; port 0 takes a free one.
    pub health: SocketAddr,
    /// Addresses of the vault's join listeners, for the first start.
    pub vault: Vec<String>,
    /// Addresses of the vault's service listeners, beside those that the vault tells.
    pub vault_service: Vec<String>,
    /// How the scheduler behaves.
    pub settings: Settings,
    /// How events are written.
    pub log_format: LogFormat,
}

/// Reads and checks the file `path`, or the defaults, with the environment `env` over it; all faults are told together.
pub fn load(path: Option<&Path>, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let raw = match path {
        Some(path) => load_toml(path, &OVERRIDABLE, env)?,
        None => RawConfig::default(),
    };
    let path = path.unwrap_or(Path::new("without --config")).to_owned();
    check(raw).map_err(|faults| ConfigError::Values { path, faults })
}

fn check(raw: RawConfig) -> Result<Config, Vec<String>> {
    let mut faults = Vec::new();
    if !raw.state_dir.is_absolute() {
        faults.push("state_dir must be an absolute path".to_owned());
    }
    let listen = address("listen", &raw.listen, &mut faults);
    let health = address("health", &raw.health, &mut faults);
    if health.is_some_and(|a| !a.ip().is_loopback()) {
        faults.push(format!("health: {} is not a loopback address", raw.health));
    }
    let everywhere = listen.is_some_and(|a| a.ip().is_unspecified());
    match &raw.advertise {
        None if everywhere => faults.push("listen is every address, so advertise must say which one nodes dial".into()),
        Some(a) if !is_dialable(a) => faults.push(format!("advertise: {a:?} is not host:port")),
        None | Some(_) => {}
    }
    for (key, addrs) in [("vault", &raw.vault), ("vault_service", &raw.vault_service)] {
        faults.extend(addrs.iter().filter(|a| !is_dialable(a)).map(|a| format!("{key}: {a:?} is not host:port")));
    }
    let node_lost_after = duration("node_lost_after", &raw.node_lost_after, &mut faults);
    let stop_timeout = duration("stop_timeout", &raw.stop_timeout, &mut faults);
    match (listen, health, node_lost_after, stop_timeout) {
        (Some(listen), Some(health), Some(node_lost_after), Some(stop_timeout)) if faults.is_empty() => Ok(Config {
            state_dir: raw.state_dir,
            listen,
            advertise: raw.advertise,
            health,
            vault: raw.vault,
            vault_service: raw.vault_service,
            settings: Settings { node_lost_after, stop_timeout },
            log_format: raw.log_format,
        }),
        _ => Err(faults),
    }
}

fn address(key: &str, text: &str, faults: &mut Vec<String>) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        faults.push(format!("{key}: {text:?} is not address:port"));
    }
    parsed
}

fn duration(key: &str, text: &str, faults: &mut Vec<String>) -> Option<Duration> {
    match parse_duration(text) {
        Ok(d) if d >= Duration::from_millis(100) => Some(d),
        Ok(_) => {
            faults.push(format!("{key} is too short: at least 100ms"));
            None
        }
        Err(e) => {
            faults.push(format!("{key}: {e}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orchestrator.toml");
        std::fs::write(&path, text).unwrap();
        load(Some(&path), |_| None).map_err(|e| e.to_string())
    }

    #[test]
    fn a_listener_on_every_address_needs_one_to_advertise() {
        assert!(loaded("").unwrap_err().contains("advertise"));
        let c = loaded("advertise = \"orch.example:7410\"").unwrap();
        assert_eq!((c.listen.port(), c.health.port()), (7410, 7413));
        assert_eq!(c.settings.node_lost_after, Duration::from_secs(30));
        assert!(loaded("listen = \"127.0.0.1:0\"").is_ok());
    }

    #[test]
    fn all_faults_are_told_together() {
        let error = loaded(
            "state_dir = \"x\"\nlisten = \"here\"\nhealth = \"0.0.0.0:1\"\nadvertise = \"nowhere\"\nvault = [\"a:0\"]\n\
             node_lost_after = \"1ms\"\nstop_timeout = \"soon\"\n",
        )
        .unwrap_err();
        for part in ["state_dir", "listen:", "loopback", "advertise:", "\"a:0\"", "node_lost_after", "stop_timeout"] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(loaded("advertize = \"a:1\"").unwrap_err().contains("advertize"));
    }
}
