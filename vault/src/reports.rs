//! What each voter does for itself and tells the leader of: its slots, its disk key, its KEM key, its certificate, its addresses.
//!
//! What is told is compared with what was told last, so a quiet voter says nothing. A voter that no leader reaches says to
//! everybody where it is ([`announce`]).

use crate::clocks;
use crate::cluster::{Addrs, Cluster};
use crate::disk::duty::{SlotsNow, bring_slots};
use crate::disk::hsm;
use crate::disk::ident::Ident;
use crate::disk::rotation::{replace_disk_key, resume};
use crate::disk::slots::Slots;
use crate::failure::stopped;
use crate::found::disk;
use crate::hsm::Token;
use crate::kem::{KemStep, kem_of, kem_step};
use crate::keystore::random32;
use crate::registry::Events;
use crate::setback::was_refused;
use crate::standing::{ROLLED_BACK, Standing};
use crate::unsaid::MOST;
use holdfast_pki::chain::serial_of;
use holdfast_pki::issue::BACKDATE;
use holdfast_transport::failure::Failure;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::tls::LocalIdentity;
use holdfast_types::{Millis, VoterId};
use holdfast_vault_core::{Event, NoteFacts, NoteKind, prepare, third_over};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::v1;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

/// How often a voter looks whether it has something to tell, beside the events that say so.
const LOOK: Duration = Duration::from_secs(1);

/// What this voter has done for itself, and what it has told.
pub struct Duty {
    slots: SlotsNow,
    /// Something that the slots follow has changed.
    slots_due: bool,
    disk_key_order: u64,
    /// The keyring term for which this voter's KEM key is.
    kem_term: u32,
    /// What was told last, and in which Raft term as leader.
    told: Option<(v1::VoterReport, Option<u64>)>,
    /// When the leader's time was asked for.
    clock_asked: Option<Instant>,
}

/// The voter's own keys, read from its disk.
pub fn ident(standing: &Standing) -> Result<Ident, Failure> {
    Ident::load(&standing.dir, &standing.disk_keys).map_err(disk)
}

/// Uses the certificate that this voter holds.
fn identify(standing: &Standing, ident: &Ident) -> Result<(), Failure> {
    let key = PrivateKey::from_pkcs8(ident.tls_key.expose()).map_err(|e| Failure::failed("corrupt", e.to_string()))?;
    let identity = LocalIdentity::new(&ident.chain, &key).map_err(|e| Failure::failed("identity", e.to_string()))?;
    standing.identity.swap(identity);
    Ok(())
}

/// What the slots file says now.
fn slots_now(standing: &Standing) -> Result<SlotsNow, Failure> {
    Slots::load(&standing.dir).map(|slots| SlotsNow::of(&slots)).map_err(disk)
}

/// Tells every other voter where this one is, until one of them has passed it on: the leader reaches it nowhere else. Who
/// refuses to speak with this one.
pub async fn announce(standing: &Standing, peer_addr: &str) -> Result<BTreeSet<VoterId>, Failure> {
    let row = standing.voter.machine().read(|r| {
        let of = r.state().voter(standing.id);
        of.map(|v| (v.disk_key_order, (v.kem_gen, v.kem_pk), v.service_addr.clone(), v.join_addr.clone()))
    });
    let row = row.map_err(stopped)?;
    let own = ident(standing)?;
    let (disk_key_order, known, service, join) =
        row.unwrap_or_else(|| (0, (1, derive_keypair(own.kem_ikm.expose()).1), String::new(), String::new()));
    let addrs = Addrs { service, join, peer: peer_addr.to_owned() };
    let said = report_of(standing, &addrs, slots_now(standing)?, disk_key_order, kem_of(&own, known));
    let mut refused = BTreeSet::new();
    for (id, addr) in standing.others()? {
        match standing.peers.report(id, &addr, said.clone()).await {
            Ok(_) => break,
            Err(f) if f.code == ROLLED_BACK => return Err(f),
            Err(f) => {
                tracing::debug!(voter = id.0, "did not take this voter's report: {f}");
                refused.extend(was_refused(&f).then_some(id));
            }
        }
    }
    Ok(refused)
}

