//! `recover`: a cluster comes back on this empty machine, from a backup, by a Reset that its operators sign.
//!
//! Everything is made aside, in the folder of a founding, and put in place by one rename: whoever only asks what would come
//! back, and whoever is cut off, leaves nothing behind. Must never: see the recovery key, or go on without a good Reset.
//! Where a voter survived, `survivor` takes what is on its disk in place of a backup.

mod survivor;

use crate::backup::refuse;
use crate::disk::ident::Ident;
use crate::disk::keys::{self, DiskKey, DiskKeys};
use crate::disk::slots::{Recipient, Slots};
use crate::failure::{refused, stopped, unproposed};
use crate::found::{self, VOTER_DIR, disk, store_failed};
use crate::gate::Phase;
use crate::hsm;
use crate::keystore::{NewKey, Term, random32};
use crate::raft::{AuditStore, Node, Options, PeerNetwork, Store, Voter};
use crate::registry::Registry;
use crate::run::Daemon;
use holdfast_hsm::{Purpose, SoftwareKeys};
use holdfast_transport::failure::Failure;
use holdfast_transport::keys::PrivateKey;
use holdfast_types::{ClusterId, Secret, VoterId};
use holdfast_vault_core::prepare::{self, FoundingKeys, PlannedReset, Resetting};
use holdfast_vault_core::{Entropy, Keyring, State, command_voter};
use holdfast_wire::backup::{Content, Opener, Outline, StreamKey};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::charter::CharterChain;
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::merkle::{Frontier, leaf_hash};
use holdfast_wire::note::{Checkpoint, origin};
use holdfast_wire::statement;
use holdfast_wire::v1::{self, backup_part::Part, recover_part, recover_reply};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tonic::{Status, Streaming};
use zeroize::Zeroize as _;

/// Answers to whoever brings a cluster back.
pub type Replies = mpsc::Sender<Result<v1::RecoverReply, Status>>;

/// The next part comes within this time; an operator may think about a plan for longer.
const PATIENCE: Duration = Duration::from_secs(60);
const THINK: Duration = Duration::from_secs(3600);
/// The one voter leads within this time, or something is wrong.
const LEAD_WITHIN: Duration = Duration::from_secs(10);

fn malformed(what: &str) -> Failure {
    Failure::invalid("invalid-input", what.to_owned())
}

async fn next(s: &mut Streaming<v1::RecoverPart>, patience: Duration) -> Result<Option<recover_part::Part>, Failure> {
    let late = |_| Failure::unavailable("timed-out", "the next part did not come in time");
    let part = tokio::time::timeout(patience, s.message()).await.map_err(late)?.map_err(Failure::from)?;
    part.map(|p| p.part.ok_or_else(|| malformed("a part is empty"))).transpose()
}

/// Brings a cluster back, or says what would come back.
pub async fn recover(daemon: Arc<Daemon>, mut inbound: Streaming<v1::RecoverPart>, tx: Replies) -> Result<(), Failure> {
    let _door = daemon.gate.door.lock().await;
    let Some(recover_part::Part::Head(mut request)) = next(&mut inbound, PATIENCE).await? else {
        return Err(malformed("a recovery begins with its head"));
    };
    // Whichever way it goes, the request keeps no key.
    let (key, terms) = (stream_key_of(&mut request), terms_of(&mut request));
    if request.from_survivor {
        return survivor::recover(&daemon, &request, &mut inbound, &tx).await;
    }
    if !matches!(*daemon.gate.phase(), Phase::Uninitialized) {
        let f = Failure::changed("already-initialized", "this vault has a cluster already: nothing was changed");
        return Err(f.help("bring a cluster back with an empty state directory"));
    }
    let given = (key?, terms?);
    let state_dir = daemon.config.state_dir.clone();
    found::clean(&state_dir)?;
    let done = rebuild(&daemon, &state_dir, &request, given, &mut inbound, &tx).await;
    let new = match done {
        Ok(Some(new)) => new,
        Ok(None) => return found::clean(&state_dir),
        Err(e) => {
            found::clean(&state_dir)?;
            return Err(e);
        }
    };
    let not_yet = || Failure::unavailable("no-quorum", "a voter that is alone waits for nobody");
    let opening = daemon.open(new.slots, vec![new.disk_key]).await?;
    let cluster = opening.wait().await?.ok_or_else(not_yet)?;
    let dir = state_dir.join(VOTER_DIR);
    let slots = Slots::load(&dir).map_err(disk)?;
    let recovered = v1::Recovered {
        slots: Some(crate::grpc::local::shown(&slots, &dir)),
        service_addrs: vec![cluster.addrs.service.clone()],
        join_addrs: vec![cluster.addrs.join.clone()],
        ..cluster.look(|s| came_back(s, cluster.id))?
    };
    send(&tx, recover_reply::Step::Done(recovered)).await
}

