//! The first start: from a join token to an identity (protocol, join handshake).
//!
//! LAW: nothing is sent before the server is proven to be a voter of the cluster that the token pins (that is
//! `ClientTls::join`), and no key is used that is not on disk already. The token's secret never leaves this process:
//! what is sent is a MAC over the server's nonce, our request and our key.

use crate::keys::KeyRing;
use crate::state::memory::MemoryFile;
use crate::state::trust::TrustFiles;
use crate::state::{JoiningFile, NodeFile, StateDir};
use holdfast_orchestrator_core::verify::{News, NodeTrust, Refusal, TaskMemory};
use holdfast_pki::chain::{Usage, verify_peer};
use holdfast_transport::client::{Backoff, Dialer, Link, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::renew::{FileStore, KeyStore as _, pending_key};
use holdfast_transport::rpc::join_client::JoinClient;
use holdfast_transport::tls::{ClientTls, LocalIdentity, TrustCell};
use holdfast_transport::{check_clock, now};
use holdfast_types::Role;
use holdfast_wire::token::{JoinToken, TokenRole, join_mac};
use holdfast_wire::v1::{AwaitRequest, Challenge, Hello, Issued, JoinRequest, Pending, Proof};
use holdfast_wire::v1::{await_reply, join_reply, join_request};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// How long the vault is looked for before the first start gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// For each answer of the handshake.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two questions whether an operator has approved us.
const POLL: Duration = Duration::from_secs(2);

/// Where a join writes to.
pub struct Applicant<'a> {
    /// The agent's state.
    pub state: &'a StateDir,
    /// Its keys for boxes.
    pub ring: &'a mut KeyRing,
}

/// Reads a join token. A token with a typing error is found here, before anything is sent anywhere.
pub fn read_token(path: &Path) -> Result<JoinToken, Failure> {
    let unreadable = |e| Failure::invalid("token-unreadable", format!("join token file {}: {e}", path.display()));
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
    let token = JoinToken::parse(&text).map_err(|e| {
        Failure::refused("join-token", format!("join token file {}: {e}", path.display()))
            .help("create one with `holdfast token create`")
    })?;
    if token.role == TokenRole::Node {
        return Ok(token);
    }
    let wrong = format!("this join token is for the role {}, not for a node", token.role.as_str());
    Err(Failure::refused("join-token", wrong).help("create one with `holdfast token create --role node`"))
}

/// What the handshake came to.
enum Step {
    Issued(Issued),
    Pending(Pending),
}

