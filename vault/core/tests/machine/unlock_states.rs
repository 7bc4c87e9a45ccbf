//! Every state that one rotation of the unlock key can reach with three voters that crash and sleep: what the model of the
//! rotation (`kekrot.py`) enumerates, enumerated here over the machine itself.

use super::unlock::{Fault, Voter, chained, finalize, has, locked, next, opens, prepare, wanted};
use crate::world::World;
use holdfast_vault_core::{Leaf, State, WantedSlots};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// The epoch of the key in force at first, and of the one that takes over.
const OLD: u64 = 2;
const NEW: u64 = 3;

/// When the operator throws the old key away.
#[derive(Clone, Copy, PartialEq)]
enum Drops {
    /// Once a quorum of voters has no slot for it, as in the model.
    Late,
    /// At once after Finalize, as the tool says.
    Early,
}

/// What the model tells apart of a voter: the slots, orders that it carried out, whether it is up, and whether it is known to be
/// ready.
type OfVoter = (bool, bool, usize, bool, bool);
/// What the model tells apart: how far the rotation is committed, the voters, and whether the operator has the old key.
type Abstract = (u8, Vec<OfVoter>, bool);

#[derive(Clone)]
struct Node {
    state: Rc<(State, Vec<Leaf>)>,
    orders: Vec<WantedSlots>,
    voters: Vec<Voter>,
    held: BTreeSet<u64>,
}

impl Node {
    fn committed(&self) -> u8 {
        let view = self.state.0.unlock_view();
        match (view.epoch, view.pending) {
            (OLD, 0) => 0,
            (OLD, NEW) => 1,
            (NEW, 0) => 2,
            other => panic!("no state of this rotation: {other:?}"),
        }
    }

    fn is_ready(&self, v: &Voter) -> bool {
        self.committed() > 0 && self.state.0.unlock_view().ready.contains(&v.id)
    }

    fn seen(&self) -> Abstract {
        let of = |v: &Voter| {
            assert!(v.slots.iter().all(|e| [OLD, NEW].contains(e)), "{:?}", v.slots);
            (v.slots.contains(&OLD), v.slots.contains(&NEW), v.orders, v.up, self.is_ready(v))
        };
        (self.committed(), self.voters.iter().map(of).collect(), self.held.contains(&OLD))
    }

    /// After something was committed.
    fn committing(&self, w: &mut World, act: impl FnOnce(&mut World) -> bool) -> Option<Self> {
        (w.state, w.leaves) = (*self.state).clone();
        w.log.clear();
        act(w).then(|| Self { state: Rc::new((w.state.clone(), w.leaves.clone())), ..self.clone() })
    }

    /// After something was committed that orders other slots.
    fn ordering(&self, w: &mut World, act: impl FnOnce(&mut World) -> bool) -> Option<Self> {
        let mut after = self.committing(w, act)?;
        after.orders.push(wanted(w));
        Some(after)
    }

    fn with(&self, n: usize, edit: impl FnOnce(&mut Voter)) -> Self {
        let mut after = self.clone();
        edit(&mut after.voters[n]);
        after
    }

    /// Everything that can happen next.
    fn nexts(&self, w: &mut World, drops: Drops, fault: Fault) -> Vec<Self> {
        let (committed, mut all) = (self.committed(), Vec::new());
        if self.voters.iter().filter(|v| v.up).count() >= 2 {
            if committed == 0 {
                let begun = self.ordering(w, |w| match fault {
                    Fault::NoChain => prepare(w, next(NEW)).is_ok(),
                    Fault::None | Fault::NoQuorum => chained(w, OLD, NEW).is_ok(),
                });
                let mut begun = begun.expect("nothing keeps a first rotation from beginning");
                begun.held.insert(NEW);
                all.push(begun);
            }
            if committed == 1 {
                let ended = self.ordering(w, |w| {
                    if fault == Fault::NoQuorum {
                        (1..=3).for_each(|id| has(w, id, NEW));
                    }
                    finalize(w, NEW).is_ok()
                });
                let ready = self.voters.iter().filter(|v| self.is_ready(v)).count();
                assert_eq!(ended.is_some(), ready >= 2 || fault == Fault::NoQuorum, "{ready} voters are ready");
                all.extend(ended);
            }
        }
        let without = self.voters.iter().filter(|v| v.orders == 2).count();
        if committed == 2 && self.held.contains(&OLD) && (without >= 2 || drops == Drops::Early) {
            let mut after = self.clone();
            after.held.remove(&OLD);
            all.push(after);
        }
        for (n, v) in self.voters.iter().enumerate() {
            if !v.up {
                if opens(v, &self.voters, &self.held) {
                    all.push(self.with(n, |v| v.up = true));
                }
                continue;
            }
            if v.orders + 1 < self.orders.len() {
                all.push(self.with(n, |v| v.obey(&self.orders)));
            }
            if v.orders > 0 && !self.is_ready(v) {
                let newest = v.slots.last().copied().unwrap();
                let said = self.committing(w, |w| {
                    has(w, v.id, newest);
                    true
                });
                all.extend(said);
            }
            all.push(self.with(n, |v| v.up = false));
        }
        all
    }
}

/// How many states and steps there are. `Err`: one in which a voter is shut for ever.
fn explored(drops: Drops, fault: Fault) -> Result<(usize, usize), String> {
    let mut w = locked();
    w.checked = false;
    let start = Node {
        state: Rc::new((w.state.clone(), w.leaves.clone())),
        orders: vec![wanted(&w)],
        voters: (1..=3).map(|id| Voter::fresh(id, OLD)).collect(),
        held: BTreeSet::from([OLD]),
    };
    let mut reached = BTreeSet::from([start.seen()]);
    let (mut waiting, mut steps) = (VecDeque::from([start]), 0);
    while let Some(node) = waiting.pop_front() {
        for after in node.nexts(&mut w, drops, fault) {
            steps += 1;
            if let Some(v) = after.voters.iter().find(|v| !opens(v, &after.voters, &after.held)) {
                return Err(format!("voter {} is shut in {:?}", v.id, after.seen()));
            }
            if reached.insert(after.seen()) {
                waiting.push_back(after);
            }
        }
    }
    Ok((reached.len(), steps))
}

#[test]
fn a_rotation_reaches_the_states_of_its_model_and_no_other_and_each_voter_opens_in_every_one() {
    assert_eq!(explored(Drops::Late, Fault::None), Ok((728, 3076)));
}

#[test]
fn each_voter_opens_in_every_state_also_if_the_old_key_goes_as_soon_as_it_may() {
    assert_eq!(explored(Drops::Early, Fault::None), Ok((928, 4152)));
}

#[test]
fn without_the_chain_or_without_a_quorum_some_state_shuts_a_voter_for_ever() {
    for (drops, fault) in
        [(Drops::Late, Fault::NoChain), (Drops::Early, Fault::NoChain), (Drops::Early, Fault::NoQuorum)]
    {
        let shut = explored(drops, fault);
        assert!(shut.as_ref().is_err_and(|why| why.contains("is shut")), "{shut:?}");
    }
}
