//! Removals and quarantines that a node or an orchestrator kept of the era before: they count if that era signed them, and nothing else does.

use super::rejoin::runs;
use super::reset::{reset, reset_from_a_thief};
use crate::world::{Machine, SoftKey, World, named_key};
use holdfast_pki::keys::RootStatementSigner;
use holdfast_types::{Digest, Millis, Role};
use holdfast_vault_core::{CertFacts, Command, Refusal, State, prepare};
use holdfast_wire::keys::StatementSigner;
use holdfast_wire::{statement, v1};
use v1::command::Action;

/// What a node holds of the cluster as it is now.
fn held(w: &World, stk: &dyn StatementSigner) -> v1::HeldBefore {
    let revocations = prepare::revocations(&w.state, stk).unwrap();
    v1::HeldBefore { revocations: Some(revocations), bundle_chain: w.state.bundle_chain() }
}

fn merge(w: &World, shown: &v1::HeldBefore) -> Result<Option<Command>, Refusal> {
    let mut told = prepare::merge_revoked(&w.state, shown, "n-that-shows")?;
    // That a newer list was shown is remembered, whomever it names.
    told.retain(|c| !matches!(c, Command::MergeQuarantined { ids, .. } if ids.is_empty()));
    assert!(told.len() < 2, "{told:?}");
    Ok(told.pop())
}

fn signed(list: &v1::Revocations, stk: &dyn StatementSigner) -> v1::Statement {
    statement::sign(list, &[stk]).unwrap()
}

/// A shop that was backed up, lived on as `life` says, burnt, and came back; what was held at the end, and the node.
fn burnt(life: impl FnOnce(&mut World, &Machine) -> v1::HeldBefore) -> (World, v1::HeldBefore, Machine) {
    let (mut w, _, node) = World::shop();
    w.checked = false;
    let (backup, leaves) = (w.state.clone(), w.leaves.len());
    let shown = life(&mut w, &node);
    w.state = backup;
    w.leaves.truncate(leaves);
    reset(&mut w);
    assert_ne!(w.state_of(&node.id), "removed", "the backup does not know");
    (w, shown, node)
}

fn remove(w: &mut World, node: &Machine) {
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: node.id.clone() })).unwrap();
}

