//! What the leader does next about the voters, from what it knows and whom it hears.

use super::*;

const fn v(n: u64) -> VoterId {
    VoterId(n)
}
fn addr(n: u64) -> String {
    format!("10.0.0.{n}:7402")
}
fn rows(ids: &[u64]) -> BTreeMap<VoterId, String> {
    ids.iter().map(|n| (v(*n), addr(*n))).collect()
}
fn raft(voters: &[u64], learners: &[u64]) -> Members {
    let set = |ids: &[u64]| ids.iter().map(|n| v(*n)).collect::<BTreeSet<_>>();
    let addrs = voters.iter().chain(learners).map(|n| (v(*n), addr(*n))).collect();
    Members { configs: vec![set(voters)], learners: set(learners), leaving: BTreeSet::new(), addrs }
}
/// A change of the voters that is half done.
fn joint(old: &[u64], new: &[u64]) -> Members {
    let both = [old, new].map(|ids| raft(ids, &[]));
    let addrs = both.iter().flat_map(|m| m.addrs.clone()).collect();
    let configs = both.iter().flat_map(|m| m.configs.clone()).collect();
    Members { configs, learners: BTreeSet::new(), leaving: BTreeSet::new(), addrs }
}
fn ids(of: &[u64]) -> BTreeSet<VoterId> {
    of.iter().map(|n| v(*n)).collect()
}
/// What voter 1 does next, which hears those in `lively` alone.
fn step(known: &[u64], raft: &Members, marks: &[(u64, u64)], lively: &[u64]) -> Option<Step> {
    step_of(&rows(known), raft, marks, lively)
}
fn step_of(known: &BTreeMap<VoterId, String>, raft: &Members, marks: &[(u64, u64)], lively: &[u64]) -> Option<Step> {
    let last_log = marks.iter().map(|m| m.1).max().unwrap_or(0);
    next(v(1), known, raft, &Seen { matched: &at(marks), last_log, lively: &ids(lively) })
}
fn at(marks: &[(u64, u64)]) -> BTreeMap<VoterId, u64> {
    marks.iter().map(|(n, index)| (v(*n), *index)).collect()
}
fn voters(ids: &[u64]) -> Option<Step> {
    Some(Step::Vote(ids.iter().map(|n| v(*n)).collect()))
}

#[test]
fn a_new_voter_learns_first_and_votes_once_it_has_caught_up() {
    let step = |raft: &Members, mark: u64| step(&[1, 2], raft, &[(1, 500), (2, mark)], &[1, 2]);
    assert_eq!(step(&raft(&[1], &[]), 0), Some(Step::Add(v(2), addr(2))));
    assert_eq!(step(&raft(&[1], &[2]), 500 - CAUGHT_UP - 1), None, "it lags");
    assert_eq!(step(&raft(&[1], &[2]), 500 - CAUGHT_UP), voters(&[1, 2]));
    assert_eq!(step(&raft(&[1, 2], &[]), 0), None, "a voter that lags stays one");
}

#[test]
fn who_has_caught_up_and_does_not_answer_does_not_vote_yet() {
    let marks = [(1, 9), (2, 9), (3, 9), (4, 9)];
    assert_eq!(step(&[1, 2], &raft(&[1], &[2]), &marks, &[1]), None, "the only voter would wait for it");
    assert_eq!(step(&[1, 2], &raft(&[1], &[2]), &marks, &[1, 2]), voters(&[1, 2]));
    // Nor does one that answers, where the others do not.
    assert_eq!(step(&[1, 2, 3, 4], &raft(&[1, 2, 3], &[4]), &marks, &[1, 4]), None);
    assert_eq!(step(&[1, 2, 3], &raft(&[1, 2], &[3]), &marks, &[1, 2, 3]), voters(&[1, 2, 3]));
}

#[test]
fn no_change_of_the_voters_begins_that_those_who_answer_cannot_finish() {
    let (three, marks) = (raft(&[1, 2, 3], &[]), [(1, 9), (2, 9), (3, 9)]);
    assert_eq!(step(&[1, 2], &three, &marks, &[1, 3]), None, "1 and 2 would have to agree, and 2 is not there");
    assert_eq!(step(&[1, 2], &three, &marks, &[1, 2]), voters(&[1, 2]));
    assert_eq!(step(&[1, 2], &three, &marks, &[1]), None);
    assert_eq!(step(&[1], &raft(&[1, 2], &[]), &marks, &[1]), None, "2 has to agree that it goes");
    assert_eq!(step(&[1], &raft(&[1, 2], &[]), &marks, &[1, 2]), voters(&[1]));
}

#[test]
fn a_change_of_the_voters_that_is_half_done_is_finished() {
    let marks = [(1, 9), (2, 9), (3, 9)];
    assert_eq!(step(&[1, 2], &joint(&[1], &[1, 2]), &marks, &[1]), voters(&[1, 2]));
    assert_eq!(step(&[1], &joint(&[1, 2], &[1]), &marks, &[1]), voters(&[1]));
    // Evicted meanwhile: the way on is another one.
    assert_eq!(step(&[1], &joint(&[1], &[1, 2]), &marks, &[1, 2]), voters(&[1]));
}

