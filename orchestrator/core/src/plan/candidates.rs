//! Where the next task of a service goes: the node with the fewest of its tasks, then the zone with the fewest,
//! then the least loaded node, then the one known longest.
//!
//! One `Candidates` lives while one service is being placed, so loads only rise and a node passed over stays passed over:
//! each step costs a logarithm, not a walk over the nodes.

use super::nodes::{Load, NodeIx, Nodes, ZoneIx};
use super::service::Service;
use super::words::Wanted;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Smaller is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    on_node: u32,
    in_zone: u32,
    load: Load,
    node: NodeIx,
    zone: ZoneIx,
}

/// The candidates of one zone.
#[derive(Default)]
struct Lane {
    /// Nodes to choose from by count and load. Unless `walks`, it holds all there are.
    heap: BinaryHeap<Reverse<(u32, Load, NodeIx)>>,
    /// Nodes without a task of the service are still taken from the zone's pool, after `passed`.
    walks: bool,
    passed: Option<(Load, NodeIx)>,
}

pub(super) struct Candidates {
    lanes: BTreeMap<ZoneIx, Lane>,
    /// The best of each lane. Choosing in one lane leaves the ranks of the others as they are.
    best: BTreeSet<Rank>,
}

impl Candidates {
    /// Among all nodes, for `count` tasks.
    pub(super) fn everywhere(count: u32, nodes: &Nodes, service: &Service, w: &Wanted) -> Self {
        // Ranking the n nodes of a label costs n. Walking all N by load meets one of them every N/n steps.
        if let Some(labelled) = nodes.rarest_label(w)
            && labelled.len().saturating_mul(labelled.len()) <= nodes.count().saturating_mul(count as usize)
        {
            return Self::among(labelled.iter().copied(), nodes, service, w);
        }
        let lanes = nodes.zones_of(w).map(|z| (z, Lane { walks: true, ..Lane::default() })).collect();
        Self::ranked(lanes, nodes, service, w)
    }

    /// Among the nodes of a list.
    pub(super) fn among(list: impl IntoIterator<Item = NodeIx>, nodes: &Nodes, service: &Service, w: &Wanted) -> Self {
        let mut lanes: BTreeMap<ZoneIx, Lane> = BTreeMap::new();
        for ix in list {
            let node = &nodes[ix];
            if nodes.accepts(ix, w) {
                let entry = (service.spread.on(node.zone, ix), nodes.load(ix), ix);
                lanes.entry(node.zone).or_default().heap.push(Reverse(entry));
            }
        }
        Self::ranked(lanes, nodes, service, w)
    }

    fn ranked(mut lanes: BTreeMap<ZoneIx, Lane>, nodes: &Nodes, service: &Service, w: &Wanted) -> Self {
        let best = lanes.iter_mut().filter_map(|(zone, lane)| lane.best(*zone, nodes, service, w)).collect();
        Self { lanes, best }
    }

    /// The node to take, if any has room. It must be taken ([`Candidates::taken`]) before the next is asked for.
    pub(super) fn best(&self) -> Option<NodeIx> {
        self.best.first().map(|rank| rank.node)
    }

    /// The best node has been given a task: ranks it anew.
    pub(super) fn taken(&mut self, nodes: &Nodes, service: &Service, w: &Wanted) {
        let Some(Rank { node, zone, .. }) = self.best.pop_first() else { return };
        let Some(lane) = self.lanes.get_mut(&zone) else { return };
        if !lane.walks {
            lane.heap.pop();
            lane.heap.push(Reverse((service.spread.on(zone, node), nodes.load(node), node)));
        }
        self.best.extend(lane.best(zone, nodes, service, w));
    }
}

impl Lane {
    fn best(&mut self, zone: ZoneIx, nodes: &Nodes, service: &Service, w: &Wanted) -> Option<Rank> {
        let in_zone = service.spread.in_zone(zone);
        if self.walks {
            for (load, node) in nodes.by_load(zone, self.passed) {
                if service.spread.on(zone, node) == 0 && nodes[node].can_take(w) {
                    return Some(Rank { on_node: 0, in_zone, load, node, zone });
                }
                self.passed = Some((load, node));
            }
            self.walks = false;
            self.heap = service.spread.nodes_of(zone).map(|(node, n)| Reverse((n, nodes.load(node), node))).collect();
        }
        while let Some(Reverse((on_node, load, node))) = self.heap.peek().copied() {
            if nodes[node].can_take(w) {
                return Some(Rank { on_node, in_zone, load, node, zone });
            }
            self.heap.pop();
        }
        None
    }
}
