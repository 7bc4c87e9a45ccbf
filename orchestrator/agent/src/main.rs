//! `holdfast-agent`: one node. The hidden subcommands are served before anything else: see `runtime`.

use clap::Parser as _;
use holdfast_agent::args::Args;
use holdfast_agent::run;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match holdfast_agent::runtime::hidden_subcommand(&args) {
        Some(code) => code,
        None => run::main(Args::parse()),
    }
}
