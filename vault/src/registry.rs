//! The core's state behind the log: applies commands, stores their leaves, says what changed.

use crate::raft::{AuditStore, Frozen, Machine, MachineError, Staged, Unwritten};
use holdfast_types::Digest;
use holdfast_vault_core::{Committed, Event, Leaf, Refusal, Stamped, State};
use holdfast_wire::merkle::Frontier;
use std::sync::Arc;
use tokio::sync::broadcast;

/// What changed, one message per command that changed something.
pub type Events = Arc<Vec<Event>>;

/// State, audit store and those who watch.
pub struct Registry {
    state: State,
    audit: AuditStore,
    /// Leaves of the entry that is being applied.
    leaves: Vec<Leaf>,
    /// Those of the entry before, until they are written.
    staged: Option<Staged>,
    events: broadcast::Sender<Events>,
    /// The last entry that was applied here.
    applied: u64,
}

impl Registry {
    /// An empty state; the log fills it.
    pub fn new(audit: AuditStore, events: broadcast::Sender<Events>) -> Self {
        Self { state: State::default(), audit, leaves: Vec::new(), staged: None, events, applied: 0 }
    }
    /// The state, as it is between two commands.
    pub fn state(&self) -> &State {
        &self.state
    }
    /// The last entry in it that was applied since this process started; 0 if none was.
    pub fn applied(&self) -> u64 {
        self.applied
    }
}

/// A copy of the state, made between two entries; encoding it takes longer and holds up nobody.
pub struct FrozenState(State);

impl Frozen for FrozenState {
    fn encode_to<W: std::io::Write>(self, out: W) -> std::io::Result<()> {
        self.0.encode_to(out)
    }
}

impl Machine for Registry {
    type Reply = Result<Committed, Refusal>;

    fn apply(&mut self, index: u64, _term: u64, command: &[u8]) -> Result<Self::Reply, MachineError> {
        let stamped = Stamped::decode(command)
            .ok_or_else(|| MachineError(format!("entry {index} is of another version or damaged")))?;
        let applied = self.state.apply(stamped);
        self.applied = index;
        self.leaves.extend(applied.leaves);
        if !applied.events.is_empty() && self.events.receiver_count() > 0 {
            // Nobody listening is no error; who lags behind is told so by the channel.
            drop(self.events.send(Arc::new(applied.events)));
        }
        Ok(applied.result)
    }

    fn settle(&mut self) -> Result<(), MachineError> {
        let done = std::mem::take(&mut self.leaves);
        if done.is_empty() {
            return Ok(());
        }
        let leaves: Vec<_> = done.iter().map(|l| (l.index, [l.salt.as_slice(), &l.entry].concat())).collect();
        // The hash of a leaf follows from the leaf.
        let above = done.iter().flat_map(|l| &l.nodes).filter(|n| n.level > 0);
        let nodes: Vec<_> = above.map(|n| (n.level, n.index, n.hash.0)).collect();
        self.staged = self.audit.stage(leaves, nodes)?;
        Ok(())
    }

    fn unwritten(&mut self) -> Option<Unwritten> {
        let staged = self.staged.take()?;
        Some(Box::new(move || staged.write().map_err(MachineError::from)))
    }

    type Frozen = FrozenState;
    fn snapshot(&self) -> FrozenState {
        FrozenState(self.state.frozen())
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), MachineError> {
        self.state = State::decode(snapshot).map_err(|e| MachineError(e.to_string()))?;
        // Proofs of what comes now stand on the complete subtrees of before, also while their leaves are still to be fetched.
        self.audit.append(&[], &peaks(&self.state.frontier()))?;
        drop(self.events.send(Arc::new(vec![Event::Trust, Event::Keys, Event::Slots, Event::Voters])));
        Ok(())
    }
}

/// The complete subtrees at a tree's edge, as nodes: level, index in the level, hash.
fn peaks(tree: &Frontier) -> Vec<(u8, u64, [u8; 32])> {
    let mut from = 0_u64;
    let levels = (0..64_u8).rev().filter(|level| tree.size() >> level & 1 == 1);
    let node = |(level, peak): (u8, &Digest)| {
        let node = (level, from >> level, peak.0);
        from += 1 << level;
        node
    };
    levels.zip(tree.peaks()).map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_wire::merkle::leaf_hash;

    #[test]
    fn the_edge_of_a_tree_is_the_nodes_that_later_proofs_stand_on() {
        let (mut tree, mut made) = (Frontier::default(), Vec::new());
        for n in 0..7_u8 {
            made.extend(tree.push(leaf_hash(&[n; 32], &[n])).into_iter().map(|n| (n.level, n.index, n.hash.0)));
            for node in peaks(&tree) {
                assert!(made.contains(&node), "{node:?} was never a complete subtree");
            }
        }
        assert_eq!(
            peaks(&tree).iter().map(|(level, index, _)| (*level, *index)).collect::<Vec<_>>(),
            [(2, 0), (1, 2), (0, 6)]
        );
    }
}