#[test]
fn only_what_the_era_before_signed_after_the_backup_removes_anybody() {
    let mut known = v1::HeldBefore::default();
    let (mut w, shown, node) = burnt(|w, node| {
        known = held(w, &w.stk);
        remove(w, node);
        held(w, &w.stk)
    });
    assert_eq!(merge(&w, &known).unwrap(), None, "no later than the backup");
    assert_eq!(merge(&w, &v1::HeldBefore::default()).unwrap(), None);
    let list: v1::Revocations = statement::peek(shown.revocations.as_ref().unwrap()).unwrap();
    let with = |list: &v1::Revocations, stk: &dyn StatementSigner| v1::HeldBefore {
        revocations: Some(signed(list, stk)),
        ..shown.clone()
    };
    let thief = named_key("a thief");
    assert!(merge(&w, &with(&list, &thief)).is_err(), "not by a statement key of that era");
    let of_now = v1::Revocations { era: 2, ..list.clone() };
    assert_eq!(merge(&w, &with(&of_now, &w.stk)).unwrap(), None, "an old key says nothing of this era");
    let elsewhere = v1::Revocations { cluster_id: vec![7; 32], ..list.clone() };
    assert!(merge(&w, &with(&elsewhere, &w.stk)).is_err());
    // A Bundle that lists the thief's key, signed by a root of the thief's own.
    let last: v1::Bundle = statement::peek(shown.bundle_chain.last().unwrap()).unwrap();
    let stks = vec![v1::Stk { key: Some(thief.public()), from_ms: 0, until_ms: i64::MAX }];
    let forged = v1::Bundle { epoch: last.epoch + 5, stks, ..last };
    let forged = statement::sign(&forged, &[&RootStatementSigner(&SoftKey::new())]).unwrap();
    let mut lie = with(&list, &thief);
    lie.bundle_chain.push(forged);
    assert!(merge(&w, &lie).is_err(), "no root of that era signed it");
    assert_ne!(w.state_of(&node.id), "removed");
    // It was released from quarantine: some of its keys do not count, and it does.
    let mut released = list.clone();
    released.revoked.iter_mut().for_each(|r| r.spki_sha256 = vec![vec![1; 32]]);
    assert_eq!(merge(&w, &with(&released, &w.stk)).unwrap(), None);

    // The truth, with names that nobody has here: those add nothing.
    let mut more = list.clone();
    for id in ["n-unknown", "op/ada", "vault/1"] {
        more.revoked.push(v1::Revocation { id: id.into(), not_before_seq: 9, ..Default::default() });
    }
    let command = merge(&w, &with(&more, &w.stk)).unwrap().unwrap();
    let from = w.leaves.len();
    w.propose(command.clone()).result.unwrap();
    assert_eq!(w.state_of(&node.id), "removed");
    assert_eq!(w.kinds_since(from).iter().filter(|k| *k == "node.remove").count(), 1);
    let entry = w.entry(from as u64);
    let field = |name: &str| entry.fields.iter().find(|f| f.name == name).map(|f| f.value.clone());
    assert_eq!((entry.actor.as_str(), entry.subject.as_str()), ("vault", node.id.as_str()));
    assert_eq!(field("shown_by").as_deref(), Some("n-that-shows"));
    assert!(field("reason").unwrap().contains("era before"));
    let serial = w.state.node_view(&node.id, false).unwrap().serial;
    assert!(!w.show(Role::Node, &node.id, &serial, &node.spki));
    let now: v1::Revocations = statement::peek(&prepare::revocations(&w.state, &w.stk).unwrap()).unwrap();
    assert!(now.era == 2 && now.revoked.iter().any(|r| r.id == node.id), "the next list names it");

    // Shown again, by whomever, it is no news; and a command that came twice changes nothing.
    assert_eq!(merge(&w, &shown).unwrap(), None);
    let from = w.leaves.len();
    w.propose(command).result.unwrap();
    assert!(w.kinds_since(from).is_empty());
}

#[test]
fn a_statement_key_that_was_made_after_the_backup_counts_by_the_bundles_that_are_shown() {
    let later = named_key("made after the backup");
    let (mut w, shown, node) = burnt(|w, node| {
        let life = w.lives.issuer;
        let p = prepare::new_stk(&w.state, &w.keys, &w.root, &later, life, w.now, &mut w.entropy());
        w.commit(p).unwrap();
        remove(w, node);
        held(w, &later)
    });
    assert!(
        merge(&w, &v1::HeldBefore { bundle_chain: Vec::new(), ..shown.clone() }).is_err(),
        "nothing lists that key"
    );
    let command = merge(&w, &shown).unwrap().unwrap();
    w.propose(command).result.unwrap();
    assert_eq!(w.state_of(&node.id), "removed");
}

#[test]
fn where_the_keys_of_the_era_before_are_a_thiefs_they_remove_nobody() {
    let (mut w, _, node) = World::shop();
    w.checked = false;
    // Whoever has the statement key says that everybody was removed, later than anybody knows.
    let list = v1::Revocations {
        epoch: u64::MAX - 1,
        revoked: vec![v1::Revocation { id: node.id.clone(), not_before_seq: u64::MAX, ..Default::default() }],
        ..statement::peek(&prepare::revocations(&w.state, &w.stk).unwrap()).unwrap()
    };
    let lie = v1::HeldBefore { revocations: Some(signed(&list, &w.stk)), bundle_chain: w.state.bundle_chain() };
    let (before, leaves) = (w.state.clone(), w.leaves.len());
    reset(&mut w);
    assert!(merge(&w, &lie).unwrap().is_some(), "nobody said that the key is in other hands");
    w.state = before;
    w.leaves.truncate(leaves);
    reset_from_a_thief(&mut w);
    assert_eq!(merge(&w, &lie).unwrap(), None);
    assert_ne!(w.state_of(&node.id), "removed");
}

