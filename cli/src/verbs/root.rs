//! `root`: the root that every certificate comes from, its replacement, and what other programs need to believe it.
//!
//! A root's own key is read here in one case alone: when it is handed to the vault, sealed on this machine.

mod approve;
mod offline;

use crate::app::App;
use crate::args::{ExportFormat, RootVerb, RotateRoot, SignTo};
use crate::client::{Cluster, NewCommand};
use crate::clock;
use crate::errors::{Code, Failure};
use crate::framed::must_be_new;
use crate::output::{age, time};
use crate::pems;
use crate::signing;
use data_encoding::HEXLOWER;
use holdfast_pki::export;
use holdfast_transport::files::{PUBLIC, replace_among_others};
use holdfast_types::sha256;
use holdfast_wire::v1;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use v1::command::Action;

/// How long a rotation is waited for; it goes on by itself.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(200);
/// What to do where a rotation cannot be waited for any longer.
const GOES_ON: &str = "it goes on by itself: see `holdfast root status`";
/// The phase in which nothing is under way.
const STABLE: &str = "stable";
/// What the box with a root's key is bound to.
const BOX_SUBJECT: &str = "root";
/// How often whoever reads a SPIFFE bundle document should look again.
const REFRESH_SECS: u64 = 3600;

/// Runs the verb.
pub async fn run(app: &App, verb: RootVerb) -> Result<(), Failure> {
    match verb {
        RootVerb::Status => {
            let c = Cluster::connect(app).await?;
            show(app, &view(&c).await?)
        }
        RootVerb::Rotate(a) => rotate(app, a).await,
        RootVerb::Approve { root, detach } => approve::approve(app, &root, detach).await,
        RootVerb::Abort { key_is_gone, detach, to } => abort(app, key_is_gone, detach, &to).await,
        RootVerb::Export { format, out } => {
            let c = Cluster::connect(app).await?;
            give(app, out.as_deref(), &exported(c.trust.bundle(), format), Existing::Replaced)
        }
        RootVerb::Csr { out } => offline::csr(app, out.as_deref()).await,
        RootVerb::Sign(a) => offline::sign(app, &a),
        RootVerb::Install { signed, detach, to } => offline::install(app, &signed, detach, &to).await,
    }
}

async fn view(c: &Cluster) -> Result<v1::RootsView, Failure> {
    c.read(async |mut r| r.get_roots(v1::Ack {}).await).await
}

/// What becomes of a file that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    /// It is of an earlier run: whoever reads it meets the old text or the new one, whole.
    Replaced,
    /// It is kept; it may have what is written in it already.
    Kept,
}

/// Text to a file, or to standard output as it is.
fn give(app: &App, out: Option<&Path>, text: &str, existing: Existing) -> Result<(), Failure> {
    let Some(path) = out else { return app.out.raw(text) };
    write(path, text.as_bytes(), existing)?;
    let file = path.display().to_string();
    if app.out.is_json() {
        return app.out.show(&json!({"file": file}), String::new);
    }
    app.out.note(&format!("written to {file}"));
    Ok(())
}

fn write(path: &Path, text: &[u8], existing: Existing) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::io("write", path, &e);
    match std::fs::metadata(path) {
        // A pipe or a terminal: nothing takes its place.
        Ok(is) if !is.is_file() => std::fs::write(path, text).map_err(failed),
        Ok(_) if existing == Existing::Kept && std::fs::read(path).map_err(failed)? == text => Ok(()),
        Ok(_) if existing == Existing::Kept => must_be_new(path),
        Ok(_) => {
            // Where a link leads, so that the link stays.
            let file = std::fs::canonicalize(path).map_err(failed)?;
            replace_among_others(&file, text, PUBLIC).map_err(failed)
        }
        Err(_) => replace_among_others(path, text, PUBLIC).map_err(failed),
    }
}

