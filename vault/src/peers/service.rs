//! Listener P: what other voters ask of this one.
//!
//! Must never: answer anybody but a voter whose key is pinned now, or look into what raft says.

use super::wire::{FRAME, PART, digested};
use super::{LEAVES, Peers};
use crate::grpc::Answers;
use crate::raft::{MAX_SNAPSHOT, PeerRpc, ReceiveError, Receiver};
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::peer_server::{Peer, PeerServer};
use holdfast_transport::server::peer_of;
use holdfast_transport::tls::peers::voter_number;
use holdfast_types::VoterId;
use holdfast_wire::v1;
use holdfast_wire::v1::snapshot_part::Part;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// How long the next part of a snapshot may take.
const NEXT_PART: Duration = Duration::from_secs(30);
/// Leaves read at a time, and bytes of them in one message, but for a single larger one.
const READ: u64 = 32;
const CHUNK: usize = 1 << 20;

/// What the peer listener needs of the daemon.
#[tonic::async_trait]
pub trait Host: Send + Sync + 'static {
    /// Where raft's messages go; `None` while raft does not run.
    fn voter(&self) -> Option<Arc<dyn Receiver>>;
    /// The furthest that voter `of` is known to have been, as the state and the leader's own view say.
    fn high_water(&self, of: VoterId) -> Result<v1::HighWaterReply, Failure>;
    /// What voter `from` says of itself; only the leader can take it.
    async fn report(&self, from: VoterId, report: v1::VoterReport) -> Result<v1::VoterReportReply, Failure>;
    /// Voter `id` spoke as another one: it was refused, and is to be written down.
    fn spoke_as_another(&self, id: VoterId);
    /// Leaves `from..until` of the log, ending early at the first that is not here.
    fn backfill(&self, from: u64, until: u64) -> Result<Vec<v1::LeafData>, Failure>;
}

/// What the peer listener serves.
pub fn routes(peers: Arc<Peers>, host: Arc<dyn Host>) -> Routes {
    let service = PeerService { peers, host };
    Routes::new(PeerServer::new(service).max_decoding_message_size(FRAME).max_encoding_message_size(FRAME))
}

struct PeerService {
    peers: Arc<Peers>,
    host: Arc<dyn Host>,
}

fn refusal(e: ReceiveError) -> Failure {
    match e {
        ReceiveError::Refused(why) | ReceiveError::Impostor(why) => Failure::refused("not-allowed", why),
        ReceiveError::Unavailable(why) => Failure::unavailable("unavailable", why),
    }
}

fn broken(what: &str) -> Failure {
    Failure::invalid("invalid-input", format!("the snapshot {what}"))
}

impl PeerService {
    /// The voter that calls. Pins are looked at with every call: whoever is evicted is not heard from then on.
    fn caller<T>(&self, request: &Request<T>) -> Result<VoterId, Failure> {
        let peer = peer_of(request)?;
        let number = voter_number(&peer.id).filter(|_| self.peers.tls.still(peer));
        number.map(VoterId).ok_or_else(|| {
            tracing::warn!(peer = %peer.id.short(), "a call on the peer listener was refused: it is no voter any more");
            Failure::refused("not-allowed", format!("{} is no voter of this cluster", peer.id.short()))
        })
    }

    fn hear(&self, from: VoterId, boot: Option<&v1::Boot>) -> Result<(), Failure> {
        let recorded = || self.host.high_water(from).ok()?.boot.as_ref().and_then(super::run);
        self.peers.hear(from, boot, recorded)
    }

    /// A message of `from` that was not taken.
    fn refused(&self, from: VoterId, e: ReceiveError) -> Failure {
        if let ReceiveError::Impostor(_) = e {
            self.host.spoke_as_another(from);
        }
        refusal(e)
    }

    fn voter(&self) -> Result<Arc<dyn Receiver>, Failure> {
        self.peers.gate()?;
        self.host.voter().ok_or_else(|| Failure::unavailable("unavailable", "raft does not run here yet"))
    }

    fn answer(&self, body: Vec<u8>) -> Response<v1::PeerMessage> {
        Response::new(v1::PeerMessage { boot: Some(self.peers.boot()), body })
    }

    async fn message(
        &self,
        rpc: PeerRpc,
        request: Request<v1::PeerMessage>,
    ) -> Result<Response<v1::PeerMessage>, Status> {
        let from = self.caller(&request)?;
        let m = request.into_inner();
        self.hear(from, m.boot.as_ref())?;
        let body = self.voter()?.receive(rpc, from, &m.body).await.map_err(|e| self.refused(from, e))?;
        Ok(self.answer(body))
    }

    /// A snapshot as it was sent, whole.
    async fn take_snapshot(
        &self,
        head: &v1::SnapshotHead,
        parts: &mut Streaming<v1::SnapshotPart>,
    ) -> Result<Vec<u8>, Status> {
        if head.bytes > MAX_SNAPSHOT {
            return Err(broken("is too large").into());
        }
        let bytes = usize::try_from(head.bytes).map_err(|_| broken("is too large"))?;
        let mut data = Vec::with_capacity(bytes);
        while let Some(part) = next(parts).await? {
            let Some(Part::Data(piece)) = part.part else { return Err(broken("has a second head").into()) };
            if piece.len() > PART || data.len() + piece.len() > bytes {
                return Err(broken("is longer than it says").into());
            }
            data.extend_from_slice(&piece);
        }
        let (data, sum) = digested(data).await?;
        if data.len() != bytes || sum != head.sha256 {
            return Err(broken("is not what was sent").into());
        }
        Ok(data)
    }
}

