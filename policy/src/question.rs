//! From facts to what is put to Cedar: one request, and the few entities that it names.

use crate::decide::Refusal;
use crate::entities::{Field, Fields, Kinds, fields, uid};
use crate::facts::{GrantFacts, MountFacts, OperatorFacts, SvidFacts, Target};
use cedar_policy::{Context, Entities, Entity, EntityUid, Request, Schema};

/// One question, not put yet.
pub(crate) struct Question {
    pub(crate) principal: Entity,
    pub(crate) action: EntityUid,
    pub(crate) resource: Entity,
    /// Where it is to happen, if that is neither who asks nor what it is about.
    node: Option<Entity>,
    context: Fields,
}

impl Question {
    pub(crate) fn grant(kinds: &Kinds, f: &GrantFacts) -> Result<Self, Refusal> {
        let node = kinds.node(&f.node)?;
        Ok(Self {
            principal: kinds.orchestrator(&f.orchestrator)?,
            action: uid(&kinds.action, "grant"),
            resource: kinds.service(&f.service)?,
            context: fields([
                ("node", Field::Ref(node.uid())),
                ("publishers", Field::Refs(kinds.publishers(&f.publishers))),
                ("specActive", Field::Bool(f.spec_active)),
                ("withinBudget", Field::Bool(f.within_budget)),
                ("wantsRelaxed", Field::Bool(f.wants_relaxed)),
                ("lockdown", Field::Bool(f.lockdown)),
            ]),
            node: Some(node),
        })
    }

    pub(crate) fn mount(kinds: &Kinds, f: &MountFacts) -> Result<Self, Refusal> {
        let node = kinds.node(&f.node)?;
        Ok(Self {
            principal: kinds.service(&f.service)?,
            action: uid(&kinds.action, "mountSecret"),
            resource: kinds.secret(&f.secret, Some(&f.service))?,
            context: fields([("node", Field::Ref(node.uid())), ("lockdown", Field::Bool(f.lockdown))]),
            node: Some(node),
        })
    }

    pub(crate) fn svid(kinds: &Kinds, f: &SvidFacts) -> Result<Self, Refusal> {
        Ok(Self {
            principal: kinds.node(&f.node)?,
            action: uid(&kinds.action, "issueSvid"),
            resource: kinds.service(&f.service)?,
            context: fields([("liveGrantHere", Field::Bool(f.live_grant_here)), ("lockdown", Field::Bool(f.lockdown))]),
            node: None,
        })
    }

    pub(crate) fn operator(kinds: &Kinds, f: &OperatorFacts) -> Result<Self, Refusal> {
        let resource = match &f.target {
            Target::Service(s) => kinds.service(s),
            Target::Secret(s) => kinds.secret(s, None),
            Target::Node(n) => kinds.node(n),
            Target::Orchestrator(o) => kinds.orchestrator(o),
            Target::Cluster => Ok(kinds.cluster()),
        };
        Ok(Self {
            principal: kinds.operator(f)?,
            action: uid(&kinds.action, f.act.name()),
            resource: resource?,
            context: fields([]),
            node: None,
        })
    }

    /// The request, checked against the schema if one is given, and the entities that it names.
    pub(crate) fn put(self, schema: Option<&Schema>) -> Result<(Request, Entities), Refusal> {
        let context = Context::from_pairs(self.context).map_err(Refusal::unevaluated)?;
        let request = Request::new(self.principal.uid(), self.action, self.resource.uid(), context, schema);
        let request = request.map_err(Refusal::unevaluated)?;
        let named = [self.principal, self.resource].into_iter().chain(self.node);
        // LAW: each kind of entity fits the schema, once and for all: asking again would copy the schema's types every time
        // (`an_entity_of_each_kind_that_a_decision_makes_was_checked_against_the_schema`).
        let entities = Entities::from_entities(named, None).map_err(Refusal::unevaluated)?;
        Ok((request, entities))
    }
}
