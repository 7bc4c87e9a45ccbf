//! Wiring, in the order in which rights are given up: configuration, confinement, runtime, socket; and how it ends.
//!
//! What happens between an opened disk and open ports is in `open`; how a new voter gets its disk, in `found` and `joining`.

use crate::config::{self, Config};
use crate::disk::credential;
use crate::disk::slots::Slots;
use crate::found::{self, VOTER_DIR, disk};
use crate::gate::{Gate, Phase};
use crate::harden::{self, Hardened, Paths};
use crate::heap;
use crate::hsm::{self, Token};
use crate::joining;
use crate::members;
use crate::socket;
use holdfast_transport::daemon::{
    Health, Heartbeat, LogFormat, PortsFile, Readiness, Signals, exit_code, init_logging, systemd,
};
use holdfast_transport::failure::Failure;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What to do where the process cannot be confined.
const HARDEN_HELP: &str = "see docs/reference/config.md, `harden` and `allow_swap`";

/// Exit status of a sealed voter (EX_TEMPFAIL): the supervisor starts it again.
///
/// Sealing = exit: only a new process is free of every copy of a key, and a confined process can start none itself
/// (docs/decisions/0003).
pub const SEALED_EXIT: u8 = 75;

/// The command line.
#[derive(Debug)]
pub struct Args {
    /// Configuration file.
    pub config: PathBuf,
    /// Only look whether the configuration has faults.
    pub check_config: bool,
    /// Where the addresses that were bound are written.
    pub ports_file: Option<PathBuf>,
    /// Log lines are JSON.
    pub log_json: bool,
    /// How to join a cluster that runs.
    pub join: Join,
}

/// What a voter joins a cluster with, on its first start.
#[derive(Debug, Clone, Default)]
pub struct Join {
    /// File with a join token for the role of a voter.
    pub token_file: Option<PathBuf>,
    /// The cluster's join listeners.
    pub vault: Vec<String>,
}

/// The process: its phase, and what outlives a phase.
pub struct Daemon {
    /// Configuration.
    pub config: Config,
    /// What confines it less than it could be.
    pub(crate) weak: Vec<&'static str>,
    /// Where it stands.
    pub gate: Gate,
    /// The token, if one is configured.
    pub(crate) token: Option<Arc<Token>>,
    /// Cancelled by `seal`: the process drops its keys by ending.
    pub seal: CancellationToken,
    /// Cancelled when it ends: listeners and tasks end with it.
    pub(crate) stop: CancellationToken,
    /// Beats with the periodic work of an open voter.
    pub(crate) work: Heartbeat,
    pub(crate) readiness: Readiness,
    /// Cancelled by a signal: leadership is handed over before anything stops.
    told: CancellationToken,
    failed: CancellationToken,
    failure: Mutex<Option<Failure>>,
    ports: Mutex<PortsFile>,
    ports_path: Option<PathBuf>,
}

/// The daemon from its arguments to its exit code.
pub fn main(args: Args) -> ExitCode {
    init_logging(if args.log_json { LogFormat::Json } else { LogFormat::Text });
    match start(args) {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Sealed) => {
            tracing::info!("sealed: every key is gone with this process; its supervisor starts it again");
            ExitCode::from(SEALED_EXIT)
        }
        Err(failure) => exit_code(Err(failure)),
    }
}

