//! Placements per second, from nothing and after the loss of a node. Run it with `--release`.
#![expect(clippy::print_stdout, reason = "its output is the measurement")]

use holdfast_orchestrator_core::plan::{
    Action, Event, NodeSeen, NodeState, Order, Planner, Resources, TaskSeen, TaskState, Update, Wanted,
};
use holdfast_types::{NameError, NodeId, ServiceRef, Zone, sha256};
use std::time::Instant;

const NODES: u32 = 10_000;
const TASKS: u32 = 100_000;
const ZONES: u32 = 10;

fn node(n: u32) -> Result<NodeSeen, Box<dyn std::error::Error>> {
    Ok(NodeSeen {
        id: NodeId::parse(&format!("node-{n:032x}"))?,
        state: NodeState::Ready,
        zone: Zone::parse(&format!("eu/z{}", n % ZONES))?,
        labels: vec![format!("host=h{n}"), format!("disk={}", if n.is_multiple_of(100) { "ssd" } else { "hdd" })],
        capacity: Resources { cpu_milli: 16_000, memory_bytes: 64 << 30 },
    })
}

fn wanted(n: u32, replicas: u32, label: Option<&str>) -> Result<Wanted, NameError> {
    Ok(Wanted {
        service: ServiceRef::of("bench", &format!("s{n}"))?,
        version: 1,
        template: sha256(&[&n.to_be_bytes()]),
        replicas,
        resources: Resources { cpu_milli: 100, memory_bytes: 128 << 20 },
        zones: vec![Zone::parse("eu")?],
        labels: label.into_iter().map(str::to_owned).collect(),
        exclusive: false,
        update: Update { parallelism: 1, order: Order::StartFirst },
    })
}

/// Places `TASKS` tasks in services of `replicas` each; returns the planner and its actions.
fn from_nothing(replicas: u32, label: Option<&str>) -> Result<(Planner, Vec<Action>), Box<dyn std::error::Error>> {
    let mut planner = Planner::default();
    for n in 0..NODES {
        planner.apply(Event::Node(node(n)?));
    }
    for n in 0..TASKS / replicas {
        planner.apply(Event::Service(wanted(n, replicas, label)?));
    }
    let start = Instant::now();
    let actions = planner.plan();
    let rate = actions.len() as f64 / start.elapsed().as_secs_f64();
    let label = label.unwrap_or("no label");
    println!("{:>7} placements in services of {replicas:>6} ({label}): {rate:>9.0} a second", actions.len());
    Ok((planner, actions))
}

/// All tasks come up; then a node goes, and its tasks move.
fn lose_a_node((mut planner, actions): (Planner, Vec<Action>)) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    for action in actions {
        if let Action::Place { task, node, service, .. } = action {
            let number: u32 = service.name.as_str().trim_start_matches('s').parse()?;
            planner.apply(Event::Task(TaskSeen {
                task,
                node,
                template: sha256(&[&number.to_be_bytes()]),
                resources: Resources { cpu_milli: 100, memory_bytes: 128 << 20 },
                state: TaskState::Running,
            }));
        }
    }
    println!(
        "        all reported running: {:?}; the plan that follows: {} actions",
        start.elapsed(),
        planner.plan().len()
    );
    for n in [7, 8, 9] {
        let start = Instant::now();
        planner.apply(Event::NodeGone(node(n)?.id));
        let told = start.elapsed();
        let moved = planner.plan().len();
        println!("        a node lost: told in {told:?}, {moved} tasks placed anew after {:?}", start.elapsed());
    }
    let start = Instant::now();
    let idle = planner.plan().len();
    println!("        nothing new: {idle} actions in {:?}", start.elapsed());
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for replicas in [1, 10, 100, 1_000, 10_000, 100_000] {
        lose_a_node(from_nothing(replicas, None)?)?;
    }
    lose_a_node(from_nothing(100, Some("disk=hdd"))?)?;
    lose_a_node(from_nothing(100, Some("disk=ssd"))?)
}
