//! How many commands a second one voter makes durable: 64 callers and one caller, 1 KiB each, every one flushed to disk.
//!
//! `cargo run --release -p holdfast-vault --example raft_bench [DIRECTORY]`; the directory decides which disk is measured.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use holdfast_types::{ClusterId, VoterId};
use holdfast_vault::disk::keys::{DiskKeys, Generation, generate};
use holdfast_vault::raft::{Machine, MachineError, Options, PeerNetwork, Proposer, Store, Voter};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECONDS: u64 = 5;

#[derive(Default)]
struct Counter(u64);

impl Machine for Counter {
    type Reply = u64;
    fn apply(&mut self, _: u64, _: u64, _: &[u8]) -> Result<u64, MachineError> {
        self.0 += 1;
        Ok(self.0)
    }
    fn settle(&mut self) -> Result<(), MachineError> {
        Ok(())
    }
    type Frozen = Vec<u8>;
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), MachineError> {
        self.0 = snapshot.try_into().map(u64::from_be_bytes).map_err(|_| MachineError("not a counter".into()))?;
        Ok(())
    }
}

async fn write(proposer: Proposer<u64>, until: Instant) -> Result<Vec<Duration>, holdfast_vault::raft::ProposeError> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        proposer.propose(vec![0x5a; 1024]).await?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

async fn measure(voter: &Voter<Counter>, callers: usize) -> Result<(), Box<dyn Error>> {
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (0..callers).map(|_| tokio::spawn(write(voter.proposer(), until))).collect();
    let mut took = Vec::new();
    for t in tasks {
        took.extend(t.await??);
    }
    took.sort_unstable();
    let at = |percent: usize| {
        took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    println!("{callers:>7} {:>10} {:>12.2?} {:>12.2?}", took.len() as u64 / SECONDS, at(50), at(99));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir)?;
    let id = VoterId(1);
    let keys = DiskKeys::new(ClusterId([0; 32]), id, Generation { number: 1, key: generate()? }, None)?;
    let store = Store::create(dir.path(), Arc::new(keys))?;
    let voter =
        Voter::start(store, Counter::default(), &Options { id, snapshot_every: 10_000 }, PeerNetwork::alone()).await?;
    voter.found("127.0.0.1:0").await?;
    println!("callers  commands/s          p50          p99");
    for callers in [1, 64] {
        measure(&voter, callers).await?;
    }
    voter.shutdown().await;
    Ok(())
}
