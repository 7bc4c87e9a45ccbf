//! `holdfast-orchestrator`: the scheduler. Arguments in, exit code out.

use clap::Parser;
use holdfast_orchestrator::run::{Arguments, main as run};
use holdfast_transport::daemon::{LogFormat, is_dialable};
use std::path::PathBuf;
use std::process::ExitCode;

/// Schedules services on nodes, as far as the vault grants it.
#[derive(Debug, Parser)]
#[command(name = "holdfast-orchestrator", version)]
struct Cli {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// First start: file that holds the join token
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// First start: addresses of the vault's join listeners
    #[arg(long, value_name = "HOST:PORT[,…]", value_delimiter = ',', value_parser = dialable)]
    vault: Vec<String>,
    /// Write the addresses of the listeners to this file
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
    /// How events are logged: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Report all faults of the configuration and exit
    #[arg(long)]
    check_config: bool,
}

fn dialable(addr: &str) -> Result<String, String> {
    if is_dialable(addr) { Ok(addr.to_owned()) } else { Err("an address is host:port".to_owned()) }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(Arguments {
        config: cli.config,
        join_token_file: cli.join_token_file,
        vault: cli.vault,
        ports_file: cli.ports_file,
        log_format: cli.log_format,
        check_config: cli.check_config,
    })
}
