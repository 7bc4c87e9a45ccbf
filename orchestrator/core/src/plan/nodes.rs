//! The nodes: what they have, what is reserved on them, and the ready ones of each zone by load.
//!
//! Every change keeps the indexes; nothing here walks all nodes.

use super::arena::{Arena, Ix};
use super::service::Service;
use super::words::{NodeSeen, NodeState, Resources, Wanted};
use holdfast_types::{NodeId, Zone};
use std::collections::{BTreeSet, HashMap};

pub(super) type NodeIx = Ix<Node>;
/// The number of a zone. Zones are few and are never forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ZoneIx(usize);

/// How full a node is: the larger of its two shares, in 1/65536; then how many tasks it has, for those that reserve nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load {
    share: u64,
    tasks: usize,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) state: NodeState,
    pub(super) zone: ZoneIx,
    /// False if only a task has spoken of it: then nobody knows yet whether the task may stay.
    pub(super) known: bool,
    pub(super) tasks: BTreeSet<(Ix<Service>, u32)>,
    labels: BTreeSet<String>,
    capacity: Resources,
    used: Resources,
}
impl Node {
    fn load(&self) -> Load {
        let share = |used: u64, of: u64| match (used, of) {
            (0, _) => 0,
            (_, 0) => u64::MAX,
            (used, of) => u64::try_from((u128::from(used) << 16) / u128::from(of)).unwrap_or(u64::MAX),
        };
        let cpu = share(self.used.cpu_milli, self.capacity.cpu_milli);
        let memory = share(self.used.memory_bytes, self.capacity.memory_bytes);
        Load { share: cpu.max(memory), tasks: self.tasks.len() }
    }
    fn bears(&self, labels: &[String]) -> bool {
        labels.iter().all(|l| self.labels.contains(l))
    }
    /// May a task of `w` be started here, given that the zone is right?
    pub(super) fn can_take(&self, w: &Wanted) -> bool {
        let room = self.used.plus(w.resources).within(self.capacity);
        self.state == NodeState::Ready && room && self.bears(&w.labels)
    }
}

/// The ready nodes of one zone, the least loaded first.
struct Pool {
    zone: Zone,
    ready: BTreeSet<(Load, NodeIx)>,
}

#[derive(Default)]
pub(super) struct Nodes {
    arena: Arena<Node>,
    by_id: HashMap<NodeId, NodeIx>,
    pools: Vec<Pool>,
    zones: HashMap<Zone, ZoneIx>,
    labelled: HashMap<String, BTreeSet<NodeIx>>,
    /// Nodes on which a task may fit that did not fit before.
    freed: BTreeSet<NodeIx>,
}

impl std::ops::Index<NodeIx> for Nodes {
    type Output = Node;
    fn index(&self, ix: NodeIx) -> &Node {
        &self.arena[ix]
    }
}

impl Nodes {
    pub(super) fn find(&self, id: &NodeId) -> Option<NodeIx> {
        self.by_id.get(id).copied()
    }

    /// The node of that name; one that nobody has described takes no tasks.
    pub(super) fn find_or_add(&mut self, id: &NodeId) -> NodeIx {
        if let Some(ix) = self.find(id) {
            return ix;
        }
        let node = Node {
            id: id.clone(),
            state: NodeState::Unready,
            zone: self.zone(&Zone::all()),
            known: false,
            tasks: BTreeSet::new(),
            labels: BTreeSet::new(),
            capacity: Resources::default(),
            used: Resources::default(),
        };
        let ix = self.arena.insert(node);
        self.by_id.insert(id.clone(), ix);
        ix
    }

    /// Takes what is now known of the node.
    pub(super) fn describe(&mut self, ix: NodeIx, seen: NodeSeen) {
        let zone = self.zone(&seen.zone);
        self.unlabel(ix);
        self.reindexed(ix, |n| {
            n.known = true;
            n.state = seen.state;
            n.zone = zone;
            n.labels = seen.labels.into_iter().collect();
            n.capacity = seen.capacity;
        });
        for label in self.arena[ix].labels.iter().cloned() {
            self.labelled.entry(label).or_default().insert(ix);
        }
        self.freed.insert(ix);
    }

