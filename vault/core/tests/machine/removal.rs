//! What ends: nodes, services, secrets, grants; and what time alone does.

use crate::rejoin::runs;
use crate::world::{Machine, World};
use holdfast_types::Role;
use holdfast_vault_core::{Code, Command, Event, GrantState, NodeTaskReport, prepare};
use holdfast_wire::{statement, v1};
use v1::command::Action;

fn id_of(st: &v1::Statement) -> Vec<u8> {
    statement::peek::<v1::Grant>(st).unwrap().grant_id
}

#[test]
fn a_removed_node_is_revoked_listed_and_never_comes_back() {
    let (mut w, orch, node) = World::shop();
    let (st, ..) = w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    w.report(&node, &id_of(&st), "running").unwrap();
    let (epoch, serial) = (w.state.epoch(), w.state.node_view(&node.id, false).unwrap().serial);
    let from = w.leaves.len();
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: node.id.clone() })).unwrap();
    assert_eq!(w.kinds_since(from), ["node.remove", "grant.revoked"]);
    assert_eq!((w.state_of(&node.id).as_str(), w.state.epoch()), ("removed", epoch + 1));
    let listed: v1::Revocations = statement::peek(&prepare::revocations(&w.state, &w.stk).unwrap()).unwrap();
    assert!(listed.revoked.iter().any(|r| r.id == node.id && r.not_before_seq == u64::MAX));
    assert!(!w.show(Role::Node, &node.id, &serial, &node.spki));
    assert!(w.state.extensions(w.now, 10, |_| true).is_none());
    for again in [
        Action::RemoveNode(v1::RemoveNode { id: node.id.clone() }),
        Action::SetDrain(v1::SetDrain { id: node.id.clone(), drain: false }),
        Action::SetPlace(v1::SetPlace { id: node.id.clone(), zone: "eu".into(), labels: Vec::new() }),
        Action::ApproveIdentity(v1::ApproveIdentity { id: node.id.clone(), spki_sha256: node.spki.to_vec() }),
    ] {
        assert_eq!(w.act(&["ada"], again).err().unwrap().code, Code::Changed);
    }
    assert_eq!(w.grant(&orch, w.ask("web", &node, 2)).err().unwrap().policies, ["L0-node-ready"]);
}

#[test]
fn a_removed_service_takes_its_grants_along_and_its_versions_go_on() {
    let (mut w, orch, node) = World::shop();
    let (st, ..) = w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    let remove = || Action::RemoveService(v1::RemoveService { namespace: "shop".into(), service: "web".into() });
    w.act(&["cleo"], remove()).unwrap();
    let (id, row) = w.state.grants().next().unwrap();
    assert_eq!((id.to_vec(), row.state), (id_of(&st), GrantState::Revoked));
    assert_eq!(w.act(&["cleo"], remove()).err().unwrap().code, Code::NotFound);
    let again = v1::Spec { replicas_max: 9, ..w.spec("web", 1, &["db"]) };
    assert_eq!(w.deploy(&again).err().unwrap().code, Code::Changed, "an old version does not come back");
    let next = w.spec("web", 2, &["db"]);
    w.deploy(&next).unwrap();
}

#[test]
fn a_secret_in_use_is_not_deleted() {
    let (mut w, ..) = World::shop();
    let delete = || Action::DeleteSecret(v1::DeleteSecret { namespace: "shop".into(), name: "db".into() });
    assert_eq!(w.act(&["sam"], delete()).err().unwrap().code, Code::Changed);
    w.act(&["cleo"], Action::RemoveService(v1::RemoveService { namespace: "shop".into(), service: "web".into() }))
        .unwrap();
    w.act(&["sam"], delete()).unwrap();
    assert_eq!(w.act(&["sam"], delete()).err().unwrap().code, Code::NotFound);
}

