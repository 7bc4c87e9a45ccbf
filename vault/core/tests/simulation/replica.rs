//! One replica: a state that follows the log at its own pace, and its disk – a snapshot and the log after it.

use super::world::at_time;
use holdfast_types::Millis;
use holdfast_vault_core::{Leaf, Stamped, State};

/// A replica of the machine.
pub struct Replica {
    pub state: State,
    /// Commands of the log that it has applied.
    pub applied: usize,
    pub leaves: Vec<Leaf>,
    snapshot: (Vec<u8>, usize),
}

impl Replica {
    /// One that has applied nothing.
    pub fn new() -> Self {
        let state = State::default();
        Self { snapshot: (state.encode(), 0), state, applied: 0, leaves: Vec::new() }
    }
    /// Applies up to `upto` commands of `log`.
    pub fn follow(&mut self, log: &[Stamped], upto: usize) {
        for command in log.iter().take(upto).skip(self.applied) {
            let done = self.state.apply(command.clone());
            let fresh = self.leaves.len() as u64;
            self.leaves.extend(done.leaves.into_iter().filter(|l| l.index >= fresh));
        }
        self.applied = self.applied.max(upto.min(log.len()));
    }
    /// Takes a snapshot.
    pub fn save(&mut self) {
        self.snapshot = (self.state.encode(), self.applied);
    }
    /// Its process ends and starts again: the snapshot, and the log after it.
    pub fn crash(&mut self, log: &[Stamped]) {
        let (snapshot, applied) = self.snapshot.clone();
        let upto = self.applied;
        self.state = if applied == 0 { State::default() } else { State::decode(&snapshot).unwrap() };
        self.applied = applied;
        self.follow(log, upto);
    }
    /// Leaves out the next command, as a replica with a defect would.
    pub fn skip(&mut self) {
        self.applied += 1;
    }
    /// The state at time `at`, in bytes.
    pub fn at(&self, at: Millis) -> Vec<u8> {
        at_time(&self.state.encode(), at)
    }
}
