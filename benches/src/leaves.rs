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
use tonic::Code;
use tonic::transport::Channel;

pub const HOW: &str = "1000 nodes call Identity.Renew over 1000 open mTLS connections, one call at a time each, for 5 s; every answer \
     is a new leaf for the node's pending key, in the log and synced to disk";

/// A machine is given 32 certificates in a row and no more: enough of them for the whole span.
pub const NODES: usize = 1000;
const SPAN: Duration = Duration::from_secs(5);
/// What a leaf's signature covers is about as long.
pub const TO_BE_SIGNED: [u8; 500] = [7; 500];

/// Who calls over an open connection.
pub struct Caller {
    /// The connection.
    pub channel: Channel,
    /// The key that is sent along.
    pub hpke_pub: [u8; 32],
}

pub fn over_open_connections() -> Result<Line, Failed> {
    let w = World::founded();
    let token = w.token("node", &["--uses", &NODES.to_string()]);
    let value = cluster::runtime()?.block_on(async {
        let mut nodes = Vec::with_capacity(NODES);
        for _ in 0..NODES {
            let Machine { channel, hpke_pub, .. } = cluster::join(&w, &token, TokenRole::Node).await?;
            nodes.push(Caller { channel, hpke_pub });
        }
        renewals_a_second(nodes).await
    })?;
    drop(w);
    Ok(Line { value, unit: "leaves/s", beside: floor()?, goal: Goal::OfBeside(0.5) })
}

/// The cryptography of a leaf alone, a second.
pub fn floor() -> Result<f64, Failed> {
    let (csr, issuer) = (PrivateKey::generate()?.csr()?, PrivateKey::generate()?);
    floor::a_second(|| {
        Request::parse(&csr)?;
        issuer.sign(&TO_BE_SIGNED)?;
        Ok(())
    })
}

/// All callers at once, for the whole span.
pub async fn renewals_a_second(callers: Vec<Caller>) -> Result<f64, Failed> {
    let start = Instant::now();
    let calls: Vec<_> = callers.into_iter().map(|c| tokio::spawn(renew(c, start + SPAN))).collect();
    let mut issued = 0;
    for call in calls {
        issued += call.await??;
    }
    Ok(f64::from(issued) / start.elapsed().as_secs_f64())
}

/// Renews until `end`, always for the same next key: a lost reply is followed by the same request, and the vault signs
/// and commits another leaf for it.
async fn renew(caller: Caller, end: Instant) -> Result<u32, Failed> {
    let request =
        RenewRequest { csr: PrivateKey::generate()?.csr()?, hpke_pub: caller.hpke_pub.to_vec(), bundle_epoch: 0 };
    let mut client = IdentityClient::new(caller.channel);
    let mut issued = 0;
    while Instant::now() < end {
        match client.renew(request.clone()).await {
            Ok(_) => issued += 1,
            // It had its share; the others go on.
            Err(status) if status.code() == Code::ResourceExhausted => break,
            Err(status) => return Err(status.into()),
        }
    }
    Ok(issued)
}
