//! How a daemon ends: its last line and its exit status.

use crate::failure::Failure;
use std::process::ExitCode;

/// The exit status of `ended`; a failure is logged, in one line that says what was wrong and what to do.
pub fn exit_code(ended: Result<(), Failure>) -> ExitCode {
    let Err(failure) = ended else { return ExitCode::SUCCESS };
    tracing::error!(code = %failure.code, "{}", failure.line());
    ExitCode::from(failure.kind.exit_code())
}
