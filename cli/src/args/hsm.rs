//! The options of `hsm`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `hsm …`
#[derive(Debug, Subcommand)]
pub enum HsmVerb {
    /// Show what a token can do for a vault: it makes keys in it, and leaves one for wrapping
    Probe(HsmProbe),
}

/// Options of `hsm probe`.
#[derive(Debug, Args)]
pub struct HsmProbe {
    /// The token: pkcs11:token=NAME?module-path=/path/of/the/module.so
    #[arg(value_name = "URI")]
    pub uri: String,
    /// File with the PIN of the token's user; `-` is standard input [default: ask for it]
    #[arg(long, value_name = "FILE")]
    pub pin_file: Option<PathBuf>,
    /// The vault's program, which loads the module [default: holdfast-vault beside this program]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
}
