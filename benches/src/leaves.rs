//! Leaves issued and committed a second, by the real vault process with one voter.
//!
//! Beside it: verifying the same request and signing as many bytes as a leaf has, on all processors, in the same run.

use crate::cluster::world::World;
use crate::cluster::{self, Machine};
use crate::line::{Goal, Line};
use crate::{Failed, floor};
use holdfast_pki::csr::Request;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::rpc::identity_client::IdentityClient;
use holdfast_wire::token::TokenRole;
use holdfast_wire::v1::RenewRequest;
use std::time::{Duration, Instant};

pub const HOW: &str = "64 nodes call Identity.Renew over 64 open mTLS connections, one call at a time each, for 5 s; every answer \
     is a new leaf for the node's pending key, in the log and synced to disk";

const NODES: usize = 64;
const SPAN: Duration = Duration::from_secs(5);
/// What a leaf's signature covers is about as long.
const TO_BE_SIGNED: [u8; 500] = [7; 500];

pub fn over_open_connections() -> Result<Line, Failed> {
    let w = World::founded();
    let token = w.token("node", &["--uses", &NODES.to_string()]);
    let value = cluster::runtime()?.block_on(async {
        let mut nodes = Vec::with_capacity(NODES);
        for _ in 0..NODES {
            nodes.push(cluster::join(&w, &token, TokenRole::Node).await?);
        }
        renewals_a_second(nodes).await
    })?;
    drop(w);
    let (csr, issuer) = (PrivateKey::generate()?.csr()?, PrivateKey::generate()?);
    let beside = floor::a_second(|| {
        Request::parse(&csr)?;
        issuer.sign(&TO_BE_SIGNED)?;
        Ok(())
    })?;
    Ok(Line { value, unit: "leaves/s", beside, goal: Goal::OfBeside(0.5) })
}

async fn renewals_a_second(nodes: Vec<Machine>) -> Result<f64, Failed> {
    let start = Instant::now();
    let calls: Vec<_> = nodes.into_iter().map(|n| tokio::spawn(renew(n, start + SPAN))).collect();
    let mut issued = 0;
    for call in calls {
        issued += call.await??;
    }
    Ok(f64::from(issued) / start.elapsed().as_secs_f64())
}

/// Renews until `end`, always for the same next key: a lost reply is followed by the same request, and the vault signs
/// and commits another leaf for it.
async fn renew(node: Machine, end: Instant) -> Result<u32, Failed> {
    let request = RenewRequest { csr: PrivateKey::generate()?.csr()?, hpke_pub: node.hpke_pub.to_vec() };
    let mut client = IdentityClient::new(node.channel);
    let mut issued = 0;
    while Instant::now() < end {
        client.renew(request.clone()).await?;
        issued += 1;
    }
    Ok(issued)
}
