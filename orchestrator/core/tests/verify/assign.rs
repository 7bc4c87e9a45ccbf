//! The honest assignment, and checks 1 to 5, one lie at a time. Names carry the row of the protocol's abuse table where there is one.

use crate::lies::{granted, refused, tampered};
use crate::world::*;
use holdfast_orchestrator_core::verify::{Accepted, Gap, use_up};
use holdfast_types::{Millis, SpiffeId};
use holdfast_wire::v1;
use prost::Message as _;

#[test]
fn an_honest_assignment_is_accepted_with_its_secrets_in_clear() {
    let s = Scene::honest();
    let a = s.verify().unwrap();
    assert_eq!(a.grant_id.0, [0x6a; 16]);
    assert_eq!(a.spec.command, ["/bin/server"]);
    assert_eq!((a.images[0].digest.0, a.images[0].publisher.as_str()), ([0xd1; 32], "ci"));
    assert_eq!(a.secrets.len(), 2);
    assert_eq!(
        (a.secrets[0].target.as_str(), a.secrets[0].mode, a.secrets[0].uid, a.secrets[0].gid),
        ("db-password", 0o400, 7, 8)
    );
    assert!(a.secrets.iter().all(|s| s.bytes.expose() == VALUE && s.version == 2));
    assert_eq!(a.gap, None);
    assert!(!format!("{a:?}").contains("horse"));
}

// ---- 1: who delivers it ------------------------------------------------------------------------------------

#[test]
fn check_1_only_the_grants_own_unrevoked_orchestrator_delivers_it() {
    for uri in [
        format!("spiffe://{DOMAIN}/orch/orch-2"),
        format!("spiffe://{DOMAIN}/node/{ORCH}"),
        format!("spiffe://evil.example.org/orch/{ORCH}"),
    ] {
        let mut s = Scene::honest();
        s.peer = SpiffeId::parse(&uri).unwrap();
        let r = s.verify().unwrap_err();
        assert_eq!((r.check, r.code), (1, "peer"), "{uri}");
    }
    let revoked = |r: &mut v1::Revocations| {
        r.revoked = vec![v1::Revocation { id: ORCH.into(), not_before_seq: 2, ..Default::default() }]
    };
    refused(World { edit_revocations: revoked, ..World::default() }, 1, "peer-revoked");
}

// ---- 2: who signed it --------------------------------------------------------------------------------------

#[test]
fn check_2_a_grant_counts_only_under_a_listed_statement_key_in_its_window() {
    for signer in [who::STRANGER, who::OLD_STK, who::DEPLOYER] {
        refused(World { grant_signer: signer, ..World::default() }, 2, "grant-signature");
    }
    tampered(|s| s.assign.grant = None, 2, "grant-missing");
    tampered(|s| s.assign.grant.as_mut().unwrap().sigs.clear(), 2, "grant-signature");
    tampered(
        |s| s.assign.grant.as_mut().unwrap().r#type = "application/vnd.holdfast.spec.v1".into(),
        2,
        "grant-malformed",
    );
    tampered(|s| s.assign.grant.as_mut().unwrap().payload.extend([0xf8, 0x01, 1]), 2, "grant-malformed");
}

