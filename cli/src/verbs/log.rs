//! `log`: reading the transparency log, and recomputing it from its first entry.
//!
//! `verify` believes nothing but the charter and the statement keys: the tree is rebuilt from the entries, its root
//! compared with the signed checkpoint, every operator's signature checked under the charter that held at that entry,
//! and the result compared with what this machine verified before, so that a rewritten log is found out.

use super::names::wrong;
use crate::app::App;
use crate::args::Log;
use crate::client::Cluster;
use crate::context::SeenLog;
use crate::errors::{Code, Failure};
use crate::output::time;
use holdfast_transport::rpc::log_client::LogClient;
use holdfast_types::{Digest, Millis};
use holdfast_wire::merkle::verify_consistency;
use holdfast_wire::note::{self, Checkpoint};
use holdfast_wire::{strict, v1};
use serde_json::{Value, json};

pub mod audit;
mod export;
mod since;

pub use since::since;

/// Longest entry, in bytes: an operator's statement and room for the rest.
pub const MAX_ENTRY: usize = 1 << 20;
/// Largest message of a stream of entries.
const MAX_CHUNK: usize = 64 << 20;

/// Runs the verb.
pub async fn run(app: &App, verb: Log) -> Result<(), Failure> {
    if let Log::Verify { file: Some(file) } = &verb {
        return export::verify(app, file);
    }
    let c = Cluster::connect(app).await?;
    match verb {
        Log::Tail { follow, count } => tail(app, &c, follow, count).await,
        Log::Verify { .. } => verify(app, &c).await,
        Log::Export { file } => export::write(app, &c, &file).await,
    }
}

/// The signed checkpoint, and its note.
pub async fn checkpoint(c: &Cluster) -> Result<(Checkpoint, Vec<u8>), Failure> {
    let reply = c.call(|ch| async move { LogClient::new(ch).checkpoint(v1::Ack {}).await }).await?;
    let origin = note::origin(c.trust.trust_domain().as_str(), c.era());
    let checkpoint =
        Checkpoint::verify(&reply.note, &origin, &c.trust.checkpoint_keys()).map_err(Failure::untrusted)?;
    Ok((checkpoint, reply.note))
}

/// Entries `from..until` (`until` 0: to the end) as a stream, each with its salt and exact bytes.
pub async fn entries(
    c: &Cluster,
    from: u64,
    until: u64,
    follow: bool,
) -> Result<tonic::Streaming<v1::EntriesChunk>, Failure> {
    let request = v1::EntriesRequest { from, until, follow };
    c.call(|ch| async move { LogClient::new(ch).max_decoding_message_size(MAX_CHUNK).entries(request).await }).await
}

/// The next chunk of a stream.
pub async fn next(s: &mut tonic::Streaming<v1::EntriesChunk>) -> Result<Option<Vec<v1::LeafData>>, Failure> {
    let chunk = s.message().await.map_err(holdfast_transport::failure::Failure::from)?;
    Ok(chunk.map(|c| c.leaves))
}

async fn tail(app: &App, c: &Cluster, follow: bool, count: u64) -> Result<(), Failure> {
    if follow && app.out.is_json() {
        return Err(wrong("--json prints one document and cannot be used with --follow"));
    }
    let (checkpoint, _) = checkpoint(c).await?;
    let from = checkpoint.size.saturating_sub(count);
    let mut stream = entries(c, from, if follow { 0 } else { checkpoint.size }, follow).await?;
    let mut documents = Vec::new();
    while let Some(leaves) = next(&mut stream).await? {
        for leaf in leaves {
            let entry: v1::LogEntry = strict::decode(&leaf.entry, MAX_ENTRY).map_err(Failure::untrusted)?;
            if app.out.is_json() {
                documents.push(document(&entry));
            } else {
                app.out.raw(&line(&entry))?;
            }
        }
    }
    app.out.show(&json!({ "entries": documents }), String::new)
}

fn document(e: &v1::LogEntry) -> Value {
    let fields: serde_json::Map<String, Value> =
        e.fields.iter().map(|f| (f.name.clone(), f.value.clone().into())).collect();
    json!({
        "index": e.index, "at": time(e.at_ms), "kind": e.kind, "actor": e.actor, "subject": e.subject, "fields": fields,
        "signed": e.statement.is_some(),
    })
}

/// One entry for people. Entries hold names that others chose: control characters never reach the terminal.
fn line(e: &v1::LogEntry) -> String {
    let fields: String = e.fields.iter().map(|f| format!(" {}={}", f.name, f.value)).collect();
    let text = format!("{:>6} {} {} {} {}{fields}", e.index, Millis(e.at_ms), e.kind, e.actor, e.subject);
    format!("{}\n", text.replace(char::is_control, " "))
}

async fn verify(app: &App, c: &Cluster) -> Result<(), Failure> {
    let checkpoint = audited(app, c, |_| {}).await?;
    let document =
        json!({"ok": true, "entries": checkpoint.size, "root": checkpoint.root.hex(), "origin": checkpoint.origin});
    app.out.show(&document, || format!("ok {} entries\n", checkpoint.size))
}

/// Reads the log from its first entry, checks all that `verify` checks, and remembers it. `each` sees every entry; what it
/// gathers counts only if this returns `Ok`.
pub async fn audited(app: &App, c: &Cluster, mut each: impl FnMut(&v1::LogEntry)) -> Result<Checkpoint, Failure> {
    let (checkpoint, _) = checkpoint(c).await?;
    let bar = app.out.bar(checkpoint.size, "verifying");
    let mut stream = entries(c, 0, checkpoint.size, false).await?;
    let end = (checkpoint.size, &checkpoint.root);
    let read = audit::whole(
        c.ctx.cluster,
        end,
        async || next(&mut stream).await,
        |entry| {
            bar.inc(1);
            each(entry);
        },
    );
    let read = read.await;
    bar.finish_and_clear();
    read?;
    check_memory(c, &checkpoint).await?;
    c.ctx.remember_log(&SeenLog { era: c.era(), size: checkpoint.size, root: checkpoint.root.hex() })?;
    Ok(checkpoint)
}

/// The log that this machine verified last must be a prefix of the one it verified now.
async fn check_memory(c: &Cluster, now: &Checkpoint) -> Result<(), Failure> {
    let Some(seen) = c.ctx.seen_log()?.filter(|s| s.era == c.era()) else { return Ok(()) };
    let rewritten = |why: String| {
        let help = "the log was rewritten: stop trusting this voter, and keep both checkpoints as evidence";
        Failure::new(Code::LogWrong, why, help).with("seen_size", seen.size).with("size", now.size)
    };
    let root = Digest::parse(&seen.root).ok_or_else(|| rewritten("the remembered root is damaged".to_owned()))?;
    if now.size < seen.size {
        return Err(rewritten(format!("the log has {} entries, it had {} before", now.size, seen.size)));
    }
    let request = v1::ConsistencyRequest { from_size: seen.size, to_size: now.size };
    let proof = match seen.size == now.size || seen.size == 0 {
        true => Vec::new(),
        false => c.call(|ch| async move { LogClient::new(ch).consistency(request).await }).await?.hashes,
    };
    let hashes = proof.iter().map(|h| Digest::from_slice(h)).collect::<Option<Vec<_>>>().unwrap_or_default();
    if verify_consistency(seen.size, &root, now.size, &now.root, &hashes) {
        return Ok(());
    }
    Err(rewritten(format!(
        "the log of {} entries does not continue the one of {} verified before",
        now.size, seen.size
    )))
}
