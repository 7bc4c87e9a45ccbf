//! What a node believes, and that it never believes less than before.

use crate::world::*;
use holdfast_orchestrator_core::verify::{CharterChain, News, NodeTrust};
use holdfast_types::{ClusterId, Millis, sha256};
use holdfast_wire::v1;

const ALL_ADMINS: &[u8] = &who::ADMINS;

fn second(first: &v1::Statement) -> v1::Charter {
    v1::Charter { version: 2, prev_sha256: hash(first).to_vec(), ..charter() }
}

#[test]
fn the_clusters_name_is_the_hash_of_a_charter_that_all_its_operators_signed() {
    let c = charter();
    let st = signed(&c, &FOUNDERS);
    assert_eq!(CharterChain::verify(std::slice::from_ref(&st)).unwrap().cluster().0, hash(&st).0);
    let one_less = signed(&c, &FOUNDERS[1..]);
    assert_eq!(CharterChain::verify(&[one_less]).unwrap_err().code(), "charter-signature");
    assert_eq!(CharterChain::verify(&[]).unwrap_err().code(), "charter-missing");
    for not_first in [
        v1::Charter { version: 2, ..c.clone() },
        v1::Charter { prev_sha256: vec![1; 32], ..c.clone() },
        v1::Charter { founding_nonce: vec![1; 16], ..c.clone() },
    ] {
        assert_eq!(CharterChain::verify(&[signed(&not_first, &FOUNDERS)]).unwrap_err().code(), "charter-order");
    }
    let mut twice = c.clone();
    twice.operators[1].key = twice.operators[0].key.clone();
    assert_eq!(CharterChain::verify(&[signed(&twice, &FOUNDERS)]).unwrap_err().code(), "charter-names");
    let headless = v1::Charter { operators: vec![], ..c };
    assert_eq!(CharterChain::verify(&[signed(&headless, &FOUNDERS)]).unwrap_err().code(), "charter-names");
}

#[test]
fn a_charter_that_guards_or_names_nothing_is_refused() {
    type Lie = fn(&mut v1::Charter);
    let lies: [(Lie, &str); 4] = [
        (|c| c.trust_domain.clear(), "charter-domain"),
        (|c| c.thresholds[1].k = 0, "charter-threshold"),
        (|c| c.publishers[0].threshold = 0, "charter-threshold"),
        (|c| c.operators.iter_mut().for_each(|o| o.roles = vec!["Deployer".into()]), "charter-names"),
    ];
    for (edit, code) in lies {
        let mut c = charter();
        edit(&mut c);
        assert_eq!(CharterChain::verify(&[signed(&c, &FOUNDERS)]).unwrap_err().code(), code);
    }
}

#[test]
fn k5_a_charter_needs_the_old_and_the_new_admins_and_no_gap() {
    let first = signed(&charter(), &FOUNDERS);
    let chain = CharterChain::verify(std::slice::from_ref(&first)).unwrap();
    let code = |c: &v1::Charter, signers: &[u8]| match chain.observe(&signed(c, signers)) {
        Ok(News::Todo(_)) => "todo",
        Ok(News::AlreadyDone) => "already-done",
        Ok(News::Stale) => "stale",
        Err(r) => r.code(),
    };
    let next = second(&first);
    assert_eq!(code(&next, &[1, 2]), "todo");
    assert_eq!(code(&next, &[1]), "charter-signature");
    assert_eq!(code(&next, &[1, who::DEPLOYER]), "charter-signature");
    assert_eq!(code(&next, &[who::STK, who::STRANGER]), "charter-signature");

    // New admins only, old admins only, both.
    let mut taken = next.clone();
    for (o, seed) in taken.operators.iter_mut().zip([41, 42, 43]) {
        o.key = Some(holdfast_wire::keys::StatementSigner::public(&key(seed)));
    }
    assert_eq!(code(&taken, &[41, 42]), "charter-signature");
    assert_eq!(code(&taken, &[1, 2]), "charter-signature");
    assert_eq!(code(&taken, &[1, 2, 41, 42]), "todo");

    assert_eq!(code(&v1::Charter { version: 3, ..next.clone() }, ALL_ADMINS), "charter-gap");
    assert_eq!(code(&v1::Charter { prev_sha256: vec![0; 32], ..next.clone() }, ALL_ADMINS), "charter-order");
    assert_eq!(
        code(&v1::Charter { trust_domain: "other.example.org".into(), ..next.clone() }, ALL_ADMINS),
        "charter-domain"
    );
    assert_eq!(code(&charter(), &FOUNDERS), "already-done");
    assert_eq!(code(&v1::Charter { founding_nonce: vec![1; 32], ..charter() }, &FOUNDERS), "charter-fork");
}

