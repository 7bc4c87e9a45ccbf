//! Several voters of one cluster on this machine, each with its own disk, socket, ports and log.

use crate::world::{Daemon, PATIENCE, World, eventually, free_port, within, write_key};
use holdfast_transport::rpc::local_client::LocalClient;
use holdfast_types::Digest;
use holdfast_wire::v1;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use suite::programs::program;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

/// Calls a voter over its unix socket, as root on its machine.
pub fn local<T>(
    socket: &str,
    call: impl AsyncFnOnce(LocalClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<T, Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let path = PathBuf::from(socket);
        let dial = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let patience = Duration::from_secs(10);
        let endpoint = Endpoint::from_static("http://vault.socket").timeout(patience).connect_timeout(patience);
        let channel = endpoint.connect_with_connector(dial).await.map_err(|e| Status::unavailable(e.to_string()))?;
        call(LocalClient::new(channel)).await.map(Response::into_inner)
    })
}

/// One voter: its place, and its process while there is one.
pub struct Voter {
    /// 0 until it is one.
    pub id: u64,
    pub join: u16,
    pub service: u16,
    pub peer: u16,
    pub daemon: Option<Daemon>,
    /// The address that it listens on.
    pub host: String,
    /// What its process is started through, such as a network of its own.
    pub through: Vec<String>,
    /// More lines of its configuration, before the first table.
    pub more: String,
    /// More lifetimes of its configuration.
    pub lives: &'static str,
    dir: PathBuf,
    name: String,
}

impl Voter {
    /// A place called `name` in the world's folder.
    pub fn place(w: &World, name: &str) -> Self {
        let (join, service, peer) = (free_port(), free_port(), free_port());
        Self {
            id: 0,
            join,
            service,
            peer,
            daemon: None,
            host: "127.0.0.1".to_owned(),
            through: Vec::new(),
            more: String::new(),
            lives: "",
            dir: w.dir.path().to_owned(),
            name: name.to_owned(),
        }
    }
    fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}{ending}", self.name))
    }
    /// The folder of its state.
    pub fn state_dir(&self) -> PathBuf {
        self.path("")
    }
    pub fn socket(&self) -> String {
        self.path(".sock").display().to_string()
    }
    /// Writes its configuration, with more lines at the end of `[lives]`.
    pub fn configure(&self, lives: &str) {
        let (state, socket, more, host) = (self.state_dir(), self.socket(), &self.more, &self.host);
        let (join, service, peer, own) = (self.join, self.service, self.peer, self.lives);
        let text = format!(
            "state_dir = {state:?}\nsocket = {socket:?}\n{more}\n[listen]\njoin = \"{host}:{join}\"\n\
             service = \"{host}:{service}\"\npeer = \"{host}:{peer}\"\nhealth = \"127.0.0.1:0\"\n\
             [lives]\nlease = \"6s\"\nstatus_every = \"2s\"\n{lives}\n{own}\n"
        );
        fs::write(self.path(".toml"), text).unwrap();
    }
    /// Its process as a command that was not started.
    pub fn command(&self) -> Command {
        let vault = program("holdfast-vault").unwrap();
        let mut c = Command::new(self.through.first().map_or(vault.as_os_str(), OsStr::new));
        if let Some((_, rest)) = self.through.split_first() {
            c.args(rest).arg(&vault);
        }
        c.arg("--config").arg(self.path(".toml"));
        c
    }
    pub fn start(&mut self, more: &[&str]) {
        let mut c = self.command();
        c.args(more);
        self.spawn(c);
    }
    /// Starts it by a command of the test's, as with another clock.
    pub fn spawn(&mut self, command: Command) {
        self.daemon = Some(Daemon::spawn(command, self.path(".log")));
        let (socket, daemon) = (self.socket(), self.daemon.as_mut().unwrap());
        // One that ends instead has its reason in its log.
        let up = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        eventually("the voter's socket, or its end", || (up() || daemon.exited().is_some()).then_some(()));
    }
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.path(".log")).unwrap_or_default()
    }
    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }
    /// SIGTERM, and its end, which has to be a good one.
    pub fn stop(&mut self) {
        let daemon = self.daemon.as_mut().unwrap();
        daemon.signal(Signal::TERM);
        let code = within(Duration::from_secs(20), "the voter to end", || daemon.exited());
        assert_eq!(code, Some(0), "{}", self.log_text());
        self.daemon = None;
    }
    /// Its process, while there is one.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().pid()
    }
    /// Whether its process is over.
    pub fn ended(&mut self) -> bool {
        self.daemon.as_mut().is_none_or(|d| d.exited().is_some())
    }
    /// Waits for its end by a kill, or for what `over` says and `more` than that. True if it was killed.
    pub fn killed(&mut self, more: Duration, mut over: impl FnMut() -> bool) -> bool {
        let mut since: Option<Instant> = None;
        within(PATIENCE * 2, "the voter's end, or that of what it does", || {
            if self.ended() {
                return Some(true);
            }
            let quiet = over() && since.get_or_insert_with(Instant::now).elapsed() > more;
            quiet.then_some(false)
        })
    }
    pub fn signal(&self, signal: Signal) {
        self.daemon.as_ref().unwrap().signal(signal);
    }
    /// What it says of itself; `None` while nobody answers.
    pub fn ask(&self) -> Option<v1::SealStatusReply> {
        local(&self.socket(), async |mut c| c.seal_status(v1::Ack {}).await).ok()
    }
    pub fn state(&self) -> String {
        self.ask().map(|s| s.state).unwrap_or_default()
    }
    pub fn becomes(&self, state: &str) {
        let name = &self.name;
        eventually(&format!("{name} to be {state}, not {:?}", self.state()), || (self.state() == state).then_some(()));
    }
    pub fn unlock(&self, w: &World) {
        self.unlock_with(w, &w.unlock_key);
        self.becomes("ready");
    }
    pub fn unlock_with(&self, w: &World, key: &Path) {
        w.ok(&["unlock", "--vault-socket", &self.socket(), "--key-file", key.to_str().unwrap()]);
    }
    /// A new process that is open again.
    pub fn come_back(&mut self, w: &World) {
        self.start(&[]);
        self.becomes("sealed");
        self.unlock(w);
    }
    /// `seal`: its process ends, and the next one has no key.
    pub fn seal(&mut self, w: &World) {
        w.ok(&["seal", "--vault-socket", &self.socket()]);
        let daemon = self.daemon.as_mut().unwrap();
        assert_eq!(eventually("the sealed process to end", || daemon.exited()), Some(75));
        self.start(&[]);
        self.becomes("sealed");
    }
}

