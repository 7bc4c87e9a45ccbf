//! What the leader does about the voters: raft's membership follows the rows of the state, how far each was is written down,
//! and leadership moves before this voter goes.
//!
//! Each look is made anew from the state and raft's own view; nothing is remembered that a crash could lose.
//!
//! Must never: begin a change of the voters that those who answer now cannot finish. It holds from the moment that it is
//! written, whether it is committed or not, and raft has no way back.

use crate::cluster::Cluster;
use crate::raft::{Members, ProposeError, Voter, decides};
use crate::registry::Registry;
use holdfast_transport::failure::Failure;
use holdfast_types::VoterId;
use holdfast_vault_core::{State, VoterMark, prepare};
use holdfast_wire::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A learner that lacks no more than this becomes a voter.
const CAUGHT_UP: u64 = 64;
/// Who has not answered for so long is unreachable.
const SILENT: Duration = Duration::from_secs(3);
/// Who has not answered for so long is worth an alarm.
const LOST: Duration = Duration::from_secs(60);
/// Leadership is handed over to one that has answered within this time, if there is one.
const LIVELY: Duration = Duration::from_secs(1);
/// Progress is written down so often, and at once if somebody has come this much further.
const MARKS_EVERY: Duration = Duration::from_secs(5);
const MARKS_AT: u64 = 256;
/// The least that is worth an entry: the entry that writes progress down is progress itself, so one is not.
const MARKS_LEAST: u64 = 2;
/// Between two attempts at one change of the membership.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How long a voter that goes waits for the next leader.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How long answers that are on their way have after leadership was lost.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// When the progress of the others was written down last, while this voter leads.
#[derive(Default)]
pub struct Following {
    written: Mutex<Option<Instant>>,
    /// The Raft term in which this voter leads, and since when.
    lead: Mutex<Option<(u64, Instant)>>,
    /// The change of the membership that was begun last and is not done.
    tried: Mutex<Option<(Step, Instant)>>,
}

impl Following {
    /// How much further somebody must be to be written down now.
    fn least(&self, now: Instant) -> u64 {
        let mut last = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|l| now.duration_since(l) >= MARKS_EVERY) {
            *last = Some(now);
            return MARKS_LEAST;
        }
        MARKS_AT
    }

    /// Whether `step` is to be tried now: not the same at each look, if it does not succeed.
    fn may_try(&self, step: &Step, now: Instant) -> bool {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.as_ref().is_some_and(|(last, at)| last == step && now.saturating_duration_since(*at) < TRY_AGAIN) {
            return false;
        }
        *tried = Some((step.clone(), now));
        true
    }

    /// What was tried is done.
    fn done(&self) {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// This voter leads in `term`.
    fn leads(&self, term: u64, now: Instant) {
        let mut lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        if lead.is_none_or(|(known, _)| known != term) {
            *lead = Some((term, now));
        }
    }

    /// For how long it leads in `term`.
    fn leads_for(&self, term: u64, now: Instant) -> Duration {
        let lead = *self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        let since = lead.filter(|(known, _)| *known == term);
        since.map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(at))
    }
}

/// The voters that the leader has not heard for more than a minute.
pub fn lost(cluster: &Cluster) -> Vec<VoterId> {
    let (status, voters) = (cluster.voter.status(), cluster.voter.members().voters());
    if status.leader != Some(cluster.id) {
        return Vec::new();
    }
    let leads_for = cluster.following.leads_for(status.term, Instant::now());
    missed(cluster.id, &voters, &cluster.voter.unheard(), leads_for)
}

fn missed(
    me: VoterId,
    voters: &BTreeSet<VoterId>,
    unheard: &BTreeMap<VoterId, Duration>,
    leads_for: Duration,
) -> Vec<VoterId> {
    // Who was never heard is missed for as long as this voter leads.
    let silence = |v: &VoterId| unheard.get(v).copied().unwrap_or(leads_for);
    voters.iter().copied().filter(|v| *v != me && silence(v) > LOST).collect()
}

