//! Where tasks go and when they leave, rule by rule, on a few nodes.

use super::world::*;
use crate::plan::*;
use holdfast_types::Zone;
use std::collections::BTreeMap;

#[test]
fn replicas_spread_over_nodes_then_over_zones_then_by_load() {
    let mut w = world(&["a", "a", "a", "b", "c"]);
    w.want(Wanted { zones: vec![Zone::parse("c").unwrap()], ..wanted(1, 1) });
    w.plan();
    w.want(wanted(0, 7));
    let nodes: Vec<usize> = placed(&w.plan()).into_iter().map(|(_, n)| n).collect();
    // Zones in turn (the loaded node last), the rest of zone a, and only then a second task on a node.
    assert_eq!(nodes, [0, 3, 4, 1, 2, 3, 4]);
}

#[test]
fn equal_nodes_are_filled_by_load() {
    let mut w = world(&["a", "a"]);
    w.want(Wanted { resources: cpu(5), ..wanted(0, 1) });
    w.want(Wanted { resources: cpu(3), ..wanted(1, 1) });
    w.want(wanted(2, 1));
    w.want(wanted(3, 1));
    let nodes: Vec<usize> = placed(&w.plan()).into_iter().map(|(_, n)| n).collect();
    assert_eq!(nodes, [0, 1, 1, 1]);
}

#[test]
fn a_new_task_takes_the_lowest_free_slot() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 4));
    w.settle();
    w.end(&task(0, 3), false, Retry::Now);
    w.end(&task(0, 2), false, Retry::Now);
    assert_eq!(placed(&w.plan()), [(task(0, 2), 0), (task(0, 3), 0)]);
}

#[test]
fn scaling_down_stops_the_highest_slots_and_first_those_on_draining_nodes() {
    let mut w = world(&["a", "a", "a", "a"]);
    w.want(wanted(0, 4));
    w.settle();
    w.node_state(0, NodeState::Draining);
    w.want(wanted(0, 2));
    let on_drained = w.of(&service(0)).iter().find(|(_, t)| t.node == node_id(0)).unwrap().0.clone();
    let stops = stopped(&w.plan());
    assert_eq!(stops.len(), 2);
    assert!(stops.contains(&(on_drained, StopReason::Displaced)));
    assert!(stops.contains(&(task(0, 4), StopReason::ScaledDown)));
}

#[test]
fn more_replicas_of_one_template_leave_the_running_tasks_alone() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 2));
    w.settle();
    w.want(Wanted { version: 2, ..wanted(0, 3) });
    let actions = w.plan();
    assert_eq!((placed(&actions), stopped(&actions)), (vec![(task(0, 3), 0)], vec![]));
}

#[test]
fn a_drained_task_starts_elsewhere_before_it_stops() {
    let mut w = world(&["a", "a"]);
    w.want(Wanted { update: update(Order::StopFirst, 1), ..wanted(0, 1) });
    w.settle();
    w.node_state(0, NodeState::Draining);
    let actions = w.plan();
    assert_eq!((placed(&actions), stopped(&actions)), (vec![(task(0, 2), 1)], vec![]));
    w.running(&task(0, 2));
    assert_eq!(stopped(&w.plan()), [(task(0, 1), StopReason::Displaced)]);
}

#[test]
fn a_drained_task_with_nowhere_to_go_stays() {
    for exclusive in [false, true] {
        let mut w = world(&["a"]);
        w.want(Wanted { exclusive, ..wanted(0, 1) });
        w.settle();
        w.node_state(0, NodeState::Draining);
        assert_eq!(w.plan(), []);
        assert!(w.planner.waiting().eq([&service(0)]));
        w.node(node(1, "a", 10));
        assert_eq!(w.plan().len(), 1);
    }
}

#[test]
fn an_exclusive_task_has_ended_before_its_replacement_starts() {
    let mut w = world(&["a", "a"]);
    w.want(Wanted { exclusive: true, ..wanted(0, 1) });
    w.settle();
    w.node_state(0, NodeState::Draining);
    let actions = w.plan();
    assert_eq!((placed(&actions), stopped(&actions)), (vec![], vec![(task(0, 1), StopReason::Displaced)]));
    assert_eq!(w.plan(), []);
    w.end(&task(0, 1), false, Retry::Now);
    assert_eq!(placed(&w.plan()), [(task(0, 1), 1)]);
}

#[test]
fn a_node_that_leaves_the_services_zone_loses_the_task() {
    let mut w = world(&["eu/pci", "eu/pci"]);
    w.want(Wanted { zones: vec![Zone::parse("eu").unwrap()], ..wanted(0, 1) });
    w.settle();
    w.node(node(0, "us", 10));
    assert_eq!(placed(&w.plan()), [(task(0, 2), 1)]);
    w.settle();
    assert_eq!(slots(&w, 0), [2]);
}

