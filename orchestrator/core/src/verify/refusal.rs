//! Why a node says no.

use holdfast_wire::charter::CharterError;
use holdfast_wire::statement::StatementError;

/// A refusal: which check, a code for programs, a sentence for people. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("check {check} refused ({code}): {reason}")]
pub struct Refusal {
    /// 1 to 9: the check of protocol §5.5; 0: a document or order outside those ten.
    pub check: u8,
    /// Kebab-case, stable.
    pub code: &'static str,
    /// What was wrong and what to do.
    pub reason: String,
}

impl Refusal {
    /// A refusal by `check`.
    pub(crate) fn new(check: u8, code: &'static str, reason: impl Into<String>) -> Self {
        Self { check, code, reason: reason.into() }
    }
    /// A refusal outside the ten checks.
    pub(crate) fn outside(code: &'static str, reason: impl Into<String>) -> Self {
        Self::new(0, code, reason)
    }
    /// Says which document's statement was not believed.
    pub(crate) fn statement(check: u8, code: &'static str) -> impl FnOnce(StatementError) -> Self {
        move |e| Self::new(check, code, e.to_string())
    }
}

impl From<CharterError> for Refusal {
    fn from(e: CharterError) -> Self {
        Self::outside(e.code(), e.to_string())
    }
}

/// `Ok` if `holds`, else the refusal.
pub(crate) fn require(
    holds: bool,
    check: u8,
    code: &'static str,
    reason: impl FnOnce() -> String,
) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::new(check, code, reason())) }
}