impl Applicant<'_> {
    /// Joins with `token` at the join listeners `addrs`; waits for approval if the token asks for it.
    pub async fn join(mut self, token: &JoinToken, addrs: &[String], stop: &CancellationToken) -> Result<(), Failure> {
        let key = pending_key(&FileStore::new(&self.state.identity())).map_err(|e| internal(&e))?;
        let hpke = self.ring.offer(key.spki_sha256()).map_err(|e| internal(&e))?;
        let dialer = Dialer::new(addrs.iter().cloned(), ClientTls::join(token.anchor), Timing::default());
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::dialling();
        let (trust, step) = loop {
            let failure = match attempt(&dialer, token, &key, &hpke).await {
                Ok(done) => break done,
                Err(failure) => failure,
            };
            dialer.prefer(failure.leader_addrs());
            if !failure.may_pass() || Instant::now() >= deadline {
                return Err(failure);
            }
            tracing::warn!(code = %failure.code, details = ?failure.details, "not joined yet: {failure}");
            tokio::select! {
                () = stop.cancelled() => return Err(Failure::unavailable("stopped", "stopped before the node had joined")),
                () = sleep(backoff.next_delay()) => {}
            }
        };
        TrustFiles::new(self.state.root()).save(&trust).map_err(|e| internal(&e))?;
        match step {
            Step::Issued(issued) => self.settle(&trust, &key, issued),
            Step::Pending(pending) => {
                let joining = JoiningFile { id: pending.id, join_addrs: dialer.addrs() };
                self.state.save_joining(&joining).map_err(|e| internal(&e))?;
                self.await_approval(stop).await
            }
        }
    }

    /// Goes on waiting for an operator, also after a restart; neither token nor address is needed again.
    pub async fn await_approval(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        let store = FileStore::new(&self.state.identity());
        let joining = self.state.load_joining().map_err(|e| internal(&e))?;
        let key = store.load_pending().map_err(|e| internal(&e))?;
        let (Some(joining), Some(key)) = (joining, key) else {
            return Err(Failure::failed("join-lost", "the join under way has lost its key")
                .help("empty the state directory and join again with a new token"));
        };
        let trust = TrustFiles::new(self.state.root()).load().map_err(|e| internal(&e))?;
        let roots = crate::believed::anchors(&trust).map_err(|e| internal(&e))?;
        let dialer = Dialer::new(joining.join_addrs, ClientTls::rejoin(TrustCell::new(roots)), Timing::default());
        tracing::info!(node = %joining.id, key = %key.spki_sha256(), "waiting for approval: `holdfast node approve {} --key {}`", joining.id, key.spki_sha256());
        loop {
            match ask(&dialer, &joining.id, &key).await {
                Ok(Some(issued)) => return self.settle(&trust, &key, issued),
                Ok(None) => {}
                Err(failure) if failure.may_pass() => {
                    tracing::warn!(code = %failure.code, "the vault does not answer: {failure}");
                }
                Err(failure) => return Err(failure),
            }
            tokio::select! {
                () = stop.cancelled() => return Err(Failure::unavailable("stopped", "stopped while waiting for approval")),
                () = sleep(POLL) => {}
            }
        }
    }

    /// Believes the certificate, and keeps everything; the identity comes last, for it says that the rest is there.
    fn settle(&mut self, trust: &NodeTrust, key: &PrivateKey, issued: Issued) -> Result<(), Failure> {
        let identity = LocalIdentity::new(&issued.chain, key).map_err(|e| not_ours(&e))?;
        let roots = crate::believed::anchors(trust).map_err(|e| internal(&e))?;
        verify_peer(identity.chain(), &roots, now(), Usage::Client).map_err(|e| not_ours(&e))?;
        if identity.id().role != Role::Node || identity.id().name != issued.id {
            return Err(Failure::refused("not-a-node", format!("the certificate names {}", identity.id())));
        }
        self.ring.accept(key.spki_sha256(), issued.seq, issued.node_psk).map_err(|e| internal(&e))?;
        let node = NodeFile { id: issued.id, service_addrs: issued.service_addrs, seq: issued.seq };
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

/// One handshake.
async fn attempt(
    dialer: &Dialer,
    token: &JoinToken,
    key: &PrivateKey,
    hpke: &[u8; 32],
) -> Result<(NodeTrust, Step), Failure> {
    let link = dialer.dial().await?;
    let (steps, outgoing) = mpsc::channel(2);
    let say = |step| {
        let sent = steps.try_send(JoinRequest { step: Some(step) });
        sent.map_err(|_| Failure::unavailable("connection-lost", "the vault ended the handshake"))
    };
    say(join_request::Step::Hello(Hello { token_id: token.id.to_vec() }))?;
    let mut client = JoinClient::new(link.channel.clone());
    let mut replies = timeout(ANSWER, client.join(ReceiverStream::new(outgoing))).await.map_err(late)??.into_inner();
    let join_reply::Step::Challenge(challenge) = next(&mut replies).await? else { return Err(out_of_turn()) };
    let trust = believe(token, &link, &challenge)?;
    let nonce: [u8; 32] = challenge.nonce.as_slice().try_into().map_err(|_| out_of_turn())?;
    let csr = key.csr().map_err(|e| internal(&e))?;
    let mac = join_mac(&token.mac_key(), &nonce, &csr, hpke);
    say(join_request::Step::Proof(Proof { csr, hpke_pub: hpke.to_vec(), mac }))?;
    match next(&mut replies).await? {
        join_reply::Step::Issued(issued) => Ok((trust, Step::Issued(issued))),
        join_reply::Step::Pending(pending) => Ok((trust, Step::Pending(pending))),
        join_reply::Step::Challenge(_) => Err(out_of_turn()),
    }
}

async fn next(replies: &mut Streaming<holdfast_wire::v1::JoinReply>) -> Result<join_reply::Step, Failure> {
    let reply = timeout(ANSWER, replies.message()).await.map_err(late)??;
    let ended = || Failure::unavailable("connection-lost", "the vault ended the handshake");
    reply.ok_or_else(ended)?.step.ok_or_else(out_of_turn)
}

/// The challenge must tell of the very cluster that the token pins and that TLS has proven, with a Status of now.
fn believe(token: &JoinToken, link: &Link, challenge: &Challenge) -> Result<NodeTrust, Failure> {
    let refused = |e: Refusal| Failure::refused("cluster-not-believed", format!("the vault's documents: {e}"));
    let mut trust =
        NodeTrust::join(token.anchor, &challenge.charter_chain, &challenge.bundle_chain).map_err(refused)?;
    let server = &link.server;
    if server.cluster != Some(*trust.cluster()) || server.peer.id.trust_domain != *trust.trust_domain() {
        return Err(Failure::refused(
            "cluster-not-believed",
            "the vault's certificate and its charter name two clusters",
        ));
    }
    let no_status = || Failure::refused("cluster-not-believed", "the vault shows no status");
    let status = challenge.status.as_ref().ok_or_else(no_status)?;
    check_clock(status)?;
    match trust.observe_status(now(), status).map_err(refused)? {
        News::Todo(status) => trust.adopt_status(status),
        News::AlreadyDone | News::Stale => return Err(no_status()),
    }
    Ok(trust)
}

/// Asks once whether we are approved: `None` if not yet.
async fn ask(dialer: &Dialer, id: &str, key: &PrivateKey) -> Result<Option<Issued>, Failure> {
    let at_ms = now().0;
    let signature = key.sign(&await_message(id, at_ms)).map_err(|e| internal(&e))?;
    let request = AwaitRequest { id: id.to_owned(), at_ms, signature, spki: key.spki_der().to_vec() };
    let op = |channel| {
        let request = request.clone();
        async move { JoinClient::new(channel).r#await(request).await }
    };
    match dialer.call(ANSWER, op).await?.step {
        Some(await_reply::Step::Issued(issued)) => Ok(Some(issued)),
        Some(await_reply::Step::Pending(_)) => Ok(None),
        None => Err(out_of_turn()),
    }
}

/// What the applicant's key signs: `"holdfast/v1/await" ‖ id ‖ at_ms`.
fn await_message(id: &str, at_ms: i64) -> Vec<u8> {
    [b"holdfast/v1/await".as_slice(), id.as_bytes(), &at_ms.to_be_bytes()].concat()
}

fn late(_: tokio::time::error::Elapsed) -> Failure {
    Failure::unavailable("timed-out", format!("no answer within {ANSWER:?}"))
}
fn out_of_turn() -> Failure {
    Failure::failed("join-protocol", "the vault's answer does not follow the join protocol")
}
fn not_ours(e: &dyn std::fmt::Display) -> Failure {
    Failure::refused("certificate-not-ours", format!("the certificate that the vault gave: {e}"))
}
fn internal(e: &dyn std::fmt::Display) -> Failure {
    Failure::failed("state", e.to_string()).help("check owner, mode and free space of state_dir and runtime_dir")
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{Digest, Secret, TokenId};

    fn token(role: TokenRole) -> JoinToken {
        JoinToken { role, id: TokenId([1; 8]), anchor: Digest([2; 32]), secret: Secret::take(&mut [3; 20]) }
    }
    fn read(text: &str) -> Result<JoinToken, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, text).unwrap();
        read_token(&path)
    }
    fn refusal(text: &str) -> Failure {
        read(text).err().unwrap()
    }

    #[test]
    fn a_token_with_a_typing_error_is_refused_before_anything_is_sent() {
        let good = token(TokenRole::Node).print();
        assert_eq!(read(&format!("{}\n", *good)).unwrap().anchor, Digest([2; 32]));
        for at in 13..good.len() {
            let mut bytes = good.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let failure = refusal(std::str::from_utf8(&bytes).unwrap());
            assert_eq!((failure.kind.exit_code(), failure.code.as_ref()), (3, "join-token"), "{at}");
            assert!(!failure.message.contains("hf_join_v1_n"), "{failure}");
        }
        assert_eq!(refusal("").kind.exit_code(), 3);
    }

    #[test]
    fn a_token_of_another_role_is_refused_with_advice() {
        let failure = refusal(&token(TokenRole::Orchestrator).print());
        assert_eq!(failure.kind.exit_code(), 3);
        assert!(failure.message.contains("orchestrator") && failure.help.unwrap().contains("--role node"));
    }

    #[test]
    fn a_missing_token_file_is_wrong_usage() {
        let failure = read_token(Path::new("/nonexistent/token")).err().unwrap();
        assert_eq!(failure.kind.exit_code(), 2);
    }

    #[tokio::test]
    async fn a_join_writes_both_keys_down_before_it_dials_and_keeps_them() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut ring = KeyRing::open(dir.path()).unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        // Nobody listens on port 1: the join stops after its first attempt.
        let addrs = ["127.0.0.1:1".to_owned()];
        let applicant = Applicant { state: &state, ring: &mut ring };
        let failure = applicant.join(&token(TokenRole::Node), &addrs, &stop).await.unwrap_err();
        assert_eq!(failure.kind.exit_code(), 5);
        let key = FileStore::new(&state.identity()).load_pending().unwrap().unwrap();
        let offered = ring.offer(key.spki_sha256()).unwrap();
        let mut after_restart = KeyRing::open(dir.path()).unwrap();
        assert_eq!(after_restart.offer(key.spki_sha256()).unwrap(), offered);
        assert!(state.load_node().unwrap().is_none());
    }

    #[test]
    fn the_await_message_is_the_protocols() {
        assert_eq!(await_message("node-1", 258), b"holdfast/v1/awaitnode-1\0\0\0\0\0\0\x01\x02");
    }
}
