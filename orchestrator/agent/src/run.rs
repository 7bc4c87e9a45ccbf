//! The agent put together, in order: configuration, directories, identity, tasks, streams.
//!
//! LAW: nothing in here ends a container because the agent ends: a stopped agent leaves its tasks running, and the next
//! one adopts them (`a_container_outlives_its_agent`).

use crate::args::Args;
use crate::believed::Believed;
use crate::config::{self, Config, RuntimeKind};
use crate::era::Eras;
use crate::evidence::{self, Desk};
use crate::host::Host;
use crate::image::{ImageStore, UnpackLimits};
use crate::join::Newcomer;
use crate::keys::KeyRing;
use crate::node::Node;
use crate::removal;
use crate::renewal::Vault;
use crate::reports::Reports;
use crate::runtime::{Backend, Containers, Layout};
use crate::secretfs::SecretFs;
use crate::session::Sessions;
use crate::state::evidence::EvidenceDir;
use crate::state::memory::MemoryFile;
use crate::state::records::Records;
use crate::state::trust::TrustFiles;
use crate::state::{NodeFile, StateDir};
use crate::swap;
use crate::sync::VaultSync;
use crate::tasks::Tasks;
use crate::tasks::ground::Machine;
use holdfast_image::{Limits, Registries};
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::daemon::{Health, Heartbeat, PortsFile, Readiness, Signals, exit_code, init_logging, systemd};
use holdfast_transport::failure::Failure;
use holdfast_transport::join::read_token;
use holdfast_transport::now;
use holdfast_transport::renew::{FileStore, KeyStore as _, Renewals, Renewer};
use holdfast_transport::tls::{Alpn, ClientTls, Expect, IdentityCell, LocalIdentity};
use holdfast_types::{NodeId, Role};
use holdfast_wire::token::TokenRole;
use holdfast_wire::v1::Resources;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// The daemon from its arguments to its exit code.
pub fn main(args: Args) -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let config = args.config.as_ref().map_or_else(config::defaults, |path| config::load(path, env));
    init_logging(args.log_format.or(config.as_ref().ok().map(|c| c.log_format)).unwrap_or_default());
    exit_code(config.map_err(Failure::from).and_then(|config| start(args, config)))
}

fn start(args: Args, config: Config) -> Result<(), Failure> {
    if args.check_config {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::failed("io", format!("cannot start the runtime: {e}")))?;
    let ended = runtime.block_on(run(args, config));
    // Tasks run on: nothing that is still under way here is waited for.
    runtime.shutdown_background();
    ended
}

async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let stop = Signals::listen().map_err(|e| broken("io", &e))?.stop;
    let state = Arc::new(StateDir::open(&config.state_dir).map_err(|e| broken("state", &e))?);
    swap::keep_in_memory(&config.runtime_dir, config.allow_swap)?;
    let mut ring = KeyRing::open(&config.runtime_dir).map_err(|e| broken("runtime-dir", &e))?;
    let machine = machine(&config, &state)?;
    let readiness = Readiness::not_yet("not joined yet");
    serve_health(&args, &config, readiness.clone(), &stop).await?;

    if let Some(failure) = first_start(&args, &config, &state, &mut ring, &stop).await.err() {
        // Ended while it waited, as it was told to.
        return if stop.is_cancelled() { Ok(()) } else { Err(failure) };
    }
    let (node, local) = identity(&state)?;
    let renew_at_once = ring.newest() != Some(node.seq);
    let id = NodeId::parse(&local.id().name).map_err(|e| broken("state", &e))?;
    let believed = open_believed(id, ring, &state)?;
    let cell = IdentityCell::new(local);
    let vault = Arc::new(vault_dialer(&config, &node, &cell, &believed));
    let (accuser, desk) = evidence::desk(EvidenceDir::new(state.root()));
    let reports = Arc::new(Reports::default());
    let clock = {
        let believed = believed.clone();
        move || believed.clock()
    };
    let tasks = Tasks::new(Arc::new(machine), Records::new(state.root()), reports.clone(), clock);
    tasks.adopt().await.map_err(|e| broken("state", &e))?;
    let renewals = Arc::new(Renewals::default());
    let capacity = capacity(&config);
    let node = Arc::new(Node { believed, tasks, reports, accuser, vault, identity: cell, renewals, capacity });
    systemd::ready();
    let joins = args.vault.iter().chain(&config.vault).cloned().collect();
    let eras = Arc::new(Eras::new(state.clone(), joins));
    removal::obey(&node);
    serve(node, state, desk, readiness, eras, renew_at_once, stop).await;
    tracing::info!("the agent ends; its tasks run on");
    Ok(())
}

/// All that runs until the end.
async fn serve(
    node: Arc<Node<Machine>>,
    state: Arc<StateDir>,
    desk: Desk,
    readiness: Readiness,
    eras: Arc<Eras>,
    renew_at_once: bool,
    stop: CancellationToken,
) {
    tokio::spawn(desk.run(node.vault.clone(), stop.clone()));
    let heart = Heartbeat::default();
    let alive = heart.clone();
    tokio::spawn(systemd::watchdog(move |patience| alive.has_beaten_within(patience), stop.clone()));
    let renewing = renew(node.clone(), state, eras.clone(), renew_at_once, stop.clone());
    let sessions = Sessions::new(node.clone(), stop.clone());
    let sync = VaultSync { node, sessions, readiness, eras, heart };
    tokio::join!(sync.run(&stop), renewing);
}

