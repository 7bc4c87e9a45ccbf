//! What the tests of this module share: a machine that remembers what it was told, and a store with known keys.

use super::{LogStore, Machine, MachineError, Options, PeerNetwork, Status, Store, StoreError, Voter};
use crate::disk::keys::{At, DiskKey, DiskKeys, Generation};
use crate::disk::keyspace;
use holdfast_types::{ClusterId, VoterId};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn keys(voter: u64, byte: u8) -> Arc<DiskKeys> {
    let key = DiskKey::take(&mut [byte; 32]);
    Arc::new(DiskKeys::new(ClusterId([7; 32]), VoterId(voter), Generation { number: 1, key }, None).unwrap())
}

pub fn store(dir: &Path) -> Store {
    let dir = dir.join("db");
    if dir.exists() { Store::open(&dir, keys(1, 9)).unwrap() } else { Store::create(&dir, keys(1, 9)).unwrap() }
}

/// Remembers every command; replies with its position.
#[derive(Default)]
pub struct Recorder {
    pub commands: Vec<u64>,
}

impl Machine for Recorder {
    type Reply = u64;
    fn apply(&mut self, _index: u64, _term: u64, command: &[u8]) -> Result<u64, MachineError> {
        let number = command.first_chunk().ok_or(MachineError("not a number".into()))?;
        self.commands.push(u64::from_be_bytes(*number));
        Ok(self.commands.len() as u64 - 1)
    }
    fn settle(&mut self) -> Result<(), MachineError> {
        Ok(())
    }
    type Frozen = Vec<u8>;
    fn snapshot(&self) -> Vec<u8> {
        self.commands.iter().flat_map(|c| c.to_be_bytes()).collect()
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), MachineError> {
        self.commands = snapshot.as_chunks().0.iter().map(|c| u64::from_be_bytes(*c)).collect();
        Ok(())
    }
}

/// Starts voter 1 over the store in `dir`, founding its cluster the first time, and waits until it leads and has caught up.
pub async fn start(dir: &Path, snapshot_every: u64) -> Voter<Recorder> {
    start_over(store(dir), snapshot_every).await
}

/// The same over a store that is open.
pub async fn start_over(store: Store, snapshot_every: u64) -> Voter<Recorder> {
    let options = Options { id: VoterId(1), snapshot_every };
    let voter = Voter::start(store, Recorder::default(), &options, PeerNetwork::alone()).await.unwrap();
    if !voter.is_founded().await.unwrap() {
        voter.found("127.0.0.1:1").await.unwrap();
    }
    settled(&voter, |s| s.leader == Some(VoterId(1))).await;
    voter
}

pub async fn settled(voter: &Voter<Recorder>, wanted: impl Fn(&Status) -> bool) -> Status {
    let found = voter.until(DEADLINE, wanted).await.unwrap();
    found.unwrap_or_else(|| panic!("not settled: {:?}", voter.status()))
}

/// Proposes 0..n one after the other and checks that each was applied in its place.
pub async fn one_voter_counts_to(dir: &Path, n: u64) {
    let voter = start(dir, 1000).await;
    for i in 0..n {
        assert_eq!(voter.proposer().propose(i.to_be_bytes().to_vec()).await, Ok(i));
    }
    voter.shutdown().await;
}

/// What a store holds: `keyspace/index`, and what the value opens to, if it does.
pub type Values = BTreeMap<String, Option<Vec<u8>>>;

/// Every value of the store, opened by `keys`.
pub fn values(store: &Store, keys: &DiskKeys) -> Result<Values, StoreError> {
    let mut out = BTreeMap::new();
    let all = [
        ("log", keyspace::LOG, &store.log),
        ("meta", keyspace::META, &store.meta),
        ("snap", keyspace::SNAP, &store.snap),
        ("audit", keyspace::AUDIT, &store.audit),
    ];
    for (name, number, keyspace) in all {
        for item in keyspace.iter() {
            let (key, value) = item.into_inner()?;
            let mut at = At::new(number, u64::from_be_bytes((*key).try_into().unwrap()));
            let sealed = if name == "log" {
                let (term, sealed) = value.split_first_chunk::<8>().unwrap();
                at.raft_term = u64::from_be_bytes(*term);
                sealed
            } else {
                &value
            };
            let opened = keys.open(at, sealed).ok().map(|plain| plain.expose().to_vec());
            out.insert(format!("{name}/{}", at.index), opened);
        }
    }
    Ok(out)
}

/// What a store holds, read as a voter does that starts; damage is an error.
pub fn read_all(store: &Store, keys: &DiskKeys) -> Result<Values, StoreError> {
    LogStore::open(store.clone())?;
    store.load_snapshot()?;
    let values = values(store, keys)?;
    match values.values().position(Option::is_none) {
        Some(n) => Err(StoreError::Corrupt { keyspace: "store", index: n as u64 }),
        None => Ok(values),
    }
}

/// Moves what lies in memory and journal into tables, so that a store has files of every kind.
pub fn settle_tables(store: &Store) {
    for keyspace in [&store.log, &store.meta, &store.snap, &store.audit] {
        keyspace.rotate_memtable_and_wait().unwrap();
    }
}
