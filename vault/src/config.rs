//! Configuration: a raw TOML struct that denies unknown keys, checked into one that can be relied on. All faults at once.

use holdfast_transport::daemon::{ConfigError, load_toml};
use holdfast_types::parse_duration;
use holdfast_vault_core::REJOIN_MOST;
use holdfast_vault_core::prepare::Lives;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod hsm;

pub use hsm::{Hsm, PinSource};

/// Keys that `HOLDFAST_…` variables may override.
const OVERRIDABLE: &[&str] = &[
    "state_dir",
    "socket",
    "listen.join",
    "listen.service",
    "listen.peer",
    "listen.health",
    "advertise.join",
    "advertise.service",
    "advertise.peer",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    state_dir: PathBuf,
    socket: PathBuf,
    #[serde(default)]
    listen: RawListen,
    #[serde(default)]
    advertise: RawAdvertise,
    #[serde(default)]
    lives: RawLives,
    #[serde(default)]
    certificates: RawCertificates,
    #[serde(default)]
    allow_swap: bool,
    #[serde(default = "yes")]
    harden: bool,
    #[serde(default = "snapshot_every")]
    snapshot_every: u64,
    hsm: Option<hsm::RawHsm>,
}
fn yes() -> bool {
    true
}
fn snapshot_every() -> u64 {
    10_000
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    join: Option<String>,
    service: Option<String>,
    peer: Option<String>,
    health: Option<String>,
}
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdvertise {
    join: Option<String>,
    service: Option<String>,
    peer: Option<String>,
}
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLives {
    node: Option<String>,
    orchestrator: Option<String>,
    voter: Option<String>,
    operator: Option<String>,
    issuer: Option<String>,
    lease: Option<String>,
    start_before: Option<String>,
    grant: Option<String>,
    exclusive: Option<String>,
    grace: Option<String>,
    status: Option<String>,
    status_every: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCertificates {
    #[serde(rename = "rejoin-window")]
    rejoin_window: Option<String>,
}

/// A configuration without faults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where this voter's disk is.
    pub state_dir: PathBuf,
    /// The unix socket U.
    pub socket: PathBuf,
    /// Listener J.
    pub join: SocketAddr,
    /// Listener S.
    pub service: SocketAddr,
    /// Listener P.
    pub peer: SocketAddr,
    /// Health and metrics; loopback only.
    pub health: SocketAddr,
    /// Address of J as others reach it; `None` = as bound.
    pub advertise_join: Option<String>,
    /// Address of S as others reach it; `None` = as bound.
    pub advertise_service: Option<String>,
    /// Address of P as the other voters reach it; `None` = as bound.
    pub advertise_peer: Option<String>,
    /// Lifetimes.
    pub lives: Lives,
    /// How often a Status is signed.
    pub status_every: Duration,
    /// Start although swap is not encrypted, or no memory can be locked.
    pub allow_swap: bool,
    /// Give up rights at start (landlock, seccomp). Off only where the kernel lacks them.
    pub harden: bool,
    /// Raft entries between snapshots.
    pub snapshot_every: u64,
    /// The token that this voter uses, if it has one.
    pub hsm: Option<Hsm>,
}

/// Reads and checks the configuration at `path`; all faults are told together.
pub fn load(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    check(load_toml(path, OVERRIDABLE, env)?).map_err(|faults| ConfigError::Values { path: path.to_owned(), faults })
}

