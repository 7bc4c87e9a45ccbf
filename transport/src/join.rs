//! From a join token to an identity: the applicant's half of the handshake (protocol, join handshake).
//!
//! LAW: nothing is sent before the server is proven to be a voter of the cluster that the token pins (that is
//! [`ClientTls::join`](crate::tls::ClientTls::join); `a_join_sends_nothing_to_a_server_of_another_root`), and the caller
//! gives a key that is on disk already. The token's secret never leaves this process: what is sent is a MAC over the
//! server's nonce, our request and our keys. What the cluster's documents prove is judged by the caller, before the proof
//! is sent.

use crate::client::{Backoff, Dialer, Link, Timing};
use crate::clock::now;
use crate::failure::Failure;
use crate::files::must_be_private;
use crate::keys::PrivateKey;
use crate::rpc::join_client::JoinClient;
use crate::tls::{ClientTls, LocalIdentity, Server};
use futures::Stream;
use holdfast_pki::chain::{Anchors, Usage, verify_peer};
use holdfast_types::{ClusterId, Role, TrustDomain};
use holdfast_wire::token::{JoinToken, TokenRole, join_mac};
use holdfast_wire::v1::{
    Ack, AwaitRequest, Challenge, Hello, Issued, JoinReply, JoinRequest, Pending, Proof, TrustView, VoterAdmitted,
};
use holdfast_wire::v1::{await_reply, join_reply, join_request};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// For each answer of the handshake; the vault has as much patience with us.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);
/// Largest answer of somebody who has proved nothing.
pub(crate) const MAX_TRUST: usize = 16 << 20;
/// Between two questions whether an operator has approved us.
const POLL: Duration = Duration::from_secs(2);

/// Reads the join token in the file `path`, which nobody but its owner may be able to open and which must be for `role`. A
/// typing error in it is found here, before anything is sent anywhere.
pub fn read_token(path: &Path, role: TokenRole) -> Result<JoinToken, Failure> {
    let unreadable =
        |e: std::io::Error| Failure::invalid("token-unreadable", format!("join token file {}: {e}", path.display()));
    let mut file = File::open(path).map_err(unreadable)?;
    must_be_private(path, &file.metadata().map_err(unreadable)?, "a join token")?;
    let mut text = zeroize::Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(unreadable)?;
    let token = JoinToken::parse(&text).map_err(|e| {
        Failure::refused("join-token", format!("join token file {}: {e}", path.display()))
            .help("create one with `holdfast token create`")
    })?;
    if token.role == role {
        return Ok(token);
    }
    let (got, wanted) = (token.role.as_str(), role.as_str());
    Err(Failure::refused("join-token", format!("this join token is for the role {got}, not {wanted}"))
        .help(format!("create one with `holdfast token create --role {wanted}`")))
}

/// What the vault answered to the proof.
#[derive(Debug, Clone, PartialEq)]
pub enum Admitted {
    /// With a certificate.
    Issued(Issued),
    /// With an id; an operator has to approve it.
    Pending(Pending),
}

/// Who applies, and with what.
pub struct Applicant<'a> {
    /// The token.
    pub token: &'a JoinToken,
    /// The TLS key, which is on disk.
    pub key: &'a PrivateKey,
    /// The HPKE key of a node, the KEM key of a voter; empty for other roles.
    pub hpke_pub: &'a [u8],
}

