//! `unlock`: opens sealed voters, as many as can be reached, with one reading of the key.
//!
//! The key is read from the terminal, files or standard input, turns each voter's box into that voter's disk key here, and is
//! wiped; a voter is given the key of its own disk and nothing else.

use super::seal::{check_cluster, remember_addresses, report, wait_until_ready};
use crate::app::App;
use crate::args::{KeyInput, Unlock};
use crate::clock;
use crate::errors::{Code, Failure};
use crate::keyin::Given;
use crate::known::KnownKeys;
use crate::slots::{DiskKey, Opened, SlotKey, chains_of, follow, is_known, open_with};
use crate::socket::Socket;
use holdfast_types::ClusterId;
use holdfast_wire::boxes;
use holdfast_wire::v1;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long an opened voter may take to be up; of several, the first ones wait for the others.
const SETTLE: Duration = Duration::from_secs(5);

/// A voter behind its socket.
struct Door {
    path: PathBuf,
    socket: Socket,
    status: v1::SealStatusReply,
    /// What it can be opened by, if it is sealed.
    slots: Option<v1::SlotBoxes>,
    /// A chain for others, from a voter that is open.
    beside: Option<v1::SlotBoxes>,
}

/// Runs the verb. Each voter is tried; what failed first is what is reported at the end.
pub async fn run(app: &App, a: Unlock) -> Result<(), Failure> {
    let patience = app.timeout(Duration::from_secs(30));
    let (mut doors, mut failures, mut done) = (Vec::new(), Vec::new(), Vec::new());
    for path in app.sockets(&a.voters.sockets, a.all)? {
        match knock(&path, patience).await {
            Ok(door) => doors.push(door),
            Err(f) => failures.push(f),
        }
    }
    done.extend(doors.iter().filter(|d| d.slots.is_none()).map(|d| (d.status.voter_id, d.status.state.clone(), false)));
    if let Some(cluster) = cluster_of(app, &doors)? {
        let keys = keys_for(app, &a.key, &cluster, &doors)?;
        let mut opening = JoinSet::new();
        for door in doors {
            let Door { path, mut socket, slots: Some(slots), .. } = door else { continue };
            match open_with(&keys, &cluster, &slots) {
                Ok(opened) => {
                    opening.spawn(async move {
                        let state = hand_over(&mut socket, &cluster, &slots, opened, patience.min(SETTLE)).await;
                        (slots.voter_id, state)
                    });
                }
                Err(f) => failures.push(f.with("socket", path.display().to_string())),
            }
        }
        while let Some(joined) = opening.join_next().await {
            let lost = |e| Failure::new(Code::Failed, format!("an opening broke off: {e}"), "repeat the command");
            match joined.map_err(lost)? {
                (voter, Ok(state)) => {
                    remember_addresses(app, &state)?;
                    done.push((voter, state.state, true));
                }
                (_, Err(f)) => failures.push(f),
            }
        }
    }
    done.sort();
    let opened: Vec<u64> = done.iter().map(|(voter, ..)| *voter).collect();
    match failures.into_iter().next() {
        None => report(app, &done),
        Some(f) if opened.is_empty() => Err(f),
        Some(f) => Err(f.with("open", opened)),
    }
}

/// Opens the one voter behind `path` with `key`, if it is sealed. It need not be up then: others may be missing.
pub(super) async fn one(app: &App, path: &Path, key: &KeyInput, patience: Duration) -> Result<(), Failure> {
    let doors = [knock(path, patience).await?];
    let Some(cluster) = cluster_of(app, &doors)? else { return Ok(()) };
    let keys = keys_for(app, key, &cluster, &doors)?;
    let [Door { mut socket, slots: Some(slots), .. }] = doors else { return Ok(()) };
    let opened = open_with(&keys, &cluster, &slots)?;
    hand_over(&mut socket, &cluster, &slots, opened, Duration::ZERO).await.map(drop)
}