fn check(raw: Raw) -> Result<Config, Vec<String>> {
    let mut faults = Vec::new();
    let mut addr = |key: &str, given: &Option<String>, default: &str| {
        let text = given.as_deref().unwrap_or(default);
        text.parse().unwrap_or_else(|_| {
            faults.push(format!("listen.{key} = {text:?} is not an address such as 0.0.0.0:7401"));
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    };
    let join = addr("join", &raw.listen.join, "0.0.0.0:7400");
    let service = addr("service", &raw.listen.service, "0.0.0.0:7401");
    let peer = addr("peer", &raw.listen.peer, "0.0.0.0:7402");
    let health = addr("health", &raw.listen.health, "127.0.0.1:7403");
    if !health.ip().is_loopback() {
        faults.push("listen.health must be a loopback address".to_owned());
    }
    for (key, dir) in [("state_dir", &raw.state_dir), ("socket", &raw.socket)] {
        if !dir.is_absolute() {
            faults.push(format!("{key} must be an absolute path"));
        }
    }
    if raw.snapshot_every < 100 {
        faults.push("snapshot_every must be at least 100".to_owned());
    }
    for (key, given, bound) in [("join", &raw.advertise.join, join), ("service", &raw.advertise.service, service)] {
        if given.is_none() && bound.ip().is_unspecified() {
            faults.push(format!("listen.{key} binds every address, so advertise.{key} must say which one others use"));
        }
    }
    let advertise_peer = raw.advertise.peer.or_else(|| beside(raw.advertise.service.as_deref(), peer));
    let (lives, status_every) = check_lives(&raw.lives, &raw.certificates, &mut faults);
    let hsm = raw.hsm.and_then(|raw| hsm::check(raw, &mut faults));
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Config {
        state_dir: raw.state_dir,
        socket: raw.socket,
        join,
        service,
        peer,
        health,
        advertise_join: raw.advertise.join,
        advertise_service: raw.advertise.service,
        advertise_peer,
        lives,
        status_every,
        allow_swap: raw.allow_swap,
        harden: raw.harden,
        snapshot_every: raw.snapshot_every,
        hsm,
    })
}

/// A listener for voters that binds every address is reached where listener S is, at its own port.
fn beside(service: Option<&str>, peer: SocketAddr) -> Option<String> {
    let (host, _) = service?.rsplit_once(':')?;
    (peer.ip().is_unspecified() && peer.port() != 0).then(|| format!("{host}:{}", peer.port()))
}

fn check_lives(raw: &RawLives, certificates: &RawCertificates, faults: &mut Vec<String>) -> (Lives, Duration) {
    let d = Lives::default();
    let (m, h, day) = (Duration::from_secs(60), Duration::from_secs(3600), Duration::from_secs(86_400));
    // The last column is the most it may be: what lives longer than that is no longer taken back by waiting.
    let mut life = |key: &str, given: &Option<String>, default: Duration, most: Duration| {
        let fault = match given.as_deref().map(parse_duration) {
            None => return default,
            Some(Ok(v)) if v < Duration::from_millis(100) => format!("{key} is too short"),
            Some(Ok(v)) if v > most => format!("{key} is too long: {} s at most", most.as_secs()),
            Some(Ok(v)) => return v,
            Some(Err(e)) => format!("{key}: {e}"),
        };
        faults.push(fault);
        default
    };
    let every = life("lives.status_every", &raw.status_every, Duration::from_secs(15), 5 * m);
    let rejoin = life("certificates.rejoin-window", &certificates.rejoin_window, d.rejoin, REJOIN_MOST);
    let mut life = |key: &str, given: &Option<String>, default: Duration, most: Duration| {
        life(&format!("lives.{key}"), given, default, most)
    };
    let lives = Lives {
        node: life("node", &raw.node, d.node, 30 * day),
        orch: life("orchestrator", &raw.orchestrator, d.orch, 30 * day),
        voter: life("voter", &raw.voter, d.voter, 30 * day),
        operator: life("operator", &raw.operator, d.operator, day),
        issuer: life("issuer", &raw.issuer, d.issuer, 90 * day),
        lease: life("lease", &raw.lease, d.lease, 10 * m),
        start_before: life("start_before", &raw.start_before, d.start_before, h),
        grant: life("grant", &raw.grant, d.grant, 7 * day),
        exclusive: life("exclusive", &raw.exclusive, d.exclusive, h),
        grace: life("grace", &raw.grace, d.grace, 7 * day),
        status: life("status", &raw.status, d.status, 10 * m),
        rejoin,
    };
    (lives, every)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.toml");
        std::fs::write(&path, text).unwrap();
        load(&path, |_| None)
    }

    #[test]
    fn all_faults_are_reported_together() {
        let text = "state_dir = \"x\"\nsocket = \"/run/s\"\n[listen]\njoin = \"nowhere\"\nhealth = \"0.0.0.0:1\"\nservice=\"127.0.0.1:0\"\n[lives]\nnode = \"3 days\"\n";
        let Err(ConfigError::Values { faults, .. }) = load_text(text) else { panic!("accepted") };
        for part in ["state_dir", "listen.join", "listen.health", "lives.node"] {
            assert!(faults.iter().any(|f| f.contains(part)), "{part}: {faults:?}");
        }
    }

    #[test]
    fn no_life_is_too_short_or_longer_than_its_bound() {
        let with = |lives: &str| {
            let start = "state_dir = \"/x\"\nsocket = \"/s\"\n[advertise]\njoin = \"v:1\"\nservice = \"v:2\"\n";
            load_text(&format!("{start}[lives]\n{lives}\n"))
        };
        let window = |w: &str| with(&format!("[certificates]\nrejoin-window = \"{w}\""));
        assert_eq!(window("90d").unwrap().lives.rejoin, REJOIN_MOST);
        let Err(ConfigError::Values { faults, .. }) = window("91d") else { panic!("accepted") };
        assert!(faults.iter().any(|f| f.starts_with("certificates.rejoin-window is too long")), "{faults:?}");
        assert_eq!(with("").unwrap().lives.rejoin, Duration::from_secs(30 * 86_400));
        assert_eq!(with("lease = \"10m\"\noperator = \"24h\"").unwrap().lives.lease, Duration::from_secs(600));
        for bad in ["lease = \"11m\"", "operator = \"25h\"", "grant = \"8d\"", "grace = \"8d\"", "node = \"1ms\""] {
            let Err(ConfigError::Values { faults, .. }) = with(bad) else { panic!("{bad} was accepted") };
            assert_eq!(faults.len(), 1, "{faults:?}");
        }
    }

    #[test]
    fn a_status_is_signed_every_15_seconds_unless_said_otherwise() {
        let with = |lives: &str| {
            let start = "state_dir = \"/x\"\nsocket = \"/s\"\n[advertise]\njoin = \"v:1\"\nservice = \"v:2\"\n";
            load_text(&format!("{start}[lives]\n{lives}\n")).unwrap()
        };
        assert_eq!(with("").status_every, Duration::from_secs(15));
        // Every node hears several while one is valid.
        assert!(with("").lives.status >= 4 * with("").status_every);
        assert_eq!(with("status_every = \"2s\"").status_every, Duration::from_secs(2));
    }

    #[test]
    fn voters_are_reached_where_everybody_is_unless_said_otherwise() {
        let with = |more: &str| {
            let start = "state_dir = \"/x\"\nsocket = \"/s\"\n";
            load_text(&format!("{start}{more}")).unwrap().advertise_peer
        };
        let advertise = "[advertise]\njoin = \"v:1\"\nservice = \"v:2\"\n";
        assert_eq!(with(advertise).as_deref(), Some("v:7402"));
        assert_eq!(with(&format!("{advertise}peer = \"inner:9\"\n")).as_deref(), Some("inner:9"));
        let one = "[listen]\npeer = \"10.0.0.1:7402\"\n";
        assert_eq!(with(&format!("{one}{advertise}")), None, "as bound");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let e = load_text("state_dir = \"/x\"\nsocket = \"/s\"\nstate_dri = 1\n").unwrap_err().to_string();
        assert!(e.contains("state_dri"), "{e}");
    }
}