impl Applicant<'_> {
    /// Applies at the addresses of `dialer` (made with `ClientTls::join`) until admitted or refused, for at most
    /// `patience` or until `stop`. `believe` judges the documents that the server shows; what it makes of them is
    /// returned.
    pub async fn join<T>(
        &self,
        dialer: &Dialer,
        patience: Duration,
        stop: &CancellationToken,
        believe: impl Fn(&Server, &Challenge) -> Result<T, Failure>,
    ) -> Result<(T, Admitted), Failure> {
        let deadline = Instant::now() + patience;
        let mut backoff = Backoff::dialling();
        loop {
            let failure = match self.attempt(dialer, &believe).await {
                Ok(admitted) => return Ok(admitted),
                Err(failure) => failure,
            };
            dialer.prefer(failure.leader_addrs());
            if !failure.may_pass() || Instant::now() >= deadline {
                return Err(failure);
            }
            tracing::warn!(code = %failure.code, details = ?failure.details, "not joined yet: {failure}");
            pause(backoff.next_delay(), stop).await?;
        }
    }

    async fn attempt<T>(
        &self,
        dialer: &Dialer,
        believe: impl Fn(&Server, &Challenge) -> Result<T, Failure>,
    ) -> Result<(T, Admitted), Failure> {
        let link = dialer.dial().await?;
        let (mut talk, challenge) = greet(&link, self.token.id.to_vec()).await?;
        let believed = believe(&link.server, &challenge)?;
        let nonce: [u8; 32] = challenge.nonce.as_slice().try_into().map_err(|_| out_of_turn())?;
        let csr = self.key.csr().map_err(|e| Failure::failed("join-key", e.to_string()))?;
        let mac = join_mac(&self.token.mac_key(), &nonce, &csr, self.hpke_pub);
        let proof = Proof { csr, hpke_pub: self.hpke_pub.to_vec(), mac };
        talk.say(JoinRequest { step: Some(join_request::Step::Proof(proof)) })?;
        match talk.hear().await? {
            join_reply::Step::Issued(issued) => Ok((believed, Admitted::Issued(issued))),
            join_reply::Step::Pending(pending) => Ok((believed, Admitted::Pending(pending))),
            join_reply::Step::Challenge(_) | join_reply::Step::Removed(_) => Err(out_of_turn()),
        }
    }
}

/// The cluster's public documents as they are now: what the join listener shows to anybody who asks. The caller judges
/// them by those that it believes already.
pub async fn documents(dialer: &Dialer) -> Result<Challenge, Failure> {
    let link = dialer.dial().await?;
    // No token has this id, and none is needed: the challenge comes before the proof.
    Ok(greet(&link, vec![0; 8]).await?.1)
}

