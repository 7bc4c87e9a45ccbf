//! Checks 7 and 8: what deployers and publishers signed, and nothing else.

use crate::lies::{granted, refused, specified, tampered};
use crate::world::*;
use holdfast_wire::v1;
use prost::Message as _;

// ---- 7: the spec -------------------------------------------------------------------------------------------

#[test]
fn c8_a_spec_altered_after_signing_is_refused() {
    tampered(|s| s.assign.spec = None, 7, "spec-missing");
    tampered(|s| s.assign.spec.as_mut().unwrap().payload.push(0), 7, "spec-malformed");
    let alter: [fn(&mut v1::Spec); 8] = [
        |x| x.command = vec!["/bin/sh".into()],
        |x| x.args.push("-x".into()),
        |x| x.valid_until_ms += 1,
        |x| x.user = 0xffff,
        |x| x.env.push(v1::EnvVar { name: "A".into(), value: "b".into() }),
        |x| x.isolation = "relaxed".into(),
        |x| x.images[0].source.push('x'),
        |x| x.params[0].max = 99,
    ];
    for f in alter {
        let mut s = Scene::honest();
        let st = s.assign.spec.as_mut().unwrap();
        let mut x = v1::Spec::decode(st.payload.as_slice()).unwrap();
        f(&mut x);
        st.payload = x.encode_to_vec();
        let r = s.verify().unwrap_err();
        assert_eq!((r.check, r.code), (7, "spec-signature"));
        // Signed anew by the right deployer it is another spec than the one granted.
        s.assign.spec = Some(signed(&x, &[who::DEPLOYER]));
        assert_eq!(s.verify().unwrap_err().code, "spec-hash");
    }
}

#[test]
fn c9_a_spec_by_anybody_but_an_owning_deployer_is_refused() {
    for signer in [&[who::STRANGER], &[who::DEPLOYER_ELSEWHERE], &[who::ADMINS[0]], &[who::STK], &[who::PUBLISHER[0]]] {
        refused(World { spec_signers: signer, ..World::default() }, 7, "spec-signature");
    }
    assert!(
        World { spec_signers: &[who::SECOND_DEPLOYER], ..World::default() }.build().verify().is_ok(),
        "'*' owns all"
    );
}

#[test]
fn a_sensitive_service_needs_two_deployers_and_the_charter_may_ask_for_more() {
    let sensitive: fn(&mut v1::Spec) = |x| x.sensitive = true;
    refused(World { edit_spec: sensitive, ..World::default() }, 7, "spec-signature");
    refused(
        World { edit_spec: sensitive, spec_signers: &[who::DEPLOYER, who::DEPLOYER], ..World::default() },
        7,
        "spec-signature",
    );
    assert!(
        World { edit_spec: sensitive, spec_signers: &[who::DEPLOYER, who::SECOND_DEPLOYER], ..World::default() }
            .build()
            .verify()
            .is_ok()
    );
    refused(World { edit_charter: |c| c.thresholds[1].k = 2, ..World::default() }, 7, "spec-signature");
}

/// The node once took one deployer here, while the vault asked for as many as there are Admins.
#[test]
fn a_charter_that_sets_no_threshold_asks_for_as_many_deployers_as_there_are_admins() {
    let edit_charter: fn(&mut v1::Charter) = |c| drop(c.thresholds.pop());
    let by = |spec_signers| World { edit_charter, spec_signers, ..World::default() };
    refused(by(TWO), 7, "spec-signature");
    let edit_charter: fn(&mut v1::Charter) = |c| {
        c.thresholds.pop();
        c.operators.remove(0);
    };
    let world = World { edit_charter, ..by(TWO) };
    assert!(world.build().verify().is_ok(), "two Admins are left");
}

const TWO: &[u8] = &[who::DEPLOYER, who::SECOND_DEPLOYER];

/// The node once believed each spec's own word on whether it is sensitive.
#[test]
fn one_deployer_cannot_sign_away_that_a_service_is_sensitive() {
    let known: fn(&mut Scene) = |s| s.memory.sensitive.extend(["shop/web".to_owned()]);
    refused(World { edit_scene: known, ..World::default() }, 7, "spec-signature");
    let mut s = World { edit_scene: known, spec_signers: TWO, ..World::default() }.build();
    let accepted = s.verify().unwrap();
    s.memory.consume(&accepted);
    assert!(s.memory.sensitive.is_empty(), "two of them can");
    let sensitive = World { edit_spec: |x| x.sensitive = true, spec_signers: TWO, ..World::default() }.build();
    s.memory.consume(&sensitive.verify().unwrap());
    assert!(s.memory.sensitive.contains("shop/web"));
}

#[test]
fn check_7_a_spec_that_the_vault_should_not_have_taken_is_refused() {
    let faults: [fn(&mut v1::Spec); 10] = [
        |x| x.zones.clear(),
        |x| x.on_expiry = "whatever".into(),
        |x| x.valid_until_ms = NOW + 181 * DAY,
        |x| x.restart = "sometimes".into(),
        |x| x.isolation = "none".into(),
        |x| x.exclusive = true,
        |x| x.replicas_min = x.replicas_max + 1,
        |x| x.zones = vec!["EU".into()],
        |x| x.params[1].name = "slot".into(),
        |x| x.secrets[1].target = x.secrets[0].target.clone(),
    ];
    for edit in faults {
        specified(edit, 7, "spec-content");
    }
}

