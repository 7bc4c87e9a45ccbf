//! A cluster goes on from its one voter that is left: what is on its disk, to the last entry, begins a new era.
//!
//! The voter's disk is only read. The next voter is made aside, and is put in place by the next start of the process,
//! which ends for that: nothing of the era before stays in memory or on a port.
//! Must never: run beside a majority of the voters, or remove the disk that was read.

use super::{Made, Replies, THINK, next, send, unlock_of};
use crate::disk::ident::Ident;
use crate::failure::{refused, stopped};
use crate::found::{self, disk};
use crate::gate::Phase;
use crate::grpc::local::shown;
use crate::keystore::{self, Term};
use crate::raft::{Kept, MachineError};
use crate::run::Daemon;
use crate::standing::{ROLLED_BACK, Standing};
use holdfast_transport::failure::Failure;
use holdfast_vault_core::{Stamped, State, prepare};
use holdfast_wire::v1::{self, recover_part, recover_reply};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::Streaming;

/// How long a leader is listened for, and asked whether it leads.
const LISTEN: Duration = Duration::from_secs(3);
/// How long the caller has to leave before the process ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// Leaves that are copied at a time.
const LEAVES: usize = 512;

/// Begins a new era with what this voter knows, or says what that is.
pub(super) async fn recover(
    daemon: &Arc<Daemon>,
    request: &v1::RecoverHead,
    inbound: &mut Streaming<v1::RecoverPart>,
    tx: &Replies,
) -> Result<(), Failure> {
    let standing = standing_of(daemon)?;
    quorum_is_gone(&standing).await?;
    let done = rebuild(daemon, &standing, request, inbound, tx).await;
    if !matches!(done, Ok(Some(_))) {
        found::clean(&daemon.config.state_dir)?;
    }
    let Some(recovered) = done? else { return Ok(()) };
    let told = send(tx, recover_reply::Step::Done(recovered)).await;
    // The answer is on its way until the caller has left; whether it leaves well is its own matter.
    drop(next(inbound, FAREWELL).await);
    daemon.seal.cancel();
    told
}

/// The open disk of this voter.
fn standing_of(daemon: &Daemon) -> Result<Arc<Standing>, Failure> {
    let phase = daemon.gate.phase();
    let not_open = || Failure::changed("not-open", format!("this vault is {}", phase.word()));
    match &*phase {
        Phase::Open(cluster) => Ok(Arc::clone(&cluster.standing)),
        Phase::Recovering(who) => who.standing.clone().ok_or_else(|| not_open().help("try again in a moment")),
        Phase::Sealed(_) => Err(not_open().help("unlock it first: holdfast unlock, or give --key-file")),
        Phase::RolledBack(_, why) => Err(Failure::changed(ROLLED_BACK, why.clone())
            .help("take another voter that is left, or bring the cluster back from a backup")),
        Phase::Uninitialized | Phase::Joining(_) => {
            Err(not_open().help("no voter's disk is here: bring the cluster back from a backup"))
        }
    }
}

/// Refuses where this voter leads or follows: the log goes on, and what it holds is for the others to say.
async fn quorum_is_gone(standing: &Standing) -> Result<(), Failure> {
    if standing.is_evicted() || standing.was_set_back() {
        return Err(standing.why_over());
    }
    let there = || {
        let f = Failure::changed("quorum-is-there", "enough voters are up to decide: nothing was changed");
        f.help("use the cluster as it is, see `holdfast status`; lost voters are evicted: `holdfast voter evict`")
    };
    let led = standing.voter.until(LISTEN, |s| s.leader.is_some()).await.map_err(stopped)?;
    match led.and_then(|s| s.leader) {
        None => Ok(()),
        // It may have been the leader when the others went: then nobody confirms it any more.
        Some(leader) if leader == standing.id => {
            let confirmed = tokio::time::timeout(LISTEN, standing.voter.confirm_leading()).await;
            if matches!(confirmed, Ok(Ok(()))) { Err(there()) } else { Ok(()) }
        }
        // Whom it followed last stands on its disk; whether anybody is still there, only they can say.
        Some(_) => {
            let others = standing.others()?;
            let asked = others.iter().map(|(id, addr)| standing.peers.high_water_before(*id, addr));
            let asked = asked.map(|answer| async { matches!(tokio::time::timeout(LISTEN, answer).await, Ok(Ok(_))) });
            let answered = futures::future::join_all(asked).await.into_iter().filter(|a| *a).count();
            let voters = standing.voter.members().voters().len();
            if (answered + 1) * 2 > voters { Err(there()) } else { Ok(()) }
        }
    }
}