/// Held places once counted as tasks that stand by, and an update stopped the last running one for them.
/// A task with nowhere to go once stayed even when it was one too many.
#[test]
fn a_task_too_many_is_stopped_even_if_it_has_nowhere_to_go() {
    let mut w = world(&["a"]);
    w.want(Wanted { exclusive: true, ..wanted(0, 1) });
    w.settle();
    w.node_state(0, NodeState::Draining);
    w.want(Wanted { exclusive: true, ..wanted(0, 0) });
    assert_eq!(stopped(&w.plan()), [(task(0, 1), StopReason::Displaced)]);
}

#[test]
fn tasks_that_are_gone_no_longer_count_for_the_spread() {
    let mut w = world(&["a", "a", "b"]);
    w.want(wanted(0, 3));
    w.settle();
    w.want(wanted(0, 0));
    w.settle();
    w.want(wanted(0, 1));
    assert_eq!(placed(&w.plan()), [(task(0, 1), 0)]);
}

/// A task that had to move and could not once kept the rollout from freeing the room that it waited for.
#[test]
fn a_removed_service_is_stopped_and_then_forgotten() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 2));
    w.settle();
    w.leave(&service(0), Event::ServiceRemoved);
    assert_eq!(stopped(&w.plan()), [(task(0, 1), StopReason::Removed), (task(0, 2), StopReason::Removed)]);
    w.settle();
    assert_eq!((w.tasks.len(), w.planner.progress(&service(0))), (0, None));
}

#[test]
fn tasks_of_a_released_or_unheard_of_service_are_left_alone_and_take_up_room() {
    let mut w = world(&["a"]);
    w.want(Wanted { resources: cpu(6), ..wanted(0, 1) });
    w.settle();
    w.leave(&service(0), Event::ServiceReleased);
    w.want(Wanted { resources: cpu(5), ..wanted(1, 1) });
    assert_eq!(w.plan(), []);
    w.planner = Planner::default();
    w.report(&task(0, 1));
    w.node(node(0, "a", 10));
    w.want(Wanted { resources: cpu(5), ..wanted(1, 1) });
    assert_eq!(w.plan(), []);
    assert_eq!(w.planner.progress(&service(1)).unwrap().unplaced, 1);
}

#[test]
fn a_waiting_task_is_placed_as_soon_as_a_node_has_room() {
    let mut w = world(&["a", "a"]);
    w.want(Wanted { resources: cpu(10), ..wanted(0, 2) });
    w.settle();
    w.want(wanted(1, 1));
    assert_eq!(w.plan(), []);
    w.leave(&service(0), Event::ServiceRemoved);
    w.plan();
    assert_eq!(w.plan(), []);
    w.end(&task(0, 2), false, Retry::Now);
    assert_eq!(placed(&w.plan()), [(task(1, 1), 1)]);
}

#[test]
fn a_silent_node_keeps_its_tasks_until_they_are_reported_ended() {
    let mut w = world(&["a", "a"]);
    w.want(wanted(0, 1));
    w.settle();
    w.node_state(0, NodeState::Unready);
    assert_eq!(w.plan(), []);
    w.end(&task(0, 1), false, Retry::Now);
    assert_eq!(placed(&w.plan()), [(task(0, 1), 1)]);
}

#[test]
fn news_of_an_earlier_incarnation_elsewhere_is_ignored() {
    let mut w = world(&["a", "a"]);
    w.want(wanted(0, 1));
    w.settle();
    let elsewhere = Event::TaskEnded { task: task(0, 1), node: node_id(1), failed: true, retry: Retry::Now };
    w.planner.apply(elsewhere);
    assert_eq!(w.plan(), []);
}

#[test]
fn a_task_told_to_stop_stays_told_when_an_older_report_arrives() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 1));
    w.settle();
    w.want(wanted(0, 0));
    assert_eq!(stopped(&w.plan()).len(), 1);
    w.running(&task(0, 1));
    assert_eq!(w.planner.progress(&service(0)).unwrap(), Progress { stopping: 1, ..Progress::default() });
}

#[test]
fn labels_choose_the_nodes_and_a_service_without_zones_has_none() {
    let mut w = world(&["a", "a", "a"]);
    let labels = vec!["disk=ssd".to_owned(), "rack=1".to_owned()];
    w.node(NodeSeen { labels: labels.clone(), ..node(1, "a", 10) });
    w.node(NodeSeen { labels: labels[..1].to_vec(), ..node(2, "a", 10) });
    w.want(Wanted { labels, ..wanted(0, 2) });
    w.want(Wanted { zones: vec![], ..wanted(1, 1) });
    assert_eq!(placed(&w.plan()), [(task(0, 1), 1), (task(0, 2), 1)]);
    assert!(w.planner.waiting().eq([&service(1)]));
}

#[test]
fn two_tasks_of_one_service_meet_on_a_node_only_when_there_are_fewer_nodes() {
    let mut w = world(&["a", "a", "b", "b", "c"]);
    w.want(wanted(0, 13));
    w.settle();
    let mut count: BTreeMap<_, u32> = BTreeMap::new();
    for (_, t) in w.of(&service(0)) {
        *count.entry(t.node.clone()).or_default() += 1;
    }
    assert!(count.values().all(|n| (2..=3).contains(n)), "{count:?}");
}
