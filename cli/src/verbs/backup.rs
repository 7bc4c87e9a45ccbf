//! `backup`: making a backup, and finding out whether one is whole, before it is needed.
//!
//! Whose it is follows from the cluster's name and anchor in the context; on a machine without one the backup is compared
//! with what it says of itself, and that is said.

use super::log::{MAX_ENTRY, audit::Auditor};
use crate::app::App;
use crate::args::{Backup, KeyInput};
use crate::errors::{Code, Failure};
use crate::framed::{Frames, NewFile, refuse};
use crate::keyin::Given;
use crate::needed::{NeededKey, RecoveryKey};
use crate::output::time;
use crate::slots::open_with;
use crate::socket::Socket;
use crate::trust::Trust;
use holdfast_types::ClusterId;
use holdfast_wire::backup::{self, Content, MAGIC, Opener, Outline};
use holdfast_wire::boxes::{self, PrivateKey};
use holdfast_wire::note::{Checkpoint, origin};
use holdfast_wire::statement;
use holdfast_wire::v1::{self, backup_part::Part};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a key is asked for as.
pub const RECOVERY_KEY: &str = "recovery key";

/// Runs the verb.
pub async fn run(app: &App, verb: Backup) -> Result<(), Failure> {
    match verb {
        Backup::Create { file, socket } => {
            let path = app.socket(socket.vault_socket)?;
            create(app, &file, &path).await
        }
        Backup::Verify { file, key_file, share_files, sockets } => {
            let input = KeyInput::of(key_file.as_deref(), &share_files);
            if input.is_none() && !sockets.is_empty() {
                let what = "without the recovery key nothing can be tried on a voter";
                return Err(Failure::new(Code::Usage, what, "give it with --key-file, or leave --vault-socket out"));
            }
            let given = input.map(|i| Given::read(&i, RECOVERY_KEY)).transpose()?;
            let checked = check(app, &file, given)?;
            let proven = prove(app, &checked, &sockets).await?;
            report(app, &checked, &proven)
        }
    }
}

async fn create(app: &App, file: &Path, socket: &Path) -> Result<(), Failure> {
    let mut new = NewFile::create(file)?;
    let mut socket = Socket::connect(socket, app.timeout(Duration::from_secs(60))).await?;
    let mut parts = socket.backup().await?;
    new.write(MAGIC)?;
    let mut outline = Outline::default();
    let bar = app.out.bar(0, "backing up");
    while let Some(part) = parts.message().await.map_err(holdfast_transport::failure::Failure::from)? {
        outline.take(&part).map_err(refuse)?;
        if let Some(Part::Head(head)) = &part.part {
            bar.set_length(head.state_bytes);
        }
        if let Some(Part::Chunk(chunk)) = &part.part {
            let sent = bar.position().saturating_add(chunk.len() as u64);
            // How long the log is in bytes, nobody knows before it was read.
            bar.set_length(bar.length().unwrap_or(0).max(sent));
            bar.set_position(sent);
        }
        new.write(&backup::frame(&part).map_err(refuse)?)?;
    }
    bar.finish_and_clear();
    let head = outline.head().cloned().ok_or_else(|| refuse(backup::BackupError::CutShort))?;
    // Only what its own cluster signed is kept under the name that was asked for.
    let (trust, _) = whose(app, &head)?;
    outline.finish(&trust.checkpoint_keys()).map_err(refuse)?;
    new.finish()?;
    let id: String = head.backup_id.iter().map(|b| format!("{b:02x}")).collect();
    let document = json!({
        "backup_id": id, "file": file.display().to_string(), "era": head.era, "entries": head.leaves,
        "made_at": time(head.made_at_ms),
    });
    let line = format!("{} holds everything up to entry {} of the log", file.display(), head.leaves);
    app.out.done(&document, &line)
}

/// What was found out about a backup.
pub struct Checked {
    /// Its head.
    pub head: v1::BackupHead,
    /// Whose it is.
    pub cluster: ClusterId,
    /// What it says of its cluster, verified.
    pub trust: Trust,
    /// True if the context's anchor commits to it.
    pub anchored: bool,
    /// The recovery key that opens it.
    pub needed: NeededKey,
    /// That key, if it was given: everything was opened then.
    pub key: Option<RecoveryKey>,
}

