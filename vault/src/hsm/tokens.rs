//! What the leader knows of the voters' tokens, and to whom it hands over when the key of a root is in a token that it does
//! not reach itself.
//!
//! LAW: a leader whose own token answers never hands over for it, and none does so twice within a minute
//! (`a_leader_without_its_token_hands_over_to_those_that_have_theirs`,
//! `nobody_hands_over_for_its_token_twice_within_a_minute`).

use super::OK;
use crate::cluster::Cluster;
use holdfast_types::{Millis, VoterId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a voter said counts for so long; it reports more often.
const FRESH: Duration = Duration::from_secs(35);
/// Between two times that a leader hands over for its token.
const HAND_OVER: Duration = Duration::from_secs(60);

/// What the voters say of their tokens, as far as this one has heard.
#[derive(Default)]
pub struct Tokens {
    said: Mutex<BTreeMap<VoterId, (String, Instant)>>,
    handed_over: Mutex<Option<Instant>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tokens {
    /// Voter `id` said `word` of its token; nothing: it has none.
    pub fn said(&self, id: VoterId, word: &str, now: Instant) {
        let mut said = lock(&self.said);
        if word.is_empty() {
            said.remove(&id);
        } else {
            said.insert(id, (super::shown(word), now));
        }
    }

    fn fresh(&self, voters: &BTreeSet<VoterId>, now: Instant) -> BTreeMap<VoterId, String> {
        let said = lock(&self.said);
        let counts = |(id, (_, at)): &(&VoterId, &(String, Instant))| {
            voters.contains(*id) && now.saturating_duration_since(*at) < FRESH
        };
        said.iter().filter(counts).map(|(id, (word, _))| (*id, word.clone())).collect()
    }

    /// To whom leader `me` hands over, since its own token says `own` and a root's key is in one; at most once a minute.
    pub fn heirs(&self, me: VoterId, own: &str, voters: &BTreeSet<VoterId>, now: Instant) -> BTreeSet<VoterId> {
        if own == OK {
            return BTreeSet::new();
        }
        let good = self.fresh(voters, now).into_iter().filter(|(id, word)| *id != me && word == OK);
        let heirs: BTreeSet<VoterId> = good.map(|(id, _)| id).collect();
        let mut last = lock(&self.handed_over);
        if heirs.is_empty() || last.is_some_and(|at| now.saturating_duration_since(at) < HAND_OVER) {
            return BTreeSet::new();
        }
        *last = Some(now);
        heirs
    }

    /// `voter 1: ok`, one for each voter that has a token, this one with its `own` word.
    pub fn words(&self, me: VoterId, own: &str, voters: &BTreeSet<VoterId>, now: Instant) -> Vec<String> {
        let mut all = self.fresh(voters, now);
        all.remove(&me);
        if !own.is_empty() {
            all.insert(me, own.to_owned());
        }
        all.into_iter().map(|(id, word)| format!("voter {id}: {word}")).collect()
    }
}

impl Cluster {
    /// What this voter says of its token; nothing if it has none.
    pub fn token_word(&self) -> String {
        self.standing.token.as_ref().map(|t| t.word()).unwrap_or_default()
    }

    /// What the voters say of their tokens, as far as this one has heard.
    pub fn token_words(&self) -> Vec<String> {
        self.tokens.words(self.id, &self.token_word(), &self.voter.members().voters(), Instant::now())
    }

    /// What is to be warned of: tokens that do not answer, and an issuer that nothing follows.
    pub fn token_alarms(&self, now: Millis) -> Vec<(&'static str, String)> {
        let away = away(&self.token_words()).map(|text| ("token", text));
        let issuer = self.look(|s| s.issuer().and_then(|i| ends(i.since, i.not_after, now))).ok().flatten();
        away.into_iter().chain(issuer.map(|text| ("issuer-ends", text))).collect()
    }
}

fn away(words: &[String]) -> Option<String> {
    let away: Vec<&str> = words.iter().map(String::as_str).filter(|w| !w.ends_with(": ok")).collect();
    let after =
        "keys in the token cannot be used there; certificates are given on by the issuer in use, until that ends";
    (!away.is_empty()).then(|| format!("{}: {after}", away.join("; ")))
}

/// An issuer is replaced when a third of its life is over: one that is half way was not.
fn ends(since: Millis, not_after: Millis, now: Millis) -> Option<String> {
    (now >= since.plus(not_after.since(since) / 2)).then(|| {
        format!("no issuer follows the one in use, which ends {not_after}: after that no certificate is given; see whether the root's key can be used")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: VoterId = VoterId(1);

    fn ids(numbers: &[u64]) -> BTreeSet<VoterId> {
        numbers.iter().map(|n| VoterId(*n)).collect()
    }

    fn told(words: &[(u64, &str)], at: Instant) -> Tokens {
        let tokens = Tokens::default();
        words.iter().for_each(|(id, word)| tokens.said(VoterId(*id), word, at));
        tokens
    }

    #[test]
    fn a_leader_without_its_token_hands_over_to_those_that_have_theirs() {
        let t = Instant::now();
        let said = [(2, "the token did not answer in 5 s"), (3, OK), (4, OK)];
        assert_eq!(told(&said, t).heirs(ME, "gone", &ids(&[1, 2, 3]), t), ids(&[3]), "4 is no voter");
        assert_eq!(told(&said, t).heirs(ME, "", &ids(&[1, 2, 3]), t), ids(&[3]), "none of its own");
        assert!(told(&said, t).heirs(ME, OK, &ids(&[1, 2, 3]), t).is_empty());
        assert!(told(&said, t).heirs(ME, "gone", &ids(&[1, 2, 3]), t + FRESH).is_empty(), "said long ago");
        assert!(told(&said[..1], t).heirs(ME, "gone", &ids(&[1, 2, 3]), t).is_empty(), "nobody has one");
    }

    #[test]
    fn nobody_hands_over_for_its_token_twice_within_a_minute() {
        let t = Instant::now();
        let tokens = told(&[(2, OK)], t);
        assert_eq!(tokens.heirs(ME, "gone", &ids(&[1, 2]), t), ids(&[2]));
        let later = t + HAND_OVER - Duration::from_millis(1);
        tokens.said(VoterId(2), OK, later);
        assert!(tokens.heirs(ME, "gone", &ids(&[1, 2]), later).is_empty());
        assert_eq!(tokens.heirs(ME, "gone", &ids(&[1, 2]), t + HAND_OVER), ids(&[2]));
    }

    #[test]
    fn tokens_that_do_not_answer_and_issuers_that_nothing_follows_are_warned_of() {
        let words = ["voter 1: ok".to_owned(), "voter 2: the token did not answer in 5 s".to_owned()];
        assert_eq!(away(&words[..1]), None);
        let text = away(&words).unwrap();
        assert!(text.starts_with("voter 2: the token did not answer in 5 s: ") && !text.contains("voter 1"), "{text}");
        let (since, end) = (Millis(1_000), Millis(3_000));
        assert_eq!(ends(since, end, Millis(1_999)), None);
        assert!(ends(since, end, Millis(2_000)).unwrap().contains("which ends 1970-01-01T00:00:03"));
    }

    #[test]
    fn every_voter_with_a_token_is_shown_with_its_word() {
        let t = Instant::now();
        let tokens = told(&[(2, "pulled out"), (3, OK)], t);
        tokens.said(VoterId(3), "", t);
        assert_eq!(tokens.words(ME, OK, &ids(&[1, 2, 3]), t), ["voter 1: ok", "voter 2: pulled out"]);
        assert!(tokens.words(ME, "", &ids(&[1, 2]), t + FRESH).is_empty());
    }
}