fn report_of(
    standing: &Standing,
    addrs: &Addrs,
    slots: SlotsNow,
    disk_key_order: u64,
    (kem_gen, kem_pk): (u32, [u8; 32]),
) -> v1::VoterReport {
    v1::VoterReport {
        boot: Some(v1::Boot { count: standing.boot.count, id: standing.boot.id.to_vec() }),
        peer_addr: addrs.peer.clone(),
        service_addr: addrs.service.clone(),
        join_addr: addrs.join.clone(),
        unlock_epoch: slots.unlock_epoch,
        recovery_version: slots.recovery_version,
        disk_key_order,
        kem_gen,
        kem_pk: kem_pk.to_vec(),
        token: standing.token.as_ref().map(|t| t.word()).unwrap_or_default(),
        ..v1::VoterReport::default()
    }
}

/// The last word of a voter that is sealed: what is known of it, and that its keys go.
pub fn farewell(cluster: &Cluster) -> Result<Option<v1::VoterReport>, Failure> {
    cluster.look(|s| {
        s.voter(cluster.id).map(|v| {
            let slots = SlotsNow { unlock_epoch: v.unlock_epoch, recovery_version: v.recovery_version };
            let kem = (v.kem_gen, v.kem_pk);
            let said = report_of(&cluster.standing, &cluster.addrs, slots, v.disk_key_order, kem);
            v1::VoterReport { sealing: true, ..said }
        })
    })
}

/// An own word as it may stand in the log: short, and of printable characters.
fn plain(word: &str) -> String {
    word.chars().filter(char::is_ascii_graphic).take(32).collect()
}

impl Cluster {
    /// Takes what voter `id` says of itself; only the leader can.
    pub async fn take_report(
        &self,
        id: VoterId,
        said: &v1::VoterReport,
        leads: Option<u64>,
    ) -> Result<v1::VoterReportReply, Failure> {
        if !self.leads() {
            return Err(self.elsewhere(|v| v.peer_addr.clone()));
        }
        let reply = match self.certify(|l, e| prepare::voter_said(l, id, said, leads, e))? {
            Some(p) => self.commit(p).await.map(|(reply, _)| reply)?,
            None => v1::VoterReportReply::default(),
        };
        self.tokens.said(id, &said.token, Instant::now());
        self.write_down(id, said).await;
        let clock_off = id != self.id && self.clock_is_off(id, said.clock_off_ms);
        Ok(v1::VoterReportReply { at_ms: holdfast_transport::now().0, clock_off, ..reply })
    }

    /// What voter `id` says once goes into the log; not more of it than one caller may cause.
    async fn write_down(&self, id: VoterId, said: &v1::VoterReport) {
        let (who, now) = (format!("vault/{id}"), self.clock.now());
        let note = |kind, actor: &str, subject: &str, detail: String, count: u32| NoteFacts {
            kind,
            actor: actor.to_owned(),
            subject: subject.to_owned(),
            detail,
            count: u64::from(count),
        };
        let mut notes = Vec::new();
        if !said.opened_by.is_empty() && said.failed_unlocks > 0 {
            let detail = "attempts to unlock failed".to_owned();
            notes.push(note(NoteKind::UnlockDeny, "local", &who, detail, said.failed_unlocks));
        }
        if !said.opened_by.is_empty() {
            notes.push(note(NoteKind::UnlockOpen, "local", &who, plain(&said.opened_by), 1));
        }
        if said.sealing {
            notes.push(note(NoteKind::Seal, "local", &who, String::new(), 1));
        }
        for other in said.impostors.iter().take(MOST).map(|n| VoterId(*n)) {
            if matches!(self.look(|s| s.voter(other).is_some()), Ok(true)) {
                self.impostors.seen(other, Instant::now());
                let detail = "it spoke as another voter; its message was refused".to_owned();
                notes.push(note(NoteKind::Impostor, &who, &format!("vault/{other}"), detail, 1));
            }
        }
        for note in notes {
            if self.throttle.allows(&who, now) {
                self.note_facts(note).await;
            }
        }
    }
}

impl Duty {
    /// Nothing is told yet, and everything is looked at once.
    pub fn begin(cluster: &Cluster) -> Result<Self, Failure> {
        let (disk_key_order, kem_term, older) = cluster.look(|s| {
            let row = s.voter(cluster.id);
            (row.map_or(0, |v| v.disk_key_order), s.active_term(), row.is_some_and(|v| v.terms.len() > 1))
        })?;
        // A rotation of the keyring that is under way may be one that this voter slept through.
        let kem_term = if older { kem_term.saturating_sub(1) } else { kem_term };
        let slots = slots_now(&cluster.standing)?;
        Ok(Self { slots, slots_due: true, disk_key_order, kem_term, told: None, clock_asked: None })
    }

