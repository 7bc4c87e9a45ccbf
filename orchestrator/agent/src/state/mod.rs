//! What the agent keeps on disk, and in which order: nothing in here is a secret that a reboot must destroy.
//!
//! ```text
//! agent.lock        one agent a directory
//! identity/         the TLS key and its chain                     `holdfast_transport::renew::FileStore`
//! anchors           charters and bundles since the join           [`trust`]
//! heartbeat         status, revocations, checkpoint, floors       [`trust`]
//! memory            grants used, generations, fences              [`memory`]
//! node              where the vault is                            [`StateDir::save_node`]
//! joining           a join that waits for approval                [`StateDir::save_joining`]
//! grants/           one file a task that was accepted             [`records`]
//! evidence/         refused assignments                           [`evidence`]
//! tasks/, images/   containers and images                         `runtime`, `image`
//! ```
//! LAW: a file is read whole or refused; a cut one is never taken for a shorter truth
//! (`a_state_file_that_is_cut_or_altered_is_refused`).

pub mod evidence;
pub mod file;
#[cfg(test)]
pub(crate) mod golden;
pub mod memory;
pub mod records;
pub mod trust;

pub use file::StateError;

use file::{load, save};
use holdfast_transport::files::{Claim, claim};
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The agent's state directory; for as long as this lives, no other agent opens it.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    _claim: Claim,
}

/// Where the vault is, and who we are there. STORED: `node`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeFile {
    /// Our id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Addresses of the vault's service listeners, as the vault gave them last.
    #[prost(string, repeated, tag = "2")]
    pub service_addrs: Vec<String>,
    /// The certificate's generation.
    #[prost(uint64, tag = "3")]
    pub seq: u64,
    /// Addresses of the vault's join listeners, as the vault gave them last.
    #[prost(string, repeated, tag = "4")]
    pub join_addrs: Vec<String>,
}

/// A join that waits for an operator. STORED: `joining`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JoiningFile {
    /// The id that we shall have.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Addresses of the vault's join listeners.
    #[prost(string, repeated, tag = "2")]
    pub join_addrs: Vec<String>,
}

impl StateDir {
    /// Opens `root`, makes what is missing (0700) and takes the lock.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        for dir in [root.to_owned(), root.join("identity"), root.join("grants"), root.join("evidence")] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at(&dir))?;
        }
        let path = root.join("agent.lock");
        let claim = claim(&path).map_err(at(&path))?.ok_or_else(|| StateError::Locked(root.to_owned()))?;
        Ok(Self { root: root.to_owned(), _claim: claim })
    }
    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Where the TLS identity lies.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }
    /// Where images are kept.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    /// Where the vault is; `None` before the first join.
    pub fn load_node(&self) -> Result<Option<NodeFile>, StateError> {
        load(&self.root.join("node"))
    }
    /// Keeps where the vault is.
    pub fn save_node(&self, node: &NodeFile) -> Result<(), StateError> {
        save(&self.root.join("node"), node)
    }
    /// A join that waits for approval, if there is one.
    pub fn load_joining(&self) -> Result<Option<JoiningFile>, StateError> {
        load(&self.root.join("joining"))
    }
    /// Keeps a join that waits for approval.
    pub fn save_joining(&self, joining: &JoiningFile) -> Result<(), StateError> {
        save(&self.root.join("joining"), joining)
    }
    /// The join is over.
    pub fn forget_joining(&self) -> Result<(), StateError> {
        file::remove(&self.root.join("joining"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_vault_is_and_a_join_that_waits_are_stored_as_they_always_were() {
        let (service_addrs, join_addrs) = (vec!["v:7401".into()], vec!["v:7400".into()]);
        golden::holds("node", &NodeFile { id: "node-1".into(), service_addrs, seq: 3, join_addrs });
        golden::holds("joining", &JoiningFile { id: "node-1".into(), join_addrs: vec!["v:7400".into()] });
    }

    #[test]
    fn two_agents_never_share_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Locked(_))));
        drop(first);
        StateDir::open(dir.path()).unwrap();
    }
}