/// One change of raft's membership.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// This voter was evicted: another one leads, and takes it out.
    HandOver(VoterId),
    Vote(BTreeSet<VoterId>),
    Drop(VoterId),
    Add(VoterId, String),
    Move(VoterId, String),
}

/// What the leader sees of the voters' logs.
struct Seen<'a> {
    matched: &'a BTreeMap<VoterId, u64>,
    last_log: u64,
    /// Who has answered a moment ago, the leader itself among them.
    lively: &'a BTreeSet<VoterId>,
}

impl Seen<'_> {
    /// Whether `id` may vote: it has what the others have, and is there.
    fn is_ready(&self, id: VoterId) -> bool {
        let reached = self.matched.get(&id).map(|m| m.saturating_add(CAUGHT_UP));
        self.lively.contains(&id) && reached.is_some_and(|m| m >= self.last_log)
    }
}

/// Who has answered within `patience`, and this voter itself.
fn lively(me: VoterId, unheard: &BTreeMap<VoterId, Duration>, patience: Duration) -> BTreeSet<VoterId> {
    let heard = unheard.iter().filter(|(_, t)| **t <= patience).map(|(id, _)| *id);
    heard.chain([me]).collect()
}

/// Whether a majority has answered this voter, as its leader, a moment ago.
pub fn is_heard(me: VoterId, voter: &Voter<Registry>) -> bool {
    voter.members().are_decided_by(&lively(me, &voter.unheard(), LIVELY))
}

/// The next change, if raft's membership is not what the members' rows say. `rows`: their addresses, empty where none is known.
fn next(me: VoterId, rows: &BTreeMap<VoterId, String>, raft: &Members, seen: &Seen<'_>) -> Option<Step> {
    let voters = raft.voters_to_be();
    let stay = voters.iter().filter(|v| rows.contains_key(v));
    let rise = raft.learners.iter().filter(|v| rows.contains_key(v) && seen.is_ready(**v));
    let wanted: BTreeSet<VoterId> = stay.chain(rise).copied().collect();
    if wanted.is_empty() {
        return None;
    }
    if !rows.contains_key(&me) {
        let there: BTreeSet<VoterId> = wanted.intersection(seen.lively).copied().collect();
        return furthest(&there, seen.matched).map(Step::HandOver);
    }
    // A change that is half done is finished, whoever answers: until then both sides are needed for everything.
    if wanted == voters && raft.is_joint() {
        return Some(Step::Vote(wanted));
    }
    let can_be_done = raft.are_decided_by(seen.lively) && decides(seen.lively, &wanted);
    if wanted != voters && can_be_done {
        return Some(Step::Vote(wanted));
    }
    if let Some(gone) = raft.learners.iter().find(|v| !rows.contains_key(v)) {
        return Some(Step::Drop(*gone));
    }
    let known = |id: &VoterId| voters.contains(id) || raft.learners.contains(id);
    let mut reached = rows.iter().filter(|(_, addr)| !addr.is_empty());
    reached.find_map(|(id, addr)| {
        let step = if known(id) { Step::Move(*id, addr.clone()) } else { Step::Add(*id, addr.clone()) };
        (!known(id) || raft.addrs.get(id) != Some(addr)).then_some(step)
    })
}

/// Of `voters` the one whose log reaches furthest.
fn furthest(voters: &BTreeSet<VoterId>, matched: &BTreeMap<VoterId, u64>) -> Option<VoterId> {
    voters.iter().copied().max_by_key(|v| matched.get(v).copied().unwrap_or(0))
}

