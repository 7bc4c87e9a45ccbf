//! The little that is on disk: our TLS key with its chain (`identity/`), and which cluster we belong to (`cluster`).
//! Everything else is built again after each start.

use holdfast_transport::failure::Failure;
use holdfast_transport::files::{PRIVATE, replace};
use holdfast_transport::renew::FileStore;
use holdfast_wire::v1::Statement;
use prost::Message as _;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The cluster that we joined or apply to. STORED: `cluster`. Its documents prove themselves from the anchor on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClusterFile {
    /// What the join token pinned.
    #[prost(bytes = "vec", tag = "1")]
    pub anchor: Vec<u8>,
    /// Charters, the first version first.
    #[prost(message, repeated, tag = "2")]
    pub charters: Vec<Statement>,
    /// Bundles, the oldest first.
    #[prost(message, repeated, tag = "3")]
    pub bundles: Vec<Statement>,
    /// The vault's join listeners.
    #[prost(string, repeated, tag = "4")]
    pub join_addrs: Vec<String>,
    /// The vault's service listeners; empty until we have a certificate.
    #[prost(string, repeated, tag = "5")]
    pub service_addrs: Vec<String>,
    /// The id that we have, or shall have.
    #[prost(string, tag = "6")]
    pub id: String,
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Opens it; makes it (0700) if it is missing.
    pub fn open(root: &Path) -> Result<Self, Failure> {
        let state = Self(root.to_owned());
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root.join("identity"));
        made.map_err(|e| state.failed("create", &e))?;
        Ok(state)
    }
    /// Where the TLS key lies.
    pub fn identity(&self) -> FileStore {
        FileStore::new(&self.0.join("identity"))
    }
    /// The cluster; `None` before the first join.
    pub fn load(&self) -> Result<Option<ClusterFile>, Failure> {
        match std::fs::read(self.0.join("cluster")) {
            Ok(bytes) => ClusterFile::decode(bytes.as_slice()).map(Some).map_err(|e| self.failed("read", &e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("read", &e)),
        }
    }
    /// Keeps the cluster.
    pub fn save(&self, cluster: &ClusterFile) -> Result<(), Failure> {
        replace(&self.0.join("cluster"), &cluster.encode_to_vec(), PRIVATE).map_err(|e| self.failed("write", &e))
    }
    fn failed(&self, what: &str, e: &dyn std::fmt::Display) -> Failure {
        Failure::failed("disk", format!("cannot {what} the state in {}: {e}", self.0.display()))
            .help("check the path and its permissions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("new")).unwrap();
        assert_eq!(state.load().unwrap(), None);
        let cluster = ClusterFile { id: "orch-1".into(), anchor: vec![1; 32], ..ClusterFile::default() };
        state.save(&cluster).unwrap();
        assert_eq!(StateDir::open(&dir.path().join("new")).unwrap().load().unwrap(), Some(cluster));
        std::fs::write(dir.path().join("new/cluster"), b"\xff\xff").unwrap();
        assert!(state.load().is_err());
    }
}
