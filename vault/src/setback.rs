//! What the others say of this voter before it takes part, and once it was evicted: whether its disk was set back, whether it
//! is out.
//!
//! LAW: nothing of raft goes out before the others said that they know nothing newer of this voter
//! (`a_disk_that_others_know_to_have_been_further_is_rolled_back`).

use crate::disk::boot::Boot;
use crate::raft::Members;
use crate::standing::{ROLLED_BACK, Standing, given_up, rolled_back};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use holdfast_transport::client::Backoff;
use holdfast_transport::failure::Failure;
use holdfast_types::VoterId;
use holdfast_wire::v1;
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two rounds of questions to voters that did not answer, first and longest. One that asks this voter is asked at once.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// The same if they refuse to speak with this one.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);
/// What is said of that.
const REFUSED: &str = "the other voters refuse this voter: it was evicted, or its key is not the one that was admitted";

impl Standing {
    /// Asks the others whether they know this voter to have been further than its disk is, until enough have answered.
    ///
    /// They are asked twice. The first question changes nothing: a copy that learns here that it is one has shut nobody out. By
    /// the second they hear no earlier process of this voter any more, so what they say then stays true.
    pub async fn check_high_water(&self) -> Result<(), Failure> {
        if is_new(self.boot, self.id, &self.voter.members()) {
            return Ok(());
        }
        let mine = Mark {
            index: self.voter.status().last_log.unwrap_or(0),
            vote_term: self.voter.last_vote_term(),
            boot: self.boot,
        };
        for fence in [false, true] {
            self.ask(&mine, fence).await?;
        }
        Ok(())
    }

    /// Whose majority has to answer. A voter that is in no membership asks those whom it knows of.
    fn judges(&self) -> Result<Members, Failure> {
        let members = self.voter.members();
        if members.has(self.id) {
            return Ok(members);
        }
        Ok(Members { configs: vec![self.others()?.into_keys().collect()], ..Members::default() })
    }

