//! One voter, from founding to restart; and openraft's own suite over the store.

use super::testing::*;
use super::*;
use crate::disk::DiskError;
use holdfast_types::VoterId;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::time::{Duration, Instant};

struct Builder;
impl StoreBuilder<Types, LogStore, StateMachine<Recorder>, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine<Recorder>), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        Ok((dir, LogStore::open(store.clone()).unwrap(), StateMachine::new(Recorder::default(), store)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_every_promise_that_openraft_asks_for() {
    Suite::test_all(Builder).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_voter_has_what_it_acknowledged_and_leads_at_once() {
    let dir = tempfile::tempdir().unwrap();
    one_voter_counts_to(dir.path(), 30).await;
    let begun = Instant::now();
    let voter = start(dir.path(), 1000).await;
    let took = begun.elapsed();
    voter.confirm_leading().await.unwrap();
    assert_eq!(voter.machine().read(|m| m.commands.clone()).unwrap(), (0..30).collect::<Vec<_>>());
    // An election timeout is at least 500 ms: a sole voter must not sit one out.
    assert!(took < Duration::from_millis(450), "{took:?}");
    assert!(matches!(voter.found("x").await, Err(StartError::AlreadyFounded)));
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_many_callers_share_entries_and_each_gets_its_own_reply() {
    let dir = tempfile::tempdir().unwrap();
    let voter = start(dir.path(), 100_000).await;
    let before = voter.status().last_log.unwrap();
    let callers = (0..64u64).map(|i| {
        let proposer = voter.proposer();
        tokio::spawn(async move {
            let mut replies = Vec::new();
            for n in 0..10 {
                let number = i * 10 + n;
                replies.push((number, proposer.propose(number.to_be_bytes().to_vec()).await.unwrap()));
            }
            replies
        })
    });
    let replies = futures::future::join_all(callers).await.into_iter().flat_map(|r| r.unwrap());
    let commands = voter.machine().read(|m| m.commands.clone()).unwrap();
    let mut count = 0;
    for (number, position) in replies {
        assert_eq!(commands[position as usize], number);
        count += 1;
    }
    assert_eq!((count, commands.len()), (640, 640));
    let entries = voter.status().last_log.unwrap() - before;
    assert!(entries < 320, "{entries} entries for 640 commands");
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_beyond_the_term_of_its_leader_is_refused_and_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let voter = start(dir.path(), 1000).await;
    let term = voter.status().term;
    let vote = message::encode(&Vote::new_committed(term + 1, 2)).unwrap();
    let last = Some(codec::log_id(term + 2, 100));
    let meta = SnapshotMeta { last_log_id: last, last_membership: StoredMembership::default() };
    let meta = message::encode(&meta).unwrap();
    let refused = voter.receive_snapshot(VoterId(2), &vote, &meta, Vec::new()).await;
    assert!(matches!(&refused, Err(ReceiveError::Refused(why)) if why.contains("beyond the term")), "{refused:?}");
    assert_eq!(voter.proposer().propose(0u64.to_be_bytes().to_vec()).await, Ok(0));
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_snapshot_the_log_is_purged_and_a_restart_uses_both() {
    let dir = tempfile::tempdir().unwrap();
    {
        let voter = start(dir.path(), 20).await;
        for i in 0..100u64 {
            voter.proposer().propose(i.to_be_bytes().to_vec()).await.unwrap();
        }
        settled(&voter, |s| s.purged.is_some_and(|p| p > 50)).await;
        voter.shutdown().await;
    }
    let voter = start(dir.path(), 20).await;
    voter.confirm_leading().await.unwrap();
    assert_eq!(voter.machine().read(|m| m.commands.clone()).unwrap(), (0..100).collect::<Vec<_>>());
    voter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_belongs_to_no_cluster_refuses_commands() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { id: VoterId(1), snapshot_every: 100 };
    let voter = Voter::start(store(dir.path()), Recorder::default(), &options, PeerNetwork::alone()).await.unwrap();
    assert_eq!(voter.proposer().propose(vec![0; 8]).await, Err(ProposeError::Unavailable));
    assert_eq!(voter.proposer().propose(vec![0; MAX_COMMAND + 1]).await, Err(ProposeError::TooLong));
    assert_eq!(voter.confirm_leading().await, Err(ProposeError::Unavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_fails_stops_the_voter() {
    let dir = tempfile::tempdir().unwrap();
    let voter = start(dir.path(), 1000).await;
    assert_eq!(voter.proposer().propose(b"short".to_vec()).await, Err(ProposeError::Stopped));
    let status = settled(&voter, |s| s.fatal.is_some()).await;
    assert!(status.fatal.unwrap().contains("not a number"));
    assert_eq!(voter.proposer().propose(vec![0; 8]).await, Err(ProposeError::Stopped));
}

#[tokio::test]
async fn a_peer_that_is_not_connected_grants_nothing() {
    use openraft::network::{RPCOption, RaftNetworkFactory as _, RaftNetworkV2 as _};
    let mut client = PeerNetwork::alone().new_client(2, &openraft::BasicNode::new("x")).await;
    let ask = || openraft::raft::VoteRequest::new(openraft::Vote::new(3, 1), None);
    let option = || RPCOption::new(Duration::from_secs(1));
    assert!(client.vote(ask(), option()).await.is_err());
    assert!(client.pre_vote(ask(), option()).await.is_err());
}

#[test]
fn audit_leaves_and_nodes_come_back_and_are_never_changed() {
    let dir = tempfile::tempdir().unwrap();
    let leaves: Vec<_> = (0..5u64).map(|i| (i, format!("salt and entry {i}").into_bytes())).collect();
    let nodes = [(0, 4, [4; 32]), (1, 0, [1; 32]), (3, 0, [3; 32])];
    store(dir.path()).audit().append(&leaves, &nodes).unwrap();
    let store = store(dir.path());
    let audit = store.audit();
    // Replay after a crash: the same again is fine, anything else is not.
    audit.append(&leaves, &nodes).unwrap();
    let other = audit.append(&[(3, b"another story".to_vec())], &[]);
    assert!(matches!(other, Err(StoreError::Diverged { index: 3 })), "{other:?}");
    let range: Vec<_> = audit.range(1, 99).unwrap().iter().map(|l| l.expose().to_vec()).collect();
    assert_eq!(range, leaves[1..].iter().map(|l| l.1.clone()).collect::<Vec<_>>());
    assert_eq!(
        (audit.node(1, 0).unwrap(), audit.node(3, 0).unwrap(), audit.node(2, 0).unwrap()),
        (Some([1; 32]), Some([3; 32]), None)
    );
    assert!(audit.leaf(5).unwrap().is_none());
    assert!(matches!(audit.leaf(1 << 56), Err(StoreError::Range(_))));
}

#[test]
fn the_hash_of_a_leaf_is_known_where_the_leaf_alone_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let audit = store(dir.path()).audit();
    let leaf = [[7_u8; 32].as_slice(), b"entry"].concat();
    audit.append(&[(3, leaf.clone())], &[]).unwrap();
    assert_eq!(audit.node(0, 3).unwrap(), Some(holdfast_wire::merkle::leaf_hash(&[7; 32], b"entry").0));
    assert_eq!((audit.node(0, 4).unwrap(), audit.node(1, 1).unwrap()), (None, None));
    let staged = audit.stage(vec![(4, leaf)], Vec::new()).unwrap().unwrap();
    assert_eq!(audit.node(0, 4).unwrap(), audit.node(0, 3).unwrap(), "it is read like one that was written");
    staged.write().unwrap();
}

#[test]
fn a_batch_gives_back_its_commands_and_refuses_anything_else() {
    let commands: [&[u8]; 3] = [b"a", b"", b"longer"];
    let batch = Batch::pack(commands).unwrap();
    assert_eq!(batch.commands().unwrap(), commands);
    assert!(Batch::pack([vec![0; MAX_COMMAND + 1].as_slice()]).is_none());
    let mut cut = batch.as_bytes().to_vec();
    cut.pop();
    assert!(Batch::from(cut).commands().is_none());
}

#[test]
fn a_missing_slots_file_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(crate::disk::slots::Slots::load(dir.path()), Err(DiskError::Missing(_))));
}

#[test]
fn staged_leaves_are_read_before_they_are_written_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let staged = store.audit().stage(vec![(0, b"leaf".to_vec())], vec![(0, 0, [7; 32])]).unwrap().unwrap();
    let read = || {
        let audit = store.audit();
        (audit.leaf(0).unwrap().map(|l| l.expose().to_vec()), audit.node(0, 0).unwrap())
    };
    assert!(store.audit.get(0_u64.to_be_bytes()).unwrap().is_none(), "it is on the disk already");
    let both = (Some(b"leaf".to_vec()), Some([7; 32]));
    assert_eq!(read(), both);
    // What is known to be whole is on the disk, the last of it too.
    let filled = super::Filled { below: 1, filling: super::Filling::No };
    store.audit().set_filled(filled).unwrap();
    assert!(store.audit.get(0_u64.to_be_bytes()).unwrap().is_some(), "it counts and is not on the disk");
    staged.write().unwrap();
    assert!(store.staged().is_empty());
    assert_eq!(read(), both);
    assert!(store.audit().stage(vec![(0, b"leaf".to_vec())], vec![(0, 0, [7; 32])]).unwrap().is_none());
}
