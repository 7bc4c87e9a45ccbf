//! What every verb is given: how to print, which context, how long to wait.

use crate::args::Global;
use crate::context::{self, Context, ContextDir};
use crate::errors::{Code, Failure};
use crate::output::Output;
use std::path::PathBuf;
use std::time::Duration;

/// The global options, resolved.
pub struct App {
    /// How to print.
    pub out: Output,
    context: String,
    timeout: Option<Duration>,
}

impl App {
    /// From the command line.
    pub fn new(g: &Global) -> Self {
        Self { out: Output::new(g.json, g.quiet, g.no_color), context: g.context.clone(), timeout: g.timeout }
    }
    /// `--timeout`, or what the verb waits by itself.
    pub fn timeout(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }
    /// The folder of the chosen context, which may not exist yet.
    pub fn context_dir(&self) -> Result<ContextDir, Failure> {
        ContextDir::new(&context::home()?, &self.context)
    }
    /// The chosen context.
    pub fn context(&self) -> Result<Context, Failure> {
        self.context_dir()?.load()
    }
    /// The socket named on the command line, or else in the context.
    pub fn socket(&self, given: Option<PathBuf>) -> Result<PathBuf, Failure> {
        if let Some(path) = given {
            return Ok(path);
        }
        self.context()?.settings.sockets().into_iter().next().ok_or_else(no_socket)
    }
    /// The sockets named on the command line, each once, or else the context's first one, or with `all` every one.
    pub fn sockets(&self, given: &[PathBuf], all: bool) -> Result<Vec<PathBuf>, Failure> {
        if given.is_empty() {
            let mut known = self.context()?.settings.sockets();
            known.truncate(if all { known.len() } else { 1 });
            return if known.is_empty() { Err(no_socket()) } else { Ok(known) };
        }
        let mut each: Vec<PathBuf> = Vec::new();
        for path in given {
            if !each.contains(path) {
                each.push(path.clone());
            }
        }
        Ok(each)
    }
}

fn no_socket() -> Failure {
    let help = "name it with --vault-socket, or run this on the machine of a voter";
    Failure::new(Code::Usage, "the context knows no voter on this machine", help)
}
