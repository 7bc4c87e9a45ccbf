//! `dev`: a whole cluster on this machine, in the foreground, as separate processes under the rules of every cluster.
//!
//! It does what an operator would do, by the same verbs: this program calls itself, and nothing here knows a shortcut.

use crate::app::App;
use crate::args::Dev;
use crate::errors::{Code, Failure};
use crate::files;
use process::{Daemon, beside};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

pub(super) mod process;

/// The context's name in the cluster's own folder.
const CONTEXT: &str = "dev";

/// Runs the verb until SIGINT or SIGTERM, or until a process ends by itself.
pub async fn run(app: &App, a: Dev) -> Result<(), Failure> {
    ["holdfast-vault", "holdfast-orchestrator", "holdfast-agent"].iter().try_for_each(|p| beside(p).map(|_| ()))?;
    let mut cluster = DevCluster::prepare(app, a.dir)?;
    let mut interrupted = Interrupt::new()?;
    let done = tokio::select! {
        done = cluster.up(a.workers) => done,
        () = interrupted.wait() => return cluster.down().await,
    };
    let done = match done {
        Ok(()) => cluster.stay(&mut interrupted).await,
        failed => failed,
    };
    cluster.down().await?;
    done
}

struct Interrupt(tokio::signal::unix::Signal, tokio::signal::unix::Signal);
impl Interrupt {
    fn new() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind).map_err(|e| Failure::new(Code::Failed, format!("cannot listen for signals: {e}"), "try again"))
        };
        Ok(Self(on(SignalKind::interrupt())?, on(SignalKind::terminate())?))
    }
    async fn wait(&mut self) {
        tokio::select! { _ = self.0.recv() => {}, _ = self.1.recv() => {} }
    }
}

struct DevCluster<'a> {
    app: &'a App,
    dir: PathBuf,
    daemons: Vec<Daemon>,
    deadline: Instant,
}

impl<'a> DevCluster<'a> {
    fn prepare(app: &'a App, dir: Option<PathBuf>) -> Result<Self, Failure> {
        let dir = dir.unwrap_or_else(|| std::env::temp_dir().join(format!("holdfast-dev-{}", std::process::id())));
        let dir = std::path::absolute(&dir).map_err(|e| Failure::io("find", &dir, &e))?;
        files::make_private_dir(&dir)?;
        files::make_private_dir(&dir.join("home"))?;
        Ok(Self { app, dir, daemons: Vec::new(), deadline: Instant::now() + app.timeout(Duration::from_secs(120)) })
    }

    /// Brings everything up; what was there before is found again.
    async fn up(&mut self, workers: u8) -> Result<(), Failure> {
        self.vault().await?;
        self.orchestrator().await?;
        for n in 1..=workers {
            self.agent(n).await?;
        }
        let all = |nodes: &[Value]| {
            nodes
                .iter()
                .filter(|n| {
                    is(n, "role", "node") && is(n, "state", "ready") && n.get("connected") == Some(&Value::Bool(true))
                })
                .count()
        };
        while all(&self.nodes().await?) < usize::from(workers) {
            self.tick("the agents to connect").await?;
        }
        self.welcome()
    }

    async fn vault(&mut self) -> Result<(), Failure> {
        let socket = self.dir.join("vault.sock");
        let text = format!(
            "state_dir = {:?}\nsocket = {:?}\nallow_swap = true\n[listen]\njoin = \"127.0.0.1:0\"\nservice = \"127.0.0.1:0\"\npeer = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"\n",
            self.folder("vault")?,
            socket
        );
        self.start("holdfast-vault", "vault", &text, &[])?;
        while self.holdfast(&["status", "--vault-socket", &text_of(&socket)]).await.is_err() {
            self.tick("the vault's socket").await?;
        }
        if !self.dir.join("home/contexts").join(CONTEXT).join("context.toml").exists() {
            let founded = self.holdfast(&["init", "--vault-socket", &text_of(&socket)]).await?;
            files::write_private(&self.dir.join("keys.json"), format!("{founded:#}\n").as_bytes())?;
        }
        while self.holdfast(&["status"]).await.map_or(true, |s| !is(&s, "state", "ready")) {
            self.tick("the vault to be ready").await?;
        }
        self.app.out.note("the vault is ready");
        Ok(())
    }

