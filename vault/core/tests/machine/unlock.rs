//! The unlock key: its rotation against voters that crash, sleep and come back, and what the orders say.

use crate::world::World;
use holdfast_types::{Digest, VoterId, sha256};
use holdfast_vault_core::prepare::founding_unlock;
use holdfast_vault_core::{Code, Committed, Event, Refusal, State, WantedSlots};
use holdfast_wire::boxes::{self, Context, derive_keypair};
use holdfast_wire::keys::key_id;
use holdfast_wire::v1;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use v1::command::Action;

const ADMINS: &[&str] = &["ada", "ben"];

/// The unlock keys of the first epochs.
static KEYS: LazyLock<Vec<[u8; 32]>> = LazyLock::new(|| {
    let key = |epoch: u64| derive_keypair(&sha256(&[b"unlock", &epoch.to_be_bytes()]).0).1;
    (0..80).map(key).collect()
});
fn key_of(epoch: u64) -> [u8; 32] {
    KEYS[epoch as usize]
}
fn chain(w: &World, from: u64, to: u64) -> Vec<u8> {
    let aad = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let c = Context { purpose: "unlock-chain", cluster: &w.cluster, aad: &aad };
    boxes::seal(&key_of(to), &c, None, &sha256(&[b"unlock", &from.to_be_bytes()]).0, w.entropy().draw("chain")).unwrap()
}
pub fn next(epoch: u64) -> v1::UnlockPrepare {
    v1::UnlockPrepare { epoch, pk: key_of(epoch).to_vec(), ..Default::default() }
}
pub fn prepare(w: &mut World, p: v1::UnlockPrepare) -> Result<Committed, Refusal> {
    w.act(ADMINS, Action::UnlockPrepare(p))
}
pub fn chained(w: &mut World, from: u64, to: u64) -> Result<Committed, Refusal> {
    let chain = chain(w, from, to);
    prepare(w, v1::UnlockPrepare { chain, ..next(to) })
}
pub fn finalize(w: &mut World, epoch: u64) -> Result<Committed, Refusal> {
    w.act(ADMINS, Action::UnlockFinalize(v1::UnlockFinalize { epoch }))
}
fn off(w: &mut World) -> Result<Committed, Refusal> {
    w.act(ADMINS, Action::AutolockOff(v1::AutolockOff {}))
}
/// Voter `id` says to which epoch its newest slot is sealed.
pub fn has(w: &mut World, id: u64, epoch: u64) {
    let said = v1::VoterReport { unlock_epoch: epoch, ..w.voter_report(id, 1) };
    w.says(id, &said, None).unwrap();
}
pub fn wanted(w: &World) -> WantedSlots {
    w.state.wanted_slots().unwrap()
}
/// Three voters with autolock on, at epoch 2: the founding was without.
pub fn locked() -> World {
    let mut w = World::new();
    assert_eq!((w.voter().0, w.voter().0), (2, 3));
    prepare(&mut w, next(2)).unwrap();
    (1..=3).for_each(|id| has(&mut w, id, 2));
    finalize(&mut w, 2).unwrap();
    w
}

// ---- the rotation, walked at random beside real voters' disks --------------------------------------------------

/// What is done wrong on purpose, to see that it is noticed.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Finalize although no voter took the next key.
    NoQuorum,
    /// No chain from the present key to the next.
    NoChain,
}

/// A voter as it is without its memory: what lies on its disk, and how far it carried orders out.
#[derive(Clone)]
pub struct Voter {
    pub id: u64,
    pub up: bool,
    pub orders: usize,
    pub slots: BTreeSet<u64>,
    /// The sidecar: the epoch that it opens to, and the one that opens it.
    chain: Option<(u64, u64)>,
}
impl Voter {
    pub fn fresh(id: u64, epoch: u64) -> Self {
        Self { id, up: true, orders: 0, slots: BTreeSet::from([epoch]), chain: None }
    }
    pub fn obey(&mut self, orders: &[WantedSlots]) {
        let Some(next) = orders.get(self.orders + 1) else { return };
        self.orders += 1;
        self.slots = next.unlock.iter().map(|(epoch, _)| *epoch).collect();
        assert!(next.unlock.iter().all(|(epoch, pk)| *pk == key_of(*epoch)), "an epoch names one key");
        let opener = |b: &[u8]| (1..80).find(|e| key_id(&key_of(*e)) == boxes::parse(b).unwrap().kid).unwrap();
        self.chain = next.chain.as_ref().map(|(to, b)| (*to, opener(b)));
    }
}

