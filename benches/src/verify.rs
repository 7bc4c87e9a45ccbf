//! One `verify_assign`: grant, specification, an image with two publisher keys, receipt, two secrets.
//!
//! Beside it: the five signatures in it, verified alone in the same run.

use crate::Failed;
use crate::line::{Goal, Line};
use holdfast_wire::keys::StatementSigner as _;
use holdfast_wire::statement;
use std::time::Instant;

#[path = "../../orchestrator/core/tests/verify/world/mod.rs"]
#[allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "shared with the tests, which use all of it"
)]
mod world;

pub const HOW: &str =
    "all ten checks of one assignment with two secrets, mean of 2 000; beside: its five signatures verified alone";

const ROUNDS: u32 = 2_000;
const SIGNATURES: u32 = 5;

pub fn one_assignment() -> Result<Line, Failed> {
    let scene = world::Scene::honest();
    let value = micros_each(|| scene.verify().map(|_| ()).map_err(|_| "an honest assignment was refused".into()))?;
    let keys = [world::key(world::who::DEPLOYER).public()];
    let signed = world::signed(&holdfast_wire::v1::Voucher::default(), &[world::who::DEPLOYER]);
    let one = micros_each(|| Ok(statement::verify::<holdfast_wire::v1::Voucher>(&signed, &keys, 1).map(|_| ())?))?;
    let beside = one * f64::from(SIGNATURES);
    Ok(Line { value, unit: "us", beside, goal: Goal::AtMost(1_000.0) })
}

fn micros_each(mut work: impl FnMut() -> Result<(), Failed>) -> Result<f64, Failed> {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        work()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS))
}
