//! A log that can prove anything about itself.

use super::DOMAIN;
use holdfast_types::Digest;
use holdfast_wire::merkle::{self, Frontier};
use holdfast_wire::note::{Checkpoint, origin};
use std::collections::HashMap;
use std::convert::Infallible;

/// The right edge and every complete subtree.
#[derive(Default)]
pub struct Log {
    frontier: Frontier,
    nodes: HashMap<(u8, u64), Digest>,
}
impl Log {
    pub fn push(&mut self, salt: &[u8], entry: &[u8]) {
        for n in self.frontier.push(merkle::leaf_hash(salt, entry)) {
            self.nodes.insert((n.level, n.index), n.hash);
        }
    }
    pub fn fill(&mut self, n: u64) {
        for i in 0..n {
            self.push(&[9; 32], &i.to_be_bytes());
        }
    }
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }
    fn get(&self) -> impl FnMut(u8, u64) -> Result<Digest, Infallible> + '_ {
        |level, index| Ok(self.nodes[&(level, index)])
    }
    pub fn inclusion(&self, leaf: u64) -> Vec<Vec<u8>> {
        merkle::inclusion(leaf, self.size(), self.get()).unwrap().unwrap().into_iter().map(Digest::to_vec).collect()
    }
    pub fn consistency(&self, from: u64) -> Vec<Digest> {
        merkle::consistency(from, self.size(), self.get()).unwrap().unwrap()
    }
    pub fn checkpoint(&self, era: u64) -> Checkpoint {
        Checkpoint { origin: origin(DOMAIN, era), size: self.size(), root: self.root() }
    }
}
