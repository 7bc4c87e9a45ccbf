//! No empty guard opens: what a document does not say is refused, never filled in by the vault.

use crate::world::{World, secret};
use holdfast_vault_core::Code;
use holdfast_wire::v1;

const DAY: i64 = 86_400_000;

/// The refusal says that it is the document's fault, and names what is missing.
fn refused<T>(outcome: Result<T, holdfast_vault_core::Refusal>, word: &str) {
    let r = outcome.err().unwrap_or_else(|| panic!("accepted without its {word}"));
    assert_eq!(r.code, Code::InvalidInput, "{r}");
    assert!(r.reason.contains(word), "{r}");
}

#[test]
fn a_spec_says_its_zones_and_its_end() {
    let (mut w, ..) = World::shop();
    let good = w.spec("web", 2, &["db"]);
    for (bad, word) in [
        (v1::Spec { zones: Vec::new(), ..good.clone() }, "zones"),
        (v1::Spec { on_expiry: String::new(), ..good.clone() }, "lease's end"),
        (v1::Spec { exclusive: true, on_expiry: "run-on".into(), ..good.clone() }, "exclusive"),
        (v1::Spec { images: Vec::new(), ..good.clone() }, "image"),
        (v1::Spec { replicas_min: 4, ..good.clone() }, "replicas"),
        (v1::Spec { valid_until_ms: w.now.0 + 181 * DAY, ..good.clone() }, "180 days"),
    ] {
        refused(w.deploy(&bad), word);
    }
    w.deploy(&good).unwrap();
}

#[test]
fn a_secret_says_its_readers_and_zones() {
    let (mut w, ..) = World::shop();
    let good = secret("db", 2, &["shop/web"]);
    for (bad, word) in [
        (v1::PutSecret { readers: Vec::new(), ..good.clone() }, "services"),
        (v1::PutSecret { zones: Vec::new(), ..good.clone() }, "zones"),
    ] {
        let (st, sealed) = w.secret_statement(&["sam"], bad, b"value");
        refused(w.submit(&st, &sealed), word);
    }
    let (st, sealed) = w.secret_statement(&["sam"], good, b"value");
    w.submit(&st, &sealed).unwrap();
}

#[test]
fn a_mandate_says_its_budgets() {
    let mut w = World::new();
    let orch = w.orchestrator();
    let good = w.mandate("m1", &[&orch.id]);
    refused(w.put_mandate(&v1::Mandate { grants_per_minute: 0, ..good.clone() }), "grants a minute");
    refused(w.put_mandate(&v1::Mandate { novelty_per_hour: 0, ..good.clone() }), "an hour");
    w.put_mandate(&good).unwrap();
}

#[test]
fn a_token_says_its_uses_its_zone_and_an_end_within_a_day() {
    let mut w = World::new();
    let good = w.token("node");
    for (bad, word) in [
        (v1::MintToken { uses: 0, ..good.clone() }, "how often"),
        (v1::MintToken { uses: 10_001, ..good.clone() }, "how often"),
        (v1::MintToken { zone: String::new(), ..good.clone() }, "zone"),
        (v1::MintToken { expires_at_ms: w.now.0 + DAY + 1, ..good.clone() }, "24 h"),
        (v1::MintToken { expires_at_ms: w.now.0, ..good.clone() }, "24 h"),
        (v1::MintToken { role: "admin".into(), ..good.clone() }, "node"),
    ] {
        refused(w.mint_as(&["ada"], bad), word);
    }
    w.mint_as(&["ada"], v1::MintToken { expires_at_ms: w.now.0 + DAY, ..good }).unwrap();
}

#[test]
fn a_clock_that_went_back_takes_neither_decisions_nor_entries_along() {
    let (mut w, orch, node) = World::shop();
    w.pass(30_000);
    w.keep_lease(&orch).unwrap();
    w.pass(-3_600_000);
    let (grant, _, leaf) = w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    let g: v1::Grant = holdfast_wire::statement::peek(&grant).unwrap();
    assert_eq!(g.issued_at_ms, w.entry(leaf).at_ms, "decided by the time of its entry");
    assert_eq!(w.state.time(w.now), holdfast_types::Millis(w.now.0 + 3_600_000));
}
