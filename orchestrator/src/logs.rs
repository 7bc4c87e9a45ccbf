//! Logs: an operator's signed request goes to the nodes, their sealed chunks come back. Relayed unread.
//!
//! Bounded in requests and in chunks that wait; whoever reads too slowly is cut off, for the nodes' sessions wait here.

use crate::control::{Asked, Input, LogsAsked};
use crate::rights::Rpc;
use futures::stream::BoxStream;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::deploy_server::Deploy;
use holdfast_types::{ServiceRef, TaskId};
use holdfast_wire::statement;
use holdfast_wire::v1::{LogChunk, LogsQuery, LogsRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

/// Requests at a time.
const REQUESTS: usize = 64;
/// Chunks that may wait for one operator.
const CHUNKS: usize = 256;
/// How long a chunk waits for room.
const PATIENCE: Duration = Duration::from_secs(2);

type RequestId = [u8; 16];
type Chunks = mpsc::Sender<Result<LogChunk, Status>>;

struct Reader {
    chunks: Chunks,
    /// Nodes that were asked; `None` until that is known.
    asked: Option<BTreeSet<Asked>>,
    /// Nodes that have sent their last chunk.
    ended: BTreeSet<Asked>,
    /// Sessions that ended.
    left: BTreeSet<Asked>,
}

impl Reader {
    fn is_done(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.is_subset(&self.ended))
    }
    /// A node that was asked has no session any more by which it could say the rest.
    fn is_broken(&self) -> bool {
        self.asked.iter().flatten().any(|asked| self.left.contains(asked) && !self.ended.contains(asked))
    }
    /// True if there is more to come. Else the reader is told if it does not have everything; one that is so far behind that
    /// there is no room is told by the loss of its place.
    fn goes_on(&self) -> bool {
        if self.is_broken() {
            let failure =
                Failure::unavailable("connection-lost", "a node's session ended before it had said everything");
            drop(self.chunks.try_send(Err(failure.into())));
            return false;
        }
        !self.is_done()
    }
}

/// Requests under way.
#[derive(Default)]
pub struct Relay(Mutex<BTreeMap<RequestId, Reader>>);

impl Relay {
    fn readers(&self) -> MutexGuard<'_, BTreeMap<RequestId, Reader>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, id: RequestId) -> Result<mpsc::Receiver<Result<LogChunk, Status>>, Failure> {
        let mut readers = self.readers();
        if readers.len() >= REQUESTS {
            return Err(Failure::exhausted(
                "too-many-requests",
                "too many requests for logs are under way; try again later",
            ));
        }
        if readers.contains_key(&id) {
            return Err(Failure::invalid("invalid-input", "this request for logs is under way already"));
        }
        let (chunks, queue) = mpsc::channel(CHUNKS);
        readers.insert(id, Reader { chunks, asked: None, ended: BTreeSet::new(), left: BTreeSet::new() });
        Ok(queue)
    }
    /// These nodes were asked; with their last chunks the request ends.
    fn expect(&self, id: &RequestId, nodes: BTreeSet<Asked>) {
        let mut readers = self.readers();
        let over = readers.get_mut(id).is_some_and(|r| {
            r.asked = Some(nodes);
            !r.goes_on()
        });
        if over {
            readers.remove(id);
        }
    }
    fn close(&self, id: &RequestId) {
        self.readers().remove(id);
    }

    /// Passes a chunk on that `node` sent by its session.
    pub async fn deliver(&self, node: &Asked, chunk: LogChunk) {
        let Ok(id) = RequestId::try_from(chunk.request_id.as_slice()) else { return };
        let wanted = |r: &&Reader| r.asked.as_ref().is_none_or(|asked| asked.contains(node)) && !r.ended.contains(node);
        let Some(chunks) = self.readers().get(&id).filter(wanted).map(|r| r.chunks.clone()) else { return };
        let end = chunk.end;
        let chunk = LogChunk { node_id: node.0.to_string(), ..chunk };
        if chunks.send_timeout(Ok(chunk), PATIENCE).await.is_err() {
            tracing::info!("a reader of logs does not keep up, or left");
            return self.close(&id);
        }
        if end {
            self.note(|other, reader| *other == id && reader.ended.insert(node.clone()));
        }
    }
    /// A node's session ended: nothing more comes by it.
    pub fn left(&self, node: &Asked) {
        self.note(|_, reader| reader.left.insert(node.clone()));
    }
    /// Removes the requests of which `news` is that there is no more to come.
    fn note(&self, news: impl Fn(&RequestId, &mut Reader) -> bool) {
        self.readers().retain(|id, reader| !news(id, reader) || reader.goes_on());
    }
}

/// Ends a request when its reader leaves.
struct Open {
    relay: Arc<Relay>,
    id: RequestId,
}
impl Drop for Open {
    fn drop(&mut self) {
        self.relay.close(&self.id);
    }
}

/// Serves operators.
pub struct LogService {
    inbox: mpsc::Sender<Input>,
    relay: Arc<Relay>,
}

impl LogService {
    /// Asks nodes by `inbox`; their chunks come by `relay`.
    pub fn new(inbox: mpsc::Sender<Input>, relay: Arc<Relay>) -> Self {
        Self { inbox, relay }
    }
}

