//! The decisions, and `Permit`: the proof that one was asked for and given.
//!
//! LAW: whatever cannot be evaluated is refused (`an_evaluation_error_is_a_refusal`). Cedar skips a policy that errs,
//! so a forbid that errs would otherwise fail open.

use crate::facts::{GrantFacts, MountFacts, OperatorFacts, SvidFacts};
use crate::policies::Policies;
use crate::question::Question;
use cedar_policy::{Decision, Entities, PolicySet, Request};
use std::collections::BTreeMap;
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

impl Policies {
    /// May a task of the service be started there?
    pub fn decide_grant(&self, f: &GrantFacts) -> Result<Permit<Grant>, Refusal> {
        self.decide(Question::grant(&self.kinds, f)?)
    }

    /// May the secret be boxed to the node for the service's task?
    pub fn decide_mount(&self, f: &MountFacts) -> Result<Permit<Mount>, Refusal> {
        self.decide(Question::mount(&self.kinds, f)?)
    }

    /// May the node be given an identity for the service's task?
    pub fn decide_svid(&self, f: &SvidFacts) -> Result<Permit<Svid>, Refusal> {
        self.decide(Question::svid(&self.kinds, f)?)
    }

    /// May this signer do this? Thresholds are counted by the caller, over signers that are each permitted.
    pub fn decide_operator(&self, f: &OperatorFacts) -> Result<Permit<Operator>, Refusal> {
        self.decide(Question::operator(&self.kinds, f)?)
    }

    fn decide<Act>(&self, q: Question) -> Result<Permit<Act>, Refusal> {
        let Some(policies) = self.rules.about(&q) else {
            // Not known to fit: the schema says what is wrong with it, and if nothing is, every policy is asked.
            let (request, entities) = q.put(Some(&self.schema))?;
            return self.ask(&request, &entities, [&self.set]);
        };
        let (request, entities) = q.put(None)?;
        self.ask(&request, &entities, policies.into_iter().flatten())
    }

    /// Asks Cedar, of sets that share no policy. Reached with a typed request and typed entities only.
    pub(crate) fn ask<'s, Act>(
        &self,
        request: &Request,
        entities: &Entities,
        sets: impl IntoIterator<Item = &'s PolicySet>,
    ) -> Result<Permit<Act>, Refusal> {
        let mut failed: BTreeMap<String, String> = BTreeMap::new();
        let (mut permits, mut forbids): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for set in sets {
            let response = self.authorizer.is_authorized(request, set, entities);
            failed.extend(response.diagnostics().errors().map(
                |cedar_policy::AuthorizationError::PolicyEvaluationError(e)| {
                    (e.policy_id().to_string(), e.inner().to_string())
                },
            ));
            // A set's reasons are its forbids that are satisfied, or else its permits.
            let reasons = response.diagnostics().reason().map(ToString::to_string);
            match response.decision() {
                Decision::Allow => permits.extend(reasons),
                Decision::Deny => forbids.extend(reasons),
            }
        }
        if let Some(why) = failed.values().next() {
            return Err(Refusal { policies: failed.keys().cloned().collect(), ..Refusal::unevaluated(why) });
        }
        permits.sort();
        forbids.sort();
        if !forbids.is_empty() {
            return Err(Refusal { reason: format!("forbidden by {}", forbids.join(", ")), policies: forbids });
        }
        if permits.is_empty() {
            return Err(Refusal { policies: permits, reason: "no policy permits it".to_owned() });
        }
        Ok(Permit { policy_version: self.version(), policies: permits, act: PhantomData })
    }
}
