//! `unlock-key`: rotation of the key that opens sealed voters (protocol, unlock-key rotation).
//!
//! The new key is in the operator's hands before the cluster hears of it, and the old one is called disposable only after a
//! quorum has sealed its disk keys to the new one and that was made final
//! (`the_old_key_is_not_called_disposable_before_a_quorum_is_ready`). An interrupted rotation is gone on with by `--resume`.

use super::voter;
use crate::app::App;
use crate::args::{KeyInput, KeyOutput, RotateUnlockKey, UnlockKeyVerb};
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::keyin::Given;
use crate::keyout::{NewKey, must_be_handed_over};
use crate::known::KnownKeys;
use crate::output::age;
use crate::shares::{KeySecret, Scheme};
use crate::slots::{CHAIN_PURPOSE, SlotKey, SlotKind, is_sealed_to};
use crate::socket::Socket;
use data_encoding::HEXLOWER;
use holdfast_wire::{boxes, v1};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;
use v1::command::Action;

/// How long a quorum may take to get ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the rest may take once a quorum is ready.
const REST: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(200);

/// Runs the verb.
pub async fn run(app: &App, verb: UnlockKeyVerb) -> Result<(), Failure> {
    match verb {
        UnlockKeyVerb::Rotate(a) if a.resume => resume(app, a).await,
        UnlockKeyVerb::Rotate(a) => begin(app, a).await,
        UnlockKeyVerb::Status => status(app).await,
        UnlockKeyVerb::Split { key, new, voters } => split(app, &key, new, &voters.sockets).await,
    }
}

/// What the cluster says of its unlock key.
pub async fn view(c: &Cluster) -> Result<v1::UnlockView, Failure> {
    c.read(async |mut r| r.get_unlock(v1::Ack {}).await).await
}

/// A rotation that is to be begun.
pub struct Plan {
    /// The old secret, for the chain; `None` if it is lost, compromised, or there was none.
    pub old: Option<KeySecret>,
    /// Every voter replaces its disk key too.
    pub compromised: bool,
    /// How the new key is split.
    pub scheme: Option<Scheme>,
    /// Where the new key is written to.
    pub key_out: Option<PathBuf>,
    /// Voters' sockets that were named.
    pub sockets: Vec<PathBuf>,
}

async fn begin(app: &App, a: RotateUnlockKey) -> Result<(), Failure> {
    let scheme = must_be_handed_over(app, &a.new)?;
    let c = Cluster::connect(app).await?;
    let view = view(&c).await?;
    must_be_on(&view)?;
    if !a.anew {
        must_be_idle(&view)?;
    }
    let old = if a.compromised || a.lost {
        None
    } else {
        let proof = Proof::gather(app, &c, &a.voters.sockets).await?;
        Some(proof.present_key(&c, view.epoch, &a.key)?)
    };
    let plan = Plan { old, compromised: a.compromised, scheme, key_out: a.new.key_out, sockets: a.voters.sockets };
    rotate(app, &c, &view, plan).await
}

fn must_be_on(view: &v1::UnlockView) -> Result<(), Failure> {
    if view.autolock {
        return Ok(());
    }
    Err(Failure::new(Code::AutolockOff, "there is no unlock key: autolock is off", "run `holdfast autolock on`"))
}

/// Refuses to begin while a rotation is under way.
pub fn must_be_idle(view: &v1::UnlockView) -> Result<(), Failure> {
    if view.pending == 0 {
        return Ok(());
    }
    let what = format!("the rotation to epoch {} is under way", view.pending);
    let help = "go on by its key: `holdfast unlock-key rotate --resume --key-file NEW`; if that is lost, add --anew";
    Err(Failure::new(Code::Changed, what, help).with("pending", view.pending))
}

/// Makes the new key, hands it over, and rotates to it.
pub async fn rotate(app: &App, c: &Cluster, view: &v1::UnlockView, plan: Plan) -> Result<(), Failure> {
    // None is ever used for two keys, also not that of a key that never took over.
    let epoch = view.epoch.max(view.pending).saturating_add(1);
    let new = NewKey::make(SlotKind::Unlock, epoch, &c.ctx.cluster, plan.scheme)?;
    let files = new.hand_over(app, plan.key_out.as_deref())?;
    let chain = plan.old.as_ref().map(|old| chain_of(c, view.epoch, old, &new)).transpose()?.unwrap_or_default();
    KnownKeys::remember(&c.ctx.dir, new.known(&chain))?;
    let prepare = v1::UnlockPrepare {
        epoch,
        pk: new.slot.public.to_vec(),
        chain,
        threshold: new.threshold.into(),
        share_digests: new.share_digests(),
        compromised: plan.compromised,
    };
    c.command(Action::UnlockPrepare(prepare)).await.map_err(not_begun)?;
    let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    finish(app, c, &new.slot, epoch, &plan.sockets, names).await.map_err(|f| unfinished(f, epoch))
}

