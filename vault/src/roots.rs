//! The leader's part in a rotation of the root: the new root's key, the steps in their order, and who is told to renew.
//!
//! Each look is made anew from the state; what is remembered here is only whom this leader called a moment ago, and what a new
//! one does without. Keys in a token take their time: they are used on threads of their own, over a copy of the state.
//!
//! Must never: hand out anything that was signed by a key whose entry is not committed, or let a token that does not answer
//! hold up anything but root operations.

mod alarms;
mod calls;
mod ends;

pub use alarms::alarms;
pub use calls::{Calls, is_old};

use ends::destroy_keys;

use crate::cluster::Cluster;
use crate::drive;
use crate::failure::refused;
use crate::keystore::{NewKey, Opened, PortSigner, random32};
use crate::registry::Events;
use holdfast_hsm::{KeyError, KeyId, Purpose};
use holdfast_pki::issue::ROOT_LIFE;
use holdfast_pki::keys::CertSigner;
use holdfast_transport::failure::Failure;
use holdfast_types::{Digest, Secret};
use holdfast_vault_core::prepare::{self, Leader, RootMaterial};
use holdfast_vault_core::{CaKey, Command, Entropy, Event, Prepared, RootKind, RootStep, RootTarget, State};
use holdfast_wire::keys::Ed25519Key;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often the leader looks, beside the events that say so.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at least: what happens meanwhile is seen by one.
const BREATH: Duration = Duration::from_millis(10);
/// After a step failed.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest time for a look, unless this voter is alone: a token may be asked several times in one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Steps in one look: more follow in the next one.
const STEPS: usize = 8;

/// Which Bundles machines believe, as they said since the last entry about it.
#[derive(Debug, Default)]
pub struct Acks(Mutex<BTreeMap<String, u64>>);

