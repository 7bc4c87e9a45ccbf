//! The must-deny suite: each invariant bites, whatever L1 says.

use super::*;

/// Each case names the invariant, breaks the one fact that it guards, and gives the verdict.
type Case = (&'static str, fn(&Policies) -> Result<(), Refusal>);

fn grant_with(p: &Policies, breaks: fn(&mut GrantFacts)) -> Result<(), Refusal> {
    let mut f = grant();
    breaks(&mut f);
    p.decide_grant(&f).map(drop)
}
fn mount_with(p: &Policies, breaks: fn(&mut MountFacts)) -> Result<(), Refusal> {
    let mut f = mount();
    breaks(&mut f);
    p.decide_mount(&f).map(drop)
}
fn svid_with(p: &Policies, breaks: fn(&mut SvidFacts)) -> Result<(), Refusal> {
    let mut f = svid();
    breaks(&mut f);
    p.decide_svid(&f).map(drop)
}

const CASES: &[Case] = &[
    ("L0-lockdown-grant", |p| grant_with(p, |f| f.lockdown = true)),
    ("L0-lockdown-secret", |p| mount_with(p, |f| f.lockdown = true)),
    ("L0-node-ready", |p| grant_with(p, |f| f.node.state = "draining".to_owned())),
    ("L0-node-ready", |p| grant_with(p, |f| f.node.state = "quarantined".to_owned())),
    ("L0-node-ready", |p| grant_with(p, |f| f.node.status_fresh = false)),
    ("L0-zone", |p| grant_with(p, |f| f.node.zone = Zone::parse("us").unwrap())),
    ("L0-zone", |p| grant_with(p, |f| f.node.zone = Zone::parse("eu2").unwrap())),
    ("L0-zone", |p| grant_with(p, |f| f.node.zone = Zone::all())),
    ("L0-zone", |p| grant_with(p, |f| f.service.zones = zones(&["us", "eu/dmz"]))),
    ("L0-zone", |p| grant_with(p, |f| f.service.zones = vec![])),
    ("L0-zone", |p| grant_with(p, |f| f.orchestrator.mandate_zones = zones(&["eu/dmz"]))),
    ("L0-zone", |p| grant_with(p, |f| f.orchestrator.mandate_zones = vec![])),
    ("L0-publisher", |p| grant_with(p, |f| f.publishers = vec![])),
    ("L0-publisher", |p| grant_with(p, |f| f.publishers = strings(&["build", "stranger"]))),
    ("L0-publisher", |p| grant_with(p, |f| f.service.publishers = vec![])),
    ("L0-spec-active", |p| grant_with(p, |f| f.spec_active = false)),
    ("L0-isolation", |p| grant_with(p, |f| f.wants_relaxed = true)),
    ("L0-budget", |p| grant_with(p, |f| f.within_budget = false)),
    ("L0-lease", |p| grant_with(p, |f| f.orchestrator.mandate_live = false)),
    ("L0-lease", |p| grant_with(p, |f| f.orchestrator.holds_lease = false)),
    ("L0-secret-zone", |p| mount_with(p, |f| f.node.zone = Zone::parse("eu").unwrap())),
    ("L0-secret-zone", |p| mount_with(p, |f| f.secret.zones = vec![])),
    ("L0-secret-zone", |p| mount_with(p, |f| f.node.state = "quarantined".to_owned())),
    ("L0-secret-attested", |p| mount_with(p, |f| f.secret.attested_only = true)),
    ("L0-svid", |p| svid_with(p, |f| f.live_grant_here = false)),
];

#[test]
fn each_invariant_bites_even_when_every_rule_permits_everything() {
    for policies in [Policies::builtin().unwrap(), Policies::with_l1(PERMIT_ALL, 7).unwrap()] {
        for (i, (invariant, verdict)) in CASES.iter().enumerate() {
            let refusal = verdict(&policies).expect_err(&format!("case {i} of {invariant}"));
            assert_eq!(refusal.policies, [*invariant], "case {i}: {refusal}");
        }
    }
}

#[test]
fn the_suite_covers_every_invariant_that_is_compiled_in() {
    let p = Policies::builtin().unwrap();
    for policy in p.set.policies().filter(|p| p.id().to_string().starts_with("L0-")) {
        let name = policy.id().to_string();
        assert_eq!(policy.effect(), cedar_policy::Effect::Forbid, "{name}");
        assert!(CASES.iter().any(|(invariant, _)| *invariant == name), "no case for {name}");
    }
}

#[test]
fn the_unbroken_facts_are_permitted_so_that_each_case_breaks_what_it_names() {
    for p in [Policies::builtin().unwrap(), Policies::with_l1(PERMIT_ALL, 7).unwrap()] {
        assert!(p.decide_grant(&grant()).is_ok());
        assert!(p.decide_mount(&mount()).is_ok());
        assert!(p.decide_svid(&svid()).is_ok());
    }
}

#[test]
fn an_evaluation_error_is_a_refusal() {
    let text = r#"
        permit(principal, action, resource);
        @id("L1-overflows")
        forbid(principal, action, resource) when { 9223372036854775807 + 1 == 0 };"#;
    let refusal = Policies::with_l1(text, 1).unwrap().decide_grant(&grant()).unwrap_err();
    assert_eq!(refusal.policies, ["L1-overflows"]);
    assert!(refusal.reason.contains("could not be evaluated"), "{refusal}");
}

#[test]
fn a_request_about_an_entity_that_is_not_in_the_slice_is_refused() {
    let p = Policies::with_l1(PERMIT_ALL, 1).unwrap();
    let flag = |b| cedar_policy::RestrictedExpression::new_bool(b);
    let node = cedar_policy::RestrictedExpression::new_entity_uid("Holdfast::Node::\"node-1\"".parse().unwrap());
    let context = [
        ("node", node),
        ("publishers", "[Holdfast::Publisher::\"build\"]".parse().unwrap()),
        ("specActive", flag(true)),
        ("withinBudget", flag(true)),
        ("wantsRelaxed", flag(false)),
        ("lockdown", flag(false)),
    ];
    let request = cedar_policy::Request::new(
        "Holdfast::Orchestrator::\"orch-1\"".parse().unwrap(),
        "Holdfast::Action::\"grant\"".parse().unwrap(),
        "Holdfast::Service::\"shop/web\"".parse().unwrap(),
        cedar_policy::Context::from_pairs(context.map(|(k, v)| (k.to_owned(), v))).unwrap(),
        Some(&p.schema),
    );
    let refusal = p.ask::<Grant>(&request.unwrap(), &cedar_policy::Entities::empty(), [&p.set]).unwrap_err();
    assert_eq!(refusal.policies, ["L0-lease", "L0-node-ready", "L0-publisher", "L0-zone"]);
    assert!(refusal.reason.contains("could not be evaluated"), "{refusal}");
}

#[test]
fn an_act_on_the_wrong_kind_of_thing_is_refused_before_any_policy_is_asked() {
    let p = Policies::with_l1(PERMIT_ALL, 1).unwrap();
    for act in OperatorAct::ALL {
        for target in [
            Target::Service(service()),
            Target::Secret(secret()),
            Target::Node(node()),
            Target::Orchestrator(orchestrator()),
        ] {
            let fits = std::mem::discriminant(&target) == std::mem::discriminant(&target_of(*act));
            let verdict = p.decide_operator(&operator(&["Admin"], &["*"], *act, target));
            assert_eq!(verdict.is_ok(), fits, "{act:?}");
        }
    }
}

#[test]
fn a_secret_of_another_service_is_refused_with_no_policy_to_name() {
    let p = Policies::builtin().unwrap();
    let mut f = mount();
    f.secret.readers = strings(&["shop/api", "bank/*", "shop"]);
    let refusal = p.decide_mount(&f).unwrap_err();
    assert!(refusal.policies.is_empty(), "{refusal}");
    assert_eq!(refusal.reason, "no policy permits it");
}
