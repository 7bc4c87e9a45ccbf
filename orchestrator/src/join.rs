//! The first start: from a join token to an identity. An orchestrator always waits for an operator's approval; the wait
//! goes on after a restart, with neither token nor address.

use crate::state::{ClusterFile, StateDir};
use crate::trust::{Believed, anchors, believe};
use holdfast_orchestrator_core::verify::NodeTrust;
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::join::{Admitted, Applicant, ask_trust, await_approval, believe_certificate, read_token};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::renew::{KeyStore as _, pending_key};
use holdfast_transport::tls::{ClientTls, LocalIdentity, TrustCell};
use holdfast_types::{Digest, Role};
use holdfast_wire::token::TokenRole;
use holdfast_wire::v1::Issued;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the vault is looked for before the first start gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes sure that we have an identity: the one on disk, or one by joining.
pub async fn ensure(
    state: &StateDir,
    token: Option<&Path>,
    vault: &[String],
    stop: &CancellationToken,
) -> Result<ClusterFile, Failure> {
    let joined = state.identity().load().map_err(|e| internal(&e))?.is_some();
    match (state.load()?, token) {
        (Some(file), _) if joined => Ok(file),
        (Some(file), _) => approved(state, file, stop).await,
        (None, Some(token)) => apply(state, token, vault, stop).await,
        (None, None) => Err(Failure::invalid("not-joined", "this orchestrator has not joined a cluster yet").help(
            "start it with --join-token-file and --vault; `holdfast token create --role orchestrator` makes a token",
        )),
    }
}

async fn apply(
    state: &StateDir,
    token: &Path,
    vault: &[String],
    stop: &CancellationToken,
) -> Result<ClusterFile, Failure> {
    if vault.is_empty() {
        return Err(Failure::invalid("no-address", "no address of the vault's join listener is known")
            .help("give --vault HOST:PORT"));
    }
    let token = read_token(token, TokenRole::Orchestrator)?;
    let key = pending_key(&state.identity()).map_err(|e| internal(&e))?;
    let dialer = Dialer::new(vault.iter().cloned(), ClientTls::join(token.anchor), Timing::default());
    let applicant = Applicant { token: &token, key: &key, hpke_pub: &[] };
    let judge = |server: &_, shown: &_| believe(token.anchor, server, shown);
    let (trust, admitted) = applicant.join(&dialer, PATIENCE, stop, judge).await?;
    let saved = trust.saved();
    let mut file = ClusterFile {
        anchor: token.anchor.to_vec(),
        charters: saved.charters,
        bundles: saved.bundles,
        join_addrs: dialer.addrs(),
        service_addrs: Vec::new(),
        id: String::new(),
    };
    match admitted {
        Admitted::Issued(issued) => settle(state, file, &trust, &key, issued),
        Admitted::Pending(pending) => {
            file.id = pending.id;
            state.save(&file)?;
            approved(state, file, stop).await
        }
    }
}

async fn approved(state: &StateDir, mut file: ClusterFile, stop: &CancellationToken) -> Result<ClusterFile, Failure> {
    let lost = || {
        Failure::failed("join-lost", "the join under way has lost its key")
            .help("empty the state directory and join again with a new token")
    };
    let key = state.identity().load_pending().map_err(|e| internal(&e))?.ok_or_else(lost)?;
    let anchor = Digest::from_slice(&file.anchor).ok_or_else(lost)?;
    let mut trust = NodeTrust::join(anchor, &file.charters, &file.bundles).map_err(|e| internal(&e))?;
    // An approval may come after roots have been rotated.
    for shown in ask_trust(file.join_addrs.clone()).await {
        if let Ok(Some(next)) = trust.catch_up(&shown.charter_chain, &shown.bundle_chain) {
            let saved = next.saved();
            (file.charters, file.bundles) = (saved.charters, saved.bundles);
            state.save(&file)?;
            trust = next;
        }
    }
    let roots = TrustCell::new(anchors(&trust)?);
    let dialer = Dialer::new(file.join_addrs.iter().cloned(), ClientTls::rejoin(roots), Timing::default());
    let issued = await_approval(&dialer, &file.id, &key, stop).await?;
    settle(state, file, &trust, &key, issued)
}

/// Believes the certificate and keeps everything; the identity comes last, for it says that the rest is there.
fn settle(
    state: &StateDir,
    file: ClusterFile,
    trust: &NodeTrust,
    key: &PrivateKey,
    issued: Issued,
) -> Result<ClusterFile, Failure> {
    believe_certificate(&issued, key, &anchors(trust)?, Role::Orch)?;
    let file = ClusterFile { id: issued.id, service_addrs: issued.service_addrs, ..file };
    state.save(&file)?;
    state.identity().promote(&issued.chain).map_err(|e| internal(&e))?;
    tracing::info!(orchestrator = %file.id, cluster = %trust.cluster(), "joined; the join token is used up and its file may be deleted");
    Ok(file)
}

/// Our identity and the documents that we believe, from disk.
pub fn open(state: &StateDir, file: ClusterFile) -> Result<(LocalIdentity, Believed), Failure> {
    let stored = state.identity().load().map_err(|e| internal(&e))?;
    let stored = stored.ok_or_else(|| Failure::failed("state", "the identity is gone from the state directory"))?;
    let identity = LocalIdentity::new(&stored.chain, &stored.key).map_err(|e| internal(&e))?;
    Ok((identity, Believed::open(state.clone(), file)?))
}

fn internal(e: &dyn std::fmt::Display) -> Failure {
    Failure::failed("state", e.to_string())
        .help("check owner, mode and free space of state_dir; if it is damaged, empty it and join with a new token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_an_identity_and_without_a_token_the_way_in_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let failure = ensure(&state, None, &[], &CancellationToken::new()).await.unwrap_err();
        assert_eq!(failure.kind.exit_code(), 2);
        assert!(failure.help.unwrap().contains("--join-token-file"));
    }

    #[tokio::test]
    async fn a_join_that_lost_its_key_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.save(&ClusterFile { id: "orch-1".into(), anchor: vec![0; 32], ..ClusterFile::default() }).unwrap();
        let failure = ensure(&state, None, &[], &CancellationToken::new()).await.unwrap_err();
        assert_eq!(failure.code, "join-lost");
    }
}