#[test]
fn an_eviction_that_would_leave_no_quorum_names_who_would_have_to_answer() {
    let three = raft(&[1, 2, 3], &[]);
    assert_eq!(missing_without(v(3), &three, &ids(&[1, 3])), ids(&[2]));
    assert_eq!(missing_without(v(2), &three, &ids(&[1, 3])), ids(&[]), "the one that is gone can go");
    assert_eq!(missing_without(v(1), &three, &ids(&[1, 2, 3])), ids(&[]));
    assert_eq!(missing_without(v(2), &raft(&[1, 2], &[]), &ids(&[1, 2])), ids(&[]));
    assert_eq!(missing_without(v(4), &raft(&[1, 2, 3], &[4]), &ids(&[1])), ids(&[]), "it decides nothing");
    let five = raft(&[1, 2, 3, 4, 5], &[]);
    assert_eq!(missing_without(v(3), &five, &ids(&[1, 2, 3])), ids(&[4, 5]));
    assert_eq!(missing_without(v(4), &five, &ids(&[1, 2, 3])), ids(&[]));
}

#[test]
fn who_has_not_said_where_it_is_waits() {
    let mut known = rows(&[1, 2]);
    known.insert(v(2), String::new());
    assert_eq!(step_of(&known, &raft(&[1], &[]), &[], &[1]), None);
}

#[test]
fn an_evicted_voter_goes_whether_it_votes_or_learns() {
    let marks = [(1, 9), (2, 9), (3, 9)];
    assert_eq!(step(&[1, 2], &raft(&[1, 2, 3], &[]), &marks, &[1, 2, 3]), voters(&[1, 2]));
    assert_eq!(step(&[1, 2], &raft(&[1, 2], &[3]), &marks, &[1, 2]), Some(Step::Drop(v(3))));
}

#[test]
fn an_evicted_leader_hands_over_to_whoever_is_there_and_furthest() {
    let (three, marks) = (raft(&[1, 2, 3], &[]), [(1, 9), (2, 7), (3, 8)]);
    assert_eq!(step(&[2, 3], &three, &marks, &[1, 2, 3]), Some(Step::HandOver(v(3))));
    assert_eq!(step(&[2, 3], &three, &marks, &[1, 2]), Some(Step::HandOver(v(2))), "3 is not there");
    assert_eq!(step(&[], &raft(&[1], &[]), &marks, &[1]), None, "nobody would be left");
}

#[test]
fn a_voter_that_moved_is_reached_at_its_new_address() {
    let mut known = rows(&[1, 2]);
    known.insert(v(2), "new:1".to_owned());
    let two = raft(&[1, 2], &[]);
    assert_eq!(step_of(&known, &two, &[], &[1]), Some(Step::Move(v(2), "new:1".to_owned())));
    assert_eq!(step(&[1, 2], &two, &[], &[1]), None);
}

#[test]
fn what_each_was_seen_to_do_is_put_together() {
    let own = VoterMark { id: v(1), index: 10, vote_term: 4 };
    let granted = [VoterMark { id: v(2), index: 0, vote_term: 4 }];
    let all = marks(own, &at(&[(1, 9), (2, 8), (3, 7)]), &granted);
    let as_told = all.iter().map(|m| (m.id.0, m.index, m.vote_term)).collect::<Vec<_>>();
    assert_eq!(as_told, [(1, 10, 4), (2, 8, 4), (3, 7, 0)]);
}

#[test]
fn progress_is_written_down_every_five_seconds_or_in_leaps() {
    let (following, t) = (Following::default(), Instant::now());
    assert_eq!(following.least(t), MARKS_LEAST);
    assert_eq!(following.least(t + Duration::from_secs(4)), MARKS_AT);
    assert_eq!(following.least(t + Duration::from_secs(5)), MARKS_LEAST);
}

#[test]
fn a_voter_is_missed_after_a_minute_also_one_that_was_never_heard() {
    let (s, all) = (Duration::from_secs, BTreeSet::from([v(1), v(2), v(3)]));
    let heard = |secs| BTreeMap::from([(v(2), s(secs))]);
    assert_eq!(missed(v(1), &all, &heard(61), s(10)), [v(2)]);
    assert_eq!(missed(v(1), &all, &heard(60), s(61)), [v(3)]);
    assert!(missed(v(1), &all, &heard(0), s(60)).is_empty());
    let (following, t) = (Following::default(), Instant::now());
    following.leads(4, t);
    following.leads(4, t + s(5));
    assert_eq!(following.leads_for(4, t + s(9)), s(9));
    assert_eq!(following.leads_for(5, t + s(9)), Duration::ZERO, "another lead");
}

#[test]
fn a_voter_follows_is_silent_or_still_learns() {
    let s = Duration::from_secs;
    assert_eq!(state(true, Some(s(1))), "ready");
    assert_eq!(state(true, Some(s(4))), "unreachable");
    assert_eq!(state(true, None), "unreachable");
    assert_eq!(state(false, Some(s(0))), "joining");
}

#[test]
fn a_change_that_does_not_succeed_is_not_tried_at_each_look() {
    let (following, t, s) = (Following::default(), Instant::now(), Duration::from_secs);
    let (drop, vote) = (Step::Drop(v(2)), Step::Vote(ids(&[1, 2])));
    assert!(following.may_try(&vote, t));
    assert!(!following.may_try(&vote, t + s(1)));
    assert!(following.may_try(&drop, t + s(1)), "another one is");
    assert!(!following.may_try(&drop, t + s(2)));
    assert!(following.may_try(&drop, t + s(3)));
    following.done();
    assert!(following.may_try(&drop, t + s(3)));
}
