//! The median of a policy decision in a large cluster: each of its services has a rule of its own beside the shipped ones.
//!
//! Beside it: Cedar alone, with all the rules in one set and the entities of the whole cluster and the requests made
//! beforehand.

use crate::Failed;
use crate::line::{Goal, Line};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, ParseErrors, Policy,
    PolicyId, PolicySet, Request, RestrictedExpression,
};
use holdfast_policy::{GrantFacts, NodeFacts, OrchestratorFacts, Policies, ServiceFacts};
use holdfast_types::{NodeId, OrchId, ServiceRef, Zone};
use std::fmt::{Display, Write as _};
use std::time::{Duration, Instant};

pub const HOW: &str = "may this service be started on this node? 1 000 services, each with a rule of its own beside the \
     shipped ones, 10 000 nodes: median of 10 000 decisions, each from the facts as the registry has them; beside: Cedar \
     alone, median of 500, with one set of all rules, requests and the whole cluster's entities made beforehand";

const SERVICES: usize = 1_000;
const NODES: usize = 10_000;
const ROUNDS_ALONE: usize = 500;
const L0: &str = include_str!("../../policy/src/text/l0.cedar");
const L1: &str = include_str!("../../policy/src/text/l1.cedar");
const ORCHESTRATOR: &str = "orch-1";
const PUBLISHER: &str = "ci";

pub fn of_a_large_cluster() -> Result<Line, Failed> {
    let rules = rules()?;
    let policies = Policies::with_l1(&rules, 1)?;
    let facts = (0..NODES).map(facts).collect::<Result<Vec<_>, _>>()?;
    let value = median(facts.iter().map(|f| timed(|| Ok(policies.decide_grant(f).map(drop)?))))?;
    let (all, entities, authorizer) = (all(&rules)?, entities()?, Authorizer::new());
    let requests = (0..ROUNDS_ALONE).map(request).collect::<Result<Vec<_>, _>>()?;
    let alone = |r: &Request| -> Result<(), Failed> {
        match authorizer.is_authorized(r, &all, &entities).decision() {
            Decision::Allow => Ok(()),
            Decision::Deny => Err("Cedar refuses what the vault's policy permits".into()),
        }
    };
    let beside = median(requests.iter().map(|r| timed(|| alone(r))))?;
    Ok(Line { value, unit: "us", beside, goal: Goal::AtMost(100.0) })
}

fn timed(decide: impl FnOnce() -> Result<(), Failed>) -> Result<Duration, Failed> {
    let start = Instant::now();
    decide()?;
    Ok(start.elapsed())
}

/// In microseconds.
fn median(times: impl Iterator<Item = Result<Duration, Failed>>) -> Result<f64, Failed> {
    let mut times = times.collect::<Result<Vec<_>, _>>()?;
    times.sort();
    let middle = times.get(times.len() / 2).ok_or("nothing was measured")?;
    Ok(middle.as_secs_f64() * 1e6)
}

/// The shipped rules, and one for each service: it runs in its own zone alone.
fn rules() -> Result<String, Failed> {
    let mut text = L1.to_owned();
    for n in 0..SERVICES {
        let (service, zone) = (service(n)?, zone(n));
        writeln!(
            text,
            r#"@id("only-{n}") forbid (principal, action == Holdfast::Action::"grant",
                resource == Holdfast::Service::"{service}") unless {{ context.node in Holdfast::Zone::"{zone}" }};"#
        )?;
    }
    Ok(text)
}

fn service(n: usize) -> Result<ServiceRef, Failed> {
    Ok(ServiceRef::of(&format!("team-{}", n % 50), &format!("service-{}", n % SERVICES))?)
}

fn node(n: usize) -> Result<NodeId, Failed> {
    Ok(NodeId::parse(&format!("node-{n:032x}"))?)
}

/// Where the nth node stands, and the nth service may run: as many services as nodes in each.
fn zone(n: usize) -> String {
    format!("eu/z{}", n % 10)
}

