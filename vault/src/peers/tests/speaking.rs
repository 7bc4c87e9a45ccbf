//! Who is heard, and as whom.

use super::world::*;
use crate::peers::line::Line;
use crate::raft::{PeerRpc, SentSnapshot};
use futures::FutureExt as _;
use holdfast_transport::failure::FailureKind;
use holdfast_transport::now;
use holdfast_types::sha256;
use holdfast_wire::v1;

#[tokio::test]
async fn a_voter_is_heard_as_itself_in_both_directions() {
    let w = two().await;
    for (from, to) in [(&w.one, &w.two), (&w.two, &w.one)] {
        for rpc in PeerRpc::ALL {
            let answer = from.peers.wire().call(to.id, &to.addr, rpc, b"words".to_vec()).await.unwrap();
            assert_eq!(answer, b"heard words");
        }
        let heard = to.ear.heard.lock().unwrap();
        assert_eq!(*heard, PeerRpc::ALL.map(|rpc| (rpc, from.id.0, b"words".to_vec())));
    }
    let report = v1::VoterReport { service_addr: "two:7401".into(), ..v1::VoterReport::default() };
    let reply = w.two.peers.report(w.one.id, &w.one.addr, report).await.unwrap();
    assert_eq!(reply.chain, [b"chain".to_vec()]);
    let reports = w.one.ear.reports.lock().unwrap();
    assert_eq!((reports[0].0, reports[0].1.service_addr.as_str()), (2, "two:7401"));
}

#[tokio::test]
async fn a_voter_cannot_speak_as_another() {
    let w = two().await;
    let three = key();
    w.pins.know(3, &three);
    // A certificate that the cluster's own issuer signed, with a name that belongs to another key.
    let liar = speaker(&w.ca, w.ca.identity(3, &w.keys[1]), &w.pins, &boot(9, 9));
    liar.open_gate();
    let failure = liar.high_water(w.one.id, &w.one.addr).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused, "{failure:?}");
    assert!(liar.wire().call(w.one.id, &w.one.addr, PeerRpc::Vote, Vec::new()).await.is_err());
    assert!(w.one.ear.heard.lock().unwrap().is_empty());
    // Nor can it listen as another: voter 1 dials number 3 and finds the key of number 2.
    let false_three = listen(&w.ca, w.ca.identity(3, &w.keys[1]), &w.pins).await;
    let failure = w.one.peers.high_water(false_three.id, &false_three.addr).await.unwrap_err();
    assert_eq!(failure.code, "server-not-trusted", "{failure:?}");
    let failure = w.one.peers.high_water(false_three.id, &w.two.addr).await.unwrap_err();
    assert!(failure.message.contains("expected vault/3, found vault/2"), "{failure:?}");
}

