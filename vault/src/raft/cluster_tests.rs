//! Voters over a network in memory: who leads, who follows, who is heard.

use super::message::samples;
use super::testing::*;
use super::*;
use futures::future::BoxFuture;
use holdfast_types::VoterId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The network: who is there, and who is cut off.
#[derive(Default)]
struct Net {
    there: Mutex<BTreeMap<u64, Arc<dyn Receiver>>>,
    cut: Mutex<BTreeSet<u64>>,
    /// Pre-votes asked for, by who asked and whether they arrived.
    pre_votes: Mutex<BTreeMap<(u64, bool), usize>>,
    snapshots: AtomicUsize,
    granted: Mutex<BTreeSet<(u64, u64)>>,
}

impl Net {
    fn cut_off(&self, id: u64) {
        self.cut.lock().unwrap().insert(id);
    }
    fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
    fn to(&self, from: u64, to: u64) -> Result<Arc<dyn Receiver>, WireError> {
        let cut = self.cut.lock().unwrap();
        let lost = || WireError("nobody answers".into());
        if cut.contains(&from) || cut.contains(&to) {
            return Err(lost());
        }
        self.there.lock().unwrap().get(&to).cloned().ok_or_else(lost)
    }
    fn pre_votes(&self, from: u64, arrived: bool) -> usize {
        self.pre_votes.lock().unwrap().get(&(from, arrived)).copied().unwrap_or_default()
    }
}

struct Way {
    me: u64,
    net: Arc<Net>,
}

impl Wire for Way {
    fn call<'a>(
        &'a self,
        to: VoterId,
        addr: &'a str,
        rpc: PeerRpc,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<Vec<u8>, WireError>> {
        Box::pin(async move {
            assert_eq!(addr, format!("memory:{to}"));
            let way = self.net.to(self.me, to.0);
            if rpc == PeerRpc::PreVote {
                *self.net.pre_votes.lock().unwrap().entry((self.me, way.is_ok())).or_default() += 1;
            }
            way?.receive(rpc, VoterId(self.me), &body).await.map_err(|e| WireError(e.to_string()))
        })
    }
    fn snapshot<'a>(
        &'a self,
        to: VoterId,
        _: &'a str,
        snapshot: SentSnapshot,
    ) -> BoxFuture<'a, Result<Vec<u8>, WireError>> {
        Box::pin(async move {
            let way = self.net.to(self.me, to.0)?;
            self.net.snapshots.fetch_add(1, Ordering::SeqCst);
            let taken = way.receive_snapshot(VoterId(self.me), &snapshot.vote, &snapshot.meta, snapshot.data).await;
            taken.map_err(|e| WireError(e.to_string()))
        })
    }
    fn granted(&self, to: VoterId, term: u64) {
        self.net.granted.lock().unwrap().insert((to.0, term));
    }
}

struct World {
    dir: tempfile::TempDir,
    net: Arc<Net>,
    voters: BTreeMap<u64, Voter<Recorder>>,
    stores: BTreeMap<u64, Store>,
    snapshot_every: u64,
}

impl World {
    /// Voter 1, who leads.
    async fn one(snapshot_every: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (voters, stores) = (BTreeMap::new(), BTreeMap::new());
        let mut world = Self { dir, net: Arc::default(), voters, stores, snapshot_every };
        world.begin(1).await;
        world[1].found("memory:1").await.unwrap();
        settled(&world[1], |s| s.state == ServerState::Leader).await;
        // The membership changes only once the leader has committed something of its own.
        world[1].confirm_leading().await.unwrap();
        world
    }

    /// Voters 1, 2 and 3, of whom one leads.
    async fn three() -> Self {
        let mut world = Self::one(1000).await;
        for id in [2, 3] {
            world.begin(id).await;
            world[1].add_learner(VoterId(id), &format!("memory:{id}")).await.unwrap();
        }
        world[1].set_voters(&[1, 2, 3].map(VoterId).into()).await.unwrap();
        for id in [1, 2, 3] {
            eventually("all three vote", || world[id].members().configs == [BTreeSet::from([1, 2, 3].map(VoterId))])
                .await;
        }
        world
    }

