//! The OCI command line (`create`, `start`, `state`, `kill`, `delete`) spoken to a runtime program.
//!
//! `runc`, `crun` and `youki` agree on it, and so does our own helper round libcontainer: one driver serves all.
//! Never runs a shell, never inherits a descriptor but the three that it names.

use super::{ContainerId, Io, Runtime, RuntimeError, Signal, State, io_error};
use rustix::process::{PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// No verb of a healthy runtime takes anywhere near as long; a hung one must not hang the agent.
const DEADLINE: Duration = Duration::from_secs(30);
/// How much of what a runtime says is kept in an error.
const REASON_MAX: usize = 600;

/// A runtime that is a program.
#[derive(Clone, Debug)]
pub struct OciCommand {
    name: &'static str,
    program: PathBuf,
    first_args: Vec<OsString>,
    root: PathBuf,
}

impl OciCommand {
    /// `program first_args… --root root VERB …`; `root` is created (0700) when the first container is.
    pub fn new(name: &'static str, program: PathBuf, first_args: Vec<OsString>, root: PathBuf) -> Self {
        Self { name, program, first_args, root }
    }

    fn command(&self) -> Command {
        let mut c = Command::new(&self.program);
        c.args(&self.first_args).arg("--root").arg(&self.root).stdin(Stdio::null());
        c
    }

    fn refused(&self, verb: &'static str, id: &ContainerId, said: &str) -> RuntimeError {
        let reason = said.trim().chars().take(REASON_MAX).collect();
        RuntimeError::Refused { runtime: self.name, verb, id: id.clone(), reason }
    }

    /// Runs a verb to its end and returns what it printed; what it complains about becomes the error.
    fn run(&self, verb: &'static str, id: &ContainerId, args: &[&str]) -> Result<String, RuntimeError> {
        let mut child = self
            .command()
            .arg(verb)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_error("run", &self.program))?;
        let status = wait_at_most(&mut child, DEADLINE).map_err(io_error("wait for", &self.program))?;
        // Both fit a pipe's buffer: what a runtime says in reply to these verbs is one line or one small document.
        let read = |stream: Option<&mut dyn std::io::Read>| {
            let mut text = String::new();
            stream.map_or(Ok(0), |s| s.take(64 << 10).read_to_string(&mut text)).map(|_| text)
        };
        let out = read(child.stdout.as_mut().map(|s| s as _)).map_err(io_error("read from", &self.program))?;
        let err = read(child.stderr.as_mut().map(|s| s as _)).map_err(io_error("read from", &self.program))?;
        if status.success() { Ok(out) } else { Err(self.refused(verb, id, &err)) }
    }
}

impl Runtime for OciCommand {
    fn name(&self) -> &'static str {
        self.name
    }

    fn create(&self, id: &ContainerId, bundle: &Path, io: Io) -> Result<u32, RuntimeError> {
        let (log, pid_file) = (bundle.join("runtime.log"), bundle.join("init.pid"));
        let mut child = self
            .command()
            .args(["--log-format", "json", "--log"])
            .arg(&log)
            .arg("create")
            .arg("--bundle")
            .arg(bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(id.as_str())
            .stdout(io.stdout)
            .stderr(io.stderr)
            .spawn()
            .map_err(io_error("run", &self.program))?;
        let status = wait_at_most(&mut child, DEADLINE).map_err(io_error("wait for", &self.program))?;
        if !status.success() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(self.refused("create", id, &last_message(&said)));
        }
        let text = fs::read_to_string(&pid_file).map_err(io_error("read", &pid_file))?;
        text.trim().parse().map_err(|e: std::num::ParseIntError| RuntimeError::Corrupt {
            what: "a process id",
            path: pid_file,
            reason: e.to_string(),
        })
    }

    fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.run("start", id, &[id.as_str()]).map(drop)
    }

    fn state(&self, id: &ContainerId) -> Result<Option<State>, RuntimeError> {
        if !self.root.join(id.as_str()).exists() {
            return Ok(None);
        }
        let said = self.run("state", id, &[id.as_str()])?;
        serde_json::from_str(&said).map(Some).map_err(|e| self.refused("state", id, &e.to_string()))
    }

    fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError> {
        self.run("kill", id, &[id.as_str(), signal.as_str()]).map(drop).or_else(|e| match self.state(id)? {
            Some(State { phase: super::Phase::Stopped, .. }) | None => Ok(()),
            Some(_) => Err(e),
        })
    }

    fn delete(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        if !self.root.join(id.as_str()).exists() {
            return Ok(());
        }
        self.run("delete", id, &["--force", id.as_str()]).map(drop)
    }

    fn list(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io_error("list", &self.root)(e)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(io_error("list", &self.root))?.file_name();
            // Runtimes keep locks and sockets beside their containers: what is not an id of ours is not ours.
            ids.extend(name.to_str().and_then(|n| ContainerId::parse(n).ok()));
        }
        ids.sort();
        Ok(ids)
    }
}

/// Waits for `child`, and kills it once `limit` has passed.
fn wait_at_most(child: &mut std::process::Child, limit: Duration) -> std::io::Result<ExitStatus> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    let fd = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let ready = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)))?;
    if ready == 0 {
        child.kill()?;
        child.wait()?;
        return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "it did not end within its time limit"));
    }
    child.wait()
}

/// The last `error` line of a runtime's JSON log, or the log itself if there is none.
fn last_message(log: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let mut lines = log.lines().filter_map(|l| serde_json::from_str::<Line>(l).ok());
    lines.rfind(|l| l.level == "error").map_or_else(|| log.to_owned(), |l| l.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_runtime_log_is_the_reason() {
        let log = "{\"level\":\"warning\",\"msg\":\"w\",\"time\":\"t\"}\n{\"level\":\"error\",\"msg\":\"no such file\",\"time\":\"t\"}\n";
        assert_eq!(last_message(log), "no such file");
        assert_eq!(last_message("plain"), "plain");
    }

    #[test]
    fn a_runtime_that_hangs_is_killed_and_said_so() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let e = wait_at_most(&mut child, Duration::ZERO).unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::TimedOut);
    }
}
