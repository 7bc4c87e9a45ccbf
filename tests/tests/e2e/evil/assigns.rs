//! Assignments that are not what the vault granted: refused, told to the vault, and nothing starts.

use super::super::world::World;
use super::orchestrator::Evil;
use super::{VALUE, assert_honest_work_goes_on, assert_untouched, evidence, shims};
use holdfast_types::ClusterId;
use holdfast_wire::v1::{Assign, Grant, Param, Spec};
use holdfast_wire::{boxes, statement};
use prost::Message as _;

/// A cluster with `nodes` nodes and the service declared, whose orchestrator turned evil before anything ran.
fn betrayed(nodes: usize) -> (World, Evil, Vec<String>) {
    let mut w = World::everything();
    for _ in 1..nodes {
        w.add_node("eu");
    }
    let evil = Evil::in_place_of_the_honest_one(&mut w);
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1), "--detach"]);
    let ids = super::node_ids(&w);
    (w, evil, ids)
}

/// The genuine assignment is accepted after all the lies about it, and under the honest orchestrator work goes on.
fn assert_still_counts(mut w: World, evil: Evil, node: &str, genuine: &Assign) {
    let answer = evil.assign(node, genuine);
    assert!(answer.accepted, "{answer:?}");
    drop(evil);
    assert_honest_work_goes_on(&mut w, 1);
}

fn edit_grant(assign: &mut Assign, edit: impl FnOnce(&mut Grant)) {
    let st = assign.grant.as_mut().unwrap();
    let mut grant: Grant = statement::peek(st).unwrap();
    edit(&mut grant);
    st.payload = grant.encode_to_vec();
}

fn edit_spec(assign: &mut Assign, edit: impl FnOnce(&mut Spec)) {
    let st = assign.spec.as_mut().unwrap();
    let mut spec: Spec = statement::peek(st).unwrap();
    edit(&mut spec);
    st.payload = spec.encode_to_vec();
}

fn own_box(assign: &Assign) -> Vec<u8> {
    let grant: Grant = statement::peek(assign.grant.as_ref().unwrap()).unwrap();
    let secret = &grant.secrets[0];
    let (_, public) = boxes::derive_keypair(&[7; 32]);
    let aad = boxes::secret_aad(&grant.grant_id, &secret.name, secret.version, &grant.node_id, grant.node_seq);
    let cluster = ClusterId(grant.cluster_id.as_slice().try_into().unwrap());
    let context = boxes::Context { purpose: "secret", cluster: &cluster, aad: &aad };
    boxes::seal(&public, &context, None, b"a password of the liar's choice", [9; 32]).unwrap()
}

#[test]
fn a_grant_that_was_altered_in_any_field_is_refused_and_the_genuine_one_still_counts() {
    let (w, evil, nodes) = betrayed(1);
    let genuine = evil.genuine(&nodes[0], "shop.web.1");
    let edits: [fn(&mut Grant); 6] = [
        |g| g.images[0].digest[0] ^= 1,
        |g| g.secrets.clear(),
        |g| g.lease_until_ms += 1,
        |g| g.task_gen += 1,
        |g| g.params.push(Param { name: "shell".into(), value: "yes".into() }),
        |g| g.protected = true,
    ];
    for edit in edits {
        let mut altered = genuine.clone();
        edit_grant(&mut altered, edit);
        evil.refused(&nodes[0], &altered, "grant-signature");
    }
    let mut unsigned = genuine.clone();
    unsigned.grant.as_mut().unwrap().sigs.clear();
    evil.refused(&nodes[0], &unsigned, "grant-signature");
    let mut renamed = genuine.clone();
    edit_grant(&mut renamed, |g| g.orch_id.push('x'));
    evil.refused(&nodes[0], &renamed, "peer");
    evidence(&w, "grant-signature");
    evidence(&w, "peer");
    assert_untouched(&w, 0);

    // Lies about a grant do not use it up: only the vault's word does.
    assert_still_counts(w, evil, &nodes[0], &genuine);
}