/// What those who listen at `addrs` say of the cluster's documents, all asked at once: one that is silent holds up none. Nothing
/// proves who answers, and nothing is sent: the caller believes signatures in it and no more.
pub async fn ask_trust(addrs: impl IntoIterator<Item = String>) -> Vec<TrustView> {
    let asked = addrs.into_iter().map(|addr| async move {
        let failure = match timeout(ANSWER, ask_trust_at(addr.clone())).await {
            Ok(Ok(shown)) => return Some(shown),
            Ok(Err(failure)) => failure,
            Err(elapsed) => late(elapsed),
        };
        tracing::debug!(code = %failure.code, %addr, "no documents from there: {failure}");
        None
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

async fn ask_trust_at(addr: String) -> Result<TrustView, Failure> {
    let link = Dialer::new([addr], ClientTls::unproven(), Timing::default()).dial().await?;
    let mut client = JoinClient::new(link.channel.clone()).max_decoding_message_size(MAX_TRUST);
    let answer = client.trust(Ack {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| link.explain(status))
}

/// Puts the addresses that were `told` before the older ones that are `known`, and keeps `most`: nobody signs them.
pub fn learn_addrs(known: &mut Vec<String>, told: &[String], most: usize) {
    let older = std::mem::take(known).into_iter().filter(|a| !told.contains(a));
    *known = told.iter().cloned().chain(older).take(most).collect();
}

/// Asks at the addresses of `dialer` until an operator has approved `id`, whose key is `key`; ends early only by `stop`
/// or a refusal. A clock that is off is told, and waited for: somebody will set it right.
pub async fn await_approval(
    dialer: &Dialer,
    id: &str,
    key: &PrivateKey,
    stop: &CancellationToken,
) -> Result<Issued, Failure> {
    let spki = key.spki_sha256();
    tracing::info!(id, key = %spki, "waiting for approval: `holdfast node approve {id} --key {spki}`");
    match answered(dialer, id, key, stop).await? {
        Answer::Issued(issued) => Ok(issued),
        Answer::Voter(_) => Err(out_of_turn()),
    }
}

/// The same for a new voter, which operators admit by a command of their own.
pub async fn await_admission(
    dialer: &Dialer,
    id: &str,
    key: &PrivateKey,
    stop: &CancellationToken,
) -> Result<VoterAdmitted, Failure> {
    let spki = key.spki_sha256();
    tracing::info!(id, key = %spki, "waiting for admission: `holdfast voter admit {id} --key {spki}`");
    match answered(dialer, id, key, stop).await? {
        Answer::Voter(admitted) => Ok(admitted),
        Answer::Issued(_) => Err(out_of_turn()),
    }
}

/// What an applicant gets in the end.
enum Answer {
    Issued(Issued),
    Voter(VoterAdmitted),
}

async fn answered(dialer: &Dialer, id: &str, key: &PrivateKey, stop: &CancellationToken) -> Result<Answer, Failure> {
    loop {
        match ask(dialer, id, key).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(failure) if failure.may_pass() => {
                tracing::warn!(code = %failure.code, "the vault does not answer: {failure}");
            }
            Err(failure) if waits(&failure) => {
                tracing::warn!(code = %failure.code, "waiting for the clock to be right: {}", failure.line());
            }
            Err(failure) => return Err(failure),
        }
        pause(POLL, stop).await?;
    }
}

/// Whether an applicant goes on asking after `failure`.
fn waits(failure: &Failure) -> bool {
    failure.may_pass() || failure.code == "clock"
}

async fn ask(dialer: &Dialer, id: &str, key: &PrivateKey) -> Result<Option<Answer>, Failure> {
    let op = |channel| {
        let request = question(id, key);
        async move { JoinClient::new(channel).r#await(request?).await }
    };
    match dialer.call(ANSWER, op).await?.step {
        Some(await_reply::Step::Issued(issued)) => Ok(Some(Answer::Issued(issued))),
        Some(await_reply::Step::Voter(admitted)) => Ok(Some(Answer::Voter(admitted))),
        Some(await_reply::Step::Pending(_)) => Ok(None),
        None => Err(out_of_turn()),
    }
}

/// Signed anew for each attempt: no question is answered twice.
fn question(id: &str, key: &PrivateKey) -> Result<AwaitRequest, tonic::Status> {
    let at_ms = now().0;
    let signature = key.sign(&await_message(id, at_ms)).map_err(|e| Failure::failed("join-key", e.to_string()))?;
    Ok(AwaitRequest { id: id.to_owned(), at_ms, signature, spki: key.spki_der().to_vec() })
}

/// What the applicant's key signs: `"holdfast/v1/await" ‖ id ‖ at_ms`.
fn await_message(id: &str, at_ms: i64) -> Vec<u8> {
    [b"holdfast/v1/await".as_slice(), id.as_bytes(), &at_ms.to_be_bytes()].concat()
}

/// The server that TLS has proven must be of the very cluster that its documents tell of.
pub fn one_cluster(server: &Server, cluster: &ClusterId, trust_domain: &TrustDomain) -> Result<(), Failure> {
    if server.cluster == Some(*cluster) && server.peer.id.trust_domain == *trust_domain {
        return Ok(());
    }
    let two = "the vault's certificate and its charter name two clusters";
    Err(Failure::refused("cluster-not-believed", two))
}

/// Believes the certificate that the vault gave: it leads to `roots`, is for our key, and names `role` and the id that
/// the vault says.
pub fn believe_certificate(issued: &Issued, key: &PrivateKey, roots: &Anchors, role: Role) -> Result<(), Failure> {
    let not_ours = |e: &dyn std::fmt::Display| {
        Failure::refused("certificate-not-ours", format!("the certificate that the vault gave: {e}"))
    };
    let identity = LocalIdentity::new(&issued.chain, key).map_err(|e| not_ours(&e))?;
    verify_peer(identity.chain(), roots, now(), Usage::Client).map_err(|e| not_ours(&e))?;
    if identity.id().role != role || identity.id().name != issued.id {
        return Err(not_ours(&format!("it names {}", identity.id())));
    }
    Ok(())
}

/// Greets, and returns what the server shows first.
async fn greet(link: &Link, token_id: Vec<u8>) -> Result<(Talk<JoinRequest>, Challenge), Failure> {
    let (steps, outgoing) = questions();
    let hello = JoinRequest { step: Some(join_request::Step::Hello(Hello { token_id })) };
    steps.try_send(hello).map_err(|_| ended())?;
    let mut client = JoinClient::new(link.channel.clone()).max_decoding_message_size(MAX_TRUST);
    let replies = timeout(ANSWER, client.join(outgoing)).await.map_err(late)??.into_inner();
    let mut talk = Talk { steps, replies };
    let challenge = talk.challenge().await?;
    Ok((talk, challenge))
}

/// Where what we say goes in, and the stream that it comes out of.
pub(crate) fn questions<T: Send + 'static>() -> (mpsc::Sender<T>, impl Stream<Item = T> + Send + 'static) {
    let (steps, receiver) = mpsc::channel(2);
    (steps, futures::stream::unfold(receiver, |mut r| async { r.recv().await.map(|step| (step, r)) }))
}

/// An open handshake in which we say `T`.
pub(crate) struct Talk<T> {
    pub(crate) steps: mpsc::Sender<T>,
    pub(crate) replies: Streaming<JoinReply>,
}

impl<T> Talk<T> {
    pub(crate) fn say(&self, step: T) -> Result<(), Failure> {
        self.steps.try_send(step).map_err(|_| ended())
    }
    pub(crate) async fn hear(&mut self) -> Result<join_reply::Step, Failure> {
        let reply = timeout(ANSWER, self.replies.message()).await.map_err(late)??;
        reply.ok_or_else(ended)?.step.ok_or_else(out_of_turn)
    }
    /// What the server shows before we prove anything.
    pub(crate) async fn challenge(&mut self) -> Result<Challenge, Failure> {
        let join_reply::Step::Challenge(challenge) = self.hear().await? else { return Err(out_of_turn()) };
        Ok(challenge)
    }
}

async fn pause(time: Duration, stop: &CancellationToken) -> Result<(), Failure> {
    tokio::select! {
        () = stop.cancelled() => Err(Failure::unavailable("stopped", "stopped before the cluster was joined")),
        () = sleep(time) => Ok(()),
    }
}

pub(crate) fn late(_: tokio::time::error::Elapsed) -> Failure {
    Failure::unavailable("timed-out", format!("no answer within {ANSWER:?}"))
}
pub(crate) fn ended() -> Failure {
    Failure::unavailable("connection-lost", "the vault ended the handshake")
}
pub(crate) fn out_of_turn() -> Failure {
    Failure::failed("join-protocol", "the vault's answer does not follow the join protocol")
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{Digest, Secret, TokenId};

    fn printed(role: TokenRole) -> zeroize::Zeroizing<String> {
        JoinToken { role, id: TokenId([1; 8]), anchor: Digest([2; 32]), secret: Secret::take(&mut [3; 20]) }.print()
    }
    fn read(text: &str) -> Result<JoinToken, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        crate::files::replace(&path, text.as_bytes(), crate::files::PRIVATE).unwrap();
        read_token(&path, TokenRole::Orchestrator)
    }

    #[test]
    fn a_token_with_a_typing_error_is_refused_before_anything_is_sent() {
        let good = printed(TokenRole::Orchestrator);
        assert_eq!(read(&format!("{}\n", *good)).unwrap().anchor, Digest([2; 32]));
        for at in 13..good.len() {
            let mut bytes = good.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let failure = read(std::str::from_utf8(&bytes).unwrap()).err().unwrap();
            assert_eq!((failure.kind.exit_code(), failure.code.as_ref()), (3, "join-token"), "{at}");
            assert!(!failure.message.contains("hf_join_v1_"), "{failure}");
        }
    }

    #[test]
    fn a_token_of_another_role_is_refused_with_advice() {
        let failure = read(&printed(TokenRole::Node)).err().unwrap();
        assert_eq!(failure.kind.exit_code(), 3);
        assert!(failure.message.contains("role node") && failure.help.unwrap().contains("--role orchestrator"));
    }

    #[test]
    fn a_token_that_others_may_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let good = printed(TokenRole::Node);
        crate::files::replace(&path, good.as_bytes(), crate::files::PUBLIC).unwrap();
        let failure = read_token(&path, TokenRole::Node).err().unwrap();
        assert_eq!((failure.kind.exit_code(), failure.code.as_ref()), (3, "key-exposed"));
        assert!(failure.message.contains("join token") && failure.help.unwrap().contains("chmod 600"));
        crate::files::replace(&path, good.as_bytes(), crate::files::PRIVATE).unwrap();
        read_token(&path, TokenRole::Node).unwrap();
    }

    #[test]
    fn a_missing_token_file_is_wrong_usage() {
        let failure = read_token(Path::new("/nonexistent/token"), TokenRole::Node).err().unwrap();
        assert_eq!(failure.kind.exit_code(), 2);
    }

    #[test]
    fn an_applicant_waits_through_an_outage_and_a_wrong_clock_and_not_after_a_refusal() {
        let off = crate::clock::differs(Duration::from_secs(7200), "as the vault says");
        let gone = Failure::unavailable("unreachable", "nobody answers");
        assert!(waits(&off) && waits(&gone) && waits(&Failure::not_leader(["10.0.0.1:7400"])));
        let refused = Failure::refused("bad-credential", "nobody with this id and key waits here");
        assert!(!waits(&refused) && !waits(&out_of_turn()));
    }

    #[test]
    fn the_await_message_is_the_protocols() {
        assert_eq!(await_message("node-1", 258), b"holdfast/v1/awaitnode-1\0\0\0\0\0\0\x01\x02");
    }
}
