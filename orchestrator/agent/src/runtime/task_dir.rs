//! One container's directory under `state_dir/tasks/`: what agent and shim tell each other, through files alone.
//!
//! ```text
//! task.json            how the shim drives the runtime            written by the agent, once
//! bundle/config.json   the OCI runtime specification              written by the agent, once
//! shim.lock            the shim's pid; locked for as long as it lives
//! status.json          what became of the container               replaced whole, by the shim (or by who outlives it)
//! log, log.1           what the container printed
//! ```
//! Holds no secret: those are mounts, and a mount is named here by its path only.

use super::{ContainerId, OciCommand, RuntimeError, io_error, libcontainer, runc};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Which runtime drives a container, where it is and where it keeps its state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "runtime", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Backend {
    /// The embedded one; `program` is this program.
    Libcontainer {
        /// This program's file.
        program: PathBuf,
        /// Where it keeps its containers' state, on a tmpfs.
        root: PathBuf,
    },
    /// `runc`.
    Runc {
        /// Its file, or a name to be found in `PATH`.
        program: PathBuf,
        /// Where it keeps its containers' state, on a tmpfs.
        root: PathBuf,
    },
}
impl Backend {
    /// The driver.
    pub fn runtime(&self) -> OciCommand {
        match self {
            Backend::Libcontainer { program, root } => libcontainer::runtime(program.clone(), root.clone()),
            Backend::Runc { program, root } => runc::runtime(program.clone(), root.clone()),
        }
    }
}

/// What the shim is told. STORED: `task.json`, read by a shim of the same program only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    pub(crate) id: ContainerId,
    pub(crate) backend: Backend,
    pub(crate) log_bytes: u64,
}

/// How a container ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exit {
    /// Its program's exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did. Neither code nor signal: nobody was there to see.
    pub signal: Option<i32>,
    /// Whether the kernel killed something in it for want of memory.
    pub oom_killed: bool,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
}
impl Exit {
    /// Ended by itself, with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// What became of a container. STORED: `status.json`, read by later agents; golden form in this file's tests.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Status {
    /// Its program runs since `at_ms` as process `pid`.
    Running {
        /// The init process, as the host numbers it.
        pid: u32,
        /// Since when, in milliseconds since the epoch.
        at_ms: i64,
    },
    /// It ran and has ended.
    Exited(Exit),
    /// It never ran.
    Failed {
        /// What the runtime said.
        reason: String,
    },
}

/// A container's directory.
#[derive(Clone, Debug)]
pub(crate) struct TaskDir(PathBuf);

impl TaskDir {
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
    pub(crate) fn bundle(&self) -> PathBuf {
        self.0.join("bundle")
    }

    /// Makes the directory (0700) with all that the shim needs.
    pub(crate) fn create(&self, task: &Task, spec: &oci_spec::runtime::Spec) -> Result<(), RuntimeError> {
        let bundle = self.bundle();
        if self.0.exists() {
            return Err(RuntimeError::Exists(task.id.clone()));
        }
        fs::DirBuilder::new().mode(0o700).create(&self.0).map_err(io_error("create", &self.0))?;
        fs::DirBuilder::new().mode(0o700).create(&bundle).map_err(io_error("create", &bundle))?;
        write_json(&bundle.join("config.json"), spec)?;
        write_json(&self.0.join("task.json"), task)
    }

    /// Whether all that the shim needs is there: `task.json` comes last.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.join("task.json").exists()
    }
    /// Removes everything.
    pub(crate) fn clear(&self) -> Result<(), RuntimeError> {
        fs::remove_dir_all(&self.0).map_err(io_error("remove", &self.0))
    }

    pub(crate) fn task(&self) -> Result<Task, RuntimeError> {
        let path = self.0.join("task.json");
        read_json(&path, "a task")?.ok_or_else(|| RuntimeError::Io {
            what: "read",
            path,
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    /// `None`: the shim has not come that far.
    pub(crate) fn status(&self) -> Result<Option<Status>, RuntimeError> {
        read_json(&self.0.join("status.json"), "a container's status")
    }

    pub(crate) fn set_status(&self, status: &Status) -> Result<(), RuntimeError> {
        write_json(&self.0.join("status.json"), status)
    }

    /// Takes the lock that says "I answer for this container"; `None` if a live process has it.
    pub(crate) fn lock(&self) -> Result<Option<ShimLock>, RuntimeError> {
        let path = self.0.join("shim.lock");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(io_error("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(io_error("lock", path)(e.into())),
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(io_error("write", path))?;
        Ok(Some(ShimLock(file)))
    }

    /// The shim's pid, if a live process holds the lock. The pid is its own for as long as it holds it.
    pub(crate) fn shim_pid(&self) -> Result<Option<i32>, RuntimeError> {
        let path = self.0.join("shim.lock");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error("open", path)(e)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(None),
            Err(Errno::WOULDBLOCK) => {}
            Err(e) => return Err(io_error("lock", path)(e.into())),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io_error("read", &path))?;
        Ok(text.trim().parse().ok())
    }
}

/// Held for as long as its holder answers for the container; released when that process ends, however it ends.
#[derive(Debug)]
pub(crate) struct ShimLock(#[expect(dead_code, reason = "held for its lock")] File);

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RuntimeError> {
    let fresh = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        serde_json::to_writer(&file, value)?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(io_error("write", path))
}

fn read_json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<Option<T>, RuntimeError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("read", path)(e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| RuntimeError::Corrupt {
        what,
        path: path.to_owned(),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_its_stored_form() {
        let golden = [
            (Status::Running { pid: 7, at_ms: 1000 }, r#"{"phase":"running","pid":7,"at_ms":1000}"#),
            (
                Status::Exited(Exit { code: Some(3), signal: None, oom_killed: false, at_ms: 2 }),
                r#"{"phase":"exited","code":3,"signal":null,"oom_killed":false,"at_ms":2}"#,
            ),
            (Status::Failed { reason: "no".into() }, r#"{"phase":"failed","reason":"no"}"#),
        ];
        for (status, text) in golden {
            assert_eq!(serde_json::to_string(&status).unwrap(), text);
            assert_eq!(serde_json::from_str::<Status>(text).unwrap(), status);
        }
    }

    #[test]
    fn only_one_process_answers_for_a_container() {
        let dir = tempfile::tempdir().unwrap();
        let task = TaskDir::at(dir.path());
        assert_eq!(task.shim_pid().unwrap(), None);
        let held = task.lock().unwrap().unwrap();
        assert!(task.lock().unwrap().is_none());
        assert_eq!(task.shim_pid().unwrap(), i32::try_from(std::process::id()).ok());
        drop(held);
        assert_eq!(task.shim_pid().unwrap(), None);
    }
}
