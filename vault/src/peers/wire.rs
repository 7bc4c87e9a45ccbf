//! Raft's messages over the lines, and snapshots over connections of their own, so that they hold up no heartbeat.

use super::{Peers, line, lock};
use crate::raft::{MAX_MESSAGE, MAX_SNAPSHOT, PeerRpc, SentSnapshot, Wire, WireError};
use futures::future::BoxFuture;
use holdfast_transport::client::Link;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::peer_client::PeerClient;
use holdfast_types::{VoterId, sha256};
use holdfast_wire::v1;
use holdfast_wire::v1::snapshot_part::Part;
use std::sync::Arc;
use tonic::transport::Channel;

/// Bytes of a snapshot in one message.
pub(super) const PART: usize = 1 << 20;
/// A message with what is round it.
pub(super) const FRAME: usize = MAX_MESSAGE + (64 << 10);

pub(super) fn client(link: &Link) -> PeerClient<Channel> {
    PeerClient::new(link.channel.clone()).max_decoding_message_size(FRAME).max_encoding_message_size(FRAME)
}

fn lost(f: Failure) -> WireError {
    WireError(f.said())
}

impl Peers {
    async fn message(&self, to: VoterId, addr: &str, rpc: PeerRpc, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.gate()?;
        let message = v1::PeerMessage { boot: Some(self.boot()), body };
        let asked = |mut c: PeerClient<Channel>| async move {
            match rpc {
                PeerRpc::Append => c.append(message).await,
                PeerRpc::Vote => c.vote(message).await,
                PeerRpc::PreVote => c.pre_vote(message).await,
                PeerRpc::TransferLeader => c.transfer_leader(message).await,
            }
        };
        let answer: v1::PeerMessage = self.over_line(to, addr, asked).await?;
        self.hear(to, answer.boot.as_ref(), || None)?;
        Ok(answer.body)
    }

    async fn send_snapshot(&self, to: VoterId, addr: &str, sent: SentSnapshot) -> Result<Vec<u8>, Failure> {
        self.gate()?;
        let SentSnapshot { vote, meta, data } = sent;
        if data.len() as u64 > MAX_SNAPSHOT {
            let why = format!("a snapshot of {} bytes is more than a voter takes", data.len());
            tracing::error!(to = to.0, "{why}");
            return Err(Failure::failed("failed", why));
        }
        let (data, sum) = digested(data).await?;
        let head = v1::SnapshotHead { boot: Some(self.boot()), vote, meta, bytes: data.len() as u64, sha256: sum };
        let link = line::dialer(to, addr, self.tls.clone()).dial().await?;
        let head = std::iter::once(v1::SnapshotPart { part: Some(Part::Head(head)) });
        let data = Arc::new(data);
        let pieces = (0..data.len().div_ceil(PART)).map(move |n| {
            let piece = data.chunks(PART).nth(n).unwrap_or_default();
            v1::SnapshotPart { part: Some(Part::Data(piece.to_vec())) }
        });
        match client(&link).snapshot(futures::stream::iter(head.chain(pieces))).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                self.hear(to, answer.boot.as_ref(), || None)?;
                Ok(answer.body)
            }
            Err(status) => {
                let failure = link.explain(status);
                self.heed(to, &failure);
                tracing::warn!(to = to.0, code = %failure.code, "a snapshot was not taken: {failure}");
                Err(failure)
            }
        }
    }
}

/// `data` with its digest, computed where it holds up nobody.
pub(super) async fn digested(data: Vec<u8>) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let work = move || {
        let sum = sha256(&[&data]).to_vec();
        (data, sum)
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::unavailable("stopping", "this voter is stopping"))
}

impl Wire for Peers {
    fn call<'a>(
        &'a self,
        to: VoterId,
        addr: &'a str,
        rpc: PeerRpc,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<Vec<u8>, WireError>> {
        Box::pin(async move { self.message(to, addr, rpc, body).await.map_err(lost) })
    }

    fn snapshot<'a>(
        &'a self,
        to: VoterId,
        addr: &'a str,
        snapshot: SentSnapshot,
    ) -> BoxFuture<'a, Result<Vec<u8>, WireError>> {
        Box::pin(async move { self.send_snapshot(to, addr, snapshot).await.map_err(lost) })
    }

    fn granted(&self, to: VoterId, term: u64) {
        let mut granted = lock(&self.granted);
        let newest = granted.entry(to).or_default();
        *newest = term.max(*newest);
    }
}