/// What there is to say of a cluster that came back on `voter`, but for its slots and addresses.
fn came_back(s: &State, voter: VoterId) -> v1::Recovered {
    let id = s.cluster_id();
    let anchor = id.zip(s.signing_root()).map(|(id, root)| id.anchor(&root.der));
    v1::Recovered {
        cluster_id: id.map(|c| c.0.to_vec()).unwrap_or_default(),
        era: s.era(),
        voter_id: voter.0,
        anchor: anchor.map(|a| a.to_vec()).unwrap_or_default(),
        bundle_chain: s.bundle_chain(),
        resets: s.resets(),
        ..v1::Recovered::default()
    }
}

/// Public half of the unlock key that the new voter is to have; `None`: autolock off.
fn unlock_of(request: &v1::RecoverHead) -> Result<Option<[u8; 32]>, Failure> {
    match request.unlock_pk.as_slice() {
        [] => Ok(None),
        pk => <[u8; 32]>::try_from(pk).map(Some).map_err(|_| malformed("an unlock key has 32 bytes")),
    }
}

async fn send(tx: &Replies, step: recover_reply::Step) -> Result<(), Failure> {
    let left = |_| Failure::unavailable("disconnected", "the caller left");
    tx.send(Ok(v1::RecoverReply { step: Some(step) })).await.map_err(left)
}

/// From the first part to a disk that is in place; `None` if nobody signed.
async fn rebuild(
    daemon: &Daemon,
    state_dir: &Path,
    request: &v1::RecoverHead,
    (key, terms): (StreamKey, Vec<Term>),
    inbound: &mut Streaming<v1::RecoverPart>,
    tx: &Replies,
) -> Result<Option<found::Founded>, Failure> {
    let unlock_pk = unlock_of(request)?;
    let dir = found::making(state_dir)?;
    let Some(recover_part::Part::Backup(first)) = next(inbound, PATIENCE).await? else {
        return Err(malformed("a recovery goes on with a backup"));
    };
    let Some(Part::Head(head)) = first.part.clone() else { return Err(malformed("a backup begins with its head")) };
    let mut outline = Outline::default();
    outline.take(&first).map_err(refuse)?;
    let mut opener = Opener::new(&key, &head).map_err(refuse)?;
    let (mut content, mut ended) = (Content::new(&head), false);
    let mut made: Option<Made> = None;
    while !ended {
        let Some(recover_part::Part::Backup(part)) = next(inbound, PATIENCE).await? else {
            return Err(refuse(holdfast_wire::backup::BackupError::CutShort));
        };
        outline.take(&part).map_err(refuse)?;
        match &part.part {
            Some(Part::Chunk(chunk)) => {
                let plain = opener.open(chunk).map_err(refuse)?;
                let leaves = content.push(plain.expose()).map_err(refuse)?;
                if made.is_none()
                    && let Some(state) = content.state()
                {
                    made = Some(Made::begin(&dir, &head, state, unlock_pk)?);
                }
                if let Some(made) = &mut made {
                    made.leaves(&leaves)?;
                }
            }
            Some(Part::End(_)) => ended = true,
            Some(Part::Head(_)) | None => return Err(malformed("a backup's parts are not in order")),
        }
    }
    opener.finish().map_err(refuse)?;
    let state_bytes = content.finish().map_err(refuse)?;
    let made = made.ok_or_else(|| malformed("the backup holds no state"))?;
    made.check(&head, outline)?;
    let planned = made.plan(daemon, request, terms, head.checkpoint)?;
    let plan =
        v1::ResetPlan { reset: Some(planned.document().clone()), found: made.words(), ..v1::ResetPlan::default() };
    send(tx, recover_reply::Step::Plan(plan)).await?;
    let Some(recover_part::Part::Reset(signed)) = next(inbound, THINK).await? else { return Ok(None) };
    drop(made.commit(planned, &signed, &state_bytes).await?);
    let Made { slots, disk_key, store, audit, .. } = made;
    drop((store, audit));
    found::put_in_place(&dir, state_dir)?;
    Ok(Some(found::Founded { slots, disk_key }))
}

/// The key of the backup's stream that came with a request, which does not keep it.
fn stream_key_of(request: &mut v1::RecoverHead) -> Result<StreamKey, Failure> {
    let key = Secret::from_slice(&request.stream_key);
    request.stream_key.zeroize();
    key.ok_or_else(|| malformed("a stream's key has 32 bytes"))
}

