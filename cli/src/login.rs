//! The operator's certificate: eight hours long, stored in the context, fetched anew whenever it is missing or ends soon.

use crate::clock;
use crate::context::Context;
use crate::errors::{Code, Failure};
use crate::files;
use crate::operator::Operator;
use crate::trust::Trust;
use holdfast_pki::chain::{Anchors, Usage, verify_peer};
use holdfast_transport::check_clock;
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::failure::Failure as Answer;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::rpc::join_client::JoinClient;
use holdfast_transport::tls::{ClientTls, LocalIdentity, TrustCell};
use holdfast_types::{Millis, sha256};
use holdfast_wire::{strict, v1};
use prost::Message as _;
use std::fs::File;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use v1::login_reply::Step as Reply;
use v1::login_request::Step;

/// A certificate that ends sooner than this is not used any more.
const SPARE: Duration = Duration::from_secs(300);
/// Largest answer: the challenge shows every Bundle since the first.
const MAX_CHALLENGE: usize = 16 << 20;
const KEY: &str = "login.key";
/// STORED: what the vault issued; golden file `cli/golden/login.hex`. One that cannot be read is fetched anew.
const CERTIFICATE: &str = "login.pb";

/// The operator's identity: the stored one if it is good, else a new one. One that was `refused` is not good; what another program
/// has stored in its place is.
pub async fn identity(
    ctx: &Context,
    op: &Operator,
    trust: &Trust,
    patience: Duration,
    refused: Option<&LocalIdentity>,
) -> Result<LocalIdentity, Failure> {
    let usable = || usable(ctx, trust, refused);
    if let Some(stored) = usable() {
        return Ok(stored);
    }
    // One login at a time: two programs that start together would else make each other's certificate obsolete.
    let lock = ctx.dir.path("login.lock");
    let file = File::create(&lock).map_err(|e| Failure::io("write", &lock, &e))?;
    file.lock().map_err(|e| Failure::io("lock", &lock, &e))?;
    match usable() {
        Some(stored) => Ok(stored),
        None => login(ctx, op, trust, patience).await,
    }
}

/// The stored identity, if it is good and not the one that was `refused`.
pub fn usable(ctx: &Context, trust: &Trust, refused: Option<&LocalIdentity>) -> Option<LocalIdentity> {
    let is_another = |stored: &LocalIdentity| refused.is_none_or(|held| held.chain().first() != stored.chain().first());
    stored(ctx, clock::now()).filter(is_another).filter(|stored| is_believed(stored, trust))
}

/// Forgets the stored certificate: the cluster does not take it.
pub fn forget(ctx: &Context) {
    // If it cannot be removed, the next command meets the same refusal and says so.
    drop(std::fs::remove_file(ctx.dir.path(CERTIFICATE)));
}

fn stored(ctx: &Context, now: Millis) -> Option<LocalIdentity> {
    let key = files::read_private(&ctx.dir.path(KEY), 4096).ok()?;
    let issued = files::read(&ctx.dir.path(CERTIFICATE), 64 << 10).ok()?;
    let issued = read(&issued)?;
    let identity = LocalIdentity::new(&issued.chain, &PrivateKey::from_pkcs8(&key).ok()?).ok()?;
    (identity.not_after() > now.plus(SPARE) && identity.not_before() <= now).then_some(identity)
}

/// True if the roots in force believe the certificate: those of a root that was rotated out are of no use.
pub fn is_believed(identity: &LocalIdentity, trust: &Trust) -> bool {
    let believed = |roots: Anchors| verify_peer(identity.chain(), &roots, clock::now(), Usage::Client).is_ok();
    trust.anchors().is_ok_and(believed)
}

fn read(stored: &[u8]) -> Option<v1::Issued> {
    strict::decode(stored, usize::MAX).ok()
}

async fn login(ctx: &Context, op: &Operator, trust: &Trust, patience: Duration) -> Result<LocalIdentity, Failure> {
    let key = PrivateKey::generate().map_err(no_key)?;
    let csr = key.csr().map_err(no_key)?;
    ctx.dir.write(KEY, key.pkcs8())?;
    let tls = ClientTls::rejoin(TrustCell::new(trust.anchors()?));
    let dialer = Dialer::new(ctx.settings.join_addrs.clone(), tls, Timing::default());
    let issued = dialer.call(patience, |channel| exchange(channel, ctx, op, &csr)).await?;
    let refused = |e| Failure::untrusted(format!("the login certificate cannot be used: {e}"));
    let identity = LocalIdentity::new(&issued.chain, &key).map_err(refused)?;
    ctx.dir.write(CERTIFICATE, &issued.encode_to_vec())?;
    Ok(identity)
}

fn no_key(e: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Failed, e, "try again")
}

/// Hello, challenge, proof, certificate: one stream.
async fn exchange(
    channel: Channel,
    ctx: &Context,
    op: &Operator,
    csr: &[u8],
) -> Result<tonic::Response<v1::Issued>, tonic::Status> {
    let (send, requests) = tokio::sync::mpsc::channel(2);
    let say = async |step: Step| {
        let gone = |_| Answer::unavailable("connection-lost", "the voter ended the login");
        send.send(v1::LoginRequest { step: Some(step) }).await.map_err(gone).map_err(tonic::Status::from)
    };
    say(Step::Hello(v1::LoginHello { operator_id: op.id.clone() })).await?;
    let mut client = JoinClient::new(channel).max_decoding_message_size(MAX_CHALLENGE);
    let mut replies = client.login(ReceiverStream::new(requests)).await?.into_inner();
    let Some(Reply::Challenge(challenge)) = replies.message().await?.and_then(|r| r.step) else {
        return Err(out_of_order());
    };
    // Before anything is signed for a time that is not now.
    challenge.status.as_ref().map_or(Ok(()), check_clock)?;
    let login = v1::Login {
        cluster_id: ctx.cluster.0.to_vec(),
        operator_id: op.id.clone(),
        nonce: challenge.nonce,
        csr_sha256: sha256(&[csr]).to_vec(),
    };
    let signed = op.sign(&login).map_err(|f| tonic::Status::from(Answer::failed("failed", f.message)))?;
    say(Step::Proof(v1::LoginProof { login: Some(signed), csr: csr.to_vec() })).await?;
    match replies.message().await?.and_then(|r| r.step) {
        Some(Reply::Issued(issued)) => Ok(tonic::Response::new(issued)),
        Some(Reply::Challenge(_)) | None => Err(out_of_order()),
    }
}

fn out_of_order() -> tonic::Status {
    Answer::failed("untrusted", "the voter did not follow the order of a login").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_stored_as_it_always_was_and_read_as_nothing_else() {
        let issued = v1::Issued {
            id: "op-a".into(),
            chain: vec![vec![1, 2], vec![3]],
            node_psk: Vec::new(),
            seq: 3,
            service_addrs: vec!["v:7401".into()],
            renew_after_ms: 1000,
            join_addrs: Vec::new(),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CERTIFICATE);
        files::write_private(&path, &issued.encode_to_vec()).unwrap();
        files::tests::golden("login", &path);
        let stored = std::fs::read(&path).unwrap();
        assert_eq!(read(&stored), Some(issued));
        for more in [[0x7a_u8, 0x00].as_slice(), &stored, &[0]] {
            assert_eq!(read(&[stored.as_slice(), more].concat()), None);
        }
    }
}
