//! The voters' clocks beside the leader's: who is more than 5 s off raises an alarm and does not lead (protocol, transport
//! and process rules).
//!
//! A follower measures how far off it is when it reports. Only the leader judges, and only by a majority: if most clocks are
//! as its own, whoever differs does not stand for election; if most differ from its own and agree among each other, it hands
//! over. Who hears no leader for a while stands again, whatever its clock says.
//!
//! LAW: those who may stand are always a majority (`whoever_is_off_a_majority_goes_on_standing`).

use crate::cluster::Cluster;
use crate::raft::Voter;
use crate::registry::Registry;
use holdfast_types::{Millis, VoterId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Clocks further apart than this are not one time.
const APART_MS: u64 = 5_000;
/// An answer that took longer says too little of the time.
const SLOW: Duration = Duration::from_secs(2);
/// How often a follower asks for the leader's time, if it has nothing else to say.
pub const EVERY: Duration = Duration::from_secs(10);
/// What a follower measured counts for so long.
const FRESH: Duration = Duration::from_secs(35);
/// A voter that does not stand stands again after so long without a leader's word.
const ALONE: Duration = Duration::from_secs(30);
/// Between two times that a leader hands over for its clock.
const HAND_OVER: Duration = Duration::from_secs(60);

/// What this voter knows of its own clock.
#[derive(Default)]
struct Own {
    /// This clock, less that of the voter that led, in milliseconds.
    off: Option<(VoterId, i64)>,
    /// The leader said, then, that this voter does not stand.
    told: Option<Instant>,
}

impl Own {
    /// Takes what was measured of `leader`, if it could be.
    fn measure(&mut self, leader: VoterId, off: Option<i64>) {
        self.off = off.map(|off| (leader, off)).or_else(|| self.off.filter(|(of, _)| *of == leader));
    }
}

/// What is known of the clocks here.
#[derive(Default)]
pub struct Clocks {
    own: Mutex<Own>,
    /// On the leader: how far off each follower said that it is.
    others: Mutex<BTreeMap<VoterId, (i64, Instant)>>,
    handed_over: Mutex<Option<Instant>>,
}

/// What the clocks say together.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// These are off the leader's, which most others share.
    Off(BTreeSet<VoterId>),
    /// Most others share a time that is not the leader's.
    Leader(BTreeSet<VoterId>),
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far `wall`, when the question went out, was ahead of `theirs`, which came back after `took`.
fn measured(wall: Millis, took: Duration, theirs: Millis) -> Option<i64> {
    (took <= SLOW && theirs.0 > 0).then(|| wall.plus(took / 2).0.saturating_sub(theirs.0))
}

/// `others`: how far each is ahead of the clock of `me`, who leads.
fn judge(me: VoterId, voters: &BTreeSet<VoterId>, others: &BTreeMap<VoterId, i64>) -> Verdict {
    let quorum = voters.len() / 2 + 1;
    let votes = |id: VoterId| id != me && voters.contains(&id);
    let heard: Vec<(VoterId, i64)> = others.iter().map(|(id, off)| (*id, *off)).filter(|(id, _)| votes(*id)).collect();
    let is_off = |(_, off): &(VoterId, i64)| off.unsigned_abs() > APART_MS;
    let differ: BTreeMap<VoterId, i64> = heard.iter().copied().filter(is_off).collect();
    let agree = 1 + heard.len() - differ.len();
    let (least, most) = (differ.values().min(), differ.values().max());
    let is_one_time = least.zip(most).is_some_and(|(a, b)| a.abs_diff(*b) <= APART_MS);
    let differ: BTreeSet<VoterId> = differ.into_keys().collect();
    if agree >= quorum {
        Verdict::Off(differ)
    } else if differ.len() >= quorum && is_one_time {
        Verdict::Leader(differ)
    } else {
        Verdict::Off(BTreeSet::new())
    }
}

impl Clocks {
    /// This clock, less that of `leader`, as it was measured last; what was measured of another leader says nothing of this one.
    pub fn own(&self, leader: VoterId) -> Option<i64> {
        lock(&self.own).off.filter(|(of, _)| *of == leader).map(|(_, off)| off)
    }

    /// Takes the answer of `leader` to a report that went out at `wall` and took so long: its time, and whether it says that
    /// this voter does not stand.
    pub fn answered(
        &self,
        voter: &Voter<Registry>,
        leader: VoterId,
        (wall, took): (Millis, Duration),
        (at, off): (Millis, bool),
    ) {
        let mut own = lock(&self.own);
        own.measure(leader, measured(wall, took, at));
        if off && own.told.is_none() {
            let ms = own.off.map_or(0, |(_, ms)| ms);
            tracing::warn!(ms, "this machine's clock is off the leader's: this voter does not stand for election");
        }
        own.told = off.then(Instant::now);
        voter.stand(!off);
    }

    /// This voter leads, or has heard no leader for long: it stands.
    pub fn look(&self, voter: &Voter<Registry>, leads: bool, now: Instant) {
        let mut own = lock(&self.own);
        if leads {
            own.off = None;
        }
        if own.told.is_some_and(|at| leads || now.saturating_duration_since(at) >= ALONE) {
            own.told = None;
            voter.stand(true);
        }
    }

    /// What voter `id` said of its clock, on the leader; a new process of it has not measured yet.
    pub fn said(&self, id: VoterId, off: Option<i64>, now: Instant) {
        let mut others = lock(&self.others);
        others.remove(&id);
        if let Some(off) = off {
            others.insert(id, (off, now));
        }
    }

    fn verdict(&self, me: VoterId, voters: &BTreeSet<VoterId>, now: Instant) -> Verdict {
        let others = lock(&self.others);
        let fresh = others.iter().filter(|(_, (_, at))| now.saturating_duration_since(*at) < FRESH);
        judge(me, voters, &fresh.map(|(id, (off, _))| (*id, *off)).collect())
    }

    /// Whether voter `id` does not stand, as its leader `me` judges.
    pub fn is_off(&self, me: VoterId, id: VoterId, voters: &BTreeSet<VoterId>, now: Instant) -> bool {
        matches!(self.verdict(me, voters, now), Verdict::Off(off) if off.contains(&id))
    }

    /// To whom leader `me` hands over because most others share another time than its own; at most once a minute.
    pub fn heirs(&self, me: VoterId, voters: &BTreeSet<VoterId>, now: Instant) -> BTreeSet<VoterId> {
        let Verdict::Leader(heirs) = self.verdict(me, voters, now) else { return BTreeSet::new() };
        let mut last = lock(&self.handed_over);
        if last.is_some_and(|at| now.saturating_duration_since(at) < HAND_OVER) {
            return BTreeSet::new();
        }
        *last = Some(now);
        heirs
    }

    /// The alarm of leader `me`.
    pub fn alarm(&self, me: VoterId, voters: &BTreeSet<VoterId>, now: Instant) -> Option<String> {
        let others = lock(&self.others).clone();
        let one = |id: &VoterId| match others.get(id) {
            Some((off, _)) => format!("{id} by {} s", off.unsigned_abs() / 1000),
            None => id.to_string(),
        };
        let named = |ids: &BTreeSet<VoterId>| ids.iter().map(&one).collect::<Vec<_>>().join(", ");
        match self.verdict(me, voters, now) {
            Verdict::Off(off) if off.is_empty() => None,
            Verdict::Off(off) => Some(format!(
                "clocks of voters are off the leader's: {}; they do not lead; set them right",
                named(&off)
            )),
            Verdict::Leader(_) => {
                Some(format!("the clock of the leader, voter {me}, is off those of most others; set it right"))
            }
        }
    }

    /// What this voter, which follows, says of its own clock over its socket.
    pub fn complaint(&self) -> Option<String> {
        let own = lock(&self.own);
        let (_, off) = own.off.filter(|_| own.told.is_some())?;
        Some(format!(
            "its clock is {} s off the leader's: it does not lead; set the clock right",
            off.unsigned_abs() / 1000
        ))
    }
}

impl Cluster {
    /// Whether this voter, which leads, says of voter `id` that it does not stand.
    pub fn clock_is_off(&self, id: VoterId, said: Option<i64>) -> bool {
        let now = Instant::now();
        self.clocks.said(id, said, now);
        self.clocks.is_off(self.id, id, &self.voter.members().voters(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> BTreeSet<VoterId> {
        numbers.iter().map(|n| VoterId(*n)).collect()
    }
    /// What voter 1, which leads, judges of `said` seconds.
    fn judged(voters: &[u64], said: &[(u64, i64)]) -> Verdict {
        let others = said.iter().map(|(id, s)| (VoterId(*id), s * 1000)).collect();
        judge(VoterId(1), &ids(voters), &others)
    }
    fn off(numbers: &[u64]) -> Verdict {
        Verdict::Off(ids(numbers))
    }

    #[test]
    fn whoever_is_off_a_majority_goes_on_standing() {
        assert_eq!(judged(&[1, 2, 3], &[(2, 5), (3, -5)]), off(&[]), "5 s are one time still");
        assert_eq!(judged(&[1, 2, 3], &[(2, 0), (3, 60)]), off(&[3]));
        assert_eq!(judged(&[1, 2, 3], &[(3, 60)]), off(&[]), "one that has not been heard agrees with nobody");
        assert_eq!(judged(&[1, 2], &[(2, 60)]), off(&[]), "of two nobody is right");
        assert_eq!(judged(&[1], &[]), off(&[]));
        for clocks in 0..5_i64.pow(4) {
            let said: Vec<(u64, i64)> =
                (0..4_u32).map(|n| (u64::from(n) + 2, clocks / 5_i64.pow(n) % 5 * 4 - 8)).collect();
            if let Verdict::Off(off) = judged(&[1, 2, 3, 4, 5], &said) {
                assert!(5 - off.len() >= 3, "{said:?}: {off:?}");
            }
        }
    }

    #[test]
    fn a_leader_hands_over_only_to_a_majority_that_shares_another_time() {
        assert_eq!(judged(&[1, 2, 3], &[(2, 60), (3, 62)]), Verdict::Leader(ids(&[2, 3])));
        assert_eq!(judged(&[1, 2, 3], &[(2, 60), (3, -60)]), off(&[]), "three times, and nobody is right");
        assert_eq!(judged(&[1, 2, 3, 4, 5], &[(2, 60), (3, 60)]), off(&[]), "two of five are no majority");
        assert_eq!(judged(&[1, 2, 3], &[(2, 60), (7, 60)]), off(&[]), "who does not vote does not count");
    }

    #[test]
    fn a_leader_hands_over_once_a_minute_and_forgets_what_is_old() {
        let (clocks, t, voters) = (Clocks::default(), Instant::now(), ids(&[1, 2, 3]));
        let at = |s| t + Duration::from_secs(s);
        let said = |s| {
            for id in [2, 3] {
                clocks.said(VoterId(id), Some(60_000), at(s));
            }
        };
        said(0);
        assert_eq!(clocks.heirs(VoterId(1), &voters, at(0)), ids(&[2, 3]));
        assert!(clocks.heirs(VoterId(1), &voters, at(30)).is_empty(), "it has just tried");
        assert!(clocks.alarm(VoterId(1), &voters, at(30)).unwrap().contains("voter 1"));
        assert!(clocks.alarm(VoterId(1), &voters, at(35)).is_none(), "nobody has said it lately");
        said(70);
        assert_eq!(clocks.heirs(VoterId(1), &voters, at(70)), ids(&[2, 3]));
    }

    #[test]
    fn what_was_measured_of_one_leader_is_not_told_to_the_next() {
        let clocks = Clocks::default();
        lock(&clocks.own).measure(VoterId(1), Some(60_000));
        assert_eq!(clocks.own(VoterId(1)), Some(60_000));
        assert_eq!(clocks.own(VoterId(2)), None);
        lock(&clocks.own).measure(VoterId(1), None);
        assert_eq!(clocks.own(VoterId(1)), Some(60_000), "an answer that took too long takes nothing back");
        lock(&clocks.own).measure(VoterId(2), None);
        assert_eq!(clocks.own(VoterId(1)), None);
    }

    #[test]
    fn a_clock_is_measured_at_the_middle_of_the_round_trip() {
        let wall = Millis(100_000);
        assert_eq!(measured(wall, Duration::from_secs(1), Millis(100_500)), Some(0));
        assert_eq!(measured(wall, Duration::ZERO, Millis(93_000)), Some(7_000));
        assert_eq!(measured(wall, Duration::from_secs(3), Millis(100_000)), None, "that says too little");
        assert_eq!(measured(wall, Duration::ZERO, Millis(0)), None, "it did not say");
    }
}
