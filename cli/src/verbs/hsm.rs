//! `hsm probe`: what a token can do for a vault. The token's module is code of others: it runs in a process of the vault's
//! program, never in this one, and for no longer than a time that is given.

use super::dev::process::beside;
use crate::app::App;
use crate::args::{HsmProbe, HsmVerb};
use crate::errors::{Code, Failure};
use crate::files;
use serde::Deserialize;
use serde_json::json;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use zeroize::Zeroizing;

/// A token that makes keys may take its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than the PIN of any token.
const MAX_PIN: u64 = 257;

/// Runs the verb.
pub async fn run(app: &App, verb: HsmVerb) -> Result<(), Failure> {
    match verb {
        HsmVerb::Probe(a) => probe(app, a).await,
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Told>,
    probe: Option<Probe>,
}
#[derive(Deserialize)]
struct Told {
    code: String,
    message: String,
}
#[derive(Deserialize)]
struct Probe {
    module: String,
    library: String,
    token: String,
    slot: u64,
    findings: Vec<Finding>,
}
#[derive(Deserialize)]
struct Finding {
    what: String,
    works: Option<bool>,
    note: String,
}

async fn probe(app: &App, a: HsmProbe) -> Result<(), Failure> {
    let program = a.program.map_or_else(program, Ok)?;
    let pin = pin(a.pin_file.as_deref())?;
    let text = ask(&program, &a.uri, &pin, app.timeout(PATIENCE)).await?;
    let unreadable = |_| Failure::new(Code::Failed, "the probe gave no answer", "see its lines above");
    let answer: Answer = toml::from_str(&text).map_err(unreadable)?;
    match (answer.probe, answer.error) {
        (Some(found), None) => show(app, &found),
        (_, Some(told)) => Err(failure(told)),
        (None, None) => Err(Failure::new(Code::Failed, "the probe gave no answer", "see its lines above")),
    }
}

fn failure(told: Told) -> Failure {
    let code = Code::ALL.iter().find(|c| c.word() == told.code).copied().unwrap_or(Code::Failed);
    let help = if code == Code::PinIncorrect {
        "give the PIN of the token's user; tokens lock after a few wrong ones"
    } else if code == Code::InvalidInput {
        "give it as pkcs11:token=NAME?module-path=/path/of/the/module.so"
    } else {
        "see docs/operations/hsm.md"
    };
    Failure::new(code, told.message, help)
}

/// The vault's program: beside this one, or where daemons are.
fn program() -> Result<PathBuf, Failure> {
    const NAME: &str = "holdfast-vault";
    let installed = || ["/usr/bin", "/usr/sbin", "/usr/local/bin"].into_iter().map(|dir| Path::new(dir).join(NAME));
    beside(NAME).or_else(|e| installed().find(|p| p.is_file()).ok_or(e))
}

/// The PIN: from a file, from standard input, or typed.
fn pin(file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut pin = match file {
        Some(path) if path == Path::new("-") => {
            files::read_limited(std::io::stdin().lock(), MAX_PIN, "standard input")?
        }
        Some(path) => files::read_private(path, MAX_PIN)?,
        None if std::io::stdin().is_terminal() => {
            let typed = rpassword::prompt_password("PIN of the token (empty: none): ").map(Zeroizing::new);
            let typed = typed
                .map_err(|e| Failure::new(Code::Io, format!("cannot read from the terminal: {e}"), "use --pin-file"))?;
            Zeroizing::new(typed.as_bytes().to_vec())
        }
        None => files::read_limited(std::io::stdin().lock(), MAX_PIN, "standard input")?,
    };
    if pin.last() == Some(&b'\n') {
        pin.pop();
    }
    Ok(pin)
}

/// Runs the probe for no longer than `patience`; what it printed.
async fn ask(program: &Path, uri: &str, pin: &[u8], patience: Duration) -> Result<String, Failure> {
    let io = |e: std::io::Error| Failure::io("run", program, &e);
    let mut command = Command::new(program);
    command.args(["hsm-probe", uri]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.kill_on_drop(true).spawn().map_err(io)?;
    let told = async {
        if let Some(mut stdin) = child.stdin.take() {
            // One that has no use for it has ended, and says why.
            drop(stdin.write_all(pin).await);
        }
        child.wait_with_output().await
    };
    let late = || {
        let what = format!("the token did not answer in {} s", patience.as_secs());
        Failure::new(Code::TokenTimeout, what, "look after the token, or give it more time: --timeout")
    };
    let output = tokio::time::timeout(patience, told).await.map_err(|_| late())?.map_err(io)?;
    if output.stdout.is_empty() {
        let what = format!("the probe ended without an answer ({})", output.status);
        let help = "the token's module may have crashed: see the lines above, if there are any";
        return Err(Failure::new(Code::Failed, what, help));
    }
    String::from_utf8(output.stdout).map_err(|_| Failure::new(Code::Failed, "the probe gave no text", "try it again"))
}

fn show(app: &App, found: &Probe) -> Result<(), Failure> {
    let finding = |f: &Finding| json!({"what": f.what, "works": f.works, "note": f.note});
    let document = json!({
        "module": found.module, "library": found.library, "token": found.token, "slot": found.slot,
        "findings": found.findings.iter().map(finding).collect::<Vec<_>>(),
    });
    app.out.show(&document, || {
        let mut text = format!(
            "module    {}\nlibrary   {}\ntoken     {}\nslot      {}\n\n",
            found.module, found.library, found.token, found.slot
        );
        let works = |works: Option<bool>| match works {
            Some(true) => "ok",
            Some(false) => "no",
            None => "-",
        };
        let row = |f: &Finding| vec![f.what.clone(), works(f.works).to_owned(), f.note.clone()];
        text.push_str(&app.out.table(&["what", "works", "note"], found.findings.iter().map(row).collect()));
        text
    })
}