    async fn begin(&mut self, id: u64) {
        let store = Store::create(&self.dir.path().join(format!("voter-{id}")), keys(id, 9)).unwrap();
        self.stores.insert(id, store.clone());
        self.run(id, store).await;
    }

    /// Ends voter `id`, and starts it over the same store.
    async fn again(&mut self, id: u64) {
        self.net.there.lock().unwrap().remove(&id);
        self.voters.remove(&id).unwrap().shutdown().await;
        self.run(id, self.stores[&id].clone()).await;
    }

    async fn run(&mut self, id: u64, store: Store) {
        let options = Options { id: VoterId(id), snapshot_every: self.snapshot_every };
        let network = PeerNetwork::new(Arc::new(Way { me: id, net: Arc::clone(&self.net) }));
        let voter = Voter::start(store, Recorder::default(), &options, network).await.unwrap();
        self.net.there.lock().unwrap().insert(id, voter.receiver());
        self.voters.insert(id, voter);
    }

    /// Who leads, as `of` all agree, and its term.
    async fn leader(&self, of: &[u64]) -> (u64, u64) {
        let agreed = || {
            let said: BTreeSet<_> = of.iter().map(|id| self[*id].status()).map(|s| (s.leader, s.term)).collect();
            said.len() == 1 && said.first().unwrap().0.is_some_and(|l| of.contains(&l.0))
        };
        eventually("one leads", agreed).await;
        let s = self[of[0]].status();
        (s.leader.unwrap().0, s.term)
    }

    async fn propose(&self, by: u64, number: u64) {
        self[by].proposer().propose(number.to_be_bytes().to_vec()).await.unwrap();
    }

    async fn have(&self, ids: &[u64], commands: &[u64]) {
        for id in ids {
            let machine = self[*id].machine();
            let has = || machine.read(|m| m.commands == commands).unwrap();
            eventually("a voter has applied what the others have", has).await;
        }
    }
}

impl std::ops::Index<u64> for World {
    type Output = Voter<Recorder>;
    fn index(&self, id: u64) -> &Voter<Recorder> {
        &self.voters[&id]
    }
}

