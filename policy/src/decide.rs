//! The decisions, and `Permit`: the proof that one was asked for and given.
//!
//! LAW: whatever cannot be evaluated is refused (`an_evaluation_error_is_a_refusal`). Cedar skips a policy that errs,
//! so a forbid that errs would otherwise fail open.

use crate::entities::{Field, fields, uid};
use crate::facts::{GrantFacts, MountFacts, OperatorFacts, SvidFacts, Target};
use crate::policies::Policies;
use cedar_policy::{Context, Decision, Entities, Entity, PolicyId, Request, RestrictedExpression};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::marker::PhantomData;

/// The act of starting a task.
#[derive(Debug)]
pub enum Grant {}
/// The act of giving a secret to a task.
#[derive(Debug)]
pub enum Mount {}
/// The act of an operator.
#[derive(Debug)]
pub enum Operator {}
/// The act of issuing an identity to a task.
#[derive(Debug)]
pub enum Svid {}

/// Leave to do one `Act`, once: made by a decision alone, and used up by whoever takes it.
///
/// What needs leave takes a `Permit` by value, so that it does not compile where nobody asked. Nothing outside this
/// crate makes one,
///
/// ```compile_fail,E0451
/// use holdfast_policy::{Grant, Permit};
/// let act = std::marker::PhantomData;
/// let forged: Permit<Grant> = Permit { policy_version: 0, policies: Vec::new(), act };
/// ```
///
/// doubles one,
///
/// ```compile_fail,E0599
/// fn twice(p: holdfast_policy::Permit<holdfast_policy::Mount>) {
///     drop((p.clone(), p));
/// }
/// ```
///
/// or takes leave for one act as leave for another.
///
/// ```compile_fail,E0308
/// use holdfast_policy::{Grant, Mount, Permit};
/// fn other(p: Permit<Mount>) -> Permit<Grant> {
///     p
/// }
/// ```
///
/// The same names, used as they may be, compile: it is not for a name that the above does not.
///
/// ```
/// use holdfast_policy::{Grant, Mount, Permit};
/// fn once(p: Permit<Mount>) -> Permit<Mount> {
///     drop((p.policies().len(), p.policy_version()));
///     p
/// }
/// fn used(p: Permit<Grant>) -> Vec<String> {
///     drop(once);
///     p.used()
/// }
/// # drop(used);
/// ```
#[derive(Debug)]
pub struct Permit<Act> {
    policy_version: u64,
    policies: Vec<String>,
    act: PhantomData<fn() -> Act>,
}
impl<Act> Permit<Act> {
    /// The version of the rules that permitted it.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }
    /// The policies that permitted it, sorted by name.
    pub fn policies(&self) -> &[String] {
        &self.policies
    }
    /// Uses it up, and tells the policies that permitted it, for the log.
    pub fn used(self) -> Vec<String> {
        self.policies
    }
}

/// No. Says which policies forbade it or could not be evaluated; none are named if nothing permits it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Names of the policies, sorted.
    pub policies: Vec<String>,
    /// For people and for the log; holds no secret.
    pub reason: String,
}
impl Refusal {
    pub(crate) fn unevaluated(why: impl Display) -> Self {
        Self { policies: vec![], reason: format!("the request could not be evaluated: {why}") }
    }
}

/// One request, ready to be put to Cedar.
struct Question<'a> {
    principal: Entity,
    action: &'a str,
    resource: Entity,
    others: Vec<Entity>,
    context: HashMap<String, RestrictedExpression>,
}

impl Policies {
    /// May a task of the service be started there?
    pub fn decide_grant(&self, f: &GrantFacts) -> Result<Permit<Grant>, Refusal> {
        self.decide(Question {
            principal: self.kinds.orchestrator(&f.orchestrator)?,
            action: "grant",
            resource: self.kinds.service(&f.service)?,
            others: vec![self.kinds.node(&f.node)?],
            context: fields([
                ("node", Field::Ref(self.kinds.node_uid(&f.node.id))),
                ("publishers", Field::Refs(self.kinds.publishers(&f.publishers))),
                ("specActive", Field::Bool(f.spec_active)),
                ("withinBudget", Field::Bool(f.within_budget)),
                ("wantsRelaxed", Field::Bool(f.wants_relaxed)),
                ("lockdown", Field::Bool(f.lockdown)),
            ]),
        })
    }