    async fn orchestrator(&mut self) -> Result<(), Failure> {
        let state = self.folder("orchestrator")?;
        let text = format!("state_dir = {state:?}\nlisten = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"\n");
        let known = self.find(|n| is(n, "role", "orchestrator") && !is(n, "state", "removed")).await?;
        let join = if known.is_none() { self.join("orchestrator").await? } else { Vec::new() };
        self.start("holdfast-orchestrator", "orchestrator", &text, &join)?;
        if known.is_some() {
            return Ok(());
        }
        let applicant = self.wait_for_applicant().await?;
        let (id, key) = (word(&applicant, "id"), word(&applicant, "key"));
        self.holdfast(&["node", "approve", &id, "--key", &key]).await?;
        self.holdfast(&["mandate", "put", "--orchestrator", &id]).await?;
        self.app.out.note("the orchestrator is admitted, with a mandate for everything");
        Ok(())
    }

    async fn wait_for_applicant(&mut self) -> Result<Value, Failure> {
        loop {
            if let Some(n) = self.find(|n| is(n, "role", "orchestrator") && is(n, "state", "pending")).await? {
                return Ok(n);
            }
            self.tick("the orchestrator to apply").await?;
        }
    }

    async fn agent(&mut self, n: u8) -> Result<(), Failure> {
        let name = format!("agent-{n}");
        let is_new = !self.dir.join(&name).exists();
        let (state, runtime) = (self.folder(&name)?, self.folder(&format!("{name}-run"))?);
        let text = format!(
            "state_dir = {state:?}\nruntime_dir = {runtime:?}\nhealth = \"127.0.0.1:0\"\ncgroup = \"/{}/{name}\"\nallow_swap = true\n",
            self.cgroup()
        );
        let join = if is_new { self.join("node").await? } else { Vec::new() };
        self.start("holdfast-agent", &name, &text, &join)
    }

    /// A fresh join token in a file, and where to join: the arguments of a daemon's first start.
    async fn join(&self, role: &str) -> Result<Vec<String>, Failure> {
        let minted = self.holdfast(&["token", "create", "--role", role]).await?;
        let file = self.dir.join(format!("{role}-{}.token", word(&minted, "id")));
        files::write_private(&file, word(&minted, "token").as_bytes())?;
        let status = self.holdfast(&["status"]).await?;
        let addrs: Vec<String> = list(&status, "voters").iter().map(|v| word(v, "join_addr")).collect();
        Ok(vec!["--join-token-file".into(), text_of(&file), "--vault".into(), addrs.join(",")])
    }

    fn start(&mut self, program: &str, name: &str, config: &str, more: &[String]) -> Result<(), Failure> {
        let file = self.dir.join(format!("{name}.toml"));
        files::write_private(&file, config.as_bytes())?;
        let mut args = vec!["--config".to_owned(), text_of(&file)];
        args.extend_from_slice(more);
        self.daemons.push(Daemon::start(program, name, &self.dir, args)?);
        Ok(())
    }

    fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let dir = self.dir.join(name);
        files::make_private_dir(&dir).map(|()| dir)
    }

    async fn nodes(&self) -> Result<Vec<Value>, Failure> {
        Ok(list(&self.holdfast(&["node", "ls"]).await?, "nodes"))
    }
    async fn find(&self, wanted: impl Fn(&Value) -> bool) -> Result<Option<Value>, Failure> {
        Ok(self.nodes().await?.into_iter().find(|n| wanted(n)))
    }

