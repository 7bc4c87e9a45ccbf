//! How versions change, how failures halt them, and how back-off holds a place, rule by rule.

use super::world::*;
use crate::plan::*;

#[test]
fn a_start_first_rollout_goes_on_as_each_new_task_runs() {
    let mut w = world(&["a", "a"]);
    w.want(wanted(0, 3));
    w.settle();
    w.want(version_2(0, 3));
    assert_eq!(placed(&w.plan()), [(task(0, 4), 1)]);
    assert_eq!(w.plan(), []);
    w.running(&task(0, 4));
    assert_eq!(stopped(&w.plan()), [(task(0, 3), StopReason::Outdated)]);
    w.end(&task(0, 3), false, Retry::Now);
    assert_eq!(placed(&w.plan()).first().map(|(id, _)| id.clone()), Some(task(0, 3)));
    w.settle();
    assert!(w.tasks.values().all(|t| t.template == template(2)));
    assert_eq!(w.tasks.len(), 3);
}

#[test]
fn a_stop_first_rollout_stops_no_more_than_its_parallelism() {
    let mut w = world(&["a", "a"]);
    let order = update(Order::StopFirst, 2);
    w.want(Wanted { update: order, ..wanted(0, 5) });
    w.settle();
    w.want(Wanted { update: order, ..version_2(0, 5) });
    assert_eq!(stopped(&w.plan()), [(task(0, 5), StopReason::Outdated), (task(0, 4), StopReason::Outdated)]);
    w.end(&task(0, 5), false, Retry::Now);
    let actions = w.plan();
    assert_eq!((placed(&actions).len(), stopped(&actions).len()), (1, 0));
    w.running(&task(0, 5));
    assert_eq!(stopped(&w.plan()), [(task(0, 3), StopReason::Outdated)]);
}

/// With the last outdated task told to stop, nothing seemed outdated any more, and its replacement was started beside it.
#[test]
fn the_last_outdated_task_too_has_ended_before_its_replacement_starts() {
    let mut w = world(&["a", "a"]);
    let order = update(Order::StopFirst, 1);
    w.want(Wanted { update: order, ..wanted(0, 1) });
    w.settle();
    w.want(Wanted { update: order, ..version_2(0, 1) });
    assert_eq!(stopped(&w.plan()), [(task(0, 1), StopReason::Outdated)]);
    assert_eq!(w.plan(), []);
    w.report(&task(0, 1));
    assert_eq!(w.plan(), []);
    w.end(&task(0, 1), false, Retry::Now);
    assert_eq!(placed(&w.plan()).len(), 1);
}

#[test]
fn a_parallelism_of_zero_updates_all_at_once() {
    let mut w = world(&["a"]);
    let order = update(Order::StopFirst, 0);
    w.want(Wanted { update: order, ..wanted(0, 5) });
    w.settle();
    w.want(Wanted { update: order, ..version_2(0, 5) });
    assert_eq!(stopped(&w.plan()).len(), 5);
}

#[test]
fn a_failing_new_version_halts_its_rollout_until_another_version() {
    let mut w = world(&["a", "a"]);
    w.want(wanted(0, 3));
    w.settle();
    w.want(version_2(0, 3));
    w.plan();
    w.end(&task(0, 4), true, Retry::Now);
    assert_eq!(w.plan(), []);
    let p = w.planner.progress(&service(0)).unwrap();
    assert_eq!((p.halted, p.outdated, p.running), (true, 3, 0));
    w.want(Wanted { version: 3, ..wanted(0, 3) });
    assert_eq!(w.plan(), []);
    assert_eq!(w.planner.progress(&service(0)).unwrap(), Progress { running: 3, ..Progress::default() });
    w.want(Wanted { version: 4, ..version_2(0, 3) });
    assert_eq!(placed(&w.plan()).len(), 1);
}

#[test]
fn a_task_that_failed_is_replaced_when_its_retry_is_due() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 2));
    w.settle();
    w.end(&task(0, 1), true, Retry::Later);
    assert_eq!(w.plan(), []);
    w.retry_due(&task(0, 1));
    assert_eq!(placed(&w.plan()), [(task(0, 1), 0)]);
}