/// What a socket says of its voter.
async fn knock(path: &Path, patience: Duration) -> Result<Door, Failure> {
    let mut socket = Socket::connect(path, patience).await?;
    let status = socket.seal_status().await?;
    let (mut slots, mut beside) = (None, None);
    match status.state.as_str() {
        "sealed" => slots = Some(socket.slot_boxes().await?),
        "uninitialized" => {
            return Err(Failure::new(Code::Sealed, "this voter was never initialised", "run `holdfast init`"));
        }
        "joining" => {
            let what = format!("this machine waits as {} to become a voter", status.applicant);
            return Err(Failure::new(Code::Sealed, what, "run `holdfast voter admit` with the key that it shows"));
        }
        "rolled-back" => {
            let what = format!("the disk of voter {} was set back: it never takes part again", status.voter_id);
            return Err(Failure::new(
                Code::Corrupt,
                what,
                "evict it, and let the machine join anew with an empty disk",
            ));
        }
        // An open voter may have the chain that a sleeper lacks; one that does not show it is no failure.
        _ => beside = socket.slot_boxes().await.ok(),
    }
    Ok(Door { path: path.to_owned(), socket, status, slots, beside })
}

/// The one cluster of all sealed voters; `None` if none is sealed.
fn cluster_of(app: &App, doors: &[Door]) -> Result<Option<ClusterId>, Failure> {
    let mut found: Option<ClusterId> = None;
    for slots in doors.iter().filter_map(|d| d.slots.as_ref()) {
        let cluster =
            ClusterId::from_slice(&slots.cluster_id).ok_or_else(|| Failure::untrusted("the voter names no cluster"))?;
        check_cluster(app, &cluster)?;
        if found.replace(cluster).is_some_and(|other| other != cluster) {
            let what = "the sockets belong to voters of different clusters";
            return Err(Failure::new(Code::WrongCluster, what, "unlock one cluster at a time"));
        }
    }
    Ok(found)
}

/// The keys that were given, and those that chains lead back to.
fn keys_for(app: &App, key: &KeyInput, cluster: &ClusterId, doors: &[Door]) -> Result<Vec<SlotKey>, Failure> {
    let known = match app.context() {
        Ok(ctx) => KnownKeys::load(&ctx.dir)?,
        // Checked above: without a context the key decides.
        Err(_) => KnownKeys::default(),
    };
    let seen: Vec<&v1::SlotBoxes> = doors.iter().flat_map(|d| d.slots.iter().chain(&d.beside)).collect();
    let fits = |public: &[u8; 32]| is_known(public, &seen) || known.knows(public);
    let secrets = Given::read(key, "unlock or recovery key")?.secrets(cluster, &known, &fits)?;
    let mut keys: Vec<SlotKey> = secrets.iter().map(|(kind, s)| SlotKey::derive(*kind, s.expose()).0).collect();
    let mut chains: Vec<_> = seen.into_iter().flat_map(chains_of).collect();
    chains.extend(known.chains());
    follow(&mut keys, cluster, &chains);
    Ok(keys)
}

/// Hands a voter the keys of its own disk, and waits until it is up.
async fn hand_over(
    socket: &mut Socket,
    cluster: &ClusterId,
    slots: &v1::SlotBoxes,
    opened: Opened,
    patience: Duration,
) -> Result<v1::SealStatusReply, Failure> {
    let Opened { disk_key, other, slot } = opened;
    let boxed = |dk_gen: u32, key: &DiskKey| {
        let aad = boxes::open_slot_aad(slots.voter_id, dk_gen);
        let context = boxes::Context { purpose: boxes::OPEN_SLOT, cluster, aad: &aad };
        boxes::seal(&slots.answer_pk, &context, None, key.expose(), clock::random()?).map_err(Failure::untrusted)
    };
    let other = other
        .map(|(dk_gen, key)| Ok::<_, Failure>(v1::GenerationKey { dk_gen, disk_key_box: boxed(dk_gen, &key)? }))
        .transpose()?;
    let request = v1::OpenSlotRequest {
        disk_key_box: boxed(slots.dk_gen, &disk_key)?,
        dk_gen: slots.dk_gen,
        slot: slot.word().to_owned(),
        others: other.into_iter().collect(),
    };
    drop(disk_key);
    socket.open_slot(request).await?;
    wait_until_ready(socket, patience).await
}

/// Opens one voter with one key: an `init` that goes on.
pub async fn open(
    socket: &mut Socket,
    cluster: &ClusterId,
    slots: &v1::SlotBoxes,
    key: &SlotKey,
    patience: Duration,
) -> Result<v1::SealStatusReply, Failure> {
    let opened = open_with(std::slice::from_ref(key), cluster, slots)?;
    hand_over(socket, cluster, slots, opened, patience).await
}
