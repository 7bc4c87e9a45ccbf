//! Asking only the policies that could apply gives the answer that asking all of them gives.

use super::*;
use crate::question::Question;
use crate::samples::Samples;
use cedar_policy::{AuthorizationError, Authorizer, Decision, PolicySet};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Policies with scopes of every form, and some that err.
const RULES: &[&str] = &[
    r#"@id("all") permit(principal, action, resource);"#,
    r#"@id("grants") permit(principal, action == Holdfast::Action::"grant", resource);"#,
    r#"@id("one-service") permit(principal is Holdfast::Orchestrator, action == Holdfast::Action::"grant",
        resource == Holdfast::Service::"shop/web");"#,
    r#"@id("no-service") forbid(principal, action == Holdfast::Action::"grant",
        resource == Holdfast::Service::"bank/web") unless { context.node in Holdfast::Zone::"eu" };"#,
    r#"@id("any-act-on-one") forbid(principal, action, resource == Holdfast::Service::"bank/api");"#,
    r#"@id("one-orchestrator") permit(principal == Holdfast::Orchestrator::"orch-1",
        action == Holdfast::Action::"grant", resource) when { resource in principal.mandate };"#,
    r#"@id("no-orchestrator") forbid(principal == Holdfast::Orchestrator::"orch-2", action, resource);"#,
    r#"@id("one-by-one") forbid(principal == Holdfast::Orchestrator::"orch-1",
        action == Holdfast::Action::"grant", resource == Holdfast::Service::"shop/api");"#,
    r#"@id("ada") permit(principal == Holdfast::Operator::"ada", action, resource);"#,
    r#"@id("named-twice") permit(principal in Holdfast::Role::"Admin",
        action in [Holdfast::Action::"retire", Holdfast::Action::"deploy", Holdfast::Action::"retire"], resource);"#,
    r#"@id("no-secret") forbid(principal,
        action in [Holdfast::Action::"putSecret", Holdfast::Action::"mountSecret"],
        resource == Holdfast::Secret::"shop/key") when { resource.attestedOnly };"#,
    r#"@id("one-reader") permit(principal == Holdfast::Service::"shop/web",
        action == Holdfast::Action::"mountSecret", resource);"#,
    r#"@id("one-node") permit(principal == Holdfast::Node::"node-1", action, resource)
        when { principal.state == "ready" };"#,
    r#"@id("errs-always") forbid(principal, action == Holdfast::Action::"seal", resource)
        when { 9223372036854775807 + 1 == 0 };"#,
    r#"@id("errs-on-one") forbid(principal, action, resource == Holdfast::Service::"shop/api")
        when { 9223372036854775807 + 1 == 0 };"#,
    r#"@id("errs-locked") permit(principal,
        action in [Holdfast::Action::"grant", Holdfast::Action::"issueSvid"], resource)
        when { context.lockdown && 9223372036854775807 + 1 == 0 };"#,
    r#"@id("errs-for-one") permit(principal == Holdfast::Operator::"ben", action, resource)
        when { 9223372036854775807 + 1 == 0 };"#,
];
const SERVICES: [(&str, &str); 4] = [("shop", "web"), ("shop", "api"), ("bank", "web"), ("bank", "api")];
const ZONES: [&str; 4] = ["*", "eu", "eu/pci", "us"];