#[test]
fn a_secrets_version_never_names_two_values() {
    let (mut w, ..) = World::shop();
    w.put_secret("key", 1, b"one", &["shop/web"]).unwrap();
    w.put_secret("key", 2, b"two", &["shop/web"]).unwrap();
    let name = holdfast_types::SecretRef::of("shop", "key").unwrap();
    for last in [2, 3] {
        let delete = v1::DeleteSecret { namespace: "shop".into(), name: "key".into() };
        w.act(&["sam"], Action::DeleteSecret(delete)).unwrap();
        assert_eq!(w.state.deleted_secret_view(&name).map(|v| (v.version, v.deleted)), Some((last, true)));
        assert_eq!(w.put_secret("key", 1, b"again", &["shop/web"]).err().unwrap().code, Code::Changed);
        w.put_secret("key", last + 1, b"again", &["shop/web"]).unwrap();
        assert_eq!(w.state.deleted_secret_view(&name), None);
    }
}

#[test]
fn a_node_speaks_for_its_own_tasks_alone_and_all_or_nothing() {
    let (mut w, orch, node) = World::shop();
    let other = w.node();
    let mine = id_of(&w.grant(&orch, w.ask("web", &node, 1)).unwrap().0);
    let theirs = id_of(&w.grant(&orch, w.ask("web", &other, 2)).unwrap().0);
    let task = |grant: &[u8]| holdfast_vault_core::NodeTaskReport {
        grant: holdfast_types::GrantId::from_slice(grant).unwrap(),
        state: "running".into(),
        exit_code: 0,
        detail: String::new(),
        restarts: 0,
    };
    // Regression: the first report was carried out before the second one was refused.
    let both = Command::Reports { node: node.node(), tasks: vec![task(&mine), task(&theirs)] };
    assert_eq!(w.propose(both).result.err().unwrap().code, Code::BadCredential);
    assert!(w.state.grants().all(|(_, g)| g.state == GrantState::Issued));
}

#[test]
fn an_orchestrator_gives_back_what_is_not_protected() {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { protected: true, ..w.spec("safe", 1, &[]) };
    w.deploy(&spec).unwrap();
    let plain = *w.grants(&orch, vec![w.ask("web", &node, 1)]).map(|_| w.state.grants().next().unwrap().0).unwrap();
    let safe = id_of(&w.grant(&orch, w.ask("safe", &node, 1)).unwrap().0);
    w.report(&node, &safe, "running").unwrap();
    let all: Vec<_> = w.state.grants().map(|(id, _)| *id).collect();
    let stranger = w.orchestrator();
    for (who, live) in [(stranger.orch(), 2), (orch.orch(), 1)] {
        w.propose(Command::ReleaseGrants { orch: who, grants: all.clone(), reason: "done".into() }).result.unwrap();
        assert_eq!(w.state.grants().filter(|(_, g)| g.state.is_live()).count(), live);
    }
    assert_eq!(w.state.grant(&plain).unwrap().state, GrantState::Revoked);
}

#[test]
fn a_protected_task_stays_so_when_its_version_is_replaced() {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { protected: true, ..w.spec("safe", 1, &[]) };
    w.deploy(&spec).unwrap();
    let id = id_of(&w.grant(&orch, w.ask("safe", &node, 1)).unwrap().0);
    w.report(&node, &id, "running").unwrap();
    for version in [2, 3] {
        let open = w.spec("safe", version, &[]);
        w.deploy(&open).unwrap();
    }
    let id = holdfast_types::GrantId::from_slice(&id).unwrap();
    let release = Command::ReleaseGrants { orch: orch.orch(), grants: vec![id], reason: "done".into() };
    w.propose(release).result.unwrap();
    assert_eq!(w.state.grant(&id).unwrap().state, GrantState::Running);
}

