//! `holdfast-vault`: parses arguments, gives up rights, runs. Nothing else happens here.

use clap::Parser;
use holdfast_vault::run;
use std::path::PathBuf;
use std::process::ExitCode;

/// A vault voter: CA, keyring and registry of a Holdfast cluster.
#[derive(Debug, Parser)]
#[command(name = "holdfast-vault", version)]
struct Args {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Report all faults of the configuration together and exit.
    #[arg(long)]
    check_config: bool,
    /// Write the addresses that were bound to this file (JSON).
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
}

fn main() -> ExitCode {
    let a = Args::parse();
    run::main(&a.config, a.check_config, a.ports_file, &a.log_format)
}
