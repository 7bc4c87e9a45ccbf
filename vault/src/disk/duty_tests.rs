//! Slots follow the cluster: whatever step a change stops at, the disk opens with a key that was to be kept.

use super::*;
use crate::disk::testing::*;
use holdfast_types::{ClusterId, VoterId};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use std::sync::Arc;

const CREDENTIAL: [u8; 32] = [4; 32];

fn unlock(dir: &Path, epoch: u64, secret: [u8; 32]) -> Option<Arc<DiskKeys>> {
    let slots = Slots::load(dir).unwrap();
    slots.open(unlocked(&slots, Recipient::Unlock { epoch }, secret)).ok().map(Arc::new)
}

/// A machine without a token.
fn own(credential: Given) -> Own {
    Own { credential, token: None }
}

/// What is wanted at each stage of a rotation of the unlock key.
fn stages() -> [WantedSlots; 3] {
    let chain = Some((1, b"box of the first secret".to_vec()));
    let both = vec![(1, pk(UNLOCK)), (2, pk(NEXT_UNLOCK))];
    [
        wanted(),
        WantedSlots { unlock: both, chain: chain.clone(), ..wanted() },
        WantedSlots { unlock: vec![(2, pk(NEXT_UNLOCK))], chain, ..wanted() },
    ]
}

/// Runs `bring` until it has done `stop` steps; whether it got through.
fn bring_until(dir: &Path, keys: &DiskKeys, wanted: &WantedSlots, stop: usize) -> bool {
    let mut done = 0;
    let step = &mut |_: &'static str| {
        done += 1;
        if done == stop { Err(DiskError::Entropy) } else { Ok(()) }
    };
    bring(dir, keys, wanted, own(Given::Key(pk(CREDENTIAL))), step).is_ok()
}

#[test]
fn a_change_of_slots_stopped_between_any_two_steps_twice_in_a_row_leaves_a_key_that_opens() {
    for (first, second) in (1..4).flat_map(|a| (1..4).map(move |b| (a, b))) {
        let dir = tempfile::tempdir().unwrap();
        make_voter(dir.path(), CLUSTER, VOTER);
        let keys = opened(dir.path());
        for (n, stage) in stages().iter().enumerate() {
            for stop in [first, second, usize::MAX] {
                bring_until(dir.path(), &keys, stage, stop);
                let (old, new) = (unlock(dir.path(), 1, UNLOCK), unlock(dir.path(), 2, NEXT_UNLOCK));
                // Before the second key takes over, the first one opens. Afterwards the second one does, at every moment.
                assert!(if n == 2 { new.is_some() } else { old.is_some() }, "stage {n}, stop {first}, {second}");
                let slots = Slots::load(dir.path()).unwrap();
                slots.open(unlocked(&slots, Recipient::Recovery { charter_version: 1 }, RECOVERY)).unwrap();
                if n == 2 && old.is_none() {
                    // The chain was there before the slot went.
                    let chain = chain::load(dir.path(), &CLUSTER, VOTER).unwrap();
                    assert_eq!(chain, stage.chain);
                }
            }
        }
        assert!(unlock(dir.path(), 1, UNLOCK).is_none(), "the old key still opens");
    }
}

