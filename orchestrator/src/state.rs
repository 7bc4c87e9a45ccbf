//! The little that is on disk: our TLS key with its chain (`identity/`), and which cluster we belong to (`cluster`).
//! Everything else is built again after each start. `lock`: one orchestrator a directory; two that use one key would put
//! each other into quarantine with their next renewals.

use holdfast_transport::failure::Failure;
use holdfast_transport::files::{Claim, PRIVATE, claim, replace};
use holdfast_transport::framed::{frame, unframe};
use holdfast_transport::renew::FileStore;
use holdfast_wire::strict;
use holdfast_wire::v1::Statement;
use prost::Message as _;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The cluster that we joined or apply to. Its documents prove themselves from the anchor on.
///
/// STORED: `cluster`, in the frame of `holdfast_transport::framed`; golden file `orchestrator/golden/cluster.hex`.
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

/// The state directory; for as long as this or a clone lives, no other orchestrator opens it.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
    _claim: Arc<Claim>,
}

impl StateDir {
    /// Opens it, makes it (0700) if it is missing, and takes the lock.
    pub fn open(root: &Path) -> Result<Self, Failure> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root.join("identity"));
        made.map_err(|e| failed(root, "create", &e))?;
        let claim = claim(&root.join("lock")).map_err(|e| failed(root, "lock", &e))?;
        let used = || {
            Failure::failed("state", format!("{} is in use by another orchestrator", root.display()))
                .help("stop the other process, or give this one a state_dir and a join token of its own")
        };
        Ok(Self { root: root.to_owned(), _claim: Arc::new(claim.ok_or_else(used)?) })
    }
    /// Where the TLS key lies.
    pub fn identity(&self) -> FileStore {
        FileStore::new(&self.root.join("identity"))
    }
    /// The cluster; `None` before the first join.
    pub fn load(&self) -> Result<Option<ClusterFile>, Failure> {
        match std::fs::read(self.root.join("cluster")) {
            Ok(bytes) => {
                let message = unframe(&bytes).ok_or_else(|| failed(&self.root, "read", &"it is cut or altered"))?;
                strict::decode(message, usize::MAX).map(Some).map_err(|e| failed(&self.root, "read", &e))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&self.root, "read", &e)),
        }
    }
    /// Keeps the cluster.
    pub fn save(&self, cluster: &ClusterFile) -> Result<(), Failure> {
        let framed = frame(&cluster.encode_to_vec());
        replace(&self.root.join("cluster"), &framed, PRIVATE).map_err(|e| failed(&self.root, "write", &e))
    }
}

fn failed(root: &Path, what: &str, e: &dyn std::fmt::Display) -> Failure {
    Failure::failed("state", format!("cannot {what} the state in {}: {e}", root.display()))
        .help("check its owner, mode and free space; if it is damaged, empty it and join with a new token")
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
        drop(state);
        let state = StateDir::open(&dir.path().join("new")).unwrap();
        assert_eq!(state.load().unwrap(), Some(cluster));
        let path = dir.path().join("new/cluster");
        let whole = std::fs::read(&path).unwrap();
        for n in 0..whole.len() {
            // Regression: a file that was cut between two fields was read as a smaller cluster.
            std::fs::write(&path, &whole[..n]).unwrap();
            assert!(state.load().is_err(), "cut at {n}");
        }
        // A field that this version does not know, behind a checksum that fits.
        let message = unframe(&whole).unwrap();
        std::fs::write(&path, frame(&[message, &[0x7a, 0x00]].concat())).unwrap();
        let failure = state.load().unwrap_err();
        assert!(failure.code == "state" && failure.message.contains("not in canonical form"), "{failure}");
    }

    /// `HOLDFAST_BLESS=1` writes the golden file anew.
    #[test]
    fn the_cluster_is_stored_as_it_always_was() {
        let statement = |t: &str| Statement { payload: vec![1, 2], r#type: t.into(), sigs: Vec::new() };
        let sample = ClusterFile {
            anchor: vec![9; 32],
            charters: vec![statement("c")],
            bundles: vec![statement("b")],
            join_addrs: vec!["v:7400".into()],
            service_addrs: vec!["v:7401".into()],
            id: "orch-1".into(),
        };
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.save(&sample).unwrap();
        let path = dir.path().join("cluster");
        let hex: String = std::fs::read(&path).unwrap().iter().map(|b| format!("{b:02x}")).collect();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/cluster.hex");
        if std::env::var_os("HOLDFAST_BLESS").is_some() {
            std::fs::write(&golden, format!("{hex}\n")).unwrap();
        }
        assert_eq!(hex, std::fs::read_to_string(golden).unwrap().trim());
        assert_eq!(state.load().unwrap(), Some(sample));
    }

    #[test]
    fn two_orchestrators_never_share_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        let clone = first.clone();
        drop(first);
        let failure = StateDir::open(dir.path()).unwrap_err();
        assert_eq!((failure.kind.exit_code(), failure.code.as_ref()), (1, "state"));
        drop(clone);
        StateDir::open(dir.path()).unwrap();
    }
}