fn not_begun(f: Failure) -> Failure {
    let help = format!("`holdfast unlock-key status` says whether the new key waits; if not, destroy it. {}", f.help);
    Failure { help, ..f }
}

fn unfinished(f: Failure, epoch: u64) -> Failure {
    let help = format!(
        "keep both keys; go on by the new one: `holdfast unlock-key rotate --resume --key-file NEW`. {}",
        f.help
    );
    Failure { help, ..f }.with("pending", epoch)
}

/// The old secret for whoever has the new one.
fn chain_of(c: &Cluster, older: u64, old: &KeySecret, new: &NewKey) -> Result<Vec<u8>, Failure> {
    let aad = boxes::chain_aad(older);
    let context = boxes::Context { purpose: CHAIN_PURPOSE, cluster: &c.ctx.cluster, aad: &aad };
    let sealed = boxes::seal(&new.slot.public, &context, None, old.expose(), clock::random()?);
    sealed.map_err(|e| Failure::new(Code::Failed, format!("cannot seal the chain: {e}"), "report this"))
}

/// Goes on with a rotation by its new key.
async fn resume(app: &App, a: RotateUnlockKey) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let view = view(&c).await?;
    if view.pending == 0 {
        let what = format!("no rotation is under way; epoch {} is in force", view.epoch);
        return Err(Failure::new(Code::Changed, what, "see `holdfast unlock-key status`"));
    }
    let known = KnownKeys::load(&c.ctx.dir)?;
    let fits = |public: &[u8; 32]| public.as_slice() == view.pending_pk;
    let given = Given::read(&a.key, "the new unlock key")?;
    let secret = given.the_one(SlotKind::Unlock, &c.ctx.cluster, &known, &fits)?;
    let key = SlotKey::derive(SlotKind::Unlock, secret.expose()).0;
    let done = finish(app, &c, &key, view.pending, &a.voters.sockets, Vec::new()).await;
    done.map_err(|f| unfinished(f, view.pending))
}

/// Waits for a quorum, proves the new key, makes it final, and only then calls the old one disposable.
async fn finish(
    app: &App,
    c: &Cluster,
    key: &SlotKey,
    epoch: u64,
    sockets: &[PathBuf],
    files: Vec<String>,
) -> Result<(), Failure> {
    let ready = wait_for_quorum(app, c, epoch).await?;
    let proof = Proof::gather(app, c, sockets).await?;
    let proven = proof.prove(c, key, epoch)?;
    c.command(Action::UnlockFinalize(v1::UnlockFinalize { epoch })).await?;
    let voters = voter::list(c).await?.voters;
    let behind = |v: &&v1::VoterView| !voter::is_evicted(v) && v.unlock_epoch < epoch;
    let missing: Vec<u64> = voters.iter().filter(behind).map(|v| v.id).collect();
    let doc = json!({
        "epoch": epoch, "compromised": ready.compromised, "proven_by": proven, "missing": missing, "key_files": files,
        "old_key_disposable": is_disposable(&ready, &missing),
    });
    app.out.show(&doc, || said(epoch, &ready, &proven, &missing))
}

/// Whether nothing needs the old key any more. Without a chain, who slept through the rotation opens by it alone; a key in
/// wrong hands is not kept for that.
fn is_disposable(v: &v1::UnlockView, missing: &[u64]) -> bool {
    v.chain || v.compromised || missing.is_empty()
}

fn said(epoch: u64, rotation: &v1::UnlockView, proven: &[u64], missing: &[u64]) -> String {
    let list = |v: &[u64]| v.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let old = if is_disposable(rotation, missing) { "is disposable" } else { "is still needed" };
    let mut text = format!("unlock epoch {epoch} is in force: the old key {old}\n");
    text.push_str(&match proven {
        [] => "the new key was not tried on a voter: none could be reached by its socket from here\n".to_owned(),
        some => format!("the new key was tried and opens voter {}\n", list(some)),
    });
    let some = list(missing);
    text.push_str(&if missing.is_empty() {
        String::new()
    } else if rotation.compromised {
        format!("voter {some} did not follow: evict it, for the old key still opens its disk\n")
    } else if rotation.chain {
        format!("the new key opens voter {some} by way of the chain until it has followed\n")
    } else {
        format!("voter {some} did not follow: until it has, the old key or the recovery key alone opens it\n")
    });
    if rotation.compromised {
        text.push_str("every voter now replaces its disk key: see `holdfast voter ls`\n");
    }
    text
}

