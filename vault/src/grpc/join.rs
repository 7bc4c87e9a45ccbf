//! Listener J: joining by token, collecting after approval, operators' logins. Callers have no certificate yet.

use super::{Answers, present};
use crate::cluster::Cluster;
use crate::failure::{fork, refused};
use crate::keystore::random32;
use crate::seen::{addr_of, from as from_addr};
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::join_server::Join;
use holdfast_transport::server::{ConnPeer, Limits, PerSource};
use holdfast_types::{Millis, Role, TokenId};
use holdfast_vault_core::NoteKind;
use holdfast_vault_core::prepare::{self, Approved, Back, JoinOutcome};
use holdfast_wire::v1::{self, await_reply, join_reply, join_request, login_reply, login_request, rejoin_request};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// A caller without certificate has this long for its next message.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bounds of J, which anybody may dial. A join that finds no place is tried again by itself, so machines behind one address
/// join a few at a time.
pub fn limits() -> Limits {
    let per_source = PerSource { connections: 64, handshakes: 16 };
    Limits { connections: 1024, per_source, session: Duration::from_secs(60), ..Limits::default() }
}

/// Serves J.
pub struct JoinService(pub Arc<Cluster>);

async fn next<T>(s: &mut Streaming<T>) -> Result<T, Failure> {
    let late = |_| Failure::unavailable("timed-out", "the next message of the handshake did not come in time");
    let m = tokio::time::timeout(PATIENCE, s.message()).await.map_err(late)?.map_err(Failure::from)?;
    present(m, "the next message of the handshake")
}

fn from<T>(r: &Request<T>) -> String {
    r.extensions().get::<Arc<ConnPeer>>().map_or_else(|| "unknown".to_owned(), |c| c.addr.to_string())
}

impl JoinService {
    /// Only the leader speaks with those who have no certificate; a follower says where its join listener is.
    async fn leads(&self) -> Result<(), Failure> {
        self.0.confirm_leading().await.map_err(|f| self.0.on_join(f))
    }

    fn challenge(&self, nonce: [u8; 32]) -> Result<v1::Challenge, Failure> {
        let (charter_chain, bundle_chain) = self.0.look(|s| (s.charter_chain(), s.bundle_chain()))?;
        Ok(v1::Challenge { nonce: nonce.to_vec(), charter_chain, bundle_chain, status: Some(self.0.status()?) })
    }

    async fn admit(
        cluster: &Cluster,
        token: TokenId,
        nonce: [u8; 32],
        proof: &v1::Proof,
        addr: &str,
    ) -> Result<v1::JoinReply, Failure> {
        let decided = cluster.certify(|l, e| prepare::join(l, token, &nonce, proof, e));
        let outcome = match decided {
            Ok(p) => cluster.commit(p).await.map(|(o, _)| o).map_err(|f| cluster.on_join(f)),
            Err(f) => Err(f),
        };
        let step = match outcome {
            Ok(JoinOutcome::Issued(i)) => join_reply::Step::Issued(i),
            Ok(JoinOutcome::Pending(p)) => join_reply::Step::Pending(p),
            Err(f) => {
                // Anybody may try: only the first refusals of a source in a minute are written down.
                let source = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
                if cluster.strangers.allows(&format!("join/{source}"), cluster.clock.now()) {
                    cluster.note(NoteKind::TokenDeny, format!("peer/{addr}"), token.hex(), f.code.to_string()).await;
                }
                return Err(f);
            }
        };
        Ok(v1::JoinReply { step: Some(step) })
    }
}

/// Either somebody repeats what an applicant said, or the applicant's clock went back, and it waits until that is made up.
fn asked_before() -> Failure {
    Failure::failed(
        "clock",
        "this question or a later one was answered before: the time that it was signed at must rise",
    )
    .help("nothing, if this machine's clock was just set back: it is asked again")
}