#[test]
fn what_an_era_before_signed_removes_nobody_for_ever() {
    let day = 24 * 3_600_000;
    let (mut w, shown, node) = burnt(|w, node| {
        remove(w, node);
        held(w, &w.stk)
    });
    runs(&mut w, 119 * day);
    assert!(merge(&w, &shown).unwrap().is_some(), "a machine may come back as late");
    runs(&mut w, 2 * day);
    assert_eq!(merge(&w, &shown).unwrap(), None);
    assert_ne!(w.state_of(&node.id), "removed");
}

#[test]
fn what_an_era_before_signed_counts_for_as_long_as_machines_may_come_back() {
    let day = 24 * 3_600_000;
    let (mut w, shown, _) = burnt(|w, node| {
        remove(w, node);
        held(w, &w.stk)
    });
    // Off for so long, or started with a clock that was so far ahead: nobody came meanwhile.
    w.pass(400 * day);
    w.propose(Command::Tick).result.unwrap();
    assert!(merge(&w, &shown).unwrap().is_some());
    runs(&mut w, 89 * day);
    assert!(merge(&w, &shown).unwrap().is_some(), "a machine may come back as late");
    runs(&mut w, 2 * day);
    assert_eq!(merge(&w, &shown).unwrap(), None);
}

/// Most of those who are removed were so long before the end: their certificates were over, and their keys are known for months.
#[test]
fn who_was_removed_long_before_the_end_is_remembered_too() {
    let day = 24 * 3_600_000;
    for (days, remembered) in [(10, true), (119, true), (121, false)] {
        let (mut w, shown, node) = burnt(|w, node| {
            remove(w, node);
            runs(w, days * day);
            held(w, &w.stk)
        });
        let told = merge(&w, &shown).unwrap();
        assert_eq!(told.is_some(), remembered, "after {days} days");
        if let Some(command) = told {
            w.propose(command).result.unwrap();
            assert_eq!(w.state_of(&node.id), "removed");
        }
    }
}

#[test]
fn who_is_in_quarantine_for_long_is_remembered_too() {
    let (mut w, shown, node) = burnt(|w, node| {
        quarantine(w, &node.id);
        runs(w, 10 * 24 * 3_600_000);
        held(w, &w.stk)
    });
    let command = merge(&w, &shown).unwrap().unwrap();
    w.propose(command).result.unwrap();
    assert_eq!(w.state_of(&node.id), "quarantined");
}

#[test]
fn more_of_the_era_before_than_anybody_holds_is_refused() {
    let (w, shown, _) = burnt(|w, node| {
        remove(w, node);
        held(w, &w.stk)
    });
    let link = shown.bundle_chain[0].clone();
    let long = v1::HeldBefore { bundle_chain: vec![link; 513], ..shown };
    assert!(merge(&w, &long).unwrap_err().reason.contains("more of the era before"));
}

#[test]
fn in_the_first_era_nothing_was_before() {
    let (mut w, _, node) = World::shop();
    remove(&mut w, &node);
    assert_eq!(merge(&w, &held(&w, &w.stk)).unwrap(), None);
}

/// An order of the era that it is.
fn now_act(w: &mut World, action: Action) {
    let command = v1::Command { era: w.state.era(), ..w.command(action) };
    let st = w.sign(&command, &["ada", "ben"]);
    w.submit(&st, &[]).unwrap();
}

fn quarantine(w: &mut World, id: &str) {
    let order = v1::QuarantineNode { id: id.to_owned(), reason: "its disk was copied".into() };
    w.act(&["oz"], Action::QuarantineNode(order)).unwrap();
}