/// Whether a majority of those that take part has followed.
fn is_quorum(v: &v1::UnlockView) -> bool {
    v.ready.len() > v.missing.len()
}

async fn wait_for_quorum(app: &App, c: &Cluster, epoch: u64) -> Result<v1::UnlockView, Failure> {
    let deadline = Instant::now() + app.timeout(PATIENCE);
    let bar = app.out.bar(1, "voters ready");
    let mut enough: Option<Instant> = None;
    loop {
        let v = view(c).await?;
        if v.pending != epoch {
            let what = format!("the rotation to epoch {epoch} is not under way any more");
            return Err(Failure::new(Code::Changed, what, "see `holdfast unlock-key status`"));
        }
        bar.set_length((v.ready.len() + v.missing.len()) as u64);
        bar.set_position(v.ready.len() as u64);
        let now = Instant::now();
        if is_quorum(&v) {
            // Whoever gets ready within a moment does not need the chain.
            let since = *enough.get_or_insert(now);
            if v.missing.is_empty() || now >= since + REST {
                bar.finish_and_clear();
                return Ok(v);
            }
        } else if now >= deadline {
            let what = format!("{} of {} voters are ready, too few", v.ready.len(), v.ready.len() + v.missing.len());
            let help = "start and unlock the missing voters";
            return Err(Failure::new(Code::TimedOut, what, help).with("missing", v.missing));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What can be found out here about a key: slots of voters whose sockets can be reached, and what the context remembers.
pub struct Proof {
    slots: Vec<v1::SlotBoxes>,
    known: KnownKeys,
}

impl Proof {
    /// Asks the sockets that were named, all of which must answer, or else those of the context that do.
    pub async fn gather(app: &App, c: &Cluster, named: &[PathBuf]) -> Result<Self, Failure> {
        let mut slots = Vec::new();
        let paths = if named.is_empty() { c.ctx.settings.sockets() } else { app.sockets(named, true)? };
        for path in paths {
            let asked = async {
                let mut socket = Socket::connect(&path, c.patience()).await?;
                socket.slot_boxes().await
            };
            match asked.await {
                Ok(boxes) if boxes.cluster_id == c.ctx.cluster.0 => slots.push(boxes),
                Ok(_) if named.is_empty() => {}
                Ok(_) => {
                    let what = format!("{} is the socket of another cluster's voter", path.display());
                    return Err(Failure::new(Code::WrongCluster, what, "name a socket of this cluster"));
                }
                Err(f) if named.is_empty() || f.code == Code::NotSealed.word() => {}
                Err(f) => return Err(f),
            }
        }
        Ok(Self { slots, known: KnownKeys::load(&c.ctx.dir)? })
    }
    /// Reads the unlock key of `epoch`, the one in force; another would make a chain that leads nowhere.
    fn present_key(&self, c: &Cluster, epoch: u64, input: &KeyInput) -> Result<KeySecret, Failure> {
        let noted = self.known.of(SlotKind::Unlock, epoch).map(|k| k.public.as_str());
        if noted.is_none() && self.slots.is_empty() {
            let what = "nothing here can tell whether a key is the one in force";
            return Err(Failure::new(Code::Usage, what, "name the socket of a voter with --vault-socket"));
        }
        let fits = |public: &[u8; 32]| {
            noted.is_some_and(|n| n == HEXLOWER.encode(public)) || is_sealed_to(public, epoch, &self.slots)
        };
        Given::read(input, "the present unlock key")?.the_one(SlotKind::Unlock, &c.ctx.cluster, &self.known, &fits)
    }
    /// Opens what `key` opens: the voters, by number. A voter that has a slot of `epoch` must open.
    pub fn prove(&self, c: &Cluster, key: &SlotKey, epoch: u64) -> Result<Vec<u64>, Failure> {
        let mut proven = Vec::new();
        for slots in &self.slots {
            if slots.slots.iter().any(|s| s.kind == key.kind.word() && s.epoch == epoch) {
                key.open(&c.ctx.cluster, slots)?;
                proven.push(slots.voter_id);
            }
        }
        Ok(proven)
    }
}

async fn status(app: &App) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let v = view(&c).await?;
    app.out.show(&document(&v), || human(&v))
}

/// The unlock key, as documents show it.
pub fn document(v: &v1::UnlockView) -> serde_json::Value {
    let digests: Vec<String> = v.share_digests.iter().map(|d| HEXLOWER.encode(d)).collect();
    json!({
        "autolock": v.autolock, "epoch": v.epoch, "threshold": v.threshold, "share_digests": digests,
        "pending": v.pending, "ready": v.ready, "missing": v.missing, "compromised": v.compromised,
        "disk_key_order": v.disk_key_order, "since": crate::output::time(v.since_ms),
    })
}

fn human(v: &v1::UnlockView) -> String {
    if !v.autolock && v.pending == 0 {
        return "autolock  off: there is no unlock key\n".to_owned();
    }
    let key = match v.threshold {
        0 => "one key".to_owned(),
        k => format!("{k} of {} shares", v.share_digests.len()),
    };
    let mut text = format!("autolock  {}\nepoch     {}, {key}\n", if v.autolock { "on" } else { "off" }, v.epoch);
    if v.pending != 0 {
        let list = |v: &[u64]| v.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let (ready, missing) = (list(&v.ready), list(&v.missing));
        let since = age(clock::now(), v.since_ms);
        text.push_str(&format!(
            "rotation  to epoch {}, begun {since}; ready: {ready}; missing: {missing}\n",
            v.pending
        ));
    }
    text
}

/// Splits the key in force; it stays the same key.
async fn split(app: &App, input: &KeyInput, new: KeyOutput, sockets: &[PathBuf]) -> Result<(), Failure> {
    let scheme = must_be_handed_over(app, &new)?;
    let Some(scheme) = scheme else {
        return Err(Failure::new(Code::Usage, "a split needs --shares and --threshold", "such as 5 and 3"));
    };
    let c = Cluster::connect(app).await?;
    let view = view(&c).await?;
    must_be_on(&view)?;
    let proof = Proof::gather(app, &c, sockets).await?;
    let secret = proof.present_key(&c, view.epoch, input)?;
    let split = NewKey::of(&secret, SlotKind::Unlock, view.epoch, &c.ctx.cluster, Some(scheme))?;
    let files = split.hand_over(app, new.key_out.as_deref())?;
    let before = proof.known.of(SlotKind::Unlock, view.epoch).map(|k| k.chain.clone()).unwrap_or_default();
    KnownKeys::remember(&c.ctx.dir, crate::known::KnownKey { chain: before, ..split.known(&[]) })?;
    let digests: Vec<String> = split.digests.iter().map(holdfast_types::Digest::hex).collect();
    let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    let doc = json!({"epoch": view.epoch, "threshold": split.threshold, "share_digests": digests, "key_files": files});
    let line = format!(
        "the shares are of the key in force: {} of {} open voters; the whole key still does",
        split.threshold,
        digests.len()
    );
    app.out.done(&doc, &line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ready: &[u64], missing: &[u64]) -> v1::UnlockView {
        v1::UnlockView { ready: ready.to_vec(), missing: missing.to_vec(), ..Default::default() }
    }

    #[test]
    fn the_old_key_is_not_called_disposable_before_a_quorum_is_ready() {
        for (ready, missing, enough) in [
            (vec![], vec![1], false),
            (vec![1], vec![], true),
            (vec![1], vec![2, 3], false),
            (vec![1, 3], vec![2], true),
            (vec![1, 2], vec![3, 4], false),
            (vec![], vec![], false),
        ] {
            assert_eq!(is_quorum(&seen(&ready, &missing)), enough, "{ready:?} {missing:?}");
        }
        let cut_off = unfinished(Failure::new(Code::TimedOut, "late", "wait"), 2);
        assert!(cut_off.help.contains("keep both keys") && cut_off.help.contains("--resume"), "{}", cut_off.lines());
    }

    #[test]
    fn at_the_end_it_says_which_voters_need_the_chain_or_an_eviction() {
        let of = |chain, compromised| v1::UnlockView { chain, compromised, ..Default::default() };
        assert!(said(2, &of(true, false), &[1], &[]).ends_with("opens voter 1\n"));
        assert!(said(2, &of(true, false), &[], &[3]).contains("opens voter 3 by way of the chain"));
        let lost = said(2, &of(false, false), &[], &[3]);
        assert!(lost.contains("still needed") && lost.contains("the old key or the recovery key alone"), "{lost}");
        let compromised = said(2, &of(false, true), &[1, 2], &[3]);
        assert!(compromised.contains("voter 3 did not follow") && compromised.contains("replaces its disk key"));
    }
}