#[test]
fn a_held_place_is_given_up_before_a_running_task() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 2));
    w.settle();
    w.end(&task(0, 1), true, Retry::Later);
    w.want(wanted(0, 1));
    assert_eq!(w.plan(), []);
    w.retry_due(&task(0, 1));
    assert_eq!(w.plan(), []);
    assert_eq!(slots(&w, 0), [2]);
}

#[test]
fn a_held_place_is_no_reason_to_stop_an_outdated_task() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 3));
    w.settle();
    w.end(&task(0, 1), true, Retry::Later);
    w.end(&task(0, 2), true, Retry::Later);
    w.want(Wanted { version: 1, update: update(Order::StopFirst, 1), ..version_2(0, 2) });
    assert_eq!(w.plan(), []);
    assert_eq!(slots(&w, 0), [3]);
}

#[test]
fn scaling_down_in_the_middle_of_a_rollout_does_not_wait_for_it() {
    let mut w = world(&["a"]);
    let order = update(Order::StopFirst, 1);
    w.want(Wanted { update: order, ..wanted(0, 5) });
    w.settle();
    w.want(Wanted { update: order, ..version_2(0, 2) });
    assert_eq!(stopped(&w.plan()).len(), 3);
}

#[test]
fn an_old_task_is_not_stopped_for_a_new_one_that_does_not_run_yet() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 2));
    w.settle();
    w.want(version_2(0, 2));
    assert_eq!(placed(&w.plan()).len(), 1);
    w.report(&task(0, 1));
    assert_eq!(w.plan(), []);
}

#[test]
fn a_task_seen_in_a_held_place_fills_it() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 2));
    w.settle();
    let survivor = w.tasks[&task(0, 1)].clone();
    w.end(&task(0, 1), true, Retry::Later);
    w.end(&task(0, 2), true, Retry::Later);
    w.tasks.insert(task(0, 1), survivor);
    w.report(&task(0, 1));
    assert_eq!(w.plan(), []);
    w.retry_due(&task(0, 2));
    assert_eq!(placed(&w.plan()), [(task(0, 2), 0)]);
}

#[test]
fn the_place_of_a_task_that_has_done_its_work_stays_empty_until_another_version() {
    let mut w = world(&["a"]);
    w.want(wanted(0, 2));
    w.hold(task(0, 1));
    assert_eq!(placed(&w.plan()), [(task(0, 2), 0)]);
    w.running(&task(0, 2));
    w.hold(task(0, 2));
    assert_eq!(w.plan(), [], "a task that is there is not held");
    w.want(Wanted { version: 2, ..wanted(0, 3) });
    w.hold(task(0, 1));
    assert_eq!(placed(&w.plan()), [(task(0, 3), 0)]);
}

#[test]
fn a_halted_rollout_stays_halted_while_a_task_has_nowhere_to_go() {
    let mut w = world(&["a", "a", "a", "a"]);
    let v1 = Wanted { exclusive: true, resources: cpu(10), update: update(Order::StopFirst, 2), ..wanted(0, 4) };
    w.want(v1.clone());
    w.settle();
    w.want(Wanted { version: 2, template: template(2), ..v1 });
    for (id, _) in stopped(&w.plan()) {
        w.end(&id, false, Retry::Now);
    }
    w.plan();
    w.running(&task(0, 3));
    let failing = w.tasks[&task(0, 4)].node.clone();
    w.end(&task(0, 4), true, Retry::Later);
    w.node(NodeSeen { state: NodeState::Unready, ..w.nodes[&failing].clone() });
    w.node_state(0, NodeState::Draining);
    assert_eq!(w.plan(), []);
}

#[test]
fn a_task_with_nowhere_to_go_does_not_hold_up_a_rollout() {
    let mut w = world(&["a", "b"]);
    let stop_first = Wanted { exclusive: true, resources: cpu(10), ..wanted(0, 2) };
    w.want(stop_first.clone());
    w.settle();
    w.node_state(1, NodeState::Draining);
    w.plan();
    w.want(Wanted { version: 2, template: template(2), ..stop_first });
    assert_eq!(stopped(&w.plan()), [(task(0, 1), StopReason::Outdated)]);
}
