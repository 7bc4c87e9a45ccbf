//! Budgets of mandates: what an orchestrator that was taken over can draw, and what it can stop, unseen or at all.

use crate::world::{Machine, World};
use holdfast_types::GrantId;
use holdfast_vault_core::Code;
use holdfast_wire::{statement, v1};
use v1::command::Action;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The number before these words.
fn told(page: &str, words: &str) -> usize {
    let before = page.split(words).next().filter(|b| b.len() < page.len());
    let before = before.unwrap_or_else(|| panic!("nothing is told of {words:?}"));
    before.split_whitespace().next_back().unwrap().parse().unwrap()
}

/// The most of these times that lie in a span of `length`.
fn most_within(length: i64, times: &[i64]) -> usize {
    let within = |from: i64| times.iter().filter(|t| (from..from + length).contains(*t)).count();
    times.iter().map(|t| within(*t)).max().unwrap_or(0)
}

/// Asks for tasks and says how many were granted.
fn draw(w: &mut World, orch: &Machine, asks: Vec<v1::GrantRequest>) -> Vec<bool> {
    w.keep_lease(orch).unwrap();
    let (_, done) = w.grants(orch, asks).unwrap();
    done.orders().iter().map(Result::is_ok).collect()
}

#[test]
fn an_orchestrator_with_a_node_of_its_own_draws_no_more_than_the_bound_that_security_tells() {
    let security = page("SECURITY.md");
    let secrets = told(&security, " secrets in any hour");
    let grants = told(&security, " grants in any minute");
    // The bound is that of the mandate that the tool makes, and of the one that is played with.
    let tool = page("docs/reference/cli.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(tool.contains(&format!("new pairs of secret and node an hour [default: {secrets}]")), "{secrets}");
    assert!(tool.contains(&format!("grants a minute and namespace [default: {grants}]")), "{grants}");
    let (mut w, orch, own) = World::shop();
    let mandate = w.mandate("default", &[&orch.id]);
    assert_eq!((mandate.novelty_per_hour as usize, mandate.grants_per_minute as usize), (secrets, grants));
    w.checked = false;

    let services: Vec<String> = (0..2 * secrets + 5).map(|n| format!("s{n}")).collect();
    for name in &services {
        w.put_secret(name, 1, b"value", &["shop/*"]).unwrap();
        let spec = w.spec(name, 1, &[name]);
        w.deploy(&spec).unwrap();
    }
    // It begins just before a new hour of the clock, and asks for what it has not yet as often as it likes.
    w.pass(HOUR - MINUTE);
    let (mut had, mut drawn): (Vec<String>, Vec<i64>) = Default::default();
    for step in [0, MINUTE + 1_000].into_iter().chain([5 * MINUTE; 26]) {
        w.pass(step);
        let wanted: Vec<&String> = services.iter().filter(|s| !had.contains(*s)).take(secrets + 2).collect();
        let asks = wanted.iter().map(|s| w.ask(s, &own, 1)).collect();
        let given = draw(&mut w, &orch, asks);
        let new: Vec<String> = wanted.into_iter().zip(given).filter(|(_, ok)| *ok).map(|(s, _)| s.clone()).collect();
        drawn.extend(new.iter().map(|_| w.now.0));
        had.extend(new);
    }
    assert_eq!(most_within(HOUR, &drawn), secrets, "in some hour");
    assert!(drawn.len() > secrets, "the next hour has a budget of its own");

    // Grants without secrets, from the last second of a minute of the clock on.
    let wide = v1::Spec { replicas_max: 1_000, ..w.spec("wide", 1, &[]) };
    w.deploy(&wide).unwrap();
    w.pass(HOUR + 58_000);
    assert_eq!(w.now.0.rem_euclid(MINUTE), 59_000);
    let (mut slot, mut drawn): (u32, Vec<i64>) = (1, Vec::new());
    for step in [0, 900, 200, 20_000, 20_000, 20_000, 5_000] {
        w.pass(step);
        let asks = (slot..=slot + grants as u32).map(|slot| w.ask("wide", &own, slot)).collect();
        let given = draw(&mut w, &orch, asks).into_iter().filter(|ok| *ok).count();
        drawn.extend(std::iter::repeat_n(w.now.0, given));
        slot += given as u32;
    }
    assert_eq!(most_within(MINUTE, &drawn), grants, "in some minute");
    assert_eq!(drawn.len(), 2 * grants, "the next minute has a budget of its own");
}

#[test]
fn the_next_mandate_of_the_same_orchestrators_and_namespaces_is_no_second_budget() {
    let (mut w, orch, node) = World::shop();
    let (other, third) = (w.node(), w.node());
    let revoke = |w: &mut World, id: &str| {
        w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id: id.into() })).unwrap();
    };
    let put = |w: &mut World, id: &str, namespaces: &[&str]| {
        let namespaces = namespaces.iter().map(|n| (*n).to_owned()).collect();
        let m = v1::Mandate { novelty_per_hour: 1, namespaces, ..w.mandate(id, &[&orch.id]) };
        w.put_mandate(&m).unwrap();
    };
    let code = |w: &mut World, node: &Machine, slot| {
        let ask = w.ask("web", node, slot);
        w.grant(&orch, ask).err().map(|r| r.code)
    };
    revoke(&mut w, "m1");
    put(&mut w, "a", &["shop"]);
    assert_eq!(code(&mut w, &node, 1), None);
    assert_eq!(code(&mut w, &other, 2), Some(Code::BudgetExhausted));
    revoke(&mut w, "a");
    put(&mut w, "b", &["shop"]);
    assert_eq!(code(&mut w, &other, 2), Some(Code::BudgetExhausted), "another name is no other budget");
    assert_eq!(code(&mut w, &node, 2), None, "what was given is not new again");
    // Of other namespaces it is one.
    revoke(&mut w, "b");
    put(&mut w, "c", &["shop", "bank"]);
    assert_eq!(code(&mut w, &other, 3), None);
    assert_eq!(code(&mut w, &third, 4), Some(Code::BudgetExhausted));
}