/// A protected service of three, all running; what becomes of its grants when all of them are given back at once.
fn given_back(change: impl FnOnce(&mut World, &Machine, &v1::Spec)) -> usize {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { protected: true, ..w.spec("safe", 1, &[]) };
    w.deploy(&spec).unwrap();
    for slot in 1..=3 {
        let id = id_of(&w.grant(&orch, w.ask("safe", &node, slot)).unwrap().0);
        w.report(&node, &id, "running").unwrap();
    }
    change(&mut w, &node, &spec);
    let grants: Vec<_> = w.state.grants().map(|(id, _)| *id).collect();
    w.propose(Command::ReleaseGrants { orch: orch.orch(), grants, reason: "done".into() }).result.unwrap();
    w.state.grants().filter(|(_, g)| g.state == GrantState::Revoked).count()
}

#[test]
fn a_protected_task_is_let_go_only_where_its_owner_left_no_place_for_it() {
    let next = |w: &mut World, s: &v1::Spec| drop(w.deploy(&v1::Spec { version: 2, ..s.clone() }).unwrap());
    let update = |parallelism| Some(v1::UpdatePolicy { parallelism, order: "stop-first".into(), ..Default::default() });
    let other = |s: &v1::Spec| v1::Spec { command: vec!["other".into()], ..s.clone() };
    assert_eq!(given_back(|_, _, _| {}), 0, "nothing changed");
    assert_eq!(given_back(|w, _, s| next(w, s)), 0, "nothing of the task changed");
    assert_eq!(given_back(|w, _, s| next(w, &v1::Spec { replicas_min: 1, replicas_max: 1, ..s.clone() })), 2);
    assert_eq!(given_back(|w, _, s| next(w, &other(s))), 1, "one at a time, unless the owner says more");
    assert_eq!(given_back(|w, _, s| next(w, &v1::Spec { update: update(2), ..other(s) })), 2);
    assert_eq!(given_back(|w, _, s| next(w, &v1::Spec { update: update(0), ..other(s) })), 1, "unset is one");
    let drain = |id: &str| Action::SetDrain(v1::SetDrain { id: id.to_owned(), drain: true });
    assert_eq!(given_back(|w, n, _| drop(w.act(&["ada"], drain(&n.id)).unwrap())), 3);
}

/// A hostile orchestrator fills the place of a change with a task of its own making, and gives the protected one back.
#[test]
fn a_protected_task_is_not_replaced_by_whom_it_is_protected_from() {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { protected: true, replicas_max: 1, ..w.spec("safe", 1, &[]) };
    w.deploy(&spec).unwrap();
    let run = |w: &mut World, slot: u32, state: &str| {
        let id = id_of(&w.grant(&orch, w.ask("safe", &node, slot))?.0);
        w.report(&node, &id, state).unwrap();
        Ok::<_, holdfast_vault_core::Refusal>(holdfast_types::GrantId::from_slice(&id).unwrap())
    };
    let give_back = |w: &mut World, id: holdfast_types::GrantId| {
        let release = Command::ReleaseGrants { orch: orch.orch(), grants: vec![id], reason: "r".into() };
        w.propose(release).result.unwrap();
        w.state.grant(&id).unwrap().state
    };
    let first = run(&mut w, 1, "running").unwrap();
    assert_eq!(run(&mut w, 1, "running").err().unwrap().code, Code::Changed, "its node would end the first one");
    let second = run(&mut w, 2, "running").unwrap();
    assert_eq!(give_back(&mut w, first), GrantState::Running, "nobody changed anything");
    w.deploy(&v1::Spec { version: 2, command: vec!["other".into()], replicas_max: 2, ..spec }).unwrap();
    let third = run(&mut w, 3, "started").unwrap();
    w.report(&node, &second.0, "restarting").unwrap();
    assert_eq!(give_back(&mut w, first), GrantState::Running, "what has not come up counts for nothing");
    w.report(&node, &third.0, "running").unwrap();
    assert_eq!(give_back(&mut w, first), GrantState::Revoked);
    // What was never reported blocks no place.
    let issued = id_of(&w.grant(&orch, w.ask("safe", &node, 1)).unwrap().0);
    let issued = holdfast_types::GrantId::from_slice(&issued).unwrap();
    assert_eq!(give_back(&mut w, issued), GrantState::Revoked);
}

