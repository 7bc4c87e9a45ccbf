//! `log export`: the whole log in one file, verified while it is written, and verifiable without the cluster ever after.
//!
//! STORED: `"HFLG" | fmt u8=1 | frame*`, a frame being `length u32 | message`: the trust chains, the checkpoint, then entries
//! with their salts; golden file `cli/golden/log-export.hex`.

use super::audit::Auditor;
use super::{MAX_ENTRY, check_memory, checkpoint, entries, next};
use crate::app::App;
use crate::client::Cluster;
use crate::context::SeenLog;
use crate::errors::Failure;
use crate::framed::{Frames, NewFile, refuse};
use crate::trust::Trust;
use holdfast_types::{ClusterId, Digest};
use holdfast_wire::backup::{BackupError, MAX_PART};
use holdfast_wire::note::{Checkpoint, origin};
use holdfast_wire::{strict, v1};
use prost::Message as _;
use serde_json::json;
use std::path::Path;

const MAGIC: &[u8; 5] = b"HFLG\x01";

fn frame(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_PART);
    let length = length.ok_or_else(|| refuse(BackupError::TooLong))?;
    Ok([length.to_be_bytes().as_slice(), bytes].concat())
}

/// Writes the log. The file has its name only if everything in it is right.
pub async fn write(app: &App, c: &Cluster, file: &Path) -> Result<(), Failure> {
    let mut new = NewFile::create(file)?;
    let (checkpoint, note) = checkpoint(c).await?;
    new.write(MAGIC)?;
    new.write(&frame(&c.trust.chains().encode_to_vec())?)?;
    let head = v1::CheckpointReply { note, size: checkpoint.size, root: checkpoint.root.to_vec() };
    new.write(&frame(&head.encode_to_vec())?)?;
    let mut auditor = Auditor::new(c.ctx.cluster);
    let bar = app.out.bar(checkpoint.size, "exporting");
    let mut stream = entries(c, 0, checkpoint.size, false).await?;
    while let Some(leaves) = next(&mut stream).await? {
        for leaf in &leaves {
            auditor.take(leaf)?;
            // A frame an entry: a chunk of long ones could be longer than a frame may be.
            let alone = v1::EntriesChunk { leaves: vec![leaf.clone()] };
            new.write(&frame(&alone.encode_to_vec())?)?;
        }
        bar.inc(leaves.len() as u64);
    }
    bar.finish_and_clear();
    auditor.finish(checkpoint.size, &checkpoint.root)?;
    check_memory(c, &checkpoint).await?;
    new.finish()?;
    c.ctx.remember_log(&SeenLog { era: c.era(), size: checkpoint.size, root: checkpoint.root.hex() })?;
    let document = json!({
        "file": file.display().to_string(), "entries": checkpoint.size, "root": checkpoint.root.hex(),
    });
    app.out.done(&document, &format!("{} entries in {}", checkpoint.size, file.display()))
}

/// Verifies a file that `write` made, against the context alone.
pub fn verify(app: &App, file: &Path) -> Result<(), Failure> {
    let ctx = app.context()?;
    let bar = app.out.bar(0, "verifying");
    let checkpoint = check(file, &ctx.cluster, &ctx.anchor, |size, taken| {
        bar.set_length(size);
        bar.inc(taken);
    })?;
    bar.finish_and_clear();
    let document =
        json!({"ok": true, "entries": checkpoint.size, "root": checkpoint.root.hex(), "origin": checkpoint.origin});
    app.out.show(&document, || format!("ok {} entries\n", checkpoint.size))
}

/// The checkpoint that all of the file makes. `each` hears of the log's size and of the entries that were taken just now.
fn check(file: &Path, cluster: &ClusterId, anchor: &Digest, each: impl Fn(u64, u64)) -> Result<Checkpoint, Failure> {
    let mut frames = Frames::open(file, MAGIC)?;
    let cut = || refuse(BackupError::CutShort);
    let damaged = |e: strict::StrictError| refuse(BackupError::Part(e));
    let chains: v1::TrustView = strict::decode(&frames.next()?.ok_or_else(cut)?, MAX_PART).map_err(damaged)?;
    let trust = Trust::verify(chains, cluster, anchor)?;
    let head: v1::CheckpointReply = strict::decode(&frames.next()?.ok_or_else(cut)?, MAX_PART).map_err(damaged)?;
    let log = origin(trust.trust_domain().as_str(), trust.bundle().era);
    let checkpoint = Checkpoint::verify(&head.note, &log, &trust.checkpoint_keys()).map_err(Failure::untrusted)?;
    if head.size != checkpoint.size || head.root != checkpoint.root.0 {
        return Err(Failure::untrusted("the file does not say of its checkpoint what the signed note says"));
    }
    let mut auditor = Auditor::new(*cluster);
    while let Some(frame) = frames.next()? {
        let chunk: v1::EntriesChunk = strict::decode(&frame, MAX_PART).map_err(damaged)?;
        for leaf in &chunk.leaves {
            if leaf.entry.len() > MAX_ENTRY {
                return Err(refuse(BackupError::TooLong));
            }
            auditor.take(leaf)?;
        }
        each(checkpoint.size, chunk.leaves.len() as u64);
    }
    auditor.finish(checkpoint.size, &checkpoint.root)?;
    Ok(checkpoint)
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