#[tonic::async_trait]
impl Deploy for LogService {
    type LogsStream = BoxStream<'static, Result<LogChunk, Status>>;

    async fn logs(&self, request: Request<LogsQuery>) -> Result<Response<Self::LogsStream>, Status> {
        Rpc::Logs.admit(&request)?;
        let invalid =
            |e: &dyn std::fmt::Display| Failure::invalid("invalid-input", format!("the request for logs: {e}"));
        let signed = request.into_inner().request.ok_or_else(|| invalid(&"it is missing"))?;
        // Not verified here: the nodes do that, and nobody else's word counts for them.
        let shown: LogsRequest = statement::peek(&signed).map_err(|e| invalid(&e))?;
        let service = ServiceRef::of(&shown.namespace, &shown.service).map_err(|e| invalid(&e))?;
        let named = (!shown.task_id.is_empty()).then(|| TaskId::parse(&shown.task_id));
        let task = named.transpose().map_err(|e| invalid(&e))?;
        let id = RequestId::try_from(shown.request_id.as_slice()).map_err(|_| invalid(&"its id has not 16 bytes"))?;

        let queue = self.relay.open(id)?;
        let open = Open { relay: self.relay.clone(), id };
        let (asked, answer) = oneshot::channel();
        let stopping = || Failure::unavailable("stopping", "the orchestrator is stopping");
        self.inbox
            .send(Input::Logs(LogsAsked { request: signed, service, task, asked }))
            .await
            .map_err(|_| stopping())?;
        let nodes = answer.await.map_err(|_| stopping())?;
        if nodes.is_empty() {
            return Err(Failure::not_found("not-found", "no node that is connected here runs a task of it").into());
        }
        self.relay.expect(&id, nodes);
        let chunks = futures::stream::unfold((queue, open), |(mut queue, open)| async move {
            queue.recv().await.map(|chunk| (chunk, (queue, open)))
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::NodeId;

    const ID: RequestId = [1; 16];

    /// A node, asked by its session `n`.
    fn node(n: u32) -> Asked {
        (NodeId::parse(&format!("node-{n}")).unwrap(), u64::from(n))
    }
    fn chunk(end: bool) -> LogChunk {
        LogChunk { request_id: ID.to_vec(), node_id: "somebody else".into(), end, ..LogChunk::default() }
    }
    async fn next(queue: &mut mpsc::Receiver<Result<LogChunk, Status>>) -> Option<String> {
        queue.recv().await.map(|c| c.unwrap().node_id)
    }

    #[tokio::test]
    async fn a_request_ends_with_the_last_chunk_of_every_node_that_was_asked() {
        let relay = Relay::default();
        let mut queue = relay.open(ID).unwrap();
        // A fast node answers before it is known whom we asked.
        relay.deliver(&node(1), chunk(true)).await;
        relay.expect(&ID, [node(1), node(2)].into());
        relay.deliver(&node(3), chunk(false)).await;
        relay.deliver(&node(2), chunk(false)).await;
        relay.deliver(&node(2), chunk(true)).await;
        let names = [next(&mut queue).await, next(&mut queue).await, next(&mut queue).await];
        assert_eq!(names.map(Option::unwrap), ["node-1", "node-2", "node-2"], "the name is the certificate's");
        assert_eq!(next(&mut queue).await, None);
    }

    #[tokio::test]
    async fn a_node_that_leaves_before_its_last_chunk_breaks_the_request() {
        for early in [false, true] {
            let relay = Relay::default();
            let mut queue = relay.open(ID).unwrap();
            if early {
                relay.left(&node(1));
            }
            relay.expect(&ID, [node(1), node(2)].into());
            relay.left(&node(1));
            let failure = queue.recv().await.unwrap().map_err(Failure::from).unwrap_err();
            assert!(failure.may_pass() && failure.code == "connection-lost", "{failure}");
            assert!(queue.recv().await.is_none() && relay.readers().is_empty());
        }
    }

    #[tokio::test]
    async fn the_end_of_another_session_of_a_node_is_nothing_to_a_request() {
        let relay = Relay::default();
        let mut queue = relay.open(ID).unwrap();
        let (before, after) = (node(1), (node(1).0, 7));
        relay.expect(&ID, [after.clone()].into());
        relay.left(&before);
        relay.deliver(&before, chunk(true)).await;
        relay.deliver(&after, chunk(true)).await;
        relay.left(&after);
        assert_eq!(next(&mut queue).await.as_deref(), Some("node-1"));
        assert!(queue.recv().await.is_none(), "it ends in order, with what the asked session said");
    }

    #[tokio::test]
    async fn requests_at_a_time_are_bounded_and_those_of_gone_readers_do_not_count() {
        let relay = Arc::new(Relay::default());
        let id = |n: usize| [u8::try_from(n).unwrap(); 16];
        let held: Vec<_> =
            (0..REQUESTS).map(|n| (relay.open(id(n)).unwrap(), Open { relay: relay.clone(), id: id(n) })).collect();
        assert_eq!(relay.open([255; 16]).unwrap_err().kind.exit_code(), 3);
        assert!(relay.open(id(0)).is_err());
        drop(held);
        assert!(relay.open(id(0)).is_ok());
    }
}