/// `shop/wide` with so many tasks that run.
fn running(tasks: u32) -> (World, Machine, Machine, Vec<GrantId>) {
    let (mut w, orch, node) = World::shop();
    let spec = v1::Spec { replicas_max: tasks, ..w.spec("wide", 1, &[]) };
    w.deploy(&spec).unwrap();
    let ids = (1..=tasks).map(|slot| {
        let ask = w.ask("wide", &node, slot);
        let (st, ..) = w.grant(&orch, ask).unwrap();
        let id = statement::peek::<v1::Grant>(&st).unwrap().grant_id;
        w.report(&node, &id, "running").unwrap();
        GrantId::from_slice(&id).unwrap()
    });
    let ids = ids.collect();
    (w, orch, node, ids)
}

fn release(w: &mut World, orch: &Machine, grants: &[GrantId]) {
    let (orch, grants) = (orch.orch(), grants.to_vec());
    w.propose(holdfast_vault_core::Command::ReleaseGrants { orch, grants, reason: "so".into() }).result.unwrap();
}

fn alarms(w: &World, from: usize) -> usize {
    w.kinds_since(from).iter().filter(|k| *k == "alarm/stop-rate").count()
}

/// C24.
#[test]
fn an_orchestrator_that_stops_many_tasks_which_their_owners_want_is_told_of() {
    let (mut w, orch, node, ids) = running(30);
    let from = w.leaves.len();
    release(&mut w, &orch, &ids[..5]);
    // It may order a node directly, and let the grants be.
    for id in &ids[5..10] {
        w.report(&node, &id.to_vec(), "stopped").unwrap();
    }
    assert_eq!((alarms(&w, from), w.state.stopping(w.now).count()), (0, 0), "ten within a minute");
    release(&mut w, &orch, &ids[10..14]);
    assert_eq!(alarms(&w, from), 1, "told once a minute");
    assert_eq!(w.state.stopping(w.now).map(ToString::to_string).collect::<Vec<_>>(), std::slice::from_ref(&orch.id));
    w.pass(HOUR);
    w.propose(holdfast_vault_core::Command::Tick).result.unwrap();
    assert_eq!(w.state.stopping(w.now).count(), 0);
}

#[test]
fn what_owners_asked_to_stop_is_nobodys_fault() {
    let (mut w, orch, _, ids) = running(30);
    let from = w.leaves.len();
    let fewer = v1::Spec { replicas_max: 10, ..w.spec("wide", 2, &[]) };
    w.deploy(&fewer).unwrap();
    release(&mut w, &orch, &ids[10..]);
    let other = v1::Spec { command: vec!["other".into()], ..w.spec("wide", 3, &[]) };
    w.deploy(&other).unwrap();
    release(&mut w, &orch, &ids);
    assert_eq!(alarms(&w, from), 0);
    // Nor is a minute in which few are stopped.
    let (mut w, orch, _, ids) = running(30);
    let from = w.leaves.len();
    for few in ids.chunks(10) {
        release(&mut w, &orch, few);
        w.pass(MINUTE + 5_000);
    }
    assert_eq!(alarms(&w, from), 0);
}