#[test]
fn c7_a_grant_altered_in_any_field_has_no_signature() {
    let alter: [fn(&mut v1::Grant); 27] = [
        |g| g.cluster_id[0] ^= 1,
        |g| g.era += 1,
        |g| g.grant_id[0] ^= 1,
        |g| g.namespace.push('x'),
        |g| g.fence += 1,
        |g| g.mandate_sha256[0] ^= 1,
        |g| g.node_id.push('x'),
        |g| g.node_seq += 1,
        |g| g.hpke_kid[0] ^= 1,
        |g| g.task_id.push('1'),
        |g| g.task_gen += 1,
        |g| g.service.push('x'),
        |g| g.service_version += 1,
        |g| g.spec_sha256[0] ^= 1,
        |g| g.images[0].digest[0] ^= 1,
        |g| g.secrets.clear(),
        |g| g.secrets[0].version += 1,
        |g| g.params[0].value = "3".into(),
        |g| g.exclusive = true,
        |g| g.protected = true,
        |g| g.issued_at_ms += 1,
        |g| g.start_before_ms += 1,
        |g| g.lease_until_ms += 1,
        |g| g.grace_s += 1,
        |g| g.on_expiry = "stop".into(),
        |g| g.policy_version += 1,
        |g| g.max_status_age_s += 1,
    ];
    for (i, f) in alter.iter().enumerate() {
        let mut s = Scene::honest();
        let mut g = s.grant();
        f(&mut g);
        s.assign.grant.as_mut().unwrap().payload = g.encode_to_vec();
        let r = s.verify().unwrap_err();
        assert_eq!((r.check, r.code), (2, "grant-signature"), "alteration {i}");
    }
}

// ---- 3: whom it is for -------------------------------------------------------------------------------------

#[test]
fn c6_another_nodes_grant_is_refused() {
    granted(|g| g.node_id = "node-2".into(), 3, "node");
    granted(|g| g.node_seq = SEQ + 1, 3, "node-seq");
    granted(|g| g.node_seq = SEQ - 2, 3, "node-seq");
    granted(|g| g.cluster_id = vec![0; 32], 3, "cluster");
    granted(|g| g.era = 2, 3, "era");
    granted(|g| g.grant_id = vec![1; 15], 3, "grant-id");
}

#[test]
fn a_grant_for_the_previous_key_generation_is_still_good() {
    let previous = World { edit_scene: |s| s.me.keys.rotate_left(1), ..World::default() };
    assert!(previous.build().verify().is_ok());
}

// ---- 4: when -----------------------------------------------------------------------------------------------

#[test]
fn c14_a_grant_that_was_sat_on_does_not_start() {
    tampered(|s| s.now = NOW + 5 * MINUTE + 1, 4, "start-before");
    granted(|g| g.lease_until_ms = NOW - 1, 4, "lease-over");
}

#[test]
fn c25_without_a_fresh_status_nothing_starts() {
    granted(|g| g.max_status_age_s = 9, 4, "status-age");
    // Even a standby grant has its limit: the status may be a day old, not two.
    let standby = World {
        edit_grant: |g| {
            (g.max_status_age_s, g.start_before_ms, g.lease_until_ms) = (u32::MAX, NOW + 2 * DAY, NOW + DAY - 1)
        },
        edit_charter: |c| c.limits = None,
        edit_scene: |s| s.now = NOW - 10_000 + DAY - 1,
        ..World::default()
    };
    assert!(standby.build().verify().is_ok());
    refused(
        World {
            edit_grant: |g| {
                (g.max_status_age_s, g.start_before_ms, g.lease_until_ms) = (u32::MAX, NOW + 2 * DAY, NOW + 2 * DAY)
            },
            edit_charter: |c| c.limits = None,
            edit_scene: |s| s.now = NOW + DAY,
            ..World::default()
        },
        4,
        "status-age",
    );
}

#[test]
fn d11_a_clock_set_back_revives_nothing() {
    // The status told NOW - 10 s: a local clock 30 days slow counts as that, so the grant that lapsed before is dead.
    let slow = World {
        edit_grant: |g| g.start_before_ms = NOW - 10_001,
        edit_scene: |s| s.now = NOW - 30 * DAY,
        ..World::default()
    };
    refused(slow, 4, "start-before");
    let lease = World {
        edit_grant: |g| g.lease_until_ms = NOW - 10_001,
        edit_scene: |s| s.now = NOW - 30 * DAY,
        ..World::default()
    };
    refused(lease, 4, "lease-over");
}

