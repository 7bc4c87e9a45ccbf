//! `recover`: a cluster comes back on an empty machine. The recovery key opens the backup's boxes here, and stays here.
//!
//! Nothing is signed before the backup was read from end to end and the vault has shown what it made of it. Where a voter is
//! left, `survivor` takes the place of the backup.

use super::backup::{Checked, RECOVERY_KEY, check};
use super::survivor;
use crate::app::App;
use crate::args::{KeyInput, Recover};
use crate::context::{self, Context, ContextDir};
use crate::errors::{Code, Failure};
use crate::founding::Key;
use crate::framed::{Frames, NewFile, must_be_new, refuse};
use crate::keyin::Given;
use crate::login;
use crate::needed::RecoveryKey;
use crate::operator::Operator;
use crate::slots::SlotKind;
use crate::socket::Socket;
use crate::trust::Trust;
use holdfast_wire::backup::{self, BackupError, MAGIC};
use holdfast_wire::boxes::{BoxError, PrivateKey};
use holdfast_wire::statement;
use holdfast_wire::v1::{self, recover_part::Part, recover_reply::Step};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

type Parts = mpsc::Sender<v1::RecoverPart>;

/// Runs the verb.
pub async fn run(app: &App, a: Recover) -> Result<(), Failure> {
    a.unlock_key_out.as_deref().map_or(Ok(()), must_be_new)?;
    if a.from_survivor {
        return survivor::run(app, a).await;
    }
    let ctx = app.context()?;
    let signers = Signers::load(&ctx, &a)?;
    let needed = |what: &str| Failure::new(Code::Usage, format!("{what} is missing"), "see `holdfast recover --help`");
    let backup = a.backup.as_deref().ok_or_else(|| needed("--backup"))?;
    let input = KeyInput::of(a.key_file.as_deref(), &a.share_files).ok_or_else(|| needed("--key-file"))?;
    let mut checked = check(app, backup, Some(Given::read(&input, RECOVERY_KEY)?))?;
    let key = checked.key.take().ok_or_else(|| refuse(BackupError::CutShort))?;
    let path = std::path::absolute(&a.vault_socket).map_err(|e| Failure::io("find", &a.vault_socket, &e))?;
    let mut socket = Socket::connect(&path, app.timeout(Duration::from_secs(120))).await?;
    let unlock = unlock_key(&a)?;
    let head = request(&checked, &key.opens, unlock.as_ref(), &a)?;
    let (tx, rx) = mpsc::channel(4);
    let (file, sender) = (backup.to_owned(), tx.clone());
    let sending = tokio::task::spawn_blocking(move || send(&file, head, &sender));
    let mut replies = socket.recover(ReceiverStream::new(rx)).await?;
    let plan = match next(&mut replies).await? {
        Some(Step::Plan(plan)) => plan,
        Some(Step::Done(_)) | None => return Err(Failure::untrusted("the vault did not say what would come back")),
    };
    sending.await.map_err(|e| Failure::new(Code::Failed, e, "report this"))??;
    let reset = planned(&plan, &checked, &a)?;
    if a.dry_run {
        let key = checked.needed.words();
        let then = format!("nothing was changed; without --dry-run this comes back, by the {key}, which was given");
        return show(app, &plan, reset, None, &then, Some(checked.needed.document()));
    }
    keep(&a, unlock.as_ref())?;
    let part = v1::RecoverPart { part: Some(Part::Reset(signers.sign(reset)?)) };
    tx.send(part).await.map_err(|_| left())?;
    let Some(Step::Done(done)) = next(&mut replies).await? else {
        return Err(Failure::untrusted("the vault did not say that the cluster is back"));
    };
    adopt(ctx, &checked, reset, &done, &path)?;
    prove(&checked, &key, unlock.as_ref(), done.slots.as_ref())?;
    let then = "the cluster is back; make a new backup, and see docs/operations/disaster.md for its nodes";
    show(app, &plan, reset, Some(done.voter_id), then, Some(checked.needed.document()))
}

