//! `holdfast-vault hsm-probe URI`: what a token can do for a vault, for `holdfast hsm probe`. The PIN is read from standard
//! input; the answer goes to standard output as TOML. A process of its own: the module is code of others.

use crate::harden;
use crate::hsm::pin::read_most;
use holdfast_hsm::probe::{Probe, probe};
use holdfast_hsm::{KeyError, Uri};
use holdfast_types::SecretBytes;
use serde::Serialize;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

/// The first argument that makes this program a probe.
pub const NAME: &str = "hsm-probe";
/// Longer than any PIN.
const MOST: usize = 256;

#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Told>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<Probe>,
}
#[derive(Serialize)]
struct Told {
    code: &'static str,
    message: String,
}

/// Probes the token that the second argument names.
pub fn main() -> ExitCode {
    let answer = match answer() {
        Ok(probe) => Answer { error: None, probe: Some(probe) },
        Err(told) => Answer { error: Some(told), probe: None },
    };
    let failed = answer.error.is_some();
    let Ok(text) = toml::to_string(&answer) else { return ExitCode::FAILURE };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) if !failed => ExitCode::SUCCESS,
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

fn answer() -> Result<Probe, Told> {
    // Kept from here on: the PIN is in this process' memory.
    let _kept = harden::forbid_dumps().map_err(|e| Told { code: "harden", message: e.to_string() })?;
    let wrong = |message: String| Told { code: "invalid-input", message };
    let uri = std::env::args_os().nth(2).and_then(|uri| uri.into_string().ok());
    let uri = uri.ok_or_else(|| wrong("the URI of a token is missing".to_owned()))?;
    let uri = Uri::parse(&uri).map_err(|e| wrong(e.to_string()))?;
    let pin = pin().map_err(wrong)?;
    probe(&uri, pin).map_err(|e: KeyError| Told { code: e.word(), message: e.to_string() })
}

/// The PIN; nothing, if none is given.
fn pin() -> Result<Option<SecretBytes>, String> {
    // Not by the library's own handle, whose buffer would keep a copy.
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let pin = stdin.and_then(|stdin| read_most(&stdin, MOST)).map_err(|e| format!("cannot read the PIN: {e}"))?;
    if pin.len() == MOST {
        return Err("the PIN is longer than that of any token".to_owned());
    }
    Ok((!pin.is_empty()).then_some(pin))
}