async fn renew(
    node: Arc<Node<Machine>>,
    state: Arc<StateDir>,
    eras: Arc<Eras>,
    at_once: bool,
    stop: CancellationToken,
) {
    let store = Arc::new(FileStore::new(&state.identity()));
    let vault = Vault { node: node.clone(), state, eras, asked: Mutex::default() };
    let renewer = Renewer::new(store, node.identity.clone(), node.believed.tls(), vault);
    renewer.run(&node.renewals, at_once, &stop).await;
}

/// The health listener, and the file that says where it is.
async fn serve_health(
    args: &Args,
    config: &Config,
    readiness: Readiness,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let health = Health::bind(config.health, readiness).await?;
    if let Some(path) = &args.ports_file {
        PortsFile::new().with("health", health.addr()).write(path)?;
    }
    let stop = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = health.serve(stop).await {
            tracing::error!(%error, "the health listener ended");
        }
    });
    Ok(())
}

/// Joins, if this node has not joined yet; goes on waiting for approval, if that is where an earlier start ended.
async fn first_start(
    args: &Args,
    config: &Config,
    state: &StateDir,
    ring: &mut KeyRing,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let store = FileStore::new(&state.identity());
    if store.load().map_err(|e| broken("state", &e))?.is_some() {
        if args.join_token_file.is_some() {
            tracing::info!("this node has joined already: the join token is not looked at");
        }
        return Ok(());
    }
    systemd::status("joining");
    let mut newcomer = Newcomer { state, ring };
    if state.load_joining().map_err(|e| broken("state", &e))?.is_some() {
        return newcomer.wait(stop).await;
    }
    let help =
        "give --join-token-file FILE and --vault HOST:PORT; create a token with `holdfast token create --role node`";
    let missing = || Failure::invalid("not-joined", "this node has not joined a cluster yet").help(help);
    let token = read_token(args.join_token_file.as_deref().ok_or_else(missing)?, TokenRole::Node)?;
    let addrs: Vec<String> = args.vault.iter().chain(&config.vault).cloned().collect();
    if addrs.is_empty() { Err(missing()) } else { newcomer.join(&token, &addrs, stop).await }
}

fn identity(state: &StateDir) -> Result<(NodeFile, LocalIdentity), Failure> {
    let stored = FileStore::new(&state.identity()).load().map_err(|e| broken("state", &e))?;
    let node = state.load_node().map_err(|e| broken("state", &e))?;
    let (Some(stored), Some(node)) = (stored, node) else {
        return Err(Failure::failed("state", "the node's identity is incomplete")
            .help("empty the state directory and join again with a new token"));
    };
    let local = LocalIdentity::new(&stored.chain, &stored.key).map_err(|e| broken("state", &e))?;
    Ok((node, local))
}

fn open_believed(id: NodeId, ring: KeyRing, state: &StateDir) -> Result<Arc<Believed>, Failure> {
    let (files, memory) = (TrustFiles::new(state.root()), MemoryFile::new(state.root()));
    Ok(Arc::new(Believed::open(id, ring, files, memory, now).map_err(|e| broken("state", &e))?))
}

fn vault_dialer(config: &Config, node: &NodeFile, cell: &Arc<IdentityCell>, believed: &Believed) -> Dialer {
    let tls = ClientTls::mutual(cell.clone(), believed.tls(), Expect::Role(Role::Vault), Alpn::Service);
    let addrs = node.service_addrs.iter().chain(&config.vault_service).cloned();
    Dialer::new(addrs, tls, Timing::default())
}

/// The ground that tasks stand on.
fn machine(config: &Config, state: &StateDir) -> Result<Machine, Failure> {
    // Not the file's name: it may be replaced by an upgrade while shims of this program run.
    let program = PathBuf::from("/proc/self/exe");
    let root: PathBuf = config.runtime_dir.join("oci");
    let backend = match config.runtime {
        RuntimeKind::Embedded => Backend::Libcontainer { program: program.clone(), root },
        RuntimeKind::Runc => Backend::Runc { program: "runc".into(), root },
    };
    let layout = Layout { state_dir: state.root().to_owned(), program, backend, log_bytes: config.log_bytes };
    let registries =
        Registries { insecure: config.insecure_registries.clone(), extra_roots: config.registry_roots.clone() };
    let images = ImageStore::open(&state.images(), registries, Limits::default(), UnpackLimits::default());
    Ok(Machine {
        containers: Containers::open(layout).map_err(|e| broken("state", &e))?,
        images: images.map_err(|e| broken("state", &e))?,
        secrets: SecretFs::open(config.runtime_dir.join("secrets")).map_err(|e| broken("runtime-dir", &e))?,
        host: Host::probe(&config.cgroup),
    })
}

/// What is configured, else what the machine has.
fn capacity(config: &Config) -> Resources {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpu = u32::try_from(processors).unwrap_or(u32::MAX).saturating_mul(1000);
    let or = |configured, found| if configured == 0 { found } else { configured };
    let memory_bytes = match config.capacity.memory_bytes {
        0 => total_memory().unwrap_or_default(),
        configured => configured,
    };
    Resources { cpu_milli: or(config.capacity.cpu_milli, cpu), memory_bytes, pids: 0 }
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn total_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn broken(code: &'static str, e: &dyn Display) -> Failure {
    let help = match code {
        "runtime-dir" => "runtime_dir must be on a tmpfs of root with room, such as below /run",
        _ => "check owner, mode and free space of state_dir; if it is damaged, empty it and join with a new token",
    };
    Failure::failed(code, e.to_string()).help(help)
}
