//! A service as its owner writes it: the TOML of `docs/reference/service.md`, key by key, nothing checked yet.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawService {
    pub name: String,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    pub image: String,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default = "one")]
    pub replicas: u32,
    #[serde(default)]
    pub secrets: Vec<RawSecret>,
    #[serde(default)]
    pub zones: Vec<String>,
    #[serde(default)]
    pub node_labels: Vec<String>,
    pub ports: Option<Vec<RawPort>>,
    pub resources: Option<RawResources>,
    pub health: Option<RawHealth>,
    pub update: Option<RawUpdate>,
    #[serde(default)]
    pub tmpfs: Vec<RawTmpfs>,
    #[serde(default)]
    pub user: u32,
    #[serde(default)]
    pub workdir: String,
    pub restart: Option<String>,
    pub isolation: Option<String>,
    pub on_expiry: Option<String>,
    #[serde(default)]
    pub exclusive: bool,
    #[serde(default)]
    pub protected: bool,
    #[serde(default)]
    pub sensitive: bool,
    pub valid_for: Option<String>,
}

/// One entry of `secrets`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSecret {
    pub name: String,
    pub target: Option<String>,
    #[serde(default = "owner_reads")]
    pub mode: u32,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// One entry of `ports`; read so that the error can name the port.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPort {
    pub name: String,
    #[expect(dead_code, reason = "part of the file's format; ports are refused as a whole for now")]
    pub container: u16,
    #[expect(dead_code, reason = "part of the file's format; ports are refused as a whole for now")]
    pub publish: Option<u16>,
}

/// `resources`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawResources {
    pub cpu: Option<String>,
    pub memory: Option<String>,
    pub pids: Option<u32>,
}

/// `health`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHealth {
    pub command: Vec<String>,
    pub interval: Option<String>,
    pub retries: Option<u32>,
}

/// `update`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawUpdate {
    pub parallelism: Option<u32>,
    pub order: Option<String>,
    pub on_failure: Option<String>,
    pub monitor: Option<String>,
}

/// One entry of `tmpfs`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTmpfs {
    pub target: String,
    pub size: String,
}

fn default_namespace() -> String {
    "default".to_owned()
}
fn one() -> u32 {
    1
}
fn owner_reads() -> u32 {
    0o400
}
