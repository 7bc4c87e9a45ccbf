//! Laws over random histories. The first three are checked by the world at every action.

use super::world::*;
use crate::plan::*;
use holdfast_types::{TaskId, Zone};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Node { n: usize, state: NodeState, zone: usize, ssd: bool, capacity: u64 },
    NodeGone(usize),
    Want { s: usize, template: u8, replicas: u32, cpu: u64, zone: usize, ssd: bool, exclusive: bool, update: Update },
    Remove(usize),
    Release(usize),
    Report(usize),
    End(usize),
    Fail(usize, Retry),
    Hold(usize, u32),
    Retry,
    Plan,
}

const ZONES: [&str; 4] = ["eu", "eu/a", "eu/b", "us"];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let state = prop_oneof![3 => Just(NodeState::Ready), 1 => Just(NodeState::Draining), 1 => Just(NodeState::Unready)];
    let order = prop_oneof![Just(Order::StartFirst), Just(Order::StopFirst)];
    let update = (0..4u32, order).prop_map(|(parallelism, order)| Update { parallelism, order });
    let retry = prop_oneof![Just(Retry::Now), Just(Retry::Later)];
    let want =
        (0..4usize, 0..3u8, 0..7u32, 0..4u64, 0..5usize, prop::bool::weighted(0.2), prop::bool::weighted(0.2), update);
    let op = prop_oneof![
        3 => (0..6usize, state, 0..4usize, any::<bool>(), 0..9u64)
            .prop_map(|(n, state, zone, ssd, capacity)| Op::Node { n, state, zone, ssd, capacity }),
        1 => (0..6usize).prop_map(Op::NodeGone),
        3 => want.prop_map(|(s, template, replicas, cpu, zone, ssd, exclusive, update)| {
            Op::Want { s, template, replicas, cpu, zone, ssd, exclusive, update }
        }),
        1 => (0..4usize).prop_map(Op::Remove),
        1 => (0..4usize).prop_map(Op::Release),
        6 => any::<usize>().prop_map(Op::Report),
        3 => any::<usize>().prop_map(Op::End),
        2 => (any::<usize>(), retry).prop_map(|(k, r)| Op::Fail(k, r)),
        1 => (0..4usize, 1..8u32).prop_map(|(s, slot)| Op::Hold(s, slot)),
        1 => Just(Op::Retry),
        6 => Just(Op::Plan),
    ];
    prop::collection::vec(op, 1..80)
}

impl World {
    fn nth(&self, k: usize, wanted: impl Fn(TaskState) -> bool) -> Option<TaskId> {
        let ids: Vec<&TaskId> = self.tasks.iter().filter(|(_, t)| wanted(t.state)).map(|(id, _)| id).collect();
        ids.get(k % ids.len().max(1)).map(|id| (*id).clone())
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Node { n, state, zone, ssd, capacity } => {
                let labels = if ssd { vec!["disk=ssd".to_owned()] } else { vec![] };
                self.node(NodeSeen { state, labels, ..node(n, ZONES[zone], capacity) });
            }
            Op::NodeGone(n) => self.node_gone(&node_id(n)),
            Op::Want { s, template: t, replicas, cpu: c, zone, ssd, exclusive, update } => {
                let version = self.wanted.get(&service(s)).map_or(1, |w| w.version + 1);
                let zones = vec![ZONES.get(zone).map_or(Zone::all(), |z| Zone::parse(z).unwrap())];
                let labels = if ssd { vec!["disk=ssd".to_owned()] } else { vec![] };
                let (template, resources) = (template(t), cpu(c));
                self.want(Wanted {
                    version,
                    template,
                    resources,
                    zones,
                    labels,
                    exclusive,
                    update,
                    ..wanted(s, replicas)
                });
            }
            Op::Remove(s) => self.leave(&service(s), Event::ServiceRemoved),
            Op::Release(s) => self.leave(&service(s), Event::ServiceReleased),
            Op::Report(k) => {
                if let Some(id) = self.nth(k, |s| s == TaskState::Starting) {
                    self.running(&id);
                }
            }
            Op::End(k) => {
                if let Some(id) = self.nth(k, |s| s == TaskState::Stopping) {
                    self.end(&id, false, Retry::Now);
                }
            }
            Op::Fail(k, retry) => {
                if let Some(id) = self.nth(k, |_| true) {
                    self.end(&id, true, retry);
                }
            }
            Op::Hold(s, slot) => {
                if self.wanted.contains_key(&service(s)) {
                    self.hold(task(s, slot));
                }
            }
            Op::Retry => {
                if let Some(id) = self.held.first().cloned() {
                    self.retry_due(&id);
                }
            }
            Op::Plan => drop(self.plan()),
        }
    }
}

