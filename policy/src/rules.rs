//! The policies by their scope, so that a decision asks those that could apply and no others.
//!
//! Cedar looks at a policy's scope first: one whose scope names another action, or by `==` another principal or resource,
//! is not satisfied and cannot err. Left out, it changes no answer
//! (`a_decision_is_what_cedar_says_when_it_is_asked_with_every_policy`). What is not understood is always asked: this must
//! never leave out a policy that could apply.

use crate::policies::{PolicyError, add};
use crate::question::Question;
use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint, Schema,
};
use std::collections::{BTreeSet, HashMap};

/// Policies whose scopes say the same of the action.
#[derive(Default)]
struct Scoped {
    /// Those that could concern anybody and anything.
    wide: PolicySet,
    /// Those whose scope says `principal ==`, and nothing as exact of the resource.
    of_principal: HashMap<EntityUid, PolicySet>,
    /// Those whose scope says `resource ==`.
    of_resource: HashMap<EntityUid, PolicySet>,
}
impl Scoped {
    fn add(&mut self, policy: Policy) -> Result<(), PolicyError> {
        let set = if let ResourceConstraint::Eq(resource) = policy.resource_constraint() {
            self.of_resource.entry(resource).or_default()
        } else if let PrincipalConstraint::Eq(principal) = policy.principal_constraint() {
            self.of_principal.entry(principal).or_default()
        } else {
            &mut self.wide
        };
        add(set, policy)
    }

    fn about(&self, principal: &EntityUid, resource: &EntityUid) -> [Option<&PolicySet>; 3] {
        let wide = (!self.wide.is_empty()).then_some(&self.wide);
        [wide, self.of_principal.get(principal), self.of_resource.get(resource)]
    }
}

/// What is known of an action before anybody asks.
#[derive(Default)]
struct Known {
    /// Kinds of principal and resource of which the schema took a question.
    fits: Vec<(EntityTypeName, EntityTypeName)>,
    policies: Scoped,
}

/// All policies, by scope.
#[derive(Default)]
pub(crate) struct Rules {
    actions: HashMap<EntityUid, Known>,
    /// Those whose scope names no action.
    any: Scoped,
}

impl Rules {
    pub(crate) fn of(set: &PolicySet) -> Result<Self, PolicyError> {
        let mut rules = Self::default();
        for policy in set.policies() {
            // A list may name an action twice.
            let actions: BTreeSet<EntityUid> = match policy.action_constraint() {
                ActionConstraint::Any => {
                    rules.any.add(policy.clone())?;
                    continue;
                }
                ActionConstraint::Eq(action) => BTreeSet::from([action]),
                ActionConstraint::In(actions) => actions.into_iter().collect(),
            };
            for action in actions {
                rules.actions.entry(action).or_default().policies.add(policy.clone())?;
            }
        }
        Ok(rules)
    }

    /// Remembers whether the schema takes questions of this kind.
    ///
    /// LAW: whether it does depends on the action and the kinds of principal and resource alone, for an action's context is
    /// always made of the same (`what_the_schema_takes_was_asked_beforehand`).
    pub(crate) fn learn(&mut self, q: Question, schema: &Schema) {
        let (principal, action, resource) = (q.principal.uid(), q.action.clone(), q.resource.uid());
        if q.put(Some(schema)).is_ok() {
            let kinds = (principal.type_name().clone(), resource.type_name().clone());
            self.actions.entry(action).or_default().fits.push(kinds);
        }
    }

    /// The policies that could apply, none of them twice. `None`: no question of this kind is known to fit the schema.
    pub(crate) fn about(&self, q: &Question) -> Option<[Option<&PolicySet>; 6]> {
        let known = self.actions.get(&q.action)?;
        let (principal, resource) = (q.principal.uid(), q.resource.uid());
        let fits = known.fits.iter().any(|(p, r)| p == principal.type_name() && r == resource.type_name());
        fits.then(|| {
            let [wide, of_principal, of_resource] = known.policies.about(&principal, &resource);
            let [any, any_of_principal, any_of_resource] = self.any.about(&principal, &resource);
            [wide, of_principal, of_resource, any, any_of_principal, any_of_resource]
        })
    }
}
