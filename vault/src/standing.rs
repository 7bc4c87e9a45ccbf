//! A voter whose disk is open, from before it takes part until it ends: its log, its peers, and what it answers them.

use crate::cluster::Cluster;
use crate::disk::boot::{self, Boot};
use crate::disk::ident::Ident;
use crate::disk::keys::DiskKeys;
use crate::disk::slots::Slots;
use crate::failure::{WHOLE, stopped, unproposed};
use crate::found::disk;
use crate::gate::Waits;
use crate::hsm::Token;
use crate::joining;
use crate::peers::Peers;
use crate::raft::{AuditStore, Options, PeerNetwork, PeerRpc, SentSnapshot, Store, StoreError, Voter, Wire, WireError};
use crate::registry::{Events, Registry};
use crate::unsaid::Unsaid;
use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use holdfast_pki::chain::Anchors;
use holdfast_transport::failure::Failure;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::tls::peers::{PeerPins, PeerTls, PinSays};
use holdfast_transport::tls::{IdentityCell, LocalIdentity, TrustCell};
use holdfast_types::{Digest, VoterId};
use holdfast_vault_core::prepare::{PeerPin, peer_pin};
use holdfast_vault_core::{VoterRow, VoterState};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Changes that a watcher may lag behind before it has to start over.
const EVENTS: usize = 16_384;
/// How long a founding voter has for its first lead.
const FIRST_LEAD: Duration = Duration::from_secs(10);
/// The code of a voter that never takes part again.
pub const ROLLED_BACK: &str = "rolled-back";

/// An open disk and what runs on it.
pub struct Standing {
    /// This voter.
    pub id: VoterId,
    /// This opening of its disk.
    pub boot: Boot,
    /// Its log and state.
    pub voter: Voter<Registry>,
    /// The way to the others.
    pub peers: Arc<Peers>,
    /// Its store.
    pub store: Store,
    /// Leaves and Merkle nodes.
    pub audit: AuditStore,
    /// What opens its disk.
    pub disk_keys: Arc<DiskKeys>,
    /// Where its disk is, and what lies beside it.
    pub dir: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// How voters do TLS with each other.
    pub tls: PeerTls,
    /// Its TLS identity.
    pub identity: Arc<IdentityCell>,
    /// Trusted roots.
    pub trust: Arc<TrustCell>,
    /// What changed, for those who watch.
    pub events: broadcast::Sender<Events>,
    /// Cancelled when this voter stops taking part: its listeners and tasks end.
    pub at_work: CancellationToken,
    /// What the leader is to hear, once.
    pub unsaid: Arc<Unsaid>,
    /// The token, if one is configured.
    pub token: Option<Arc<Token>>,
    /// Why it is not at work yet.
    pub waits: Waits,
    late: Arc<Late>,
    cluster: OnceLock<Weak<Cluster>>,
}

/// The way to the others, which comes after the log: whom to believe stands in the state.
///
/// The way knows whom to believe from the state, and the state's log knows the way: cut when this voter ends, or the two
/// would keep each other, and the store, for ever.
#[derive(Default)]
struct Late(ArcSwapOption<Arc<dyn Wire>>);

impl Late {
    fn wire(&self) -> Result<Arc<dyn Wire>, WireError> {
        let wire = self.0.load_full().ok_or_else(|| WireError("this voter is starting or has ended".to_owned()))?;
        Ok(Arc::clone(&wire))
    }
}

impl Wire for Late {
    fn call<'a>(
        &'a self,
        to: VoterId,
        addr: &'a str,
        rpc: PeerRpc,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<Vec<u8>, WireError>> {
        Box::pin(async move { self.wire()?.call(to, addr, rpc, body).await })
    }
    fn snapshot<'a>(
        &'a self,
        to: VoterId,
        addr: &'a str,
        snapshot: SentSnapshot,
    ) -> BoxFuture<'a, Result<Vec<u8>, WireError>> {
        Box::pin(async move { self.wire()?.snapshot(to, addr, snapshot).await })
    }
    fn granted(&self, to: VoterId, term: u64) {
        if let Ok(wire) = self.wire() {
            wire.granted(to, term);
        }
    }
}