/// Who signs the Reset: the operator of the context, and those of others on this machine.
pub(super) struct Signers {
    operator: Operator,
    others: Vec<Operator>,
}

impl Signers {
    pub(super) fn load(ctx: &Context, a: &Recover) -> Result<Self, Failure> {
        let others = a.co_signers.iter().map(|name| co_signer(name, ctx)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { operator: Operator::load(ctx)?, others })
    }

    /// The Reset, signed by everybody who is here.
    pub(super) fn sign(&self, reset: &v1::Reset) -> Result<v1::Statement, Failure> {
        let mut st = self.operator.sign(reset)?;
        for other in &self.others {
            let signed = statement::add_signature(&mut st, &other.key);
            signed.map_err(|e| Failure::new(Code::Failed, e, "check the key files of the context"))?;
        }
        Ok(st)
    }
}

/// The operator of another context of the same cluster on this machine.
fn co_signer(name: &str, ours: &Context) -> Result<Operator, Failure> {
    let theirs = ContextDir::new(&context::home()?, name)?.load()?;
    if theirs.cluster != ours.cluster {
        let what = format!("the context {name:?} is of another cluster");
        return Err(Failure::new(Code::WrongCluster, what, "name contexts of this cluster"));
    }
    Operator::load(&theirs)
}

/// The new unlock key, if one was asked for.
pub(super) fn unlock_key(a: &Recover) -> Result<Option<Key>, Failure> {
    a.unlock_key_out.as_ref().map(|_| Key::make(SlotKind::Unlock)).transpose()
}

/// Writes the new unlock key: it is on a disk before there is anything that only it opens.
pub(super) fn keep(a: &Recover, unlock: Option<&Key>) -> Result<(), Failure> {
    let (Some(out), Some(key)) = (&a.unlock_key_out, unlock) else { return Ok(()) };
    let mut file = NewFile::create(out)?;
    file.write(key.printed.as_bytes())?;
    file.write(b"\n")?;
    file.finish()
}

/// Opens the boxes: the vault gets what was in them, never what opens them.
fn request(c: &Checked, key: &PrivateKey, unlock: Option<&Key>, a: &Recover) -> Result<v1::RecoverHead, Failure> {
    let wrong = |e: BoxError| Failure::new(Code::BadKey, e, "use the recovery key of this backup");
    let stream = backup::open_key(&c.head, &c.cluster, key).map_err(wrong)?;
    let mut terms = Vec::new();
    for term in &c.head.terms {
        let opened = backup::open_term(term, &c.cluster, key).map_err(wrong)?;
        terms.push(v1::TermKey { term: term.term, key: opened.expose().to_vec() });
    }
    Ok(v1::RecoverHead {
        stream_key: stream.expose().to_vec(),
        terms,
        unlock_pk: unlock.map(|k| k.public.to_vec()).unwrap_or_default(),
        reason: a.reason.clone(),
        removed: a.removed.clone(),
        compromised: a.compromised,
        from_survivor: false,
    })
}