impl Acks {
    /// Notes what `id` said.
    fn note(&self, id: &str, epoch: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = all.entry(id.to_owned()).or_default();
        *said = epoch.max(*said);
    }
    fn take(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

/// `id` said which Bundle it believes: written down with the next look, if something waits for it.
pub fn heard(cluster: &Cluster, id: &str, epoch: u64) -> Result<(), Failure> {
    if cluster.look(|s| s.ack_matters(id, epoch))? {
        cluster.acks.note(id, epoch);
        cluster.renewals.wake();
    }
    Ok(())
}

/// Whether this is a change that a rotation may go on after.
fn concerns(e: &Event) -> bool {
    matches!(e, Event::Identity(_) | Event::Revoked(_) | Event::Trust | Event::Keys | Event::Voters)
}

/// Sees to the roots while this voter leads, until `stop`.
pub async fn see_to(cluster: Arc<Cluster>, mut events: Receiver<Events>, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut not_before, mut said) = (Instant::now(), String::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
            () = cluster.renewals.woken() => {}
            e = events.recv() => match e {
                Ok(events) if !events.iter().any(concerns) => continue,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
        if !cluster.leads() {
            cluster.renewals.forget();
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(not_before) => {}
        }
        // What happened until now is seen by one look.
        while matches!(events.try_recv(), Ok(_) | Err(TryRecvError::Lagged(_))) {}
        not_before = Instant::now() + BREATH;
        match in_time(&cluster).await {
            Ok(()) => said.clear(),
            Err(e) => {
                not_before = Instant::now() + AGAIN;
                // Said once: it is tried again until it is done.
                if e.line() != said {
                    said = e.line();
                    tracing::warn!(code = %e.code, "the rotation of the root waits: {said}");
                }
            }
        }
        cluster.stalled.store(Arc::new(said.clone()));
    }
}

async fn in_time(cluster: &Arc<Cluster>) -> Result<(), Failure> {
    if cluster.standing.is_alone() {
        return drive(cluster).await;
    }
    let late = |_| Failure::unavailable("no-quorum", "too few voters answer, or the token does not");
    tokio::time::timeout(PATIENCE, drive(cluster)).await.map_err(late)?
}

/// One look: what was heard is written down, and the next steps are taken.
async fn drive(cluster: &Arc<Cluster>) -> Result<(), Failure> {
    let said = cluster.acks.take();
    if !said.is_empty()
        && let Err(e) = cluster.propose(Command::Acked(said.clone())).await
    {
        said.iter().for_each(|(id, epoch)| cluster.acks.note(id, *epoch));
        return Err(e);
    }
    // What cannot be asked now keeps nothing else from going on.
    let mut asked = Ok(());
    for _ in 0..STEPS {
        let now = cluster.now()?;
        let (step, to_ask) = cluster.look(|s| (s.root_step(now), s.to_ask(now)))?;
        if let Some(root) = to_ask.filter(|_| asked.is_ok()) {
            asked = ask(cluster, root).await;
        }
        match step {
            RootStep::Nothing => return ends::sweep(cluster).await.and(asked),
            RootStep::Renew => return calls::call(cluster, now).and(asked),
            RootStep::Make(target) => {
                if let Err(e) = make(cluster, target).await {
                    // Who is under a root that signs no more renews all the same.
                    calls::call(cluster, now)?;
                    return Err(e);
                }
            }
            RootStep::Switch(to) => {
                cluster.propose(Command::RootSwitch { to }).await?;
                // Whoever was called was called for another root.
                cluster.renewals.forget();
                tracing::info!(root = %to, "another root signs");
            }
            RootStep::Drop(root) => drop_root(cluster, root).await?,
            RootStep::Destroy(_) => destroy_all(cluster).await?,
        }
    }
    asked
}

/// Does what may need the token's keys: on a thread of its own, over a copy of the state, so that nobody waits for either.
pub async fn with_keys<T: Send + 'static>(
    cluster: &Arc<Cluster>,
    work: impl FnOnce(&Leader<'_>, &Opened, &mut Entropy) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let of = Arc::clone(cluster);
    let done = tokio::task::spawn_blocking(move || {
        let state = of.look(State::frozen)?;
        if !of.opened.load().fits(&state) {
            drive::reopen(&of)?;
        }
        let opened = of.opened.load_full();
        work(&of.leader(&state, &opened), &opened, &mut Entropy::new(random32()?))
    });
    done.await.map_err(|_| Failure::failed("failed", "a root operation met an error of its own"))?
}

/// A token's or another key store's failure.
pub fn port(e: KeyError) -> Failure {
    crate::hsm::failure(&e)
}

/// A key of the cluster's, in the token or in memory: made, or found if it was made before.
pub fn generate(opened: &Opened, purpose: Purpose, name: &str, in_token: bool) -> Result<NewKey, Failure> {
    let token = in_token.then(|| opened.token.clone().ok_or_else(no_token)).transpose()?;
    NewKey::make(&opened.port, token, purpose, name).map_err(port)
}

/// The same with the key as the state keeps it.
fn new_key(
    leader: &Leader<'_>,
    opened: &Opened,
    purpose: Purpose,
    name: &str,
    in_token: bool,
    entropy: &mut Entropy,
) -> Result<(PortSigner, CaKey), Failure> {
    let made = generate(opened, purpose, name, in_token)?;
    let key = prepare::ca_key(leader.keys, name, made.rests(), entropy).map_err(refused)?;
    Ok((made.signer, key))
}

fn no_token() -> Failure {
    Failure::unavailable(
        "token-unavailable",
        "the root's key is to be in a token, and none is configured for this voter",
    )
    .help("see docs/operations/hsm.md")
}

async fn make(cluster: &Arc<Cluster>, target: RootTarget) -> Result<(), Failure> {
    tracing::info!(kind = target.kind.as_str(), name = target.name, "a root is made");
    let p = with_keys(cluster, move |leader, opened, entropy| made(leader, opened, &target, entropy)).await?;
    cluster.commit(p).await.map(drop)
}

/// The root that was ordered, with everything that follows from it.
fn made(
    leader: &Leader<'_>,
    opened: &Opened,
    target: &RootTarget,
    entropy: &mut Entropy,
) -> Result<Prepared<()>, Failure> {
    let (signer, key) = match (&target.given, target.kind) {
        (Some(given), _) => given_key(leader, opened, &given.der, &given.key)?,
        (None, kind) => {
            let in_token = kind == RootKind::Token;
            let (signer, key) = new_key(leader, opened, Purpose::Root, &target.name, in_token, entropy)?;
            (Some(signer), key)
        }
    };
    // The issuer of an offline root is asked for later, with another key: none is left in the token for it.
    let (name, in_token) = (format!("issuer/{}", target.name), opened.issuers_in_token && signer.is_some());
    let (issuer, issuer_key) = new_key(leader, opened, Purpose::Issuer, &name, in_token, entropy)?;
    // Those that cannot sign are not asked either: a dead token answers late, or never.
    let old = if target.without_old { Vec::new() } else { usable(opened)? };
    let material = RootMaterial {
        signer: signer.as_ref().map(|s| s as &dyn CertSigner),
        der: target.given.as_ref().map(|g| g.der.as_slice()),
        key,
        issuer: &issuer,
        issuer_key,
        old: &old,
        life: ROOT_LIFE,
    };
    prepare::add_root(leader, material, entropy).map_err(refused)
}

/// The trusted roots whose keys answer; a token that does not answer is waited for only where no other root can sign.
fn usable(opened: &Opened) -> Result<Vec<(Digest, &dyn CertSigner)>, Failure> {
    let mut all = Vec::new();
    let mut why = Failure::unavailable("token-unavailable", "no trusted root's key can be used on this voter")
        .help("see holdfast root status");
    for (sha256, signer) in &opened.roots {
        match signer.answers() {
            Ok(()) => all.push((*sha256, signer as &dyn CertSigner)),
            Err(e) => {
                tracing::warn!(root = %sha256, "this root's key cannot be used: {e}");
                why = port(e);
            }
        }
    }
    if all.is_empty() { Err(why) } else { Ok(all) }
}

/// The key of the operators' own root: unsealed, found in the token by its public half, or nowhere here.
fn given_key(
    leader: &Leader<'_>,
    opened: &Opened,
    der: &[u8],
    key: &CaKey,
) -> Result<(Option<PortSigner>, CaKey), Failure> {
    match key {
        CaKey::Sealed(sealed) => {
            let pkcs8 = leader.keys.open("ca", &sealed.name, 1, &sealed.record).map_err(refused)?;
            let id = opened.port.import(Purpose::Root, sealed.name.as_bytes(), &pkcs8).map_err(port)?;
            Ok((Some(PortSigner::new(&opened.port, id).map_err(port)?), key.clone()))
        }
        CaKey::Token(name) => {
            let token = opened.token.as_ref().ok_or_else(no_token)?;
            let id = KeyId::of(Purpose::Root, name.as_bytes());
            let signer = PortSigner::of_certificate(Arc::clone(token), id, der)?;
            signer.answers().map_err(|e| {
                let missing = "the token holds no key that belongs to the root that was given";
                if matches!(e, KeyError::NotFound(_)) { Failure::not_found("not-found", missing) } else { port(e) }
            })?;
            Ok((Some(signer), key.clone()))
        }
        CaKey::Offline => Ok((None, CaKey::Offline)),
    }
}

async fn drop_root(cluster: &Arc<Cluster>, root: Digest) -> Result<(), Failure> {
    // The copy that is signed over does not know who is alive; what is refused costs no signature.
    let now = cluster.now()?;
    cluster.look(|s| s.drop_guard(&root, now))?.map_err(refused)?;
    let p = with_keys(cluster, move |leader, opened, entropy| dropped(leader, opened, &root, entropy));
    cluster.commit(p.await?).await?;
    tracing::info!(root = %root, "a root is trusted no more");
    Ok(())
}

/// Each dropped root's key for itself: one whose token is away keeps none of the others.
async fn destroy_all(cluster: &Arc<Cluster>) -> Result<(), Failure> {
    let mut done = Ok(());
    for root in cluster.look(State::to_destroy)? {
        done = destroy(cluster, root).await.and(done);
    }
    done
}

/// The end of a root, signed by whichever trusted roots can be used, itself among them.
fn dropped(
    leader: &Leader<'_>,
    opened: &Opened,
    root: &Digest,
    entropy: &mut Entropy,
) -> Result<Prepared<()>, Failure> {
    let signers: Vec<&dyn CertSigner> = usable(opened)?.into_iter().map(|(_, s)| s).collect();
    prepare::drop_root(leader.state, &signers, root, leader.now, entropy).map_err(refused)
}

/// A key that is sealed in the state goes with its record; one in the token is destroyed there first. Twice is as good as once.
async fn destroy(cluster: &Arc<Cluster>, root: Digest) -> Result<(), Failure> {
    with_keys(cluster, move |leader, opened, _| {
        let retired = leader.state.rotation().retired.iter().find(|r| r.sha256 == root);
        retired.map_or(Ok(()), |r| destroy_keys(r, opened))
    })
    .await?;
    cluster.propose(Command::RootDestroyed { root }).await?;
    tracing::info!(root = %root, "a dropped root's key is destroyed");
    Ok(())
}

/// Asks a root whose key is offline for an issuer and for the Bundle that lists the next statement key.
async fn ask(cluster: &Arc<Cluster>, root: Digest) -> Result<(), Failure> {
    let p = with_keys(cluster, move |leader, opened, entropy| {
        let (name, in_token) = (prepare::issuer_name(leader.state), opened.issuers_in_token);
        let (issuer, key) = new_key(leader, opened, Purpose::Issuer, &name, in_token, entropy)?;
        let stk = Ed25519Key::from_seed(Secret::take(&mut random32()?));
        let (life, now) = (leader.lives.issuer, leader.now);
        prepare::ask_offline(leader.state, leader.keys, &root, &issuer, key, &stk, life, now, entropy).map_err(refused)
    });
    cluster.commit(p.await?).await?;
    tracing::warn!(root = %root, "a root whose key is offline is to sign an issuer: see holdfast root csr");
    Ok(())
}

#[cfg(test)]
#[path = "roots/crashes.rs"]
mod crashes;
#[cfg(test)]
#[path = "roots/tests.rs"]
mod tests;