/// Choices, each taken from the next number.
struct Draw<'a>(std::slice::Iter<'a, u8>);
impl Draw<'_> {
    fn number(&mut self) -> usize {
        usize::from(*self.0.next().unwrap())
    }
    /// Mostly yes, for most requests fail on one thing.
    fn yes(&mut self) -> bool {
        !self.number().is_multiple_of(5)
    }
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.number() % of.len()].clone()
    }
    fn some(&mut self, of: &[&str]) -> Vec<String> {
        of.iter().filter(|_| self.yes()).map(|s| (*s).to_owned()).collect()
    }

    fn orchestrator(&mut self) -> OrchestratorFacts {
        OrchestratorFacts {
            orchestrator: OrchId::parse(self.one(&["orch-1", "orch-2", "orch-3"])).unwrap(),
            mandate_namespaces: self.some(&["shop", "bank"]),
            mandate_zones: zones(&[self.one(&ZONES)]),
            mandate_live: self.yes(),
            holds_lease: self.yes(),
        }
    }
    fn node(&mut self) -> NodeFacts {
        NodeFacts {
            id: NodeId::parse(self.one(&["node-1", "node-2"])).unwrap(),
            zone: Zone::parse(self.one(&ZONES)).unwrap(),
            state: self.one(&["ready", "ready", "ready", "draining"]).to_owned(),
            attested: self.yes(),
            status_fresh: self.yes(),
        }
    }
    fn service(&mut self) -> ServiceFacts {
        let (namespace, name) = self.one(&SERVICES);
        ServiceFacts {
            service: ServiceRef::of(namespace, name).unwrap(),
            zones: zones(&[self.one(&ZONES), "eu"]),
            publishers: self.some(&["build", "ci"]),
            sensitive: self.yes(),
            isolation: self.one(&["default", "relaxed"]).to_owned(),
        }
    }
    fn secret(&mut self) -> SecretFacts {
        SecretFacts {
            secret: SecretRef::of(self.one(&["shop", "bank"]), self.one(&["key", "password"])).unwrap(),
            readers: self.some(&["shop/web", "shop/*", "bank/api", "bank/*"]),
            zones: zones(&[self.one(&ZONES), "eu"]),
            attested_only: !self.yes(),
        }
    }
    fn grant(&mut self) -> GrantFacts {
        GrantFacts {
            orchestrator: self.orchestrator(),
            service: self.service(),
            node: self.node(),
            publishers: self.some(&["build"]),
            spec_active: self.yes(),
            within_budget: self.yes(),
            wants_relaxed: !self.yes(),
            lockdown: !self.yes(),
        }
    }
    fn mount(&mut self) -> MountFacts {
        MountFacts { service: self.service(), secret: self.secret(), node: self.node(), lockdown: !self.yes() }
    }
    fn svid(&mut self) -> SvidFacts {
        SvidFacts { node: self.node(), service: self.service(), live_grant_here: self.yes(), lockdown: !self.yes() }
    }
    fn operator(&mut self) -> OperatorFacts {
        let target = match self.number() % 5 {
            0 => Target::Service(self.service()),
            1 => Target::Secret(self.secret()),
            2 => Target::Node(self.node()),
            3 => Target::Orchestrator(self.orchestrator()),
            _ => Target::Cluster,
        };
        let act = self.one(OperatorAct::ALL);
        // Mostly on the kind of thing that it is done to.
        let target = if self.yes() { target_of(act) } else { target };
        OperatorFacts {
            operator: OperatorId::parse(self.one(&["ada", "ben", "cleo"])).unwrap(),
            roles: self.some(&["Admin", "Deployer", "SecretOwner"]),
            owns: self.some(&["shop", "bank"]),
            act,
            target,
        }
    }
}

/// The version and the policies of a permit, or the refusal.
type Told = Result<(u64, Vec<String>), Refusal>;

fn told<Act>(verdict: Result<Permit<Act>, Refusal>) -> Told {
    verdict.map(|permit| (permit.policy_version(), permit.used()))
}

