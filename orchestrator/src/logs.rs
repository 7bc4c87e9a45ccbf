//! Logs: an operator's signed request goes to the nodes, their sealed chunks come back. Relayed unread.
//!
//! Bounded in requests and in chunks that wait; whoever reads too slowly is cut off, for the nodes' sessions wait here.

use crate::control::Input;
use crate::rights::Rpc;
use futures::stream::BoxStream;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::deploy_server::Deploy;
use holdfast_types::{NodeId, ServiceRef, TaskId};
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
    asked: Option<BTreeSet<NodeId>>,
    /// Nodes that have sent their last chunk, or left.
    ended: BTreeSet<NodeId>,
}

impl Reader {
    fn is_done(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.is_subset(&self.ended))
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
        readers.insert(id, Reader { chunks, asked: None, ended: BTreeSet::new() });
        Ok(queue)
    }
    /// These nodes were asked; with their last chunks the request ends.
    fn expect(&self, id: &RequestId, nodes: BTreeSet<NodeId>) {
        let mut readers = self.readers();
        let done = readers.get_mut(id).is_some_and(|r| {
            r.asked = Some(nodes);
            r.is_done()
        });
        if done {
            readers.remove(id);
        }
    }
    fn close(&self, id: &RequestId) {
        self.readers().remove(id);
    }

    /// Passes a chunk on that `node` sent.
    pub async fn deliver(&self, node: &NodeId, chunk: LogChunk) {
        let Ok(id) = RequestId::try_from(chunk.request_id.as_slice()) else { return };
        let wanted = |r: &&Reader| r.asked.as_ref().is_none_or(|asked| asked.contains(node)) && !r.ended.contains(node);
        let Some(chunks) = self.readers().get(&id).filter(wanted).map(|r| r.chunks.clone()) else { return };
        let end = chunk.end;
        let chunk = LogChunk { node_id: node.to_string(), ..chunk };
        if chunks.send_timeout(Ok(chunk), PATIENCE).await.is_err() {
            tracing::info!("a reader of logs does not keep up, or left");
            return self.close(&id);
        }
        if end {
            self.ended(node, |other| *other == id);
        }
    }
    /// A node's session ended: it sends nothing more.
    pub fn left(&self, node: &NodeId) {
        self.ended(node, |_| true);
    }
    fn ended(&self, node: &NodeId, of: impl Fn(&RequestId) -> bool) {
        self.readers().retain(|id, reader| {
            if of(id) {
                reader.ended.insert(node.clone());
            }
            !reader.is_done()
        });
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
        self.inbox.send(Input::Logs { request: signed, service, task, asked }).await.map_err(|_| stopping())?;
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

    const ID: RequestId = [1; 16];

    fn node(n: u32) -> NodeId {
        NodeId::parse(&format!("node-{n}")).unwrap()
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
    async fn a_node_that_leaves_sends_nothing_more() {
        let relay = Relay::default();
        let mut queue = relay.open(ID).unwrap();
        relay.expect(&ID, [node(1)].into());
        relay.left(&node(1));
        assert_eq!(next(&mut queue).await, None);
        assert!(relay.readers().is_empty());
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
