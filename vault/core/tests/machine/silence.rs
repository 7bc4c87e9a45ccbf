//! Time in which no vault ran, and who may still come back after it.

use crate::rejoin::{comes_back, is_late, key, runs};
use crate::rhythm::made_issuer;
use crate::world::{START, World};
use holdfast_types::Millis;
use holdfast_vault_core::{Command, State};
use std::time::Duration;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

#[test]
fn a_cluster_that_was_off_for_longer_than_the_window_locks_nobody_out() {
    let mut w = World::new();
    let (early, first, late) = (w.node(), w.node(), w.node());
    w.pass(400 * DAY);
    // Before anything else is written, too.
    made_issuer(&mut w);
    assert!(comes_back(&mut w, &early.id, &early.key, &key()).unwrap().is_some());
    w.state = State::decode(&w.state.encode()).unwrap();
    runs(&mut w, 29 * DAY);
    assert!(comes_back(&mut w, &first.id, &first.key, &key()).unwrap().is_some(), "it has the whole window");
    runs(&mut w, 2 * DAY);
    is_late(&mut w, &late);
}

#[test]
fn neither_stops_nor_clocks_reopen_the_window() {
    let mut w = World::new();
    let (early, late) = (w.node(), w.node());
    // Their certificates are over at the end of this, and the first hour of the window is too.
    runs(&mut w, 73 * HOUR);
    // Stopped as often as a thief likes, or started with a clock that is a year ahead.
    for days in [10, 10, 9] {
        runs(&mut w, days * DAY);
        w.pass(365 * DAY);
        w.propose(Command::Tick).result.unwrap();
    }
    made_issuer(&mut w);
    assert!(comes_back(&mut w, &early.id, &early.key, &key()).unwrap().is_some(), "30 days are not over");
    runs(&mut w, DAY);
    is_late(&mut w, &late);
    w.pass(365 * DAY);
    is_late(&mut w, &late);
}

#[test]
fn a_leader_that_has_nothing_to_write_does_so_all_the_same() {
    let mut w = World::new();
    w.pass(3 * DAY);
    w.propose(Command::Tick).result.unwrap();
    let after = |minutes: i64| Millis(w.now.0 + minutes * 60_000);
    assert!(!w.state.is_due(after(14)));
    assert!(w.state.is_due(after(15)));
}

#[test]
fn of_many_silences_the_longest_are_left_out() {
    let mut w = World::new();
    w.pass(400 * DAY);
    w.propose(Command::Tick).result.unwrap();
    for _ in 0..100 {
        w.pass(2 * HOUR);
        w.propose(Command::Tick).result.unwrap();
        runs(&mut w, HOUR);
    }
    // 100 hours ran, and of 100 silences of two hours 37 count as if a vault had run.
    let since = |hours: u64| w.state.ran_since(w.now, Duration::from_secs(hours * 3600)).0 - START.0;
    assert!(since(173) > 400 * DAY, "{}", since(173) / HOUR);
    assert!(since(175) <= 0, "{}", since(175) / HOUR);
}
