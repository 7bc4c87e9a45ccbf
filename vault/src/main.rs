//! `holdfast-vault`: parses arguments, gives up rights, runs. Nothing else happens here.
//!
//! Its first argument makes it one of the processes that speak with a token in the vault's place.

use clap::Parser;
use holdfast_hsm::process;
use holdfast_vault::hsm_probe;
use holdfast_vault::run::{self, Join};
use std::ffi::OsStr;
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
    /// A join token for the role of a voter, to join a cluster that runs. Without it, an empty voter waits for `init`.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// The cluster's join listeners, for the first start with a join token.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    vault: Vec<String>,
}

fn main() -> ExitCode {
    match std::env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some(process::KEEPER) => return process::keeper_main(),
        Some(process::WORKER) => return process::worker_main(),
        Some(hsm_probe::NAME) => return hsm_probe::main(),
        Some(_) | None => {}
    }
    let a = Args::parse();
    run::main(run::Args {
        config: a.config,
        check_config: a.check_config,
        ports_file: a.ports_file,
        log_json: a.log_format == "json",
        join: Join { token_file: a.join_token_file, vault: a.vault },
    })
}
