//! Placements per second: 10 000 nodes, 100 000 tasks in services of a hundred, from nothing.
//!
//! Beside it: SwarmKit's scheduler on this work, at most 5 000 a second. A constant, not measured in this run.

use crate::Failed;
use crate::line::{Goal, Line};
use holdfast_orchestrator_core::plan::{Event, NodeSeen, NodeState, Order, Planner, Resources, Update, Wanted};
use holdfast_types::{NodeId, ServiceRef, Zone, sha256};
use std::time::Instant;

pub const HOW: &str =
    "10 000 nodes, 100 000 tasks in services of 100, planned at once in this process; beside: SwarmKit, a constant";

const NODES: u32 = 10_000;
const TASKS: u32 = 100_000;
const REPLICAS: u32 = 100;
const SWARMKIT: f64 = 5_000.0;

pub fn from_nothing() -> Result<Line, Failed> {
    let mut planner = Planner::default();
    for n in 0..NODES {
        planner.apply(Event::Node(NodeSeen {
            id: NodeId::parse(&format!("node-{n:032x}"))?,
            state: NodeState::Ready,
            zone: Zone::parse(&format!("eu/z{}", n % 10))?,
            labels: vec![format!("host=h{n}")],
            capacity: Resources { cpu_milli: 16_000, memory_bytes: 64 << 30 },
        }));
    }
    for n in 0..TASKS / REPLICAS {
        planner.apply(Event::Service(Wanted {
            service: ServiceRef::of("bench", &format!("s{n}"))?,
            version: 1,
            template: sha256(&[&n.to_be_bytes()]),
            replicas: REPLICAS,
            resources: Resources { cpu_milli: 100, memory_bytes: 128 << 20 },
            zones: vec![Zone::parse("eu")?],
            labels: Vec::new(),
            exclusive: false,
            update: Update { parallelism: 1, order: Order::StartFirst },
        }));
    }
    let start = Instant::now();
    let placed = u32::try_from(planner.plan().len())?;
    let value = f64::from(placed) / start.elapsed().as_secs_f64();
    if placed != TASKS {
        return Err(format!("{placed} of {TASKS} tasks were placed").into());
    }
    Ok(Line { value, unit: "placements/s", beside: SWARMKIT, goal: Goal::AtLeast(100_000.0) })
}