/// The nth service, of those that there are, on the nth node.
fn facts(n: usize) -> Result<GrantFacts, Failed> {
    Ok(GrantFacts {
        orchestrator: OrchestratorFacts {
            orchestrator: OrchId::parse(ORCHESTRATOR)?,
            mandate_namespaces: vec!["*".to_owned()],
            mandate_zones: vec![Zone::parse("eu")?],
            mandate_live: true,
            holds_lease: true,
        },
        service: ServiceFacts {
            service: service(n)?,
            zones: vec![Zone::parse("eu")?],
            publishers: vec![PUBLISHER.to_owned()],
            sensitive: false,
            isolation: "default".to_owned(),
        },
        node: NodeFacts {
            id: node(n)?,
            zone: Zone::parse(&zone(n))?,
            state: "ready".to_owned(),
            attested: false,
            status_fresh: true,
        },
        publishers: vec![PUBLISHER.to_owned()],
        spec_active: true,
        within_budget: true,
        wants_relaxed: false,
        lockdown: false,
    })
}

/// All rules as one set, as Cedar would have it.
fn all(l1: &str) -> Result<PolicySet, Failed> {
    let mut set = PolicySet::new();
    for text in [L0, l1] {
        for policy in text.parse::<PolicySet>().map_err(said)?.policies() {
            set.add(named(policy)).map_err(said)?;
        }
    }
    Ok(set)
}

fn named(policy: &Policy) -> Policy {
    policy.new_id(PolicyId::new(policy.annotation("id").unwrap_or_default()))
}

/// Every service and every node, and the orchestrator, in one store.
fn entities() -> Result<Entities, Failed> {
    let flag = RestrictedExpression::new_bool;
    let text = |t: &str| RestrictedExpression::new_string(t.to_owned());
    let mandate = [
        ("mandate", set("Namespace", "*")?),
        ("mandateZones", set("Zone", "eu")?),
        ("mandateLive", flag(true)),
        ("holdsLease", flag(true)),
    ];
    let mut all = vec![entity(uid("Orchestrator", ORCHESTRATOR)?, mandate, vec![])?];
    for n in 0..SERVICES {
        let service = service(n)?;
        let attributes = [
            ("zones", set("Zone", "eu")?),
            ("publishers", set("Publisher", PUBLISHER)?),
            ("sensitive", flag(false)),
            ("isolation", text("default")),
        ];
        let parents = vec![uid("Namespace", service.namespace.as_str())?, uid("Namespace", "*")?];
        all.push(entity(uid("Service", &service.to_string())?, attributes, parents)?);
    }
    for n in 0..NODES {
        let attributes = [("state", text("ready")), ("attested", flag(false)), ("statusFresh", flag(true))];
        let parents = vec![uid("Zone", &zone(n))?, uid("Zone", "eu")?, uid("Zone", "*")?];
        all.push(entity(uid("Node", node(n)?.as_str())?, attributes, parents)?);
    }
    Entities::from_entities(all, None).map_err(said)
}

fn entity<const N: usize>(
    uid: EntityUid,
    attributes: [(&str, RestrictedExpression); N],
    parents: Vec<EntityUid>,
) -> Result<Entity, Failed> {
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
    Entity::new(uid, attributes.into(), parents.into_iter().collect()).map_err(said)
}

fn request(n: usize) -> Result<Request, Failed> {
    let flag = RestrictedExpression::new_bool;
    let context = [
        ("node", RestrictedExpression::new_entity_uid(uid("Node", node(n)?.as_str())?)),
        ("publishers", set("Publisher", PUBLISHER)?),
        ("specActive", flag(true)),
        ("withinBudget", flag(true)),
        ("wantsRelaxed", flag(false)),
        ("lockdown", flag(false)),
    ];
    let context = Context::from_pairs(context.map(|(name, value)| (name.to_owned(), value))).map_err(said)?;
    let resource = uid("Service", &service(n)?.to_string())?;
    Request::new(uid("Orchestrator", ORCHESTRATOR)?, uid("Action", "grant")?, resource, context, None).map_err(said)
}

fn set(kind: &str, id: &str) -> Result<RestrictedExpression, Failed> {
    Ok(RestrictedExpression::new_set([RestrictedExpression::new_entity_uid(uid(kind, id)?)]))
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, Failed> {
    let kind: EntityTypeName = format!("Holdfast::{kind}").parse().map_err(said::<ParseErrors>)?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn said<E: Display>(why: E) -> Failed {
    why.to_string().into()
}