fn start(args: Args) -> Result<Ended, Failure> {
    heap::limit();
    let config = config::load(&args.config, |k| std::env::var(k).ok())?;
    if args.check_config {
        return Ok(Ended::Stopped);
    }
    prepare_dirs(&config)?;
    // What speaks with the token is a process of its own, which a confined one could not start.
    let token = config.hsm.as_ref().map(|h| Arc::new(Token::start(h)));
    let refused = |e: harden::HardenError| Failure::failed("harden", e.to_string()).help(HARDEN_HELP);
    let hardened = config.harden.then(|| give_up_rights(&config, &args)).transpose();
    let weak = Hardened::weaknesses(hardened.map_err(refused)?);
    weak.iter().for_each(|what| tracing::warn!("{what}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::failed("io", format!("cannot start the runtime: {e}")))?;
    runtime.block_on(run(config, weak, token, args))
}

fn prepare_dirs(config: &Config) -> Result<(), Failure> {
    let make = |dir: &Path| std::fs::create_dir_all(dir).map_err(|e| Failure::disk("create", dir, &e));
    make(&config.state_dir)?;
    std::fs::set_permissions(&config.state_dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(|e| Failure::disk("protect", &config.state_dir, &e))?;
    make(config.socket.parent().unwrap_or(Path::new("/")))
}

fn give_up_rights(config: &Config, args: &Args) -> Result<Hardened, harden::HardenError> {
    let parent = |p: &Path| p.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let mut write = vec![config.state_dir.clone(), parent(&config.socket)];
    write.extend(args.ports_file.as_deref().map(parent));
    // A token file that is gone is missed only by a voter that has not joined, which says so.
    let token = args.join.token_file.clone().filter(|f| f.is_file());
    let credentials = credential::directory().filter(|d| d.is_dir());
    let read = std::iter::once(parent(&args.config)).chain(token).chain(credentials).collect();
    let hardened = harden::forbid_dumps()?
        .forbid_new_privileges()?
        .check_swap(config.allow_swap)?
        .confine_files(&Paths { write, read })?
        .filter_syscalls()?;
    tracing::info!(swap = ?hardened.swap, files = ?hardened.files, "gave up rights");
    Ok(hardened)
}

enum Ended {
    Stopped,
    Sealed,
}

async fn run(config: Config, weak: Vec<&'static str>, token: Option<Arc<Token>>, args: Args) -> Result<Ended, Failure> {
    let io = |what: &'static str| move |e: std::io::Error| Failure::failed("io", format!("cannot {what}: {e}"));
    let signals = Signals::listen().map_err(io("listen to signals"))?;
    found::clean(&config.state_dir)?;
    found::exchange(&config.state_dir)?;
    let phase = first_phase(&config, &args.join)?;
    let joins = matches!(phase, Phase::Joining(_));
    let readiness = Readiness::not_yet(phase.word());
    let health = Health::bind(config.health, readiness.clone()).await?;
    let stop = CancellationToken::new();
    let daemon = Arc::new(Daemon {
        config,
        weak,
        gate: Gate::new(phase).map_err(disk)?,
        token,
        seal: CancellationToken::new(),
        failed: CancellationToken::new(),
        failure: Mutex::default(),
        stop: stop.clone(),
        told: signals.stop.clone(),
        work: Heartbeat::default(),
        readiness,
        ports: Mutex::new(PortsFile::new().with("health", health.addr())),
        ports_path: args.ports_file,
    });
    daemon.gate.unsaid.keep_in(daemon.voter_dir());
    let healthy = tokio::spawn(health.serve(stop.clone()));
    let socket = socket::bind(&daemon.config.socket)?;
    let local = socket::serve(socket, Arc::clone(&daemon), stop.clone());
    if let Some(token) = &daemon.token {
        tokio::spawn(hsm::watch(Arc::clone(token), stop.clone()));
    }
    daemon.unlock_alone().await?;
    daemon.write_ports()?;
    if joins {
        tokio::spawn(joining::run(Arc::clone(&daemon), args.join));
    }
    systemd::ready();
    systemd::status(daemon.gate.phase().word());
    let serving = Heartbeat::default();
    let watch = tokio::spawn(systemd::watchdog(daemon.alive(&serving), stop.clone()));
    let ended = serving.during(daemon.until_end(local)).await;
    // A moment for answers that are on their way, then the log is closed; what was acknowledged is on disk anyway.
    stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    if let (Phase::Open(cluster), Ok(_)) = (&*daemon.gate.phase(), &ended) {
        cluster.standing.rest().await;
    }
    drop((healthy, watch));
    ended
}

/// What this voter is by what lies on its disk.
fn first_phase(config: &Config, join: &Join) -> Result<Phase, Failure> {
    let voter_dir = config.state_dir.join(VOTER_DIR);
    let place = joining::Place::of(&config.state_dir, &config.socket);
    if voter_dir.exists() {
        place.clean()?;
        return Slots::load(&voter_dir).map(Phase::Sealed).map_err(disk);
    }
    let joins = join.token_file.is_some() || place.is_under_way();
    Ok(if joins { Phase::Joining(None) } else { Phase::Uninitialized })
}

impl Daemon {
    /// Where this voter's disk is.
    pub fn voter_dir(&self) -> PathBuf {
        self.config.state_dir.join(VOTER_DIR)
    }

    /// Whether this process does its work: it serves the unix socket, and what an open voter does by itself is done.
    fn alive(self: &Arc<Self>, serving: &Heartbeat) -> impl Fn(Duration) -> bool + Send + use<> {
        let (daemon, serving) = (Arc::clone(self), serving.clone());
        move |patience| {
            let is_open = matches!(*daemon.gate.phase(), Phase::Open(_));
            serving.has_beaten_within(patience) && (!is_open || daemon.work.has_beaten_within(patience))
        }
    }

    /// Serves the unix socket until there is a reason to end.
    async fn until_end(
        &self,
        local: impl Future<Output = Result<(), tonic::transport::Error>>,
    ) -> Result<Ended, Failure> {
        let reason = async {
            tokio::select! {
                () = self.told.cancelled() => Ok(Ended::Stopped),
                () = self.seal.cancelled() => Ok(Ended::Sealed),
                () = self.failed.cancelled() => Err(self.take_failure()),
            }
        };
        let goodbye = async {
            let ended = reason.await?;
            // Whoever leads hands over first: nobody has to find out that the leader is gone.
            if let Phase::Open(cluster) = &*self.gate.phase() {
                self.readiness.not_ready("stopping");
                members::hand_over(cluster).await;
            }
            Ok(ended)
        };
        tokio::select! {
            ended = goodbye => ended,
            served = local => {
                served.map_err(|e| Failure::failed("io", format!("the unix socket failed: {e}")))?;
                Ok(Ended::Stopped)
            }
        }
    }

    /// Ends the process with `failure`.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.failed.cancel();
    }

    fn take_failure(&self) -> Failure {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.unwrap_or_else(|| Failure::failed("failed", "this voter met an error of its own; see the lines above"))
    }

    /// Cancelled when this voter is told to stop.
    pub(crate) fn told_to_stop(&self) -> &CancellationToken {
        &self.told
    }

    /// Notes where a listener is bound.
    pub(crate) fn bound(&self, name: &str, addr: SocketAddr) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        *ports = std::mem::take(&mut *ports).with(name, addr);
    }

    /// Writes the ports file, if one was asked for.
    pub(crate) fn write_ports(&self) -> Result<(), Failure> {
        let Some(path) = &self.ports_path else { return Ok(()) };
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.write(path)
    }
}