    /// Forgets the node. Its tasks have been released before.
    pub(super) fn remove(&mut self, ix: NodeIx) {
        self.unlabel(ix);
        let node = &self.arena[ix];
        if let Some(pool) = self.pools.get_mut(node.zone.0) {
            pool.ready.remove(&(node.load(), ix));
        }
        self.by_id.remove(&node.id);
        self.freed.remove(&ix);
        self.arena.remove(ix);
    }

    pub(super) fn reserve(&mut self, ix: NodeIx, task: (Ix<Service>, u32), r: Resources) {
        self.reindexed(ix, |n| {
            n.tasks.insert(task);
            n.used = n.used.plus(r);
        });
    }

    pub(super) fn release(&mut self, ix: NodeIx, task: (Ix<Service>, u32), r: Resources) {
        self.reindexed(ix, |n| {
            n.tasks.remove(&task);
            n.used = n.used.minus(r);
        });
        self.freed.insert(ix);
    }

    pub(super) fn take_freed(&mut self) -> BTreeSet<NodeIx> {
        std::mem::take(&mut self.freed)
    }

    /// May a task of `w` be on the node, as far as zone and labels say?
    pub(super) fn accepts(&self, ix: NodeIx, w: &Wanted) -> bool {
        let node = &self.arena[ix];
        let inside = self.pools.get(node.zone.0).is_some_and(|p| w.zones.iter().any(|z| p.zone.within(z)));
        inside && node.bears(&w.labels)
    }

    /// The zones in which `w` may run.
    pub(super) fn zones_of(&self, w: &Wanted) -> impl Iterator<Item = ZoneIx> {
        let inside = |p: &Pool| !p.ready.is_empty() && w.zones.iter().any(|z| p.zone.within(z));
        self.pools.iter().enumerate().filter(move |(_, p)| inside(p)).map(|(i, _)| ZoneIx(i))
    }

    /// The ready nodes of the zone after `after`, the least loaded first.
    pub(super) fn by_load(&self, zone: ZoneIx, after: Option<(Load, NodeIx)>) -> impl Iterator<Item = (Load, NodeIx)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.pools.get(zone.0).into_iter().flat_map(move |p| p.ready.range((from, Unbounded)).copied())
    }

    /// The nodes with the rarest of the labels that `w` asks for; `None` if it asks for none.
    pub(super) fn rarest_label(&self, w: &Wanted) -> Option<&BTreeSet<NodeIx>> {
        const NO_NODE: &BTreeSet<NodeIx> = &BTreeSet::new();
        w.labels.iter().map(|l| self.labelled.get(l).unwrap_or(NO_NODE)).min_by_key(|set| set.len())
    }

    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn load(&self, ix: NodeIx) -> Load {
        self.arena[ix].load()
    }

    fn zone(&mut self, zone: &Zone) -> ZoneIx {
        if let Some(ix) = self.zones.get(zone) {
            return *ix;
        }
        let ix = ZoneIx(self.pools.len());
        self.pools.push(Pool { zone: zone.clone(), ready: BTreeSet::new() });
        self.zones.insert(zone.clone(), ix);
        ix
    }

    /// Changes a node and keeps its place in the pools right.
    fn reindexed(&mut self, ix: NodeIx, change: impl FnOnce(&mut Node)) {
        let node = &mut self.arena[ix];
        if let Some(pool) = self.pools.get_mut(node.zone.0) {
            pool.ready.remove(&(node.load(), ix));
        }
        change(node);
        if let (NodeState::Ready, Some(pool)) = (node.state, self.pools.get_mut(node.zone.0)) {
            pool.ready.insert((node.load(), ix));
        }
    }

    fn unlabel(&mut self, ix: NodeIx) {
        for label in &self.arena[ix].labels {
            if let Some(set) = self.labelled.get_mut(label) {
                set.remove(&ix);
                if set.is_empty() {
                    self.labelled.remove(label);
                }
            }
        }
    }
}
