//! Refusals in the log: told one by one at first, then counted; a used-up budget says so.

use crate::world::{Machine, World};
use holdfast_vault_core::Command;
use holdfast_wire::v1;

fn refuse(w: &mut World, orch: &Machine, times: usize) {
    let nobody = Machine { id: "node-ff".into(), ..w.node() };
    let asks = vec![w.ask("web", &nobody, 1); times];
    let (_, done) = w.grants(orch, asks).unwrap();
    assert!(done.orders().iter().all(Result::is_err));
}

fn count(w: &World, leaf: usize) -> Option<String> {
    w.entry(leaf as u64).fields.into_iter().find(|f| f.name == "count").map(|f| f.value)
}

#[test]
fn refusals_of_one_orchestrator_are_counted_after_the_tenth_in_a_minute() {
    let (mut w, orch, _) = World::shop();
    w.node();
    let from = w.leaves.len();
    refuse(&mut w, &orch, 7);
    refuse(&mut w, &orch, 500);
    let kinds = w.kinds_since(from);
    assert_eq!(kinds.iter().filter(|k| *k == "grant.denied").count(), 10);
    w.pass(60_000);
    assert!(w.state.is_due(w.now));
    let from = w.leaves.len();
    w.propose(Command::Tick).result.unwrap();
    assert_eq!((w.kinds_since(from), count(&w, from)), (vec!["grant.denied".to_owned()], Some("497".to_owned())));
    w.pass(60_000);
    let from = w.leaves.len();
    w.propose(Command::Tick).result.unwrap();
    assert!(w.kinds_since(from).is_empty(), "told once");
}

#[test]
fn the_next_minute_begins_with_the_number_of_the_last_and_others_have_their_own() {
    let (mut w, a, _) = World::shop();
    let b = w.orchestrator();
    refuse(&mut w, &a, 12);
    let from = w.leaves.len();
    refuse(&mut w, &b, 1);
    assert!(w.kinds_since(from).contains(&"grant.denied".to_owned()), "one caller's flood hides nobody else's refusal");
    w.pass(60_000);
    let from = w.leaves.len();
    refuse(&mut w, &a, 1);
    let denied: Vec<_> = (from..w.leaves.len()).filter(|i| w.entry(*i as u64).kind == "grant.denied").collect();
    assert_eq!(denied.iter().map(|i| count(&w, *i)).collect::<Vec<_>>(), [Some("2".to_owned()), None]);
}

#[test]
fn the_end_of_a_budget_is_a_leaf_once_a_minute_and_an_alarm_for_an_hour() {
    let (mut w, orch, node) = World::shop();
    let asks: Vec<v1::GrantRequest> = vec![w.ask("web", &node, 9); 3];
    let from = w.leaves.len();
    w.grants(&orch, asks.clone()).unwrap();
    assert_eq!(w.kinds_since(from), ["grant.denied", "budget.hit", "grant.denied", "grant.denied"]);
    assert_eq!(w.state.over_budget(w.now).map(ToString::to_string).collect::<Vec<_>>(), std::slice::from_ref(&orch.id));
    w.pass(60_000);
    w.keep_lease(&orch).unwrap();
    let from = w.leaves.len();
    w.grants(&orch, asks).unwrap();
    assert!(w.kinds_since(from).contains(&"budget.hit".to_owned()));
    w.pass(3_600_000);
    w.propose(Command::Tick).result.unwrap();
    assert_eq!(w.state.over_budget(w.now).count(), 0);
}

#[test]
fn what_a_caller_writes_reaches_the_log_short_and_printable() {
    let (mut w, orch, node) = World::shop();
    let wild = "x\n\u{1b}[2J é".repeat(1000);
    let ask = v1::GrantRequest {
        namespace: wild.clone(),
        service: wild.clone(),
        node_id: wild.clone(),
        task_id: wild,
        ..w.ask("web", &node, 1)
    };
    let from = w.leaves.len();
    w.grants(&orch, vec![ask]).unwrap();
    let entry = w.entry(from as u64);
    let said = entry.fields.iter().map(|f| f.value.as_str()).chain([entry.subject.as_str()]);
    for text in said {
        assert!(text.len() <= 129 && text.bytes().all(|b| b.is_ascii_graphic()), "{text:?}");
    }
}
