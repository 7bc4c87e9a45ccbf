//! The options of `image`.

use super::SignTo;
use clap::Subcommand;

/// `image …`
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Start an image nowhere any more, and tell where it runs
    Deny {
        /// Its digest, sha256:HEX
        digest: String,
        /// Why, for the log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Let a denied image be started again
    Allow {
        /// Its digest, sha256:HEX
        digest: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// List the images that are denied
    Ls,
}
