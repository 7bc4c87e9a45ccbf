//! At most one of each: slots bound an exclusive service, and each is held until its last task is surely over.

use crate::world::{Machine, World};
use holdfast_types::GrantId;
use holdfast_vault_core::{Code, Command, GrantState};
use holdfast_wire::{statement, v1};
use v1::command::Action;

fn shop(replicas_max: u32) -> (World, Machine, Machine) {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { exclusive: true, on_expiry: "stop".into(), replicas_max, ..w.spec("web", 2, &[]) };
    w.deploy(&spec).unwrap();
    (w, orch, node)
}

fn grant(w: &mut World, orch: &Machine, node: &Machine, slot: u32) -> Result<GrantId, Code> {
    let ask = w.ask("web", node, slot);
    let id = |st: &v1::Statement| statement::peek::<v1::Grant>(st).unwrap().grant_id;
    w.grant(orch, ask).map(|(st, ..)| GrantId::from_slice(&id(&st)).unwrap()).map_err(|r| r.code)
}

#[test]
fn an_exclusive_service_has_as_many_slots_as_replicas_and_no_more() {
    let (mut w, orch, node) = shop(2);
    assert_eq!(grant(&mut w, &orch, &node, 3), Err(Code::BudgetExhausted), "no surge where there may be only one");
    grant(&mut w, &orch, &node, 1).unwrap();
    grant(&mut w, &orch, &node, 2).unwrap();
    for slot in 1..=5 {
        let held = if slot <= 2 { Code::Changed } else { Code::BudgetExhausted };
        assert_eq!(grant(&mut w, &orch, &node, slot), Err(held), "slot {slot}");
    }
}

#[test]
fn a_slot_beyond_replicas_and_surge_is_refused_though_there_is_room() {
    let (mut w, orch, node) = World::shop();
    assert_eq!(grant(&mut w, &orch, &node, 5), Err(Code::BudgetExhausted), "three replicas and one while it changes");
    grant(&mut w, &orch, &node, 4).unwrap();
}

#[test]
fn a_revoked_exclusive_task_holds_its_slot_until_its_lease_is_over() {
    let (mut w, orch, node) = shop(1);
    let id = grant(&mut w, &orch, &node, 1).unwrap();
    w.report(&node, &id.0, "running").unwrap();
    let other = w.node();
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: node.id })).unwrap();
    w.pass(119_999);
    w.keep_lease(&orch).unwrap();
    w.propose(Command::Tick).result.unwrap();
    assert_eq!(grant(&mut w, &orch, &other, 1), Err(Code::Changed), "its node may be out of reach and run on");
    w.pass(1);
    w.propose(Command::Tick).result.unwrap();
    assert_eq!(w.state.grant(&id).unwrap().state, GrantState::Ended);
    grant(&mut w, &orch, &other, 1).unwrap();
}

#[test]
fn an_exclusive_task_that_was_never_heard_of_holds_its_slot_until_its_lease_is_over() {
    let (mut w, orch, node) = shop(1);
    let ask = w.ask("web", &node, 1);
    let (st, ..) = w.grant(&orch, ask).unwrap();
    let g: v1::Grant = statement::peek(&st).unwrap();
    assert!(g.start_before_ms <= g.lease_until_ms, "it does not start after its slot is free");
    w.pass(119_999);
    w.keep_lease(&orch).unwrap();
    w.propose(Command::Tick).result.unwrap();
    assert_eq!(grant(&mut w, &orch, &node, 1), Err(Code::Changed));
    w.pass(1);
    w.propose(Command::Tick).result.unwrap();
    grant(&mut w, &orch, &node, 1).unwrap();
}

fn gens(w: &World, slot: u32) -> u64 {
    w.state.last_gen(&holdfast_types::TaskId::parse(&format!("shop.web.{slot}")).unwrap())
}

#[test]
fn slots_that_are_gone_leave_one_number_behind_and_no_incarnation_comes_again() {
    let (mut w, orch, node) = World::shop();
    for slot in [1, 2, 2, 2] {
        grant(&mut w, &orch, &node, slot).unwrap();
    }
    assert_eq!((gens(&w, 1), gens(&w, 2), gens(&w, 3)), (1, 3, 0));
    let before = w.state.encode().len();
    w.act(&["cleo"], Action::RemoveService(v1::RemoveService { namespace: "shop".into(), service: "web".into() }))
        .unwrap();
    assert_eq!([1, 2, 3].map(|slot| gens(&w, slot)), [3, 3, 3], "above all that were");
    assert!(w.state.encode().len() < before);
    for version in [2, 3] {
        let spec = v1::Spec { replicas_min: 0, replicas_max: 0, ..w.spec("web", version, &["db"]) };
        w.deploy(&spec).unwrap();
    }
    let (st, ..) = w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    assert_eq!(statement::peek::<v1::Grant>(&st).unwrap().task_gen, 4);
    w.pass(60_000);
    w.keep_lease(&orch).unwrap();
    for version in [4, 5] {
        let spec = w.spec("web", version, &["db"]);
        w.deploy(&spec).unwrap();
    }
    assert_eq!((gens(&w, 1), gens(&w, 2)), (4, 3));
}
