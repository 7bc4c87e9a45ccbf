//! A new era: begun by the operators alone, believed from anybody, and the end of all that was signed before.

use crate::world::next::Next;
use crate::world::*;
use holdfast_orchestrator_core::verify::{Fence, News, NodeTrust, TaskMemory};
use holdfast_types::{GrantId, Millis};
use holdfast_wire::v1;

fn code(t: &NodeTrust, shown: &v1::TrustView) -> &'static str {
    match t.observe_era(shown) {
        Ok(News::Todo(_)) => "todo",
        Ok(News::AlreadyDone | News::Stale) => "none",
        Err(r) => r.code,
    }
}

fn follow(s: &mut Scene, shown: &v1::TrustView) {
    s.trust = todo(s.trust.observe_era(shown)).trust();
}

fn status(s: &Scene, by: u8, edit: impl FnOnce(&mut v1::Status)) -> v1::Statement {
    let mut x = v1::Status {
        cluster_id: s.cluster.0.to_vec(),
        era: 2,
        epoch: 1,
        issued_at_ms: NOW,
        expires_at_ms: NOW + MINUTE,
        charter_version: 1,
        ..v1::Status::default()
    };
    edit(&mut x);
    signed(&x, &[by])
}

#[test]
fn a_new_era_takes_enough_admins_this_cluster_and_a_later_number() {
    let s = Scene::honest();
    let by = |signers: &[u8]| code(&s.trust, &Next::after(&s).shown(&s, signers));
    assert_eq!(by(&[1, 2]), "todo");
    assert_eq!(by(&[1]), "reset-signature");
    assert_eq!(by(&[1, who::DEPLOYER]), "reset-signature");
    assert_eq!(by(&[who::STK, who::STRANGER]), "reset-signature");

    let with = |edit: fn(&mut Next)| {
        let mut next = Next::after(&s);
        edit(&mut next);
        code(&s.trust, &next.shown(&s, &[1, 2]))
    };
    assert_eq!(with(|n| n.reset.cluster_id = vec![0; 32]), "cluster");
    assert_eq!(with(|n| n.reset.era = 1), "none");
    assert_eq!(with(|n| n.reset.min_charter_version = 2), "charter-gap");
    // Roots and keys are those that the operators signed, and no others.
    assert_eq!(with(|n| n.bundle.stks[0].until_ms += 1), "reset-roots");
    assert_eq!(with(|n| n.bundle.era = 3), "reset-roots");
    assert_eq!(with(|n| n.root = RootKey::new()), "bundle-signature");
    let nothing = v1::TrustView { resets: vec![], ..Next::after(&s).shown(&s, &[1, 2]) };
    assert_eq!(code(&s.trust, &nothing), "none");
}

#[test]
fn a_reset_counts_once_and_nothing_of_the_era_before_counts_after_it() {
    let mut s = Scene::honest();
    let old_status = s.status(|x| x.issued_at_ms += 1);
    let old = s.trust.saved();
    let (first, second) = (Next::after(&s).shown(&s, &[1, 2]), Next::after(&s).shown(&s, &[1, 3]));
    assert!(s.verify().is_ok());
    follow(&mut s, &first);
    assert_eq!(s.trust.bundle().era, 2);
    assert_eq!(code(&s.trust, &first), "none", "the same again");
    assert_eq!(code(&s.trust, &second), "none", "another one of the same era");
    assert_eq!(s.verify().unwrap_err().code, "grant-signature");
    assert_eq!(s.trust.observe_status(Millis(NOW), &old_status).unwrap_err().code, "status-signature");
    assert_eq!(s.trust.observe_bundle(&old.bundles[0]).unwrap_err().code, "bundle-signature");
    // A key of the new era does not bring the old number back.
    let misdated = status(&s, Next::STK, |x| x.era = 1);
    assert_eq!(s.trust.observe_status(Millis(NOW), &misdated).unwrap_err().code, "era");
}

#[test]
fn epochs_begin_anew_and_a_clock_that_was_driven_ahead_is_set_right() {
    let mut s = Scene::honest();
    let ahead = s.status(|x| (x.epoch, x.issued_at_ms, x.expires_at_ms) = (900, NOW + 10 * DAY, NOW + 11 * DAY));
    s.adopt_status(&ahead);
    assert_eq!(s.trust.time_floor(), Millis(NOW + 10 * DAY));
    let shown = Next::after(&s).shown(&s, &[1, 2]);
    follow(&mut s, &shown);
    assert_eq!(s.trust.time_floor(), Millis(NOW));
    let first = status(&s, Next::STK, |_| {});
    let news = todo(s.trust.observe_status(Millis(NOW), &first));
    s.trust.adopt_status(news);
    let again = NodeTrust::rebuild(&s.trust.saved()).unwrap();
    assert_eq!((again.bundle().era, again.status().map(|x| x.epoch)), (2, Some(1)));
}

