//! Answers to requests for grants, kept for a moment: who asks the same again, since the answer was lost, is answered the same.
//!
//! In the memory of the leader that made them: a box is made once, and stored nowhere. Must never: answer another caller or
//! another request; the key is made of both.

use holdfast_vault_core::prepare::RequestKey;
use holdfast_wire::v1::{RequestGrantsReply, grant_result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer is kept: longer than an orchestrator waits for one.
const KEPT: Duration = Duration::from_secs(60);
/// Most bytes of answers that are kept.
const MOST: usize = 4 << 20;

/// What an answer takes beside its boxes, for each grant.
const GRANT: usize = 4 << 10;

/// The answers.
#[derive(Default)]
pub struct Answered(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_key: HashMap<RequestKey, RequestGrantsReply>,
    oldest_first: VecDeque<(Instant, RequestKey)>,
    bytes: usize,
}

impl Kept {
    /// Forgets what is old, and what is oldest until there is `room`.
    fn forget(&mut self, now: Instant, room: usize) {
        while let Some((at, key)) = self.oldest_first.front().copied() {
            if now.duration_since(at) < KEPT && self.bytes.saturating_add(room) <= MOST {
                return;
            }
            self.oldest_first.pop_front();
            let gone = self.by_key.remove(&key).map_or(0, |answer| bytes_of(&answer));
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}

impl Answered {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Keeps the answer to a request, which is carried out once.
    pub fn keep(&self, key: RequestKey, answer: &RequestGrantsReply, now: Instant) {
        let bytes = bytes_of(answer);
        if bytes > MOST {
            return;
        }
        let mut kept = self.lock();
        kept.forget(now, bytes);
        kept.bytes = kept.bytes.saturating_add(bytes);
        kept.oldest_first.push_back((now, key));
        kept.by_key.insert(key, answer.clone());
    }
    /// The answer that this request was given, if it is kept still.
    pub fn again(&self, key: &RequestKey, now: Instant) -> Option<RequestGrantsReply> {
        let mut kept = self.lock();
        kept.forget(now, 0);
        kept.by_key.get(key).cloned()
    }
}

/// What an answer takes in memory, roughly.
fn bytes_of(answer: &RequestGrantsReply) -> usize {
    let of = |r: &grant_result::Result| match r {
        grant_result::Result::Issued(issued) => issued.boxes.iter().map(Vec::len).sum::<usize>(),
        grant_result::Result::Denied(_) => 0,
    };
    answer.results.iter().map(|r| GRANT.saturating_add(r.result.as_ref().map_or(0, of))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::Digest;
    use holdfast_wire::v1::{GrantIssued, GrantResult};

    /// An answer with one box of so many bytes.
    fn answer(bytes: usize) -> RequestGrantsReply {
        let issued = GrantIssued { boxes: vec![vec![7; bytes]], ..GrantIssued::default() };
        RequestGrantsReply { results: vec![GrantResult { result: Some(grant_result::Result::Issued(issued)) }] }
    }

    fn key(id: u8, body: u8) -> RequestKey {
        ([id; 16], Digest([body; 32]))
    }

    #[test]
    fn an_answer_is_given_again_to_the_same_request_for_a_minute_and_to_no_other() {
        let (a, t) = (Answered::default(), Instant::now());
        a.keep(key(1, 1), &answer(9), t);
        assert_eq!(a.again(&key(1, 1), t + KEPT / 2), Some(answer(9)));
        assert_eq!((a.again(&key(1, 2), t), a.again(&key(2, 1), t)), (None, None));
        assert_eq!(a.again(&key(1, 1), t + KEPT), None);
    }

    #[test]
    fn the_oldest_answers_make_room_for_new_ones() {
        let (a, t) = (Answered::default(), Instant::now());
        for n in 0..20 {
            a.keep(key(n, 0), &answer(MOST / 4 - GRANT), t);
        }
        let kept: Vec<u8> = (0..20).filter(|n| a.again(&key(*n, 0), t).is_some()).collect();
        assert_eq!(kept, [16, 17, 18, 19]);
        a.keep(key(99, 0), &answer(MOST), t);
        assert_eq!(a.again(&key(99, 0), t), None);
        assert!(a.again(&key(19, 0), t).is_some(), "what is too long drives nothing out");
    }
}
