//! A container's output for the operator who signed for it: boxed to the operator's key, so that the orchestrator, who
//! relays it, sees sizes and times only.

use crate::node::Node;
use crate::runtime::logs::{Line, LogReader};
use crate::tasks::Output;
use crate::tasks::ground::Ground;
use holdfast_transport::now;
use holdfast_types::{Millis, ServiceRef, TaskId};
use holdfast_wire::boxes::{BoxError, Context, seal};
use holdfast_wire::statement;
use holdfast_wire::v1::session_report::Report;
use holdfast_wire::v1::{LogChunk, LogLine, LogLines, LogsRequest, SessionReport, Statement};
use prost::Message as _;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Between two looks at output that is followed.
const LOOK: Duration = Duration::from_millis(500);
/// Text in one box, in bytes, and lines.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNK_LINES: usize = 512;

/// Why output cannot be sent.
#[derive(Debug, thiserror::Error)]
enum LogsError {
    #[error("reading output: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Ground(#[from] crate::tasks::ground::GroundError),
    #[error("boxing output: {0}")]
    Box(#[from] BoxError),
    #[error("no entropy: {0}")]
    Entropy(#[from] getrandom::Error),
    #[error("the request names no service or task")]
    Name,
    #[error("nobody reads it any more")]
    Gone,
}

/// Judges the request and answers it; ends with the last line, with the request's time, or with the session. Once that is
/// `moved`, what was there is said, and nothing is followed any more.
pub async fn answer<G: Ground>(
    node: &Arc<Node<G>>,
    request: Statement,
    out: &mpsc::Sender<SessionReport>,
    moved: CancellationToken,
) {
    let (judge, st) = (node.clone(), request.clone());
    let judged = tokio::task::spawn_blocking(move || judge.believed.logs(&st)).await;
    let request = match judged {
        Ok(Ok(request)) => request,
        Ok(Err(refusal)) => return node.accuser.document(&refusal, Some(&request)),
        Err(_) => return,
    };
    tracing::info!(namespace = %request.namespace, service = %request.service, task = %request.task_id, follow = request.follow, "output was asked for");
    let sealer = Sealer { node: node.clone(), request, out: out.clone(), moved, seq: BTreeMap::new() };
    match sealer.run().await {
        Ok(()) | Err(LogsError::Gone) => {}
        Err(error) => tracing::warn!(%error, "output was not sent"),
    }
}

/// Ends a request that there is no room for, so that nobody waits for it.
pub async fn decline<G: Ground>(node: &Node<G>, request: &Statement, out: &mpsc::Sender<SessionReport>) {
    let Ok(shown) = statement::peek::<LogsRequest>(request) else { return };
    let node_id = node.believed.node_id().to_string();
    let chunk = LogChunk { request_id: shown.request_id, end: true, node_id, ..LogChunk::default() };
    // If the session is gone, so is the request.
    out.send(SessionReport { report: Some(Report::Log(chunk)) }).await.ok();
}

/// Sends the boxes of one request.
struct Sealer<G: Ground> {
    node: Arc<Node<G>>,
    request: LogsRequest,
    out: mpsc::Sender<SessionReport>,
    moved: CancellationToken,
    /// Boxes sent so far, by task.
    seq: BTreeMap<String, u64>,
}

impl<G: Ground> Sealer<G> {
    async fn run(mut self) -> Result<(), LogsError> {
        let service = ServiceRef::of(&self.request.namespace, &self.request.service).map_err(|_| LogsError::Name)?;
        let task = match self.request.task_id.as_str() {
            "" => None,
            id => Some(TaskId::parse(id).map_err(|_| LogsError::Name)?),
        };
        let mut sources = Sources { service, task, open: BTreeMap::new() };
        let mut tail = usize::try_from(self.request.tail).unwrap_or(usize::MAX);
        loop {
            let node = self.node.clone();
            let look = move || {
                let read = sources.read(&node);
                (sources, read)
            };
            let (back, read) = tokio::task::spawn_blocking(look).await.map_err(|_| LogsError::Gone)?;
            sources = back;
            for (task, mut lines) in read? {
                lines.retain(|line| line.at_ms >= self.request.since_ms);
                if tail > 0 {
                    lines.drain(..lines.len().saturating_sub(tail));
                }
                self.send(&task, lines).await?;
            }
            // Only what was there at the beginning is shortened.
            tail = 0;
            let over = now() > Millis(self.request.expires_at_ms) || self.moved.is_cancelled();
            if !self.request.follow || over {
                return self.end(&sources).await;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.moved.cancelled() => {}
                () = self.out.closed() => return Err(LogsError::Gone),
            }
        }
    }

    async fn send(&mut self, task: &TaskId, lines: Vec<Line>) -> Result<(), LogsError> {
        let mut chunk = Vec::new();
        let mut bytes = 0_usize;
        for line in lines {
            bytes = bytes.saturating_add(line.text.len());
            chunk.push(LogLine { at_ms: line.at_ms, stream: line.stream.number(), text: line.text });
            if bytes >= CHUNK_BYTES || chunk.len() >= CHUNK_LINES {
                self.chunk(task.as_str(), std::mem::take(&mut chunk), false).await?;
                bytes = 0;
            }
        }
        if chunk.is_empty() { Ok(()) } else { self.chunk(task.as_str(), chunk, false).await }
    }

    /// Every task's last word; a node without any says that for itself.
    async fn end(&mut self, sources: &Sources) -> Result<(), LogsError> {
        if sources.open.is_empty() {
            return self.chunk("", Vec::new(), true).await;
        }
        for task in sources.open.keys() {
            self.chunk(task.as_str(), Vec::new(), true).await?;
        }
        Ok(())
    }

    async fn chunk(&mut self, task: &str, lines: Vec<LogLine>, end: bool) -> Result<(), LogsError> {
        let seq = self.seq.entry(task.to_owned()).or_default();
        let r = &self.request;
        let sealed = seal_lines(r, self.node.believed.cluster(), task, *seq, &LogLines { lines })?;
        let chunk = LogChunk {
            request_id: r.request_id.clone(),
            task_id: task.to_owned(),
            seq: *seq,
            r#box: sealed,
            end,
            node_id: self.node.believed.node_id().to_string(),
        };
        *seq = seq.saturating_add(1);
        let sent = self.out.send(SessionReport { report: Some(Report::Log(chunk)) }).await;
        sent.map_err(|_| LogsError::Gone)
    }
}

/// One box: info `logs`, aad `request_id ‖ task_id ‖ seq`.
fn seal_lines(
    r: &LogsRequest,
    cluster: &holdfast_types::ClusterId,
    task: &str,
    seq: u64,
    lines: &LogLines,
) -> Result<Vec<u8>, LogsError> {
    let aad = [r.request_id.as_slice(), task.as_bytes(), &seq.to_be_bytes()].concat();
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy)?;
    let context = Context { purpose: "logs", cluster, aad: &aad };
    Ok(seal(&r.reply_pk, &context, None, &lines.encode_to_vec(), entropy)?)
}

/// The outputs that a request reads, each from where it was left.
struct Sources {
    service: ServiceRef,
    task: Option<TaskId>,
    open: BTreeMap<TaskId, Vec<(Output, LogReader)>>,
}

impl Sources {
    /// What is new, by task. A container that came since the last look is read from its beginning.
    fn read<G: Ground>(&mut self, node: &Node<G>) -> Result<Vec<(TaskId, Vec<Line>)>, LogsError> {
        for output in node.tasks.outputs(&self.service, self.task.as_ref())? {
            let of_task = self.open.entry(output.task.clone()).or_default();
            // Outputs come oldest first, so whatever is not newer was read to its end before.
            if of_task.last().is_none_or(|(last, _)| output > *last) {
                let reader = LogReader::open(&output.path)?;
                of_task.push((output, reader));
            }
        }
        let mut all = Vec::new();
        for (task, of_task) in &mut self.open {
            let mut lines = Vec::new();
            for (_, reader) in of_task.iter_mut() {
                lines.extend(reader.read_new()?);
            }
            // Older containers have said all they will ever say.
            let done = of_task.len().saturating_sub(1);
            of_task.drain(..done);
            all.push((task.clone(), lines));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::ClusterId;
    use holdfast_wire::boxes::{derive_keypair, open};

    #[test]
    fn only_the_operator_reads_and_no_box_can_be_moved_or_repeated() {
        let (secret, public) = derive_keypair(&[4; 32]);
        let r = LogsRequest { request_id: vec![1; 16], reply_pk: public.to_vec(), ..LogsRequest::default() };
        let cluster = ClusterId([9; 32]);
        let lines = LogLines { lines: vec![LogLine { at_ms: 5, stream: 1, text: b"hello".to_vec() }] };
        let sealed = seal_lines(&r, &cluster, "shop.web.1", 258, &lines).unwrap();
        let opened = |aad: &[u8]| open(&secret, &Context { purpose: "logs", cluster: &cluster, aad }, None, &sealed);
        let aad = [[1; 16].as_slice(), b"shop.web.1", &[0, 0, 0, 0, 0, 0, 1, 2]].concat();
        assert_eq!(LogLines::decode(opened(&aad).unwrap().expose()).unwrap(), lines);
        let later = [[1; 16].as_slice(), b"shop.web.1", &[0, 0, 0, 0, 0, 0, 1, 3]].concat();
        assert!(opened(&later).is_err());
    }
}