/// The pins of voters' keys, from the state.
struct Pins {
    voter: Voter<Registry>,
    me: VoterId,
    /// Who was there when this voter was admitted.
    told: BTreeSet<VoterId>,
}

impl PeerPins for Pins {
    fn pin(&self, id: u64, spki: &Digest) -> PinSays {
        let looked = self.voter.machine().read(|r| {
            let knows_somebody = r.state().last_voter() > VoterId(0);
            (knows_somebody, peer_pin(r.state(), VoterId(id), spki))
        });
        let id = VoterId(id);
        match looked {
            Ok((_, PeerPin::Member)) => PinSays::Member,
            // Without a state every number is a newer one, also that of a voter that was evicted long ago.
            Ok((knows_somebody, PeerPin::Newer)) if knows_somebody || is_told(id, self.me, &self.told) => {
                PinSays::Newer
            }
            // Raft needs it until the change that takes it out is committed: two voters agree that one of them goes.
            Ok((_, PeerPin::Leaving)) if self.voter.members().has(id) => PinSays::Member,
            Ok((_, PeerPin::Leaving | PeerPin::Evicted)) => PinSays::No(format!("voter {id} was evicted")),
            Ok((_, PeerPin::Newer)) => PinSays::No(format!("voter {id} was not there when this voter was admitted")),
            Ok((_, PeerPin::Unknown)) => PinSays::No(format!("this is not the key of voter {id}")),
            Err(e) => PinSays::No(e.to_string()),
        }
    }
}

/// Whether a voter without a state may meet `id`: it was there when this voter was admitted, or was admitted later.
fn is_told(id: VoterId, me: VoterId, told: &BTreeSet<VoterId>) -> bool {
    id > me || told.contains(&id)
}

/// A store that cannot be used: one that was set back is told from a damaged one.
fn unusable(e: StoreError) -> Failure {
    if let StoreError::SetBack { .. } | StoreError::Out = e {
        return rolled_back(&e.to_string());
    }
    if let StoreError::File(e) = e {
        return disk(e);
    }
    Failure::failed("corrupt", e.to_string())
}

/// How long the tasks of an earlier opening of this process may take to let go of the store.
const LET_GO: Duration = Duration::from_secs(5);

async fn open_store(dir: &Path, keys: &Arc<DiskKeys>) -> Result<Store, StoreError> {
    let until = tokio::time::Instant::now() + LET_GO;
    loop {
        match Store::open(dir, Arc::clone(keys)) {
            Err(e) if e.is_in_use() && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            opened => return opened,
        }
    }
}

