//! The containers of one node, as the agent drives them: started through a shim, adopted after a restart of the agent.
//!
//! LAW: nothing in here kills a container because the agent ends (`a_container_outlives_its_agent`).

use super::task_dir::{Exit, Status, Task, TaskDir};
use super::{Backend, ContainerId, OciCommand, Runtime, RuntimeError, Signal, io_error, shim};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, Interest};

/// Where containers live and what drives them.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The agent's state directory; containers are in `tasks/` under it.
    pub state_dir: PathBuf,
    /// The program whose hidden subcommands are shim and helper: `/proc/self/exe` for the agent.
    pub program: PathBuf,
    /// The runtime for new containers. An adopted one keeps the runtime that it was started with.
    pub backend: Backend,
    /// Bound of each of the two log files of a container, in bytes.
    pub log_bytes: u64,
}

/// A container that an earlier agent may have started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its name.
    pub id: ContainerId,
    /// What is known of it; `None` if it was never brought up.
    pub status: Option<Status>,
    /// Whether its shim lives, so that it still runs.
    pub alive: bool,
}

/// The containers of this node.
#[derive(Clone, Debug)]
pub struct Containers {
    layout: Layout,
}

impl Containers {
    /// Makes the directories that are missing (0700).
    pub fn open(layout: Layout) -> Result<Self, RuntimeError> {
        let tasks = layout.state_dir.join("tasks");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&tasks);
        made.map_err(io_error("create", tasks))?;
        Ok(Self { layout })
    }

    fn dir(&self, id: &ContainerId) -> TaskDir {
        TaskDir::at(self.layout.state_dir.join("tasks").join(id.as_str()))
    }

    /// Where the container's output is, for `logs`.
    pub fn log_dir(&self, id: &ContainerId) -> PathBuf {
        self.dir(id).path().to_owned()
    }

    /// Starts a container; returns once its program runs. What failed to start leaves nothing behind.
    pub async fn start(&self, id: &ContainerId, spec: oci_spec::runtime::Spec) -> Result<(), RuntimeError> {
        let dir = self.dir(id);
        let task = Task { id: id.clone(), backend: self.layout.backend.clone(), log_bytes: self.layout.log_bytes };
        let made = dir.clone();
        blocking(move || made.create(&task, &spec)).await?;
        self.launch(&dir).await?;
        let reason = match dir.status()? {
            Some(Status::Running { .. } | Status::Exited(_)) => return Ok(()),
            Some(Status::Failed { reason }) => reason,
            None => "its shim died before it could say why".to_owned(),
        };
        self.remove(id).await?;
        Err(RuntimeError::NotStarted { id: id.clone(), reason })
    }

    /// Runs the launcher and waits until the shim has let go of its pipe: then `status.json` speaks.
    async fn launch(&self, dir: &TaskDir) -> Result<(), RuntimeError> {
        let program = &self.layout.program;
        let mut launcher = tokio::process::Command::new(program)
            .arg(shim::LAUNCH)
            .arg(dir.path())
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io_error("run", program))?;
        if let Some(mut until_up) = launcher.stdout.take() {
            until_up.read_to_end(&mut Vec::new()).await.map_err(io_error("wait for", program))?;
        }
        launcher.wait().await.map(drop).map_err(io_error("wait for", program))
    }

    /// All containers with a directory here, running or not: what a restarted agent adopts.
    pub fn held(&self) -> Result<Vec<Held>, RuntimeError> {
        let tasks = self.layout.state_dir.join("tasks");
        let mut held = Vec::new();
        for entry in fs::read_dir(&tasks).map_err(io_error("list", &tasks))? {
            let name = entry.map_err(io_error("list", &tasks))?.file_name();
            let Some(id) = name.to_str().and_then(|n| ContainerId::parse(n).ok()) else { continue };
            let dir = self.dir(&id);
            held.push(Held { status: dir.status()?, alive: dir.shim_pid()?.is_some(), id });
        }
        held.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(held)
    }

    /// Waits until the container has ended, whichever agent started it, and says how.
    pub async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        let dir = self.dir(id);
        if let Some(shim) = open_shim(&dir)? {
            until_readable(shim).await.map_err(io_error("watch", dir.path()))?;
        }
        let id = id.clone();
        blocking(move || settle(&dir, &id)).await
    }

    /// Signals the container's init. A container that has ended already is not an error.
    pub async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError> {
        let (dir, id) = (self.dir(id), id.clone());
        blocking(move || runtime_of(&dir, &id)?.kill(&id, signal)).await
    }

    /// Asks the container to end, gives it `grace`, then ends it.
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<Exit, RuntimeError> {
        self.kill(id, Signal::Term).await?;
        match tokio::time::timeout(grace, self.wait(id)).await {
            Ok(exit) => exit,
            Err(_) => {
                self.kill(id, Signal::Kill).await?;
                self.wait(id).await
            }
        }
    }

    /// Ends the container if it still runs and removes everything of it, its output included.
    pub async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let dir = self.dir(id);
        if !dir.path().exists() {
            return Ok(());
        }
        if !dir.is_whole() {
            // Whoever made it did not come so far as to launch anything.
            return blocking(move || dir.clear()).await;
        }
        // The shim cleans up after its container. Only once it is gone may anybody else: two runtimes that delete the
        // same cgroup stumble over each other.
        self.kill(id, Signal::Kill).await?;
        let ended = self.wait(id).await;
        if !matches!(ended, Ok(_) | Err(RuntimeError::NotStarted { .. })) {
            return ended.map(drop);
        }
        let id = id.clone();
        blocking(move || {
            runtime_of(&dir, &id)?.delete(&id)?;
            dir.clear()
        })
        .await
    }
}

fn runtime_of(dir: &TaskDir, id: &ContainerId) -> Result<OciCommand, RuntimeError> {
    if !dir.path().exists() {
        return Err(RuntimeError::Missing(id.clone()));
    }
    Ok(dir.task()?.backend.runtime())
}

fn open_shim(dir: &TaskDir) -> Result<Option<OwnedFd>, RuntimeError> {
    let Some(pid) = dir.shim_pid()?.and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        // The lock is still held, so the pid had not been reused when it was opened.
        Ok(fd) => Ok(dir.shim_pid()?.map(|_| fd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(e) => Err(io_error("watch", dir.path())(e.into())),
    }
}

#[expect(deprecated, reason = "sound for an OwnedFd, whose descriptor never changes; the replacement is unsafe")]
async fn until_readable(fd: OwnedFd) -> std::io::Result<()> {
    AsyncFd::with_interest(fd, Interest::READABLE)?.readable().await.map(drop)
}

/// The last word on a container whose shim is gone. If the shim died without one, the container is ended: nobody reads
/// its output any more and nobody would learn how it ends.
fn settle(dir: &TaskDir, id: &ContainerId) -> Result<Exit, RuntimeError> {
    if !dir.path().exists() {
        return Err(RuntimeError::Missing(id.clone()));
    }
    let lock = dir.lock()?;
    match dir.status()? {
        Some(Status::Exited(exit)) => Ok(exit),
        Some(Status::Failed { reason }) => Err(RuntimeError::NotStarted { id: id.clone(), reason }),
        Some(Status::Running { .. }) | None => {
            runtime_of(dir, id)?.delete(id)?;
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let at_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            let exit = Exit { code: None, signal: None, oom_killed: false, at_ms };
            if lock.is_some() {
                dir.set_status(&Status::Exited(exit))?;
            }
            Ok(exit)
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(io_error("finish work on", "the container's directory")(std::io::Error::other(e))),
    }
}