/// A protected service whose newest version wants `replicas`, with a task in each of `slots`, in this order.
fn in_slots(slots: &[u32], replicas: u32) -> (World, crate::world::Machine, crate::world::Machine, v1::Spec) {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { protected: true, replicas_max: replicas, ..w.spec("safe", 1, &[]) };
    w.deploy(&spec).unwrap();
    for slot in slots {
        let id = id_of(&w.grant(&orch, w.ask("safe", &node, *slot)).unwrap().0);
        w.report(&node, &id, "running").unwrap();
    }
    (w, orch, node, spec)
}

/// What becomes of the task in `slot` when it is given back.
fn given_back_from(w: &mut World, orch: &crate::world::Machine, slot: u32) -> GrantState {
    let of_slot =
        |(_, g): &(_, &holdfast_vault_core::GrantRow)| g.task.slot() == slot && g.state == GrantState::Running;
    let id = *w.state.grants().find(of_slot).unwrap().0;
    w.propose(Command::ReleaseGrants { orch: orch.orch(), grants: vec![id], reason: "r".into() }).result.unwrap();
    w.state.grant(&id).unwrap().state
}

#[test]
fn a_protected_task_beyond_the_replicas_goes_if_there_were_more_or_if_it_is_the_youngest() {
    // As a rollout that starts first leaves them. The owner prolongs, and changes neither work nor number.
    let (mut w, orch, node, spec) = in_slots(&[4, 3, 2], 3);
    let prolonged = v1::Spec { version: 2, valid_until_ms: spec.valid_until_ms + 1, ..spec.clone() };
    w.deploy(&prolonged).unwrap();
    let id = id_of(&w.grant(&orch, w.ask("safe", &node, 1)).unwrap().0);
    w.report(&node, &id, "running").unwrap();
    assert_eq!(given_back_from(&mut w, &orch, 4), GrantState::Running, "its place was filled by a younger one");
    w.deploy(&v1::Spec { version: 3, replicas_min: 1, replicas_max: 2, ..spec }).unwrap();
    assert_eq!(given_back_from(&mut w, &orch, 4), GrantState::Revoked, "now there are fewer");

    let (mut w, orch, ..) = in_slots(&[1, 2, 3, 4], 3);
    assert_eq!(given_back_from(&mut w, &orch, 3), GrantState::Running);
    assert_eq!(given_back_from(&mut w, &orch, 4), GrantState::Revoked, "one too many beside three older ones");
}

#[test]
fn a_protected_task_that_does_not_run_goes_when_its_service_changes() {
    let (mut w, orch, node, spec) = in_slots(&[1, 2, 3], 3);
    let all: Vec<_> = w.state.grants().map(|(id, _)| *id).collect();
    for id in all {
        w.report(&node, &id.0, "restarting").unwrap();
    }
    assert_eq!(given_back_from(&mut w, &orch, 3), GrantState::Running, "nobody changed anything");
    w.deploy(&v1::Spec { version: 2, command: vec!["mended".into()], ..spec }).unwrap();
    for slot in 1..=3 {
        assert_eq!(given_back_from(&mut w, &orch, slot), GrantState::Revoked);
    }
}