impl Standing {
    /// Opens the disk, counts the boot and starts the log. Nothing goes out to peers yet.
    pub async fn start(
        slots: &Slots,
        keys: Vec<crate::disk::keys::DiskKey>,
        (state_dir, dir): (PathBuf, PathBuf),
        snapshot_every: u64,
        at_work: CancellationToken,
        unsaid: Arc<Unsaid>,
        token: Option<Arc<Token>>,
    ) -> Result<(Arc<Self>, broadcast::Receiver<Events>), Failure> {
        let id = slots.voter();
        let disk_keys = Arc::new(slots.open(keys).map_err(disk)?);
        let ident = Ident::load(&dir, &disk_keys).map_err(disk)?;
        let store = open_store(&dir, &disk_keys).await.map_err(unusable)?;
        let boot = boot::begin(&store, &state_dir).map_err(unusable)?;
        let audit = store.audit();
        let (events, first) = broadcast::channel(EVENTS);
        let identity = IdentityCell::empty();
        let own = identity_of(&ident)?;
        let late = Arc::new(Late::default());
        let options = Options { id, snapshot_every };
        let machine = Registry::new(audit.clone(), events.clone());
        let network = PeerNetwork::new(Arc::clone(&late) as Arc<dyn Wire>);
        let voter = Voter::start(store.clone(), machine, &options, network).await;
        let voter = voter.map_err(|e| Failure::failed("raft", e.to_string()))?;
        // The answer comes from the running log: from here on what is known of the membership is what lies on the disk.
        voter.is_founded().await.map_err(stopped)?;
        if own.is_none() {
            // The founding voter, which is alone: its founding is applied for certain once it leads.
            voter.until(FIRST_LEAD, |s| s.leader == Some(id)).await.map_err(stopped)?;
            voter.confirm_leading().await.map_err(unproposed)?;
        }
        let trust = TrustCell::new(anchors(&voter, own.as_ref(), &ident)?);
        if let Some(own) = own {
            identity.swap(own);
        }
        let told = joining::known_peers(&state_dir)?.into_keys().collect();
        let pins = Arc::new(Pins { voter: voter.clone(), me: id, told });
        let tls = PeerTls::new(Arc::clone(&identity), Arc::clone(&trust), pins);
        let peers = Peers::new(id, &boot, tls.clone());
        late.0.store(Some(Arc::new(peers.wire())));
        let cluster = OnceLock::new();
        let standing = Self {
            id,
            boot,
            voter,
            peers,
            store,
            audit,
            disk_keys,
            dir,
            state_dir,
            tls,
            identity,
            trust,
            events,
            at_work,
            unsaid,
            token,
            waits: Waits::default(),
            late,
            cluster,
        };
        Ok((Arc::new(standing), first))
    }

    /// Whether it decides alone: no other voter has to be asked, or waited for.
    pub fn is_alone(&self) -> bool {
        self.voter.members().voters() == BTreeSet::from([self.id])
    }

    /// The voter at work, once it is.
    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.get().and_then(Weak::upgrade)
    }

    /// From now on `cluster` answers what only a leader can.
    pub fn serves(&self, cluster: &Arc<Cluster>) {
        self.cluster.get_or_init(|| Arc::downgrade(cluster));
    }

    /// Believes the roots that the state names.
    pub fn renew_trust(&self) -> Result<(), Failure> {
        let known = self.voter.machine().read(|r| (r.state().roots_der(), r.state().trust_domain().cloned()));
        if let (roots, Some(td)) = known.map_err(stopped)? {
            self.trust.swap(Anchors::new(&roots, td).map_err(|e| Failure::failed("corrupt", e.to_string()))?);
        }
        Ok(())
    }

    /// Where the other voters are, as far as is known here.
    pub fn others(&self) -> Result<BTreeMap<VoterId, String>, Failure> {
        let mut addrs = joining::known_peers(&self.state_dir)?;
        addrs.extend(self.voter.members().addrs);
        let rows = self.voter.machine().read(|r| {
            let said = |(id, v): (VoterId, &VoterRow)| (id, v.peer_addr.clone());
            r.state().voters().map(said).collect::<Vec<_>>()
        });
        addrs.extend(rows.map_err(stopped)?.into_iter().filter(|(_, addr)| !addr.is_empty()));
        let members = self.voter.members();
        let known =
            self.voter.machine().read(|r| (r.state().last_voter(), r.state().voters().map(|(id, _)| id).collect()));
        let (last, here): (VoterId, BTreeSet<VoterId>) = known.map_err(stopped)?;
        // What a voter was told when it was admitted counts no more once its state says who there is.
        let takes_part = |id: &VoterId| last == VoterId(0) || *id > last || here.contains(id) || members.has(*id);
        addrs.retain(|id, addr| *id != self.id && !addr.is_empty() && takes_part(id));
        Ok(addrs)
    }

    /// Whether another voter said that it has heard a later process of this one, or this one was evicted.
    pub fn was_set_back(&self) -> bool {
        self.peers.rolled_back().is_cancelled()
    }

    /// Whether this voter knows that it was evicted.
    pub fn is_evicted(&self) -> bool {
        let row = self.voter.machine().read(|r| r.state().voter(self.id).map(|v| v.state));
        matches!(row, Ok(Some(VoterState::Evicted)))
    }

    /// Hands leadership to another voter: one that was evicted, or cannot open its keyring, does nothing with it.
    pub async fn lead_no_more(&self) {
        let matched = self.voter.matched();
        let stay = self.voter.members().voters_to_be().into_iter().filter(|v| *v != self.id);
        let Some(to) = stay.max_by_key(|v| matched.get(v).copied()) else { return };
        if let Err(e) = self.voter.transfer_leader(to).await {
            tracing::warn!(to = to.0, "leadership was not handed over: {e}");
        }
    }

    /// Why this voter never takes part again.
    pub fn why_over(&self) -> Failure {
        rolled_back(if self.is_evicted() { "it was evicted" } else { "others have heard a later process of it" })
    }

    /// Stops taking part.
    pub async fn end(&self) {
        self.at_work.cancel();
        self.voter.clone().shutdown().await;
        self.late.0.store(None);
    }

    /// Stops taking part for ever, and the disk says so: the next start would be the newest one that anybody has heard.
    pub async fn end_for_good(&self) {
        self.end().await;
        if let Err(e) = boot::out(&self.store, &self.state_dir, self.boot) {
            tracing::error!("the disk does not say that this voter never takes part again: {e}");
        }
    }

    /// Stops taking part in order: nothing is written after this, and the disk says so.
    pub async fn rest(&self) {
        self.end().await;
        if let Err(e) = boot::rest(&self.store, &self.state_dir, self.boot) {
            tracing::warn!("the disk does not say that this voter stopped in order: {e}");
        }
    }
}