#[tokio::test]
async fn a_voter_whose_words_are_anothers_is_refused_and_written_down() {
    let w = two().await;
    let said = w.two.peers.wire().call(w.one.id, &w.one.addr, PeerRpc::Vote, AS_ANOTHER.to_vec()).await;
    assert!(said.unwrap_err().0.contains("may not speak as another"));
    assert_eq!(*w.one.ear.impostors.lock().unwrap(), [2]);
    assert!(w.one.ear.heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_evicted_voter_cannot_speak_at_all_not_even_where_it_was_connected() {
    let w = two().await;
    let say = || async { w.two.peers.wire().call(w.one.id, &w.one.addr, PeerRpc::Append, b"words".to_vec()).await };
    say().await.unwrap();
    w.pins.evict(2);
    let refused = say().await.unwrap_err();
    assert!(refused.0.contains("no voter of this cluster"), "{refused:?}");
    assert_eq!(w.two.peers.high_water(w.one.id, &w.one.addr).await.unwrap_err().kind, FailureKind::Refused);
    // And over a new connection.
    let again = speaker(&w.ca, w.ca.identity(2, &w.keys[1]), &w.pins, &boot(2, 2));
    assert_eq!(again.high_water(w.one.id, &w.one.addr).await.unwrap_err().kind, FailureKind::Refused);
    assert_eq!(w.one.ear.heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_pinned_key_is_believed_though_all_its_certificates_have_expired() {
    let w = two_since(now().minus(60 * DAY)).await;
    let answer = w.two.peers.wire().call(w.one.id, &w.one.addr, PeerRpc::PreVote, b"words".to_vec()).await;
    assert_eq!(answer.unwrap(), b"heard words");
    // But not an unknown one's.
    let stranger = speaker(&w.ca, w.ca.identity(3, &key()), &w.pins, &boot(1, 3));
    assert!(stranger.high_water(w.one.id, &w.one.addr).await.is_err());
}

#[tokio::test]
async fn an_unknown_number_is_believed_by_its_chain_and_only_above_all_that_are_known() {
    let w = two().await;
    w.pins.know(5, &key());
    let newer = speaker(&w.ca, w.ca.identity(6, &key()), &w.pins, &boot(1, 6));
    newer.high_water(w.one.id, &w.one.addr).await.unwrap();
    let lower = speaker(&w.ca, w.ca.identity(3, &key()), &w.pins, &boot(1, 3));
    assert_eq!(lower.high_water(w.one.id, &w.one.addr).await.unwrap_err().kind, FailureKind::Refused);
    // The same name from an authority that is not the cluster's.
    let other = Ca::new(now());
    let foreign = speaker(&w.ca, other.identity(6, &key()), &w.pins, &boot(1, 7));
    assert_eq!(foreign.high_water(w.one.id, &w.one.addr).await.unwrap_err().kind, FailureKind::Refused);
}

#[tokio::test]
async fn an_older_boot_is_refused_and_its_sender_learns_that_its_disk_was_set_back() {
    let w = two().await;
    let process = |count, byte| speaker(&w.ca, w.ca.identity(2, &w.keys[1]), &w.pins, &boot(count, byte));
    let (older, newer, copy) = (process(4, 4), process(5, 5), process(5, 6));
    older.high_water(w.one.id, &w.one.addr).await.unwrap();
    newer.high_water(w.one.id, &w.one.addr).await.unwrap();
    for set_back in [&older, &copy] {
        assert!(!set_back.rolled_back().is_cancelled());
        let failure = set_back.high_water(w.one.id, &w.one.addr).await.unwrap_err();
        assert_eq!((failure.kind, failure.code.as_ref()), (FailureKind::Changed, "rolled-back"));
        assert!(set_back.rolled_back().is_cancelled());
    }
    let reply = newer.high_water(w.one.id, &w.one.addr).await.unwrap();
    assert_eq!(reply.boot.unwrap(), v1::Boot { count: 5, id: vec![5; 16] });
    assert!(!newer.rolled_back().is_cancelled());
}

#[tokio::test]
async fn a_later_process_that_only_asks_shuts_nobody_out() {
    let w = two().await;
    let process = |count, byte| speaker(&w.ca, w.ca.identity(2, &w.keys[1]), &w.pins, &boot(count, byte));
    let (at_work, copy) = (process(4, 4), process(5, 5));
    at_work.open_gate();
    let say = || async { at_work.wire().call(w.one.id, &w.one.addr, PeerRpc::Append, b"words".to_vec()).await };
    say().await.unwrap();
    let told = copy.high_water_before(w.one.id, &w.one.addr).await.unwrap();
    assert_eq!(told.boot.unwrap(), v1::Boot { count: 4, id: vec![4; 16] });
    say().await.unwrap();
    assert!(!at_work.rolled_back().is_cancelled());
    // Of an older one even the question is refused.
    assert_eq!(process(3, 3).high_water_before(w.one.id, &w.one.addr).await.unwrap_err().code, "rolled-back");
    // Before it takes part, the other is shut out.
    copy.high_water(w.one.id, &w.one.addr).await.unwrap();
    assert!(say().await.is_err());
    assert!(at_work.rolled_back().is_cancelled());
}

#[tokio::test]
async fn whoever_is_asked_by_another_voter_knows_that_it_is_up_and_dials_it_without_a_pause() {
    let w = two().await;
    w.two.peers.high_water(w.one.id, &w.one.addr).await.unwrap();
    assert!(w.one.peers.called().now_or_never().is_some());
    assert!(w.one.peers.called().now_or_never().is_none(), "once");
    // Somebody else's word, or none, says nothing of it.
    w.pins.evict(2);
    w.two.peers.high_water(w.one.id, &w.one.addr).await.unwrap_err();
    assert!(w.one.peers.called().now_or_never().is_none());
    let line = Line::new(w.two.id, &w.two.addr, w.one.peers.tls.clone());
    assert!(line.up().await.is_err());
    w.pins.know(2, &w.keys[1]);
    line.is_there();
    assert!(line.up().await.is_ok());
}

#[tokio::test]
async fn a_boot_older_than_the_recorded_one_is_refused_though_nothing_was_heard_of_it_yet() {
    let w = two().await;
    let recorded = v1::HighWaterReply {
        last_index: 70,
        vote_term: 7,
        boot: Some(v1::Boot { count: 3, id: vec![3; 16] }),
        evicted: false,
    };
    *w.one.ear.recorded.lock().unwrap() = recorded.clone();
    let process = |count, byte| speaker(&w.ca, w.ca.identity(2, &w.keys[1]), &w.pins, &boot(count, byte));
    assert_eq!(process(2, 2).high_water(w.one.id, &w.one.addr).await.unwrap_err().code, "rolled-back");
    assert_eq!(process(3, 3).high_water(w.one.id, &w.one.addr).await.unwrap(), recorded);
}

#[tokio::test]
async fn through_a_closed_gate_passes_the_question_for_the_high_water_alone() {
    let w = two().await;
    let closed = speaker(&w.ca, w.ca.identity(2, &w.keys[1]), &w.pins, &boot(2, 2));
    closed.high_water(w.one.id, &w.one.addr).await.unwrap();
    for rpc in PeerRpc::ALL {
        assert!(closed.wire().call(w.one.id, &w.one.addr, rpc, Vec::new()).await.is_err());
    }
    let sent = SentSnapshot { vote: Vec::new(), meta: Vec::new(), data: Vec::new() };
    assert!(closed.wire().snapshot(w.one.id, &w.one.addr, sent).await.is_err());
    assert!(closed.report(w.one.id, &w.one.addr, v1::VoterReport::default()).await.is_err());
    assert!(w.one.ear.heard.lock().unwrap().is_empty() && w.one.ear.reports.lock().unwrap().is_empty());
    closed.open_gate();
    closed.wire().call(w.one.id, &w.one.addr, PeerRpc::Vote, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_of_many_parts_arrives_whole() {
    let w = two().await;
    for bytes in [0, 1, 1 << 20, (3 << 20) + 17] {
        let data: Vec<u8> = (0..bytes).map(|n: usize| (n % 251) as u8).collect();
        let expected = (1, bytes, sha256(&[&data]));
        let sent = SentSnapshot { vote: b"vote".to_vec(), meta: b"meta".to_vec(), data };
        let answer = w.one.peers.wire().snapshot(w.two.id, &w.two.addr, sent).await.unwrap();
        assert_eq!(answer, b"votemeta");
        assert_eq!(w.two.ear.snapshots.lock().unwrap().pop(), Some(expected));
    }
}

#[tokio::test]
async fn votes_that_others_granted_are_remembered_by_their_newest_term() {
    let w = two().await;
    for term in [3, 5, 4] {
        w.one.peers.wire().granted(w.two.id, term);
    }
    let marks = w.one.peers.granted();
    assert_eq!((marks.len(), marks[0].id, marks[0].vote_term), (1, w.two.id, 5));
}