    /// Asks until enough have answered. With its own word, those that answer make a majority; two, while the voters change.
    async fn ask(&self, mine: &Mark, fence: bool) -> Result<(), Failure> {
        let mut answered = BTreeSet::from([self.id]);
        let mut pauses = Backoff::new(ASK_AGAIN.0, ASK_AGAIN.1);
        loop {
            let (judges, addrs) = (self.judges()?, self.others()?);
            if judges.are_decided_by(&answered) {
                return Ok(());
            }
            let asked = judges.voters().into_iter().filter(|v| !answered.contains(v));
            let asked: Vec<_> = asked.filter_map(|v| Some((v, addrs.get(&v)?.clone()))).collect();
            let question = |(id, addr): (VoterId, String)| async move {
                let said = if fence {
                    self.peers.high_water(id, &addr).await
                } else {
                    self.peers.high_water_before(id, &addr).await
                };
                (id, said)
            };
            let mut refused = BTreeSet::new();
            let mut round: FuturesUnordered<_> = asked.into_iter().map(question).collect();
            while let Some((id, said)) = round.next().await {
                match said {
                    Ok(said) => {
                        mine.judge(id, &said)?;
                        answered.insert(id);
                    }
                    Err(f) if f.code == ROLLED_BACK => return Err(f),
                    Err(f) if was_refused(&f) && self.is_evicted() => return Err(self.why_over()),
                    Err(f) => {
                        tracing::debug!(voter = id.0, "does not say how far this voter was: {f}");
                        refused.extend(was_refused(&f).then_some(id));
                    }
                }
                // At first everybody who answers is listened to: the more know how far this voter was, the better.
                if fence && judges.are_decided_by(&answered) {
                    return Ok(());
                }
            }
            if judges.are_decided_by(&answered) {
                return Ok(());
            }
            let pause = if self.waits_for_those_who_do_not_refuse(&refused)? {
                REFUSED_AGAIN
            } else {
                let (answers, of) = (answered.len().saturating_sub(1), judges.voters().len());
                tracing::info!(answers, of, "waiting for other voters to say how far this one was");
                pauses.next_delay()
            };
            tokio::select! {
                () = self.at_work.cancelled() => return Err(given_up()),
                () = self.peers.called() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says why this voter waits: `refused` do not speak with it, or the others are not there yet.
    pub fn waits_for_those_who_do_not_refuse(&self, refused: &BTreeSet<VoterId>) -> Result<bool, Failure> {
        let none_left = refuse(refused, self.id, &self.judges()?);
        if !none_left {
            self.waits.for_others();
        } else if self.waits.because(REFUSED.to_owned()) {
            tracing::warn!("{REFUSED}");
        }
        Ok(none_left)
    }

    /// Whether those who stay say that they are done with this voter, which knows that it was evicted. Before that they may
    /// need it still: an eviction is over once the change of raft's membership is committed, and it does not get that entry.
    pub async fn is_out(&self) -> Result<bool, Failure> {
        let stay = self.voter.members().voters_to_be();
        for (id, addr) in self.others()?.into_iter().filter(|(id, _)| stay.contains(id)) {
            match self.peers.high_water_before(id, &addr).await {
                Ok(said) if said.evicted => return Ok(true),
                Err(f) if was_refused(&f) => return Ok(true),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(false)
    }
}

/// Whether this voter never took part: its disk was made by the process that opens it now. A disk that was opened before and
/// is in no membership may be a copy from its first moments.
fn is_new(boot: Boot, me: VoterId, members: &Members) -> bool {
    boot.count == 1 && !members.has(me)
}

/// Whether another voter does not speak with this one.
pub fn was_refused(f: &Failure) -> bool {
    matches!(&*f.code, "not-allowed" | "identity-refused" | "certificate-refused")
}

/// Whether so many refuse to speak with `me` that those who are left are no majority.
fn refuse(refused: &BTreeSet<VoterId>, me: VoterId, judges: &Members) -> bool {
    let left = judges.voters().into_iter().filter(|v| *v == me || !refused.contains(v)).collect();
    !refused.is_empty() && !judges.are_decided_by(&left)
}

/// How far this voter's disk is.
struct Mark {
    index: u64,
    vote_term: u64,
    boot: Boot,
}

impl Mark {
    /// Refuses to go on if voter `by` knows this one to have been further.
    fn judge(&self, by: VoterId, said: &v1::HighWaterReply) -> Result<(), Failure> {
        let boot = said.boot.clone().unwrap_or_default();
        let why = if said.evicted {
            "this voter was evicted".to_owned()
        } else if said.last_index > self.index {
            format!("its log was at entry {}, and ends here at {}", said.last_index, self.index)
        } else if said.vote_term > self.vote_term {
            format!("it voted in term {}, and knows here of {}", said.vote_term, self.vote_term)
        } else if boot.count > self.boot.count || (boot.count == self.boot.count && boot.id != self.boot.id) {
            format!("its start {} was seen, and this is its start {}", boot.count, self.boot.count)
        } else {
            return Ok(());
        };
        Err(rolled_back(&format!("voter {by} says: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Mark = Mark { index: 100, vote_term: 7, boot: Boot { count: 5, id: [1; 16] } };

    fn said(last_index: u64, vote_term: u64, count: u64, id: u8) -> v1::HighWaterReply {
        let boot = Some(v1::Boot { count, id: vec![id; 16] });
        v1::HighWaterReply { last_index, vote_term, boot, evicted: false }
    }

    #[test]
    fn a_disk_that_others_know_to_have_been_further_is_rolled_back() {
        let by = VoterId(2);
        for same_or_less in [said(100, 7, 5, 1), said(0, 0, 0, 0), said(99, 7, 4, 9), v1::HighWaterReply::default()] {
            ME.judge(by, &same_or_less).unwrap();
        }
        let evicted = v1::HighWaterReply { evicted: true, ..said(0, 0, 0, 0) };
        for ahead in [said(101, 7, 5, 1), said(100, 8, 5, 1), said(100, 7, 6, 1), said(100, 7, 5, 2), evicted] {
            let failure = ME.judge(by, &ahead).unwrap_err();
            assert!(failure.code == ROLLED_BACK && failure.message.contains("voter 2"), "{failure}");
        }
    }

    #[test]
    fn a_voter_that_the_others_refuse_is_told_so_once_no_majority_is_left_for_it() {
        let of = |ids: &[u64]| ids.iter().map(|n| VoterId(*n)).collect::<BTreeSet<_>>();
        let three = Members { configs: vec![of(&[1, 2, 3])], ..Members::default() };
        assert!(!refuse(&of(&[]), VoterId(3), &three) && !refuse(&of(&[1]), VoterId(3), &three));
        assert!(refuse(&of(&[1, 2]), VoterId(3), &three));
        let two = Members { configs: vec![of(&[1, 2])], ..Members::default() };
        assert!(refuse(&of(&[1]), VoterId(2), &two));
    }

    #[test]
    fn a_disk_that_was_opened_before_asks_even_if_no_membership_names_it() {
        let (first, later) = (Boot { count: 1, id: [1; 16] }, Boot { count: 2, id: [1; 16] });
        let (me, nobody) = (VoterId(3), Members::default());
        let member = Members { configs: vec![BTreeSet::from([me])], ..Members::default() };
        assert!(is_new(first, me, &nobody));
        assert!(!is_new(later, me, &nobody) && !is_new(first, me, &member) && !is_new(later, me, &member));
    }
}