#[test]
fn what_was_held_of_the_era_before_is_kept_for_the_vault_until_it_has_seen_it() {
    let mut s = Scene::honest();
    let old = s.trust.saved();
    let revocations = old.revocations.clone().expect("the scene has revocations");
    assert!(s.trust.before().is_none());
    let shown = Next::after(&s).shown(&s, &[1, 2]);
    follow(&mut s, &shown);
    let mut t = NodeTrust::rebuild(&s.trust.saved()).unwrap();
    let before = t.before().expect("it outlives a restart");
    assert_eq!((&before.revocations, &before.bundles), (&revocations, &old.bundles));
    t.forget_before();
    assert!(NodeTrust::rebuild(&t.saved()).unwrap().before().is_none());
}

/// An orchestrator takes no Status, and no list for granted: what it heard last is for the vault of the next era alone.
#[test]
fn revocations_that_were_heard_are_held_for_the_next_era_and_decide_nothing() {
    let s = Scene::honest();
    let saved = s.trust.saved();
    let mut t = NodeTrust::join(saved.anchor, &saved.charters, &saved.bundles).unwrap();
    let list = |epoch| v1::Revocations {
        cluster_id: s.cluster.0.to_vec(),
        era: 1,
        epoch,
        revoked: vec![v1::Revocation { id: ME.into(), not_before_seq: u64::MAX, ..v1::Revocation::default() }],
        ..v1::Revocations::default()
    };
    let code = |t: &mut NodeTrust, st: &v1::Statement| t.remember_revocations(Millis(NOW), st).unwrap_err().code;
    assert_eq!(code(&mut t, &signed(&list(12), &[77])), "revocations-signature", "no statement key of this cluster");
    assert_eq!(code(&mut t, &signed(&v1::Revocations { era: 2, ..list(12) }, &[who::STK])), "era");
    let newest = signed(&list(12), &[who::STK]);
    assert!(t.remember_revocations(Millis(NOW), &newest).unwrap());
    for older in [12, 11] {
        assert!(!t.remember_revocations(Millis(NOW), &signed(&list(older), &[who::STK])).unwrap());
    }
    assert!(t.revocations().is_none() && !t.is_revoked(ME), "no Status names it");
    let shown = Next::after(&s).shown(&s, &[1, 2]);
    let next = todo(t.observe_era(&shown)).trust();
    let before = next.before().unwrap();
    assert_eq!((&before.revocations, &before.bundles), (&newest, &saved.bundles));
}

/// The two files of a node are not replaced at once.
#[test]
fn a_crash_between_the_anchors_and_the_heartbeat_of_an_era_keeps_nothing_of_the_one_before() {
    let mut s = Scene::honest();
    let before = s.trust.saved();
    let shown = Next::after(&s).shown(&s, &[1, 2]);
    follow(&mut s, &shown);
    let mut half = before;
    half.time_floor = Millis(NOW + 10 * DAY);
    let after = s.trust.saved();
    (half.anchor, half.charters, half.bundles) = (after.anchor, after.charters, after.bundles);
    let t = NodeTrust::rebuild(&half).unwrap();
    assert!(t.status().is_none() && t.revocations().is_none() && t.checkpoint().is_none());
    // Nor a time that was driven ahead.
    assert!(matches!(t.observe_status(Millis(NOW), &status(&s, Next::STK, |_| {})), Ok(News::Todo(_))));
}

#[test]
fn charters_that_were_missed_come_with_the_era_and_only_in_order() {
    let s = Scene::honest();
    let first = s.trust.saved().charters[0].clone();
    let second = v1::Charter { version: 2, prev_sha256: hash(&first).to_vec(), ..charter() };
    let mut next = Next::after(&s);
    next.reset.min_charter_version = 2;
    let mut shown = next.shown(&s, &[1, 2]);
    shown.charter_chain.push(signed(&second, &[1, 2]));
    let era = todo(s.trust.observe_era(&shown)).trust();
    assert_eq!(era.charter().head().version, 2);
    shown.charter_chain[1] = signed(&second, &[1]);
    assert_eq!(code(&s.trust, &shown), "charter-signature");
}

#[test]
fn generations_and_fences_count_anew_and_no_used_grant_comes_back() {
    let mut m = TaskMemory::default();
    m.consumed.insert(GrantId([1; 16]), Millis(NOW));
    m.last_gen.insert("shop.web.1".into(), 9);
    m.max_fence.insert("shop".into(), Fence { fence: 9, orch_id: ORCH.into() });
    m.begin_era();
    assert!(m.last_gen.is_empty() && m.max_fence.is_empty());
    assert!(m.consumed.contains_key(&GrantId([1; 16])));
}