#[test]
fn k6_lowering_the_threshold_needs_the_old_one() {
    let first = signed(&charter(), &FOUNDERS);
    let mut chain = CharterChain::verify(std::slice::from_ref(&first)).unwrap();
    let mut low = second(&first);
    low.thresholds[0].k = 1;
    assert_eq!(chain.observe(&signed(&low, &[1])).unwrap_err().code(), "charter-signature");
    let n = todo(chain.observe(&signed(&low, &[1, 2])));
    chain.adopt(n);
    assert_eq!(chain.head().version, 2);
    assert!(matches!(chain.observe(&first), Ok(News::Stale)));
}

#[test]
fn without_a_threshold_entry_every_admin_must_sign_a_new_charter() {
    let first = signed(&v1::Charter { thresholds: vec![], ..charter() }, &FOUNDERS);
    let chain = CharterChain::verify(std::slice::from_ref(&first)).unwrap();
    let next = v1::Charter { thresholds: vec![], ..second(&first) };
    assert_eq!(chain.observe(&signed(&next, &[1, 2])).unwrap_err().code(), "charter-signature");
    assert!(matches!(chain.observe(&signed(&next, ALL_ADMINS)), Ok(News::Todo(_))));
}

#[test]
fn a17_a_join_refuses_charters_that_do_not_follow_and_bundles_without_the_pinned_root() {
    let s = Scene::honest();
    let saved = s.trust.saved();
    let skipped =
        signed(&v1::Charter { version: 3, prev_sha256: hash(&saved.charters[0]).to_vec(), ..charter() }, ALL_ADMINS);
    let chain = [saved.charters[0].clone(), skipped];
    assert_eq!(NodeTrust::join(saved.anchor, &chain, &saved.bundles).unwrap_err().code, "charter-gap");
    assert_eq!(
        NodeTrust::join(sha256(&[b"other"]), &saved.charters, &saved.bundles).unwrap_err().code,
        "bundle-anchor"
    );
    assert_eq!(NodeTrust::join(saved.anchor, &saved.charters, &[]).unwrap_err().code, "bundle-anchor");
    let forged = RootKey::new().sign_bundle(s.trust.bundle());
    assert_eq!(NodeTrust::join(saved.anchor, &saved.charters, &[forged]).unwrap_err().code, "bundle-anchor");
}

fn next_bundle(s: &Scene, edit: impl FnOnce(&mut v1::Bundle)) -> v1::Bundle {
    let saved = s.trust.saved();
    let mut b =
        v1::Bundle { epoch: 11, prev_sha256: hash(saved.bundles.last().unwrap()).to_vec(), ..s.trust.bundle().clone() };
    edit(&mut b);
    b
}

#[test]
fn h12_a_bundle_that_no_trusted_root_signed_adds_nothing() {
    let s = Scene::honest();
    let evil = RootKey::new();
    let b = next_bundle(&s, |b| b.roots.push(evil.certificate(&s.cluster)));
    assert_eq!(s.trust.observe_bundle(&evil.sign_bundle(&b)).unwrap_err().code, "bundle-signature");
    assert_eq!(s.trust.observe_bundle(&signed(&b, &[who::STK])).unwrap_err().code, "bundle-signature");
    assert_eq!(s.trust.observe_bundle(&signed(&b, &FOUNDERS)).unwrap_err().code, "bundle-signature");
}

