//! Wiring: configuration, identity, listeners, and the four tasks that do the work.

use crate::config::{self, Config};
use crate::control::Control;
use crate::logs::{LogService, Relay};
use crate::pins::Pins;
use crate::scheduler::Scheduler;
use crate::session::SessionService;
use crate::state::StateDir;
use crate::trust::{Believed, Told, Way};
use crate::vault::Vault;
use crate::{join, renewal};
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::daemon::{
    Health, Heartbeat, LogFormat, PortsFile, Readiness, Signals, exit_code, init_logging, listen, systemd,
};
use holdfast_transport::failure::Failure;
use holdfast_transport::renew::{Renewals, Renewer};
use holdfast_transport::rpc::deploy_server::DeployServer;
use holdfast_transport::rpc::session_server::SessionServer;
use holdfast_transport::server::{Connections, Limits, serve};
use holdfast_transport::tls::{Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, ServerTls};
use holdfast_types::Role;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// What the command line says.
#[derive(Debug, Default)]
pub struct Arguments {
    /// Configuration file; without one, the defaults.
    pub config: Option<PathBuf>,
    /// First start: the join token.
    pub join_token_file: Option<PathBuf>,
    /// First start: the vault's join listeners, before those of the configuration.
    pub vault: Vec<String>,
    /// Where to write which listener got which address.
    pub ports_file: Option<PathBuf>,
    /// `text` or `json`, over the configuration.
    pub log_format: Option<LogFormat>,
    /// Only check the configuration.
    pub check_config: bool,
}

/// Events that wait for the control.
const INBOX: usize = 4096;
/// Largest report of a node: a greeting of ten thousand tasks, or a chunk of logs.
const MAX_REPORT: usize = 4 << 20;

/// The daemon from its arguments to its exit code.
pub fn main(args: Arguments) -> ExitCode {
    let config = config::load(args.config.as_deref(), |k| std::env::var(k).ok());
    init_logging(args.log_format.or(config.as_ref().ok().map(|c| c.log_format)).unwrap_or_default());
    exit_code(config.map_err(Failure::from).and_then(|config| start(config, args)))
}

fn start(config: Config, args: Arguments) -> Result<(), Failure> {
    if args.check_config {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(io("start the runtime"))?.block_on(run(config, args)) {
        // Ended while it waited, as it was told to.
        Err(f) if f.code == "stopped" => Ok(()),
        ended => ended,
    }
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |e| Failure::failed("io", format!("cannot {what}: {e}"))
}

async fn run(config: Config, args: Arguments) -> Result<(), Failure> {
    let signals = Signals::listen().map_err(io("listen to signals"))?;
    let stop = signals.stop.clone();
    let state = StateDir::open(&config.state_dir)?;
    let readiness = Readiness::not_yet("starting");
    let health = Health::bind(config.health, readiness.clone()).await?;
    let (listener, bound) = listen(config.listen).await?;
    if let Some(path) = &args.ports_file {
        PortsFile::new().with("health", health.addr()).with("session", bound).write(path)?;
    }
    let healthy = tokio::spawn(health.serve(stop.clone()));
    systemd::ready();
    let heart = Heartbeat::default();
    let alive = heart.clone();
    tokio::spawn(systemd::watchdog(move |patience| alive.has_beaten_within(patience), stop.clone()));

    let vault: Vec<String> = args.vault.iter().chain(&config.vault).cloned().collect();
    readiness.not_ready("joining the cluster");
    systemd::status("joining the cluster");
    let joining = join::ensure(&state, args.join_token_file.as_deref(), &vault, &stop);
    let cluster = heart.during(joining).await?;
    let service_addrs: Vec<String> = cluster.service_addrs.iter().chain(&config.vault_service).cloned().collect();
    let joins: Vec<String> = cluster.join_addrs.iter().chain(&vault).cloned().collect();
    let (identity, believed) = join::open(&state, cluster)?;
    systemd::status("at work");
    let session_addr = config.advertise.clone().unwrap_or_else(|| bound.to_string());
    let parts = Parts { config, state, identity, believed, joins, service_addrs, session_addr, readiness, heart };
    let served = parts.work(listener, &stop).await;
    stop.cancel();
    drop(healthy);
    served
}

/// Everything that the work needs.
struct Parts {
    config: Config,
    state: StateDir,
    identity: LocalIdentity,
    believed: Believed,
    joins: Vec<String>,
    service_addrs: Vec<String>,
    session_addr: String,
    readiness: Readiness,
    heart: Heartbeat,
}

impl Parts {
    /// Until `stop`, or until the listener fails.
    async fn work(self, listener: TcpListener, stop: &CancellationToken) -> Result<(), Failure> {
        let (inbox, inputs) = mpsc::channel(INBOX);
        let (to_vault, orders) = mpsc::unbounded_channel();
        let (open, link) = watch::channel(None);
        let renewals = Arc::new(Renewals::default());
        let (status, hints) = watch::channel(None);
        let (revocations, listed) = watch::channel(None);
        let (trust, trust_domain) = (self.believed.tls(), self.believed.trust_domain().clone());
        let id = self.identity.id().name.clone();
        let cell = IdentityCell::new(self.identity);
        let connections = Connections::new();
        let pins = Arc::new(Pins::new(connections.clone(), trust_domain));
        let relay = Arc::new(Relay::default());

        let tls = ClientTls::mutual(cell.clone(), trust.clone(), Expect::Role(Role::Vault), Alpn::Service);
        let dialer = Arc::new(Dialer::new(self.service_addrs, tls, Timing::default()));
        let vault = Vault {
            dialer: dialer.clone(),
            inbox: inbox.clone(),
            orders,
            pins: pins.clone(),
            session_addr: self.session_addr,
            open,
            bundle: self.believed.epoch(),
            renewed: renewals.done.subscribe(),
            renewals: renewals.clone(),
            status,
            revocations,
            before: self.believed.before(),
        };
        let control = Control::new(Scheduler::new(self.config.settings), inputs, to_vault, self.readiness, self.heart);
        let (told, told_since) = watch::channel(Told::default());
        let authority = renewal::Vault {
            link: link.clone(),
            bundle: self.believed.epoch(),
            id,
            join_addrs: self.joins.clone(),
            trust: trust.clone(),
            told,
        };
        let renewer = Renewer::new(Arc::new(self.state.identity()), cell.clone(), trust.clone(), authority);
        let way = Way { link, dialer, configured: self.joins, told: told_since, listed };
        let tasks = [
            tokio::spawn(vault.run(stop.clone())),
            tokio::spawn(control.run(stop.clone())),
            tokio::spawn({
                let stop = stop.clone();
                async move { renewer.run(&renewals, false, &stop).await }
            }),
            tokio::spawn(self.believed.follow(hints, way, stop.clone())),
        ];
        let sessions =
            SessionServer::new(SessionService::new(inbox.clone(), relay.clone())).max_decoding_message_size(MAX_REPORT);
        let routes = Routes::new(sessions).add_service(DeployServer::new(LogService::new(inbox, relay)));
        let tls = ServerTls::mutual(cell, trust, pins, Alpn::Orchestrator);
        let served = serve(listener, tls, routes, connections, Limits::default(), stop.clone()).await;
        stop.cancel();
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task did not end in order");
            }
        }
        served.map_err(|e| Failure::failed("io", e.to_string()))
    }
}
