//! Containers: the port that every OCI runtime is driven through, and what lives around a running container.
//!
//! * [`Runtime`]: the port; [`OciCommand`] drives any runtime that speaks the OCI command line (`runc`'s);
//! * [`libcontainer`]: the embedded runtime, run as a one-threaded helper process of this very program;
//! * [`shim`]: one small process a container that keeps its output and its exit status while the agent is away;
//! * [`Containers`]: what the agent uses: start, adopt, wait, stop, remove.
//!
//! Nothing in here may hold, read or write a secret: a container's secrets are a mount that `spec` names.

mod command;
mod containers;
pub mod libcontainer;
pub mod logs;
mod loopback;
mod restart;
pub mod runc;
pub mod shim;
mod task_dir;

pub use command::OciCommand;
pub use containers::{Containers, Held, Layout};
pub use restart::{Restart, RestartPolicy};
pub use task_dir::{Backend, Exit, Status};

use holdfast_types::TaskId;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Signals that a container is stopped with; numbers as in `signal(7)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM: end yourself.
    Term,
    /// SIGKILL: be ended.
    Kill,
}
impl Signal {
    /// The name as the OCI command line takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Signal::Term => "TERM",
            Signal::Kill => "KILL",
        }
    }
}

/// A container's name at the runtime, in the state directory and in its cgroup: `[a-z0-9.-]`, 1 to 200 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);
impl ContainerId {
    /// Parses an id; refused is whatever could mean something to a path or a shell.
    pub fn parse(s: &str) -> Result<Self, RuntimeError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if s.is_empty() || s.len() > 200 || s.starts_with(['.', '-']) || !s.bytes().all(allowed) {
            return Err(RuntimeError::Id);
        }
        Ok(Self(s.to_owned()))
    }
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl TryFrom<String> for ContainerId {
    type Error = RuntimeError;
    fn try_from(s: String) -> Result<Self, RuntimeError> {
        Self::parse(&s)
    }
}
impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}
impl From<&TaskId> for ContainerId {
    fn from(task: &TaskId) -> Self {
        Self(task.as_str().to_owned())
    }
}
impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a container's init gets as its standard output and error; its input is `/dev/null`.
#[derive(Debug)]
pub struct Io {
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// Where a container is in its life (OCI runtime specification, "State").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Being made.
    Creating,
    /// Made, its program not yet started.
    Created,
    /// Its program runs.
    Running,
    /// Frozen.
    Paused,
    /// Its program has ended.
    Stopped,
}

/// What a runtime says about a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct State {
    /// Where it is in its life.
    #[serde(rename = "status")]
    pub phase: Phase,
    /// The init process, as the host numbers it; 0 or absent once stopped.
    #[serde(default)]
    pub pid: u32,
}

/// The port: what a container runtime must do for us. Calls block; none may take longer than its own time limit.
///
/// The exit status is not the runtime's to tell: whoever called `create` with a child subreaper above it waits for the
/// pid that it returned (that is [`shim`]'s work).
pub trait Runtime: Send + Sync + fmt::Debug {
    /// Its name, as in the configuration.
    fn name(&self) -> &'static str;
    /// Makes the container that `bundle/config.json` describes and returns its init's pid; nothing of it runs yet.
    fn create(&self, id: &ContainerId, bundle: &Path, io: Io) -> Result<u32, RuntimeError>;
    /// Lets a created container run its program.
    fn start(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// What it is doing; `None` if there is no such container.
    fn state(&self, id: &ContainerId) -> Result<Option<State>, RuntimeError>;
    /// Signals the container's init. A container that has ended already is not an error.
    fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError>;
    /// Kills what still runs of it and removes its cgroup and state. Deleting what does not exist is not an error.
    fn delete(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// All containers that this runtime root knows.
    fn list(&self) -> Result<Vec<ContainerId>, RuntimeError>;
}

/// Why something about a container did not work.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The name is not one.
    #[error("not a container id: use 1 to 200 of a-z, 0-9, '.' and '-', beginning with a letter or digit")]
    Id,
    /// A file or process of ours.
    #[error("could not {what} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which file or program.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The runtime program said no.
    #[error("{runtime} refused to {verb} {id}: {reason}")]
    Refused {
        /// Which back end.
        runtime: &'static str,
        /// The verb of the OCI command line.
        verb: &'static str,
        /// Which container.
        id: ContainerId,
        /// What it said, shortened.
        reason: String,
    },
    /// Something on disk is not what we write there.
    #[error("{path} is not readable as {what}: {reason}; remove the directory to forget that container")]
    Corrupt {
        /// What it should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a container of that name already.
    #[error("container {0} exists already; remove it before starting it again")]
    Exists(ContainerId),
    /// There is no container of that name.
    #[error("there is no container {0}")]
    Missing(ContainerId),
    /// The shim could not bring the container up.
    #[error("container {id} did not start: {reason}")]
    NotStarted {
        /// Which container.
        id: ContainerId,
        /// What the runtime said.
        reason: String,
    },
}

pub(crate) fn io_error(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> RuntimeError {
    move |source| RuntimeError::Io { what, path: path.into(), source }
}

/// Runs the hidden subcommand that `args` (without the program's name) asks for, if it asks for one.
///
/// LAW: `main` calls this before it starts a thread or reads a configuration: the embedded runtime forks, and forking
/// is only defined for a process of one thread (`the_hidden_subcommands_are_served_before_anything_else`).
pub fn hidden_subcommand(args: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = args.split_first()?;
    match name.to_str()? {
        libcontainer::HELPER => Some(libcontainer::helper_main(rest)),
        shim::LAUNCH => Some(shim::launch_main(rest)),
        shim::STAY => Some(shim::stay_main(rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_id_never_means_something_to_a_path() {
        assert_eq!(ContainerId::parse("shop.web.1").unwrap().as_str(), "shop.web.1");
        for bad in ["", ".", "..", "a/b", "-v", "A", "a b", &"x".repeat(201)] {
            assert!(ContainerId::parse(bad).is_err(), "{bad:?}");
        }
        let task = TaskId::parse("shop.web.12").unwrap();
        assert!(ContainerId::parse(ContainerId::from(&task).as_str()).is_ok());
    }

    #[test]
    fn the_hidden_subcommands_are_served_before_anything_else() {
        let (_, main) = include_str!("../main.rs").split_once("fn main()").unwrap();
        let (before, after) = main.split_once("hidden_subcommand(").unwrap();
        assert!(after.contains("run::main("));
        for later in ["run::", "Args::", "thread", "tokio", "load"] {
            assert!(!before.contains(later), "{later} comes before the hidden subcommands");
        }
    }

    #[test]
    fn a_runtime_state_is_read_whatever_else_it_says() {
        let s: State = serde_json::from_str(r#"{"ociVersion":"1.0.2","id":"x","status":"running","pid":12}"#).unwrap();
        assert_eq!(s, State { phase: Phase::Running, pid: 12 });
    }
}
