//! A whole cluster of real processes on this machine, in folders and on ports of its own, gone when the test ends.

use super::leftovers;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use suite::programs::program;

/// How long anything may take before the test says what it was waiting for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nobody has. Below those that the kernel gives to outgoing connections: one of them, free now, may be taken
/// by anybody's connection before a vault listens on it. Tests that run beside this one have ranges of their own.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|s| s.parse::<u16>().ok()).unwrap_or(3) % 4;
    let begin = u16::try_from(std::process::id() % 25).unwrap_or(0) * 120;
    loop {
        let port = 20_000 + slot * 3000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 3000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `f` gives something; panics with `what` if it does not.
pub fn eventually<T>(what: &str, f: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, f)
}
/// Waits for at most `patience` until `f` gives something; panics with `what` if it does not.
pub fn within<T>(patience: Duration, what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(t) = f() {
            return t;
        }
        assert!(Instant::now() < until, "waited {patience:?} for: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// The file of a key or token as the programs take it: for its owner alone.
pub fn write_key(path: &Path, key: &str) {
    fs::write(path, key).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// A daemon under test.
pub struct Daemon {
    child: Child,
    pub log: PathBuf,
}
impl Daemon {
    fn start(name: &str, args: &[&str], log: PathBuf) -> Self {
        let mut c = Command::new(program(name).unwrap());
        c.args(args);
        Self::spawn(c, log)
    }
    pub fn spawn(mut c: Command, log: PathBuf) -> Self {
        let out = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        c.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Self { child: c.spawn().unwrap_or_else(|e| panic!("cannot start {c:?}: {e}")), log }
    }
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
    /// Sends a signal; whether and how it ends is another question.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
    pub fn exited(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|s| s.code())
    }
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The cluster.
pub struct World {
    pub dir: tempfile::TempDir,
    run: tempfile::TempDir,
    pub join: u16,
    pub service: u16,
    pub session: u16,
    pub vault: Option<Daemon>,
    pub orchestrator: Option<Daemon>,
    pub agents: Vec<Daemon>,
    pub unlock_key: PathBuf,
    /// More lines of the vault's `[lives]`; they count once the configuration is written and the vault starts again.
    pub lives: &'static str,
    /// After how long without its node the orchestrator places a task elsewhere.
    pub node_lost_after: &'static str,
}

impl World {
    /// A founded, unlocked vault with short lifetimes; nothing else yet.
    pub fn founded() -> Self {
        let w = Self::empty();
        w.found();
        w
    }
    pub fn found(&self) {
        let init = self.json(&["init", "--vault-socket", &self.socket(), "--autolock"]);
        write_key(&self.unlock_key, init["unlock_keys"][0].as_str().unwrap());
    }
    /// A vault that waits for `init`.
    pub fn empty() -> Self {
        Self::with_lives("")
    }
    /// The same with more lifetimes said.
    pub fn with_lives(lives: &'static str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make containers and need root");
        let dir = tempfile::Builder::new().prefix("hf-e2e-").tempdir().unwrap();
        let run = tempfile::Builder::new().prefix("hf-run-").tempdir_in("/dev/shm").unwrap();
        let unlock_key = dir.path().join("unlock.key");
        let mut w = Self {
            dir,
            run,
            join: free_port(),
            service: free_port(),
            session: free_port(),
            vault: None,
            orchestrator: None,
            agents: Vec::new(),
            unlock_key,
            lives,
            node_lost_after: "5s",
        };
        w.write_vault_config();
        w.start_vault();
        w
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
    pub fn socket(&self) -> String {
        self.text("vault.sock")
    }
    pub fn write_vault_config(&self) {
        let text = format!(
            "state_dir = {:?}\nsocket = {:?}\n[listen]\njoin = \"127.0.0.1:{}\"\nservice = \"127.0.0.1:{}\"\npeer = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"\n\
             [lives]\nlease = \"6s\"\nstatus_every = \"2s\"\n{}\n",
            self.text("vault"),
            self.socket(),
            self.join,
            self.service,
            self.lives
        );
        fs::write(self.path("vault.toml"), text).unwrap();
    }
    pub fn start_vault(&mut self) {
        self.start_vault_with(|name| Command::new(program(name).unwrap()));
    }
    /// Starts the vault through a command of the test's, as with another clock.
    pub fn start_vault_with(&mut self, command: impl Fn(&str) -> Command) {
        let mut c = command("holdfast-vault");
        c.args(["--config", &self.text("vault.toml")]);
        self.vault = Some(Daemon::spawn(c, self.path("vault.log")));
        let socket = self.socket();
        eventually("the vault's socket", || std::os::unix::net::UnixStream::connect(&socket).ok());
    }
    /// SIGKILL, and a new process that is unlocked.
    pub fn restart_vault(&mut self) {
        self.kill_vault();
        self.start_vault();
        self.unlock();
    }
    pub fn kill_vault(&mut self) {
        self.vault.as_mut().unwrap().kill();
    }
    pub fn unlock(&self) {
        self.ok(&["unlock", "--vault-socket", &self.socket(), "--key-file", self.unlock_key.to_str().unwrap()]);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(program("holdfast").unwrap());
        c.args(args).env("HOLDFAST_HOME", self.path("home")).env("NO_COLOR", "1").stdin(Stdio::null());
        c
    }
    /// Runs the operator's tool.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
    /// Runs it beside the test; what it prints goes to `out`, and it ends with the test.
    pub fn beside(&self, args: &[&str], out: &str) -> Daemon {
        let log = self.path(out);
        let file = fs::File::create(&log).unwrap();
        let mut c = self.command(args);
        Daemon { child: c.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap(), log }
    }
    /// Runs it with something on its standard input.
    pub fn cli_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut c = self.command(args);
        let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }
    /// Runs it; it must succeed. Its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let o = self.cli(args);
        assert!(o.status.success(), "holdfast {args:?}: {}\n{}", o.status, String::from_utf8_lossy(&o.stderr));
        String::from_utf8(o.stdout).unwrap()
    }
    /// Runs it with `--json`; it must succeed.
    pub fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }
    /// Runs it; it must fail with this exit code. Standard error.
    pub fn refused(&self, args: &[&str], code: i32) -> String {
        let o = self.cli(args);
        let text = String::from_utf8_lossy(&o.stderr).into_owned();
        assert_eq!(o.status.code(), Some(code), "holdfast {args:?}: {text}");
        text
    }
    pub fn put_secret(&self, name: &str, value: &[u8], more: &[&str]) {
        let o = self.cli_with(&[&["secret", "put", name], more].concat(), value);
        assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    }
    pub fn token(&self, role: &str, more: &[&str]) -> PathBuf {
        let token = self.ok(&[&["token", "create", "--role", role], more].concat());
        let path = self.path(&format!("token-{role}-{}", free_port()));
        write_key(&path, &token);
        path
    }

    /// An orchestrator that is approved, has a mandate for everything and is at work.
    pub fn add_orchestrator(&mut self) {
        let (dir, port, lost) = (self.text("orch"), self.session, self.node_lost_after);
        let text = format!(
            "state_dir = {dir:?}\nlisten = \"127.0.0.1:{port}\"\nhealth = \"127.0.0.1:0\"\nnode_lost_after = {lost:?}\n"
        );
        fs::write(self.path("orch.toml"), text).unwrap();
        let token = self.token("orchestrator", &[]);
        let args = [
            "--config",
            &self.text("orch.toml"),
            "--join-token-file",
            token.to_str().unwrap(),
            "--vault",
            &format!("127.0.0.1:{}", self.join),
        ];
        self.orchestrator = Some(Daemon::start("holdfast-orchestrator", &args, self.path("orch.log")));
        let (id, key) = eventually("the orchestrator to ask for approval", || {
            let all = self.json(&["node", "ls"]);
            let one = all["nodes"]
                .as_array()?
                .iter()
                .find(|n| n["role"] == "orchestrator" && n["state"] == "pending")?
                .clone();
            Some((one["id"].as_str()?.to_owned(), one["key"].as_str()?.to_owned()))
        });
        self.ok(&["node", "approve", &id, "--key", &key]);
        self.ok(&["mandate", "put", "--orchestrator", &id]);
        // The vault names it once it has joined and said where it is, over its stream.
        eventually("the orchestrator to be at work", || {
            self.json(&["status"])["orchestrators"].as_array().is_some_and(|o| !o.is_empty()).then_some(())
        });
    }
    pub fn start_orchestrator(&mut self) {
        self.start_orchestrator_with(&[]);
    }
    pub fn start_orchestrator_with(&mut self, more: &[&str]) {
        let config = self.text("orch.toml");
        let args = [&["--config", config.as_str()], more].concat();
        self.orchestrator = Some(Daemon::start("holdfast-orchestrator", &args, self.path("orch.log")));
    }

    fn agent_name(&self, n: usize) -> String {
        format!("agent{n}")
    }
    pub fn agent_state(&self, n: usize) -> PathBuf {
        self.path(&self.agent_name(n))
    }
    pub fn agent_run(&self, n: usize) -> PathBuf {
        self.run.path().join(self.agent_name(n))
    }
    /// The cgroup above those of its agents.
    pub fn cgroup(&self) -> String {
        self.dir.path().file_name().unwrap().to_str().unwrap().to_owned()
    }
    pub fn write_agent_config(&self, n: usize, more: &str) {
        let run = self.agent_run(n);
        fs::create_dir_all(&run).unwrap();
        let text = format!(
            "state_dir = {:?}\nruntime_dir = {:?}\nhealth = \"127.0.0.1:0\"\ncgroup = \"/{}/{n}\"\n{more}\n",
            self.agent_state(n),
            run,
            self.cgroup()
        );
        fs::write(self.path(&format!("agent{n}.toml")), text).unwrap();
    }
    /// A node that joined with a token of its own.
    pub fn add_node(&mut self, zone: &str) -> usize {
        let n = self.start_joining(zone);
        eventually("the node to be connected", || {
            let all = self.json(&["node", "ls"]);
            let up = |v: &Value| v["role"] == "node" && v["connected"] == true;
            (all["nodes"].as_array()?.iter().filter(|v| up(v)).count() > n).then_some(())
        });
        n
    }
    /// An agent that has a token of its own.
    pub fn start_joining(&mut self, zone: &str) -> usize {
        let n = self.agents.len();
        self.write_agent_config(n, "");
        let token = self.token("node", &["--zone", zone]);
        let vault = format!("127.0.0.1:{}", self.join);
        self.start_agent(n, &["--join-token-file", token.to_str().unwrap(), "--vault", &vault]);
        n
    }
    pub fn start_agent(&mut self, n: usize, more: &[&str]) {
        let config = self.text(&format!("agent{n}.toml"));
        let d = Daemon::start(
            "holdfast-agent",
            &[&["--config", config.as_str()], more].concat(),
            self.path(&format!("agent{n}.log")),
        );
        if n < self.agents.len() { self.agents[n] = d } else { self.agents.push(d) }
    }

    /// An OCI layout with busybox in it, made here.
    pub fn busybox(&self) -> String {
        let dir = self.path("busybox-image");
        if !dir.exists() {
            super::image::write_layout(&dir, &[("bin/busybox", &fs::read("/bin/busybox").unwrap())]);
        }
        format!("oci-layout:{}", dir.display())
    }
    pub fn write_spec(&self, name: &str, body: &str) -> String {
        let path = self.path(&format!("{name}.toml"));
        fs::write(&path, body).unwrap();
        path.to_str().unwrap().to_owned()
    }
    /// The service of the story: prints the hash of its secret and stays.
    pub fn web_spec(&self, replicas: u32) -> String {
        let image = self.busybox();
        self.write_spec(
            "web",
            &format!(
                "name = \"web\"\nnamespace = \"shop\"\nimage = {image:?}\nreplicas = {replicas}\n\
                 command = [\"/bin/busybox\", \"sh\", \"-c\", \"echo secret $(/bin/busybox sha256sum < /run/secrets/db-password); while true; do /bin/busybox sleep 1; done\"]\n\
                 secrets = [{{ name = \"db-password\", target = \"db-password\", mode = 0o400 }}]\n"
            ),
        )
    }
    /// Tasks of a service, as `service ps` shows them.
    pub fn tasks(&self, service: &str) -> Vec<Value> {
        self.json(&["service", "ps", service])["tasks"].as_array().cloned().unwrap_or_default()
    }
    pub fn running(&self, service: &str) -> Vec<Value> {
        self.tasks(service).into_iter().filter(|t| t["task_state"] == "running" && t["state"] == "running").collect()
    }
    pub fn everything() -> Self {
        let mut w = Self::founded();
        w.add_orchestrator();
        w.add_node("eu");
        w
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["vault.log", "orch.log", "agent0.log", "agent1.log"] {
                let text = fs::read_to_string(self.path(log)).unwrap_or_default();
                let tail: Vec<_> = text.lines().rev().take(25).collect();
                eprintln!("---- {log}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
        self.agents.clear();
        for n in 0..8 {
            leftovers::end_tasks(&self.agent_state(n));
        }
        leftovers::unmount_below(self.run.path());
        leftovers::unmount_below(self.dir.path());
        leftovers::remove_cgroups(&self.cgroup());
    }
}
