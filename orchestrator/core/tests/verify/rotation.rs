//! Root rotations that a node slept through: it follows the bundles, each signed by a root of the one before.

use crate::world::*;
use holdfast_orchestrator_core::verify::NodeTrust;
use holdfast_pki::keys::{CertSigner, RootStatementSigner};
use holdfast_types::Digest;
use holdfast_wire::keys::StatementSigner;
use holdfast_wire::statement::sign;
use holdfast_wire::v1;

/// A chain of bundles from the one in force on: for each rotation a link that adds the next root and one that drops the old, both
/// signed by both.
struct Slept {
    roots: Vec<Vec<u8>>,
    links: Vec<v1::Statement>,
}

fn slept(s: &Scene, rotations: usize) -> Slept {
    let mut signer: Option<RootKey> = None;
    let mut roots = s.trust.bundle().roots.clone();
    let mut links = s.trust.saved().bundles;
    for _ in 0..rotations {
        let next = RootKey::new();
        let der = next.certificate(&s.cluster);
        let kept = roots.last().unwrap().clone();
        for trusted in [vec![kept, der.clone()], vec![der.clone()]] {
            let b = v1::Bundle {
                epoch: 10 + u64::try_from(links.len()).unwrap(),
                prev_sha256: hash(links.last().unwrap()).to_vec(),
                roots: trusted,
                ..s.trust.bundle().clone()
            };
            let old = RootStatementSigner(signer.as_ref().map_or(&s.root as &dyn CertSigner, |k| k));
            links.push(sign(&b, &[&old as &dyn StatementSigner, &RootStatementSigner(&next)]).unwrap());
        }
        roots.push(der);
        signer = Some(next);
    }
    Slept { roots, links }
}

#[test]
fn whoever_slept_through_three_rotations_catches_up_and_trusts_the_last_root_alone() {
    let s = Scene::honest();
    let charters = s.trust.saved().charters;
    let slept = slept(&s, 3);
    let woken = s.trust.catch_up(&charters, &slept.links).unwrap().unwrap();
    assert_eq!((woken.bundle().epoch, &woken.bundle().roots), (16, &vec![slept.roots[3].clone()]));
    assert!(woken.catch_up(&charters, &slept.links).unwrap().is_none(), "nothing is news twice");
    // Nor does it go back, or believe less after a restart.
    assert!(woken.catch_up(&charters, &slept.links[..3]).unwrap().is_none());
    assert_eq!(NodeTrust::rebuild(&woken.saved()).unwrap().bundle(), woken.bundle());
    // Some of the way is some of the way.
    let part = s.trust.catch_up(&charters, &slept.links[..4]).unwrap().unwrap();
    assert_eq!(part.bundle().epoch, 13);
    assert_eq!(part.catch_up(&charters, &slept.links).unwrap().unwrap().bundle(), woken.bundle());
}

/// An orchestrator that joined after a rotation refused the whole chain, because it does not hold the first link's root.
#[test]
fn links_from_before_the_join_are_not_looked_at() {
    let s = Scene::honest();
    let charters = s.trust.saved().charters;
    let slept = slept(&s, 2);
    let late = NodeTrust::join(s.cluster.anchor(&slept.roots[1]), &charters, &slept.links[..3]).unwrap();
    assert_eq!(late.bundle().roots, [slept.roots[1].clone()]);
    let caught_up = late.catch_up(&charters, &slept.links).unwrap().unwrap();
    assert_eq!(caught_up.bundle().roots, [slept.roots[2].clone()]);
}

#[test]
fn a_chain_with_a_gap_or_a_strangers_link_leads_nowhere() {
    let s = Scene::honest();
    let charters = s.trust.saved().charters;
    let slept = slept(&s, 2);
    let code = |links: &[v1::Statement]| s.trust.catch_up(&charters, links).unwrap_err().code;
    let gap: Vec<_> = slept.links.iter().skip(2).cloned().collect();
    assert_eq!(code(&gap), "bundle-gap");
    let far: Vec<_> = slept.links.iter().skip(4).cloned().collect();
    assert_eq!(code(&far), "bundle-signature");
    let evil = RootKey::new();
    let b = v1::Bundle {
        epoch: 11,
        prev_sha256: hash(&slept.links[0]).to_vec(),
        roots: vec![evil.certificate(&s.cluster)],
        ..s.trust.bundle().clone()
    };
    assert_eq!(code(&[evil.sign_bundle(&b)]), "bundle-signature");
    // A bundle of another era is no link at all: only the operators begin one.
    let other = s.root.sign_bundle(&v1::Bundle { era: 2, ..b });
    assert!(s.trust.catch_up(&charters, &[other]).unwrap().is_none());
}

