//! Who may do what: the Cedar schema, the built-in invariants (L0), the replaceable defaults (L1), and the decisions.
//!
//! Pure: facts in, `Permit` or `Refusal` out. Only committed facts may be handed in; nothing is looked up here.
//! It must never answer "allowed" when something could not be evaluated: every error is a refusal.

mod decide;
mod entities;
mod facts;
mod policies;
mod question;
mod rules;
mod samples;
#[cfg(test)]
mod tests;

pub use decide::{Grant, Mount, Operator, Permit, Refusal, Svid};
pub use facts::{
    GrantFacts, MountFacts, NodeFacts, OperatorAct, OperatorFacts, OrchestratorFacts, SecretFacts, ServiceFacts,
    SvidFacts, Target,
};
pub use policies::{Policies, PolicyError};
