//! The renewal chain R1–R5 driven by random histories: the transitions of the model `renewfork.py`.

use crate::world::{Machine, World, csr};
use holdfast_types::{Digest, Role, sha256};
use holdfast_vault_core::{Code, State, prepare};
use holdfast_wire::v1;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rcgen::PublicKeyData as _;
use std::cell::RefCell;

/// A CSR with the pin of its key.
type Csr = (Vec<u8>, Digest);

fn fresh_csr() -> Csr {
    let (key, csr) = csr();
    (csr, sha256(&[&key.subject_public_key_info()]))
}

/// A holder of the identity: the certificate it uses, and the next key if one is on its disk already (write-ahead).
#[derive(Clone)]
struct Holder {
    seq: u64,
    serial: String,
    spki: Digest,
    next: Option<Csr>,
}

/// What may happen to a holder.
#[derive(Debug, Clone, Copy)]
enum Act {
    Use,
    Renew,
    /// Committed, and the reply is lost: the holder crashed.
    Lost,
    Steal,
}

struct Lab {
    w: World,
    base: State,
    id: String,
    pool: Vec<Csr>,
    taken: usize,
}
impl Lab {
    fn new() -> Self {
        let mut w = World::new();
        let node = w.node();
        w.checked = false;
        Self { base: w.state.clone(), id: node.id, w, pool: (0..40).map(|_| fresh_csr()).collect(), taken: 0 }
    }
    fn owner(&mut self) -> Holder {
        self.w.state = self.base.clone();
        self.w.leaves.truncate(self.base.log_head().0 as usize);
        self.w.log.clear();
        self.taken = 0;
        let v = self.w.state.node_view(&self.id, false).unwrap();
        Holder { seq: v.seq, serial: v.serial, spki: Digest::from_slice(&v.spki_sha256).unwrap(), next: None }
    }
    fn quarantined(&self) -> bool {
        self.w.state_of(&self.id) == "quarantined"
    }
    /// One contact over the holder's certificate; true if the vault let it in.
    fn show(&mut self, h: &Holder) -> bool {
        self.w.show(Role::Node, &self.id, &h.serial, &h.spki)
    }
    fn renew(&mut self, h: &mut Holder, lost: bool) -> bool {
        if !self.show(h) {
            return false;
        }
        if h.next.is_none() {
            h.next = Some(self.pool[self.taken % self.pool.len()].clone());
            self.taken += 1;
        }
        let (csr, spki) = h.next.clone().unwrap();
        let Some(issued) = self.w.renew(&self.id, &csr, &[3; 32]).unwrap() else { return false };
        if !lost {
            let serial = self.w.state.node_view(&self.id, false).unwrap().pending_serial;
            *h = Holder { seq: issued.seq, serial, spki, next: None };
        }
        true
    }
    fn act(&mut self, h: &mut Holder, act: Act) -> bool {
        match act {
            Act::Use | Act::Steal => self.show(h),
            Act::Renew => self.renew(h, false),
            Act::Lost => self.renew(h, true),
        }
    }
}

fn runner(cases: u32) -> TestRunner {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(Config { cases, failure_persistence: None, ..Config::default() }, rng)
}