    /// Calls this program with `--json` in the cluster's own home; the document it prints, or the failure that it means.
    async fn holdfast(&self, args: &[&str]) -> Result<Value, Failure> {
        let broken = |e: std::io::Error| {
            Failure::new(Code::Failed, format!("cannot run holdfast {}: {e}", args.join(" ")), "try again")
        };
        let mut command = Command::new(std::env::current_exe().map_err(broken)?);
        command.args(args).args(["--json", "--context", CONTEXT]).env("HOLDFAST_HOME", self.dir.join("home"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(broken)?;
        let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if output.status.success() {
            return Ok(document);
        }
        let said = document.get("error").unwrap_or(&Value::Null);
        Err(Failure::new(
            Code::Failed,
            format!("holdfast {}: {}", args.join(" "), word(said, "message")),
            word(said, "help"),
        ))
    }

    /// One pause of a wait: fails if a process has ended, or the time is over.
    async fn tick(&mut self, what: &str) -> Result<(), Failure> {
        self.daemons.iter_mut().try_for_each(Daemon::check)?;
        if Instant::now() >= self.deadline {
            let help = format!("see the logs in {}", self.dir.display());
            return Err(Failure::new(Code::Failed, format!("waited too long for {what}"), help));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    }

    fn welcome(&self) -> Result<(), Failure> {
        let home = self.dir.join("home");
        let pids: serde_json::Map<String, Value> =
            self.daemons.iter().map(|d| (d.name().to_owned(), d.pid().into())).collect();
        let document = json!({"dir": self.dir, "home": home, "context": CONTEXT, "pids": pids});
        self.app.out.show(&document, || {
            format!(
                "the cluster is up; everything of it is in {}\n\n  export HOLDFAST_HOME={} HOLDFAST_CONTEXT={CONTEXT}\n  holdfast status\n\nCtrl-C ends it\n",
                self.dir.display(), home.display()
            )
        })
    }

    /// Stays until interrupted, or until a process ends.
    async fn stay(&mut self, interrupted: &mut Interrupt) -> Result<(), Failure> {
        loop {
            tokio::select! {
                () = interrupted.wait() => return Ok(()),
                () = tokio::time::sleep(Duration::from_millis(500)) => self.daemons.iter_mut().try_for_each(Daemon::check)?,
            }
        }
    }

    /// Takes down what agents mounted below the cluster's folder: their keys and their tasks' secrets.
    fn unmount(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|l| l.split(' ').nth(1));
        let mut below: Vec<&str> = points.filter(|m| Path::new(m).starts_with(&self.dir)).collect();
        // What was mounted last comes down first.
        below.reverse();
        for point in below {
            if let Err(e) = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH) {
                self.app.out.note(&format!("cannot unmount {point}: {e}"));
            }
        }
    }

    /// The cgroup above those of its agents: the folder's, so that a cluster that is started again finds its containers there.
    fn cgroup(&self) -> String {
        let name = holdfast_types::sha256(&[self.dir.as_os_str().as_encoded_bytes()]).hex();
        format!("holdfast-dev-{}", name.get(..12).unwrap_or(&name))
    }

    /// Takes away the cgroups above the agents' containers, in every hierarchy, unless a container runs on.
    fn remove_cgroups(&self) {
        let root = Path::new("/sys/fs/cgroup");
        for hierarchy in files::folders(root).into_iter().chain([root.to_owned()]) {
            let mine = hierarchy.join(self.cgroup());
            if let Err(e) = files::remove_empty(&mine) {
                self.app.out.note(&format!("cannot remove {}: {e}", mine.display()));
            }
        }
    }

    async fn down(&mut self) -> Result<(), Failure> {
        self.app.out.note("ending");
        while let Some(daemon) = self.daemons.pop() {
            daemon.stop().await;
        }
        self.unmount();
        self.remove_cgroups();
        self.app.out.note(&format!("ended; its files are in {}", self.dir.display()));
        Ok(())
    }
}

fn is(v: &Value, key: &str, wanted: &str) -> bool {
    v.get(key).and_then(Value::as_str) == Some(wanted)
}
fn list(v: &Value, key: &str) -> Vec<Value> {
    v.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}
fn word(v: &Value, key: &str) -> String {
    v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
fn text_of(path: &Path) -> String {
    path.display().to_string()
}
