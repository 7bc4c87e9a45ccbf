//! Random histories of admissions, evictions, reports and marks, held against the laws of voters after each step.

use crate::world::{Machine, World, boot};
use holdfast_types::{Digest, VoterId};
use holdfast_vault_core::{Command, State, VoterMark, VoterRow, VoterState, prepare};
use holdfast_wire::v1;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One operation: which, on whom, and a number for it.
type Op = (u8, u8, u8);

struct Player {
    w: World,
    /// Who joined and was perhaps admitted.
    waiting: Vec<Machine>,
    /// An admission that was prepared and not applied yet.
    late: Option<holdfast_vault_core::Prepared<()>>,
}

/// Its key, where it stands, its log, its newest vote and its newest boot.
type Facts = (Option<Digest>, VoterState, u64, u64, u64);
/// What no step may take back, by voter.
type Known = BTreeMap<VoterId, Facts>;

fn known(s: &State) -> Known {
    let of = |v: &VoterRow| (v.spki, v.state, v.progress, v.vote_term, v.boot.0);
    s.all_voters().map(|(id, v)| (id, of(v))).collect()
}

/// The laws that one step kept, or the name of the one it broke.
fn broken(before: &Known, s: &State) -> Option<&'static str> {
    let now = known(s);
    let news: Vec<_> = now.keys().filter(|id| !before.contains_key(id)).collect();
    if news.iter().any(|id| before.keys().any(|old| old >= *id)) || now.keys().any(|id| *id > s.last_voter()) {
        return Some("a number is higher than all before it");
    }
    for (id, (key, state, progress, vote, boots)) in before {
        let Some((k, st, p, v, b)) = now.get(id) else { return Some("a row stays") };
        if k != key {
            return Some("a number has one key");
        }
        if *state == VoterState::Evicted && *st != VoterState::Evicted {
            return Some("an evicted voter stays evicted");
        }
        if p < progress || v < vote || b < boots {
            return Some("what a voter reached is not taken back");
        }
        if *state == VoterState::Evicted && (p, v, b) != (progress, vote, boots) {
            return Some("an evicted voter is believed nothing");
        }
    }
    let mut keys: Vec<_> = s.all_voters().filter_map(|(_, v)| v.spki).collect();
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    if keys.len() < all {
        return Some("a key has one number");
    }
    if !s.voters().any(|(_, v)| v.has_been_up()) {
        return Some("somebody is left to decide");
    }
    let boxes = |v: &VoterRow| v.terms.iter().map(|(t, _)| *t).collect::<Vec<_>>();
    let wrong = |v: &VoterRow| match v.state {
        VoterState::Member => boxes(v) != [s.active_term()],
        VoterState::Evicted => !boxes(v).is_empty(),
    };
    s.all_voters().any(|(_, v)| wrong(v)).then_some("members hold each live term, and the evicted none")
}

impl Player {
    fn some_voter(&self, pick: u8) -> u64 {
        // Now and then a number that nobody has.
        1 + u64::from(pick) % (self.w.state.last_voter().0 + 1)
    }
    fn play(&mut self, (kind, pick, n): Op) {
        self.w.pass(i64::from(n));
        let id = self.some_voter(pick);
        let i = usize::from(pick) % self.waiting.len().max(1);
        match kind % 10 {
            0 | 1 => {
                let m = self.w.applicant();
                self.waiting.push(m);
            }
            2 | 3 => {
                let Some(m) = self.waiting.get(i) else { return };
                drop(self.w.admit(m));
            }
            4 => {
                let Some(m) = self.waiting.get(i) else { return };
                let st = self.w.admission(m);
                self.late = prepare::submit(&self.w.leader(), &st, &[], &mut self.w.entropy()).ok();
            }
            5 => {
                if let Some(p) = self.late.take() {
                    drop(self.w.commit(Ok(p)));
                }
            }
            6 => {
                let Some(m) = self.waiting.get(i) else { return };
                drop(self.w.collect_voter(m));
            }
            7 => drop(self.w.evict(id, n.is_multiple_of(2))),
            8 => {
                let Some(row) = self.w.state.voter(VoterId(id)) else { return };
                let count = (row.boot.0 + u64::from(n % 3)).saturating_sub(1);
                let said = v1::VoterReport { boot: boot(count, 1 + n % 2), ..self.w.voter_report(id, 1) };
                drop(self.w.says(id, &said, Some(u64::from(n)).filter(|_| n.is_multiple_of(3))));
            }
            _ => {
                let mark = VoterMark { id: VoterId(id), index: u64::from(n), vote_term: u64::from(n / 8) };
                drop(self.w.propose(Command::Progress(vec![mark])));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_admissions_evictions_and_reports_keeps_the_laws_of_voters(ops in proptest::collection::vec(any::<Op>(), 60)) {
        let mut p = Player { w: World::new(), waiting: Vec::new(), late: None };
        for op in ops {
            let before = known(&p.w.state);
            p.play(op);
            prop_assert_eq!(broken(&before, &p.w.state), None, "{:?}", op);
        }
        let mut s = State::default();
        for c in &p.w.log {
            drop(s.apply(c.clone()));
        }
        prop_assert!(s.encode() == p.w.state.encode(), "replayed, the log leads elsewhere");
    }
}

/// Each law can be broken: a row that was changed by hand is noticed.
#[test]
fn the_laws_of_voters_notice_what_breaks_them() {
    let mut w = World::new();
    let (second, _) = w.voter();
    let good = known(&w.state);
    assert_eq!(broken(&good, &w.state), None);
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut before = good.clone();
        change(before.get_mut(&VoterId(second)).unwrap());
        broken(&before, &w.state)
    };
    assert_eq!(with(&|v| v.0 = None), Some("a number has one key"));
    assert_eq!(with(&|v| v.1 = VoterState::Evicted), Some("an evicted voter stays evicted"));
    let taken_back = Some("what a voter reached is not taken back");
    assert_eq!([with(&|v| v.2 = 9), with(&|v| v.3 = 9), with(&|v| v.4 = 9)], [taken_back; 3]);
    let mut gone = good.clone();
    gone.insert(VoterId(7), good[&VoterId(1)]);
    assert_eq!(broken(&gone, &w.state), Some("a row stays"));
    let reused = BTreeMap::from([(VoterId(7), good[&VoterId(1)])]);
    assert_eq!(broken(&reused, &w.state), Some("a number is higher than all before it"));
}
