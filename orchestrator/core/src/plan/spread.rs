//! How many tasks of one service each node and each zone has.

use super::nodes::{NodeIx, ZoneIx};
use super::service::Task;
use std::collections::BTreeMap;

/// Where a service's tasks are, those being stopped left out.
#[derive(Default)]
pub(super) struct Spread(BTreeMap<ZoneIx, (u32, BTreeMap<NodeIx, u32>)>);
impl Spread {
    pub(super) fn on(&self, zone: ZoneIx, node: NodeIx) -> u32 {
        self.0.get(&zone).and_then(|(_, nodes)| nodes.get(&node)).copied().unwrap_or(0)
    }
    pub(super) fn in_zone(&self, zone: ZoneIx) -> u32 {
        self.0.get(&zone).map_or(0, |(total, _)| *total)
    }
    pub(super) fn nodes_of(&self, zone: ZoneIx) -> impl Iterator<Item = (NodeIx, u32)> {
        self.0.get(&zone).into_iter().flat_map(|(_, nodes)| nodes.iter().map(|(ix, n)| (*ix, *n)))
    }
    pub(super) fn add(&mut self, task: &Task) {
        let (total, nodes) = self.0.entry(task.zone).or_default();
        *total += 1;
        *nodes.entry(task.node).or_default() += 1;
    }
    pub(super) fn remove(&mut self, task: &Task) {
        let Some((total, nodes)) = self.0.get_mut(&task.zone) else { return };
        *total -= 1;
        if let Some(n) = nodes.get_mut(&task.node) {
            *n -= 1;
            if *n == 0 {
                nodes.remove(&task.node);
            }
        }
        if *total == 0 {
            self.0.remove(&task.zone);
        }
    }
}