#[test]
fn bundles_follow_one_another_and_never_go_back() {
    let mut s = Scene::honest();
    let code = |s: &Scene, edit: fn(&mut v1::Bundle)| {
        s.trust.observe_bundle(&s.root.sign_bundle(&next_bundle(s, edit))).unwrap_err().code
    };
    assert_eq!(code(&s, |b| b.era = 2), "era");
    assert_eq!(code(&s, |b| b.prev_sha256 = vec![0; 32]), "bundle-gap");
    assert_eq!(code(&s, |b| b.epoch = 10), "bundle-fork");
    assert_eq!(code(&s, |b| b.cluster_id = vec![0; 32]), "cluster");
    assert_eq!(code(&s, |b| b.roots.clear()), "bundle-content");
    let stale = s.root.sign_bundle(&next_bundle(&s, |b| b.epoch = 9));
    assert!(matches!(s.trust.observe_bundle(&stale), Ok(News::Stale)));

    let (first, second) = (s.trust.saved().bundles[0].clone(), s.root.sign_bundle(&next_bundle(&s, |_| {})));
    let n = todo(s.trust.observe_bundle(&second));
    s.trust.adopt_bundle(n);
    assert!(matches!(s.trust.observe_bundle(&second), Ok(News::AlreadyDone)));
    assert!(matches!(s.trust.observe_bundle(&first), Ok(News::Stale)));
    // One bundle newer than the status is no reason to stop starting tasks.
    assert!(s.verify().is_ok());
}

#[test]
fn c26_an_older_status_is_never_news() {
    let mut s = Scene::honest();
    let held = s.status(|_| {});
    assert!(matches!(s.trust.observe_status(Millis(NOW), &held), Ok(News::AlreadyDone)));
    for edit in [
        (|x| x.issued_at_ms -= 1) as fn(&mut v1::Status),
        |x| x.epoch -= 1,
        |x| (x.epoch, x.issued_at_ms) = (x.epoch + 1, x.issued_at_ms - 1),
    ] {
        let st = s.status(edit);
        assert!(matches!(s.trust.observe_status(Millis(NOW), &st), Ok(News::Stale)));
    }
    let newer = s.status(|x| (x.epoch, x.issued_at_ms) = (11, x.issued_at_ms + 5_000));
    s.adopt_status(&newer);
    assert_eq!(s.trust.time_floor(), Millis(NOW - 5_000));
    assert!(matches!(s.trust.observe_status(Millis(NOW), &held), Ok(News::Stale)));
    assert_eq!(s.trust.clock(Millis(0)), Millis(NOW - 5_000));
}

#[test]
fn an_older_epoch_of_the_same_era_says_that_the_vault_was_set_back() {
    let s = Scene::honest();
    let code = |edit: fn(&mut v1::Status)| s.trust.set_back(&s.status(edit)).map(|(r, _)| r.code);
    assert_eq!(code(|_| {}), None);
    assert_eq!(code(|x| x.issued_at_ms -= 1), None, "another leader's clock may be a little behind");
    assert_eq!(code(|x| x.epoch += 1), None);
    assert_eq!(code(|x| x.epoch -= 1), Some("status-set-back"));
    assert_eq!(code(|x| (x.era, x.epoch) = (x.era + 1, x.epoch - 1)), None, "epochs begin anew with an era");
}

