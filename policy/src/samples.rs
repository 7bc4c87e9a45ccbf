//! One of everything that decisions make, with something in each of its sets.
//!
//! What an entity or a context is made of is the same for all of its kind. So whether it fits the schema is asked of these,
//! when a policy text is taken, and not of each request.

use crate::decide::Refusal;
use crate::entities::{ALL, Kinds};
use crate::facts::{
    GrantFacts, MountFacts, NodeFacts, OperatorAct, OperatorFacts, OrchestratorFacts, SecretFacts, ServiceFacts,
    SvidFacts, Target,
};
use crate::question::Question;
use cedar_policy::Entity;
use holdfast_types::{NodeId, OperatorId, OrchId, SecretRef, ServiceRef, Zone};

pub(crate) struct Samples {
    orchestrator: OrchestratorFacts,
    node: NodeFacts,
    service: ServiceFacts,
    secret: SecretFacts,
    operator: OperatorId,
}

impl Samples {
    pub(crate) fn new() -> Result<Self, Refusal> {
        let text = || vec!["a".to_owned()];
        let zone = || Zone::parse("a").map_err(Refusal::unevaluated);
        Ok(Self {
            orchestrator: OrchestratorFacts {
                orchestrator: OrchId::parse("a").map_err(Refusal::unevaluated)?,
                mandate_namespaces: text(),
                mandate_zones: vec![zone()?],
                mandate_live: true,
                holds_lease: true,
            },
            node: NodeFacts {
                id: NodeId::parse("a").map_err(Refusal::unevaluated)?,
                zone: zone()?,
                state: String::new(),
                attested: true,
                status_fresh: true,
            },
            service: ServiceFacts {
                service: ServiceRef::of("a", "a").map_err(Refusal::unevaluated)?,
                zones: vec![zone()?],
                publishers: text(),
                sensitive: true,
                isolation: String::new(),
            },
            secret: SecretFacts {
                secret: SecretRef::of("a", "a").map_err(Refusal::unevaluated)?,
                readers: vec![format!("a/{ALL}")],
                zones: vec![zone()?],
                attested_only: true,
            },
            operator: OperatorId::parse("a").map_err(Refusal::unevaluated)?,
        })
    }

    /// An entity of each kind.
    pub(crate) fn entities(&self, kinds: &Kinds) -> Result<Vec<Entity>, Refusal> {
        Ok(vec![
            kinds.orchestrator(&self.orchestrator)?,
            kinds.node(&self.node)?,
            kinds.secret(&self.secret, Some(&self.service))?,
            kinds.service(&self.service)?,
            kinds.operator(&self.act(OperatorAct::Deploy, Target::Cluster))?,
            kinds.cluster(),
        ])
    }

    /// A question of each kind; an operator's acts on all things, also on those that the schema does not let them act on.
    pub(crate) fn questions(&self, kinds: &Kinds) -> Result<Vec<Question>, Refusal> {
        let (service, node) = (self.service.clone(), self.node.clone());
        let mount =
            MountFacts { service: service.clone(), secret: self.secret.clone(), node: node.clone(), lockdown: true };
        let svid = SvidFacts { node: node.clone(), service: service.clone(), live_grant_here: true, lockdown: true };
        let grant = GrantFacts {
            orchestrator: self.orchestrator.clone(),
            service,
            node,
            publishers: vec!["a".to_owned()],
            spec_active: true,
            within_budget: true,
            wants_relaxed: true,
            lockdown: true,
        };
        let mut all =
            vec![Question::grant(kinds, &grant)?, Question::mount(kinds, &mount)?, Question::svid(kinds, &svid)?];
        for act in OperatorAct::ALL {
            for target in self.targets() {
                all.push(Question::operator(kinds, &self.act(*act, target))?);
            }
        }
        Ok(all)
    }

    fn targets(&self) -> [Target; 5] {
        [
            Target::Service(self.service.clone()),
            Target::Secret(self.secret.clone()),
            Target::Node(self.node.clone()),
            Target::Orchestrator(self.orchestrator.clone()),
            Target::Cluster,
        ]
    }

    fn act(&self, act: OperatorAct, target: Target) -> OperatorFacts {
        let text = || vec!["a".to_owned()];
        OperatorFacts { operator: self.operator.clone(), roles: text(), owns: text(), act, target }
    }
}
