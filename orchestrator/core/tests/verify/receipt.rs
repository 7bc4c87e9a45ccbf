//! Check 6: what was not logged does not run.

use crate::world::*;
use holdfast_types::Millis;
use holdfast_wire::v1;

#[track_caller]
fn refused(w: World, code: &str) {
    let r = w.build().verify().unwrap_err();
    assert_eq!((r.check, r.code), (6, code), "{r}");
}
#[track_caller]
fn tampered(edit: fn(&mut v1::Receipt), code: &str) {
    let mut s = Scene::honest();
    edit(s.assign.receipt.as_mut().unwrap());
    let r = s.verify().unwrap_err();
    assert_eq!((r.check, r.code), (6, code), "{r}");
}

#[test]
fn j1_a_grant_that_was_never_logged_is_refused() {
    refused(World { edit_scene: |s| s.assign.receipt = None, ..World::default() }, "receipt-missing");
}

#[test]
fn j2_a_receipt_for_something_else_or_from_another_tree_is_refused() {
    refused(World { edit_entry: |e| e.kind = "grant.denied".into(), ..World::default() }, "receipt-entry");
    refused(World { edit_entry: |e| e.index += 1, ..World::default() }, "receipt-entry");
    refused(World { edit_entry: |e| e.fields[0].value = "00".repeat(32), ..World::default() }, "receipt-grant");
    refused(World { edit_entry: |e| e.fields[0].name = "grant".into(), ..World::default() }, "receipt-grant");
    refused(
        World {
            edit_entry: |e| e.fields.insert(0, v1::Field { name: "grant_sha256".into(), value: "00".repeat(32) }),
            ..World::default()
        },
        "receipt-grant",
    );
    tampered(|r| r.leaf_index += 1, "receipt-entry");
    tampered(|r| r.salt.truncate(31), "receipt-salt");
    tampered(|r| r.salt[0] ^= 1, "inclusion");
    tampered(|r| r.entry.push(0), "receipt-entry");
    tampered(|r| r.entry.extend([0x78, 1]), "receipt-entry");
    tampered(|r| r.inclusion[1][3] ^= 1, "inclusion");
    tampered(|r| r.inclusion[0].truncate(31), "inclusion");
    tampered(
        |r| {
            r.inclusion.pop();
        },
        "inclusion",
    );
    tampered(|r| r.inclusion.push(vec![0; 32]), "inclusion");
}

#[test]
fn a_checkpoint_counts_only_under_a_statement_key_and_this_logs_name() {
    refused(World { checkpoint_signer: who::STRANGER, ..World::default() }, "checkpoint");
    refused(World { checkpoint_signer: who::OLD_STK, ..World::default() }, "checkpoint");
    tampered(|r| r.checkpoint.clear(), "checkpoint");
    let mut s = Scene::honest();
    s.assign.receipt.as_mut().unwrap().checkpoint = s.log.checkpoint(2).sign(&key(who::STK)).unwrap();
    assert_eq!(s.verify().unwrap_err().code, "checkpoint");
}

#[test]
fn witnessed_receipts_are_refused_as_long_as_nobody_checks_the_witnesses() {
    refused(World { edit_charter: |c| c.receipt_mode = 1, ..World::default() }, "witnesses-unsupported");
    refused(World { edit_charter: |c| c.receipt_mode = 2, ..World::default() }, "witnesses-unsupported");
}

#[test]
fn j3_two_logs_of_one_size_are_a_split_view() {
    let mut s = Scene::honest();
    let mut other = Log::default();
    other.fill(s.log.size());
    let status = s.status(|x| {
        (x.issued_at_ms, x.checkpoint) = (x.issued_at_ms + 1, other.checkpoint(1).sign(&key(who::STK)).unwrap())
    });
    assert_eq!(s.trust.observe_status(Millis(NOW), &status).unwrap_err().code, "checkpoint-fork");
    // The same, met in a receipt: the held checkpoint is of the other log.
    let mut saved = s.trust.saved();
    saved.checkpoint = Some(other.checkpoint(1));
    s.trust = holdfast_orchestrator_core::verify::NodeTrust::rebuild(&saved).unwrap();
    let r = s.verify().unwrap_err();
    assert_eq!((r.check, r.code), (6, "checkpoint-fork"));
}

#[test]
fn a_receipt_from_a_grown_log_asks_for_a_consistency_proof() {
    let mut s = Scene::honest();
    let from = s.log.size();
    let leaf = s.assign.receipt.as_ref().unwrap().leaf_index;
    s.log.fill(6);
    let r = s.assign.receipt.as_mut().unwrap();
    (r.inclusion, r.checkpoint) = (s.log.inclusion(leaf), s.log.checkpoint(1).sign(&key(who::STK)).unwrap());
    let gap = s.trust.needs_consistency(Millis(NOW), s.assign.receipt.as_ref().unwrap()).unwrap().unwrap();
    assert_eq!((gap.from, gap.to), (from, from + 6));
    assert_eq!(s.verify().unwrap().gap, Some(gap.clone()));
    let bad = s.trust.observe_checkpoint(Millis(NOW), &gap.note, &[]);
    assert_eq!(bad.unwrap_err().code, "checkpoint-inconsistent");
    let news = todo(s.trust.observe_checkpoint(Millis(NOW), &gap.note, &s.log.consistency(from)));
    s.trust.adopt_checkpoint(news);
    assert_eq!(s.verify().unwrap().gap, None);
}