/// Sends the head and the whole backup.
fn send(file: &Path, head: v1::RecoverHead, tx: &Parts) -> Result<(), Failure> {
    // Where the vault leaves, its answer says why.
    if tx.blocking_send(v1::RecoverPart { part: Some(Part::Head(head)) }).is_err() {
        return Ok(());
    }
    let mut frames = Frames::open(file, MAGIC)?;
    while let Some(frame) = frames.next()? {
        let part = Part::Backup(backup::part(&frame).map_err(refuse)?);
        if tx.blocking_send(v1::RecoverPart { part: Some(part) }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The vault ended in the midst of it.
pub(super) fn left() -> Failure {
    let help = "see the voter's log; once it runs, repeat the command";
    Failure::new(Code::ConnectionLost, "the vault left before the reset was signed", help)
}

pub(super) async fn next(replies: &mut tonic::Streaming<v1::RecoverReply>) -> Result<Option<Step>, Failure> {
    let reply = replies.message().await.map_err(holdfast_transport::failure::Failure::from)?;
    Ok(reply.and_then(|r| r.step))
}

/// The Reset that the vault shows is for this cluster, for the era after the backup's, and weakens nothing.
fn planned<'a>(plan: &'a v1::ResetPlan, c: &Checked, a: &Recover) -> Result<&'a v1::Reset, Failure> {
    let reset = plan.reset.as_ref().ok_or_else(|| Failure::untrusted("the vault shows nothing to sign"))?;
    let right = reset.cluster_id == c.cluster.0
        && reset.era == c.head.era.saturating_add(1)
        && reset.prev_checkpoint == c.head.checkpoint
        && reset.min_charter_version == c.trust.charter().version
        && reset.voters.len() == 1
        && reset.removed.iter().all(|id| a.removed.contains(id))
        && reset.compromised == a.compromised
        && reset.roots.len() == 1;
    if right { Ok(reset) } else { Err(Failure::untrusted("the vault shows another reset than the backup's")) }
}

/// The context follows the cluster into its new era.
fn adopt(mut ctx: Context, c: &Checked, reset: &v1::Reset, done: &v1::Recovered, socket: &Path) -> Result<(), Failure> {
    let root = reset.roots.first().ok_or_else(|| Failure::untrusted("the reset names no root"))?;
    let anchor = c.cluster.anchor(root);
    let chains = v1::TrustView {
        charter_chain: c.head.charter_chain.clone(),
        bundle_chain: done.bundle_chain.clone(),
        resets: done.resets.clone(),
        ..v1::TrustView::default()
    };
    let trust = Trust::verify(chains, &c.cluster, &anchor)?;
    if trust.bundle().era != reset.era {
        return Err(Failure::untrusted("the vault's bundle is not of the era that was signed"));
    }
    ctx.begin_era(anchor)?;
    ctx.settings.service_addrs.clone_from(&done.service_addrs);
    ctx.settings.join_addrs.clone_from(&done.join_addrs);
    ctx.settings.vault_socket = Some(socket.to_owned());
    login::forget(&ctx);
    // In this order: see `Trust::stored`.
    ctx.dir.write_settings(&ctx.settings)?;
    ctx.store_trust(trust.chains())
}

/// Both slots of the new voter are opened with the keys that are kept, before anybody relies on them.
fn prove(
    c: &Checked,
    recovery: &RecoveryKey,
    unlock: Option<&Key>,
    slots: Option<&v1::SlotBoxes>,
) -> Result<(), Failure> {
    let slots = slots.ok_or_else(|| Failure::untrusted("the vault did not show its slots"))?;
    let Some(unlock) = unlock else { return Ok(()) };
    let by_unlock = unlock.slot.open(&c.cluster, slots)?;
    let by_recovery = recovery.slot.open(&c.cluster, slots)?;
    if by_unlock.ct_eq(&by_recovery) {
        return Ok(());
    }
    Err(Failure::untrusted("unlock and recovery slot hold different disk keys"))
}

/// Shows what comes back, and whether it did; `then` says what is next, `recovery_key` what opens the backup.
pub(super) fn show(
    app: &App,
    plan: &v1::ResetPlan,
    reset: &v1::Reset,
    voter: Option<u64>,
    then: &str,
    recovery_key: Option<Value>,
) -> Result<(), Failure> {
    let found: Map<String, Value> = plan.found.iter().map(|f| (f.name.clone(), f.value.clone().into())).collect();
    let document = json!({
        "changed": voter.is_some(), "era": reset.era, "voter": voter, "found": found, "recovery_key": recovery_key,
    });
    let line = |f: &v1::Field| match f.name.as_str() {
        "unacknowledged" => format!("entries that were not known to be acknowledged: {}\n", f.value),
        name => format!("{name:<12}  {}\n", f.value),
    };
    app.out.show(&document, || plan.found.iter().map(line).chain([format!("{then}\n")]).collect())
}
