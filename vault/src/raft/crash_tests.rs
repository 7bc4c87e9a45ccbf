//! A voter killed at random moments: what it acknowledged is there, once, in its place.

use super::testing::*;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const DIR: &str = "HOLDFAST_CRASH_DIR";
const ROUND: &str = "HOLDFAST_CRASH_ROUND";
const NAME: &str = "raft::crash_tests::nothing_acknowledged_is_lost_when_the_process_is_killed";
/// Entries between snapshots: so few that kills fall into building one and purging behind it.
const SNAPSHOT_EVERY: u64 = 25;
const ROUNDS: u64 = 15;

/// The process that gets killed: eight callers propose as fast as they can and say what was acknowledged.
async fn be_killed(dir: PathBuf, round: u64) {
    let voter = start(&dir, SNAPSHOT_EVERY).await;
    let callers = (0..8u64).map(|caller| {
        let proposer = voter.proposer();
        tokio::spawn(async move {
            for n in 0..100_000u64 {
                let number = round << 40 | caller << 32 | n;
                let position = proposer.propose(number.to_be_bytes().to_vec()).await.unwrap();
                // One write call a line: a line is in the pipe whole or not at all.
                let line = format!("ack {number} {position}\n");
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        })
    });
    futures::future::join_all(callers).await;
}

/// Runs one round: kills the child once it has acknowledged `acks` commands; returns all that it acknowledged.
fn round(dir: &std::path::Path, round: u64, acks: usize) -> Vec<(u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(ack) = line.strip_prefix("ack ") {
            let (number, position) = ack.split_once(' ').unwrap();
            seen.push((number.parse().unwrap(), position.parse().unwrap()));
        }
        if !killed && seen.len() >= acks {
            child.kill().unwrap();
            killed = true;
        }
    }
    assert!(killed, "the child ended by itself: {:?}", child.wait());
    child.wait().unwrap();
    seen
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let (Some(dir), Ok(round)) = (std::env::var_os(DIR), std::env::var(ROUND)) {
        runtime.block_on(be_killed(dir.into(), round.parse().unwrap()));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 1..=ROUNDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Now and then the first line of output is enough: that kill falls into start-up and replay.
        let acks = (seed >> 33) as usize % 400;
        let acks = if n % 4 == 0 { 0 } else { acks };
        acknowledged.extend(round(dir.path(), n, acks));
    }
    assert!(acknowledged.len() > 300, "only {} acknowledged", acknowledged.len());
    runtime.block_on(async {
        let voter = start(dir.path(), SNAPSHOT_EVERY).await;
        voter.confirm_leading().await.unwrap();
        let commands = voter.machine().read(|m| m.commands.clone()).unwrap();
        for (number, position) in &acknowledged {
            assert_eq!(commands.get(*position as usize), Some(number), "of {} commands", commands.len());
        }
        let mut once = commands.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), commands.len(), "a command was applied twice");
        voter.shutdown().await;
    });
}
