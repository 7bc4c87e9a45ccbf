//! Backups: everything that is committed, without the disk layer, for whoever holds the recovery key.
//!
//! Must never: hold what is secret in clear (records stay sealed, the stream has a key of its own), or end well unless all
//! of it was sent. A backup has its leaf before its first byte.

use crate::cluster::Cluster;
use crate::failure::{refused, stopped};
use crate::grpc::Answers;
use crate::keystore::random32;
use holdfast_transport::failure::Failure;
use holdfast_types::Secret;
use holdfast_vault_core::{Command, Entropy, NoteFacts, NoteKind, State, prepare};
use holdfast_wire::backup::{self, BackupError, CHUNK, Sealer, StreamKey};
use holdfast_wire::statement;
use holdfast_wire::v1::{self, backup_part::Part};
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;

type Parts = mpsc::Sender<Result<v1::BackupPart, Status>>;

/// A backup that cannot be made or is not one.
pub fn refuse(e: BackupError) -> Failure {
    Failure::failed("corrupt", e.to_string()).help("take another backup: nothing was changed")
}

/// Makes a backup. Only the leader does, for it can write the leaf.
pub async fn create(cluster: &Arc<Cluster>) -> Result<Answers<v1::BackupPart>, Failure> {
    cluster.confirm_leading().await?;
    let id = Entropy::new(random32()?).draw16("backup");
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    let (actor, detail) = ("local".to_owned(), String::new());
    cluster.propose(Command::Note(NoteFacts { kind: NoteKind::Backup, actor, subject: hex, detail, count: 1 })).await?;
    let (tx, rx) = mpsc::channel(4);
    let cluster = Arc::clone(cluster);
    tokio::task::spawn_blocking(move || {
        if let Err(f) = send(&cluster, id, &tx)
            && tx.blocking_send(Err(f.into())).is_err()
        {
            tracing::debug!("whoever wanted a backup left");
        }
    });
    Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(rx)))
}

fn send(cluster: &Cluster, id: [u8; 16], tx: &Parts) -> Result<(), Failure> {
    // What is known of the log may lag behind the state that is read; what was applied since the start does not.
    let known = cluster.voter.status().applied.unwrap_or_default();
    let (state, applied) = cluster.voter.machine().read(|r| (r.state().clone(), r.applied())).map_err(stopped)?;
    let index = known.max(applied);
    let now = cluster.now()?;
    let opened = cluster.opened.load_full();
    let key: StreamKey = Secret::take(&mut random32()?);
    let encoded = state.encode();
    let mut head = head(&state, id, encoded.len())?;
    head.raft_index = index;
    head.made_at_ms = now.0;
    head.checkpoint = prepare::checkpoint(&state, &opened.stk).map_err(refused)?;
    let id = state.cluster_id().ok_or_else(|| Failure::failed("corrupt", "this voter has no cluster"))?;
    let recovery = state.charter().recovery.clone().unwrap_or_default().public_key;
    drop(state);
    let boxed = backup::box_key(&head, &id, &recovery, &key, random32()?);
    head.key_box = boxed.map_err(|e| Failure::failed("failed", e.to_string()))?;
    let part = |p| tx.blocking_send(Ok(v1::BackupPart { part: Some(p) })).map_err(|_| left());
    let mut sealer = Sealer::new(&key, &head).map_err(refuse)?;
    part(Part::Head(head.clone()))?;
    let mut push = |plain: &[u8]| {
        let chunks = sealer.push(plain).map_err(refuse)?;
        chunks.into_iter().try_for_each(|c| part(Part::Chunk(c)))
    };
    encoded.chunks(CHUNK).try_for_each(&mut push)?;
    drop(encoded);
    for index in 0..head.leaves {
        let leaf = cluster.audit.leaf(index).map_err(|e| Failure::failed("corrupt", e.to_string()))?;
        let missing = || Failure::unavailable("unavailable", format!("entry {index} of the log is not here yet"));
        push(backup::leaf(leaf.ok_or_else(missing)?.expose()).map_err(refuse)?.as_slice())?;
    }
    let (last, sha256) = sealer.finish().map_err(refuse)?;
    part(Part::Chunk(last))?;
    let end = v1::Backup {
        cluster_id: head.cluster_id,
        backup_id: head.backup_id,
        era: head.era,
        raft_index: head.raft_index,
        checkpoint: head.checkpoint,
        sha256: sha256.to_vec(),
        made_at_ms: head.made_at_ms,
    };
    let end = statement::sign(&end, &[&opened.stk]).map_err(|e| Failure::failed("key-port", e.to_string()))?;
    part(Part::End(end))
}

fn head(state: &State, id: [u8; 16], state_bytes: usize) -> Result<v1::BackupHead, Failure> {
    let cluster = state.cluster_id().ok_or_else(|| Failure::failed("corrupt", "this voter has no cluster"))?;
    let boxed = |(term, sealed): (u32, &[u8])| v1::TermBox { term, r#box: sealed.to_vec() };
    Ok(v1::BackupHead {
        cluster_id: cluster.0.to_vec(),
        backup_id: id.to_vec(),
        era: state.era(),
        state_bytes: state_bytes as u64,
        leaves: state.log_head().0,
        charter_version: state.charter().version,
        charter_chain: state.charter_chain(),
        bundle_chain: state.bundle_chain(),
        terms: state.recovery_terms().map(boxed).collect(),
        ..v1::BackupHead::default()
    })
}

fn left() -> Failure {
    Failure::unavailable("disconnected", "the caller left")
}