#[test]
fn slots_become_what_is_wanted_and_stay_as_they_are_when_they_are_already() {
    let dir = tempfile::tempdir().unwrap();
    make_voter(dir.path(), CLUSTER, VOTER);
    let keys = opened(dir.path());
    let [_, both, last] = stages();
    let bring = |w: &WantedSlots, credential| bring(dir.path(), &keys, w, own(credential), &mut |_| Ok(())).unwrap();
    assert_eq!(bring(&both, Given::Nothing), SlotsNow { unlock_epoch: 2, recovery_version: 1 });
    let file = || std::fs::read(dir.path().join("slots")).unwrap();
    let before = file();
    bring(&both, Given::Nothing);
    assert_eq!(file(), before, "nothing to do, and yet the file was written");
    let plain = WantedSlots { plain: true, recovery: (2, pk([8; 32])), ..last };
    assert_eq!(bring(&plain, Given::Key(pk(CREDENTIAL))), SlotsNow { unlock_epoch: 2, recovery_version: 2 });
    let slots = Slots::load(dir.path()).unwrap();
    let mut kinds: Vec<String> = slots.iter().map(|s| crate::gate::slot_name(s.recipient)).collect();
    kinds.sort();
    assert_eq!(kinds, ["credential", "plain", "recovery(2)", "unlock(2)"]);
    // What the service manager gave cannot be used: the other slots follow all the same, and its own stays as it is.
    let only = WantedSlots { plain: false, ..plain };
    bring(&only, Given::Unusable);
    let kept = Slots::load(dir.path()).unwrap();
    let kinds: Vec<String> = kept.iter().map(|s| crate::gate::slot_name(s.recipient)).collect();
    assert!(kinds.iter().any(|k| k == "credential") && !kinds.iter().any(|k| k == "plain"), "{kinds:?}");
    bring(&wanted(), Given::Nothing);
    assert!(Slots::load(dir.path()).unwrap().plain_keys().is_empty());
    assert_eq!(chain::load(dir.path(), &CLUSTER, VOTER).unwrap(), None);
}

#[test]
fn no_voter_is_left_with_its_recovery_slot_alone() {
    let dir = tempfile::tempdir().unwrap();
    make_voter(dir.path(), CLUSTER, VOTER);
    let none = WantedSlots { unlock: Vec::new(), ..wanted() };
    assert!(matches!(bring_slots(dir.path(), &opened(dir.path()), &none, &None), Err(DiskError::NoSlot)));
    assert!(unlock(dir.path(), 1, UNLOCK).is_some());
}

#[test]
fn a_chain_that_is_damaged_or_anothers_is_named_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    make_voter(dir.path(), CLUSTER, VOTER);
    let keys = opened(dir.path());
    let [_, both, _] = stages();
    bring(dir.path(), &keys, &both, own(Given::Nothing), &mut |_| Ok(())).unwrap();
    let path = dir.path().join("unlock.chain");
    let file = std::fs::read(&path).unwrap();
    let read = || chain::load(dir.path(), &CLUSTER, VOTER);
    for n in 0..file.len() {
        let mut bad = file.clone();
        bad[n] ^= 4;
        for bad in [bad.as_slice(), &file[..n]] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(read(), Err(DiskError::Corrupt { what: "unlock.chain", .. })), "byte {n}");
        }
    }
    chain::store(dir.path(), &CLUSTER, VoterId(2), 1, b"x").unwrap();
    assert!(matches!(read(), Err(DiskError::OtherVoter { .. })));
    chain::store(dir.path(), &ClusterId([8; 32]), VOTER, 1, b"x").unwrap();
    assert!(matches!(read(), Err(DiskError::OtherCluster { .. })));
    bring(dir.path(), &keys, &both, own(Given::Nothing), &mut |_| Ok(())).unwrap();
    assert_eq!(read().unwrap(), both.chain);
}

/// STORED: golden file. If this fails, an old sidecar is not understood any more: make a new format instead.
#[test]
fn the_chain_is_stored_as_it_always_was() {
    let golden = unhex(include_str!("../../golden/unlock-chain.hex").trim());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unlock.chain");
    std::fs::write(&path, &golden).unwrap();
    let sealed = b"box of the first secret";
    assert_eq!(chain::load(dir.path(), &CLUSTER, VOTER).unwrap(), Some((1, sealed.to_vec())));
    chain::store(dir.path(), &CLUSTER, VOTER, 1, sealed).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), golden);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_chain_comes_back_as_it_was_for_its_own_voter_alone(
        epoch in any::<u64>(), voter in any::<u64>(), sealed in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let dir = tempfile::tempdir().unwrap();
        chain::store(dir.path(), &CLUSTER, VoterId(voter), epoch, &sealed).unwrap();
        prop_assert_eq!(chain::load(dir.path(), &CLUSTER, VoterId(voter)).unwrap(), Some((epoch, sealed)));
        let other = chain::load(dir.path(), &CLUSTER, VoterId(voter.wrapping_add(1)));
        prop_assert!(matches!(other, Err(DiskError::OtherVoter { .. })), "taken as another voter's");
    }
}