    /// Does what is due, and tells the leader what is new.
    async fn see_to(&mut self, cluster: &Arc<Cluster>) -> Result<(), Failure> {
        if cluster.standing.is_evicted() {
            // One that still leads hands over first, and the others may need this one's word to let it go.
            if !cluster.leads() && cluster.standing.is_out().await? {
                cluster.standing.peers.rolled_back().cancel();
            }
            return Ok(());
        }
        // What fails is tried again at the next look; the report says what is so.
        let done = self.slots(cluster).await;
        let renewed = self.kem(cluster);
        if cluster.voter.status().leader.is_none() {
            // Whoever leads may look for this voter where it was before.
            announce(&cluster.standing, &cluster.addrs.peer).await?;
        }
        self.report(cluster).await?;
        done.and(renewed)
    }

    /// Makes the slots what they are to be, and replaces the disk key if that was ordered.
    async fn slots(&mut self, cluster: &Arc<Cluster>) -> Result<(), Failure> {
        if !self.slots_due {
            return Ok(());
        }
        let Some(wanted) = cluster.look(holdfast_vault_core::State::wanted_slots)? else { return Ok(()) };
        let s = &cluster.standing;
        let token = s.token.as_ref().and_then(Token::for_disk);
        let (dir, keys, what, by) = (s.dir.clone(), Arc::clone(&s.disk_keys), wanted.clone(), token.clone());
        let broken = |_| Failure::failed("failed", "the slots could not be looked after");
        let brought =
            tokio::task::spawn_blocking(move || bring_slots(&dir, &keys, &what, &by)).await.map_err(broken)?;
        self.slots = brought.map_err(disk)?;
        resume(&s.dir, &s.disk_keys, &s.store, &s.voter, &wanted).await?;
        if wanted.disk_key_order > self.disk_key_order {
            replace_disk_key(&s.dir, &s.disk_keys, &s.store, &s.voter, &wanted, &token).await?;
            self.disk_key_order = wanted.disk_key_order;
            tracing::info!(order = self.disk_key_order, "this voter's disk key was replaced");
        }
        // A token that does not answer leaves the other slots as they are, and its own for later.
        if let Some(token) = token {
            let (dir, keys) = (s.dir.clone(), Arc::clone(&s.disk_keys));
            let wrapped = tokio::task::spawn_blocking(move || hsm::bring_slots(&dir, &keys, &*token)).await;
            if wrapped.map_err(broken)?.map_err(disk)? {
                tracing::info!("this voter's disk opens by its token from now on");
            }
        } else if let Some(token) = s.token.clone() {
            let (cluster, voter) = (*s.disk_keys.cluster(), s.disk_keys.voter());
            // Nobody waits for a token that does not answer.
            tokio::task::spawn_blocking(move || {
                if let Err(e) = hsm::forget(&cluster, voter, &*token) {
                    tracing::warn!("a key in the token that once opened this voter's disk may be there still: {e}");
                }
            });
        }
        self.slots_due = false;
        Ok(())
    }

    /// With each keyring term a voter has a new KEM key: the old one opens what an old disk of it holds, and goes.
    fn kem(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let (term, known) = cluster.look(|s| (s.active_term(), s.voter(cluster.id).map(|v| v.kem_pk)))?;
        let due = term > self.kem_term;
        let mut own = ident(&cluster.standing)?;
        let step = kem_step(&mut own, known, due, random32)?;
        if step == KemStep::Nothing {
            return Ok(());
        }
        own.store(&cluster.standing.dir, &cluster.standing.disk_keys).map_err(disk)?;
        if step == KemStep::Made {
            self.kem_term = term;
        }
        Ok(())
    }

