//! From facts to Cedar entities: one small slice per request, never a global store.
//!
//! Ancestors are given flat (a node in `eu/pci` has the parents `eu/pci`, `eu` and `*`), so that a slice holds only the
//! entities whose attributes a policy can reach, and no zone can be missing from a chain.
//!
//! What an entity is made of is the same for all of a kind, so one of each is checked against the schema, once (`samples`).

use crate::decide::Refusal;
use crate::facts::{NodeFacts, OperatorFacts, OrchestratorFacts, SecretFacts, ServiceFacts};
use crate::policies::PolicyError;
use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use holdfast_types::Zone;
use std::fmt::Display;

/// The set that holds all namespaces, and all of a namespace's services.
pub(crate) const ALL: &str = "*";

/// The schema's entity types, parsed once.
pub(crate) struct Kinds {
    pub(crate) action: EntityTypeName,
    cluster: EntityTypeName,
    namespace: EntityTypeName,
    node: EntityTypeName,
    operator: EntityTypeName,
    orchestrator: EntityTypeName,
    publisher: EntityTypeName,
    role: EntityTypeName,
    secret: EntityTypeName,
    service: EntityTypeName,
    zone: EntityTypeName,
}

/// A value of a record's field.
pub(crate) enum Field<'a> {
    Bool(bool),
    Text(&'a str),
    Ref(EntityUid),
    Refs(Vec<EntityUid>),
}
impl Field<'_> {
    fn expression(self) -> RestrictedExpression {
        match self {
            Self::Bool(b) => RestrictedExpression::new_bool(b),
            Self::Text(t) => RestrictedExpression::new_string(t.to_owned()),
            Self::Ref(uid) => RestrictedExpression::new_entity_uid(uid),
            Self::Refs(uids) => {
                RestrictedExpression::new_set(uids.into_iter().map(RestrictedExpression::new_entity_uid))
            }
        }
    }
}

/// Named fields as Cedar wants them, for attributes and for contexts.
pub(crate) type Fields = Vec<(String, RestrictedExpression)>;

pub(crate) fn fields<const N: usize>(named: [(&str, Field<'_>); N]) -> Fields {
    named.into_iter().map(|(name, field)| (name.to_owned(), field.expression())).collect()
}

impl Kinds {
    pub(crate) fn new() -> Result<Self, PolicyError> {
        let kind = |name: &str| {
            let parsed = format!("Holdfast::{name}").parse();
            parsed.map_err(|e: cedar_policy::ParseErrors| PolicyError::Syntax(e.to_string()))
        };
        Ok(Self {
            action: kind("Action")?,
            cluster: kind("Cluster")?,
            namespace: kind("Namespace")?,
            node: kind("Node")?,
            operator: kind("Operator")?,
            orchestrator: kind("Orchestrator")?,
            publisher: kind("Publisher")?,
            role: kind("Role")?,
            secret: kind("Secret")?,
            service: kind("Service")?,
            zone: kind("Zone")?,
        })
    }

    pub(crate) fn orchestrator(&self, o: &OrchestratorFacts) -> Result<Entity, Refusal> {
        let attrs = fields([
            ("mandate", Field::Refs(uids(&self.namespace, &o.mandate_namespaces))),
            ("mandateZones", Field::Refs(uids(&self.zone, &o.mandate_zones))),
            ("mandateLive", Field::Bool(o.mandate_live)),
            ("holdsLease", Field::Bool(o.holds_lease)),
        ]);
        entity(uid(&self.orchestrator, &o.orchestrator), attrs, [])
    }

    pub(crate) fn node(&self, n: &NodeFacts) -> Result<Entity, Refusal> {
        let zones = std::iter::successors(Some(n.zone.clone()), Zone::parent);
        let parents = zones.map(|z| uid(&self.zone, &z));
        let attrs = fields([
            ("state", Field::Text(&n.state)),
            ("attested", Field::Bool(n.attested)),
            ("statusFresh", Field::Bool(n.status_fresh)),
        ]);
        entity(uid(&self.node, &n.id), attrs, parents)
    }

    pub(crate) fn service(&self, s: &ServiceFacts) -> Result<Entity, Refusal> {
        let attrs = fields([
            ("zones", Field::Refs(uids(&self.zone, &s.zones))),
            ("publishers", Field::Refs(self.publishers(&s.publishers))),
            ("sensitive", Field::Bool(s.sensitive)),
            ("isolation", Field::Text(&s.isolation)),
        ]);
        entity(uid(&self.service, &s.service), attrs, self.namespaces(&s.service.namespace))
    }

    /// The secret as `reader` meets it: `namespace/*` stands for `reader` too if that is its namespace.
    pub(crate) fn secret(&self, s: &SecretFacts, reader: Option<&ServiceFacts>) -> Result<Entity, Refusal> {
        let mut readers = uids(&self.service, &s.readers);
        if let Some(ServiceFacts { service, .. }) = reader
            && s.readers.contains(&format!("{}/{ALL}", service.namespace))
        {
            readers.push(uid(&self.service, service));
        }
        let attrs = fields([
            ("readers", Field::Refs(readers)),
            ("zones", Field::Refs(uids(&self.zone, &s.zones))),
            ("attestedOnly", Field::Bool(s.attested_only)),
        ]);
        entity(uid(&self.secret, &s.secret), attrs, self.namespaces(&s.secret.namespace))
    }

    pub(crate) fn operator(&self, o: &OperatorFacts) -> Result<Entity, Refusal> {
        let attrs = fields([("owns", Field::Refs(uids(&self.namespace, &o.owns)))]);
        entity(uid(&self.operator, &o.operator), attrs, uids(&self.role, &o.roles))
    }

    pub(crate) fn cluster(&self) -> Entity {
        Entity::with_uid(uid(&self.cluster, "this"))
    }

    pub(crate) fn publishers(&self, ids: &[String]) -> Vec<EntityUid> {
        uids(&self.publisher, ids)
    }

    fn namespaces(&self, own: &impl Display) -> [EntityUid; 2] {
        [uid(&self.namespace, own), uid(&self.namespace, ALL)]
    }
}

fn entity(uid: EntityUid, attrs: Fields, parents: impl IntoIterator<Item = EntityUid>) -> Result<Entity, Refusal> {
    Entity::new_with_tags(uid, attrs, parents, []).map_err(Refusal::unevaluated)
}

pub(crate) fn uid(kind: &EntityTypeName, id: &(impl Display + ?Sized)) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id.to_string()))
}

fn uids<T: Display>(kind: &EntityTypeName, ids: &[T]) -> Vec<EntityUid> {
    ids.iter().map(|id| uid(kind, id)).collect()
}
