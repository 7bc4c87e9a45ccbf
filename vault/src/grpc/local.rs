//! The unix socket U: founding, unlocking and sealing, for root on the host. The only thing a sealed voter answers on.

use super::Answers;
use crate::backup;
use crate::cluster::Cluster;
use crate::disk::chain;
use crate::disk::keys::DiskKey;
use crate::disk::slots::{Recipient, Slots};
use crate::found::{self, disk};
use crate::gate::{Phase, Who, slot_name};
use crate::recover;
use crate::reports;
use crate::run::Daemon;
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::local_server::Local;
use holdfast_types::ClusterId;
use holdfast_wire::boxes::{self, PrivateKey};
use holdfast_wire::v1;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, Streaming};

/// How long a voter that is sealed waits until that is written down.
const FAREWELL: Duration = Duration::from_secs(3);

/// Serves U.
pub struct LocalService(pub Arc<Daemon>);

/// A voter's slots, as they are shown: the boxes that an operator's keys open.
pub fn shown_boxes(slots: &Slots) -> v1::SlotBoxes {
    let slot = |s: &crate::disk::slots::Slot| {
        let (kind, epoch) = match s.recipient {
            Recipient::Unlock { epoch } => ("unlock", epoch),
            Recipient::Recovery { charter_version } => ("recovery", charter_version),
            // Nothing that an operator's key opens.
            Recipient::Plain | Recipient::Credential { .. } | Recipient::Hsm { .. } => return None,
        };
        Some(v1::SlotBox { kind: kind.to_owned(), epoch, r#box: s.boxed()?.to_vec(), dk_gen: s.generation })
    };
    v1::SlotBoxes {
        cluster_id: slots.cluster().0.to_vec(),
        voter_id: slots.voter().0,
        dk_gen: slots.current(),
        dk_pending: slots.pending().unwrap_or(0),
        slots: slots.iter().filter_map(slot).collect(),
        ..Default::default()
    }
}

/// The same with the chain to the unlock key before, for a voter that slept through its rotation.
fn boxes_and_chain(slots: &Slots, dir: &Path) -> v1::SlotBoxes {
    let (chain_epoch, chain) = match chain::load(dir, slots.cluster(), slots.voter()) {
        Ok(found) => found.unwrap_or_default(),
        // Any other voter's is as good.
        Err(e) => {
            tracing::warn!("the chain to the unlock key before cannot be used: {e}");
            (0, Vec::new())
        }
    };
    v1::SlotBoxes { chain, chain_epoch, ..shown_boxes(slots) }
}

/// Whether the request founds the very cluster that is here, by the charter that it is named after.
fn is_founding_of(request: &v1::InitRequest, cluster: &Cluster) -> Result<bool, Failure> {
    let named = request.charter.as_ref().map(|st| ClusterId::of_charter(&st.payload));
    Ok(named.is_some() && named == cluster.look(holdfast_vault_core::State::cluster_id)?)
}

fn founded(cluster: &Cluster, slots: &Slots) -> Result<v1::InitReply, Failure> {
    let (id, bundle_chain, anchor) = cluster.look(|s| {
        let id = s.cluster_id();
        let anchor = id.zip(s.signing_root()).map(|(id, root)| id.anchor(&root.der));
        (id, s.bundle_chain(), anchor)
    })?;
    Ok(v1::InitReply {
        cluster_id: id.map(|c| c.0.to_vec()).unwrap_or_default(),
        anchor: anchor.map(|a| a.to_vec()).unwrap_or_default(),
        service_addrs: vec![cluster.addrs.service.clone()],
        join_addrs: vec![cluster.addrs.join.clone()],
        bundle_chain,
        slots: Some(shown_boxes(slots)),
    })
}

/// What a voter that is not at work says of itself.
fn of(r: &mut v1::SealStatusReply, who: &Who) {
    r.cluster_id = who.cluster.0.to_vec();
    r.voter_id = who.voter.0;
    r.leader = who.standing.as_ref().and_then(|s| s.voter.status().leader).map_or(0, |l| l.0);
}

/// Does `work` to its end, also if the caller leaves: founding and unlocking must not stop half way.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<Response<T>, Status> {
    let done = tokio::spawn(work).await;
    Ok(Response::new(done.map_err(|_| Failure::failed("failed", "the vault met an error of its own; see its log"))??))
}

/// Founds the cluster, or answers again what was answered when it was founded.
async fn init(daemon: Arc<Daemon>, request: v1::InitRequest) -> Result<v1::InitReply, Failure> {
    let _door = daemon.gate.door.lock().await;
    let phase = daemon.gate.phase();
    if let Phase::Open(cluster) = &*phase
        && is_founding_of(&request, cluster)?
    {
        // The answer was lost, or the caller was: it is given again.
        let slots = Slots::load(&daemon.voter_dir()).map_err(disk)?;
        return founded(cluster, &slots);
    }
    if matches!(*phase, Phase::Joining(_)) {
        let f = Failure::changed("already-initialized", "this voter is joining a cluster");
        return Err(f.help("see its log, or start it without --join-token-file on an empty state directory"));
    }
    if !matches!(*phase, Phase::Uninitialized) {
        let f = Failure::changed("already-initialized", "this vault has been founded already");
        return Err(f.help("use another state directory to found another cluster"));
    }
    let new = found::found(&daemon.config.state_dir, &request, &daemon.config.lives, daemon.token.as_ref()).await?;
    let cluster = match daemon.open_founded(new.slots, new.disk_key).await {
        Ok(cluster) => cluster,
        Err(e) => {
            // Nobody has been told of this cluster: it goes, and `init` can be tried again.
            found::discard(&daemon.config.state_dir)?;
            daemon.gate.set(Phase::Uninitialized);
            return Err(e);
        }
    };
    let slots = Slots::load(&daemon.voter_dir()).map_err(disk)?;
    founded(&cluster, &slots)
}

/// The disk keys of a request, each checked against the slots: one for each live generation.
fn disk_keys(slots: &Slots, answer: &PrivateKey, r: &v1::OpenSlotRequest) -> Result<Vec<DiskKey>, Failure> {
    let mut keys = Vec::new();
    let first = v1::GenerationKey { dk_gen: r.dk_gen, disk_key_box: r.disk_key_box.clone() };
    for given in std::iter::once(&first).chain(&r.others) {
        let aad = boxes::open_slot_aad(slots.voter().0, given.dk_gen);
        let context = boxes::Context { purpose: boxes::OPEN_SLOT, cluster: slots.cluster(), aad: &aad };
        let key = boxes::open(answer, &context, None, &given.disk_key_box).ok();
        let key = key.and_then(|k| DiskKey::from_slice(k.expose()));
        let key = key.ok_or_else(|| {
            Failure::invalid("invalid-input", "the box of the disk key does not open; ask for the slots again")
        })?;
        let generation = if given.dk_gen == 0 { slots.current() } else { given.dk_gen };
        slots.verify(generation, &key).map_err(disk)?;
        keys.push(key);
    }
    Ok(keys)
}

/// Opens the disk with the key of one of its slots.
async fn open_slot(daemon: Arc<Daemon>, r: v1::OpenSlotRequest) -> Result<v1::Ack, Failure> {
    let mut attempts = daemon.gate.door.lock().await;
    let phase = daemon.gate.phase();
    let Phase::Sealed(slots) = &*phase else {
        return Err(Failure::changed("not-sealed", format!("this vault is {}", phase.word())));
    };
    if !attempts.allow(Instant::now()) {
        return Err(Failure::exhausted("too-many-attempts", "too many attempts to unlock").help("wait a minute"));
    }
    let slot: String = r.slot.chars().filter(char::is_ascii_graphic).take(32).collect();
    let unsaid = &daemon.gate.unsaid;
    let keys = disk_keys(slots, &daemon.gate.answer().0, &r).inspect_err(|_| {
        tracing::warn!(slot, "an attempt to unlock failed");
        unsaid.failed();
    })?;
    let slots = Slots::load(&daemon.voter_dir()).map_err(disk)?;
    // Whoever leads writes it down: this voter tells it with its first report.
    unsaid.opened(if slot.is_empty() { "slot".to_owned() } else { slot.clone() });
    let opening = daemon.open(slots, keys).await.inspect_err(|_| unsaid.not_opened())?;
    opening.wait().await.inspect_err(|_| unsaid.not_opened())?;
    tracing::info!(slot, "unlocked");
    Ok(v1::Ack {})
}

/// Writes down that this voter is sealed, through whoever leads; what cannot be said in time is not waited for.
async fn say_farewell(cluster: &Cluster) {
    let farewell = async {
        let Some(said) = reports::farewell(cluster)? else { return Ok(()) };
        if cluster.leads() {
            return cluster.take_report(cluster.id, &said, Some(cluster.voter.status().term)).await.map(drop);
        }
        let leader = cluster.voter.status().leader;
        let addr = leader.and_then(|l| Some((l, cluster.standing.others().ok()?.remove(&l)?)));
        let nobody = || Failure::unavailable("no-leader", "no voter leads at the moment");
        let (leader, addr) = addr.ok_or_else(nobody)?;
        cluster.standing.peers.report(leader, &addr, said).await.map(drop)
    };
    match tokio::time::timeout(FAREWELL, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!("that this voter is sealed could not be written to the log: {}", e.line()),
        Err(_) => tracing::warn!("that this voter is sealed could not be written to the log in time"),
    }
}

#[tonic::async_trait]
impl Local for LocalService {
    type BackupStream = Answers<v1::BackupPart>;
    type RecoverStream = Answers<v1::RecoverReply>;

    async fn backup(&self, _: Request<v1::Ack>) -> Result<Response<Self::BackupStream>, Status> {
        let phase = self.0.gate.phase();
        let Phase::Open(cluster) = &*phase else {
            return Err(Failure::changed("not-open", format!("this vault is {}", phase.word())).into());
        };
        Ok(Response::new(backup::create(cluster).await?))
    }

    async fn recover(
        &self,
        request: Request<Streaming<v1::RecoverPart>>,
    ) -> Result<Response<Self::RecoverStream>, Status> {
        let (tx, rx) = tokio::sync::mpsc::channel(2);
        let (daemon, inbound) = (Arc::clone(&self.0), request.into_inner());
        tokio::spawn(async move {
            if let Err(f) = recover::recover(daemon, inbound, tx.clone()).await
                && tx.send(Err(f.into())).await.is_err()
            {
                tracing::debug!("whoever brought a cluster back left");
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(rx))))
    }

    async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::InitReply>, Status> {
        to_the_end(init(Arc::clone(&self.0), request.into_inner())).await
    }

    async fn seal_status(&self, _: Request<v1::Ack>) -> Result<Response<v1::SealStatusReply>, Status> {
        let phase = self.0.gate.phase();
        let mut r = v1::SealStatusReply { state: phase.word().to_owned(), ..Default::default() };
        match &*phase {
            Phase::Sealed(slots) => {
                r.cluster_id = slots.cluster().0.to_vec();
                r.voter_id = slots.voter().0;
                r.slots = slots.iter().map(|s| slot_name(s.recipient)).collect();
                r.autolock = !slots.iter().any(|s| s.recipient == Recipient::Plain);
                r.reason = self.0.gate.waits_for();
            }
            Phase::Open(c) => {
                r.cluster_id = c.look(|s| s.cluster_id().map(|c| c.0.to_vec()))?.unwrap_or_default();
                r.autolock = c.look(holdfast_vault_core::State::autolock)?;
                r.voter_id = c.id.0;
                r.leader = c.voter.status().leader.map_or(0, |l| l.0);
                r.service_addr = c.addrs.service.clone();
                r.join_addr = c.addrs.join.clone();
                r.reason = c.clocks.complaint().unwrap_or_default();
            }
            Phase::Uninitialized => r.reason = "no cluster has been founded here".to_owned(),
            Phase::Joining(None) => r.reason = "the cluster has not answered yet".to_owned(),
            Phase::Joining(Some(waits)) => {
                r.applicant = waits.id.clone();
                r.spki_sha256 = waits.spki.to_vec();
                r.reason = "waits for `holdfast voter admit`".to_owned();
            }
            Phase::Recovering(who) => {
                of(&mut r, who);
                r.reason = who.waits.said().to_string();
            }
            Phase::RolledBack(who, why) => {
                of(&mut r, who);
                r.reason.clone_from(why);
            }
        }
        Ok(Response::new(r))
    }

    async fn get_slot_boxes(&self, _: Request<v1::Ack>) -> Result<Response<v1::SlotBoxes>, Status> {
        let phase = self.0.gate.phase();
        let dir = self.0.voter_dir();
        match &*phase {
            Phase::Sealed(slots) => {
                let answer_pk = self.0.gate.answer().1.to_vec();
                Ok(Response::new(v1::SlotBoxes { answer_pk, ..boxes_and_chain(slots, &dir) }))
            }
            // An operator who replaces a key tries the new one on what is on the disk.
            Phase::Open(_) | Phase::Recovering(_) => {
                Ok(Response::new(boxes_and_chain(&Slots::load(&dir).map_err(disk)?, &dir)))
            }
            Phase::Uninitialized | Phase::Joining(_) | Phase::RolledBack(..) => {
                Err(Failure::changed("not-sealed", format!("this vault is {}", phase.word())).into())
            }
        }
    }

    async fn open_slot(&self, request: Request<v1::OpenSlotRequest>) -> Result<Response<v1::Ack>, Status> {
        to_the_end(open_slot(Arc::clone(&self.0), request.into_inner())).await
    }

    async fn seal(&self, _: Request<v1::Ack>) -> Result<Response<v1::Ack>, Status> {
        let phase = self.0.gate.phase();
        let cluster = match &*phase {
            Phase::Open(cluster) => Some(cluster),
            // Its keys are in memory as well, and whoever seals it may be in a hurry.
            Phase::Recovering(_) | Phase::RolledBack(..) => None,
            Phase::Uninitialized | Phase::Joining(_) | Phase::Sealed(_) => {
                return Err(Failure::changed("not-open", format!("this vault is {}", phase.word())).into());
            }
        };
        let slots = Slots::load(&self.0.voter_dir()).map_err(disk)?;
        if slots.iter().any(|s| s.recipient == Recipient::Plain) {
            let f = Failure::changed(
                "autolock-off",
                "sealing does nothing while autolock is off: the disk key lies on the disk",
            );
            return Err(f.help("turn it on first: holdfast autolock on").into());
        }
        if let Some(cluster) = cluster {
            say_farewell(cluster).await;
        }
        self.0.seal.cancel();
        Ok(Response::new(v1::Ack {}))
    }
}

/// A voter's slots, as they are shown to whoever brought its cluster back.
pub fn shown(slots: &Slots, dir: &Path) -> v1::SlotBoxes {
    boxes_and_chain(slots, dir)
}
