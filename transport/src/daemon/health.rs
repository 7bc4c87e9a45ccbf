//! `/livez`, `/readyz` and `/metrics` over HTTP on a loopback listener.
//!
//! Plain HTTP, so it binds to loopback addresses only, and says nothing but states and numbers.

use super::listen;
use crate::failure::Failure;
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether this daemon can do its work now, with the reason if not. Shared by clones.
#[derive(Clone)]
pub struct Readiness(Arc<ArcSwap<Option<String>>>);
impl Readiness {
    /// Not ready, because of `reason`.
    pub fn not_yet(reason: impl Into<String>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Some(reason.into()))))
    }
    /// It can work from now on.
    pub fn ready(&self) {
        self.0.store(Arc::new(None));
    }
    /// It cannot work from now on, because of `reason`: a state, never an address or a name of a secret.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.0.store(Arc::new(Some(reason.into())));
    }
    /// The reason why it cannot work; `None` if it can.
    pub fn obstacle(&self) -> Option<String> {
        self.0.load().as_ref().clone()
    }
}

/// A bound health listener.
pub struct Health {
    listener: TcpListener,
    addr: SocketAddr,
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// One recorder a process: `metrics` allows no second.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
/// How often histograms are folded; else they grow while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

impl Health {
    /// Binds to `addr`, a loopback address; port 0 takes a free one.
    pub async fn bind(addr: SocketAddr, readiness: Readiness) -> Result<Self, Failure> {
        if !addr.ip().is_loopback() {
            let what = format!("the health listener must be on a loopback address, not {addr}");
            return Err(Failure::invalid("configuration", what));
        }
        let metrics = RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().ok());
        let second = || Failure::failed("internal", "another recorder of metrics is already installed");
        let metrics = metrics.clone().ok_or_else(second)?;
        let (listener, addr) = listen(addr).await?;
        Ok(Self { listener, addr, readiness, metrics })
    }
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
    /// Answers until `stop`.
    pub async fn serve(self, stop: CancellationToken) -> io::Result<()> {
        let metrics = self.metrics.clone();
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .with_state(self.readiness)
            .route("/metrics", get(move || std::future::ready(metrics.render())));
        let serving = axum::serve(self.listener, router).with_graceful_shutdown(stop.cancelled_owned());
        let upkeep = async {
            let mut tick = tokio::time::interval(UPKEEP);
            loop {
                tick.tick().await;
                self.metrics.run_upkeep();
            }
        };
        tokio::select! {
            served = serving => served,
            () = upkeep => Ok(()),
        }
    }
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    match readiness.obstacle() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