fn after(ops: &[Op]) -> World {
    let mut world = World::default();
    for op in ops {
        world.run(op.clone());
    }
    world
}

fn settled(ops: &[Op]) -> World {
    let mut world = after(ops);
    world.settle();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_task_is_placed_only_where_it_may_be_and_fits(ops in ops()) {
        after(&ops);
    }

    #[test]
    fn there_are_never_more_tasks_than_replicas_and_surge(ops in ops()) {
        settled(&ops);
    }

    #[test]
    fn plans_converge_on_what_is_wanted_or_on_what_there_is_room_for(ops in ops()) {
        let mut world = settled(&ops);
        prop_assert!(world.plan().is_empty());
        for (name, w) in &world.wanted {
            let p = world.planner.progress(name).unwrap();
            let tasks = world.of(name);
            let stay = tasks.iter().filter(|(_, t)| world.may_stay(w, &t.node));
            prop_assert!(tasks.len() <= w.replicas as usize, "{} has too many", name);
            let (stay, new) = stay.fold((0, 0), |(all, new), (_, t)| (all + 1, new + u32::from(t.template == w.template)));
            if p.unplaced > 0 {
                prop_assert!(!world.has_place(w), "{name} waits, and there is room");
                prop_assert!(world.planner.waiting().any(|n| n == name));
            } else {
                prop_assert_eq!(tasks.len(), w.replicas as usize, "{}", name);
                prop_assert_eq!(stay, w.replicas);
                prop_assert!(p.halted || new == w.replicas, "{} stopped half-way", name);
            }
        }
    }

    #[test]
    fn the_loss_of_a_node_touches_only_its_tasks(ops in ops(), n in 0..6usize) {
        let mut world = settled(&ops);
        let lost: Vec<TaskId> =
            world.tasks.iter().filter(|(_, t)| t.node == node_id(n)).map(|(id, _)| id.clone()).collect();
        world.node_gone(&node_id(n));
        let actions = world.plan();
        prop_assert!(actions.len() <= lost.len());
        for action in actions {
            match action {
                Action::Place { service, .. } => prop_assert!(lost.iter().any(|id| id.service().unwrap() == service)),
                Action::Stop { task, .. } => prop_assert!(false, "{} was stopped", task),
            }
        }
    }

    #[test]
    fn a_planner_started_anew_over_a_settled_world_has_nothing_to_do(ops in ops()) {
        let mut world = settled(&ops);
        prop_assume!(world.wanted.keys().all(|s| !world.planner.progress(s).unwrap().halted));
        world.planner = Planner::default();
        for id in world.tasks.keys().cloned().collect::<Vec<_>>() {
            world.report(&id);
        }
        for w in world.wanted.values() {
            world.planner.apply(Event::Service(w.clone()));
        }
        for n in world.nodes.values() {
            world.planner.apply(Event::Node(n.clone()));
        }
        prop_assert_eq!(world.planner.plan(), vec![]);
    }

    #[test]
    fn the_same_events_give_the_same_actions(ops in ops()) {
        prop_assert_eq!(settled(&ops).history, settled(&ops).history);
    }
}
