//! The policy text: compiled once, validated strictly, with L0 always in it.
//!
//! It must never accept an L1 text that takes an L0 name, that the schema does not type, or that could hide its meaning.

use crate::entities::Kinds;
use crate::rules::Rules;
use crate::samples::Samples;
use cedar_policy::{Authorizer, Entities, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use std::fmt::Display;

const SCHEMA: &str = include_str!("text/schema.cedarschema");
const L0: &str = include_str!("text/l0.cedar");
const L1: &str = include_str!("text/l1.cedar");
/// Names that only compiled-in policies bear.
const L0_PREFIX: &str = "L0-";
/// A policy may read attributes of what the request names, and of nothing further: slices hold no more (RFC 76).
const MAX_DEREF_LEVEL: u32 = 1;

/// Why a policy text is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is not Cedar.
    #[error("the policy text does not parse: {0}")]
    Syntax(String),
    /// The text is Cedar but does not fit the schema.
    #[error("the policy text does not fit the schema: {0}")]
    Invalid(String),
    /// Two policies bear one name.
    #[error("two policies are named {0:?}; give each its own @id")]
    Duplicate(String),
    /// A replaceable policy bears the name of an invariant.
    #[error("the name {0:?} is reserved for built-in invariants; choose an @id that does not begin with L0-")]
    Reserved(String),
    /// Templates need linking, which nothing here does, so they would silently have no effect.
    #[error("policy templates are not supported; write the principal and resource out")]
    Template,
}

/// The policies in force: the invariants (L0), which only forbid, and the replaceable rules (L1).
///
/// LAW: a forbid overrides every permit, so no L1 text undoes L0
/// (`each_invariant_bites_even_when_every_rule_permits_everything`).
pub struct Policies {
    pub(crate) set: PolicySet,
    /// The same policies, by what they could apply to.
    pub(crate) rules: Rules,
    pub(crate) schema: Schema,
    pub(crate) kinds: Kinds,
    pub(crate) authorizer: Authorizer,
    version: u64,
}

impl Policies {
    /// The shipped defaults, as version 0.
    pub fn builtin() -> Result<Self, PolicyError> {
        Self::with_l1(L1, 0)
    }

    /// The invariants together with `text` as L1. A policy without `@id` is named after its place in the text.
    pub fn with_l1(text: &str, version: u64) -> Result<Self, PolicyError> {
        let (schema, warnings) = Schema::from_cedarschema_str(SCHEMA).map_err(invalid)?;
        if let Some(w) = warnings.into_iter().next() {
            return Err(invalid(w));
        }
        let mut set = PolicySet::new();
        for policy in parse(L0)? {
            add(&mut set, policy)?;
        }
        for policy in parse(text)? {
            if policy.id().to_string().starts_with(L0_PREFIX) {
                return Err(PolicyError::Reserved(policy.id().to_string()));
            }
            add(&mut set, policy)?;
        }
        let schema = validated(&set, schema)?;
        let kinds = Kinds::new()?;
        let samples = Samples::new().map_err(invalid)?;
        Entities::from_entities(samples.entities(&kinds).map_err(invalid)?, Some(&schema)).map_err(invalid)?;
        let mut rules = Rules::of(&set)?;
        for question in samples.questions(&kinds).map_err(invalid)? {
            rules.learn(question, &schema);
        }
        Ok(Self { set, rules, schema, kinds, authorizer: Authorizer::new(), version })
    }

    /// The version of the L1 text; it goes into the log with each decision.
    pub fn version(&self) -> u64 {
        self.version
    }
}

fn invalid(why: impl Display) -> PolicyError {
    PolicyError::Invalid(why.to_string())
}

/// The policies of a text, each under the name its author gave it.
fn parse(text: &str) -> Result<Vec<Policy>, PolicyError> {
    let set: PolicySet = text.parse().map_err(|e: cedar_policy::ParseErrors| PolicyError::Syntax(e.to_string()))?;
    if set.num_of_templates() > 0 {
        return Err(PolicyError::Template);
    }
    Ok(set
        .policies()
        .map(|p| {
            let name = p.annotation("id").map_or_else(|| format!("L1-{}", p.id()), str::to_owned);
            p.new_id(PolicyId::new(name))
        })
        .collect())
}

pub(crate) fn add(set: &mut PolicySet, policy: Policy) -> Result<(), PolicyError> {
    let name = policy.id().to_string();
    set.add(policy).map_err(|_| PolicyError::Duplicate(name))
}

/// Strict validation; a warning counts as an error, for it means a rule without effect or a text that misleads its reader.
fn validated(set: &PolicySet, schema: Schema) -> Result<Schema, PolicyError> {
    let validator = Validator::new(schema);
    let result = validator.validate_with_level(set, ValidationMode::Strict, MAX_DEREF_LEVEL);
    let errors = result.validation_errors().map(ToString::to_string);
    let warnings = result.validation_warnings().map(ToString::to_string);
    let faults: Vec<String> = errors.chain(warnings).collect();
    if faults.is_empty() { Ok(validator.schema().clone()) } else { Err(PolicyError::Invalid(faults.join("; "))) }
}