#[test]
fn a_status_counts_only_under_a_key_whose_window_holds_its_time_and_ours() {
    let s = Scene::honest();
    let code = |now: i64, st: &v1::Statement| s.trust.observe_status(Millis(now), st).map(|_| ()).map_err(|r| r.code);
    let newer = s.status(|x| x.issued_at_ms += 1);
    assert_eq!(code(NOW, &newer), Ok(()));
    assert_eq!(code(NOW - 30 * DAY, &newer), Ok(()), "a slow clock still learns the time");
    assert_eq!(code(NOW + 21 * DAY, &newer), Err("status-signature"));
    // G7: a stolen key cannot move time past its own end.
    assert_eq!(code(NOW, &s.status(|x| x.issued_at_ms = NOW + 21 * DAY)), Err("status-signature"));
    let by = |seed| {
        let mut x = s.trust.status().unwrap().clone();
        x.issued_at_ms += 2;
        signed(&x, &[seed])
    };
    assert_eq!(code(NOW, &by(who::OLD_STK)), Err("status-signature"));
    assert_eq!(code(NOW, &by(who::ADMINS[0])), Err("status-signature"));
    for (edit, want) in [
        ((|x| x.cluster_id = vec![0; 32]) as fn(&mut v1::Status), "cluster"),
        (|x| x.era = 2, "era"),
        (|x| x.expires_at_ms = 0, "status-times"),
        (|x| x.checkpoint = b"x".to_vec(), "checkpoint"),
    ] {
        assert_eq!(code(NOW, &s.status(edit)), Err(want));
    }
}

#[test]
fn revocations_count_only_when_the_status_names_them() {
    let mut s = Scene::honest();
    let r = v1::Revocations {
        cluster_id: s.cluster.0.to_vec(),
        era: 1,
        epoch: 11,
        revoked: vec![v1::Revocation { id: ORCH.into(), not_before_seq: 1, ..Default::default() }],
        denied_digests: vec![],
    };
    let st = signed(&r, &[who::STK]);
    assert!(matches!(s.trust.observe_revocations(Millis(NOW), &st), Ok(News::Stale)));
    assert_eq!(
        s.trust.observe_revocations(Millis(NOW), &signed(&r, &[who::STRANGER])).unwrap_err().code,
        "revocations-signature"
    );
    assert_eq!(
        s.trust
            .observe_revocations(Millis(NOW), &signed(&v1::Revocations { era: 2, ..r.clone() }, &[who::STK]))
            .unwrap_err()
            .code,
        "era"
    );
    let status =
        s.status(|x| (x.epoch, x.issued_at_ms, x.revocations_sha256) = (11, x.issued_at_ms + 1, hash(&st).to_vec()));
    s.adopt_status(&status);
    assert!(s.trust.revocations().is_none() && !s.trust.is_revoked(ORCH), "the old list no longer counts");
    let n = todo(s.trust.observe_revocations(Millis(NOW), &st));
    s.trust.adopt_revocations(n);
    assert!(s.trust.is_revoked(ORCH));
    assert!(matches!(s.trust.observe_revocations(Millis(NOW), &st), Ok(News::AlreadyDone)));
}

#[test]
fn what_is_saved_is_believed_again_and_the_floors_survive() {
    let mut s = Scene::honest();
    let saved = s.trust.saved();
    let rebuilt = NodeTrust::rebuild(&saved).unwrap();
    assert_eq!(rebuilt.saved(), saved);
    s.trust = rebuilt;
    assert!(s.verify().is_ok());

    // A status that no longer verifies is dropped, but time and epoch do not go back.
    let mut damaged = saved.clone();
    damaged.status.as_mut().unwrap().sigs.clear();
    let t = NodeTrust::rebuild(&damaged).unwrap();
    assert!(t.status().is_none() && t.revocations().is_none());
    assert_eq!(t.time_floor(), Millis(NOW - 10_000));
    assert!(matches!(t.observe_status(Millis(NOW), &s.status(|x| x.epoch = 9)), Ok(News::Stale)));

    let mut other = saved.clone();
    other.charters[0] = signed(&v1::Charter { founding_nonce: vec![1; 32], ..charter() }, &FOUNDERS);
    assert_eq!(NodeTrust::rebuild(&other).unwrap_err().code, "bundle-anchor");
    assert_ne!(ClusterId(hash(&other.charters[0]).0), s.cluster);
}
