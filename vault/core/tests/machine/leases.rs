//! Leases and fences: one scheduler a namespace, and a number that grows when it changes.

use crate::world::World;
use holdfast_types::{Millis, OrchId};
use holdfast_vault_core::{Code, Command};
use holdfast_wire::v1;
use v1::command::Action;

#[test]
fn the_fence_grows_when_the_holder_changes_and_only_then() {
    let (mut w, a, node) = World::shop();
    let b = w.orchestrator();
    let m = w.mandate("m2", &[&b.id]);
    w.put_mandate(&m).unwrap();
    assert_eq!(w.fence(), (a.id.clone(), 1));
    w.keep_lease(&b).unwrap();
    assert_eq!(w.fence(), (a.id.clone(), 1), "a live lease is not taken over");
    assert_eq!(w.grant(&b, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-lease"]);
    w.pass(30_000);
    w.keep_lease(&a).unwrap();
    w.pass(61_000);
    w.keep_lease(&a).unwrap();
    assert_eq!(w.fence(), (a.id.clone(), 1), "nobody held it in between");
    w.pass(61_000);
    let from = w.leaves.len();
    w.keep_lease(&b).unwrap();
    assert_eq!((w.fence(), w.kinds_since(from)), ((b.id.clone(), 2), vec!["lease.change".to_owned()]));
    assert_eq!(w.grant(&a, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-lease"]);
    w.grant(&b, w.ask("web", &node, 1)).unwrap();
}

#[test]
fn a_lapsed_lease_grants_nothing() {
    let (mut w, orch, node) = World::shop();
    w.pass(60_000);
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-lease"]);
}

#[test]
fn an_orchestrator_is_told_which_namespaces_it_waits_for_and_until_when() {
    let (mut w, a, _) = World::shop();
    let (b, stranger) = (w.orchestrator(), w.orchestrator());
    let m = w.mandate("m2", &[&b.id]);
    w.put_mandate(&m).unwrap();
    w.keep_lease(&a).unwrap();
    let held = w.state.leases_of_others(&b.orch(), w.now);
    assert_eq!(held, w.state.leases_of(&a.id, w.now), "what it may have, and another has");
    assert_eq!((held.len(), held[0].until_ms, held[0].fence), (1, w.now.0 + 60_000, 1));
    assert!(w.state.leases_of_others(&a.orch(), w.now).is_empty(), "its own is none of others");
    assert!(w.state.leases_of_others(&stranger.orch(), w.now).is_empty(), "no mandate, no namespace");
    w.pass(60_000);
    w.keep_lease(&b).unwrap();
    assert!(w.state.leases_of_others(&b.orch(), w.now).is_empty());
    assert_eq!(w.state.leases_of_others(&a.orch(), w.now)[0].holder, b.id);
}

/// A voter begins to lead, after the last entry that it found.
fn begins(w: &mut World, since: Millis) {
    w.propose(Command::ExtendLeases { since, life_ms: 60_000 }).result.unwrap();
}

#[test]
fn a_new_leader_gives_leases_back_that_nobody_could_keep_while_none_led() {
    let (mut w, a, node) = World::shop();
    let b = w.orchestrator();
    let m = w.mandate("m2", &[&b.id]);
    w.put_mandate(&m).unwrap();
    w.keep_lease(&a).unwrap();
    let last = w.state.last_heard();
    assert_eq!(last, w.now);
    w.pass(600_000);
    let from = w.leaves.len();
    begins(&mut w, last);
    assert!(w.kinds_since(from).is_empty(), "its holder is the same");
    w.keep_lease(&b).unwrap();
    assert_eq!(w.fence(), (a.id.clone(), 1), "who asks first after an outage does not take it over");
    w.grant(&a, w.ask("web", &node, 1)).unwrap();
    // Once: one that does not come back is replaced a lease later.
    assert_eq!(w.state.leases_of(&a.id, w.now)[0].until_ms, w.now.0 + 60_000);
    w.pass(60_000);
    w.keep_lease(&b).unwrap();
    assert_eq!(w.fence(), (b.id.clone(), 2));
}

#[test]
fn a_new_leader_gives_no_lease_back_that_ended_while_another_led() {
    let (mut w, a, _) = World::shop();
    let (b, node) = (w.orchestrator(), w.node());
    let m = w.mandate("m2", &[&b.id]);
    w.put_mandate(&m).unwrap();
    w.pass(61_000);
    w.report(&node, &[0; 16], "running").unwrap();
    let last = w.state.last_heard();
    w.pass(1_000);
    begins(&mut w, last);
    assert!(w.state.leases_of(&a.id, w.now).is_empty(), "it ended before");
    w.keep_lease(&b).unwrap();
    assert_eq!(w.fence(), (b.id, 2));
}

#[test]
fn a_new_leader_gives_no_lease_to_who_may_not_schedule_any_more() {
    for quarantined in [true, false] {
        let (mut w, a, _) = World::shop();
        let before = w.now;
        if quarantined {
            let id = a.id.clone();
            w.act(&["oz"], Action::QuarantineNode(v1::QuarantineNode { id, reason: "odd".into() })).unwrap();
        } else {
            let mandate_id = "m1".to_owned();
            w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id })).unwrap();
        }
        w.pass(61_000);
        begins(&mut w, before);
        assert!(w.state.leases_of(&a.id, w.now).is_empty());
    }
}

#[test]
fn a_mandate_covers_its_own_namespaces_alone() {
    let (mut w, orch, _) = World::shop();
    let r = v1::GrantRequest { namespace: "bank".into(), task_id: "bank.web.1".into(), ..w.ask("web", &orch, 1) };
    assert_eq!(w.grant(&orch, r).err().unwrap().code, Code::NotFound);
    let other = w.orchestrator();
    let m = v1::Mandate { namespaces: vec!["bank".into()], ..w.mandate("m2", &[&other.id]) };
    w.put_mandate(&m).unwrap();
    w.pass(61_000);
    w.keep_lease(&other).unwrap();
    assert!(w.state.leases_of(&other.id, w.now).is_empty(), "no lease of shop by a mandate for bank");
}

#[test]
fn neither_a_node_nor_a_quarantined_orchestrator_keeps_a_lease() {
    let (mut w, orch, node) = World::shop();
    let as_orch = OrchId::parse(&node.id).unwrap();
    let keep = Command::KeepLease { orch: as_orch, session_addr: "n:1".into(), life_ms: 60_000 };
    assert_eq!(w.propose(keep).result.err().unwrap().code, Code::NotFound);
    w.act(&["oz"], Action::QuarantineNode(v1::QuarantineNode { id: orch.id.clone(), reason: "odd".into() })).unwrap();
    assert!(w.state.leases_of(&orch.id, w.now).is_empty(), "its leases end at once");
    assert_eq!(w.keep_lease(&orch).err().unwrap().code, Code::BadCredential);
    assert_eq!(w.grant(&orch, w.ask("web", &node, 1)).err().unwrap().policies, ["L0-lease"]);
}