/// Numbers that follow from a seed.
struct Dice(u64);
impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Whether any of `held` opens `v`, by itself or by a chain that lies on any disk.
pub fn opens(v: &Voter, all: &[Voter], held: &BTreeSet<u64>) -> bool {
    let mut held = held.clone();
    while let Some((to, _)) =
        all.iter().filter_map(|v| v.chain).find(|(to, by)| held.contains(by) && !held.contains(to))
    {
        held.insert(to);
    }
    !v.slots.is_disjoint(&held)
}

/// One walk of 150 steps. `Err`: a voter that the operator cannot open with the keys it was told to keep.
fn walk(w: &mut World, start: &State, seed: u64, fault: Fault) -> Result<u64, String> {
    (w.state, w.checked) = (start.clone(), false);
    w.log.clear();
    w.leaves.truncate(start.log_head().0 as usize);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut voters: Vec<Voter> = (1..=3).map(|id| Voter::fresh(id, 2)).collect();
    let (mut orders, mut held) = (vec![wanted(w)], BTreeSet::from([2]));
    for step in 0..150 {
        let quorum = voters.iter().filter(|v| v.up).count() >= 2;
        let (epoch, pending) = (w.state.unlock_view().epoch, w.state.unlock_view().pending);
        let one = dice.roll(3) as usize;
        match dice.roll(12) {
            0 if quorum && (pending == 0 || dice.roll(8) == 0) => {
                let to = epoch.max(pending) + 1;
                // The tool shows the next key before it is asked for.
                held.insert(to);
                let done = if fault == Fault::NoChain { prepare(w, next(to)) } else { chained(w, epoch, to) };
                orders.extend(done.ok().map(|_| wanted(w)));
            }
            1 if quorum && pending != 0 => {
                if fault == Fault::NoQuorum {
                    (1..=3).for_each(|id| has(w, id, pending));
                }
                orders.extend(finalize(w, pending).ok().map(|_| wanted(w)));
            }
            2 if pending == 0 => held.retain(|e| *e >= epoch),
            3..=5 if voters[one].up => voters[one].obey(&orders),
            6..=8 if voters[one].up && quorum => has(w, voters[one].id, voters[one].slots.last().copied().unwrap()),
            9 => voters[one].up = false,
            10 | 11 => voters[one].up = true,
            _ => {}
        }
        if let Some(v) = voters.iter().find(|v| !opens(v, &voters, &held)) {
            let slots = &v.slots;
            return Err(format!("seed {seed}, step {step}: voter {} has {slots:?}, the operator {held:?}", v.id));
        }
    }
    Ok(w.state.unlock_view().epoch - 2)
}

#[test]
fn every_voter_can_be_opened_at_every_step_of_a_rotation() {
    let mut w = locked();
    let start = w.state.clone();
    let (mut rotations, mut noticed) = (0, [0, 0]);
    for seed in 1..=80 {
        rotations += walk(&mut w, &start, seed, Fault::None).unwrap();
        noticed[0] += u32::from(walk(&mut w, &start, seed, Fault::NoQuorum).is_err());
        noticed[1] += u32::from(walk(&mut w, &start, seed, Fault::NoChain).is_err());
    }
    assert!(rotations > 60, "only {rotations} rotations came to their end");
    assert!(noticed.iter().all(|n| *n > 8), "planted faults were noticed {noticed:?} times");
}

// ---- one rule each ----------------------------------------------------------------------------------------------

#[test]
fn the_present_unlock_key_is_done_with_only_once_a_quorum_has_the_next() {
    let mut w = locked();
    assert_eq!(finalize(&mut w, 3).err().unwrap().code, Code::Changed, "nothing waits");
    chained(&mut w, 2, 3).unwrap();
    let during = wanted(&w);
    assert_eq!(during.unlock, vec![(2, key_of(2)), (3, key_of(3))]);
    assert_eq!(during.chain.as_ref().map(|(to, _)| *to), Some(2), "the chain lies on disks before it is needed");
    has(&mut w, 2, 3);
    let refused = finalize(&mut w, 3).err().unwrap();
    assert_eq!(refused.code, Code::Changed);
    assert!(refused.reason.contains("1, 3"), "{refused}");
    assert_eq!((w.state.unlock_view().ready, w.state.unlock_view().missing), (vec![2], vec![1, 3]));
    has(&mut w, 1, 3);
    assert_eq!(finalize(&mut w, 2).err().unwrap().code, Code::Changed, "another one waits");
    finalize(&mut w, 3).unwrap();
    let after = wanted(&w);
    assert_eq!((after.unlock, after.chain), (vec![(3, key_of(3))], during.chain));
    assert_eq!(after.disk_key_order, during.disk_key_order, "nothing of the disk keys was known");
    assert_eq!(w.state.unlock_view().missing, vec![3]);
}

