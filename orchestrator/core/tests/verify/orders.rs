//! Stop, revoke, lease extension, logs.

use crate::world::*;
use holdfast_orchestrator_core::verify::{
    Fence, Refusal, RunningTask, StopAllowed, verify_lease_ext, verify_logs_request, verify_revoke, verify_stop,
};
use holdfast_types::{GrantId, Millis, SpiffeId};
use holdfast_wire::v1;
use std::time::Duration;

const GRANT: GrantId = GrantId([0x6a; 16]);

fn stop(fence: u64) -> v1::Stop {
    v1::Stop { task_id: "shop.web.2".into(), namespace: "shop".into(), fence, revocation: None, timeout_ms: 10_000 }
}
fn judge(s: &Scene, protected: bool, order: &v1::Stop) -> Result<StopAllowed, Refusal> {
    let task = RunningTask { grant_id: GRANT, task_id: "shop.web.2", namespace: "shop", protected };
    verify_stop(&s.trust, &s.me, &s.memory, &s.peer, Millis(s.now), &task, order)
}
fn revoke(s: &Scene, edit: impl FnOnce(&mut v1::Revoke)) -> v1::Revoke {
    let mut r = v1::Revoke {
        cluster_id: s.cluster.0.to_vec(),
        era: 1,
        node_id: ME.into(),
        grant_ids: vec![GRANT.to_vec()],
        reason: "drain".into(),
        issued_at_ms: NOW,
    };
    edit(&mut r);
    r
}

#[test]
fn c23_only_the_holder_of_the_newest_lease_stops_a_task() {
    let mut s = Scene::honest();
    assert_eq!(judge(&s, false, &stop(5)).unwrap().timeout, Duration::from_secs(10));
    assert_eq!(judge(&s, false, &stop(4)).unwrap_err().code, "fence");
    assert_eq!(judge(&s, false, &stop(u64::MAX)).unwrap_err().code, "fence-unproven");
    let other = v1::Stop { task_id: "shop.web.3".into(), ..stop(5) };
    assert_eq!(judge(&s, false, &other).unwrap_err().code, "stop-task");
    s.peer = SpiffeId::parse(&format!("spiffe://{DOMAIN}/orch/orch-2")).unwrap();
    assert_eq!(judge(&s, false, &stop(5)).unwrap_err().code, "stop-holder");
    // A grant verified under a newer lease moves it on before any status says so.
    s.memory.max_fence.insert("shop".into(), Fence { fence: 6, orch_id: "orch-2".into() });
    assert!(judge(&s, false, &stop(6)).is_ok());
    assert_eq!(judge(&s, false, &stop(5)).unwrap_err().code, "fence");
    s.peer = SpiffeId::parse(&format!("spiffe://{DOMAIN}/node/orch-2")).unwrap();
    assert_eq!(judge(&s, false, &stop(6)).unwrap_err().code, "peer");
}

#[test]
fn in_a_namespace_without_a_known_lease_nobody_stops_anything() {
    let s = World { edit_status: |x| x.holders.clear(), ..World::default() }.build();
    assert_eq!(judge(&s, false, &stop(0)).unwrap_err().code, "stop-holder");
}

#[test]
fn c24_a_protected_task_stops_only_for_the_vault() {
    let s = Scene::honest();
    assert_eq!(judge(&s, true, &stop(5)).unwrap_err().code, "protected");
    let with = |r: v1::Revoke, signer| v1::Stop { revocation: Some(signed(&r, &[signer])), ..stop(5) };
    assert!(judge(&s, true, &with(revoke(&s, |_| {}), who::STK)).is_ok());
    assert_eq!(judge(&s, true, &with(revoke(&s, |_| {}), who::ADMINS[0])).unwrap_err().code, "revoke-signature");
    assert_eq!(
        judge(&s, true, &with(revoke(&s, |r| r.grant_ids = vec![vec![1; 16]]), who::STK)).unwrap_err().code,
        "protected"
    );
    assert_eq!(judge(&s, true, &with(revoke(&s, |r| r.node_id = "node-2".into()), who::STK)).unwrap_err().code, "node");
}