/// Waits until `event`, or fails after a time that no working machine needs.
async fn eventually(what: &str, event: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !event() {
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// It may have sent entries that never reached its own disk: as leader of the same term it would give their numbers to others.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_starts_again_does_not_lead_before_it_is_elected_in_a_new_term() {
    let mut world = World::three().await;
    let (leader, term) = world.leader(&[1, 2, 3]).await;
    world.propose(leader, 0).await;
    // Nobody else can be elected meanwhile.
    (1..=3).for_each(|id| world.net.cut_off(id));
    world.again(leader).await;
    assert!(world[leader].is_founded().await.unwrap());
    let now = world[leader].status();
    assert!(now.state != ServerState::Leader && now.leader != Some(VoterId(leader)), "{now:?}");
    world.net.heal();
    let (next, later) = world.leader(&[1, 2, 3]).await;
    assert!(later > term, "voter {leader} goes on with the term {term} in which it was ended");
    world.propose(next, 1).await;
    world.have(&[1, 2, 3], &[0, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_voter_commits_all_three_apply() {
    let world = World::three().await;
    let (leader, _) = world.leader(&[1, 2, 3]).await;
    for n in 0..20 {
        world.propose(leader, n).await;
    }
    world.have(&[1, 2, 3], &(0..20).collect::<Vec<_>>()).await;
    world[leader].confirm_leading().await.unwrap();
    let follower = 1 + leader % 3;
    let told = world[follower].proposer().propose(vec![0; 8]).await;
    assert_eq!(told, Err(ProposeError::NotLeader { leader, address: format!("memory:{leader}") }));
    let last = world[leader].status().last_log.unwrap();
    let has = |id: u64| world[leader].matched().get(&VoterId(id)).is_some_and(|m| *m >= last);
    let matched = || [1, 2, 3].into_iter().filter(|id| *id != leader).all(has);
    eventually("the leader knows how far each has got", matched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_majority_goes_on_without_its_leader_who_follows_when_it_is_back() {
    let world = World::three().await;
    let (old, term) = world.leader(&[1, 2, 3]).await;
    world.propose(old, 7).await;
    world.net.cut_off(old);
    let rest: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != old).collect();
    let changed = || rest.iter().all(|id| world[*id].status().leader.is_some_and(|l| l.0 != old));
    eventually("another one leads", changed).await;
    let (new, newer) = world.leader(&rest).await;
    assert!(newer > term);
    assert!(world.net.granted.lock().unwrap().iter().any(|(to, in_term)| *to != old && *in_term == newer));
    assert!(world[new].last_vote_term() >= newer);
    world.propose(new, 8).await;
    world.have(&rest, &[7, 8]).await;
    let read = tokio::time::timeout(Duration::from_secs(2), world[old].confirm_leading()).await;
    assert!(!matches!(read, Ok(Ok(()))), "nobody reads from a leader that was left behind");
    world.net.heal();
    world.have(&[old], &[7, 8]).await;
    world.leader(&[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_was_away_does_not_raise_the_term_when_it_returns() {
    let world = World::three().await;
    let (leader, term) = world.leader(&[1, 2, 3]).await;
    let away = 1 + leader % 3;
    world.net.cut_off(away);
    eventually("it asks for votes in vain", || world.net.pre_votes(away, false) >= 6).await;
    assert_eq!(world[away].last_vote_term(), term, "nobody granted it a candidacy");
    world.propose(leader, 1).await;
    world.net.heal();
    world.have(&[1, 2, 3], &[1]).await;
    assert_eq!(world.leader(&[1, 2, 3]).await, (leader, term));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stands_at_once_leads_without_an_election_timeout_and_disturbs_no_leader() {
    let mut world = World::three().await;
    let (old, term) = world.leader(&[1, 2, 3]).await;
    world.propose(old, 0).await;
    world.have(&[1, 2, 3], &[0]).await;
    (1..=3).for_each(|id| world.net.cut_off(id));
    for id in [1, 2, 3] {
        world.again(id).await;
        assert!(world[id].is_founded().await.unwrap());
        // No timer of raft's own calls for an election from here on.
        world[id].raft.runtime_config().elect(false);
    }
    world.net.heal();
    // One that is not to stand does not.
    let asked = world.net.pre_votes(1, true);
    world[1].stand(false);
    world[1].stand_now().await.unwrap();
    world[2].stand_now().await.unwrap();
    let (next, later) = world.leader(&[1, 2, 3]).await;
    assert!(next == 2 && later > term, "voter {next} leads in term {later} after {term}");
    assert_eq!(world.net.pre_votes(1, true), asked);
    // Where one leads, nothing changes.
    world[3].stand_now().await.unwrap();
    world.propose(2, 1).await;
    world.have(&[1, 2, 3], &[0, 1]).await;
    assert_eq!(world.leader(&[1, 2, 3]).await, (2, later));
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_to_whom_it_is_handed() {
    let world = World::three().await;
    let (old, _) = world.leader(&[1, 2, 3]).await;
    let heir = 1 + old % 3;
    world.propose(old, 1).await;
    world.have(&[1, 2, 3], &[1]).await;
    world[old].transfer_leader(VoterId(heir)).await.unwrap();
    eventually("the heir leads", || world[heir].status().state == ServerState::Leader).await;
    assert_eq!(world.leader(&[1, 2, 3]).await.0, heir);
    world.propose(heir, 2).await;
    world.have(&[1, 2, 3], &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_from_behind_the_log_begins_with_a_snapshot() {
    let mut world = World::one(20).await;
    for n in 0..100 {
        world.propose(1, n).await;
    }
    settled(&world[1], |s| s.purged.is_some_and(|p| p > 50)).await;
    world.begin(2).await;
    world[1].add_learner(VoterId(2), "memory:2").await.unwrap();
    world.have(&[2], &(0..100).collect::<Vec<_>>()).await;
    assert!(world.net.snapshots.load(Ordering::SeqCst) > 0);
    let followed = || world[1].members().learners == BTreeSet::from([VoterId(2)]);
    eventually("it is a learner", followed).await;
    assert_eq!(world[1].members().voters(), BTreeSet::from([VoterId(1)]));
    world.propose(1, 100).await;
    world.have(&[2], &(0..=100).collect::<Vec<_>>()).await;
    world[1].remove_learner(VoterId(2)).await.unwrap();
    let alone = || world[1].members().addrs == BTreeMap::from([(VoterId(1), "memory:1".to_owned())]);
    eventually("it is out", alone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_voters_that_is_half_done_counts_both_sides_and_is_finished() {
    let mut world = World::one(1000).await;
    world.begin(2).await;
    world[1].add_learner(VoterId(2), "memory:2").await.unwrap();
    world.propose(1, 0).await;
    world.have(&[2], &[0]).await;
    world.net.cut_off(2);
    let (voter, both) = (world[1].clone(), BTreeSet::from([1, 2].map(VoterId)));
    let wanted = both.clone();
    let change = tokio::spawn(async move { voter.set_voters(&wanted).await });
    eventually("the change to be half done", || world[1].members().is_joint()).await;
    let m = world[1].members();
    assert_eq!((m.voters(), m.voters_to_be()), (both.clone(), both.clone()));
    assert!(!m.are_decided_by(&BTreeSet::from([VoterId(1)])), "the old voter alone decides nothing any more");
    assert!(m.are_decided_by(&both));
    world.net.heal();
    change.await.unwrap().unwrap();
    eventually("both vote", || [1, 2].iter().all(|id| world[*id].members().configs == [both.clone()])).await;
    // And out again: it counts until it is known that nobody needs it.
    world.net.cut_off(2);
    let voter = world[1].clone();
    let change = tokio::spawn(async move { voter.set_voters(&BTreeSet::from([VoterId(1)])).await });
    eventually("its going to be half done", || world[1].members().is_joint()).await;
    let m = world[1].members();
    assert!(m.has(VoterId(2)) && !m.are_decided_by(&BTreeSet::from([VoterId(1)])));
    world.net.heal();
    change.await.unwrap().unwrap();
    eventually("it is out", || !world[1].members().has(VoterId(2))).await;
    world.propose(1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_taken_out_changes_nothing_any_more() {
    let world = World::three().await;
    let (leader, term) = world.leader(&[1, 2, 3]).await;
    let out = 1 + leader % 3;
    let rest: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != out).collect();
    world.net.cut_off(out);
    world[leader].set_voters(&rest.iter().map(|id| VoterId(*id)).collect()).await.unwrap();
    let two = || {
        let m = world[leader].members();
        (m.configs.len(), m.voters().len(), m.learners.len(), m.has(VoterId(out))) == (1, 2, 0, false)
    };
    eventually("two are left, and the third is no learner", two).await;
    // It never heard of that, and asks for votes as before.
    eventually("it asks for votes in vain", || world.net.pre_votes(out, false) >= 2).await;
    world.net.heal();
    eventually("the others hear it", || world.net.pre_votes(out, true) >= 4).await;
    world.propose(leader, 5).await;
    world.have(&rest, &[5]).await;
    assert_eq!(world.leader(&rest).await, (leader, term));
    assert!(world[out].machine().read(|m| m.commands.is_empty()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_anothers_name_or_with_bytes_left_over_is_refused() {
    let world = World::one(1000).await;
    let voter = &world[1];
    let term = voter.status().term;
    let [append, vote, transfer, leader, meta] = <[Vec<u8>; 5]>::try_from(samples()).unwrap();
    // They are voter 1's: as anybody else's they are refused before raft sees them.
    let cases = [
        (PeerRpc::Append, &append),
        (PeerRpc::Vote, &vote),
        (PeerRpc::PreVote, &vote),
        (PeerRpc::TransferLeader, &transfer),
    ];
    for (rpc, body) in cases {
        let refused = voter.receive(rpc, VoterId(2), body).await;
        assert!(
            matches!(&refused, Err(ReceiveError::Impostor(why)) if why.contains("may not speak as")),
            "{refused:?}"
        );
        let longer = [body.as_slice(), &[0]].concat();
        let refused = voter.receive(rpc, VoterId(1), &longer).await;
        assert!(matches!(&refused, Err(ReceiveError::Refused(why)) if why.contains("no message")), "{refused:?}");
    }
    let refused = voter.receive_snapshot(VoterId(2), &leader, &meta, Vec::new()).await;
    assert!(matches!(&refused, Err(ReceiveError::Impostor(_))), "{refused:?}");
    assert_eq!((voter.status().term, voter.status().state), (term, ServerState::Leader));
}
