//! The leader's part in a rotation of the keyring: the next term, records moved to it bit by bit, the end of the old one.

use crate::cluster::Cluster;
use crate::drive::reopen;
use crate::failure::refused;
use crate::hsm;
use crate::keystore::{Opened, PortSigner, random32};
use crate::roots;
use holdfast_transport::failure::Failure;
use holdfast_types::{Millis, NodeId, Secret};
use holdfast_vault_core::{CaKey, Command, State, prepare};
use holdfast_wire::v1::{self, node_push::Push};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A term that was not replaced for another reason is replaced after this time.
pub const LIFE: Duration = Duration::from_secs(90 * 86_400);
/// Records in one entry. While they are sealed nothing is applied, and while they are applied nobody looks: each takes less
/// than a millisecond.
const BATCH: usize = 64;
/// Of each look, this much goes to records at most: other writes go between.
const SHARE: Duration = Duration::from_millis(200);

/// Nodes asked in one look to renew: a fleet must not do so all at once.
const CALLED: usize = 16;
/// Before those are asked again who were asked and have not renewed.
const CALL_AGAIN: Duration = Duration::from_secs(60);

/// How far the round of calls to nodes has come whose keys derive from a term that is to end, and what the next term waits for.
#[derive(Debug, Default)]
pub struct Calls {
    round: Mutex<(String, Option<Instant>)>,
    /// Why the next term could not be made; empty: it could, or none is due.
    why: Mutex<String>,
}

impl Calls {
    /// The next term was made, or was not and why.
    fn made(&self, done: &Result<(), Failure>) {
        let why = done.as_ref().err().map(Failure::said).unwrap_or_default();
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
    fn why(&self) -> Option<String> {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (!why.is_empty()).then_some(why)
    }
    /// Who is called next, in the order of ids.
    fn next(&self, state: &State, now: Instant) -> Vec<NodeId> {
        let mut at = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let (after, rest) = &mut *at;
        if rest.is_some_and(|until| now < until) {
            return Vec::new();
        }
        *rest = None;
        let ids: Vec<String> = state.nodes_under_older_terms(after).take(CALLED).cloned().collect();
        let called = ids.iter().filter_map(|id| NodeId::parse(id).ok()).collect();
        if ids.len() < CALLED {
            after.clear();
            *rest = Some(now + CALL_AGAIN);
        } else if let Some(last) = ids.last() {
            after.clone_from(last);
        }
        called
    }
}

/// The root that signs the Bundle which lists the next term's intake key.
fn root_for_bundle(opened: &Opened) -> Result<&PortSigner, Failure> {
    opened.root().map_err(|_| waits())
}

fn waits() -> Failure {
    let what =
        "the next keyring term waits: it is listed in a bundle, and the key of the root that signs cannot be used here";
    Failure::unavailable("unavailable", what).help("see docs/operations/rotate-root.md, a root that cannot sign")
}

/// Makes the next term.
async fn next_term(cluster: &Arc<Cluster>) -> Result<(), Failure> {
    let fresh = Secret::take(&mut random32()?);
    let p = roots::with_keys(cluster, move |leader, opened, entropy| {
        prepare::new_term(leader, root_for_bundle(opened)?, fresh, entropy).map_err(refused)
    });
    cluster.commit(p.await?).await?;
    reopen(cluster)
}

/// What is to be warned of: a term that is due and is not made, though the root that signs is one whose key is here or in a token.
pub fn alarm(cluster: &Cluster, now: Millis) -> Option<String> {
    let found = cluster.look(|s| {
        let in_token = s.signing_root().is_some_and(|r| matches!(r.key, CaKey::Token(_)));
        (s.keyring_due(now, LIFE) && !s.keyring_waits(now, LIFE), in_token)
    });
    let (true, in_token) = found.ok()? else { return None };
    // A token that is away is known before anything was tried with it, and some calls take longer than a look may.
    let word = cluster.standing.token.as_ref().filter(|t| in_token && t.was_asked()).map(|t| t.word());
    let why = word.filter(|word| word != hsm::OK).or_else(|| cluster.calls.why())?;
    Some(format!(
        "the next term of the keyring is due and waits for the key of the root that signs ({why}): whoever held the term in \
         use, an evicted voter too, can read what comes; see that the root's key can be used, or rotate with: holdfast root \
         rotate --software --without-old-root"
    ))
}

/// One look of the leader at the keyring.
pub async fn drive(cluster: &Arc<Cluster>) -> Result<(), Failure> {
    let now = cluster.now()?;
    let (due, offline, active) =
        cluster.look(|s| (s.keyring_due(now, LIFE), s.keyring_waits(now, LIFE), s.active_term()))?;
    if cluster.opened.load().keyring.active() != active {
        reopen(cluster)?;
    }
    // One that cannot be made keeps records from no other term, and old terms from no end.
    let made = match (due, offline) {
        (false, _) => Ok(()),
        (true, true) => Err(waits()),
        (true, false) => next_term(cluster).await,
    };
    cluster.calls.made(&made);
    let until = Instant::now() + SHARE;
    while Instant::now() < until {
        let Some(batch) = cluster.decide(|l, e| prepare::rewrap(l, BATCH, e))? else { break };
        cluster.propose(batch).await?;
    }
    for node in cluster.look(|s| cluster.calls.next(s, Instant::now()))? {
        cluster.hub.push(&node, Push::RenewNow(v1::RenewNow {}));
    }
    let over = cluster.look(State::destroyable_terms)?;
    if !over.is_empty() {
        cluster.propose(Command::KeyringDestroy(over)).await?;
    }
    made
}
