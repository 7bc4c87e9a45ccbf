//! The first start: from a join token to an identity (protocol, join handshake). The handshake itself is
//! `holdfast_transport::join`'s; here is what a node believes of it, and what it writes down.
//!
//! LAW: no key is used that is not on disk already (`a_join_writes_both_keys_down_before_it_dials_and_keeps_them`).

use crate::keys::KeyRing;
use crate::state::memory::MemoryFile;
use crate::state::trust::TrustFiles;
use crate::state::{JoiningFile, NodeFile, StateDir};
use holdfast_orchestrator_core::verify::{News, NodeTrust, Refusal, TaskMemory};
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::join::{Admitted, Applicant, ask_trust, await_approval, believe_certificate, one_cluster};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::renew::{FileStore, KeyStore as _, pending_key};
use holdfast_transport::tls::{ClientTls, Server, TrustCell};
use holdfast_transport::{check_clock, now};
use holdfast_types::{Digest, Role};
use holdfast_wire::token::JoinToken;
use holdfast_wire::v1::{Challenge, Issued};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the vault is looked for before the first start gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that has not joined yet.
pub struct Newcomer<'a> {
    /// The agent's state.
    pub state: &'a StateDir,
    /// Its keys for boxes.
    pub ring: &'a mut KeyRing,
}

impl Newcomer<'_> {
    /// Joins with `token` at the join listeners `addrs`; waits for approval if the token asks for it.
    pub async fn join(mut self, token: &JoinToken, addrs: &[String], stop: &CancellationToken) -> Result<(), Failure> {
        let key = pending_key(&FileStore::new(&self.state.identity())).map_err(|e| internal(&e))?;
        let hpke = self.ring.offer(key.spki_sha256()).map_err(|e| internal(&e))?;
        let dialer = Dialer::new(addrs.iter().cloned(), ClientTls::join(token.anchor), Timing::default());
        let applicant = Applicant { token, key: &key, hpke_pub: &hpke };
        let judge = |server: &Server, shown: &Challenge| believe(token.anchor, server, shown);
        let (trust, admitted) = applicant.join(&dialer, PATIENCE, stop, judge).await?;
        TrustFiles::new(self.state.root()).save(&trust).map_err(|e| internal(&e))?;
        match admitted {
            Admitted::Issued(issued) => self.settle(&trust, &key, issued),
            Admitted::Pending(pending) => {
                let joining = JoiningFile { id: pending.id, join_addrs: dialer.addrs() };
                self.state.save_joining(&joining).map_err(|e| internal(&e))?;
                self.wait(stop).await
            }
        }
    }

    /// Goes on waiting for an operator, also after a restart; neither token nor address is needed again.
    pub async fn wait(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        let store = FileStore::new(&self.state.identity());
        let joining = self.state.load_joining().map_err(|e| internal(&e))?;
        let key = store.load_pending().map_err(|e| internal(&e))?;
        let (Some(joining), Some(key)) = (joining, key) else {
            return Err(Failure::failed("join-lost", "the join under way has lost its key")
                .help("empty the state directory and join again with a new token"));
        };
        let files = TrustFiles::new(self.state.root());
        let mut trust = files.load().map_err(|e| internal(&e))?;
        // An approval may come after roots have been rotated.
        for shown in ask_trust(joining.join_addrs.clone()).await {
            if let Ok(Some(next)) = trust.catch_up(&shown.charter_chain, &shown.bundle_chain) {
                files.save(&next).map_err(|e| internal(&e))?;
                trust = next;
            }
        }
        let roots = crate::believed::anchors(&trust).map_err(|e| internal(&e))?;
        let dialer = Dialer::new(joining.join_addrs, ClientTls::rejoin(TrustCell::new(roots)), Timing::default());
        let issued = await_approval(&dialer, &joining.id, &key, stop).await?;
        self.settle(&trust, &key, issued)
    }

    /// Believes the certificate, and keeps everything; the identity comes last, for it says that the rest is there.
    fn settle(&mut self, trust: &NodeTrust, key: &PrivateKey, issued: Issued) -> Result<(), Failure> {
        let roots = crate::believed::anchors(trust).map_err(|e| internal(&e))?;
        believe_certificate(&issued, key, &roots, Role::Node)?;
        self.ring.accept(key.spki_sha256(), issued.seq, issued.node_psk).map_err(|e| internal(&e))?;
        let (service_addrs, join_addrs) = (issued.service_addrs, issued.join_addrs);
        let node = NodeFile { id: issued.id, service_addrs, seq: issued.seq, join_addrs };
        let keep = || {
            MemoryFile::new(self.state.root()).save(&TaskMemory::default())?;
            self.state.save_node(&node)
        };
        keep().map_err(|e| internal(&e))?;
        FileStore::new(&self.state.identity()).promote(&issued.chain).map_err(|e| internal(&e))?;
        self.state.forget_joining().map_err(|e| internal(&e))?;
        tracing::info!(node = %node.id, cluster = %trust.cluster(), "joined; the join token is used up and its file may be deleted");
        Ok(())
    }
}

/// The challenge must tell of the very cluster that the token pins and that TLS has proven, with a Status of now.
fn believe(anchor: Digest, server: &Server, challenge: &Challenge) -> Result<NodeTrust, Failure> {
    let refused = |e: Refusal| Failure::refused("cluster-not-believed", format!("the vault's documents: {e}"));
    let mut trust = NodeTrust::join(anchor, &challenge.charter_chain, &challenge.bundle_chain).map_err(refused)?;
    one_cluster(server, trust.cluster(), trust.trust_domain())?;
    let no_status = || Failure::refused("cluster-not-believed", "the vault shows no status");
    let status = challenge.status.as_ref().ok_or_else(no_status)?;
    check_clock(status)?;
    match trust.observe_status(now(), status).map_err(refused)? {
        News::Todo(status) => trust.adopt_status(status),
        News::AlreadyDone | News::Stale => return Err(no_status()),
    }
    Ok(trust)
}

fn internal(e: &dyn std::fmt::Display) -> Failure {
    Failure::failed("state", e.to_string()).help("check owner, mode and free space of state_dir and runtime_dir")
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{Secret, TokenId};
    use holdfast_wire::token::TokenRole;

    #[tokio::test]
    async fn a_join_writes_both_keys_down_before_it_dials_and_keeps_them() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut ring = KeyRing::open(dir.path()).unwrap();
        let secret = Secret::take(&mut [3; 20]);
        let token = JoinToken { role: TokenRole::Node, id: TokenId([1; 8]), anchor: Digest([2; 32]), secret };
        let stop = CancellationToken::new();
        stop.cancel();
        // Nobody listens on port 1: the join stops after its first attempt.
        let addrs = ["127.0.0.1:1".to_owned()];
        let newcomer = Newcomer { state: &state, ring: &mut ring };
        let failure = newcomer.join(&token, &addrs, &stop).await.unwrap_err();
        assert_eq!(failure.kind.exit_code(), 5);
        let key = FileStore::new(&state.identity()).load_pending().unwrap().unwrap();
        let offered = ring.offer(key.spki_sha256()).unwrap();
        let mut after_restart = KeyRing::open(dir.path()).unwrap();
        assert_eq!(after_restart.offer(key.spki_sha256()).unwrap(), offered);
        assert!(state.load_node().unwrap().is_none());
    }
}