#[test]
fn time_lapses_ends_extends_and_forgets() {
    let (mut w, orch, node) = World::shop();
    let late = id_of(&w.grant(&orch, w.ask("web", &node, 1)).unwrap().0);
    let runs = id_of(&w.grant(&orch, w.ask("web", &node, 2)).unwrap().0);
    w.report(&node, &runs, "running").unwrap();
    let state = |w: &World, id: &[u8]| w.state.grants().find(|(g, _)| g.to_vec() == id).map(|(_, g)| g.state);
    w.propose(Command::Tick).result.unwrap();
    assert!(!w.state.is_due(w.now));
    w.pass(300_000);
    assert!(w.state.is_due(w.now));
    w.propose(Command::Tick).result.unwrap();
    assert_eq!((state(&w, &late), state(&w, &runs)), (Some(GrantState::Lapsed), Some(GrantState::Running)));
    w.pass(600_000);
    let gone = w.propose(Command::Tick).events;
    assert_eq!((state(&w, &late), gone.len()), (None, 1));
    assert!(matches!(gone[0], Event::GrantGone(_)));
    let day = 86_400_000;
    assert!(w.state.extensions(w.now, 10, |_| true).is_none(), "most of its lease is left");
    w.pass(day / 4);
    let longer = w.state.extensions(w.now, 10, |_| true).unwrap();
    w.propose(longer).result.unwrap();
    w.pass(day - 1);
    w.propose(Command::Tick).result.unwrap();
    assert_eq!(state(&w, &runs), Some(GrantState::Running));
    w.pass(1);
    w.propose(Command::Tick).result.unwrap();
    assert_eq!(state(&w, &runs), Some(GrantState::Running), "the lease is over, grace is not");
    w.pass(3 * day);
    w.propose(Command::Tick).result.unwrap();
    assert_eq!(state(&w, &runs), Some(GrantState::Ended));
}

/// The report was ignored, and the task ran on for the whole of its lease with nobody who knew of it.
#[test]
fn a_start_that_is_told_after_its_grant_lapsed_is_taken_back() {
    let (mut w, orch, node) = World::shop();
    let late = id_of(&w.grant(&orch, w.ask("web", &node, 1)).unwrap().0);
    w.pass(300_000);
    w.propose(Command::Tick).result.unwrap();
    let grant = holdfast_types::GrantId::from_slice(&late).unwrap();
    let report =
        |state: &str| NodeTaskReport { grant, state: state.into(), exit_code: 0, detail: String::new(), restarts: 0 };
    for leaves in [1, 0] {
        let told = w.propose(Command::Reports { node: node.node(), tasks: vec![report("running")] });
        assert!(told.result.is_ok() && told.leaves.len() == leaves, "{:?}", told.leaves);
        assert_eq!(told.events, [Event::GrantRevoked(grant)]);
        assert_eq!(w.state.grant(&grant).unwrap().state, GrantState::Lapsed);
    }
    let over = w.propose(Command::Reports { node: node.node(), tasks: vec![report("stopped")] });
    assert!(over.result.is_ok() && over.leaves.is_empty() && over.events.is_empty());
}

#[test]
fn a_grant_of_a_quarantined_node_is_not_extended_even_if_that_was_decided_before() {
    let (mut w, orch, node) = World::shop();
    let id = id_of(&w.grant(&orch, w.ask("web", &node, 1)).unwrap().0);
    w.report(&node, &id, "running").unwrap();
    w.pass(86_400_000 / 2);
    let longer = w.state.extensions(w.now, 10, |_| true).unwrap();
    w.act(&["oz"], Action::QuarantineNode(v1::QuarantineNode { id: node.id, reason: "odd".into() })).unwrap();
    let done = w.propose(longer);
    assert!(done.result.is_ok() && done.leaves.is_empty() && done.events.is_empty());
}

#[test]
fn used_tokens_are_pruned_and_the_revocation_list_shrinks_with_a_new_epoch() {
    let (mut w, _, node) = World::shop();
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: node.id })).unwrap();
    let (epoch, tokens) = (w.state.epoch(), w.state.token_views().len());
    assert!(tokens > 0);
    let day = 86_400_000;
    runs(&mut w, 119 * day);
    assert_eq!((w.state.token_views().len(), w.state.epoch()), (0, epoch), "a backup may bring the node back");
    runs(&mut w, 2 * day);
    assert_eq!(w.state.epoch(), epoch + 1);
}