#[test]
fn an_honest_machine_that_crashes_is_never_quarantined() {
    let lab = RefCell::new(Lab::new());
    let act = prop_oneof![Just(Act::Use), Just(Act::Renew), Just(Act::Lost)];
    let histories = proptest::collection::vec(act, 1..12);
    runner(1200)
        .run(&histories, |acts| {
            let mut lab = lab.borrow_mut();
            let mut owner = lab.owner();
            for act in acts {
                prop_assert!(lab.act(&mut owner, act), "refused");
                prop_assert!(!lab.quarantined());
            }
            prop_assert!(lab.act(&mut owner, Act::Renew) && lab.act(&mut owner, Act::Use));
            let v = lab.w.state.node_view(&lab.id, false).unwrap();
            prop_assert_eq!((v.serial, v.seq), (owner.serial, owner.seq));
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_thief_and_the_owner_do_not_both_go_on_once_their_keys_differ() {
    let lab = RefCell::new(Lab::new());
    let act = prop_oneof![4 => Just(Act::Use), 3 => Just(Act::Renew), 2 => Just(Act::Lost), 1 => Just(Act::Steal)];
    let histories = proptest::collection::vec((any::<bool>(), act), 4..24);
    let caught = RefCell::new(0);
    runner(1200)
        .run(&histories, |acts| {
            let mut lab = lab.borrow_mut();
            let (mut owner, mut thief, mut own_key) = (lab.owner(), None::<Holder>, false);
            let mut owners = vec![owner.spki];
            for (by_thief, act) in acts {
                let before = lab.quarantined();
                if matches!(act, Act::Steal) {
                    thief = thief.or_else(|| Some(owner.clone()));
                }
                match &mut thief {
                    Some(t) if by_thief => {
                        let moved_on = owner.seq > t.seq && owner.spki == current(&lab);
                        let own = !owners.contains(&t.spki);
                        let let_in = lab.act(t, act);
                        own_key |= let_in && own;
                        prop_assert!(!(moved_on && let_in), "a stale copy was let in");
                        prop_assert!(!moved_on || lab.quarantined(), "a stale copy went unnoticed");
                    }
                    Some(_) | None => {
                        lab.act(&mut owner, act);
                        owners.extend(owner.next.iter().map(|n| n.1).chain([owner.spki]));
                        prop_assert!(before || !own_key || lab.quarantined(), "the thief lives on beside the owner");
                    }
                }
            }
            *caught.borrow_mut() += u32::from(lab.quarantined());
            Ok(())
        })
        .unwrap();
    assert!(*caught.borrow() > 300, "the histories do reach forks: {}", caught.borrow());
}

fn current(lab: &Lab) -> Digest {
    Digest::from_slice(&lab.w.state.node_view(&lab.id, false).unwrap().spki_sha256).unwrap()
}

fn shown(w: &World, m: &Machine) -> (String, String) {
    let v = w.state.node_view(&m.id, false).unwrap();
    (v.serial, v.pending_serial)
}

#[test]
fn a_renewal_answered_twice_is_one_place_in_the_chain() {
    let mut w = World::new();
    let node = w.node();
    let (csr, spki) = fresh_csr();
    w.renew(&node.id, &csr, &[3; 32]).unwrap();
    let (_, first) = shown(&w, &node);
    w.renew(&node.id, &csr, &[3; 32]).unwrap();
    let (_, second) = shown(&w, &node);
    assert_ne!(first, second);
    assert!(w.show(Role::Node, &node.id, &first, &spki) && w.show(Role::Node, &node.id, &second, &spki));
    assert_eq!((w.state_of(&node.id).as_str(), shown(&w, &node).0), ("ready", second));
}

#[test]
fn an_activation_that_comes_second_changes_nothing_and_a_wrong_one_is_refused() {
    let mut w = World::new();
    let node = w.node();
    w.renew(&node.id, &fresh_csr().0, &[3; 32]).unwrap();
    let serial = shown(&w, &node).1;
    let activate = |serial: &str| holdfast_vault_core::Command::Activate { id: node.id.clone(), serial: serial.into() };
    assert_eq!(w.propose(activate("00")).result.err().unwrap().code, Code::Changed);
    assert_eq!(w.propose(activate(&serial)).leaves.len(), 1);
    let before = w.state.encode();
    let again = w.propose(activate(&serial));
    assert!(again.result.is_ok() && again.leaves.is_empty() && w.state.encode() == before);
}

#[test]
fn a_fork_revokes_every_certificate_and_the_identity_gets_nothing_new() {
    let (mut w, orch, node) = World::shop();
    let epoch = w.state.epoch();
    assert!(w.renew(&node.id, &fresh_csr().0, &[3; 32]).unwrap().is_some());
    assert!(w.renew(&node.id, &fresh_csr().0, &[3; 32]).unwrap().is_none(), "two keys ask");
    assert_eq!((w.state_of(&node.id).as_str(), w.state.epoch()), ("quarantined", epoch + 1));
    assert!(w.kinds_since(0).contains(&"identity.fork".to_owned()));
    assert_eq!(w.renew(&node.id, &fresh_csr().0, &[3; 32]).err().unwrap().code, Code::BadCredential);
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-node-ready"]);
}

#[test]
fn an_old_certificate_is_remembered_but_not_for_ever() {
    let mut w = World::new();
    let node = w.node();
    let first = shown(&w, &node).0;
    let mut spki = node.spki;
    for _ in 0..33 {
        let next = fresh_csr();
        w.renew(&node.id, &next.0, &[3; 32]).unwrap();
        let serial = shown(&w, &node).1;
        assert!(w.show(Role::Node, &node.id, &serial, &next.1));
        spki = next.1;
    }
    assert!(!w.show(Role::Node, &node.id, &first, &node.spki), "forgotten, and refused all the same");
    assert_eq!((w.state_of(&node.id).as_str(), current_of(&w, &node)), ("ready", spki));
}

fn current_of(w: &World, m: &Machine) -> Digest {
    Digest::from_slice(&w.state.node_view(&m.id, false).unwrap().spki_sha256).unwrap()
}

#[test]
fn machines_are_told_to_renew_at_moments_that_spread() {
    let mut w = World::new();
    let node = w.node();
    w.checked = false;
    let (next, third) = (fresh_csr(), w.lives.node.as_secs_f64() / 3.0);
    // The same key asks again, as after a lost reply: each answer is a certificate of its own.
    let mut told = || w.renew(&node.id, &next.0, &[3; 32]).unwrap().unwrap().renew_after_ms as f64 / 1000.0 / third;
    let parts: Vec<f64> = (0..200).map(|_| told()).collect();
    assert!(parts.iter().all(|p| (0.799..=1.201).contains(p)), "{parts:?}");
    for n in 0..4 {
        let (low, high) = (0.8 + f64::from(n) * 0.1, 0.9 + f64::from(n) * 0.1);
        assert!(parts.iter().filter(|p| (low..high).contains(*p)).count() > 20, "{low}: {parts:?}");
    }
}

#[test]
fn a_renewal_notes_the_bundle_that_is_believed_never_an_older_one_and_none_that_is_not_there() {
    let mut w = World::new();
    let node = w.node();
    let newest = w.state.bundle_epoch();
    assert!(newest > 0);
    let next = fresh_csr().0;
    let noted = |bundle_epoch: u64| {
        let r = v1::RenewRequest { csr: next.clone(), hpke_pub: vec![3; 32], bundle_epoch };
        let p = prepare::renew(&w.leader(), &node.id, &r, &mut w.entropy());
        w.commit(p).unwrap();
        w.state.identity(&node.id).unwrap().acked
    };
    assert_eq!([0, u64::MAX, 0, newest].map(noted), [0, newest, newest, newest]);
}