/// What a machine that proves its old key is given: its next certificate, or the word that it was removed.
async fn comes_back(
    cluster: &Cluster,
    (nonce, addr): ([u8; 32], Option<SocketAddr>),
    id: &str,
    proof: &v1::RejoinProof,
) -> Result<join_reply::Step, Failure> {
    let place = format!("{}; {}", from_addr(addr), cluster.seen.elsewhere(id, "", None));
    let decided = match cluster.certify(|l, e| prepare::rejoin(l, &nonce, id, proof, &place, e)) {
        // The proof was good: only now does it count as this machine's.
        Ok(Back::Comes(p)) => cluster.may_have_certificate(id).map(|()| p),
        Ok(Back::Removed) => return hears_of_its_removal(cluster, id, addr).await,
        Err(f) => Err(f),
    };
    let committed = match decided {
        Ok(p) => cluster.commit(*p).await.map(|(issued, _)| issued).map_err(|f| cluster.on_join(f)),
        Err(f) => Err(f),
    };
    let issued = match committed {
        Ok(issued) => issued,
        Err(f) => {
            // Of a name that nobody has, nothing is written down; of others, the first refusals of a source in a minute.
            let source = addr.map_or_else(String::new, |a| a.ip().to_string());
            let is_machine = matches!(cluster.look(|s| s.node_view(id, false).is_some()), Ok(true));
            if is_machine
                && f.code == "bad-credential"
                && cluster.strangers.allows(&format!("rejoin/{source}"), cluster.clock.now())
            {
                let detail = format!("it could not come back: {}", f.message);
                cluster.note(NoteKind::UnknownCert, format!("peer/{}", from_addr(addr)), id.to_owned(), detail).await;
            }
            return Err(f);
        }
    };
    issued.map(join_reply::Step::Issued).ok_or_else(fork)
}

/// It was cut off when it was removed, or off. Of a node, which asks once, it is written down that it is there again.
async fn hears_of_its_removal(
    cluster: &Cluster,
    id: &str,
    addr: Option<SocketAddr>,
) -> Result<join_reply::Step, Failure> {
    cluster.may_have_certificate(id)?;
    let said = {
        let (opened, now, life) = (cluster.opened.load(), cluster.clock.now(), cluster.config.lives.status);
        cluster.look(|s| prepare::removal(s, &opened.stk, id, s.time(now), life))?.map_err(refused)?
    };
    let source = addr.map_or_else(String::new, |a| a.ip().to_string());
    let is_node = cluster.look(|s| s.role_of(id) == Some(Role::Node))?;
    if is_node && cluster.strangers.allows(&format!("removed/{source}"), cluster.clock.now()) {
        let detail = "it was removed, proves its key, and is told so".to_owned();
        cluster.note(NoteKind::UnknownCert, format!("peer/{}", from_addr(addr)), id.to_owned(), detail).await;
    }
    Ok(join_reply::Step::Removed(said))
}

type Sent<T> = tokio::sync::mpsc::Sender<Result<T, Status>>;

/// Runs a handshake beside its answers.
fn converse<T: Send + 'static, F>(talk: impl FnOnce(Sent<T>) -> F) -> Response<Answers<T>>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (tx, rx) = tokio::sync::mpsc::channel(2);
    let talk = talk(tx.clone());
    tokio::spawn(async move {
        if let Err(f) = talk.await
            && tx.send(Err(f.into())).await.is_err()
        {
            tracing::debug!("the caller left before its handshake ended");
        }
    });
    Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(rx)))
}

async fn send<T>(tx: &Sent<T>, m: T) -> Result<(), Failure> {
    tx.send(Ok(m)).await.map_err(|_| Failure::unavailable("disconnected", "the caller left"))
}

#[tonic::async_trait]
impl Join for JoinService {
    type JoinStream = Answers<v1::JoinReply>;
    type LoginStream = Answers<v1::LoginReply>;
    type RejoinStream = Answers<v1::JoinReply>;

    async fn join(&self, request: Request<Streaming<v1::JoinRequest>>) -> Result<Response<Self::JoinStream>, Status> {
        self.leads().await?;
        let addr = from(&request);
        let nonce = random32()?;
        let challenge = self.challenge(nonce)?;
        let cluster = Arc::clone(&self.0);
        let mut inbound = request.into_inner();
        Ok(converse(move |tx| async move {
            let Some(join_request::Step::Hello(hello)) = next(&mut inbound).await?.step else {
                return Err(Failure::invalid("invalid-input", "a join begins with a hello"));
            };
            let token = TokenId::from_slice(&hello.token_id)
                .ok_or_else(|| Failure::invalid("invalid-input", "a token id has 8 bytes"))?;
            send(&tx, v1::JoinReply { step: Some(join_reply::Step::Challenge(challenge)) }).await?;
            let Some(join_request::Step::Proof(proof)) = next(&mut inbound).await?.step else {
                return Err(Failure::invalid("invalid-input", "a challenge is answered by a proof"));
            };
            let reply = Self::admit(&cluster, token, nonce, &proof, &addr).await?;
            send(&tx, reply).await
        }))
    }

