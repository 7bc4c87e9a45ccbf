//! Chaos: three real voters in networks of their own, cut off, killed, stopped, misdated and let down by
//! their disks at drawn moments, while clients
//! write versions, use tokens and keep leases. Afterwards one order must explain all that was acknowledged.
//!
//! What is drawn comes from `HOLDFAST_SEED`; the same seed draws the same faults again. `HOLDFAST_CHAOS_SECONDS` is how long
//! they go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::too_many_lines,
    reason = "a test that meets the unexpected should stop there, and say so"
)]

mod clients;
mod cluster;
mod disks;
mod faults;
mod net;

#[path = "../e2e/clocked.rs"]
mod clocked;
#[path = "../e2e/image.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod image;
#[path = "../e2e/leftovers.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod leftovers;
#[path = "../e2e/traced.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod traced;
#[path = "../e2e/voters/world.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod voters;
#[path = "../e2e/world.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod world;

use cluster::Story;
use faults::{Draw, Kind};
use std::time::Duration;

/// Where the faults come from unless `HOLDFAST_SEED` says otherwise.
const SEED: u64 = 0x0043_6861_6f73;

/// The seed of this run.
fn seed() -> u64 {
    std::env::var("HOLDFAST_SEED").map_or(SEED, |s| s.parse().expect("HOLDFAST_SEED is a number"))
}

/// How long faults go on, if each kind of them has come by then.
fn time() -> Duration {
    let seconds = std::env::var("HOLDFAST_CHAOS_SECONDS");
    Duration::from_secs(seconds.map_or(12, |s| s.parse().expect("HOLDFAST_CHAOS_SECONDS is a number")))
}

/// Three voters under faults of these kinds; whatever was acknowledged meanwhile has one order.
fn survives(test: &str, kinds: &'static [Kind], salt: u64) {
    net::inside(test, |net| {
        let seed = seed();
        eprintln!("{test}: seed {seed}; repeat it with: make chaos SEED={seed}");
        Story::of(net, &mut Draw(seed ^ salt), kinds, time()).judged();
    });
}

/// What happens in each of the three stories.
const NETWORKS: &[Kind] = &[Kind::Isolated, Kind::Deaf, Kind::Mute, Kind::OneLink, Kind::Flapping];
const PROCESSES: &[Kind] =
    &[Kind::Killed, Kind::Stopped, Kind::Misdated, Kind::Jumped, Kind::Isolated, Kind::AllKilled];
const DISKS: &[Kind] = &[Kind::Full, Kind::Slow, Kind::KilledWriting];

/// A story tells each of its kinds; all of them together tell of every kind that there is.
#[test]
fn every_kind_of_fault_is_told_of() {
    for kind in Kind::ALL {
        assert!([NETWORKS, PROCESSES, DISKS].iter().any(|story| story.contains(&kind)), "{kind:?} never happens");
    }
}

#[test]
fn one_order_explains_what_was_acknowledged_while_networks_were_cut() {
    survives("one_order_explains_what_was_acknowledged_while_networks_were_cut", NETWORKS, 1);
}

#[test]
fn one_order_explains_what_was_acknowledged_while_voters_were_killed_stopped_and_misdated() {
    survives("one_order_explains_what_was_acknowledged_while_voters_were_killed_stopped_and_misdated", PROCESSES, 2);
}

#[test]
fn one_order_explains_what_was_acknowledged_while_disks_were_full_slow_or_lost_their_voter() {
    survives("one_order_explains_what_was_acknowledged_while_disks_were_full_slow_or_lost_their_voter", DISKS, 3);
}

#[test]
fn a_full_disk_is_really_full_and_a_traced_process_really_dies_in_its_write() {
    net::inside("a_full_disk_is_really_full_and_a_traced_process_really_dies_in_its_write", |_| disks::really());
}

#[test]
fn a_clock_really_jumps_under_a_running_process() {
    faults::clocks_really_jump();
}

#[test]
fn a_cut_network_is_really_cut() {
    net::inside("a_cut_network_is_really_cut", |net| {
        let heard = |from: usize, to: usize| net.hears(from, to);
        assert!(heard(1, 2) && heard(2, 1));
        // No packet of the first reaches the second: neither its own connection nor an answer to the second's.
        net.cut(1, 2);
        assert!(!heard(1, 2) && !heard(2, 1));
        assert!(heard(1, 3) && heard(3, 1) && heard(2, 3));
        net.heal();
        assert!(heard(1, 2) && heard(2, 1));
    });
}
