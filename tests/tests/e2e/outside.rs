//! Each daemon as its machine sees it: what it tells its supervisor, the ports that it opens and says that it opened,
//! and how its health listener answers.

use super::world::{Daemon, World, eventually};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use suite::programs::program;

/// How long the supervisor lets a daemon be silent, in microseconds: it says that it lives twice in that time.
const WATCHDOG: &str = "2000000";

/// The supervisor of a service: it hears what daemons say to `NOTIFY_SOCKET` (sd_notify(3)).
struct Supervisor {
    socket: PathBuf,
    ports: PathBuf,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Supervisor {
    fn of(w: &World) -> Self {
        let (socket, heard) = (w.path("notify.sock"), Arc::<Mutex<Vec<String>>>::default());
        let (ear, told) = (UnixDatagram::bind(&socket).unwrap(), heard.clone());
        // Never left unread: a daemon would wait for its turn. An empty message ends it.
        std::thread::spawn(move || {
            let mut message = [0_u8; 4096];
            while let Ok(length @ 1..) = ear.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                told.lock().unwrap().extend(text.lines().map(str::to_owned));
            }
        });
        Self { socket, ports: w.path("ports.json"), heard }
    }
    /// A daemon's command, as this supervisor starts it.
    fn command(&self, name: &str) -> Command {
        let mut c = Command::new(program(name).unwrap());
        c.env("NOTIFY_SOCKET", &self.socket).env("WATCHDOG_USEC", WATCHDOG).env_remove("WATCHDOG_PID");
        c.arg("--ports-file").arg(&self.ports);
        c
    }
    /// Forgets what it heard, and which ports a daemon had: another one starts.
    fn forget(&self) {
        self.heard.lock().unwrap().clear();
        drop(fs::remove_file(&self.ports));
    }
    fn times(&self, state: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|line| *line == state).count()
    }
    fn hears(&self, state: &str) {
        eventually(&format!("{state} to be told"), || (self.times(state) > 0).then_some(()));
    }
    /// The daemon goes on saying that it lives.
    fn hears_that_it_lives(&self) {
        let before = self.times("WATCHDOG=1");
        eventually("signs of life", || (self.times("WATCHDOG=1") > before + 1).then_some(()));
    }
    /// The daemon does not say any more that it lives: not for longer than it is given.
    fn hears_nothing_of_its_life(&self) {
        let mut last = (self.times("WATCHDOG=1"), Instant::now());
        eventually("silence", || {
            let now = self.times("WATCHDOG=1");
            if now != last.0 {
                last = (now, Instant::now());
            }
            (last.1.elapsed() > Duration::from_secs(3)).then_some(())
        });
    }
    /// The listeners that the ports file names.
    fn ports(&self) -> BTreeMap<String, u16> {
        let text = eventually("the ports file", || fs::read_to_string(&self.ports).ok());
        let listed: BTreeMap<String, SocketAddr> = serde_json::from_str(&text).unwrap();
        listed.into_iter().map(|(name, addr)| (name, addr.port())).collect()
    }
    /// The ports file names `names` and no others, and the process listens on those ports alone. The health port.
    fn opened(&self, pid: u32, names: &[&str]) -> u16 {
        let ports = self.ports();
        assert_eq!(ports.keys().map(String::as_str).collect::<Vec<_>>(), names);
        assert!(ports.values().all(|port| *port != 0), "{ports:?}");
        assert_eq!(listening(pid), ports.values().copied().collect::<BTreeSet<_>>(), "{ports:?}");
        ports["health"]
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(UnixDatagram::unbound().and_then(|s| s.send_to(&[], &self.socket)));
    }
}