/// Verifies the chains of a backup: from the context, or else from the backup itself.
fn whose(app: &App, head: &v1::BackupHead) -> Result<(Trust, bool), Failure> {
    let cluster = ClusterId::from_slice(&head.cluster_id).ok_or_else(|| Failure::untrusted("it names no cluster"))?;
    let chains = v1::TrustView {
        charter_chain: head.charter_chain.clone(),
        bundle_chain: head.bundle_chain.clone(),
        ..v1::TrustView::default()
    };
    match app.context() {
        Ok(ctx) if ctx.cluster != cluster => {
            let what = format!("the backup is of cluster {cluster}, the context {:?} is another", ctx.dir.name());
            Err(Failure::new(Code::WrongCluster, what, "choose the context with --context, or another backup"))
        }
        Ok(ctx) => {
            // A backup of an earlier era begins at that era's anchor.
            Trust::verify_for(&ctx, &chains).map(|trust| (trust, true))
        }
        Err(f) if f.code == Code::NoContext.word() => {
            let first = chains.bundle_chain.first().ok_or_else(|| Failure::untrusted("it holds no bundle"))?;
            let first: v1::Bundle = statement::peek(first).map_err(Failure::untrusted)?;
            let root = first.roots.first().ok_or_else(|| Failure::untrusted("its bundle lists no root"))?;
            let anchor = cluster.anchor(root);
            Ok((Trust::verify(chains, &cluster, &anchor)?, false))
        }
        Err(f) => Err(f),
    }
}

/// Reads a backup from end to end. Without a key: its structure, its hash and who signed it. With the key: every chunk
/// opens, every entry of the log is right, and the tree is the one of the signed checkpoint.
pub fn check(app: &App, file: &Path, mut given: Option<Given>) -> Result<Checked, Failure> {
    let total = std::fs::metadata(file).map_err(|e| Failure::io("read", file, &e))?.len();
    let mut frames = Frames::open(file, MAGIC)?;
    let mut outline = Outline::default();
    let mut inside: Option<Inside> = None;
    let mut key: Option<RecoveryKey> = None;
    let bar = app.out.bar(total, "verifying");
    while let Some(frame) = frames.next()? {
        bar.inc(frame.len() as u64);
        let part = backup::part(&frame).map_err(refuse)?;
        outline.take(&part).map_err(refuse)?;
        match &part.part {
            Some(Part::Head(head)) => {
                if let Some(given) = given.take() {
                    let opened = open_head(app, head, given)?;
                    inside = Some(Inside::open(head, &opened.opens)?);
                    key = Some(opened);
                }
            }
            Some(Part::Chunk(chunk)) => inside.as_mut().map_or(Ok(()), |inside| inside.take(chunk))?,
            Some(Part::End(_)) | None => {}
        }
    }
    bar.finish_and_clear();
    let head = outline.head().cloned().ok_or_else(|| refuse(backup::BackupError::CutShort))?;
    let (trust, anchored) = whose(app, &head)?;
    let keys = trust.checkpoint_keys();
    outline.finish(&keys).map_err(refuse)?;
    let log = origin(trust.trust_domain().as_str(), head.era);
    let checkpoint = Checkpoint::verify(&head.checkpoint, &log, &keys).map_err(Failure::untrusted)?;
    if let Some(inside) = inside {
        inside.finish(&checkpoint)?;
    }
    let cluster = ClusterId::from_slice(&head.cluster_id).ok_or_else(|| Failure::untrusted("it names no cluster"))?;
    let needed = NeededKey::of(&head)?;
    Ok(Checked { head, cluster, trust, anchored, needed, key })
}

/// The key of the backup with this head, of what was given. What the head says of the key is verified before it is told.
fn open_head(app: &App, head: &v1::BackupHead, given: Given) -> Result<RecoveryKey, Failure> {
    let (trust, _) = whose(app, head)?;
    NeededKey::of(head)?.open(given, head, &trust.cluster())
}