/// One look of the leader at the voters.
pub async fn drive(cluster: &Cluster) -> Result<(), Failure> {
    let rows = cluster.look(|s| s.voters().map(|(id, v)| (id, v.peer_addr.clone())).collect::<BTreeMap<_, _>>())?;
    let (raft, matched) = (cluster.voter.members(), cluster.voter.matched());
    cluster.following.leads(cluster.voter.status().term, Instant::now());
    let heirs = cluster.clocks.heirs(cluster.id, &raft.voters_to_be(), Instant::now());
    if let Some(heir) = furthest(&heirs, &matched) {
        tracing::warn!(to = heir.0, "this machine's clock is off those of most others: leadership is handed over");
        return take(cluster, Step::HandOver(heir)).await.map_err(|e| cluster.unproposed(e));
    }
    if let Some(heir) = furthest(&heirs_with_token(cluster, &raft)?, &matched) {
        tracing::warn!(
            to = heir.0,
            "the root's key is in a token that this voter does not reach: leadership is handed over"
        );
        return take(cluster, Step::HandOver(heir)).await.map_err(|e| cluster.unproposed(e));
    }
    let last_log = cluster.voter.status().last_log.unwrap_or(0);
    let lively = lively(cluster.id, &cluster.voter.unheard(), LIVELY);
    let seen = Seen { matched: &matched, last_log, lively: &lively };
    if let Some(step) = next(cluster.id, &rows, &raft, &seen)
        && cluster.following.may_try(&step, Instant::now())
    {
        tracing::info!(?step, "the voters change");
        take(cluster, step).await.map_err(|e| cluster.unproposed(e))?;
        cluster.following.done();
    }
    if rows.len() > 1 {
        write_down(cluster, &matched).await?;
    }
    Ok(())
}

/// Who reaches its token, if the key of a root is in one, is to be, or is to be destroyed there, and this voter, which leads,
/// does not reach its own.
fn heirs_with_token(cluster: &Cluster, raft: &Members) -> Result<BTreeSet<VoterId>, Failure> {
    let needed = cluster.look(State::needs_token)?;
    // A process that has just begun does not know yet whether its token answers.
    let knows = cluster.standing.token.as_ref().is_none_or(|t| t.was_asked());
    if !needed || !knows {
        return Ok(BTreeSet::new());
    }
    Ok(cluster.tokens.heirs(cluster.id, &cluster.token_word(), &raft.voters_to_be(), Instant::now()))
}

/// Whether voter `out` can be evicted now: those who stay must be able to agree on it, and to go on without it. `Changed` if
/// not, with the names of those who would have to answer.
pub fn can_do_without(cluster: &Cluster, out: VoterId) -> Result<(), Failure> {
    let lively = lively(cluster.id, &cluster.voter.unheard(), SILENT);
    let missing = missing_without(out, &cluster.voter.members(), &lively);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let why = format!("without voter {out} too few are left that decide: {} would have to answer", names.join(", "));
    Err(Failure::changed("changed", why).help("bring them back, or evict those first that are gone for good"))
}

/// Those of raft's members without whose answer the eviction of `out` would leave no quorum; nobody if there is one.
fn missing_without(out: VoterId, raft: &Members, lively: &BTreeSet<VoterId>) -> BTreeSet<VoterId> {
    let mut rest = raft.voters_to_be();
    if !rest.remove(&out) || rest.is_empty() || (raft.are_decided_by(lively) && decides(lively, &rest)) {
        return BTreeSet::new();
    }
    raft.voters().into_iter().filter(|v| *v != out && !lively.contains(v)).collect()
}

async fn take(cluster: &Cluster, step: Step) -> Result<(), ProposeError> {
    match step {
        Step::HandOver(to) => cluster.voter.transfer_leader(to).await,
        Step::Vote(voters) => cluster.voter.set_voters(&voters).await,
        Step::Drop(id) => cluster.voter.remove_learner(id).await,
        Step::Add(id, addr) => cluster.voter.add_learner(id, &addr).await,
        Step::Move(id, addr) => cluster.voter.set_address(id, &addr).await,
    }
}

/// Writes down how far the voters are known to have been, so that one whose disk is set back is known.
async fn write_down(cluster: &Cluster, matched: &BTreeMap<VoterId, u64>) -> Result<(), Failure> {
    let status = cluster.voter.status();
    let own =
        VoterMark { id: cluster.id, index: status.applied.unwrap_or(0), vote_term: cluster.voter.last_vote_term() };
    let marks = marks(own, matched, &cluster.standing.peers.granted());
    let least = cluster.following.least(Instant::now());
    if let Some(command) = cluster.look(|s| prepare::progress(s, &marks, least))? {
        cluster.propose(command).await?;
    }
    Ok(())
}