#[test]
fn a_grant_with_another_spec_image_or_secret_is_refused() {
    let (mut w, evil, nodes) = betrayed(1);
    type Edit = fn(&mut Assign);
    let cases: [(&str, Edit); 8] = [
        ("spec-signature", |a| edit_spec(a, |s| s.command = vec!["/bin/busybox".into(), "true".into()])),
        ("spec-signature", |a| edit_spec(a, |s| s.isolation = "relaxed".into())),
        ("spec-missing", |a| a.spec = None),
        ("voucher", |a| a.vouchers.clear()),
        ("voucher", |a| a.vouchers.iter_mut().for_each(|v| v.sigs.clear())),
        ("boxes", |a| a.boxes.clear()),
        ("box-hash", |a| *a.boxes[0].last_mut().unwrap() ^= 1),
        ("box-hash", |a| a.boxes[0] = own_box(a)),
    ];
    for (code, edit) in cases {
        let mut altered = evil.genuine(&nodes[0], "shop.web.1");
        edit(&mut altered);
        evil.refused(&nodes[0], &altered, code);
        evidence(&w, code);
    }
    assert_untouched(&w, 0);
    drop(evil);
    assert_honest_work_goes_on(&mut w, 1);
}

#[test]
fn a_grant_without_proof_that_it_was_logged_is_refused() {
    let (mut w, evil, nodes) = betrayed(1);
    let other = evil.genuine(&nodes[0], "shop.web.1").receipt;
    type Edit = fn(&mut Assign);
    let cases: [(&str, Edit); 5] = [
        ("receipt-missing", |a| a.receipt = None),
        ("inclusion", |a| a.receipt.as_mut().unwrap().salt[0] ^= 1),
        ("inclusion", |a| a.receipt.as_mut().unwrap().inclusion[0][0] ^= 1),
        ("receipt-entry", |a| a.receipt.as_mut().unwrap().leaf_index += 1),
        ("checkpoint", |a| {
            let note = &mut a.receipt.as_mut().unwrap().checkpoint;
            let size = note.iter().position(|b| *b == b'\n').unwrap() + 1;
            note[size] = if note[size] == b'9' { b'8' } else { b'9' };
        }),
    ];
    for (code, edit) in cases {
        let mut altered = evil.genuine(&nodes[0], "shop.web.1");
        edit(&mut altered);
        evil.refused(&nodes[0], &altered, code);
        evidence(&w, code);
    }
    let mut borrowed = evil.genuine(&nodes[0], "shop.web.1");
    borrowed.receipt = other;
    evil.refused(&nodes[0], &borrowed, "receipt-grant");
    evidence(&w, "receipt-grant");
    assert_untouched(&w, 0);
    drop(evil);
    assert_honest_work_goes_on(&mut w, 1);
}

#[test]
fn a_grant_for_one_node_is_refused_by_another() {
    let (w, evil, nodes) = betrayed(2);
    let for_first = evil.genuine(&nodes[0], "shop.web.1");
    evil.refused(&nodes[1], &for_first, "node");
    assert!(evidence(&w, "node").contains(&nodes[1]), "the evidence names another node");
    assert_untouched(&w, 0);
    assert_untouched(&w, 1);
    // Nor was the grant ended by it: where it belongs, it counts.
    assert_still_counts(w, evil, &nodes[0], &for_first);
}

#[test]
fn a_grant_whose_first_delivery_was_spoiled_never_runs() {
    let (mut w, evil, nodes) = betrayed(1);
    let genuine = evil.genuine(&nodes[0], "shop.web.1");
    let spoiled = Assign { spec: None, ..genuine.clone() };
    evil.refused(&nodes[0], &spoiled, "spec-missing");
    // The node has told the vault that this grant never runs. A task that ran under it would be known to nobody: no
    // revocation would reach it.
    evil.refused(&nodes[0], &genuine, "grant-consumed");
    assert_untouched(&w, 0);
    drop(evil);
    assert_honest_work_goes_on(&mut w, 1);
}

#[test]
fn a_grant_that_is_delivered_again_starts_nothing_and_ends_nothing() {
    let (mut w, evil, nodes) = betrayed(1);
    let genuine = evil.genuine(&nodes[0], "shop.web.1");
    assert!(evil.assign(&nodes[0], &genuine).accepted);
    super::super::world::eventually("the task to run", || (w.running("shop/web").len() == 1).then_some(()));
    let before = shims(&w, 0);
    assert_eq!(before.len(), 1);
    evil.refused(&nodes[0], &genuine, "grant-consumed");
    let spoiled = Assign { receipt: None, ..genuine };
    evil.refused(&nodes[0], &spoiled, "grant-consumed");
    evidence(&w, "grant-consumed");
    assert_eq!(shims(&w, 0), before);
    assert_eq!(w.running("shop/web").len(), 1);
    drop(evil);
    assert_honest_work_goes_on(&mut w, 1);
    assert_eq!(shims(&w, 0), before, "the honest orchestrator had to replace the task");
}
