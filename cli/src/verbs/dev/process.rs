//! The processes of the demo cluster: started with a log file each, watched, and ended in reverse order.

use crate::errors::{Code, Failure};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// A daemon drains when told to end; after this long it is killed.
const DRAIN: Duration = Duration::from_secs(15);

/// A running daemon.
pub struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
}

/// A program beside this one.
pub fn beside(program: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|e| Failure::io("find", Path::new(program), &e))?;
    let path = own.with_file_name(program);
    if path.is_file() {
        return Ok(path);
    }
    let what = format!("{} is not there", path.display());
    Err(Failure::new(Code::NotFound, what, "install all programs of Holdfast into one folder, or build the workspace"))
}

impl Daemon {
    /// Starts `program`, found beside this one, as `name`, with its output in `<logs>/<name>.log`.
    pub fn start<S: AsRef<OsStr>>(
        program: &str,
        name: &str,
        logs: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Self, Failure> {
        let log = logs.join(format!("{name}.log"));
        let output =
            File::create(&log).and_then(|f| Ok((f.try_clone()?, f))).map_err(|e| Failure::io("write", &log, &e))?;
        let mut command = Command::new(beside(program)?);
        command.args(args).stdin(Stdio::null()).stdout(output.0).stderr(output.1);
        // A group of its own: Ctrl-C on the terminal reaches this program alone, which ends the others in order.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(|e| {
            Failure::new(Code::Failed, format!("cannot start {program}: {e}"), "check the installation")
        })?;
        Ok(Self { name: name.to_owned(), log, child })
    }
    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// A failure if it has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(&status.to_string())),
            Err(e) => Err(self.ended(&e.to_string())),
        }
    }
    fn ended(&self, how: &str) -> Failure {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
        Failure::new(
            Code::Failed,
            format!("{} ended ({how}): {last}", self.name),
            format!("see {}", self.log.display()),
        )
    }
    /// Asks it to end, waits, and kills it if it does not.
    pub async fn stop(mut self) {
        let pid = self.child.id().and_then(|p| Pid::from_raw(i32::try_from(p).ok()?));
        let asked = pid.is_some_and(|p| kill_process(p, Signal::TERM).is_ok());
        if !asked || tokio::time::timeout(DRAIN, self.child.wait()).await.is_err() {
            // It is gone or beyond help; `kill_on_drop` has the last word.
            drop(self.child.kill().await);
        }
    }
}
