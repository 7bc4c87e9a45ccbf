//! Losing rights before the first key is read: each step takes the witness of the step before, so none can be left out or reordered.
//!
//! ```text
//! forbid_dumps() -> Undumpable -> Unprivileged -> SwapChecked -> Confined -> Hardened
//! ```
//! All of it applies to the calling thread and the threads it starts later: run it first thing in `main`, before any runtime.
//! Must never: go on after a step that failed, or fall back without saying so in [`Hardened`].

mod files;
mod filter;
mod process;
mod swap;
mod syscalls;

pub use files::{Confined, Enforcement, Paths};
pub use filter::Hardened;
pub use process::{Undumpable, Unprivileged, forbid_dumps};
pub use swap::{SwapChecked, SwapState};

/// Why a step failed. The vault does not start then.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// The kernel refused a step.
    #[error("cannot {step}: {source}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Keys could be written to a disk in clear.
    #[error(
        "swap on {0} is not encrypted, so keys could reach a disk in clear: turn it off, encrypt it, or set allow_swap = true"
    )]
    Swap(String),
    /// Keys could be swapped out.
    #[error(
        "the kernel locks no memory for this process, so keys could be swapped out: raise its limit (LimitMEMLOCK= of the unit, \
         ulimit -l), or set allow_swap = true"
    )]
    Unlocked,
    /// A directory that the vault needs cannot be opened.
    #[error("cannot confine the process to {path}: {why}")]
    Path {
        /// The directory or file.
        path: String,
        /// What went wrong.
        why: String,
    },
    /// Landlock refused the rules.
    #[error("cannot confine the process to its directories: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// The system call filter could not be built or installed.
    #[error("cannot install the system call filter: {0}")]
    Filter(String),
}

#[cfg(test)]
mod tests;