#[test]
fn a_voter_that_slept_through_a_rotation_holds_up_the_next() {
    let mut w = locked();
    chained(&mut w, 2, 3).unwrap();
    (1..=2).for_each(|id| has(&mut w, id, 3));
    finalize(&mut w, 3).unwrap();
    let refused = chained(&mut w, 3, 4).err().unwrap();
    assert_eq!(refused.code, Code::Changed);
    assert!(refused.reason.contains("older unlock key: 3;"), "{refused}");
    has(&mut w, 3, 3);
    chained(&mut w, 3, 4).unwrap();
}

#[test]
fn an_evicted_voter_does_not_hold_up_a_rotation() {
    let mut w = locked();
    chained(&mut w, 2, 3).unwrap();
    has(&mut w, 1, 3);
    assert_eq!(finalize(&mut w, 3).err().unwrap().code, Code::Changed);
    w.evict(2, false).unwrap();
    w.evict(3, false).unwrap();
    finalize(&mut w, 3).unwrap();
}

#[test]
fn no_epoch_is_ever_used_for_two_unlock_keys() {
    let mut w = locked();
    for epoch in [1, 2, 4] {
        assert_eq!(prepare(&mut w, next(epoch)).err().unwrap().code, Code::Changed, "epoch {epoch}");
    }
    chained(&mut w, 2, 3).unwrap();
    (1..=3).for_each(|id| has(&mut w, id, 3));
    // Its secret was lost before it took over: another one takes its place, under a number of its own.
    let other = v1::UnlockPrepare { epoch: 3, ..next(9) };
    assert_eq!(prepare(&mut w, other).err().unwrap().code, Code::Changed);
    assert_eq!(off(&mut w).err().unwrap().code, Code::Changed, "one waits");
    chained(&mut w, 2, 4).unwrap();
    assert_eq!(wanted(&w).unlock, vec![(2, key_of(2)), (4, key_of(4))]);
    assert_eq!(w.state.unlock_view().ready, Vec::<u64>::new(), "slots of the lost key count for nothing");
    (1..=3).for_each(|id| has(&mut w, id, 4));
    finalize(&mut w, 4).unwrap();
    off(&mut w).unwrap();
    (1..=3).for_each(|id| has(&mut w, id, 0));
    assert_eq!(prepare(&mut w, next(4)).err().unwrap().code, Code::Changed);
    prepare(&mut w, next(5)).unwrap();
}

#[test]
fn autolock_comes_back_only_once_no_voter_needs_the_key_from_before() {
    let mut w = locked();
    off(&mut w).unwrap();
    (1..=2).for_each(|id| has(&mut w, id, 0));
    let refused = prepare(&mut w, next(3)).err().unwrap();
    assert_eq!(refused.code, Code::Changed);
    assert!(refused.reason.contains("older unlock key: 3;"), "{refused}");
    has(&mut w, 3, 0);
    prepare(&mut w, next(3)).unwrap();
    // That key was lost before it took over: slots of it hold nothing up.
    (1..=3).for_each(|id| has(&mut w, id, 3));
    prepare(&mut w, next(4)).unwrap();
}

#[test]
fn autolock_on_and_off_say_what_lies_beside_the_disk() {
    let mut w = World::new();
    assert!(wanted(&w).plain && wanted(&w).unlock.is_empty());
    assert_eq!(off(&mut w).err().unwrap().code, Code::Changed);
    assert_eq!(chained(&mut w, 1, 2).err().unwrap().code, Code::Changed, "there is nothing to chain from");
    prepare(&mut w, next(2)).unwrap();
    assert!(wanted(&w).plain, "until a quorum has the key");
    has(&mut w, 1, 2);
    let order = wanted(&w).disk_key_order;
    finalize(&mut w, 2).unwrap();
    assert!(!wanted(&w).plain && w.state.autolock());
    assert_eq!(wanted(&w).disk_key_order, order + 1, "the old disk key lay in clear");
    off(&mut w).unwrap();
    assert!(wanted(&w).plain && wanted(&w).unlock.is_empty() && !w.state.autolock());
    assert_eq!(w.state.unlock_view().missing, vec![1], "until the voter says so, only the key opens it");
    has(&mut w, 1, 0);
    assert_eq!(w.state.unlock_view().ready, vec![1]);
}