#[test]
fn who_was_in_quarantine_after_the_backup_comes_back_in_quarantine() {
    let (mut w, shown, node) = burnt(|w, node| {
        quarantine(w, &node.id);
        held(w, &w.stk)
    });
    let command = merge(&w, &shown).unwrap().unwrap();
    let from = w.leaves.len();
    w.propose(command.clone()).result.unwrap();
    assert_eq!(
        (w.state_of(&node.id).as_str(), w.kinds_since(from)),
        ("quarantined", vec!["node.quarantine".to_owned()])
    );
    let entry = w.entry(from as u64);
    assert!(entry.fields.iter().any(|f| f.name == "shown_by" && f.value == "n-that-shows"), "{entry:?}");
    let serial = w.state.node_view(&node.id, false).unwrap().serial;
    let pinned = |w: &World| prepare::pin(&w.state, Role::Node, &node.id, &serial, &node.spki, w.now);
    assert!(matches!(pinned(&w), prepare::Pin::State(_)), "its certificate counts");

    // Shown again, it is no news, and a command that came twice changes nothing.
    assert_eq!(merge(&w, &shown).unwrap(), None);
    let from = w.leaves.len();
    w.propose(command.clone()).result.unwrap();
    assert!(w.kinds_since(from).is_empty());
    // Operators let it go on as after any quarantine, or remove it; neither is undone.
    let release = v1::ReleaseIdentity { id: node.id.clone(), spki_sha256: vec![9; 32] };
    now_act(&mut w, Action::ReleaseIdentity(release));
    assert_eq!((pinned(&w), merge(&w, &shown).unwrap()), (prepare::Pin::Released, None));
    let (id, serial) = (node.id.clone(), "0909".to_owned());
    let not_after = Millis(w.now.0 + 24 * 3_600_000);
    let root = w.state.signing_root_sha256().unwrap();
    let cert = CertFacts { seq: 9, serial: serial.clone(), spki: Digest([9; 32]), not_after, root };
    w.propose(Command::Renew { id: id.clone(), cert, hpke: None, acked: 0 }).result.unwrap();
    w.propose(Command::Activate { id, serial }).result.unwrap();
    for days in [0, 2, 60] {
        runs(&mut w, days * 24 * 3_600_000);
        assert_eq!(merge(&w, &shown).unwrap(), None, "after {days} more days");
        w.propose(command.clone()).result.unwrap();
        assert_eq!(w.state_of(&node.id), "ready", "after {days} more days");
    }
    now_act(&mut w, Action::RemoveNode(v1::RemoveNode { id: node.id.clone() }));
    w.propose(command).result.unwrap();
    assert_eq!((w.state_of(&node.id).as_str(), merge(&w, &shown).unwrap()), ("removed", None));
}

/// Operators let it go on with a key of its own, and it uses that.
fn let_go(w: &mut World, id: &str, seq: u8) {
    let spki = Digest([seq; 32]);
    now_act(w, Action::ReleaseIdentity(v1::ReleaseIdentity { id: id.to_owned(), spki_sha256: spki.to_vec() }));
    let (serial, seq) = (format!("{seq:02}"), u64::from(seq));
    let (not_after, root) = (Millis(w.now.0 + 24 * 3_600_000), w.state.signing_root_sha256().unwrap());
    let cert = CertFacts { seq, serial: serial.clone(), spki, not_after, root };
    w.propose(Command::Renew { id: id.to_owned(), cert, hpke: None, acked: 0 }).result.unwrap();
    w.propose(Command::Activate { id: id.to_owned(), serial }).result.unwrap();
    assert_eq!(w.state_of(id), "ready");
}