    async fn r#await(&self, request: Request<v1::AwaitRequest>) -> Result<Response<v1::AwaitReply>, Status> {
        self.leads().await?;
        let r = request.into_inner();
        let now = self.0.now()?;
        let decided = self.0.certify(|l, e| prepare::approved(l, &r, e))?;
        // The signature was good, so the question was the applicant's: only now does it count as asked.
        if !self.0.awaits.take(&r.id, Millis(r.at_ms), now) {
            return Err(asked_before().into());
        }
        let committed = |f| self.0.on_join(f);
        let step = match decided {
            Approved::Issued(p) => {
                self.0.may_have_certificate(&r.id)?;
                await_reply::Step::Issued(self.0.commit(p).await.map_err(committed)?.0)
            }
            Approved::Voter(p) => {
                self.0.may_have_certificate(&r.id)?;
                await_reply::Step::Voter(self.0.commit(p).await.map_err(committed)?.0)
            }
            Approved::Waits => {
                let spki = self.0.look(|s| s.node_view(&r.id, false).map(|n| n.spki_sha256))?.unwrap_or_default();
                await_reply::Step::Pending(v1::Pending { id: r.id, spki_sha256: spki })
            }
        };
        Ok(Response::new(v1::AwaitReply { step: Some(step) }))
    }

    /// For a machine whose certificate is over: it proves the key that the registry knows. It may have slept through changes of
    /// the roots, so the documents come first, and it judges by them whom it speaks with.
    async fn rejoin(
        &self,
        request: Request<Streaming<v1::RejoinRequest>>,
    ) -> Result<Response<Self::RejoinStream>, Status> {
        self.leads().await?;
        let addr = addr_of(&request);
        let nonce = random32()?;
        let challenge = self.challenge(nonce)?;
        let cluster = Arc::clone(&self.0);
        let mut inbound = request.into_inner();
        Ok(converse(move |tx| async move {
            let Some(rejoin_request::Step::Hello(hello)) = next(&mut inbound).await?.step else {
                return Err(Failure::invalid("invalid-input", "coming back begins with a hello"));
            };
            send(&tx, v1::JoinReply { step: Some(join_reply::Step::Challenge(challenge)) }).await?;
            let Some(rejoin_request::Step::Proof(proof)) = next(&mut inbound).await?.step else {
                return Err(Failure::invalid("invalid-input", "a challenge is answered by a proof"));
            };
            let step = comes_back(&cluster, (nonce, addr), &hello.id, &proof).await?;
            send(&tx, v1::JoinReply { step: Some(step) }).await
        }))
    }

    /// For whoever trusts no root of ours any more, as after a reset: documents that prove themselves, and where the voters are. Any
    /// open voter answers; it is as much as a join shows before its proof, under the same bounds.
    async fn trust(&self, _: Request<v1::Ack>) -> Result<Response<v1::TrustView>, Status> {
        let view = self.0.look(|s| v1::TrustView {
            charter_chain: s.charter_chain(),
            bundle_chain: s.bundle_chain(),
            resets: s.resets(),
            service_addrs: s.service_addrs(),
            join_addrs: s.join_addrs(),
            ..v1::TrustView::default()
        })?;
        Ok(Response::new(view))
    }

    async fn login(
        &self,
        request: Request<Streaming<v1::LoginRequest>>,
    ) -> Result<Response<Self::LoginStream>, Status> {
        self.leads().await?;
        let nonce = random32()?;
        let challenge = self.challenge(nonce)?;
        let cluster = Arc::clone(&self.0);
        let mut inbound = request.into_inner();
        Ok(converse(move |tx| async move {
            let Some(login_request::Step::Hello(_)) = next(&mut inbound).await?.step else {
                return Err(Failure::invalid("invalid-input", "a login begins with a hello"));
            };
            send(&tx, v1::LoginReply { step: Some(login_reply::Step::Challenge(challenge)) }).await?;
            let Some(login_request::Step::Proof(proof)) = next(&mut inbound).await?.step else {
                return Err(Failure::invalid("invalid-input", "a challenge is answered by a proof"));
            };
            let p = cluster.certify(|l, e| prepare::login(l, &nonce, &proof, e))?;
            let (issued, _) = cluster.commit(p).await.map_err(|f| cluster.on_join(f))?;
            send(&tx, v1::LoginReply { step: Some(login_reply::Step::Issued(issued)) }).await
        }))
    }
}