#[test]
fn a_compromised_unlock_key_leaves_no_chain_and_no_disk_key() {
    let mut w = locked();
    let chain = chain(&w, 2, 3);
    let both = v1::UnlockPrepare { chain, compromised: true, ..next(3) };
    assert_eq!(prepare(&mut w, both).err().unwrap().code, Code::InvalidInput);
    prepare(&mut w, v1::UnlockPrepare { compromised: true, ..next(3) }).unwrap();
    let order = wanted(&w).disk_key_order;
    (1..=3).for_each(|id| has(&mut w, id, 3));
    finalize(&mut w, 3).unwrap();
    assert_eq!((wanted(&w).disk_key_order, wanted(&w).chain), (order + 1, None));
}

#[test]
fn an_unlock_key_that_does_not_fit_together_is_refused() {
    let mut w = locked();
    let digest = Digest([3; 32]).to_vec();
    let odd = [
        v1::UnlockPrepare { pk: vec![1; 31], ..next(3) },
        v1::UnlockPrepare { pk: key_of(2).to_vec(), ..next(3) },
        v1::UnlockPrepare { chain: chain(&w, 2, 4), ..next(3) },
        v1::UnlockPrepare { chain: vec![7; 80], ..next(3) },
        v1::UnlockPrepare { threshold: 2, share_digests: vec![digest.clone()], ..next(3) },
        v1::UnlockPrepare { threshold: 0, share_digests: vec![digest.clone()], ..next(3) },
        v1::UnlockPrepare { threshold: 1, ..next(3) },
        v1::UnlockPrepare { threshold: 1, share_digests: vec![vec![1; 31]], ..next(3) },
    ];
    for p in odd {
        assert_eq!(prepare(&mut w, p.clone()).err().unwrap().code, Code::InvalidInput, "{p:?}");
    }
    let shares = v1::UnlockPrepare { threshold: 2, share_digests: vec![digest; 3], ..next(3) };
    prepare(&mut w, shares).unwrap();
    assert_eq!(w.state.unlock_view().threshold, 2);
}

#[test]
fn what_opens_the_disks_is_changed_by_every_admin_alone() {
    let mut w = locked();
    let acts = [
        Action::UnlockPrepare(next(3)),
        Action::UnlockFinalize(v1::UnlockFinalize { epoch: 3 }),
        Action::AutolockOff(v1::AutolockOff {}),
        Action::RotateDiskKeys(v1::RotateDiskKeys {}),
        Action::RotateKeyring(v1::RotateKeyring {}),
    ];
    for act in acts {
        assert_eq!(w.act(&["ada"], act.clone()).err().unwrap().code, Code::Threshold);
        assert_eq!(w.act(&["ada", "sam"], act).err().unwrap().code, Code::PolicyDenied);
    }
}

#[test]
fn an_order_to_replace_disk_keys_reaches_every_voter() {
    let mut w = locked();
    let order = wanted(&w).disk_key_order;
    let st = w.sign(&w.command(Action::RotateDiskKeys(v1::RotateDiskKeys {})), ADMINS);
    let p = holdfast_vault_core::prepare::submit(&w.leader(), &st, &[], &mut w.entropy()).ok().unwrap();
    let done = w.apply(p.command);
    assert!(done.events.contains(&Event::Slots), "{:?}", done.events);
    assert_eq!(wanted(&w).disk_key_order, order + 1);
    assert_eq!(w.state.voter(VoterId(1)).unwrap().disk_key_order, 0, "the voter says when it is done");
}

#[test]
fn a_founding_names_its_unlock_key_with_shares_that_fit_together_or_none() {
    let asked = |pk: Vec<u8>, threshold, shares: u8| v1::InitRequest {
        unlock_pk: pk,
        threshold,
        share_digests: (0..shares).map(|n| vec![n; 32]).collect(),
        ..v1::InitRequest::default()
    };
    let read = |pk: Vec<u8>, threshold, shares| founding_unlock(&asked(pk, threshold, shares));
    let key = key_of(1).to_vec();
    assert_eq!(read(Vec::new(), 0, 0).unwrap(), None);
    assert_eq!(read(key.clone(), 0, 0).unwrap().map(|k| (k.pk, k.threshold)), Some((key_of(1), 0)));
    let split = read(key.clone(), 2, 3).unwrap().unwrap();
    assert_eq!((split.threshold, split.share_digests.len()), (2, 3));
    for bad in [
        read(key.clone(), 4, 3),
        read(key.clone(), 0, 3),
        read(key, 1, 0),
        read(Vec::new(), 2, 3),
        read(vec![1; 31], 0, 0),
    ] {
        assert_eq!(bad.unwrap_err().code, Code::InvalidInput);
    }
}