/// A backup's inside, while it is read.
struct Inside {
    opener: Opener,
    content: Content,
    auditor: Auditor,
}

impl Inside {
    fn open(head: &v1::BackupHead, key: &PrivateKey) -> Result<Self, Failure> {
        let cluster =
            ClusterId::from_slice(&head.cluster_id).ok_or_else(|| Failure::untrusted("it names no cluster"))?;
        let wrong = |e: boxes::BoxError| {
            let help = "use the recovery key that the cluster had when the backup was made";
            Failure::new(Code::BadKey, format!("the recovery key does not open this backup: {e}"), help)
        };
        let stream = backup::open_key(head, &cluster, key).map_err(wrong)?;
        for term in &head.terms {
            backup::open_term(term, &cluster, key).map_err(wrong)?;
        }
        let opener = Opener::new(&stream, head).map_err(refuse)?;
        Ok(Self { opener, content: Content::new(head), auditor: Auditor::new(cluster) })
    }
    fn take(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        let plain = self.opener.open(chunk).map_err(refuse)?;
        for leaf in self.content.push(plain.expose()).map_err(refuse)? {
            let index = self.auditor.size();
            let short = || refuse(backup::BackupError::Malformed("a leaf is too short"));
            let (salt, entry) = leaf.split_at_checked(32).ok_or_else(short)?;
            if entry.len() > MAX_ENTRY {
                return Err(refuse(backup::BackupError::TooLong));
            }
            self.auditor.take(&v1::LeafData { index, salt: salt.to_vec(), entry: entry.to_vec() })?;
        }
        Ok(())
    }
    fn finish(self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        self.opener.finish().map_err(refuse)?;
        self.content.finish().map_err(refuse)?;
        self.auditor.finish(checkpoint.size, &checkpoint.root)
    }
}

/// Opens the recovery slots of these voters with the key of the backup, as `init` did with the first one's: whoever admitted a
/// voter had no such key at hand. Their numbers; what was opened is dropped.
async fn prove(app: &App, c: &Checked, sockets: &[PathBuf]) -> Result<Vec<u64>, Failure> {
    let Some(key) = c.key.as_ref().filter(|_| !sockets.is_empty()) else { return Ok(Vec::new()) };
    let mut proven = Vec::new();
    for path in app.sockets(sockets, true)? {
        let mut socket = Socket::connect(&path, app.timeout(Duration::from_secs(15))).await?;
        let slots = socket.slot_boxes().await?;
        if slots.cluster_id != c.cluster.0 {
            let what = format!("{} is the socket of another cluster's voter", path.display());
            return Err(Failure::new(Code::WrongCluster, what, "name a socket of this cluster"));
        }
        open_with(std::slice::from_ref(&key.slot), &c.cluster, &slots).map_err(|f| {
            let help = "if the recovery key was replaced since this backup, take a newer backup and the new key; if not, rotate it";
            if f.code == Code::BadKey.word() { Failure { help: help.to_owned(), ..f } } else { f }
        })?;
        proven.push(slots.voter_id);
    }
    proven.sort_unstable();
    Ok(proven)
}

fn report(app: &App, c: &Checked, proven: &[u64]) -> Result<(), Failure> {
    let opened = c.key.is_some();
    let document = json!({
        "ok": true, "cluster_id": c.cluster.hex(), "era": c.head.era, "entries": c.head.leaves,
        "charter_version": c.head.charter_version, "made_at": time(c.head.made_at_ms), "opened": opened,
        "anchored": c.anchored, "recovery_key": c.needed.document(),
        "proven_by": proven,
    });
    app.out.show(&document, || {
        let how = if opened { "every chunk opened, every entry checked" } else { "whole, not opened: give the key" };
        let whose = if c.anchored { "" } else { "\nno context here: that it is of your cluster was not checked" };
        let key = c.needed.words();
        let ids = proven.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let voters = if ids.is_empty() { ids } else { format!("\nthat key opens the disk of voter {ids}") };
        format!(
            "ok cluster {} era {} entries {}; {how}\nopens with the {key}{voters}{whose}\n",
            c.cluster, c.head.era, c.head.leaves
        )
    })
}
