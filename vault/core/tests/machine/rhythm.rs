//! Issuers and statement keys follow each other: early, without a gap, and each known before it is used.

use super::keyring::add_term;
use crate::world::{SoftKey, World, csr, named_key};
use holdfast_pki::issue::IssuerCa;
use holdfast_types::{Millis, VoterId};
use holdfast_vault_core::{Code, prepare};
use holdfast_wire::{statement, v1};
use std::collections::BTreeMap;
use std::time::Duration;

const HALF_DAY: i64 = 12 * 3_600_000;
const DAY: i64 = 2 * HALF_DAY;

/// What the leader does about statement keys when it looks; true if it made one.
fn look(w: &mut World) -> bool {
    let life = w.lives.issuer;
    let due = w.state.stk_due(w.now, life);
    if due {
        let stk = named_key(&format!("stk of {}", w.now.0));
        let p = prepare::new_stk(&w.state, &w.keys, &w.root, &stk, life, w.now, &mut w.entropy());
        w.commit(p).unwrap();
        assert!(!w.state.stk_due(w.now, life), "one at a time");
    }
    due
}

/// Keys in the newest Bundle.
fn listed(w: &World) -> Vec<v1::Stk> {
    statement::peek::<v1::Bundle>(w.state.bundle_chain().last().unwrap()).unwrap().stks
}

/// The leader makes the next issuer.
pub fn made_issuer(w: &mut World) {
    let key = SoftKey::new();
    let pkcs8 = key.private();
    let life = w.lives.issuer;
    let p = prepare::new_issuer(
        &w.state,
        &w.keys,
        &w.root,
        &key,
        prepare::AtRest::Sealed(&pkcs8),
        life,
        w.now,
        &mut w.entropy(),
    );
    w.commit(p).unwrap();
    w.issuer = Some(IssuerCa::open(&w.state.issuer().unwrap().der, key).unwrap());
}

#[test]
fn a_statement_key_is_made_every_ten_days_and_listed_for_ten_before_its_first_use() {
    let mut w = World::new();
    let founding = w.state.stk(w.now).unwrap().public;
    let (mut since, mut used, mut made) = (BTreeMap::new(), vec![founding], 0);
    for _ in 0..240 {
        w.pass(HALF_DAY);
        made += usize::from(look(&mut w));
        let known = listed(&w);
        for k in &known {
            since.entry(k.key.clone().unwrap().key).or_insert(w.now);
        }
        let alive = known.iter().filter(|k| k.until_ms > w.now.0).count();
        assert!((1..=3).contains(&alive) && known.len() == alive, "{alive} of {}", known.len());
        let now = w.state.stk(w.now).expect("a key is in its window at any time").public;
        if used.last() != Some(&now) {
            let known_for = w.now.0 - since[now.as_slice()].0;
            assert!(known_for >= 10 * DAY, "used {known_for} ms after it was listed");
            used.push(now);
        }
    }
    // Every ten days of 120 one is made, and all but the newest have come into use.
    assert_eq!((made, used.len()), (12, 12));
}

#[test]
fn a_vault_that_was_off_for_any_time_has_a_statement_key_from_then_on() {
    let mut w = World::new();
    w.checked = false;
    let (base, start) = (w.state.clone(), w.now);
    for off in 1..=70 {
        w.state = base.clone();
        w.leaves.truncate(usize::try_from(base.log_head().0).unwrap());
        w.now = Millis(start.0 + off * HALF_DAY);
        for step in 0..80 {
            look(&mut w);
            assert!(w.state.stk(w.now).is_some(), "off for {off} half days, then {step} on");
            assert!(listed(&w).len() <= 4, "off for {off} half days, then {step} on");
            w.pass(HALF_DAY);
        }
    }
}

#[test]
fn an_issuer_is_replaced_after_ten_days_and_its_leaves_keep_it_in_their_chains() {
    let mut w = World::new();
    let node = w.node();
    w.pass(10 * DAY - 1);
    assert!(!w.state.issuer_due(w.now));
    let issued = w.renew(&node.id, &csr().1, &[3; 32]).unwrap().unwrap();
    let (old, old_end) = w.state.issuer().map(|i| (i.der.clone(), i.not_after)).unwrap();
    w.pass(1);
    assert!(w.state.issuer_due(w.now));
    made_issuer(&mut w);
    assert!(!w.state.issuer_due(w.now));
    let other = w.node();
    let newer = w.renew(&other.id, &csr().1, &[3; 32]).unwrap().unwrap();
    let new = w.state.issuer().unwrap().der.clone();
    assert!(issued.chain[1] == old && newer.chain[1] == new && old != new);
    assert!(issued.chain[2] == newer.chain[2], "one root");
    let leaf_end = w.now.0 + i64::try_from(w.lives.node.as_millis()).unwrap();
    assert!(old_end.0 >= leaf_end, "the issuer outlives its leaves");
}