#[test]
fn a_revocation_is_for_this_cluster_era_and_node() {
    let s = Scene::honest();
    let judge = |r: v1::Revoke, signer| verify_revoke(&s.trust, &s.me, Millis(NOW), &signed(&r, &[signer]));
    assert_eq!(judge(revoke(&s, |_| {}), who::STK).unwrap(), [GRANT]);
    for (edit, code) in [
        ((|r| r.cluster_id = vec![0; 32]) as fn(&mut v1::Revoke), "cluster"),
        (|r| r.era = 0, "era"),
        (|r| r.node_id = "node-2".into(), "node"),
        (|r| r.grant_ids.push(vec![1]), "grant-id"),
    ] {
        assert_eq!(judge(revoke(&s, edit), who::STK).unwrap_err().code, code);
    }
    assert_eq!(judge(revoke(&s, |_| {}), who::OLD_STK).unwrap_err().code, "revoke-signature");
}

#[test]
fn a_lease_is_extended_by_the_vault_alone_and_within_the_charters_limit() {
    let s = Scene::honest();
    let ext = |until: i64| v1::LeaseExt {
        cluster_id: s.cluster.0.to_vec(),
        era: 1,
        node_id: ME.into(),
        extensions: vec![v1::Extension { grant_id: GRANT.to_vec(), lease_until_ms: until }],
        issued_at_ms: NOW,
    };
    let judge = |x: &v1::LeaseExt, signer| verify_lease_ext(&s.trust, &s.me, Millis(NOW), &signed(x, &[signer]));
    let ok = judge(&ext(NOW + DAY), who::STK).unwrap();
    assert_eq!((ok[0].grant_id, ok[0].lease_until), (GRANT, Millis(NOW + DAY)));
    assert_eq!(judge(&ext(NOW + DAY + 1), who::STK).unwrap_err().code, "lease-limit");
    assert_eq!(judge(&ext(NOW + DAY), who::DEPLOYER).unwrap_err().code, "lease-ext-signature");
    assert_eq!(judge(&v1::LeaseExt { node_id: "node-2".into(), ..ext(NOW) }, who::STK).unwrap_err().code, "node");
    assert_eq!(judge(&v1::LeaseExt { era: 2, ..ext(NOW) }, who::STK).unwrap_err().code, "era");
}

#[test]
fn logs_are_shown_to_whoever_owns_the_namespace_and_to_nobody_else() {
    let s = Scene::honest();
    let request = || v1::LogsRequest {
        cluster_id: s.cluster.0.to_vec(),
        request_id: vec![1; 16],
        namespace: "shop".into(),
        service: "web".into(),
        task_id: "shop.web.2".into(),
        tail: 100,
        follow: false,
        reply_pk: vec![2; 32],
        expires_at_ms: NOW + MINUTE,
        since_ms: 0,
    };
    let judge = |r: &v1::LogsRequest, signer| {
        verify_logs_request(&s.trust, Millis(NOW), &signed(r, &[signer])).map_err(|r| r.code)
    };
    for signer in [who::DEPLOYER, who::SECOND_DEPLOYER, who::ADMINS[1]] {
        assert_eq!(judge(&request(), signer).unwrap(), request());
    }
    for signer in [who::DEPLOYER_ELSEWHERE, who::PUBLISHER[0], who::STK, who::STRANGER] {
        assert_eq!(judge(&request(), signer), Err("logs-signature"));
    }
    for (edit, code) in [
        ((|r| r.cluster_id = vec![0; 32]) as fn(&mut v1::LogsRequest), "cluster"),
        (|r| r.expires_at_ms = NOW - 1, "logs-expired"),
        (|r| r.request_id = vec![1; 15], "logs-malformed"),
        (|r| r.reply_pk.clear(), "logs-malformed"),
        (|r| r.service = "../web".into(), "logs-malformed"),
        (|r| r.task_id = "bank.web.1".into(), "logs-malformed"),
    ] {
        let mut r = request();
        edit(&mut r);
        assert_eq!(judge(&r, who::DEPLOYER), Err(code));
    }
}
