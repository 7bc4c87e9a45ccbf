//! Histories as they may be, and each fault planted once: the judge that cannot find it would be none.

use super::Outcome::{Done, Refused, Unknown};
use super::*;

fn op(asked: Asked, from: Moment, until: Moment, outcome: Outcome) -> Op {
    Op { client: 1, asked, from, until, outcome }
}
fn put(version: u64, from: Moment, until: Moment, outcome: Outcome) -> Op {
    op(Asked::Put { key: "k".into(), version }, from, until, outcome)
}
fn saw(version: u64, from: Moment, until: Moment) -> Op {
    op(Asked::Read { key: "k".into() }, from, until, Outcome::Saw(version))
}
fn used(from: Moment, until: Moment, outcome: Outcome) -> Op {
    op(Asked::Use { token: "t".into() }, from, until, outcome)
}
fn held(holder: &str, fence: u64, from: Moment, until: Moment) -> Held {
    Held { namespace: "n".into(), holder: holder.into(), fence, from, until }
}
#[test]
fn what_one_voter_could_have_answered_is_no_fault() {
    let ops = [
        saw(0, 0, 1),
        put(1, 1, 5, Done),
        put(1, 2, 6, Refused),
        saw(1, 6, 7),
        // Two at once: either may be first.
        put(2, 8, 20, Done),
        saw(1, 9, 19),
        saw(2, 9, 19),
        // Nobody knows of this one, and it happened: somebody built upon it.
        put(3, 21, 22, Unknown),
        put(3, 23, 30, Refused),
        put(4, 31, 40, Done),
        // And this one never did.
        put(5, 41, 42, Unknown),
        saw(4, 50, 51),
        used(1, 2, Done),
        used(1, 3, Refused),
    ];
    let leases = [held("a", 1, 0, 10), held("a", 1, 5, 15), held("b", 2, 15, 20), held("a", 3, 21, 22)];
    assert_eq!(judge(&ops, &leases), []);
}

#[test]
fn an_acknowledged_write_that_is_lost_is_found() {
    let ops = [put(1, 0, 1, Done), put(2, 2, 3, Done), saw(1, 4, 5)];
    assert_eq!(judge(&ops, &[]), [Fault::NoOrder { key: "k".into(), reached: 2, stuck: Box::new(ops[2].clone()) }]);
    // Also if the next writer only finds the version before in its place.
    let again = [put(1, 0, 1, Done), put(2, 2, 3, Unknown), saw(2, 4, 5), put(2, 6, 7, Done)];
    assert!(matches!(judge(&again, &[])[..], [Fault::NoOrder { .. }]));
}

#[test]
fn a_version_that_is_given_twice_is_found() {
    let ops = [put(1, 0, 10, Done), put(1, 0, 10, Done)];
    assert_eq!(judge(&ops, &[]), [Fault::VersionTwice { key: "k".into(), version: 1 }]);
}

#[test]
fn a_stale_answer_and_one_from_the_future_are_found() {
    let stale = [put(1, 0, 1, Done), put(2, 2, 3, Done), saw(2, 4, 5), saw(1, 6, 7)];
    assert!(matches!(judge(&stale, &[])[..], [Fault::NoOrder { reached: 2, .. }]));
    let early = [put(1, 0, 1, Done), saw(2, 2, 3), put(2, 4, 5, Done)];
    assert!(matches!(judge(&early, &[])[..], [Fault::NoOrder { reached: 1, .. }]));
}

#[test]
fn a_write_refused_where_it_was_next_is_found() {
    let ops = [put(1, 0, 1, Done), put(2, 2, 3, Refused), saw(1, 4, 5)];
    assert!(matches!(judge(&ops, &[])[..], [Fault::NoOrder { reached: 1, .. }]));
}

#[test]
fn a_write_after_a_gap_is_found() {
    assert!(matches!(judge(&[put(2, 0, 1, Done)], &[])[..], [Fault::NoOrder { reached: 0, .. }]));
}

#[test]
fn a_token_that_is_used_twice_or_lost_is_found() {
    let twice = [used(0, 5, Done), used(1, 6, Done)];
    assert_eq!(judge(&twice, &[]), [Fault::TokenTwice { token: "t".into(), times: 2 }]);
    assert_eq!(judge(&[used(0, 1, Refused)], &[]), [Fault::TokenLost { token: "t".into() }]);
    assert_eq!(judge(&[used(0, 1, Unknown), used(2, 3, Refused)], &[]), []);
}

#[test]
fn a_lease_that_two_hold_at_once_is_found() {
    let twice = [held("a", 1, 0, 10), held("b", 2, 9, 20)];
    let holders = ("a".to_owned(), "b".to_owned());
    assert_eq!(judge(&[], &twice), [Fault::LeaseTwice { namespace: "n".into(), holders }]);
    // A short answer after a long one does not hide the long one.
    let hidden = [held("a", 1, 0, 10), held("a", 1, 1, 2), held("b", 2, 9, 20)];
    assert!(matches!(judge(&[], &hidden)[..], [Fault::LeaseTwice { .. }]));
}

#[test]
fn a_fence_that_does_not_rise_with_the_next_holder_is_found() {
    let back = [held("a", 2, 0, 1), held("b", 2, 5, 6)];
    assert_eq!(judge(&[], &back), [Fault::FenceBack { namespace: "n".into(), fences: (2, 2) }]);
}

#[test]
fn many_unknown_outcomes_are_judged_quickly() {
    // Each version was tried by eight, and nobody was answered but by the reads.
    let mut ops = Vec::new();
    for version in 1..=200 {
        let at = version * 100;
        ops.extend((0..8).map(|n| put(version, at + n, at + 50, Unknown)));
        ops.push(saw(version, at + 60, at + 70));
    }
    assert_eq!(judge(&ops, &[]), []);
}
