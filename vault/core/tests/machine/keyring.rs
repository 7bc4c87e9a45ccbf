//! Terms of the keyring: a new one for the members of its moment, records that move to it, and the end of the old ones.

use crate::world::{Machine, World, secret};
use holdfast_types::{Secret, SecretRef, VoterId};
use holdfast_vault_core::prepare;
use holdfast_vault_core::{Code, Command, Committed, Event, Keyring, Prepared, RecordAt, Refusal, Rewrapped, State};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::{padding, record, v1};
use std::time::Duration;
use v1::command::Action;

const DAYS_90: Duration = Duration::from_secs(90 * 24 * 3600);

fn next_term(w: &World) -> Result<Prepared<()>, Refusal> {
    let fresh = Secret::take(&mut w.entropy().draw("fresh term"));
    prepare::new_term(&w.leader(), &w.root, fresh, &mut w.entropy())
}
/// A new term, which voter 1 opens.
pub fn add_term(w: &mut World) -> Result<Committed, Refusal> {
    let p = next_term(w);
    let (_, done) = w.commit(p)?;
    w.reopen();
    Ok(done)
}
/// One batch of at most `most`; empty once there is nothing to do.
fn rewrap(w: &mut World, most: usize) -> Vec<Rewrapped> {
    let batch = prepare::rewrap(&w.leader(), most, &mut w.entropy()).unwrap();
    let Some(batch) = batch else { return Vec::new() };
    w.propose(batch.clone()).result.unwrap();
    let Command::Rewrap(records) = batch else { panic!("not a rewrap") };
    records
}
fn rewrap_all(w: &mut World) -> Vec<Rewrapped> {
    let mut all = Vec::new();
    loop {
        let batch = rewrap(w, 2);
        if batch.is_empty() {
            return all;
        }
        assert!(batch.len() <= 2, "a batch has a bound");
        all.extend(batch);
    }
}
fn destroy(w: &mut World, terms: &[u32]) -> Result<Committed, Refusal> {
    let done = w.propose(Command::KeyringDestroy(terms.to_vec())).result?;
    w.reopen();
    Ok(done)
}
fn db() -> RecordAt {
    RecordAt::Secret(SecretRef::of("shop", "db").unwrap())
}
/// The newest record that an operator's statement brought.
fn brought(w: &World) -> Vec<u8> {
    let sealed =
        |c: &holdfast_vault_core::Stamped| if let Command::Submit(s) = &c.command { s.sealed.clone() } else { None };
    w.log.iter().rev().find_map(sealed).unwrap()
}
/// The node gets its next certificate, with its next key, and uses it.
fn renewed(w: &mut World, node: &Machine) {
    let (_, hpke) = derive_keypair(&w.entropy().draw("next hpke"));
    w.renew(&node.id, &crate::world::csr().1, &hpke).unwrap().unwrap();
    let Command::Renew { cert, .. } = w.log.last().unwrap().command.clone() else { panic!("not a renewal") };
    w.propose(Command::Activate { id: node.id.clone(), serial: cert.serial }).result.unwrap();
}

#[test]
fn a_rewrap_keeps_the_value_and_moves_the_term() {
    let mut w = World::new();
    w.put_secret("db", 1, b"first", &["shop/web"]).unwrap();
    w.put_secret("db", 2, b"second", &["shop/web"]).unwrap();
    let token = w.mint("node");
    add_term(&mut w).unwrap();
    let before = w.state.keyring_view();
    // The secret, the token, and the keys of root, issuer and statements.
    assert_eq!((before.term, before.older, before.left), (2, vec![1], 5));
    let moved = rewrap_all(&mut w);
    assert_eq!(moved.len(), 5);
    assert_eq!(w.state.keyring_view().left, 0);
    assert!(moved.iter().all(|r| record::term_of(&r.record) == Ok(2)));
    let secret = moved.iter().find(|r| r.at == db()).unwrap();
    assert_eq!(secret.rev, 2, "a record's revision is its version's number");
    let value = w.keys.open("secret", "shop/db", 2, &secret.record).unwrap();
    assert_eq!(padding::unpad(value.expose()).unwrap(), b"second");
    assert!(w.keys.open("secret", "shop/db", 1, &secret.record).is_err());
    destroy(&mut w, &[1]).unwrap();
    w.try_join(&token).unwrap();
    w.put_secret("db", 3, b"third", &["shop/web"]).unwrap();
    assert_eq!(record::term_of(&brought(&w)), Ok(2));
}

