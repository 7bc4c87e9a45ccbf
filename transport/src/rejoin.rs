//! Bound-key rejoin: an identity whose certificate is over comes back by the key that the registry knows (protocol, states of a
//! node).
//!
//! LAW: the old key signs only for a server that the caller's roots believe to be a voter
//! (`a_rejoin_signs_nothing_for_a_server_that_is_not_believed`); whoever slept through rotations follows the bundles first
//! ([`ask_trust`](crate::join::ask_trust)), and dials anew. The key of the request is on disk already, and the same one after a
//! lost reply.

use crate::client::{Dialer, Link};
use crate::failure::Failure;
use crate::join::{ANSWER, MAX_TRUST, Talk, ended, late, out_of_turn, questions};
use crate::keys::PrivateKey;
use crate::rpc::join_client::JoinClient;
use holdfast_types::sha256;
use holdfast_wire::v1::{
    Challenge, Issued, RejoinHello, RejoinProof, RejoinRequest, Removed, join_reply, rejoin_request,
};
use tokio::time::timeout;

/// Followers that may point to somebody else before the leader answers.
const HOPS: usize = 3;

/// What the vault makes of the proof.
#[derive(Debug)]
pub enum Answer {
    /// The next certificate.
    Issued(Issued),
    /// The identity was removed; what is signed says so to whoever believes the vault's keys.
    Removed(Removed),
}

/// A rejoin under way, after the server has shown its documents.
pub struct Rejoin {
    talk: Talk<RejoinRequest>,
    id: String,
    challenge: Challenge,
    /// The connection lives as long as the talk.
    _link: Link,
}

impl Rejoin {
    /// Says to the leader among the addresses of `dialer` (made with `ClientTls::rejoin`) that `id` wants to come back.
    pub async fn open(dialer: &Dialer, id: &str) -> Result<Self, Failure> {
        let mut hops = 0;
        loop {
            let failure = match Self::greet(dialer, id).await {
                Ok(open) => return Ok(open),
                Err(failure) => failure,
            };
            let leaders = failure.leader_addrs();
            if leaders.is_empty() || hops == HOPS {
                return Err(failure);
            }
            dialer.prefer(leaders);
            hops += 1;
        }
    }

    async fn greet(dialer: &Dialer, id: &str) -> Result<Self, Failure> {
        let link = dialer.dial().await?;
        let (steps, outgoing) = questions();
        let hello = RejoinRequest { step: Some(rejoin_request::Step::Hello(RejoinHello { id: id.to_owned() })) };
        steps.try_send(hello).map_err(|_| ended())?;
        // The challenge shows every Bundle since the first, as `ask_trust` does.
        let mut client = JoinClient::new(link.channel.clone()).max_decoding_message_size(MAX_TRUST);
        let replies = timeout(ANSWER, client.rejoin(outgoing)).await.map_err(late)??.into_inner();
        let mut talk = Talk { steps, replies };
        let challenge = talk.challenge().await?;
        Ok(Self { talk, id: id.to_owned(), challenge, _link: link })
    }

    /// What the server shows: the caller judges it before it proves anything.
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// Proves that we hold `old`, and asks for a certificate for the key of `csr`; `bundle_epoch`: the newest Bundle that we
    /// believe.
    pub async fn prove(
        mut self,
        old: &PrivateKey,
        csr: Vec<u8>,
        hpke_pub: Vec<u8>,
        bundle_epoch: u64,
    ) -> Result<Answer, Failure> {
        let nonce: [u8; 32] = self.challenge.nonce.as_slice().try_into().map_err(|_| out_of_turn())?;
        let message = rejoin_message(&nonce, &self.id, &csr, &hpke_pub);
        let signature = old.sign(&message).map_err(|e| Failure::failed("join-key", e.to_string()))?;
        let proof = RejoinProof { csr, hpke_pub, spki: old.spki_der().to_vec(), signature, bundle_epoch };
        self.talk.say(RejoinRequest { step: Some(rejoin_request::Step::Proof(proof)) })?;
        match self.talk.hear().await? {
            join_reply::Step::Issued(issued) => Ok(Answer::Issued(issued)),
            join_reply::Step::Removed(removed) => Ok(Answer::Removed(removed)),
            join_reply::Step::Challenge(_) | join_reply::Step::Pending(_) => Err(out_of_turn()),
        }
    }
}

/// What the old key signs: `"holdfast/v1/rejoin" ‖ nonce ‖ H(id) ‖ H(csr) ‖ H(hpke_pub)`.
fn rejoin_message(nonce: &[u8; 32], id: &str, csr: &[u8], hpke_pub: &[u8]) -> Vec<u8> {
    let hashed = [id.as_bytes(), csr, hpke_pub].map(|part| sha256(&[part]).to_vec());
    [b"holdfast/v1/rejoin".as_slice(), nonce, &hashed.concat()].concat()
}
