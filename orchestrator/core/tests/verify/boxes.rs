//! Check 9: secrets open for the granted task on this node, from the vault's own hand, and in no other way.

use crate::lies::{refused, tampered};
use crate::world::*;
use holdfast_orchestrator_core::verify::NodeKey;
use holdfast_types::sha256;
use holdfast_wire::{boxes, padding, v1};
use prost::Message as _;

// ---- 9: the boxes ------------------------------------------------------------------------------------------

/// Replaces the first box by `b`, and signs the grant anew so that it names it: only the box itself is wrong then.
fn with_box(b: Vec<u8>, kid: Option<Vec<u8>>) -> Scene {
    let mut s = Scene::honest();
    let (mut g, honest) = (s.grant(), s.assign.boxes[1].clone());
    g.secrets[0].box_sha256 = sha256(&[&b]).to_vec();
    g.hpke_kid = kid.unwrap_or(g.hpke_kid);
    let grant = signed(&g, &[who::STK]);
    relog(&mut s, &grant);
    s.assign.grant = Some(grant);
    s.assign.boxes = vec![b, honest];
    s
}
/// Logs `grant` at the end of the log and gives the scene its receipt.
fn relog(s: &mut Scene, grant: &v1::Statement) {
    let fields = vec![v1::Field { name: "grant_sha256".into(), value: hash(grant).hex() }];
    let leaf_index = s.log.size();
    let entry = v1::LogEntry { index: leaf_index, kind: "grant.issued".into(), fields, ..v1::LogEntry::default() }
        .encode_to_vec();
    s.log.push(&[3; 32], &entry);
    let checkpoint = s.log.checkpoint(1).sign(&key(who::STK)).unwrap();
    s.assign.receipt =
        Some(v1::Receipt { leaf_index, entry, salt: vec![3; 32], inclusion: s.log.inclusion(leaf_index), checkpoint });
}
fn seal(s: &Scene, aad: &[u8], psk: Option<&NodeKey>, plaintext: &[u8], purpose: &str, pk: &[u8]) -> Vec<u8> {
    let c = boxes::Context { purpose, cluster: &s.cluster, aad };
    boxes::seal(pk, &c, psk.map(|k| &k.psk), plaintext, [7; 32]).unwrap()
}
#[track_caller]
fn box_refused(s: &Scene, code: &str) {
    let r = s.verify().unwrap_err();
    assert_eq!((r.check, r.code), (9, code), "{r}");
}

#[test]
fn a_box_that_was_granted_anew_opens() {
    let s = Scene::honest();
    let aad = boxes::secret_aad(&[0x6a; 16], "db-password", 2, ME, SEQ);
    let b = seal(&s, &aad, Some(&node_key(SEQ)), &padding::pad(b"new"), "secret", &node_public(SEQ));
    assert_eq!(with_box(b, None).verify().unwrap().secrets[0].bytes.expose(), b"new");
}

#[test]
fn c16_a_box_forged_without_the_psk_does_not_open() {
    let s = Scene::honest();
    let aad = boxes::secret_aad(&[0x6a; 16], "db-password", 2, ME, SEQ);
    let base = seal(&s, &aad, None, &padding::pad(b"evil"), "secret", &node_public(SEQ));
    box_refused(&with_box(base, None), "box");
    let guessed = seal(&s, &aad, Some(&node_key(99)), &padding::pad(b"evil"), "secret", &node_public(SEQ));
    box_refused(&with_box(guessed, None), "box");
}

#[test]
fn c17_d7_boxes_of_another_generation_or_node_do_not_open() {
    // Sealed to the previous generation: the grant says SEQ, so neither key nor PSK fit, whatever the node still holds.
    refused(World { secret_generation: SEQ - 1, ..World::default() }, 9, "box");
    // Captured on the wire: another node's key opens nothing, even if it claims the id and generation.
    tampered(|s| s.me.keys = vec![NodeKey { seq: SEQ, ..node_key(77) }], 9, "box");
    let s = Scene::honest();
    let theirs = boxes::secret_aad(&[0x6a; 16], "db-password", 2, "node-2", SEQ);
    let b = seal(&s, &theirs, Some(&node_key(SEQ)), &padding::pad(b"x"), "secret", &node_public(SEQ));
    box_refused(&with_box(b, None), "box");
}

#[test]
fn check_9_a_box_is_bound_to_grant_secret_version_generation_and_purpose() {
    let s = Scene::honest();
    for aad in [
        boxes::secret_aad(&[0x6b; 16], "db-password", 2, ME, SEQ),
        boxes::secret_aad(&[0x6a; 16], "shop/api-key", 2, ME, SEQ),
        boxes::secret_aad(&[0x6a; 16], "db-password", 1, ME, SEQ),
        boxes::secret_aad(&[0x6a; 16], "db-password", 2, ME, SEQ - 1),
    ] {
        let b = seal(&s, &aad, Some(&node_key(SEQ)), &padding::pad(b"x"), "secret", &node_public(SEQ));
        box_refused(&with_box(b, None), "box");
    }
    let aad = boxes::secret_aad(&[0x6a; 16], "db-password", 2, ME, SEQ);
    let k = node_key(SEQ);
    box_refused(&with_box(seal(&s, &aad, Some(&k), &padding::pad(b"x"), "intake", &node_public(SEQ)), None), "box");
    box_refused(&with_box(seal(&s, &aad, Some(&k), b"unpadded", "secret", &node_public(SEQ)), None), "box-padding");
    box_refused(&with_box(b"not a box".to_vec(), None), "box");
    let good = seal(&s, &aad, Some(&k), &padding::pad(b"x"), "secret", &node_public(SEQ));
    box_refused(&with_box(good, Some(vec![0; 16])), "box-kid");
}

#[test]
fn check_9_boxes_come_one_for_each_secret_in_order() {
    tampered(|s| s.assign.boxes.truncate(1), 9, "boxes");
    tampered(
        |s| {
            let b = s.assign.boxes[0].clone();
            s.assign.boxes.push(b);
        },
        9,
        "boxes",
    );
    tampered(|s| s.assign.boxes.swap(0, 1), 9, "box-hash");
    tampered(|s| s.assign.boxes[1][60] ^= 1, 9, "box-hash");
}