#[test]
fn what_operators_released_stays_so_however_late_and_however_often_the_old_list_is_shown() {
    let day = 24 * 3_600_000;
    for by_the_list in [true, false] {
        let (mut w, shown, node) = burnt(|w, node| {
            quarantine(w, &node.id);
            held(w, &w.stk)
        });
        let command = merge(&w, &shown).unwrap().unwrap();
        if by_the_list {
            w.propose(command.clone()).result.unwrap();
        } else {
            let order = v1::QuarantineNode { id: node.id.clone(), reason: "its disk was copied".into() };
            now_act(&mut w, Action::QuarantineNode(order));
        }
        // The certificates of the backup are over before anybody sees to it.
        runs(&mut w, 5 * day);
        let_go(&mut w, &node.id, 9);
        for days in [0, 5, 60] {
            runs(&mut w, days * day);
            w.pass(200 * day);
            w.propose(Command::Tick).result.unwrap();
            assert_eq!(merge(&w, &shown).unwrap(), None, "{by_the_list}, after {days} more days");
            w.propose(command.clone()).result.unwrap();
            assert_eq!(w.state_of(&node.id), "ready", "{by_the_list}, after {days} more days");
        }
    }
}

#[test]
fn a_quarantine_that_was_over_in_the_era_before_is_not_brought_back_by_an_older_list() {
    let mut during = v1::HeldBefore::default();
    let (mut w, newest, node) = burnt(|w, node| {
        quarantine(w, &node.id);
        during = held(w, &w.stk);
        let_go(w, &node.id, 9);
        held(w, &w.stk)
    });
    let told = |w: &World, shown: &v1::HeldBefore| prepare::merge_revoked(&w.state, shown, "orch-that-shows").unwrap();
    // Decided by what was known then, and late: a newer list was shown meanwhile.
    let late = merge(&w, &during).unwrap().unwrap();
    let from = w.leaves.len();
    for command in told(&w, &newest) {
        w.propose(command).result.unwrap();
    }
    w.propose(late).result.unwrap();
    w.state = State::decode(&w.state.encode()).unwrap();
    assert!(told(&w, &during).is_empty() && told(&w, &newest).is_empty(), "neither is news any more");
    assert_eq!((w.state_of(&node.id).as_str(), w.kinds_since(from)), ("ready", Vec::new()));
    // A removal has no end, and a newer list may have forgotten it.
    let mut gone: v1::Revocations = statement::peek(during.revocations.as_ref().unwrap()).unwrap();
    gone.revoked.iter_mut().for_each(|r| r.not_before_seq = u64::MAX);
    let gone = v1::HeldBefore { revocations: Some(signed(&gone, &w.stk)), ..during };
    let command = merge(&w, &gone).unwrap().unwrap();
    w.propose(command).result.unwrap();
    assert_eq!(w.state_of(&node.id), "removed");
}

#[test]
fn who_was_removed_and_who_was_in_quarantine_are_told_apart() {
    let other = |w: &World, node: &Machine| w.state.machine_ids().find(|id| **id != *node.id).unwrap().to_owned();
    let (mut w, shown, node) = burnt(|w, node| {
        let id = other(w, node);
        quarantine(w, &id);
        remove(w, node);
        held(w, &w.stk)
    });
    let told = prepare::merge_revoked(&w.state, &shown, "orch-that-shows").unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    for command in told {
        w.propose(command).result.unwrap();
    }
    let id = other(&w, &node);
    assert_eq!((w.state_of(&node.id).as_str(), w.state_of(&id).as_str()), ("removed", "quarantined"));
    // Whoever was removed after its quarantine is removed, whatever is shown later.
    let list: v1::Revocations = statement::peek(shown.revocations.as_ref().unwrap()).unwrap();
    let mut gone = v1::Revocations { epoch: list.epoch + 1, ..list };
    gone.revoked.iter_mut().for_each(|r| r.not_before_seq = u64::MAX);
    let later = v1::HeldBefore { revocations: Some(signed(&gone, &w.stk)), ..shown.clone() };
    let command = merge(&w, &later).unwrap().unwrap();
    w.propose(command).result.unwrap();
    assert_eq!((w.state_of(&id).as_str(), merge(&w, &shown).unwrap()), ("removed", None));
}
