//! What was refused, told to the vault and never to whoever sent it; kept on disk as well (`state::evidence`).
//!
//! Bounded: a sender of nonsense can fill neither the disk nor the queue. Boxes are never part of evidence.

use crate::state::StateError;
use crate::state::evidence::EvidenceDir;
use holdfast_orchestrator_core::verify::Refusal;
use holdfast_transport::client::Dialer;
use holdfast_transport::now;
use holdfast_transport::rpc::node_plane_client::NodePlaneClient;
use holdfast_types::sha256;
use holdfast_wire::v1::{Assign, Evidence, Statement};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Evidence that waits to be told; what comes on top is only kept on disk.
const QUEUE: usize = 64;
/// For telling one piece.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes refusals.
#[derive(Debug, Clone)]
pub struct Accuser {
    queue: mpsc::Sender<Evidence>,
}

/// Writes them down and tells the vault.
#[derive(Debug)]
pub struct Desk {
    queue: mpsc::Receiver<Evidence>,
    dir: Arc<EvidenceDir>,
}

/// The two ends.
pub fn desk(dir: EvidenceDir) -> (Accuser, Desk) {
    let (queue, waiting) = mpsc::channel(QUEUE);
    (Accuser { queue }, Desk { queue: waiting, dir: Arc::new(dir) })
}

impl Accuser {
    /// An assignment was refused.
    pub fn assignment(&self, refusal: &Refusal, assign: &Assign) {
        let payload = assign.grant.as_ref().map(|g| sha256(&[&g.payload]).to_vec());
        self.tell(Evidence {
            check: refusal.code.to_owned(),
            detail: refusal.to_string(),
            grant: assign.grant.clone(),
            receipt: assign.receipt.clone(),
            object_sha256: payload.unwrap_or_default(),
            epoch: 0,
        });
    }
    /// A document or order was refused; `st` is what it was.
    pub fn document(&self, refusal: &Refusal, st: Option<&Statement>) {
        self.tell(against(refusal, st));
    }
    /// A Status was refused that is older than one of epoch `newest`. Whoever hears of it compares: the word may reach a vault
    /// that has come to itself meanwhile.
    pub fn set_back(&self, refusal: &Refusal, st: &Statement, newest: u64) {
        self.tell(Evidence { epoch: newest, ..against(refusal, Some(st)) });
    }
    fn tell(&self, evidence: Evidence) {
        metrics::counter!("holdfast_agent_refusals_total", "check" => evidence.check.clone()).increment(1);
        tracing::warn!(check = %evidence.check, detail = %evidence.detail, "refused");
        if self.queue.try_send(evidence).is_err() {
            tracing::warn!("too many refusals at once: one was not written down");
        }
    }
}

fn against(refusal: &Refusal, st: Option<&Statement>) -> Evidence {
    Evidence {
        check: refusal.code.to_owned(),
        detail: refusal.to_string(),
        object_sha256: st.map(|st| sha256(&[&st.payload]).to_vec()).unwrap_or_default(),
        ..Evidence::default()
    }
}

impl Desk {
    /// Until `stop`: writes down, then tells.
    pub async fn run(mut self, vault: Arc<Dialer>, stop: CancellationToken) {
        let work = async {
            while let Some(evidence) = self.queue.recv().await {
                let (dir, kept) = (self.dir.clone(), evidence.clone());
                let written = tokio::task::spawn_blocking(move || dir.keep(now(), &kept)).await;
                if let Ok(Err(error)) = written {
                    log_unwritten(&error);
                }
                let op = |channel| {
                    let evidence = evidence.clone();
                    async move { NodePlaneClient::new(channel).report_evidence(evidence).await }
                };
                if let Err(error) = vault.call(PATIENCE, op).await {
                    tracing::warn!(code = %error.code, %error, "evidence was not told to the vault; it is kept here");
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }
}

fn log_unwritten(error: &StateError) {
    tracing::error!(%error, "evidence was not written down");
}