/// The terms that came with a request, which keeps none of them.
fn terms_of(request: &mut v1::RecoverHead) -> Result<Vec<Term>, Failure> {
    let given = std::mem::take(&mut request.terms).into_iter().map(|mut t| {
        let key = Secret::from_slice(&t.key);
        t.key.zeroize();
        (t.term, key)
    });
    // All of them are taken before any is judged.
    let given: Vec<_> = given.collect();
    let whole = |(term, key): (u32, Option<_>)| key.map(|key| (term, key));
    given.into_iter().map(whole).collect::<Option<_>>().ok_or_else(|| malformed("a keyring term has 32 bytes"))
}

/// A voter's disk that is being made.
struct Made {
    dir: PathBuf,
    state: State,
    cluster: ClusterId,
    voter: VoterId,
    slots: Slots,
    disk_key: DiskKey,
    ident: Ident,
    store: Store,
    audit: AuditStore,
    tree: Frontier,
}

impl Made {
    fn begin(dir: &Path, head: &v1::BackupHead, state: &[u8], unlock_pk: Option<[u8; 32]>) -> Result<Self, Failure> {
        let corrupt = |why: String| Failure::failed("corrupt", why);
        let state = State::decode(state).map_err(|e| corrupt(e.to_string()))?;
        let cluster = state.cluster_id().ok_or_else(|| corrupt("the backup is of no cluster".to_owned()))?;
        let chain = CharterChain::verify(&state.charter_chain()).map_err(|e| corrupt(e.to_string()))?;
        if *chain.cluster() != cluster || head.cluster_id != cluster.0 || state.era() != head.era {
            return Err(Failure::failed("wrong-cluster", "the backup's state is not of the cluster that it names"));
        }
        Self::of(dir, state, cluster, unlock_pk)
    }

    /// The disk of the next voter of a cluster with this state; its log is empty still.
    fn of(dir: &Path, state: State, cluster: ClusterId, unlock_pk: Option<[u8; 32]>) -> Result<Self, Failure> {
        let voter = state.next_voter();
        let recovery = state.charter().recovery.clone().unwrap_or_default().public_key;
        let disk_key = keys::generate().map_err(disk)?;
        let mut slots = Slots::create(cluster, voter, &disk_key, state.charter().version, &recovery).map_err(disk)?;
        let epoch = state.next_unlock_epoch();
        match unlock_pk {
            Some(pk) => slots.seal_to(1, &disk_key, Recipient::Unlock { epoch }, &pk).map_err(disk)?,
            None => slots.add_plain(1, &disk_key).map_err(disk)?,
        }
        slots.store(dir).map_err(disk)?;
        let disk_keys: Arc<DiskKeys> = Arc::new(slots.open(vec![disk_key.duplicate()]).map_err(disk)?);
        let ident = found::new_ident()?;
        ident.store(dir, &disk_keys).map_err(disk)?;
        let store = Store::create(dir, disk_keys).map_err(store_failed)?;
        let audit = store.audit();
        let (dir, tree) = (dir.to_owned(), Frontier::default());
        Ok(Self { dir, state, cluster, voter, slots, disk_key, ident, store, audit, tree })
    }

    fn leaves(&mut self, leaves: &[Vec<u8>]) -> Result<(), Failure> {
        let (mut rows, mut nodes): (Vec<(u64, Vec<u8>)>, Vec<Node>) = (Vec::new(), Vec::new());
        for leaf in leaves {
            let (salt, entry) = leaf.split_at_checked(32).ok_or_else(|| malformed("a leaf is too short"))?;
            rows.push((self.tree.size(), leaf.clone()));
            nodes.extend(self.tree.push(leaf_hash(salt, entry)).into_iter().map(|n| (n.level, n.index, n.hash.0)));
        }
        self.audit.append(&rows, &nodes).map_err(store_failed)
    }

    /// The log is the one that the state and the signed checkpoint speak of, and the backup is what was signed.
    fn check(&self, head: &v1::BackupHead, outline: Outline) -> Result<(), Failure> {
        let bundles = self.state.bundle_chain();
        let bundles = bundles.iter().filter_map(|st| statement::peek::<v1::Bundle>(st).ok());
        let keys: Vec<v1::PublicKey> = bundles.flat_map(|b| b.stks).filter_map(|s| s.key).collect();
        outline.finish(&keys).map_err(refuse)?;
        let domain = self.state.trust_domain().map(ToString::to_string).unwrap_or_default();
        let noted = Checkpoint::verify(&head.checkpoint, &origin(&domain, head.era), &keys);
        let noted = noted.map_err(|e| Failure::failed("log-wrong", e.to_string()))?;
        let log = (self.tree.size(), self.tree.root());
        if log != self.state.log_head() || log != (noted.size, noted.root) {
            return Err(Failure::failed("log-wrong", "the backup's log is not the one that was signed"));
        }
        Ok(())
    }

