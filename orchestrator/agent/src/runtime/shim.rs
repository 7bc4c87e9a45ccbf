//! The shim: one small process a container, which outlives the agent.
//!
//! The agent runs `task-launch DIR`, which runs `task-shim DIR` and ends, so that the shim belongs to no agent. The
//! shim becomes a session leader and a child subreaper, has the runtime create and start the container, copies what it
//! prints to bounded files, waits for its init, cleans up after it and writes how it ended: through `status.json`,
//! whole or not at all. One thread, no sockets, and nothing of a secret: it sees a bundle, never a value.
//!
//! Its standard output is the agent's pipe until the container runs or has failed; end of file there means that
//! `status.json` says which.

use super::logs::{LogWriter, Stream};
use super::task_dir::{Exit, Status, Task, TaskDir};
use super::{Io, Runtime, RuntimeError, io_error};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, set_child_subreaper, setsid, wait};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::SystemTime;

/// The hidden subcommand that starts a shim and ends.
pub const LAUNCH: &str = "task-launch";
/// The hidden subcommand that is the shim.
pub const STAY: &str = "task-shim";

/// `task-launch DIR`: starts the shim as nobody's child.
pub fn launch_main(args: &[OsString]) -> ExitCode {
    let [dir] = args else { return ExitCode::from(2) };
    let shim = Command::new("/proc/self/exe").arg(STAY).arg(dir).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    if shim.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `task-shim DIR`: stays with the container until it has ended.
pub fn stay_main(args: &[OsString]) -> ExitCode {
    let [dir] = args else { return ExitCode::from(2) };
    match stay(&TaskDir::at(PathBuf::from(dir))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn stay(dir: &TaskDir) -> Result<(), RuntimeError> {
    // Whoever holds the lock answers for the container; a status that is there already is somebody's answer.
    let Some(_lock) = dir.lock()? else { return Ok(()) };
    if dir.status()?.is_some() {
        return Ok(());
    }
    let task = dir.task()?;
    let runtime = task.backend.runtime();
    let brought_up = setsid()
        .and_then(|_| set_child_subreaper(Pid::from_raw(1)))
        .map_err(|e| io_error("detach", dir.path())(e.into()))
        .and_then(|()| bring_up(dir, &task, &runtime));
    let mut watch = match brought_up {
        Ok(watch) => watch,
        Err(e) => {
            let cleaned = runtime.delete(&task.id);
            dir.set_status(&Status::Failed { reason: e.to_string() })?;
            return cleaned;
        }
    };
    let exit = watch.until_the_end().map_err(|e| io_error("watch", dir.path())(e.into()));
    let cleaned = runtime.delete(&task.id);
    dir.set_status(&Status::Exited(exit?))?;
    cleaned
}

fn bring_up(dir: &TaskDir, task: &Task, runtime: &dyn Runtime) -> Result<Watch, RuntimeError> {
    let log = LogWriter::create(dir.path(), task.log_bytes).map_err(io_error("write", dir.path()))?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| io_error("make a pipe for", dir.path())(e.into()));
    let ((stdout, stdout_in), (stderr, stderr_in)) = (pipe()?, pipe()?);
    let pid = runtime.create(&task.id, &dir.bundle(), Io { stdout: stdout_in, stderr: stderr_in })?;
    let init = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
    let opened = init.and_then(|init| Ok((init, pidfd_open(init, PidfdFlags::empty())?)));
    let (init, ended) = opened.map_err(|e| io_error("watch the init of", dir.path())(e.into()))?;
    let oom_file = oom_file(pid);
    runtime.start(&task.id)?;
    dir.set_status(&Status::Running { pid, at_ms: now_ms() })?;
    let nowhere = File::options().write(true).open("/dev/null").map_err(io_error("open", "/dev/null"))?;
    rustix::stdio::dup2_stdout(&nowhere).map_err(|e| io_error("leave", dir.path())(e.into()))?;
    Ok(Watch { init, ended, outputs: vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)], log, oom_file })
}

/// A running container, as its shim sees it.
struct Watch {
    init: Pid,
    /// Readable once the init has ended.
    ended: OwnedFd,
    /// The outputs that are still open.
    outputs: Vec<(Stream, OwnedFd)>,
    log: LogWriter,
    oom_file: Option<PathBuf>,
}

impl Watch {
    fn until_the_end(&mut self) -> Result<Exit, Errno> {
        while !self.wait_for_news()? {}
        let status = self.reap()?;
        let oom_killed = self.oom_file.as_ref().is_some_and(|f| oom_kills(&fs::read_to_string(f).unwrap_or_default()));
        let at_ms = now_ms();
        self.log.finish(at_ms);
        let code = status.and_then(|s| s.exit_status());
        let signal = status.and_then(|s| s.terminating_signal());
        Ok(Exit { code, signal, oom_killed, at_ms })
    }

    /// Reaps the init, and on the way what else a runtime left behind for its subreaper.
    fn reap(&self) -> Result<Option<WaitStatus>, Errno> {
        loop {
            match retry_on_intr(|| wait(WaitOptions::empty())) {
                Ok(Some((pid, status))) if pid == self.init => return Ok(Some(status)),
                Ok(_) => {}
                Err(Errno::CHILD) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits for output or the end, copies what there is; true once the init has ended and its output is copied.
    /// The init is the first process of its pid namespace: when it has ended, nobody is left to print.
    fn wait_for_news(&mut self) -> Result<bool, Errno> {
        let mut fds = vec![PollFd::new(&self.ended, PollFlags::IN)];
        fds.extend(self.outputs.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        retry_on_intr(|| poll(&mut fds, None))?;
        let mut ready = fds.iter().map(|f| !f.revents().is_empty());
        let has_ended = ready.next().unwrap_or(false);
        let ready: Vec<bool> = ready.collect();
        drop(fds);
        let mut chunk = [0u8; 8192];
        let mut still_open = Vec::with_capacity(2);
        let mut copied = false;
        for ((stream, fd), ready) in std::mem::take(&mut self.outputs).into_iter().zip(ready) {
            let n = if ready { Some(retry_on_intr(|| rustix::io::read(&fd, &mut chunk))?) } else { None };
            if let Some(bytes) = n.and_then(|n| chunk.get(..n)) {
                self.log.feed(stream, now_ms(), bytes);
            }
            copied |= n.is_some_and(|n| n > 0);
            if n != Some(0) {
                still_open.push((stream, fd));
            }
        }
        self.outputs = still_open;
        Ok(has_ended && !copied)
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The file in which the kernel counts its out-of-memory kills in the cgroup of process `pid` (cgroups(7)).
fn oom_file(pid: u32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path_of = |controllers: &str| {
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            parts.next()?.split(',').any(|c| c == controllers).then(|| parts.next())?
        })
    };
    if let Some(path) = path_of("memory") {
        return Some(PathBuf::from(format!("/sys/fs/cgroup/memory{path}/memory.oom_control")));
    }
    path_of("").map(|path| PathBuf::from(format!("/sys/fs/cgroup{path}/memory.events")))
}

fn oom_kills(counters: &str) -> bool {
    let count = counters.lines().find_map(|l| l.strip_prefix("oom_kill "));
    count.is_some_and(|n| n.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oom_kill_is_read_from_either_cgroup_version() {
        assert!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"));
        assert!(oom_kills("low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 0\n"));
        assert!(!oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"));
        assert!(!oom_kills(""));
    }
}
