//! Live grants whose ground moves: taken back at once where an operator moved it, not extended where it ran out.

use crate::world::{Machine, World, secret};
use holdfast_types::GrantId;
use holdfast_vault_core::{Command, Event, GrantState};
use holdfast_wire::{statement, v1};
use v1::command::Action;

const DAY: i64 = 86_400_000;

/// A running grant of `shop/web`.
fn running() -> (World, Machine, Machine, GrantId) {
    let (mut w, orch, node) = World::shop();
    let id = run(&mut w, &orch, &node, "web", 1);
    (w, orch, node, id)
}

fn run(w: &mut World, orch: &Machine, node: &Machine, service: &str, slot: u32) -> GrantId {
    let ask = w.ask(service, node, slot);
    let (st, ..) = w.grant(orch, ask).unwrap();
    let id = statement::peek::<v1::Grant>(&st).unwrap().grant_id;
    w.report(node, &id, "running").unwrap();
    GrantId::from_slice(&id).unwrap()
}

fn place(w: &mut World, node: &Machine, zone: &str, labels: &[&str]) {
    let labels = labels.iter().map(|l| (*l).to_owned()).collect();
    let place = v1::SetPlace { id: node.id.clone(), zone: zone.into(), labels };
    w.act(&["ada"], Action::SetPlace(place)).unwrap();
}

fn state(w: &World, id: &GrantId) -> GrantState {
    w.state.grant(id).unwrap().state
}

/// What a later tick of the leader does about leases; true if `id` is extended.
fn extended(w: &mut World, id: &GrantId) -> bool {
    let Some(extend) = w.state.extensions(w.now, 100, |_| true) else { return false };
    let done = w.propose(extend);
    done.result.unwrap();
    done.events.contains(&Event::GrantExtended(*id))
}

#[test]
fn a_node_that_leaves_the_specs_zones_or_labels_loses_its_grants() {
    for (zones, labels, zone, keeps) in [
        (&["eu"][..], &[][..], "eu/east", true),
        (&["eu"], &[], "us", false),
        (&["*"], &["disk=ssd"], "eu/west", false),
    ] {
        let (mut w, orch, node) = World::shop();
        place(&mut w, &node, "eu/west", labels);
        let own = |v: &[&str]| v.iter().map(|x| (*x).to_owned()).collect();
        let spec = v1::Spec { zones: own(zones), node_labels: own(labels), ..w.spec("web", 2, &["db"]) };
        w.deploy(&spec).unwrap();
        let id = run(&mut w, &orch, &node, "web", 1);
        let from = w.leaves.len();
        place(&mut w, &node, zone, &[]);
        assert_eq!(state(&w, &id) == GrantState::Running, keeps, "{zones:?} {zone}");
        assert_eq!(w.kinds_since(from).contains(&"grant.revoked".to_owned()), !keeps);
    }
}

#[test]
fn a_node_that_leaves_the_mandates_zones_loses_its_grants() {
    let (mut w, orch, node) = World::shop();
    w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m1".into() })).unwrap();
    let m = v1::Mandate { zones: vec!["eu".into()], ..w.mandate("m2", &[&orch.id]) };
    w.put_mandate(&m).unwrap();
    let id = run(&mut w, &orch, &node, "web", 1);
    place(&mut w, &node, "eu/east", &[]);
    assert_eq!(state(&w, &id), GrantState::Running);
    place(&mut w, &node, "us", &[]);
    assert_eq!(state(&w, &id), GrantState::Revoked);
}

#[test]
fn grants_are_taken_back_when_their_service_may_no_longer_read_a_secret_of_theirs() {
    let rules = |readers: &str, zone: &str, attested_only| v1::PutSecret {
        zones: vec![zone.into()],
        attested_only,
        ..secret("db", 2, &[readers])
    };
    for (p, keeps) in [
        (rules("shop/*", "eu", false), true),
        (rules("shop/other", "*", false), false),
        (rules("shop/web", "us", false), false),
        (rules("shop/web", "*", true), false),
    ] {
        let (mut w, orch, node, id) = running();
        let spec = w.spec("other", 1, &[]);
        w.deploy(&spec).unwrap();
        let without = run(&mut w, &orch, &node, "other", 1);
        let (st, sealed) = w.secret_statement(&["sam"], p.clone(), b"second");
        w.submit(&st, &sealed).unwrap();
        assert_eq!(state(&w, &id) == GrantState::Running, keeps, "{p:?}");
        assert_eq!(state(&w, &without), GrantState::Running, "it never had the secret");
    }
}