#[test]
fn a_third_of_a_life_is_told_by_its_own_begin_and_end() {
    use holdfast_vault_core::third_over;
    let (from, until) = (Millis(1_000), Millis(4_000));
    assert!(!third_over(Millis(1_999), from, until) && third_over(Millis(2_000), from, until));
    assert!(third_over(Millis(9_000), from, until));
}

#[test]
fn what_a_compromised_voter_held_is_replaced_at_once_and_listed_no_more() {
    replaces_what_was_held(false);
}

#[test]
fn what_a_voter_held_that_was_found_to_be_compromised_after_it_was_evicted_is_replaced_as_well() {
    replaces_what_was_held(true);
}

fn replaces_what_was_held(found_later: bool) {
    let mut w = World::new();
    let (out, _) = w.voter();
    let (exposed, issuer) = (w.state.stk(w.now).unwrap().public, w.state.issuer().unwrap().der.clone());
    if found_later {
        w.evict(out, false).unwrap();
        add_term(&mut w).unwrap();
    }
    w.evict(out, true).unwrap();
    let life = w.lives.issuer;
    assert!(
        !w.state.stk_due(w.now, life) && !w.state.issuer_due(w.now),
        "it could open what they would be sealed under"
    );
    add_term(&mut w).unwrap();
    assert!(w.state.stk_due(w.now, life) && w.state.issuer_due(w.now));
    made_issuer(&mut w);
    assert!(look(&mut w) && !w.state.issuer_due(w.now));
    let now = w.state.stk(w.now).expect("the new key counts at once").public;
    let known: Vec<Vec<u8>> = listed(&w).into_iter().map(|k| k.key.unwrap().key).collect();
    assert_eq!(known, [now.to_vec()], "the exposed key is not believed any more");
    assert!(now != exposed && w.state.issuer().unwrap().der != issuer);
    assert_eq!(w.state.compromised_voters(), [(VoterId(out), vec!["keyring"])], "until the old term is destroyed");
}

#[test]
fn who_was_evicted_and_is_not_compromised_moves_no_key_but_the_keyring() {
    let mut w = World::new();
    let (out, _) = w.voter();
    w.evict(out, false).unwrap();
    add_term(&mut w).unwrap();
    assert!(!w.state.stk_due(w.now, w.lives.issuer) && !w.state.issuer_due(w.now));
}

#[test]
fn of_a_voter_that_was_evicted_before_operators_may_say_that_it_was_compromised_and_it_counts_once() {
    let mut w = World::new();
    let (out, _) = w.voter();
    w.evict(out, false).unwrap();
    add_term(&mut w).unwrap();
    assert!(w.state.compromised_voters().is_empty() && !w.state.keyring_due(w.now, Duration::MAX));
    let (from, epoch) = (w.leaves.len(), w.state.bundle_epoch());
    w.evict(out, true).unwrap();
    assert_eq!(w.kinds_since(from), ["voter.evict"]);
    assert_eq!(w.state.compromised_voters(), [(VoterId(out), vec!["keyring", "statement key", "issuer"])]);
    assert!(w.state.keyring_due(w.now, Duration::MAX), "the keyring is the first to be replaced");
    assert_eq!(w.state.bundle_epoch(), epoch, "it was revoked when it went");
    assert_eq!(w.evict(out, false).err().unwrap().code, Code::Changed);
    // Said again, it is no other word than the first.
    add_term(&mut w).unwrap();
    let (from, left) = (w.leaves.len(), w.state.compromised_voters());
    w.evict(out, true).unwrap();
    assert!(w.kinds_since(from).is_empty());
    assert_eq!(w.state.compromised_voters(), left, "what is replaced since counts as replaced");
    assert!(!w.state.keyring_due(w.now, Duration::MAX));
}