/// From the survivor's disk to one that waits for the next start; `None` if nobody signed.
async fn rebuild(
    daemon: &Daemon,
    standing: &Arc<Standing>,
    request: &v1::RecoverHead,
    inbound: &mut Streaming<v1::RecoverPart>,
    tx: &Replies,
) -> Result<Option<v1::Recovered>, Failure> {
    let (state_dir, unlock_pk) = (&daemon.config.state_dir, unlock_of(request)?);
    let dir = found::making(state_dir)?;
    let (source, into) = (Arc::clone(standing), dir.clone());
    let taken = tokio::task::spawn_blocking(move || Taken::of(&source, &into, unlock_pk)).await;
    let broken = |_| Failure::failed("failed", "the vault met an error of its own; see its log");
    let Taken { made, terms, checkpoint, doubtful, last } = taken.map_err(broken)??;
    let planned = made.plan(daemon, request, terms, checkpoint)?;
    let mut words = made.words();
    words.push(v1::Field { name: "unacknowledged".to_owned(), value: doubtful.to_string() });
    let (reset, charter_chain) = (Some(planned.document().clone()), made.state.charter_chain());
    let plan = v1::ResetPlan { reset, found: words, charter_chain };
    send(tx, recover_reply::Step::Plan(plan)).await?;
    let Some(recover_part::Part::Reset(signed)) = next(inbound, THINK).await? else { return Ok(None) };
    let state = made.state.encode();
    let back = made.commit(planned, &signed, &state).await?;
    let said = |said: &Option<String>, at: SocketAddr| {
        let fixed = (at.port() != 0).then(|| at.to_string());
        said.clone().or(fixed).into_iter().collect::<Vec<_>>()
    };
    let recovered = v1::Recovered {
        slots: Some(shown(&made.slots, &made.dir)),
        service_addrs: said(&daemon.config.advertise_service, daemon.config.service),
        join_addrs: said(&daemon.config.advertise_join, daemon.config.join),
        ..back
    };
    // Everything of it is written; nothing may be open under a name that changes.
    drop(made);
    let swapped = end_with(standing, last, || found::put_beside(&dir, state_dir, recovered.era)).await;
    // The voter takes no part any more, so the process ends whatever became of it.
    swapped.inspect_err(|_| daemon.seal.cancel())?;
    Ok(Some(recovered))
}

/// Ends the old voter and does `swap`, unless its log went on since it was read: whoever leads begins with an entry, so a
/// majority that came back meanwhile is seen too.
async fn end_with(
    standing: &Standing,
    last: Option<(u64, u64)>,
    swap: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    standing.end().await;
    standing.store.fence();
    if standing.store.last_entry().map_err(unreadable)? != last {
        let f = Failure::changed("changed", "the log of this voter went on meanwhile: nothing was changed");
        return Err(f.help("this voter starts again now; then look again, with --dry-run"));
    }
    swap()
}

fn unreadable(e: impl std::fmt::Display) -> Failure {
    Failure::failed("corrupt", e.to_string())
}

/// Everything that the survivor holds, on a disk of the next voter.
struct Taken {
    made: Made,
    terms: Vec<Term>,
    checkpoint: Vec<u8>,
    /// Commands that were applied here and are not known to be committed.
    doubtful: u64,
    /// The last entry that was read.
    last: Option<(u64, u64)>,
}

impl Taken {
    fn of(standing: &Standing, dir: &Path, unlock_pk: Option<[u8; 32]>) -> Result<Self, Failure> {
        let last = standing.store.last_entry().map_err(unreadable)?;
        let Newest { state, before, leaves, doubtful } = Newest::of(standing)?;
        let cluster = *standing.disk_keys.cluster();
        if state.cluster_id() != Some(cluster) {
            return Err(Failure::failed("wrong-cluster", "the log of this voter is not of the cluster of its disk"));
        }
        let ident = Ident::load(&standing.dir, &standing.disk_keys).map_err(disk)?;
        let now = state.time(holdfast_transport::now());
        let opened = keystore::open(&state, &ident, standing.id, now, None)?;
        let checkpoint = prepare::checkpoint(&state, &opened.stk).map_err(refused)?;
        let terms = keystore::terms(&state, &ident, standing.id)?;
        let mut made = Made::of(dir, state, cluster, unlock_pk)?;
        let mut from = 0;
        while from < before {
            let to = before.min(from.saturating_add(LEAVES as u64));
            let some = standing.audit.range(from, to).map_err(unreadable)?;
            let some: Vec<Vec<u8>> = some.iter().map(|leaf| leaf.expose().to_vec()).collect();
            let at = from.saturating_add(some.len() as u64);
            if at < to {
                let f = Failure::failed("log-wrong", format!("entry {at} of the log is not on this voter's disk"));
                return Err(f.help("take another voter that is left, or bring the cluster back from a backup"));
            }
            made.leaves(&some)?;
            from = to;
        }
        leaves.chunks(LEAVES).try_for_each(|some| made.leaves(some))?;
        if (made.tree.size(), made.tree.root()) != made.state.log_head() {
            return Err(Failure::failed("log-wrong", "the log on this voter's disk is not the one of its state"));
        }
        Ok(Self { made, terms, checkpoint, doubtful, last })
    }
}

/// The state after the last entry of a store, and what of the log it does not hold yet.
#[derive(Default)]
struct Newest {
    state: State,
    /// Leaves before those of the entries that were applied here.
    before: u64,
    /// The leaves of those entries.
    leaves: Vec<Vec<u8>>,
    doubtful: u64,
}

impl Newest {
    fn of(standing: &Standing) -> Result<Self, Failure> {
        let mut newest = Self::default();
        let read = standing.store.replay(|kept| newest.take(kept));
        read.map_err(unreadable)?;
        Ok(newest)
    }

    fn take(&mut self, kept: Kept<'_>) -> Result<(), MachineError> {
        match kept {
            Kept::State(bytes) => {
                self.state = State::decode(bytes).map_err(|e| MachineError(e.to_string()))?;
                self.before = self.state.log_head().0;
            }
            Kept::Command(bytes, known) => {
                let stamped = Stamped::decode(bytes)
                    .ok_or_else(|| MachineError("an entry is of another version or damaged".to_owned()))?;
                let applied = self.state.apply(stamped);
                self.leaves.extend(applied.leaves.iter().map(|l| [l.salt.as_slice(), &l.entry].concat()));
                self.doubtful += u64::from(!known);
            }
        }
        Ok(())
    }
}
