//! The transparency log: checkpoints and proofs for everybody, entries for those whom the policy lets read them.

use super::Answers;
use crate::cluster::Cluster;
use crate::rights::Rpc;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::log_server::Log;
use holdfast_types::Digest;
use holdfast_wire::{merkle, v1};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

/// Serves the log.
pub struct LogService(pub Arc<Cluster>);

/// Leaves in one message.
const CHUNK: u64 = 256;

fn chunk(cluster: &Cluster, from: u64, until: u64) -> Result<v1::EntriesChunk, Failure> {
    let of = |index: u64| cluster.leaf(index).map(|(salt, entry)| v1::LeafData { index, salt, entry });
    Ok(v1::EntriesChunk { leaves: (from..until).map(of).collect::<Result<_, _>>()? })
}

/// Sends leaves `[next, until)`, and then, if asked to, those that come.
async fn send_entries(
    cluster: Arc<Cluster>,
    mut next: u64,
    until: u64,
    follow: bool,
    tx: mpsc::Sender<Result<v1::EntriesChunk, Status>>,
) -> Result<(), Failure> {
    let left = || Failure::unavailable("disconnected", "the caller left");
    let mut events = cluster.events();
    let mut end = until;
    loop {
        while next < end {
            let to = end.min(next + CHUNK);
            let leaves = fetched(&cluster, next, to).await?;
            tx.send(Ok(leaves)).await.map_err(|_| left())?;
            next = to;
        }
        if !follow {
            return Ok(());
        }
        tokio::select! {
            () = tx.closed() => return Ok(()),
            e = events.recv() => if matches!(e, Err(RecvError::Closed)) { return Ok(()) },
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        end = cluster.look(|s| s.log_head().0)?;
    }
}

/// How long a reader waits for leaves that a voter, which began from a snapshot, is still fetching from the others.
const FETCHED_WITHIN: Duration = Duration::from_secs(10);

async fn fetched(cluster: &Cluster, from: u64, to: u64) -> Result<v1::EntriesChunk, Failure> {
    let until = tokio::time::Instant::now() + FETCHED_WITHIN;
    loop {
        match chunk(cluster, from, to) {
            Err(f) if f.may_pass() && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            read => return read,
        }
    }
}

#[tonic::async_trait]
impl Log for LogService {
    type EntriesStream = Answers<v1::EntriesChunk>;

    async fn checkpoint(&self, request: Request<v1::Ack>) -> Result<Response<v1::CheckpointReply>, Status> {
        self.0.admit(&request, Rpc::Checkpoint).await?;
        // Callers remember it, and take a shorter one for a log that was rewritten.
        self.0.confirm_leading().await?;
        let (note, size, root) = self.0.checkpoint()?;
        Ok(Response::new(v1::CheckpointReply { note, size, root: root.to_vec() }))
    }

    async fn inclusion(&self, request: Request<v1::InclusionRequest>) -> Result<Response<v1::InclusionReply>, Status> {
        let caller = self.0.admit(&request, Rpc::Inclusion).await?;
        self.0.may_read_audit(&caller)?;
        let r = request.into_inner();
        self.within(r.size)?;
        let (salt, entry) = self.0.leaf(r.leaf_index)?;
        Ok(Response::new(v1::InclusionReply { hashes: self.0.inclusion(r.leaf_index, r.size)?, salt, entry }))
    }

    async fn consistency(
        &self,
        request: Request<v1::ConsistencyRequest>,
    ) -> Result<Response<v1::ConsistencyReply>, Status> {
        self.0.admit(&request, Rpc::Consistency).await?;
        let r = request.into_inner();
        self.within(r.to_size)?;
        let proof = merkle::consistency(r.from_size, r.to_size, |l, i| self.0.node(l, i))?;
        let proof = proof.ok_or_else(|| Failure::invalid("invalid-input", "sizes must be at least 1 and in order"))?;
        Ok(Response::new(v1::ConsistencyReply { hashes: proof.into_iter().map(Digest::to_vec).collect() }))
    }

    async fn entries(&self, request: Request<v1::EntriesRequest>) -> Result<Response<Self::EntriesStream>, Status> {
        let caller = self.0.admit(&request, Rpc::Entries).await?;
        self.0.may_read_audit(&caller)?;
        let r = request.into_inner();
        let size = self.0.look(|s| s.log_head().0)?;
        let until = if r.until == 0 { size } else { r.until.min(size) };
        let (tx, rx) = mpsc::channel(4);
        let cluster = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(f) = send_entries(cluster, r.from, until, r.follow && r.until == 0, tx.clone()).await
                && tx.send(Err(f.into())).await.is_err()
            {
                tracing::debug!("a reader of the log left");
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(rx))))
    }
}

impl LogService {
    fn within(&self, size: u64) -> Result<(), Failure> {
        let now = self.0.look(|s| s.log_head().0)?;
        if size > now {
            return Err(Failure::not_found("not-found", format!("the log has {now} leaves, not {size}")));
        }
        Ok(())
    }
}