    /// May the secret be boxed to the node for the service's task?
    pub fn decide_mount(&self, f: &MountFacts) -> Result<Permit<Mount>, Refusal> {
        self.decide(Question {
            principal: self.kinds.service(&f.service)?,
            action: "mountSecret",
            resource: self.kinds.secret(&f.secret, Some(&f.service))?,
            others: vec![self.kinds.node(&f.node)?],
            context: fields([
                ("node", Field::Ref(self.kinds.node_uid(&f.node.id))),
                ("lockdown", Field::Bool(f.lockdown)),
            ]),
        })
    }

    /// May the node be given an identity for the service's task?
    pub fn decide_svid(&self, f: &SvidFacts) -> Result<Permit<Svid>, Refusal> {
        self.decide(Question {
            principal: self.kinds.node(&f.node)?,
            action: "issueSvid",
            resource: self.kinds.service(&f.service)?,
            others: vec![],
            context: fields([("liveGrantHere", Field::Bool(f.live_grant_here)), ("lockdown", Field::Bool(f.lockdown))]),
        })
    }

    /// May this signer do this? Thresholds are counted by the caller, over signers that are each permitted.
    pub fn decide_operator(&self, f: &OperatorFacts) -> Result<Permit<Operator>, Refusal> {
        let resource = match &f.target {
            Target::Service(s) => self.kinds.service(s),
            Target::Secret(s) => self.kinds.secret(s, None),
            Target::Node(n) => self.kinds.node(n),
            Target::Orchestrator(o) => self.kinds.orchestrator(o),
            Target::Cluster => Ok(self.kinds.cluster()),
        };
        self.decide(Question {
            principal: self.kinds.operator(f)?,
            action: f.act.name(),
            resource: resource?,
            others: vec![],
            context: HashMap::new(),
        })
    }

    fn decide<Act>(&self, q: Question<'_>) -> Result<Permit<Act>, Refusal> {
        let context = Context::from_pairs(q.context).map_err(Refusal::unevaluated)?;
        let action = uid(&self.kinds.action, q.action);
        let request = Request::new(q.principal.uid(), action, q.resource.uid(), context, Some(&self.schema));
        let slice = [q.principal, q.resource].into_iter().chain(q.others);
        // LAW: each kind of entity fits the schema, once and for all: asking again would copy the schema's types every time
        // (`an_entity_of_each_kind_that_a_decision_makes_was_checked_against_the_schema`).
        let entities = Entities::from_entities(slice, None).map_err(Refusal::unevaluated)?;
        self.ask(&request.map_err(Refusal::unevaluated)?, &entities)
    }

    /// Asks Cedar. Reached with a typed request and typed entities only.
    pub(crate) fn ask<Act>(&self, request: &Request, entities: &Entities) -> Result<Permit<Act>, Refusal> {
        let response = self.authorizer.is_authorized(request, &self.set, entities);
        let failed: BTreeMap<String, String> = response
            .diagnostics()
            .errors()
            .map(|cedar_policy::AuthorizationError::PolicyEvaluationError(e)| {
                (e.policy_id().to_string(), e.inner().to_string())
            })
            .collect();
        if let Some(why) = failed.values().next() {
            return Err(Refusal { policies: failed.keys().cloned().collect(), ..Refusal::unevaluated(why) });
        }
        let policies = sorted(response.diagnostics().reason());
        match response.decision() {
            Decision::Allow => Ok(Permit { policy_version: self.version(), policies, act: PhantomData }),
            Decision::Deny if policies.is_empty() => {
                Err(Refusal { policies, reason: "no policy permits it".to_owned() })
            }
            Decision::Deny => Err(Refusal { reason: format!("forbidden by {}", policies.join(", ")), policies }),
        }
    }
}

fn sorted<'a>(ids: impl Iterator<Item = &'a PolicyId>) -> Vec<String> {
    let mut names: Vec<String> = ids.map(ToString::to_string).collect();
    names.sort();
    names
}