#[test]
fn a_list_tells_from_which_generation_on_an_identity_counts() {
    let listed = |r: &mut v1::Revocations| {
        r.revoked = vec![v1::Revocation { id: ME.into(), not_before_seq: 5, ..Default::default() }]
    };
    let s = World { edit_revocations: listed, ..World::default() }.build();
    assert_eq!((s.trust.revoked_below(ME), s.trust.revoked_below(ORCH)), (Some(5), None));
    assert!(s.trust.is_revoked(ME) && !s.trust.is_revoked(ORCH));
}

#[test]
fn of_an_identity_that_was_released_the_keys_of_before_do_not_count_and_no_others() {
    let (stolen, own) = (Digest([7; 32]), Digest([8; 32]));
    let listed = |r: &mut v1::Revocations| {
        r.revoked = vec![v1::Revocation { id: ORCH.into(), not_before_seq: 3, spki_sha256: vec![vec![7; 32]] }];
    };
    let s = World { edit_revocations: listed, ..World::default() }.build();
    assert!(s.trust.is_revoked_key(ORCH, &stolen));
    assert!(!s.trust.is_revoked_key(ORCH, &own) && !s.trust.is_revoked(ORCH));
    assert!(!s.trust.is_revoked_key(ME, &stolen), "another's key is another's");
    s.verify().unwrap();
    // The control: while no key is named, none counts.
    let listed = |r: &mut v1::Revocations| {
        r.revoked = vec![v1::Revocation { id: ORCH.into(), not_before_seq: 3, ..Default::default() }];
    };
    let s = World { edit_revocations: listed, ..World::default() }.build();
    assert!(s.trust.is_revoked_key(ORCH, &own));
}

/// A link that Admins signed, because no root could, is judged by the charter in force when it was shown: whoever was one before
/// adds nothing to what a later charter is known of, and whoever slept through both follows both.
#[test]
fn a_link_that_admins_signed_counts_by_a_charter_that_is_not_older_than_the_one_held() {
    let s = Scene::honest();
    let saved = s.trust.saved();
    let new = RootKey::new();
    let b = v1::Bundle {
        epoch: 900,
        prev_sha256: hash(&saved.bundles[0]).to_vec(),
        roots: vec![s.trust.bundle().roots[0].clone(), new.certificate(&s.cluster)],
        charter_version: 1,
        ..s.trust.bundle().clone()
    };
    let link = signed(&b, &who::ADMINS[..2]);
    let code = |st: &v1::Statement| s.trust.observe_bundle(st).unwrap_err().code;
    assert_eq!(code(&signed(&b, &who::ADMINS[..1])), "bundle-signature");
    assert_eq!(code(&signed(&b, &[who::DEPLOYER, who::SECOND_DEPLOYER])), "bundle-signature");
    assert_eq!(code(&s.root.sign_bundle(&b)), "bundle-signature", "it says itself that no root signs it");
    assert_eq!(code(&signed(&v1::Bundle { charter_version: 2, ..b.clone() }, &who::ADMINS)), "charter-gap");
    assert_eq!(code(&signed(&v1::Bundle { charter_version: 0, ..b.clone() }, &who::ADMINS)), "bundle-signature");
    let mut told = s.trust.clone();
    let n = todo(told.observe_bundle(&link));
    told.adopt_bundle(n);
    assert_eq!(told.bundle().roots, b.roots);

    // Two of three Admins are replaced.
    let mut c = charter();
    (c.version, c.prev_sha256) = (2, hash(&saved.charters[0]).to_vec());
    for (o, seed) in c.operators.iter_mut().zip([41, 42]) {
        o.key = Some(key(seed).public());
    }
    let charters = [saved.charters[0].clone(), signed(&c, &[1, 2, 41, 42])];
    let slept = s.trust.catch_up(&charters, std::slice::from_ref(&link)).unwrap().unwrap();
    assert_eq!((slept.charter().head().version, &slept.bundle().roots), (2, &b.roots));
    assert_eq!(NodeTrust::rebuild(&slept.saved()).unwrap().bundle(), slept.bundle());
    let late = s.trust.catch_up(&charters, &[]).unwrap().unwrap();
    assert_eq!(late.catch_up(&charters, std::slice::from_ref(&link)).unwrap_err().code, "bundle-signature");
    let by_new = signed(&b, &[41, 42]);
    assert!(late.catch_up(&charters, &[by_new]).unwrap().is_some());
}