#[test]
fn grants_and_joins_go_on_while_two_terms_live() {
    let (mut w, orch, node) = World::shop();
    add_term(&mut w).unwrap();
    let given = |w: &mut World, slot| w.grant(&orch, w.ask("web", &node, slot)).map(|(_, boxes, _)| boxes.len());
    assert_eq!(given(&mut w, 1), Ok(1), "the secret and the node's key are of the older term");
    rewrap_all(&mut w);
    assert_eq!(given(&mut w, 2), Ok(1), "the node's key alone is of the older term");
    renewed(&mut w, &node);
    destroy(&mut w, &[1]).unwrap();
    assert_eq!(given(&mut w, 3), Ok(1));
}

#[test]
fn a_record_that_was_replaced_meanwhile_keeps_its_own_value() {
    let mut w = World::new();
    w.put_secret("db", 1, b"first", &["shop/web"]).unwrap();
    add_term(&mut w).unwrap();
    let batch = prepare::rewrap(&w.leader(), 100, &mut w.entropy()).unwrap().unwrap();
    w.put_secret("db", 2, b"second", &["shop/web"]).unwrap();
    let newest = brought(&w);
    w.propose(batch).result.unwrap();
    add_term(&mut w).unwrap();
    let moved = rewrap_all(&mut w).into_iter().find(|r| r.at == db()).unwrap();
    let value = |w: &World, r: &[u8]| w.keys.open("secret", "shop/db", 2, r).unwrap().expose().to_vec();
    assert_eq!(value(&w, &moved.record), value(&w, &newest));
}

#[test]
fn a_rewrap_of_an_older_term_is_refused() {
    let mut w = World::new();
    w.put_secret("db", 1, b"first", &["shop/web"]).unwrap();
    add_term(&mut w).unwrap();
    let batch = prepare::rewrap(&w.leader(), 100, &mut w.entropy()).unwrap().unwrap();
    add_term(&mut w).unwrap();
    assert_eq!(w.propose(batch).result.unwrap_err().code, Code::Changed);
}

#[test]
fn nothing_opens_under_a_destroyed_term() {
    let mut w = World::new();
    w.put_secret("db", 1, b"first", &["shop/web"]).unwrap();
    let old = brought(&w);
    add_term(&mut w).unwrap();
    w.keys.open("secret", "shop/db", 1, &old).unwrap();
    let moved = rewrap_all(&mut w).into_iter().find(|r| r.at == db()).unwrap();
    let order = w.state.unlock_view().disk_key_order;
    assert_eq!(w.state.destroyable_terms(), vec![1]);
    let done = w.propose(Command::KeyringDestroy(vec![1]));
    assert!(done.events.contains(&Event::Keys) && done.events.contains(&Event::Slots));
    done.result.unwrap();
    w.reopen();
    assert_eq!(w.keys.open("secret", "shop/db", 1, &old).unwrap_err().code, Code::Unavailable);
    w.keys.open("secret", "shop/db", 1, &moved.record).unwrap();
    let boxed: Vec<u32> = w.state.all_voters().flat_map(|(_, v)| v.terms.iter().map(|(t, _)| *t)).collect();
    assert_eq!(boxed, vec![2]);
    assert_eq!(w.state.keyring_view().older, Vec::<u32>::new());
    assert_eq!(w.state.unlock_view().disk_key_order, order + 1, "the boxes in old entries go with the disk keys");
}

#[test]
fn a_record_of_a_destroyed_term_comes_in_no_more() {
    let mut w = World::new();
    let (st, sealed) = w.secret_statement(&["sam"], secret("db", 1, &["shop/web"]), b"late");
    let late = prepare::submit(&w.leader(), &st, &sealed, &mut w.entropy());
    add_term(&mut w).unwrap();
    rewrap_all(&mut w);
    destroy(&mut w, &[1]).unwrap();
    assert_eq!(w.commit(late).err().unwrap().code, Code::Changed);
}

#[test]
fn a_term_goes_only_when_no_record_and_no_node_needs_it() {
    let mut w = World::new();
    w.put_secret("db", 1, b"first", &["shop/web"]).unwrap();
    let (stays, goes) = (w.node(), w.node());
    add_term(&mut w).unwrap();
    let read = State::decode(&w.state.encode()).unwrap();
    assert!(read.keyring_view().left > 0, "secrets, tokens and keys are under the term before");
    assert_eq!(
        read.keyring_view(),
        w.state.keyring_view(),
        "a loaded state counts them as the one that it was written of"
    );
    assert_eq!(destroy(&mut w, &[1]).err().unwrap().code, Code::Changed, "records are left");
    assert_eq!(destroy(&mut w, &[2]).err().unwrap().code, Code::Changed, "it is the active one");
    assert_eq!(destroy(&mut w, &[]).err().unwrap().code, Code::Changed);
    rewrap_all(&mut w);
    assert_eq!(w.state.destroyable_terms(), Vec::<u32>::new(), "both nodes have keys of it");
    renewed(&mut w, &stays);
    assert_eq!(destroy(&mut w, &[1]).err().unwrap().code, Code::Changed, "one node is left");
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: goes.id.clone() })).unwrap();
    let read = State::decode(&w.state.encode()).unwrap();
    assert_eq!((read.destroyable_terms(), read.keyring_view()), (vec![1], w.state.keyring_view()));
    destroy(&mut w, &[1]).unwrap();
    assert_eq!(destroy(&mut w, &[1]).err().unwrap().code, Code::Changed, "it is gone");
}