    /// Tells the leader, which may be this voter, what is new; asks for a certificate where a third of the life of this one is
    /// over.
    pub async fn report(&mut self, cluster: &Arc<Cluster>) -> Result<(), Failure> {
        let status = cluster.voter.status();
        let leader = status.leader.ok_or_else(|| Failure::unavailable("no-leader", "no voter leads at the moment"))?;
        let leads = (leader == cluster.id).then_some(status.term);
        let mut own = ident(&cluster.standing)?;
        let known = cluster.look(|s| s.voter(cluster.id).map(|v| (v.kem_gen, v.kem_pk)))?;
        let known = known.ok_or_else(|| Failure::failed("corrupt", "this voter is not in its own state"))?;
        let kem = kem_of(&own, known);
        let mut said = report_of(&cluster.standing, &cluster.addrs, self.slots, self.disk_key_order, kem);
        // What is on the disk is shown from then on, by the next process too.
        let shown = own.chain.first().and_then(|leaf| serial_of(leaf)).unwrap_or_default();
        said.serial.clone_from(&shown);
        let now = (said, leads);
        let certify = needs_certificate(cluster, &shown)?;
        let word = cluster.standing.unsaid.now();
        let asks_time = leads.is_none() && self.clock_asked.is_none_or(|at| at.elapsed() >= clocks::EVERY);
        if !certify && !asks_time && word.is_empty() && self.told.as_ref() == Some(&now) {
            return Ok(());
        }
        let (mut said, leads) = now.clone();
        if certify {
            let key = PrivateKey::from_pkcs8(own.tls_key.expose());
            let csr = key.and_then(|k| k.csr()).map_err(|e| Failure::failed("corrupt", e.to_string()))?;
            said.csr = csr;
        }
        said.clock_off_ms = cluster.clocks.own(leader);
        word.clone().into_report(&mut said);
        let reply = if leads.is_some() {
            cluster.take_report(cluster.id, &said, leads).await?
        } else {
            let addr = cluster.standing.others()?.remove(&leader);
            let addr = addr.ok_or_else(|| Failure::unavailable("no-leader", "the leader's address is not known"))?;
            let (wall, begun) = (holdfast_transport::now(), Instant::now());
            let reply = cluster.standing.peers.report(leader, &addr, said).await?;
            let told = (Millis(reply.at_ms), reply.clock_off);
            cluster.clocks.answered(&cluster.voter, leader, (wall, begun.elapsed()), told);
            self.clock_asked = Some(Instant::now());
            reply
        };
        cluster.standing.unsaid.told(&word);
        self.told = Some(now);
        if reply.chain.is_empty() {
            return Ok(());
        }
        own.chain = reply.chain;
        // It is committed, so it is the one that counts, also where the disk does not take it.
        identify(&cluster.standing, &own)?;
        own.store(&cluster.standing.dir, &cluster.standing.disk_keys).map_err(disk)
    }
}

/// Whether a third of the certificate's life is over, another root signs than the one that it is under, there is none, or the
/// newest one never came here: the process died on its way to the disk.
fn needs_certificate(cluster: &Cluster, shown: &str) -> Result<bool, Failure> {
    let Some(i) = cluster.identity.current() else { return Ok(true) };
    let due = cluster.look(|s| {
        let Some(v) = s.voter(cluster.id) else { return false };
        let Some(newest) = &v.cert else { return false };
        let lost = newest.serial != shown && v.shown.as_ref().is_none_or(|c| c.serial == shown);
        lost || Some(newest.root) != s.signing_root_sha256()
    })?;
    if due {
        return Ok(true);
    }
    Ok(third_over(cluster.now()?, i.not_before().plus(BACKDATE), i.not_after()))
}

/// Whether this event is one that a voter's own duties follow from.
fn concerns(e: &Event) -> bool {
    matches!(e, Event::Slots | Event::Keys | Event::Voters | Event::Trust)
}

/// Sees to this voter's duties until `stop`.
pub async fn see_to(cluster: Arc<Cluster>, mut duty: Duty, mut events: Receiver<Events>, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
            e = events.recv() => match e {
                Ok(events) if !events.iter().any(concerns) => continue,
                Ok(events) => duty.slots_due |= events.contains(&Event::Slots),
                Err(RecvError::Lagged(_)) => duty.slots_due = true,
                Err(RecvError::Closed) => return,
            },
        }
        cluster.clocks.look(&cluster.voter, cluster.leads(), Instant::now());
        match duty.see_to(&cluster).await {
            Ok(()) => said.clear(),
            // Said once: it is tried again every second.
            Err(e) if e.line() == said => {}
            Err(e) => {
                said = e.line();
                tracing::warn!(code = %e.code, "this voter's own keys, slots or report wait: {said}");
            }
        }
    }
}
