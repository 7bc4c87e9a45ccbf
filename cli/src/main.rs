//! `holdfast`: the operator's tool.
//!
//! Makes and keeps the operator's keys, signs what changes the cluster, verifies what the cluster says, opens slots
//! locally. Never prints a secret but where that is the verb's job, and never takes one from its command line.

mod app;
mod args;
mod carried;
mod charter;
mod client;
mod clock;
mod context;
mod era;
mod errors;
mod files;
mod founding;
mod framed;
mod keyin;
mod keyout;
mod known;
mod login;
mod needed;
mod operator;
mod output;
mod pems;
mod resolve;
mod shares;
mod signing;
mod slots;
mod socket;
mod spec;
mod trust;
mod verbs;

use app::App;
use clap::Parser as _;
use errors::{Code, Failure};
use holdfast_transport::failure::FailureKind;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let app = App::new(&cli.global);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .map_err(|e| Failure::new(Code::Failed, format!("cannot start: {e}"), "check the limits of this process"))
        .and_then(|r| r.block_on(verbs::run(cli, &app)));
    finish(&app.out, done)
}

fn finish(out: &Output, done: Result<(), Failure>) -> ExitCode {
    let Err(failure) = done else { return ExitCode::SUCCESS };
    out.failure(&failure);
    ExitCode::from(failure.exit_code())
}

/// Help and version, or a command line that is wrong.
fn usage(e: &clap::Error) -> ExitCode {
    let json = std::env::args().any(|a| a == "--json");
    let out = Output::new(json, false, false);
    match args::failure(e) {
        Some(failure) => finish(&out, Err(failure)),
        None if e.use_stderr() => {
            out.note(&e.render().to_string());
            ExitCode::from(FailureKind::Invalid.exit_code())
        }
        None => finish(&out, out.raw(&e.render().to_string())),
    }
}