/// This voter stops before it was open.
pub fn given_up() -> Failure {
    Failure::unavailable("stopped", "this voter was stopped before it was open")
}

/// The failure of a voter whose disk must not be used any more.
pub fn rolled_back(why: &str) -> Failure {
    Failure::changed(ROLLED_BACK, format!("this voter never takes part again: {why}")).help(WHOLE)
}

/// The identity on the disk; `None` before the first certificate.
fn identity_of(ident: &Ident) -> Result<Option<LocalIdentity>, Failure> {
    if ident.chain.is_empty() {
        return Ok(None);
    }
    let key = PrivateKey::from_pkcs8(ident.tls_key.expose()).map_err(|e| Failure::failed("corrupt", e.to_string()))?;
    let own = LocalIdentity::new(&ident.chain, &key).map_err(|e| Failure::failed("identity", e.to_string()))?;
    Ok(Some(own))
}

/// The roots that the state names; of a voter that has no state yet, the one above its own certificate.
fn anchors(voter: &Voter<Registry>, own: Option<&LocalIdentity>, ident: &Ident) -> Result<Anchors, Failure> {
    let corrupt = |e: &dyn std::fmt::Display| Failure::failed("corrupt", e.to_string()).help(WHOLE);
    let known = voter.machine().read(|r| (r.state().roots_der(), r.state().trust_domain().cloned()));
    if let (roots, Some(td)) = known.map_err(stopped)? {
        return Anchors::new(&roots, td).map_err(|e| corrupt(&e));
    }
    // Above the issuer stands the root that signs, by itself or certified by another one: the key is the same.
    let (own, root) = own.zip(ident.chain.get(2)).ok_or_else(|| corrupt(&"this disk holds no founded cluster"))?;
    Anchors::new(&[root], own.id().trust_domain.clone()).map_err(|e| corrupt(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_without_a_state_meets_those_it_was_told_of_and_those_who_came_later() {
        let told = BTreeSet::from([VoterId(1), VoterId(3)]);
        let met: Vec<u64> = (1..=7).filter(|id| is_told(VoterId(*id), VoterId(5), &told)).collect();
        assert_eq!(met, [1, 3, 6, 7], "2 and 4 were evicted before it came");
    }
}