#[test]
fn check_4_needs_the_documents_that_the_status_names() {
    refused(World { edit_status: |s| s.charter_version = 2, ..World::default() }, 4, "status-ahead");
    refused(World { edit_status: |s| s.bundle_sha256 = vec![1; 32], ..World::default() }, 4, "status-ahead");
    refused(World { edit_status: |s| s.lockdown = true, ..World::default() }, 4, "lockdown");
    tampered(
        |s| {
            let st = s.status(|x| (x.issued_at_ms, x.revocations_sha256) = (x.issued_at_ms + 1, vec![2; 32]));
            s.adopt_status(&st);
        },
        4,
        "revocations-missing",
    );
    tampered(
        |s| {
            let mut saved = s.trust.saved();
            saved.status = None;
            s.trust = holdfast_orchestrator_core::verify::NodeTrust::rebuild(&saved).unwrap();
        },
        4,
        "status-missing",
    );
}

#[test]
fn the_charter_bounds_lease_and_grace() {
    granted(|g| g.lease_until_ms += 1_001, 4, "lease-limit");
    granted(|g| g.grace_s += 1, 4, "grace-limit");
}

// ---- 5: only once, only forward ----------------------------------------------------------------------------

#[test]
fn c13_a_used_grant_an_older_generation_and_an_older_fence_are_refused() {
    let mut s = Scene::honest();
    let a = s.verify().unwrap();
    s.memory.consume(&a);
    assert_eq!(s.verify().unwrap_err().code, "grant-consumed");
    s.memory.consumed.clear();
    let r = s.verify().unwrap_err();
    assert_eq!((r.check, r.code), (5, "task-gen"));
    s.memory.last_gen.clear();
    s.memory.max_fence.get_mut("shop").unwrap().fence = 6;
    let r = s.verify().unwrap_err();
    assert_eq!((r.check, r.code), (5, "fence"));
}

#[test]
fn c23_an_assignment_under_an_older_lease_is_refused() {
    granted(|g| g.fence = 4, 5, "fence");
    // A fence newer than the last status is fine: the grant is signed by the vault itself.
    assert!(World { edit_grant: |g| g.fence = 6, ..World::default() }.build().verify().is_ok());
}

#[test]
fn consumed_grants_are_forgotten_only_when_their_time_floor_has_passed() {
    let mut s = Scene::honest();
    let a = s.verify().unwrap();
    s.memory.consume(&a);
    s.memory.forget_expired(Millis(NOW + 5 * MINUTE));
    assert_eq!(s.memory.consumed.len(), 1);
    s.memory.forget_expired(Millis(NOW + 5 * MINUTE + 1));
    assert_eq!(s.memory.consumed.len(), 0);
}

// ---- 10: used up -------------------------------------------------------------------------------------------

#[test]
fn check_10_a_grant_is_used_up_once_and_not_before_its_log_is_proven_to_be_one() {
    let mut s = Scene::honest();
    let a = s.verify().unwrap();
    let untouched = s.memory.clone();
    s.memory = use_up(&s.trust, &s.memory, &a, None).unwrap();
    assert_ne!(s.memory, untouched);
    assert_eq!(s.memory.consumed.get(&a.grant_id), Some(&Millis(a.grant.start_before_ms)));
    let r = s.verify().unwrap_err();
    assert_eq!((r.check, r.code), (5, "grant-consumed"));

    // A receipt of a longer log than the one that is known: only the proof for this very gap will do.
    s.memory = untouched;
    let gap = Gap { from: 1, to: 2, note: b"note".to_vec() };
    let unproven = Accepted { gap: Some(gap.clone()), ..a };
    let other = Gap { to: 3, ..gap.clone() };
    for proven in [None, Some(&other)] {
        assert_eq!(use_up(&s.trust, &s.memory, &unproven, proven), Err(gap.clone()));
    }
    s.memory = use_up(&s.trust, &s.memory, &unproven, Some(&gap)).unwrap();
    assert_eq!(s.verify().unwrap_err().code, "grant-consumed");
}
