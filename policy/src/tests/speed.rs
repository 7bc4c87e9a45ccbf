//! A decision costs little enough to be taken for every grant.

use super::*;
use std::time::{Duration, Instant};

#[test]
fn a_decision_takes_well_under_a_millisecond_even_unoptimised() {
    let p = Policies::builtin().unwrap();
    let f = grant();
    let best = (0..200)
        .map(|_| {
            let start = Instant::now();
            assert!(p.decide_grant(&f).is_ok());
            start.elapsed()
        })
        .min()
        .unwrap();
    println!("one grant decision: {best:?}");
    assert!(best < Duration::from_millis(1), "{best:?}");
}