/// The cluster.
pub struct Voters {
    pub all: Vec<Voter>,
    /// Keys and folders, and whoever is no voter.
    pub w: World,
    /// What `init` printed.
    pub init: Value,
    pub recovery_key: PathBuf,
    place: fn(&World, &str) -> Voter,
    /// How many were ever made.
    places: usize,
}

impl Voters {
    /// So many voters, open, each of which counts.
    pub fn founded(count: usize) -> Self {
        Self::founded_at(count, Voter::place)
    }
    /// The same in places of the test's own.
    pub fn founded_at(count: usize, place: fn(&World, &str) -> Voter) -> Self {
        let mut v = Self::alone_at(&["--autolock"], place);
        write_key(&v.w.unlock_key, v.init["unlock_keys"][0].as_str().unwrap());
        for _ in 1..count {
            v.add();
        }
        v
    }
    /// One voter, founded by `init` with these options.
    pub fn alone(options: &[&str]) -> Self {
        // Where the world's only vault would lie, so that nodes and orchestrators find it.
        Self::alone_at(options, Voter::place)
    }
    fn alone_at(options: &[&str], place: fn(&World, &str) -> Voter) -> Self {
        let mut w = World::empty();
        w.kill_vault();
        w.vault = None;
        let mut first = place(&w, "vault");
        (w.join, w.service) = (first.join, first.service);
        first.configure("");
        first.start(&[]);
        let init = w.json(&[&["init", "--vault-socket", &first.socket()], options].concat());
        first.becomes("ready");
        first.id = first.ask().unwrap().voter_id;
        let recovery_key = w.path("recovery.key");
        write_key(&recovery_key, init["recovery_keys"][0].as_str().unwrap());
        Self { all: vec![first], w, init, recovery_key, place, places: 1 }
    }
    /// A place for one more, whose process joins with a token of its own and waits to be admitted: its id and key.
    pub fn apply(&mut self) -> (Voter, String, String) {
        // A name is never used again: another may lie there still.
        self.places += 1;
        let mut voter = (self.place)(&self.w, &format!("vault{}", self.places));
        voter.configure("");
        let token = self.w.token("voter", &[]);
        let vaults: Vec<String> = self.all.iter().map(|v| format!("{}:{}", v.host, v.join)).collect();
        voter.start(&["--join-token-file", token.to_str().unwrap(), "--vault", &vaults.join(",")]);
        let (id, key) = waits(&voter);
        (voter, id, key)
    }
    /// One more voter, that counts when this returns; its place among all.
    pub fn add(&mut self) -> usize {
        let (mut voter, id, key) = self.apply();
        self.w.ok(&["voter", "admit", &id, "--key", &key]);
        voter.becomes("ready");
        voter.id = voter.ask().unwrap().voter_id;
        let number = voter.id;
        self.all.push(voter);
        eventually(&format!("voter {number} to count"), || {
            self.rows().iter().any(|r| r["id"] == number && r["state"] == "ready").then_some(())
        });
        self.all.len() - 1
    }
    /// The voters as `status` shows them.
    pub fn rows(&self) -> Vec<Value> {
        self.w.json(&["status"])["voters"].as_array().cloned().unwrap_or_default()
    }
    /// The place of the leader, and its term.
    pub fn leader(&self) -> (usize, u64) {
        eventually("a leader", || {
            let rows = self.rows();
            let row = rows.iter().find(|r| r["leader"] == true)?;
            let at = self.all.iter().position(|v| row["id"] == v.id)?;
            Some((at, row["term"].as_u64()?))
        })
    }
    /// Another place than the leader's.
    pub fn follower(&self) -> usize {
        let (leader, _) = self.leader();
        (0..self.all.len()).find(|n| *n != leader).unwrap()
    }
    /// All voters are up and follow.
    pub fn settle(&self) {
        let count = self.all.len();
        eventually("every voter to be ready", || {
            let ready = self.rows().iter().filter(|r| r["state"] == "ready").count();
            (ready == count).then_some(())
        });
    }
    /// Leaves the tool no address but that of the voter at `n`, and no certificate from before.
    pub fn know_only(&self, n: usize) {
        let context = self.w.path("home").join("contexts/default");
        drop(fs::remove_file(context.join("login.pb")));
        let path = context.join("context.toml");
        let mut text: toml::Table = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let host = &self.all[n].host;
        let only = |port: u16| toml::Value::Array(vec![toml::Value::String(format!("{host}:{port}"))]);
        text.insert("service-addrs".to_owned(), only(self.all[n].service));
        text.insert("join-addrs".to_owned(), only(self.all[n].join));
        fs::write(&path, toml::to_string(&text).unwrap()).unwrap();
    }
    /// Stores a value; the version that it became.
    pub fn put(&self, name: &str, value: &[u8]) -> u64 {
        let o = self.w.cli_with(&["secret", "put", name, "--json"], value);
        assert!(o.status.success(), "{name}: {}", String::from_utf8_lossy(&o.stderr));
        let told: Value = serde_json::from_slice(&o.stdout).unwrap();
        told["version"].as_u64().unwrap()
    }
    /// The version that a secret has; 0 is none.
    pub fn version(&self, name: &str) -> u64 {
        let all = self.w.json(&["secret", "ls"]);
        let named =
            |s: &&Value| format!("{}/{}", s["namespace"].as_str().unwrap(), s["name"].as_str().unwrap()) == name;
        all["secrets"].as_array().unwrap().iter().find(named).map_or(0, |s| s["version"].as_u64().unwrap())
    }
    /// The voter at `n` goes without a word.
    pub fn kill(&mut self, n: usize) {
        self.all[n].kill();
    }
    pub fn come_back(&mut self, n: usize) {
        let Self { all, w, .. } = self;
        all[n].come_back(w);
    }
    pub fn seal(&mut self, n: usize) {
        let Self { all, w, .. } = self;
        all[n].seal(w);
    }
    /// Every voter's socket as options of the tool.
    pub fn sockets(&self) -> Vec<String> {
        self.all.iter().flat_map(|v| ["--vault-socket".to_owned(), v.socket()]).collect()
    }
    /// The log is whole, and of one piece.
    pub fn verifies(&self) {
        assert!(self.w.ok(&["log", "verify"]).starts_with("ok "));
    }
}

/// The id and the key with which a process waits to be admitted as a voter.
pub fn waits(voter: &Voter) -> (String, String) {
    eventually("the voter to wait for its admission", || {
        let told = voter.ask()?;
        let key = Digest::from_slice(&told.spki_sha256)?.hex();
        (told.state == "joining" && !told.applicant.is_empty()).then_some((told.applicant, key))
    })
}

impl Drop for Voters {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for voter in &self.all {
                let text = voter.log_text();
                let tail: Vec<_> = text.lines().rev().take(25).collect();
                eprintln!("---- {}\n{}", voter.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}
