//! The options of the verbs about signed statements, of every verb that signs one, and of the brake.

use clap::Args;
use std::path::PathBuf;

/// What becomes of what a verb signs.
#[derive(Debug, Clone, Default, Args)]
pub struct SignTo {
    /// Write what is signed to this new file instead of submitting it; see `sign`, `inspect` and `submit`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Options of `sign`.
#[derive(Debug, Args)]
pub struct Sign {
    /// File that a verb wrote with --out
    pub file: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Options of `submit`.
#[derive(Debug, Args)]
pub struct Submit {
    /// File that a verb wrote with --out; or copies of it that were signed apart
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Options of `lockdown`.
#[derive(Debug, Args)]
pub struct Lockdown {
    /// Why, for the log
    #[arg(long)]
    pub reason: String,
    /// What becomes of it.
    #[command(flatten)]
    pub to: SignTo,
}

/// Options of `release`.
#[derive(Debug, Args)]
pub struct Release {
    /// Why, for the log
    #[arg(long)]
    pub reason: Option<String>,
    /// What becomes of it.
    #[command(flatten)]
    pub to: SignTo,
}
