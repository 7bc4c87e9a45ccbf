//! Why the vault says no: one kebab-case code for programs, one sentence for people, the policies that decided.

use std::fmt;

/// Stable codes; the list of all programs' codes is in `holdfast-transport`, and holds these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Code {
    /// A Cedar policy or the absence of one decided.
    PolicyDenied,
    /// A signature, token, MAC or certificate does not count here.
    BadCredential,
    /// Too few signatures.
    Threshold,
    /// A budget of the mandate is used up.
    BudgetExhausted,
    /// Malformed or contradictory input.
    InvalidInput,
    /// No such thing.
    NotFound,
    /// It changed meanwhile: stale revision, version gap, reused id.
    Changed,
    /// The identity waits for approval.
    Pending,
    /// Keys are missing or the state is not founded.
    Unavailable,
    /// Stored bytes do not make sense.
    Corrupt,
    /// The caller's clock and the leader's are too far apart.
    Clock,
    /// A voter's disk is older than what is known of it, or a copy of it runs elsewhere.
    RolledBack,
}
impl Code {
    /// Every code.
    pub const ALL: [Self; 12] = [
        Self::PolicyDenied,
        Self::BadCredential,
        Self::Threshold,
        Self::BudgetExhausted,
        Self::InvalidInput,
        Self::NotFound,
        Self::Changed,
        Self::Pending,
        Self::Unavailable,
        Self::Corrupt,
        Self::Clock,
        Self::RolledBack,
    ];
    /// The code as users and programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::PolicyDenied => "policy-denied",
            Code::BadCredential => "bad-credential",
            Code::Threshold => "threshold",
            Code::BudgetExhausted => "budget-exhausted",
            Code::InvalidInput => "invalid-input",
            Code::NotFound => "not-found",
            Code::Changed => "changed",
            Code::Pending => "pending",
            Code::Unavailable => "unavailable",
            Code::Corrupt => "corrupt",
            Code::Clock => "clock",
            Code::RolledBack => "rolled-back",
        }
    }
}

/// A refusal with its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What was wrong, for people; never contains a secret.
    pub reason: String,
    /// The determining policies, where a policy decided.
    pub policies: Vec<String>,
}
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if !self.policies.is_empty() {
            write!(f, " (policy {})", self.policies.join(", "))?;
        }
        Ok(())
    }
}
impl Refusal {
    /// A refusal with a code and a reason.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), policies: Vec::new() }
    }
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::new(Code::InvalidInput, reason)
    }
    pub(crate) fn not_found(what: &str, id: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} {id}"))
    }
    pub(crate) fn changed(reason: impl Into<String>) -> Self {
        Self::new(Code::Changed, reason)
    }
    pub(crate) fn credential(reason: impl Into<String>) -> Self {
        Self::new(Code::BadCredential, reason)
    }
    pub(crate) fn corrupt(what: &str) -> Self {
        Self::new(Code::Corrupt, format!("stored {what} does not make sense"))
    }
}
impl From<holdfast_policy::Refusal> for Refusal {
    fn from(r: holdfast_policy::Refusal) -> Self {
        Self { code: Code::PolicyDenied, reason: r.reason, policies: r.policies }
    }
}
impl From<holdfast_wire::charter::CharterError> for Refusal {
    fn from(e: holdfast_wire::charter::CharterError) -> Self {
        use holdfast_wire::charter::CharterError as E;
        match e {
            E::Malformed(e) | E::Signature(e) => e.into(),
            E::Missing | E::First | E::Order(_) | E::Gap { .. } | E::Fork(_) | E::Domain | E::Names | E::Threshold => {
                Self::invalid(e.to_string())
            }
        }
    }
}
impl From<holdfast_wire::statement::StatementError> for Refusal {
    fn from(e: holdfast_wire::statement::StatementError) -> Self {
        use holdfast_wire::statement::StatementError as E;
        let code = match &e {
            E::Threshold { .. } => Code::Threshold,
            E::BadSignature => Code::BadCredential,
            E::Type { .. } | E::TooManySignatures | E::Payload(_) => Code::InvalidInput,
        };
        Self::new(code, e.to_string())
    }
}