fn marks(own: VoterMark, matched: &BTreeMap<VoterId, u64>, granted: &[VoterMark]) -> Vec<VoterMark> {
    let mut marks: BTreeMap<VoterId, VoterMark> =
        matched.iter().map(|(id, index)| (*id, VoterMark { id: *id, index: *index, vote_term: 0 })).collect();
    for said in granted.iter().chain([&own]) {
        let mark = marks.entry(said.id).or_insert(*said);
        mark.index = mark.index.max(said.index);
        mark.vote_term = mark.vote_term.max(said.vote_term);
    }
    marks.into_values().collect()
}

/// Hands leadership over, if this voter leads and another one can: nobody has to find out that the leader is gone.
pub async fn hand_over(cluster: &Cluster) {
    if !cluster.leads() {
        return;
    }
    let (matched, unheard) = (cluster.voter.matched(), cluster.voter.unheard());
    let mut others = cluster.voter.members().voters_to_be();
    others.remove(&cluster.id);
    let there = lively(cluster.id, &unheard, LIVELY);
    let there: BTreeSet<VoterId> = others.intersection(&there).copied().collect();
    let Some(to) = furthest(&there, &matched).or_else(|| furthest(&others, &matched)) else { return };
    if let Err(e) = cluster.voter.transfer_leader(to).await {
        return tracing::warn!(to = to.0, "leadership was not handed over: {e}");
    }
    let moved = cluster.voter.until(HAND_OVER, |s| s.leader.is_some_and(|l| l != cluster.id)).await;
    match moved.ok().flatten().and_then(|s| s.leader) {
        Some(leader) => tracing::info!(leader = leader.0, "leadership was handed over"),
        None => tracing::warn!(to = to.0, "leadership was not handed over in time"),
    }
}

/// When leadership is lost, everybody who was served here goes to whoever leads now.
pub async fn watch_lead(cluster: Arc<Cluster>, stop: CancellationToken) {
    loop {
        for wanted in [true, false] {
            let seen = cluster.voter.until(Duration::MAX, |s| (s.leader == Some(cluster.id)) == wanted);
            tokio::select! {
                () = stop.cancelled() => return,
                seen = seen => if seen.is_err() { return },
            }
        }
        cluster.hub.end_all();
        tokio::time::sleep(LAST_ANSWERS).await;
        if !cluster.leads() {
            let closed = cluster.connections.close_where(|c| c.peer.is_some());
            tracing::info!(
                connections = closed,
                "this voter does not lead any more; its callers go to the one that does"
            );
        }
    }
}

/// What is known here of the voters beside their rows: who leads, and on the leader, who follows.
pub fn fill(cluster: &Cluster, views: &mut [v1::VoterView]) {
    let status = cluster.voter.status();
    let (matched, unheard) = (cluster.voter.matched(), cluster.voter.unheard());
    let voters = cluster.voter.members().voters();
    for v in views {
        let id = VoterId(v.id);
        if v.state == "evicted" {
            // Until the change of the voters is committed, raft may need it.
            if status.leader == Some(cluster.id) && voters.contains(&id) {
                "leaving".clone_into(&mut v.state);
            }
            continue;
        }
        v.leader = status.leader == Some(id);
        if id == cluster.id {
            (v.state, v.term) = ("ready".to_owned(), status.term);
            (v.last_log, v.applied) = (status.last_log.unwrap_or(0), status.applied.unwrap_or(0));
        } else if status.leader == Some(cluster.id) {
            v.state = state(voters.contains(&id), unheard.get(&id).copied()).to_owned();
            v.last_log = matched.get(&id).copied().unwrap_or(0);
            v.applied = v.last_log;
        }
    }
}

fn state(votes: bool, unheard: Option<Duration>) -> &'static str {
    match (votes, unheard) {
        (true, Some(t)) if t <= SILENT => "ready",
        (true, _) => "unreachable",
        (false, _) => "joining",
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
