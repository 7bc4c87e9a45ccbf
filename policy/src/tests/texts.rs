//! Which policy texts are taken, and what the schema holds.

use super::*;
use crate::samples::Samples;
use std::collections::BTreeSet;

fn refused(text: &str) -> String {
    match Policies::with_l1(text, 1) {
        Ok(_) => panic!("taken: {text}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn a_rule_that_the_schema_does_not_type_is_refused() {
    for text in [
        "permit(principal is Holdfast::Operator, action, resource) when { principal.owns == 3 };",
        "permit(principal is Holdfast::Operator, action, resource) when { principal.wons.isEmpty() };",
        "permit(principal is Holdfast::Human, action, resource);",
        r#"permit(principal, action == Holdfast::Action::"readSecret", resource);"#,
        // Typed, but it can never match: an author who wrote this meant something else.
        r#"permit(principal is Holdfast::Node, action == Holdfast::Action::"grant", resource);"#,
    ] {
        assert!(refused(text).contains("does not fit the schema"), "{text}");
    }
}

#[test]
fn a_text_that_is_not_a_set_of_plain_policies_is_refused() {
    assert!(refused("permit(principal, action").contains("does not parse"));
    assert!(refused("permit(principal == ?principal, action, resource);").contains("templates"));
}

#[test]
fn a_rule_takes_no_invariants_name_and_no_name_twice() {
    assert!(refused(&format!("@id(\"L0-mine\") {PERMIT_ALL}")).contains("reserved"));
    assert!(refused(&format!("@id(\"x\") {PERMIT_ALL} @id(\"x\") {PERMIT_ALL}")).contains("named \"x\""));
}

#[test]
fn an_empty_text_permits_nothing() {
    let p = Policies::with_l1("", 1).unwrap();
    assert!(p.decide_grant(&grant()).is_err_and(|r| r.policies.is_empty()));
}

/// The names of all actions in the schema.
fn actions() -> BTreeSet<String> {
    let p = Policies::builtin().unwrap();
    p.schema.actions().map(|a| a.id().unescaped().to_owned()).collect()
}

#[test]
fn the_acts_are_those_of_the_schema() {
    let own = ["grant", "mountSecret", "issueSvid"].into_iter();
    let ours = OperatorAct::ALL.iter().map(|a| a.name()).chain(own).map(str::to_owned).collect();
    assert_eq!(actions(), ours);
}

#[test]
fn an_entity_of_each_kind_that_a_decision_makes_was_checked_against_the_schema() {
    let p = Policies::builtin().unwrap();
    let checked: BTreeSet<String> =
        Samples::new().unwrap().entities(&p.kinds).unwrap().iter().map(|e| e.uid().type_name().to_string()).collect();
    // Named by others, and never there themselves.
    let named = ["Role", "Zone", "Namespace", "Publisher"].map(|kind| format!("Holdfast::{kind}"));
    let kinds: BTreeSet<String> =
        p.schema.entity_types().map(ToString::to_string).filter(|kind| !named.contains(kind)).collect();
    assert_eq!(checked, kinds);
}

#[test]
fn no_action_lets_anybody_read_a_secret() {
    let p = Policies::builtin().unwrap();
    let secret: cedar_policy::EntityTypeName = "Holdfast::Secret".parse().unwrap();
    let on_secrets: BTreeSet<(String, String)> = p
        .schema
        .request_envs()
        .filter(|e| *e.resource() == secret)
        .map(|e| (e.principal().basename().to_owned(), e.action().id().unescaped().to_owned()))
        .collect();
    let expected = [
        ("Operator", "deleteSecret"),
        ("Operator", "putSecret"),
        ("Operator", "rotateSecret"),
        // Seals the value to a node for a task; it is shown to no person and to no orchestrator.
        ("Service", "mountSecret"),
    ];
    assert_eq!(on_secrets, expected.map(|(p, a)| (p.to_owned(), a.to_owned())).into());
    assert!(!actions().iter().any(|a| a.to_lowercase().contains("read") && a != "readAudit"));
}