/// The TCP ports on which a process listens, by the sockets that it has open (proc_pid_net(5)).
fn listening(pid: u32) -> BTreeSet<u16> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().filter_map(|e| fs::read_link(e.path()).ok());
    let inode = |link: PathBuf| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    let sockets: BTreeSet<String> = links.filter_map(inode).collect();
    let table = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // 0A is LISTEN; the tenth field is the socket's inode.
        let mine = fields.get(3) == Some(&"0A") && sockets.contains(*fields.get(9)?);
        mine.then(|| u16::from_str_radix(fields[1].rsplit(':').next().unwrap(), 16).unwrap())
    };
    [table("tcp"), table("tcp6")].iter().flat_map(|t| t.lines().filter_map(port).collect::<Vec<_>>()).collect()
}

/// The status and the body of an answer of a health listener.
pub fn get(health: u16, path: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(("127.0.0.1", health)).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(tcp, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn assert_ready(health: u16) {
    eventually("readiness", || (get(health, "/readyz") == (200, "ok\n".to_owned())).then_some(()));
    assert_eq!(get(health, "/livez"), (200, "ok\n".to_owned()));
}

/// Alive, and not ready, for this reason.
fn assert_not_ready(health: u16, reason: &str) {
    let expected = (503, format!("{reason}\n"));
    eventually(&format!("/readyz to say {reason:?}"), || (get(health, "/readyz") == expected).then_some(()));
    assert_eq!(get(health, "/livez"), (200, "ok\n".to_owned()));
}

/// A process whose first thread stands still, as by a debugger, while its others go on; until this is dropped (ptrace(2)).
struct Held(Child);

impl Held {
    fn hold(pid: u32) -> Self {
        // PTRACE_SEIZE and PTRACE_INTERRUPT, then __WALL.
        let program = "import ctypes, os, sys, time\n\
                       libc = ctypes.CDLL(None, use_errno=True)\n\
                       libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]\n\
                       pid = int(sys.argv[1])\n\
                       for request in (0x4206, 0x4207):\n\
                       \x20   if libc.ptrace(request, pid, None, None) != 0:\n\
                       \x20       sys.exit(os.strerror(ctypes.get_errno()))\n\
                       os.waitpid(pid, 0x40000000)\n\
                       print('held', flush=True)\n\
                       time.sleep(600)\n";
        let mut c = Command::new("python3");
        let mut holder = Self(c.args(["-c", program, &pid.to_string()]).stdout(Stdio::piped()).spawn().unwrap());
        let mut said = String::new();
        BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "held\n", "the thread cannot be held");
        holder
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_watchdog_hears_nothing_of_a_vault_whose_unix_socket_is_stuck() {
    let mut w = World::empty();
    w.kill_vault();
    let supervisor = Supervisor::of(&w);
    w.start_vault_with(|name| supervisor.command(name));
    stuck_and_back(&supervisor, w.vault.as_ref().unwrap().pid());
}

#[test]
fn the_watchdog_hears_nothing_of_an_agent_that_is_stuck_and_all_is_well_without_a_vault() {
    let mut w = World::founded();
    let n = w.add_node("eu");
    w.agents[n].kill();
    w.kill_vault();
    let supervisor = Supervisor::of(&w);
    let mut c = supervisor.command("holdfast-agent");
    c.arg("--config").arg(w.path(&format!("agent{n}.toml")));
    w.agents[n] = Daemon::spawn(c, w.path(&format!("agent{n}.log")));
    stuck_and_back(&supervisor, w.agents[n].pid());
}

/// Holds the main loop of `pid`, which is silent then and alive; and lets it go on.
fn stuck_and_back(supervisor: &Supervisor, pid: u32) {
    supervisor.hears("READY=1");
    supervisor.hears_that_it_lives();
    let held = Held::hold(pid);
    supervisor.hears_nothing_of_its_life();
    assert_eq!(get(supervisor.opened(pid, &["health"]), "/livez"), (200, "ok\n".to_owned()));
    drop(held);
    supervisor.hears_that_it_lives();
}

#[test]
fn a_sealed_vault_lives_is_not_ready_and_listens_on_its_health_port_alone() {
    let mut w = World::empty();
    w.kill_vault();
    (w.join, w.service) = (0, 0);
    w.write_vault_config();
    let supervisor = Supervisor::of(&w);
    let start = |w: &mut World| {
        supervisor.forget();
        w.start_vault_with(|name| supervisor.command(name));
        supervisor.hears("READY=1");
        w.vault.as_ref().unwrap().pid()
    };
    let pid = start(&mut w);
    supervisor.hears("STATUS=uninitialized");
    assert_not_ready(supervisor.opened(pid, &["health"]), "uninitialized");

    w.found();
    assert_ready(supervisor.opened(pid, &["health", "join", "peer", "service"]));
    supervisor.hears("STATUS=ready");
    supervisor.hears_that_it_lives();

    w.ok(&["seal"]);
    let vault = w.vault.as_mut().unwrap();
    assert_eq!(eventually("the sealed process to end", || vault.exited()), Some(75));
    let pid = start(&mut w);
    supervisor.hears("STATUS=sealed");
    assert_not_ready(supervisor.opened(pid, &["health"]), "sealed");
    supervisor.hears_that_it_lives();

    w.unlock();
    assert_ready(supervisor.opened(pid, &["health", "join", "peer", "service"]));
    supervisor.hears_that_it_lives();
    w.vault.as_ref().unwrap().signal(rustix::process::Signal::TERM);
    supervisor.hears("STOPPING=1");
}

#[test]
fn an_orchestrator_lives_while_it_waits_to_be_admitted_and_without_a_vault() {
    let mut w = World::founded();
    let supervisor = Supervisor::of(&w);
    let text = format!("state_dir = {:?}\nlisten = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"\n", w.text("orch"));
    fs::write(w.path("orch.toml"), text).unwrap();
    let token = w.token("orchestrator", &[]);
    let mut c = supervisor.command("holdfast-orchestrator");
    c.args(["--config", &w.text("orch.toml"), "--vault", &format!("127.0.0.1:{}", w.join), "--join-token-file"])
        .arg(token);
    w.orchestrator = Some(Daemon::spawn(c, w.path("orch.log")));
    let pid = w.orchestrator.as_ref().unwrap().pid();
    supervisor.hears("READY=1");
    let pending = |w: &World| -> Option<Value> {
        let all = w.json(&["node", "ls"]);
        all["nodes"].as_array()?.iter().find(|n| n["state"] == "pending").cloned()
    };
    let applicant = eventually("the orchestrator to wait", || pending(&w));
    let health = supervisor.opened(pid, &["health", "session"]);
    assert_not_ready(health, "joining the cluster");
    supervisor.hears_that_it_lives();

    let (id, key) = (applicant["id"].as_str().unwrap(), applicant["key"].as_str().unwrap());
    w.ok(&["node", "approve", id, "--key", key]);
    w.ok(&["mandate", "put", "--orchestrator", id]);
    assert_ready(health);
    supervisor.hears("STATUS=at work");
    supervisor.hears_that_it_lives();
    w.kill_vault();
    assert_not_ready(health, "the vault has not answered about leases");
    supervisor.hears_that_it_lives();
    w.orchestrator.as_ref().unwrap().signal(rustix::process::Signal::TERM);
    supervisor.hears("STOPPING=1");
}

#[test]
fn an_agent_is_ready_with_its_stream_to_the_vault_and_lives_without() {
    let mut w = World::founded();
    let n = w.add_node("eu");
    w.agents[n].kill();
    let supervisor = Supervisor::of(&w);
    let mut c = supervisor.command("holdfast-agent");
    c.arg("--config").arg(w.path(&format!("agent{n}.toml")));
    w.agents[n] = Daemon::spawn(c, w.path(&format!("agent{n}.log")));
    supervisor.hears("READY=1");
    let health = supervisor.opened(w.agents[n].pid(), &["health"]);
    assert_ready(health);
    supervisor.hears("STATUS=connected to the vault");
    supervisor.hears_that_it_lives();
    w.kill_vault();
    assert_not_ready(health, "no stream to the vault");
    supervisor.hears_that_it_lives();
    w.agents[n].signal(rustix::process::Signal::TERM);
    supervisor.hears("STOPPING=1");
}