#[test]
fn a_node_whose_certificate_has_expired_keeps_no_term_alive() {
    let mut w = World::new();
    w.node();
    add_term(&mut w).unwrap();
    rewrap_all(&mut w);
    assert_eq!(w.state.destroyable_terms(), Vec::<u32>::new());
    w.pass(73 * 3_600_000);
    w.propose(Command::Tick).result.unwrap();
    destroy(&mut w, &[1]).unwrap();
}

#[test]
fn an_evicted_voter_has_no_box_of_the_next_term() {
    let mut w = World::new();
    let (id, machine) = w.voter();
    assert!(!w.state.keyring_due(w.now, DAYS_90));
    w.evict(id, false).unwrap();
    assert!(w.state.keyring_due(w.now, DAYS_90), "an eviction orders a new term");
    add_term(&mut w).unwrap();
    assert!(!w.state.keyring_due(w.now, DAYS_90));
    assert!(w.state.voter(VoterId(id)).unwrap().terms.is_empty());
    let row = w.state.voter(VoterId(1)).unwrap();
    let (term, sealed) = row.terms.last().unwrap();
    assert_eq!(*term, 2);
    for (number, key_gen) in [(id, 1), (1, row.kem_gen)] {
        assert!(Keyring::open_term(&w.cluster, &machine.hpke, *term, number, key_gen, sealed).is_err());
    }
}

#[test]
fn a_new_term_is_for_the_members_of_its_moment() {
    let mut w = World::new();
    let alone = next_term(&w);
    let (id, machine) = w.voter();
    assert_eq!(w.commit(alone).err().unwrap().code, Code::Changed);
    add_term(&mut w).unwrap();
    let row = w.state.voter(VoterId(id)).unwrap();
    let terms: Vec<u32> = row.terms.iter().map(|(t, _)| *t).collect();
    assert_eq!(terms, vec![1, 2]);
    for (t, sealed) in &row.terms {
        Keyring::open_term(&w.cluster, &machine.hpke, *t, id, row.kem_gen, sealed).unwrap();
    }
}

#[test]
fn a_term_lives_for_its_time_or_until_another_is_ordered() {
    let mut w = World::new();
    w.pass(90 * 24 * 3_600_000 - 1);
    assert!(!w.state.keyring_due(w.now, DAYS_90));
    w.pass(1);
    assert!(w.state.keyring_due(w.now, DAYS_90));
    let mut w = World::new();
    let order = Action::RotateKeyring(v1::RotateKeyring {});
    assert_eq!(w.act(&["ada"], order.clone()).err().unwrap().code, Code::Threshold);
    w.act(&["ada", "ben"], order.clone()).unwrap();
    assert!(w.state.keyring_due(w.now, DAYS_90));
    // Whoever orders it once more before it came wants the same one.
    w.act(&["ada", "ben"], order).unwrap();
    add_term(&mut w).unwrap();
    assert!(!w.state.keyring_due(w.now, DAYS_90) && w.state.active_term() == 2);
}

#[test]
fn a_value_boxed_to_a_former_intake_key_opens_while_its_term_lives() {
    let mut w = World::new();
    let (first, first_box) = w.secret_statement(&["sam"], secret("db", 1, &["shop/web"]), b"just before");
    let (second, second_box) = w.secret_statement(&["sam"], secret("late", 1, &["shop/web"]), b"too late");
    let known = w.keys.intake(1).unwrap().1;
    add_term(&mut w).unwrap();
    let bundle = w.state.bundle_chain().pop().unwrap();
    let bundle: v1::Bundle = holdfast_wire::statement::peek(&bundle).unwrap();
    assert_ne!(bundle.intake_pk, known, "the newest Bundle names another intake key");
    assert_eq!(bundle.intake_pk, w.keys.intake(2).unwrap().1);
    w.submit(&first, &first_box).unwrap();
    assert_eq!(record::term_of(&brought(&w)), Ok(2));
    rewrap_all(&mut w);
    destroy(&mut w, &[1]).unwrap();
    let refused = w.submit(&second, &second_box).err().unwrap();
    assert_eq!(refused.code, Code::InvalidInput);
    assert!(refused.reason.contains("fetch the trust bundle again"), "{refused}");
}
