//! A machine that was removed while nobody reached it: it is told, by a list that the vault signs, when it asks to come back.

use crate::rejoin::{HPKE, asks, key, runs, uses};
use crate::world::{Machine, World};
use holdfast_types::Millis;
use holdfast_vault_core::prepare::{self, Back};
use holdfast_vault_core::{Code, Command, Refusal};
use holdfast_wire::keys::StatementSigner as _;
use holdfast_wire::{statement, v1};
use v1::command::Action;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn remove(w: &mut World, m: &Machine) {
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: m.id.clone() })).unwrap();
}

/// What it is told: the status, and the list.
fn told(w: &World, m: &Machine) -> Result<(v1::Status, v1::Revocations), Refusal> {
    let said = prepare::removal(&w.state, &w.stk, &m.id, w.now, w.lives.status)?;
    let keys = [w.stk.public()];
    let status = statement::verify::<v1::Status>(&said.status.unwrap(), &keys, 1).unwrap().doc;
    let list = statement::verify::<v1::Revocations>(&said.revocations.unwrap(), &keys, 1).unwrap();
    assert_eq!(status.revocations_sha256, list.sha256.to_vec(), "a node believes the list that its status names");
    Ok((status, list.doc))
}

fn is_told(w: &World, m: &Machine) -> bool {
    matches!(asks(w, &m.id, &m.key, &key()), Ok(Back::Removed))
}

fn in_force(w: &World) -> v1::Revocations {
    statement::peek(&prepare::revocations(&w.state, &w.stk).unwrap()).unwrap()
}

fn names(list: &v1::Revocations, m: &Machine) -> bool {
    list.revoked.iter().any(|r| r.id == m.id && r.not_before_seq == u64::MAX && r.spki_sha256.is_empty())
}

#[test]
fn a_removed_machine_that_proves_its_key_is_told_so_and_nobody_else_is() {
    let mut w = World::new();
    let (node, other) = (w.node(), w.node());
    remove(&mut w, &node);
    assert!(is_told(&w, &node), "its certificate may be good still");
    runs(&mut w, 74 * HOUR);
    let (state, leaves) = (w.state.encode(), w.leaves.len());
    assert!(is_told(&w, &node));
    assert!(names(&told(&w, &node).unwrap().1, &node));
    let stranger = asks(&w, "node-00000000000000000000000000000000", &node.key, &key()).err().unwrap();
    assert_eq!(stranger.code, Code::BadCredential);
    for wrong in [&other.key, &key().pair] {
        assert_eq!(asks(&w, &node.id, wrong, &key()).err().unwrap(), stranger);
    }
    assert!(matches!(asks(&w, &other.id, &other.key, &key()), Ok(Back::Comes(_))));
    assert!(
        w.state.encode() == state && w.leaves.len() == leaves,
        "it is told as often as it asks, and nothing changes"
    );
}

#[test]
fn after_the_window_a_removed_machine_is_a_stranger() {
    let mut w = World::new();
    let node = w.node();
    let end = w.state.node_view(&node.id, false).unwrap().not_after_ms;
    remove(&mut w, &node);
    runs(&mut w, 74 * HOUR + 29 * DAY);
    assert!(is_told(&w, &node));
    runs(&mut w, DAY);
    assert!(w.now.since(Millis(end)) > w.lives.rejoin);
    let late = asks(&w, &node.id, &node.key, &key()).err().unwrap();
    let stranger = asks(&w, "node-00000000000000000000000000000000", &node.key, &key()).err().unwrap();
    assert_eq!(late, stranger);
}

#[test]
fn a_removed_machine_is_told_by_each_key_that_it_had() {
    let mut w = World::new();
    let (node, second, third) = (w.node(), key(), key());
    w.renew(&node.id, &second.csr, &HPKE).unwrap().unwrap();
    assert!(uses(&mut w, &node, &second));
    w.renew(&node.id, &third.csr, &HPKE).unwrap().unwrap();
    remove(&mut w, &node);
    // Whether its disk is older than its last renewal, or the reply to that was lost, is not asked: it runs what it ran.
    for held in [&node.key, &second.pair, &third.pair] {
        assert!(matches!(asks(&w, &node.id, held, &key()), Ok(Back::Removed)));
    }
    assert_eq!(w.state_of(&node.id), "removed", "and no fork of it");
}

#[test]
fn what_tells_a_machine_of_its_removal_is_the_whole_list_and_no_less() {
    let mut w = World::new();
    let (first, second, stays) = (w.node(), w.node(), w.node());
    assert_eq!(told(&w, &first).err().unwrap().code, Code::Changed, "it was not removed");
    remove(&mut w, &first);
    assert_eq!(told(&w, &first).unwrap().1, in_force(&w), "it is on the list that everybody has");
    runs(&mut w, 121 * DAY);
    let order = v1::QuarantineNode { id: stays.id.clone(), reason: "its disk was copied".into() };
    w.act(&["oz"], Action::QuarantineNode(order)).unwrap();
    remove(&mut w, &second);
    let (status, list) = told(&w, &first).unwrap();
    let mut whole = in_force(&w);
    assert!(!names(&whole, &first) && names(&whole, &second) && whole.revoked.iter().any(|r| r.id == stays.id));
    whole.revoked.push(v1::Revocation { id: first.id.clone(), not_before_seq: u64::MAX, spki_sha256: Vec::new() });
    assert_eq!(list, whole);
    let now: v1::Status = statement::peek(&prepare::status(&w.state, &w.stk, w.now, w.lives.status).unwrap()).unwrap();
    assert_eq!(
        v1::Status { revocations_sha256: now.revocations_sha256.clone(), ..status },
        now,
        "the same but for that"
    );
    // Nor does the list in force change by it.
    w.propose(Command::Tick).result.unwrap();
    assert!(!names(&in_force(&w), &first));
}