#[test]
fn check_7_a_task_beyond_the_specs_replicas_is_refused() {
    let ninth: fn(&mut v1::Grant) = |g| g.task_id = "shop.web.10".into();
    assert!(World { edit_grant: ninth, ..World::default() }.build().verify().is_ok(), "one more while they change");
    refused(World { edit_grant: |g| g.task_id = "shop.web.11".into(), ..World::default() }, 7, "slot");
    let world = |edit_grant| World {
        edit_spec: |x| {
            x.exclusive = true;
            x.on_expiry = "stop".into();
            x.replicas_max = 1;
        },
        edit_grant,
        ..World::default()
    };
    refused(
        world(|g| {
            g.exclusive = true;
            g.on_expiry = "stop".into();
            g.grace_s = 0;
        }),
        7,
        "slot",
    );
    refused(
        world(|g| {
            g.exclusive = true;
            g.on_expiry = "stop".into();
            g.task_id = "shop.web.1".into();
        }),
        7,
        "spec-mismatch",
    );
}

#[test]
fn check_7_a_spec_of_another_cluster_or_past_its_life_is_refused() {
    specified(|x| x.cluster_id = vec![0; 32], 7, "spec-cluster");
    specified(|x| x.valid_until_ms = NOW - 1, 7, "spec-expired");
}

#[test]
fn check_7_the_grant_says_nothing_that_the_spec_does_not() {
    let lies: [fn(&mut v1::Grant); 16] = [
        |g| g.service = "api".into(),
        |g| g.namespace = "bank".into(),
        |g| g.service_version = 4,
        |g| g.task_id = "shop.api.2".into(),
        |g| g.task_id = "shop.web.02".into(),
        |g| g.images[0].digest = vec![0xd2; 32],
        |g| g.images[0].name = "side".into(),
        |g| g.images.push(g.images[0].clone()),
        |g| g.secrets[0].name = "root-password".into(),
        |g| g.secrets[0].target = "../etc/passwd".into(),
        |g| g.secrets[0].mode = 0o777,
        |g| g.secrets[0].uid = 0,
        |g| g.secrets.truncate(1),
        |g| g.exclusive = true,
        |g| g.protected = true,
        |g| g.on_expiry = "stop".into(),
    ];
    for edit_grant in lies {
        refused(World { edit_grant, ..World::default() }, 7, "spec-mismatch");
    }
}

#[test]
fn check_7_params_fill_the_declared_holes_and_stay_in_their_bounds() {
    let wrong: [fn(&mut v1::Grant); 3] =
        [|g| g.params.truncate(1), |g| g.params.push(g.params[0].clone()), |g| g.params[0].name = "x".into()];
    for edit_grant in wrong {
        refused(World { edit_grant, ..World::default() }, 7, "params");
    }
    let out: [fn(&mut v1::Grant); 7] = [
        |g| g.params[0].value = "0".into(),
        |g| g.params[0].value = "10".into(),
        |g| g.params[0].value = "02".into(),
        |g| g.params[0].value = "+2".into(),
        |g| g.params[0].value = "two".into(),
        |g| g.params[1].value = "x".repeat(21),
        |g| g.params[1].value = "a\nb".into(),
    ];
    for edit_grant in out {
        refused(World { edit_grant, ..World::default() }, 7, "param-bounds");
    }
    specified(|x| x.params[1].kind = "shell".into(), 7, "param-bounds");
}

// ---- 8: the images -----------------------------------------------------------------------------------------

#[test]
fn c10_an_image_that_no_charter_publisher_vouches_for_is_refused() {
    for voucher_signers in [
        &[who::STRANGER] as &[u8],
        &[who::OTHER_PUBLISHER],
        &[who::PUBLISHER[0]],
        &[who::PUBLISHER[0], who::PUBLISHER[0]],
        &[who::DEPLOYER],
    ] {
        refused(World { voucher_signers, ..World::default() }, 8, "voucher");
    }
    for edit_voucher in [
        (|v| v.repository = "r.local:5000/shop/api".into()) as fn(&mut v1::Voucher),
        |v| v.digest = vec![0xd2; 32],
        |v| v.cluster_id = vec![0; 32],
    ] {
        refused(World { edit_voucher, ..World::default() }, 8, "voucher");
    }
    tampered(|s| s.assign.vouchers.clear(), 8, "voucher");
    tampered(|s| s.assign.vouchers = vec![s.assign.vouchers[0].clone(); 65], 8, "vouchers-many");
    specified(|x| x.images[0].source = "r.local:5000/bank/web:1".into(), 8, "repository");
    refused(
        World { edit_spec: |x| x.images.clear(), edit_grant: |g| g.images.clear(), ..World::default() },
        7,
        "spec-content",
    );
    refused(
        World {
            edit_spec: |x| x.images[0].digest = vec![1; 31],
            edit_grant: |g| g.images[0].digest = vec![1; 31],
            ..World::default()
        },
        7,
        "spec-content",
    );
}

#[test]
fn k8_a_publisher_that_only_the_vault_knows_is_refused() {
    granted(|g| g.images[0].publisher = "vault-ci".into(), 8, "publisher-unknown");
    refused(
        World {
            voucher_signers: &[who::OTHER_PUBLISHER],
            edit_grant: |g| g.images[0].publisher = "bank-ci".into(),
            ..World::default()
        },
        8,
        "repository",
    );
}

#[test]
fn k7_a_denied_digest_is_refused() {
    refused(
        World { edit_revocations: |r| r.denied_digests = vec![vec![0xd1; 32]], ..World::default() },
        8,
        "image-denied",
    );
}
