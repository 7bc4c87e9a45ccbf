//! `holdfast-agent`: one node. The hidden subcommands are served before anything else: see `runtime`.

use clap::Parser as _;
use holdfast_agent::args::Args;
use holdfast_agent::run;
use holdfast_transport::failure::Failure;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = holdfast_agent::runtime::hidden_subcommand(&args) {
        return code;
    }
    match agent(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

fn agent(args: Args) -> Result<(), Failure> {
    let config = run::configuration(&args)?;
    if args.check_config {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::failed("runtime", e.to_string()))?;
    let ended = runtime.block_on(run::run(args, config));
    // Tasks run on: nothing that is still under way here is waited for.
    runtime.shutdown_background();
    ended
}

#[expect(clippy::print_stderr, reason = "the last words of a process that may have no log")]
fn complain(failure: &Failure) {
    eprintln!("error: {failure}");
    for (name, value) in &failure.details {
        eprintln!("  {name}: {value}");
    }
    if let Some(help) = &failure.help {
        eprintln!("help: {help}");
    }
}
