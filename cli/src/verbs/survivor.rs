//! `recover --from-survivor`: a cluster goes on from the one voter that is left. Its own disk takes the place of a backup.
//!
//! What is believed of the vault is what the charter's Admins signed: the context follows into the new era as any other
//! context does.

use super::recover::{Signers, keep, left, next, show, unlock_key};
use super::seal::check_cluster;
use super::unlock;
use crate::app::App;
use crate::args::{KeyInput, Recover};
use crate::charter;
use crate::context::Context;
use crate::errors::Failure;
use crate::login;
use crate::socket::Socket;
use crate::trust::Trust;
use holdfast_types::ClusterId;
use holdfast_wire::v1::{self, recover_part::Part, recover_reply::Step};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Runs the verb.
pub(super) async fn run(app: &App, a: Recover) -> Result<(), Failure> {
    let ctx = app.context()?;
    let cluster = ctx.cluster;
    let held = Trust::stored(&ctx)?;
    let signers = Signers::load(&ctx, &a)?;
    let path = std::path::absolute(&a.vault_socket).map_err(|e| Failure::io("find", &a.vault_socket, &e))?;
    let patience = app.timeout(Duration::from_secs(120));
    if let Some(key) = KeyInput::of(a.key_file.as_deref(), &a.share_files) {
        unlock::one(app, &path, &key, patience).await?;
    }
    let mut socket = Socket::connect(&path, patience).await?;
    let status = socket.seal_status().await?;
    if let Some(shown) = ClusterId::from_slice(&status.cluster_id) {
        check_cluster(app, &shown)?;
    }
    let unlock = unlock_key(&a)?;
    let head = v1::RecoverHead {
        unlock_pk: unlock.as_ref().map(|k| k.public.to_vec()).unwrap_or_default(),
        reason: a.reason.clone(),
        removed: a.removed.clone(),
        compromised: a.compromised,
        from_survivor: true,
        ..v1::RecoverHead::default()
    };
    let (tx, rx) = mpsc::channel(2);
    tx.send(v1::RecoverPart { part: Some(Part::Head(head)) }).await.map_err(|_| left())?;
    let mut replies = socket.recover(ReceiverStream::new(rx)).await?;
    let plan = match next(&mut replies).await? {
        Some(Step::Plan(plan)) => plan,
        Some(Step::Done(_)) | None => return Err(Failure::untrusted("the vault did not say what would come back")),
    };
    let reset = planned(&plan, &ctx, &held, &a)?;
    if a.dry_run {
        let then = "nothing was changed; without --dry-run the cluster goes on from this voter alone";
        return show(app, &plan, reset, None, then, None);
    }
    keep(&a, unlock.as_ref())?;
    let part = v1::RecoverPart { part: Some(Part::Reset(signers.sign(reset)?)) };
    tx.send(part).await.map_err(|_| left())?;
    let Some(Step::Done(done)) = next(&mut replies).await? else {
        return Err(Failure::untrusted("the vault did not say that the cluster is back"));
    };
    drop(tx);
    adopt(ctx, &held, &plan, reset, &done, &path)?;
    if let Some(unlock) = &unlock {
        let slots = done.slots.as_ref().ok_or_else(|| Failure::untrusted("the vault did not show its slots"))?;
        drop(unlock.slot.open(&cluster, slots)?);
    }
    let then = "the cluster is back on this voter, whose process starts again now; unlock it if it is sealed, make a new \
                backup, and see docs/operations/lost-quorum.md";
    show(app, &plan, reset, Some(done.voter_id), then, None)
}

/// The Reset that the vault shows begins the next era of this cluster under its own charter, and removes nobody unasked.
fn planned<'a>(plan: &'a v1::ResetPlan, ctx: &Context, held: &Trust, a: &Recover) -> Result<&'a v1::Reset, Failure> {
    let reset = plan.reset.as_ref().ok_or_else(|| Failure::untrusted("the vault shows nothing to sign"))?;
    let charter = charter::verify_chain(&plan.charter_chain, &ctx.cluster)?;
    let right = reset.cluster_id == ctx.cluster.0
        && reset.era > held.bundle().era
        && charter.head().version >= held.charter().version
        && reset.min_charter_version == charter.head().version
        && reset.voters.len() == 1
        && reset.removed.iter().all(|id| a.removed.contains(id))
        && reset.compromised == a.compromised
        && reset.roots.len() == 1;
    if right { Ok(reset) } else { Err(Failure::untrusted("the vault shows another reset than this cluster's next")) }
}

/// The context follows the cluster into its new era.
fn adopt(
    mut ctx: Context,
    held: &Trust,
    plan: &v1::ResetPlan,
    reset: &v1::Reset,
    done: &v1::Recovered,
    socket: &Path,
) -> Result<(), Failure> {
    let shown = v1::TrustView {
        charter_chain: plan.charter_chain.clone(),
        bundle_chain: done.bundle_chain.clone(),
        resets: done.resets.clone(),
        ..v1::TrustView::default()
    };
    let (trust, anchor) =
        held.next_era(&shown)?.ok_or_else(|| Failure::untrusted("the vault shows no reset that was signed"))?;
    if trust.bundle().era != reset.era {
        return Err(Failure::untrusted("the vault's bundle is not of the era that was signed"));
    }
    ctx.begin_era(anchor)?;
    for (kept, told) in
        [(&mut ctx.settings.service_addrs, &done.service_addrs), (&mut ctx.settings.join_addrs, &done.join_addrs)]
    {
        // An address that is found at its start only is remembered when the voter is unlocked or asked over its socket.
        if !told.is_empty() {
            kept.clone_from(told);
        }
    }
    ctx.settings.vault_socket = Some(socket.to_owned());
    login::forget(&ctx);
    // In this order: see `Trust::stored`.
    ctx.dir.write_settings(&ctx.settings)?;
    ctx.store_trust(trust.chains())
}