#[test]
fn a_deleted_secret_takes_the_grants_of_replaced_versions_along() {
    let (mut w, _, _, id) = running();
    for version in [2, 3] {
        let spec = w.spec("web", version, &[]);
        w.deploy(&spec).unwrap();
    }
    assert_eq!(state(&w, &id), GrantState::Running);
    w.act(&["sam"], Action::DeleteSecret(v1::DeleteSecret { namespace: "shop".into(), name: "db".into() })).unwrap();
    assert_eq!(state(&w, &id), GrantState::Revoked);
}

#[test]
fn quarantine_takes_sensitive_tasks_back_at_once_and_leaves_the_others_their_leases() {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { sensitive: true, ..w.spec("vip", 1, &[]) };
    let st = w.sign(&spec, &["cleo", "dora"]);
    w.submit(&st, &[]).unwrap();
    let approve = v1::ApprovePlacement { namespace: "shop".into(), service: "vip".into(), node_id: node.id.clone() };
    w.act(&["pat"], Action::ApprovePlacement(approve)).unwrap();
    let (plain, vip) = (run(&mut w, &orch, &node, "web", 1), run(&mut w, &orch, &node, "vip", 1));
    w.act(&["oz"], Action::QuarantineNode(v1::QuarantineNode { id: node.id, reason: "odd".into() })).unwrap();
    assert_eq!((state(&w, &plain), state(&w, &vip)), (GrantState::Running, GrantState::Revoked));
}

/// After `change`, the lease is extended no more: the change is the reason, since it was extended before.
fn not_extended_after(change: impl FnOnce(&mut World, &Machine)) {
    let (mut w, orch, _, id) = running();
    w.pass(DAY / 4);
    assert!(extended(&mut w, &id));
    change(&mut w, &orch);
    w.pass(DAY / 4);
    assert!(!extended(&mut w, &id));
    assert_eq!(state(&w, &id), GrantState::Running, "what runs has the rest of its lease");
}