async fn next(parts: &mut Streaming<v1::SnapshotPart>) -> Result<Option<v1::SnapshotPart>, Status> {
    let late = |_| Failure::unavailable("timed-out", "the snapshot's next part did not come");
    tokio::time::timeout(NEXT_PART, parts.message()).await.map_err(late)?
}

/// Reads and sends leaves until the end, the first that is missing, or the caller's leaving.
async fn send_leaves(
    host: Arc<dyn Host>,
    mut from: u64,
    until: u64,
    tx: &mpsc::Sender<Result<v1::EntriesChunk, Status>>,
) -> Result<(), Failure> {
    while from < until {
        let to = until.min(from.saturating_add(READ));
        let read = Arc::clone(&host);
        let stopping = |_| Failure::unavailable("stopping", "this voter is stopping");
        let leaves = tokio::task::spawn_blocking(move || read.backfill(from, to)).await.map_err(stopping)??;
        let found = leaves.len() as u64;
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for leaf in leaves {
            let more = leaf.entry.len() + leaf.salt.len();
            if bytes + more > CHUNK && !chunk.is_empty() {
                let full = v1::EntriesChunk { leaves: std::mem::take(&mut chunk) };
                if tx.send(Ok(full)).await.is_err() {
                    return Ok(());
                }
                bytes = 0;
            }
            bytes += more;
            chunk.push(leaf);
        }
        if found == 0 || tx.send(Ok(v1::EntriesChunk { leaves: chunk })).await.is_err() {
            return Ok(());
        }
        from += found;
    }
    Ok(())
}

#[tonic::async_trait]
impl Peer for PeerService {
    type BackfillStream = Answers<v1::EntriesChunk>;

    async fn append(&self, request: Request<v1::PeerMessage>) -> Result<Response<v1::PeerMessage>, Status> {
        self.message(PeerRpc::Append, request).await
    }

    async fn vote(&self, request: Request<v1::PeerMessage>) -> Result<Response<v1::PeerMessage>, Status> {
        self.message(PeerRpc::Vote, request).await
    }

    async fn pre_vote(&self, request: Request<v1::PeerMessage>) -> Result<Response<v1::PeerMessage>, Status> {
        self.message(PeerRpc::PreVote, request).await
    }

    async fn transfer_leader(&self, request: Request<v1::PeerMessage>) -> Result<Response<v1::PeerMessage>, Status> {
        self.message(PeerRpc::TransferLeader, request).await
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::PeerMessage>, Status> {
        let from = self.caller(&request)?;
        let mut parts = request.into_inner();
        let first = next(&mut parts).await?.and_then(|p| p.part);
        let Some(Part::Head(head)) = first else { return Err(broken("has no head").into()) };
        self.hear(from, head.boot.as_ref())?;
        let voter = self.voter()?;
        let busy = |_| Failure::unavailable("unavailable", "another snapshot is on its way to this voter");
        let _one_at_a_time = self.peers.installing.try_acquire().map_err(busy)?;
        let data = self.take_snapshot(&head, &mut parts).await?;
        let body = voter.receive_snapshot(from, &head.vote, &head.meta, data).await;
        let body = body.map_err(|e| self.refused(from, e))?;
        Ok(self.answer(body))
    }

    async fn high_water(&self, request: Request<v1::HighWaterRequest>) -> Result<Response<v1::HighWaterReply>, Status> {
        let from = self.caller(&request)?;
        let recorded = self.host.high_water(from)?;
        let asked = request.get_ref();
        if asked.fence {
            self.hear(from, asked.boot.as_ref())?;
        } else {
            let known = || recorded.boot.as_ref().and_then(super::run);
            self.peers.listen(from, asked.boot.as_ref(), known).map(drop)?;
        }
        self.peers.called_by(from);
        let boot = recorded.boot.as_ref().and_then(super::run).max(self.peers.newest(from));
        let boot = boot.map(|(count, id)| v1::Boot { count, id: id.to_vec() });
        Ok(Response::new(v1::HighWaterReply { boot, ..recorded }))
    }

    async fn report(&self, request: Request<v1::VoterReport>) -> Result<Response<v1::VoterReportReply>, Status> {
        let from = self.caller(&request)?;
        let report = request.into_inner();
        self.hear(from, report.boot.as_ref())?;
        self.peers.gate()?;
        Ok(Response::new(self.host.report(from, report).await?))
    }

    async fn backfill(&self, request: Request<v1::BackfillRequest>) -> Result<Response<Self::BackfillStream>, Status> {
        self.caller(&request)?;
        self.peers.gate()?;
        let r = request.into_inner();
        let until = r.until.min(r.from.saturating_add(LEAVES));
        let (tx, rx) = mpsc::channel(2);
        let host = Arc::clone(&self.host);
        tokio::spawn(async move {
            if let Err(f) = send_leaves(host, r.from, until, &tx).await
                && tx.send(Err(f.into())).await.is_err()
            {
                tracing::debug!("a voter that read the log left");
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(rx))))
    }
}
