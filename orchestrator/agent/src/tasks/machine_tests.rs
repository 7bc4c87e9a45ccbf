//! The laws of a task's life, for chosen and for arbitrary courses of events.

use super::*;
use proptest::prelude::*;

const T0: Millis = Millis(1_000_000);

fn lease(stop_on_expiry: bool) -> Lease {
    Lease { until: T0.plus(Duration::from_secs(100)), grace: Duration::from_secs(50), stop_on_expiry }
}
fn at(s: u64) -> Millis {
    T0.plus(Duration::from_secs(s))
}
fn exit(code: i32) -> Event {
    Event::Exited(Exit { code: Some(code), signal: None, oom_killed: false, at_ms: 0 })
}
fn stop(s: u64) -> Event {
    Event::Stop { grace: Duration::from_secs(s), why: "told to".into() }
}
fn running(policy: RestartPolicy, stop_on_expiry: bool) -> Life {
    let mut life = Life::new(policy, lease(stop_on_expiry));
    assert_eq!(life.state(), "started");
    assert_eq!(life.step(at(0), Event::Started), Act::Idle);
    assert_eq!(life.state(), "running");
    life
}

#[test]
fn a_crashed_container_is_started_again_after_a_wait() {
    let mut life = running(RestartPolicy::Always, true);
    assert_eq!(life.step(at(1), exit(3)), Act::Idle);
    assert_eq!((life.state(), life.exit_code(), life.detail()), ("restarting", 3, "exited with 3"));
    let wake = life.wake_at().unwrap();
    assert!(wake > at(1));
    assert_eq!(life.step(at(1), Event::Woken), Act::Idle);
    assert_eq!(life.step(wake, Event::Woken), Act::Start);
    assert_eq!(life.restarts(), 1);
    assert_eq!(life.step(wake, Event::Started), Act::Idle);
    assert_eq!((life.state(), life.detail()), ("running", ""));
}

#[test]
fn the_policy_says_whether_an_end_is_the_end() {
    for (policy, code, state) in [
        (RestartPolicy::Never, 0, "done"),
        (RestartPolicy::Never, 1, "done"),
        (RestartPolicy::OnFailure, 0, "done"),
        (RestartPolicy::OnFailure, 1, "restarting"),
        (RestartPolicy::Always, 0, "restarting"),
    ] {
        let mut life = running(policy, true);
        life.step(at(1), exit(code));
        assert_eq!(life.state(), state, "{policy:?} {code}");
    }
}

#[test]
fn an_order_stops_in_every_phase_and_a_later_one_may_hurry() {
    let mut life = running(RestartPolicy::Always, true);
    assert_eq!(life.step(at(1), stop(30)), Act::Stop(Duration::from_secs(30)));
    assert_eq!(life.step(at(2), stop(5)), Act::Stop(Duration::from_secs(5)));
    assert_eq!(life.step(at(3), exit(143)), Act::Finish);
    assert_eq!((life.state(), life.exit_code(), life.detail()), ("stopped", 143, "told to"));

    let mut waiting = running(RestartPolicy::Always, true);
    waiting.step(at(1), exit(1));
    assert_eq!(waiting.step(at(1), stop(1)), Act::Finish);
    let mut starting = Life::new(RestartPolicy::Always, lease(true));
    assert_eq!(starting.step(at(1), stop(1)), Act::Finish);
    assert_eq!(starting.state(), "stopped");
}

#[test]
fn what_cannot_start_is_tried_again_only_if_that_may_help() {
    let mut life = Life::new(RestartPolicy::OnFailure, lease(true));
    let not = |again| Event::NotStarted { reason: "no such program".into(), again };
    assert_eq!(life.step(at(1), not(true)), Act::Idle);
    assert_eq!((life.state(), life.detail()), ("restarting", "no such program"));
    let mut life = Life::new(RestartPolicy::OnFailure, lease(true));
    assert_eq!(life.step(at(1), not(false)), Act::Finish);
    assert_eq!(life.state(), "failed");
    let mut life = Life::new(RestartPolicy::Never, lease(true));
    assert_eq!(life.step(at(1), not(true)), Act::Finish);
    assert_eq!(life.state(), "failed", "what never ran has not done its work");
}

#[test]
fn nothing_starts_after_the_lease_is_over() {
    let mut life = running(RestartPolicy::Always, false);
    assert_eq!(life.step(at(101), exit(1)), Act::Finish);
    assert_eq!(life.state(), "failed");
    let mut life = running(RestartPolicy::Always, false);
    life.step(at(99), exit(1));
    assert_eq!(life.step(at(102), Event::Woken), Act::Finish);
    assert!(life.detail().contains("lease is over"));
}

#[test]
fn after_lease_and_grace_the_grant_says_stop_or_run_on() {
    let mut ends = running(RestartPolicy::Always, true);
    assert_eq!(ends.step(at(149), Event::Woken), Act::Idle);
    assert_eq!(ends.step(ends.wake_at().unwrap(), Event::Woken), Act::Stop(EXPIRY_GRACE));
    let mut runs_on = running(RestartPolicy::Always, false);
    assert_eq!(runs_on.step(at(151), Event::Woken), Act::Idle);
    assert!(runs_on.is_overdue() && runs_on.wake_at().is_none());
    assert_eq!(runs_on.state(), "running");
    runs_on.step(at(152), Event::Extended(at(1000)));
    assert!(!runs_on.is_overdue() && runs_on.wake_at().is_some());
}

#[test]
fn an_extension_prolongs_and_an_older_one_changes_nothing() {
    let mut life = running(RestartPolicy::Always, true);
    life.step(at(1), Event::Extended(at(500)));
    life.step(at(2), Event::Extended(at(50)));
    assert_eq!(life.lease_until(), at(500));
    assert_eq!(life.step(at(151), Event::Woken), Act::Idle);
    assert_eq!(life.state(), "running");
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Started),
        any::<bool>().prop_map(|again| Event::NotStarted { reason: "no".into(), again }),
        (0..3_i32).prop_map(exit),
        (0..60_u64).prop_map(stop),
        (0..400_u64).prop_map(|s| Event::Extended(at(s))),
        Just(Event::Woken),
        Just(Event::Woken),
    ]
}

proptest! {
    /// LAWS over any course of events in any order: over stays over, no start after the lease, the lease never
    /// shrinks, and a task that waits always has a time to wake at.
    #[test]
    fn the_laws_hold_for_every_course_of_events(
        policy in prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)],
        stops in any::<bool>(),
        course in proptest::collection::vec((0..20_u64, any_event()), 0..60),
    ) {
        let mut life = Life::new(policy, lease(stops));
        let (mut now, mut finished) = (0, 0);
        for (wait, event) in course {
            now += wait;
            let before = life.clone();
            let act = life.step(at(now), event);
            prop_assert!(life.lease_until() >= before.lease_until());
            if before.is_over() {
                prop_assert_eq!(act, Act::Idle);
                prop_assert_eq!(life.state(), before.state());
            }
            match act {
                Act::Start => prop_assert!(at(now) <= life.lease_until()),
                Act::Finish => finished += 1,
                Act::Idle | Act::Stop(_) => {}
            }
            prop_assert!(life.state() != "restarting" || life.wake_at().is_some() || matches!(life.phase, Phase::Starting));
        }
        prop_assert_eq!(finished, u32::from(life.is_over()));
    }
}