#[test]
fn a_lease_is_not_extended_once_spec_or_mandate_no_longer_allow_it() {
    not_extended_after(|w, _| {
        for version in [2, 3] {
            let other = v1::Spec { command: vec!["other".into()], ..w.spec("web", version, &["db"]) };
            w.deploy(&other).unwrap();
        }
    });
    not_extended_after(|w, _| w.pass(DAY / 4 * 3));
    not_extended_after(|w, _| {
        drop(w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m1".into() })).unwrap())
    });
}

/// E13. Regression: leases were not extended, so one operator's word ended every exclusive task within two minutes.
#[test]
fn a_lockdown_stops_grants_and_ends_nothing_that_runs() {
    let (mut w, orch, node, id) = running();
    let alone = v1::Spec { exclusive: true, on_expiry: "stop".into(), ..w.spec("alone", 1, &[]) };
    w.deploy(&alone).unwrap();
    let exclusive = run(&mut w, &orch, &node, "alone", 1);
    w.act(&["oz"], Action::Lockdown(v1::Lockdown { reason: "fire".into() })).unwrap();
    for service in ["web", "alone"] {
        let ask = w.ask(service, &node, 2);
        assert_eq!(w.grant(&orch, ask).err().unwrap().policies, ["L0-lockdown-grant"]);
    }
    for _ in 0..8 {
        w.pass(30_000);
        assert!(extended(&mut w, &exclusive), "its lease of two minutes");
        w.propose(Command::Tick).result.unwrap();
    }
    assert_eq!((state(&w, &id), state(&w, &exclusive)), (GrantState::Running, GrantState::Running));
    w.pass(DAY / 4);
    assert!(extended(&mut w, &id));
}

#[test]
fn versions_that_only_change_size_or_validity_carry_on_what_runs() {
    let (mut w, _, _, id) = running();
    for version in [2, 3, 4] {
        let scaled = v1::Spec { replicas_max: 4, ..w.spec("web", version, &["db"]) };
        w.deploy(&scaled).unwrap();
        w.pass(DAY / 4);
        assert!(extended(&mut w, &id), "version {version} does not let its task go on");
    }
    // Their validity counts, not the first one's, which is over by now.
    let spec = v1::Spec { valid_until_ms: w.now.0 + 30 * DAY, ..w.spec("web", 5, &["db"]) };
    w.deploy(&spec).unwrap();
    for _ in 0..8 {
        w.pass(DAY / 4);
        assert!(extended(&mut w, &id));
    }
}

#[test]
fn the_next_mandate_carries_on_what_the_last_one_began() {
    let (mut w, orch, _, id) = running();
    w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m1".into() })).unwrap();
    let elsewhere = v1::Mandate { namespaces: vec!["bank".into()], ..w.mandate("m2", &[&orch.id]) };
    w.put_mandate(&elsewhere).unwrap();
    w.pass(DAY / 4);
    assert!(!extended(&mut w, &id), "the new one is for another namespace");
    let next = w.mandate("m3", &[&orch.id]);
    w.put_mandate(&next).unwrap();
    w.pass(DAY / 4);
    assert!(extended(&mut w, &id));
}

#[test]
fn a_lease_that_may_not_be_extended_is_not_asked_about_in_every_tick() {
    let (mut w, orch, _, id) = running();
    w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m1".into() })).unwrap();
    w.pass(DAY / 4);
    assert!(!extended(&mut w, &id));
    for _ in 0..3 {
        w.pass(500);
        assert!(w.state.extensions(w.now, 100, |_| true).is_none());
    }
    let next = w.mandate("m2", &[&orch.id]);
    w.put_mandate(&next).unwrap();
    w.pass(DAY / 4);
    assert!(extended(&mut w, &id), "and it is asked about again before the lease ends");
}

#[test]
fn a_node_out_of_contact_comes_to_the_end_of_its_lease_and_one_that_is_back_goes_on() {
    for back in [true, false] {
        let (mut w, _, node, id) = running();
        w.pass(DAY / 4);
        let away = w.state.extensions(w.now, 100, |_| false).unwrap();
        let held = w.propose(away);
        assert!(held.result.is_ok() && held.leaves.is_empty() && held.events.is_empty());
        w.pass(500);
        assert!(w.state.extensions(w.now, 100, |_| false).is_none(), "not asked about in every tick");
        if back {
            let at_once = w.state.extensions_of(&node.node(), w.now).unwrap();
            assert_eq!(w.propose(at_once).events, [Event::GrantExtended(id)]);
            assert!(w.state.extensions_of(&node.node(), w.now).is_none());
        }
        w.pass(DAY * 15 / 4);
        w.propose(Command::Tick).result.unwrap();
        assert_eq!(state(&w, &id), if back { GrantState::Running } else { GrantState::Ended });
    }
}

#[test]
fn what_runs_out_within_two_weeks_is_told() {
    let (mut w, orch, _) = World::shop();
    let lasting = v1::Spec { valid_until_ms: w.now.0 + 20 * DAY, ..w.spec("web", 2, &["db"]) };
    w.deploy(&lasting).unwrap();
    let (mandate, spec) = (w.now.0 + 30 * DAY, lasting.valid_until_ms);
    let told = |w: &World| {
        let specs: Vec<i64> = w.state.specs_ending(w.now).iter().map(|(_, end)| end.0).collect();
        let mandates: Vec<_> = w.state.mandates_ending(w.now).into_iter().map(|(_, end)| end.map(|t| t.0)).collect();
        (specs, mandates)
    };
    assert_eq!(told(&w), (vec![], vec![]));
    w.pass(6 * DAY);
    assert_eq!(told(&w), (vec![spec], vec![]));
    w.pass(10 * DAY);
    assert_eq!(told(&w), (vec![spec], vec![Some(mandate)]));
    w.pass(15 * DAY);
    assert_eq!(told(&w), (vec![spec], vec![None]), "what is over is told as well");
    let (next, renewed) = (w.mandate("m2", &[&orch.id]), w.spec("web", 3, &["db"]));
    w.put_mandate(&next).unwrap();
    w.deploy(&v1::Spec { valid_until_ms: w.now.0 + 20 * DAY, ..renewed }).unwrap();
    assert_eq!(told(&w), (vec![], vec![]));
}
