//! A cluster of real processes, as the end-to-end tests start it, and machines of ours that join it and call the vault.

use crate::Failed;
use holdfast_orchestrator::trust::{anchors, believe};
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::join::{Admitted, Applicant, await_approval, read_token};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::tls::{Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, TrustCell};
use holdfast_types::Role;
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::token::TokenRole;
use std::path::Path;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use world::{PATIENCE, World};

#[path = "../../tests/tests/e2e/image.rs"]
#[allow(clippy::unwrap_used, missing_docs, reason = "shared with the tests")]
mod image;
#[path = "../../tests/tests/e2e/leftovers.rs"]
#[allow(clippy::unwrap_used, missing_docs, reason = "shared with the tests")]
mod leftovers;
#[path = "../../tests/tests/e2e/second.rs"]
#[allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "shared with the tests, which use all of it"
)]
pub mod second;
#[path = "../../tests/tests/e2e/voters/world.rs"]
#[allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "shared with the tests, which use all of it"
)]
pub mod voters;
#[path = "../../tests/tests/e2e/world.rs"]
#[allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "shared with the tests, which use all of it"
)]
pub mod world;

/// A runtime for our side of the calls.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// `N` random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], Failed> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A node or orchestrator that joined, with an open mTLS connection to the vault.
pub struct Machine {
    /// Its id.
    pub id: String,
    /// The key that secrets are boxed to.
    pub hpke_pub: [u8; 32],
    /// The connection.
    pub channel: Channel,
}

/// Joins with the token in the file `token`; whoever has to be approved is approved.
pub async fn join(w: &World, token: &Path, role: TokenRole) -> Result<Machine, Failed> {
    let token = read_token(token, role)?;
    let (key, stop) = (PrivateKey::generate()?, CancellationToken::new());
    let (_, hpke_pub) = derive_keypair(&random()?);
    let boxed_to: &[u8] = if role == TokenRole::Node { &hpke_pub } else { &[] };
    let addr = format!("127.0.0.1:{}", w.join);
    let dialer = Dialer::new([addr], ClientTls::join(token.anchor), Timing::default());
    let applicant = Applicant { token: &token, key: &key, hpke_pub: boxed_to };
    let judge = |server: &_, shown: &_| believe(token.anchor, server, shown);
    let (trust, admitted) = applicant.join(&dialer, PATIENCE, &stop, judge).await?;
    let issued = match admitted {
        Admitted::Issued(issued) => issued,
        Admitted::Pending(pending) => {
            w.ok(&["node", "approve", &pending.id, "--key", &key.spki_sha256().hex()]);
            await_approval(&dialer, &pending.id, &key, &stop).await?
        }
    };
    let identity = IdentityCell::new(LocalIdentity::new(&issued.chain, &key)?);
    let roots = TrustCell::new(anchors(&trust)?);
    let tls = ClientTls::mutual(identity, roots, Expect::Role(Role::Vault), Alpn::Service);
    let link = Dialer::new(issued.service_addrs, tls, Timing::default()).dial().await?;
    Ok(Machine { id: issued.id, hpke_pub, channel: link.channel })
}

/// Joins `count` nodes, one after the other, with the token in the file `token`; none of them stays connected.
pub async fn register(join: u16, token: &Path, count: usize) -> Result<(), Failed> {
    let (token, stop) = (read_token(token, TokenRole::Node)?, CancellationToken::new());
    let dialer = Dialer::new([format!("127.0.0.1:{join}")], ClientTls::join(token.anchor), Timing::default());
    for _ in 0..count {
        let (key, (_, hpke_pub)) = (PrivateKey::generate()?, derive_keypair(&random()?));
        let applicant = Applicant { token: &token, key: &key, hpke_pub: &hpke_pub };
        let judge = |server: &_, shown: &_| believe(token.anchor, server, shown);
        let (_, admitted) = applicant.join(&dialer, PATIENCE, &stop, judge).await?;
        if let Admitted::Pending(pending) = admitted {
            return Err(format!("node {} has to be approved", pending.id).into());
        }
    }
    Ok(())
}