/// What Cedar says, asked with all policies in one set and with the schema.
fn cedar(p: &Policies, question: Result<Question, Refusal>) -> Told {
    let (request, entities) = question?.put(Some(&p.schema))?;
    let response = Authorizer::new().is_authorized(&request, &p.set, &entities);
    let mut errors: Vec<(String, String)> = response
        .diagnostics()
        .errors()
        .map(|AuthorizationError::PolicyEvaluationError(e)| (e.policy_id().to_string(), e.inner().to_string()))
        .collect();
    errors.sort();
    if let Some((_, why)) = errors.first() {
        let reason = format!("the request could not be evaluated: {why}");
        return Err(Refusal { reason, policies: errors.into_iter().map(|(policy, _)| policy).collect() });
    }
    let mut policies: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    policies.sort();
    match response.decision() {
        Decision::Allow => Ok((p.version(), policies)),
        Decision::Deny if policies.is_empty() => Err(Refusal { policies, reason: "no policy permits it".to_owned() }),
        Decision::Deny => Err(Refusal { reason: format!("forbidden by {}", policies.join(", ")), policies }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_decision_is_what_cedar_says_when_it_is_asked_with_every_policy(
        chosen in proptest::sample::subsequence(RULES, 0..=RULES.len()),
        numbers in proptest::collection::vec(any::<u8>(), 2048),
    ) {
        let p = Policies::with_l1(&chosen.concat(), 3).unwrap();
        let mut draw = Draw(numbers.iter());
        for _ in 0..16 {
            let f = draw.grant();
            prop_assert_eq!(told(p.decide_grant(&f)), cedar(&p, Question::grant(&p.kinds, &f)), "{:?}", f);
            let f = draw.mount();
            prop_assert_eq!(told(p.decide_mount(&f)), cedar(&p, Question::mount(&p.kinds, &f)), "{:?}", f);
            let f = draw.svid();
            prop_assert_eq!(told(p.decide_svid(&f)), cedar(&p, Question::svid(&p.kinds, &f)), "{:?}", f);
            let f = draw.operator();
            prop_assert_eq!(told(p.decide_operator(&f)), cedar(&p, Question::operator(&p.kinds, &f)), "{:?}", f);
        }
    }
}

#[test]
fn the_policies_with_scopes_of_every_form_are_all_taken() {
    let p = Policies::with_l1(&RULES.concat(), 1).unwrap();
    let own = p.set.policies().filter(|p| !p.id().to_string().starts_with("L0-")).count();
    assert_eq!(own, RULES.len());
}

#[test]
fn a_decision_asks_the_policies_of_its_act_and_of_what_it_is_about() {
    let mut text = r#"@id("mine") permit(principal == Holdfast::Orchestrator::"orch-1", action, resource);
        @id("other") permit(principal == Holdfast::Orchestrator::"orch-2", action, resource);
        @id("retire") permit(principal, action == Holdfast::Action::"retire", resource);"#
        .to_owned();
    for name in ["web", "api", "db", "mail"] {
        let scope =
            format!(r#"principal, action == Holdfast::Action::"grant", resource == Holdfast::Service::"shop/{name}""#);
        text.push_str(&format!(r#"@id("{name}") permit({scope});"#));
    }
    let p = Policies::with_l1(&text, 1).unwrap();
    let question = Question::grant(&p.kinds, &grant()).unwrap();
    let sets = p.rules.about(&question).unwrap().into_iter().flatten();
    let mut asked: Vec<String> = sets.flat_map(PolicySet::policies).map(|p| p.id().to_string()).collect();
    asked.sort();
    let l0 = ["budget", "isolation", "lease", "lockdown-grant", "node-ready", "publisher", "spec-active", "zone"];
    let mut expected: Vec<String> = l0.iter().map(|name| format!("L0-{name}")).collect();
    expected.extend(strings(&["mine", "web"]));
    assert_eq!(asked, expected);
}

#[test]
fn what_the_schema_takes_was_asked_beforehand() {
    let p = Policies::builtin().unwrap();
    let mut known = BTreeSet::new();
    for question in Samples::new().unwrap().questions(&p.kinds).unwrap() {
        let (action, fits) = (question.action.clone(), p.rules.about(&question).is_some());
        if fits {
            known.insert(action.clone());
        }
        assert_eq!(question.put(Some(&p.schema)).is_ok(), fits, "{action}");
    }
    assert_eq!(known, p.schema.actions().cloned().collect(), "an act of which no question is known to fit");
    // What is learnt of one context holds for the others: nothing in the schema looks at which entity is named.
    let empty = GrantFacts { publishers: vec![], ..grant() };
    assert!(Question::grant(&p.kinds, &empty).unwrap().put(Some(&p.schema)).is_ok());
}