/// The roots of a bundle that was verified on this machine.
fn exported(bundle: &v1::Bundle, format: ExportFormat) -> String {
    match format {
        ExportFormat::Pem => export::pem(&bundle.roots),
        // An era begins its epochs anew; the sequence of the document must grow all the same.
        ExportFormat::Spiffe => {
            let sequence = bundle.era.wrapping_shl(32) | bundle.epoch;
            let mut text = export::spiffe_bundle(&bundle.roots, sequence, REFRESH_SECS);
            text.push('\n');
            text
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn short(bytes: &[u8]) -> String {
    hex(bytes).chars().take(16).collect()
}

fn signer(v: &v1::RootsView) -> Option<&v1::RootView> {
    v.trusted.iter().find(|r| r.signer)
}

/// The roots and their rotation, as documents show them.
pub fn document(v: &v1::RootsView) -> Value {
    let root = |r: &v1::RootView| {
        json!({
            "sha256": hex(&r.sha256), "not_after": time(r.not_after_ms), "signer": r.signer, "key": r.key,
            "identities": r.identities,
        })
    };
    let straggler = |s: &v1::Straggler| {
        json!({
            "id": s.id, "role": s.role, "root": hex(&s.root), "bundle_epoch": s.bundle_epoch,
            "not_after": time(s.not_after_ms), "connected": s.connected,
        })
    };
    json!({
        "phase": v.phase, "signer": signer(v).map(|r| hex(&r.sha256)), "target": v.target,
        "trusted": v.trusted.iter().map(root).collect::<Vec<_>>(),
        "reissued": v.reissued, "total": v.total, "since": time(v.since_ms), "waits_for": v.waits_for,
        "stragglers": v.stragglers.iter().map(straggler).collect::<Vec<_>>(),
        "to_approve": approve::root_of(v).map(|der| sha256(&[&der]).hex()),
        "to_sign": !v.issuer_csr.is_empty(), "hsm": v.hsm,
    })
}

fn show(app: &App, v: &v1::RootsView) -> Result<(), Failure> {
    app.out.show(&document(v), || human(app, v))
}

fn human(app: &App, v: &v1::RootsView) -> String {
    let now = clock::now();
    let mut text = format!("phase     {}\n", words(v));
    for r in &v.trusted {
        let signs = if r.signer { ", signs" } else { "" };
        let ends = age(now, r.not_after_ms);
        text.push_str(&format!("root      {}, ends {ends}, key {}{signs}\n", short(&r.sha256), r.key));
    }
    if !v.waits_for.is_empty() {
        text.push_str(&format!("waits     {}\n", v.waits_for));
    }
    if !v.issuer_csr.is_empty() {
        text.push_str("to sign   see `holdfast root csr`\n");
    }
    if let Some(der) = approve::root_of(v) {
        text.push_str(&format!("to sign   `holdfast root approve {}`\n", sha256(&[&der]).hex()));
    }
    for line in &v.hsm {
        text.push_str(&format!("hsm       {line}\n"));
    }
    if !v.stragglers.is_empty() {
        let row = |s: &v1::Straggler| {
            let link = if s.connected { "yes" } else { "no" };
            let ends = age(now, s.not_after_ms);
            vec![s.id.clone(), s.role.clone(), short(&s.root), link.to_owned(), ends]
        };
        let head = ["waits for", "role", "root", "connected", "certificate ends"];
        text.push('\n');
        text.push_str(&app.out.table(&head, v.stragglers.iter().map(row).collect()));
    }
    text
}

/// The phase in a line; also for `status`.
pub fn words(v: &v1::RootsView) -> String {
    let ordered = if v.target.is_empty() { String::new() } else { format!(", a new root is ordered ({})", v.target) };
    match v.phase.as_str() {
        STABLE => format!("{STABLE}{ordered}"),
        phase => format!("{phase}, {} of {} reissued{ordered}", v.reissued, v.total),
    }
}

/// Whether nothing is under way or ordered.
pub fn is_stable(v: &v1::RootsView) -> bool {
    v.phase == STABLE && v.target.is_empty()
}

async fn rotate(app: &App, a: RotateRoot) -> Result<(), Failure> {
    let cert = a.ca_cert.as_deref().map(pems::certificate).transpose()?.unwrap_or_default();
    let key = a.ca_key.as_deref().map(pems::private_key).transpose()?;
    let mut c = Cluster::connect(app).await?;
    let before = view(&c).await?;
    let new = NewCommand::draw()?;
    let (sealed, box_sha256) = match &key {
        Some(key) => c.seal(new, BOX_SUBJECT, 0, key)?,
        None => (Vec::new(), Vec::new()),
    };
    let order = order(&a, cert, box_sha256, signer(&before).map(|r| r.key.as_str()))?;
    let kind = order.kind.clone();
    if signing::command_with(app, &c, &a.to, new, Action::RotateRoot(order), sealed).await?.is_none() {
        return Ok(());
    }
    let before = signer(&before).map(|r| r.sha256.clone()).unwrap_or_default();
    if a.without_old_root {
        approve::ordered(app, &mut c).await?;
    }
    if a.detach {
        let document = json!({"ordered": true, "kind": kind, "before": hex(&before)});
        return app.out.done(&document, "a new root is ordered: see `holdfast root status`");
    }
    wait(app, &mut c, |v| is_stable(v) && signer(v).is_some_and(|r| r.sha256 != before)).await
}

/// What is ordered. Who says nothing gets a root whose key is where the present one's is.
fn order(a: &RotateRoot, cert: Vec<u8>, box_sha256: Vec<u8>, now: Option<&str>) -> Result<v1::RotateRoot, Failure> {
    if cert.is_empty() {
        let kind = match now {
            _ if a.hsm => "hsm",
            _ if a.software => "software",
            Some("hsm") if !a.without_old_root => "hsm",
            Some("hsm" | "offline") => {
                let help = "say --software, --hsm, or --ca-cert FILE with --offline";
                return Err(Failure::new(
                    Code::Usage,
                    "the present root's key is offline or lost: no root is made like it",
                    help,
                ));
            }
            Some(_) | None => "software",
        };
        let without_old = a.without_old_root;
        return Ok(v1::RotateRoot { kind: kind.to_owned(), without_old, ..v1::RotateRoot::default() });
    }
    let key = match (box_sha256.is_empty(), a.hsm, a.offline) {
        (false, ..) => "",
        (true, true, _) => "hsm",
        (true, false, true) => "offline",
        (true, false, false) => {
            let help = "give --ca-key FILE, or say --hsm or --offline";
            return Err(Failure::new(Code::Usage, "where the key of this root is was not said", help));
        }
    };
    let without_old = a.without_old_root;
    Ok(v1::RotateRoot { kind: "given".to_owned(), cert, box_sha256, key: key.to_owned(), without_old })
}

async fn abort(app: &App, key_is_gone: bool, detach: bool, to: &SignTo) -> Result<(), Failure> {
    let mut c = Cluster::connect(app).await?;
    if signing::command(app, &c, to, Action::AbortRoot(v1::AbortRoot { key_is_gone })).await?.is_none() {
        return Ok(());
    }
    if key_is_gone {
        let text = "the key of the dropped root is waited for no more; whoever finds its token has that key";
        return app.out.done(&json!({"forgotten": true}), text);
    }
    if detach {
        return app.out.done(&json!({"aborted": true}), "the rotation is given up: see `holdfast root status`");
    }
    wait(app, &mut c, is_stable).await
}

/// Waits for what `is_done` says, with a bar. What is to be signed elsewhere, or by others, is not waited for.
async fn wait(app: &App, c: &mut Cluster, is_done: impl Fn(&v1::RootsView) -> bool) -> Result<(), Failure> {
    let deadline = Instant::now() + app.timeout(PATIENCE);
    let bar = app.out.bar(1, "reissued");
    loop {
        let v = view(c).await.map_err(|f| f.unseen(GOES_ON))?;
        // Where the old root certifies nothing any more, the new one has to be known before it is shown.
        if v.trusted.iter().any(|r| !c.trust.bundle().roots.contains(&r.der)) {
            c.learn().await.map_err(|f| f.unseen(GOES_ON))?;
        }
        bar.set_length(v.total.max(1));
        bar.set_position(v.reissued);
        let says = if v.waits_for.is_empty() { &v.phase } else { &v.waits_for };
        bar.set_message(says.clone());
        if is_done(&v) || !v.issuer_csr.is_empty() || v.to_approve.is_some() {
            bar.finish_and_clear();
            return show(app, &v);
        }
        if Instant::now() >= deadline {
            let waits = if v.waits_for.is_empty() { String::new() } else { format!("; it waits for {}", v.waits_for) };
            let what = format!("the rotation is not done: {}{waits}", words(&v));
            return Err(Failure::new(Code::TimedOut, what, GOES_ON).with("phase", v.phase));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_takes_no_file_away_but_that_of_an_earlier_export() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let now = || std::fs::read_to_string(&path).unwrap();
        write(&path, b"one", Existing::Kept).unwrap();
        write(&path, b"one", Existing::Kept).unwrap();
        let no = write(&path, b"two", Existing::Kept).unwrap_err();
        assert!(no.message.contains("exists already") && now() == "one", "{}", no.message);
        write(&path, b"two", Existing::Replaced).unwrap();
        write(&link, b"three", Existing::Replaced).unwrap();
        assert_eq!(now(), "three");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        write(Path::new("/dev/null"), b"four", Existing::Replaced).unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file(), "no file takes the place of a device");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
    }

    fn asked() -> RotateRoot {
        let (ca_cert, ca_key) = (None, None);
        RotateRoot {
            software: false,
            hsm: false,
            ca_cert,
            ca_key,
            offline: false,
            without_old_root: false,
            detach: false,
            to: crate::args::SignTo::default(),
        }
    }

    #[test]
    fn a_new_roots_key_is_where_the_old_ones_is_unless_said_otherwise() {
        let kind = |a: &RotateRoot, now| order(a, Vec::new(), Vec::new(), Some(now)).map(|o| o.kind);
        assert_eq!(kind(&asked(), "software").unwrap(), "software");
        assert_eq!(kind(&asked(), "hsm").unwrap(), "hsm");
        assert_eq!(kind(&RotateRoot { software: true, ..asked() }, "hsm").unwrap(), "software");
        assert_eq!(kind(&RotateRoot { hsm: true, ..asked() }, "software").unwrap(), "hsm");
        assert_eq!(kind(&asked(), "offline").unwrap_err().code, "usage");
        // Nor is one made in a token that is said to be lost, unless that is said.
        let lost = |hsm| RotateRoot { without_old_root: true, hsm, ..asked() };
        assert_eq!(kind(&lost(false), "hsm").unwrap_err().code, "usage");
        assert_eq!(kind(&lost(true), "hsm").unwrap(), "hsm");
        assert!(order(&RotateRoot { software: true, ..lost(false) }, vec![], vec![], Some("hsm")).unwrap().without_old);
    }

    #[test]
    fn of_a_given_root_it_is_said_where_its_key_is() {
        let given = |a: &RotateRoot, sealed: &[u8]| order(a, vec![1], sealed.to_vec(), Some("software"));
        assert_eq!(given(&asked(), b"").unwrap_err().code, "usage");
        let boxed = given(&asked(), b"h").unwrap();
        assert_eq!((boxed.kind.as_str(), boxed.key.as_str(), boxed.box_sha256.as_slice()), ("given", "", &b"h"[..]));
        assert_eq!(given(&RotateRoot { hsm: true, ..asked() }, b"").unwrap().key, "hsm");
        assert_eq!(given(&RotateRoot { offline: true, ..asked() }, b"").unwrap().key, "offline");
    }

    #[test]
    fn a_rotation_is_over_when_nothing_is_under_way_or_ordered() {
        let seen = |phase: &str, target: &str| v1::RootsView {
            phase: phase.into(),
            target: target.into(),
            reissued: 2,
            total: 5,
            ..v1::RootsView::default()
        };
        assert!(is_stable(&seen("stable", "")));
        assert!(!is_stable(&seen("stable", "software")) && !is_stable(&seen("retiring", "")));
        assert_eq!(words(&seen("reissuing", "")), "reissuing, 2 of 5 reissued");
        assert_eq!(words(&seen("stable", "hsm")), "stable, a new root is ordered (hsm)");
    }

    #[test]
    fn the_sequence_of_a_spiffe_document_grows_from_era_to_era() {
        let sequence = |era, epoch| {
            let bundle = v1::Bundle { era, epoch, ..v1::Bundle::default() };
            let document: Value = serde_json::from_str(&exported(&bundle, ExportFormat::Spiffe)).unwrap();
            document["spiffe_sequence"].as_u64().unwrap()
        };
        assert!(sequence(1, 7) < sequence(1, 8) && sequence(1, 900) < sequence(2, 1));
    }
}