    fn plan(
        &self,
        daemon: &Daemon,
        request: &v1::RecoverHead,
        mut terms: Vec<Term>,
        checkpoint: Vec<u8>,
    ) -> Result<PlannedReset, Failure> {
        let lacks = self.state.recovery_terms().find(|(term, _)| !terms.iter().any(|(t, _)| t == term));
        if let Some((term, _)) = lacks {
            return Err(Failure::refused("bad-key", format!("term {term} of the keyring was not opened")));
        }
        let active = self.state.active_term().saturating_add(1);
        terms.push((active, Secret::take(&mut random32()?)));
        let keyring = Keyring::open_all(self.cluster, Secret::take(&mut random32()?), terms, active);
        let newest = self.state.newest_stk().ok_or_else(|| malformed("the backup holds no statement key"))?;
        let wrong = |_| Failure::refused("bad-key", "the keyring terms do not open what the backup holds");
        keyring.open("stk", &newest.key.name, 1, &newest.key.record).map_err(wrong)?;
        let port = Arc::new(SoftwareKeys::new());
        let made = |purpose, name: &str| NewKey::make(&port, None, purpose, name).map_err(|e| hsm::failure(&e));
        let (root, issuer) = (made(Purpose::Root, "root/new")?, made(Purpose::Issuer, "issuer/new")?);
        let stk = Ed25519Key::from_seed(Secret::take(&mut random32()?));
        let founding = FoundingKeys {
            root: &root.signer,
            root_key: root.rests(),
            issuer: &issuer.signer,
            issuer_key: issuer.rests(),
            stk: &stk,
        };
        let bad = |e: String| Failure::failed("corrupt", e);
        let tls = PrivateKey::from_pkcs8(self.ident.tls_key.expose()).map_err(|e| bad(e.to_string()))?;
        let mut entropy = Entropy::new(random32()?);
        let now = self.state.time(holdfast_transport::now());
        let resetting = Resetting {
            state: &self.state,
            keys: &keyring,
            made: &founding,
            voter: command_voter(self.voter, derive_keypair(self.ident.kem_ikm.expose()).1),
            spki: tls.spki_sha256(),
            unlock_pk: unlock_of(request)?,
            checkpoint,
            reason: request.reason.clone(),
            removed: request.removed.clone(),
            compromised: request.compromised,
        };
        prepare::plan_reset(resetting, daemon.config.lives.issuer, now, &mut entropy).map_err(refused)
    }

    fn words(&self) -> Vec<v1::Field> {
        let now = holdfast_transport::now();
        let view = self.state.status_view(now);
        let nodes: Vec<String> = view.nodes.iter().map(|n| format!("{} {}", n.count, n.state)).collect();
        let words = [
            ("cluster", self.cluster.hex()),
            ("era", self.state.era().saturating_add(1).to_string()),
            ("log_entries", view.log_size.to_string()),
            ("nodes", nodes.join(", ")),
            ("secrets", view.secrets.to_string()),
            ("services", view.services.to_string()),
            ("voter", self.voter.to_string()),
        ];
        words.into_iter().map(|(name, value)| v1::Field { name: name.to_owned(), value }).collect()
    }

    /// Starts the log after the state, and makes the Reset its first entry.
    async fn commit(
        &self,
        planned: PlannedReset,
        signed: &v1::Statement,
        state: &[u8],
    ) -> Result<v1::Recovered, Failure> {
        self.store.seed(self.voter, state).map_err(store_failed)?;
        let (events, _) = broadcast::channel(16);
        let machine = Registry::new(self.audit.clone(), events);
        let options = Options { id: self.voter, snapshot_every: 10_000 };
        let failed = |e: crate::raft::StartError| Failure::failed("raft", e.to_string());
        let voter = Voter::start(self.store.clone(), machine, &options, PeerNetwork::alone()).await.map_err(failed)?;
        let leads = voter.until(LEAD_WITHIN, |s| s.leader == Some(self.voter)).await;
        let done = match leads.map_err(stopped)? {
            Some(_) => self.propose(&voter, planned, signed).await,
            None => Err(Failure::unavailable("no-leader", "the voter does not lead")),
        };
        voter.shutdown().await;
        tracing::info!(dir = %self.dir.display(), voter = self.voter.0, "a cluster was brought back");
        done
    }

    async fn propose(
        &self,
        voter: &Voter<Registry>,
        planned: PlannedReset,
        signed: &v1::Statement,
    ) -> Result<v1::Recovered, Failure> {
        let now = self.state.time(holdfast_transport::now());
        let p = planned.complete(signed, now, &mut Entropy::new(random32()?)).map_err(refused)?;
        voter.proposer().propose(p.command.encode()).await.map_err(unproposed)?.map_err(refused)?;
        voter.machine().read(|r| came_back(r.state(), self.voter)).map_err(stopped)
    }
}
