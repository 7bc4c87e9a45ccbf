//! What a verb signs: submitted at once, or written to a file, for others to sign and for anybody to submit.

use crate::app::App;
use crate::args::SignTo;
use crate::carried::{Carried, Tally};
use crate::client::{Cluster, NewCommand};
use crate::errors::{Code, Failure};
use holdfast_types::Millis;
use holdfast_wire::documents::COMMAND_LIFE;
use holdfast_wire::statement::Document;
use holdfast_wire::v1;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use v1::command::Action;

/// The vault's clock may be behind ours by this much: what lives longer than it allows would be refused.
const SPARE: Duration = Duration::from_secs(120);

/// What became of something that was signed.
pub enum Handed {
    /// The vault accepted it.
    In(v1::SubmitReply),
    /// It is in a file: what is known of it, for scripts and for people.
    Written {
        /// For scripts.
        document: Value,
        /// For people.
        line: String,
    },
}
impl Handed {
    fn tell(self, app: &App) -> Result<Option<v1::SubmitReply>, Failure> {
        match self {
            Self::In(reply) => Ok(Some(reply)),
            Self::Written { document, line } => app.out.done(&document, &line).map(|()| None),
        }
    }
}

/// Signs a command and submits it, or writes it to the file; `None`: it was written, and that was said.
pub async fn command(app: &App, c: &Cluster, to: &SignTo, action: Action) -> Result<Option<v1::SubmitReply>, Failure> {
    command_with(app, c, to, NewCommand::draw()?, action, Vec::new()).await
}

/// The same for a command whose box was sealed for `new`.
pub async fn command_with(
    app: &App,
    c: &Cluster,
    to: &SignTo,
    new: NewCommand,
    action: Action,
    sealed: Vec<u8>,
) -> Result<Option<v1::SubmitReply>, Failure> {
    let handed = hand_in(c, to, new, action, sealed).await?;
    handed.tell(app)
}

/// The same, and nothing is said of a file that was written: for verbs whose output is something else.
pub async fn hand_in(
    c: &Cluster,
    to: &SignTo,
    new: NewCommand,
    action: Action,
    sealed: Vec<u8>,
) -> Result<Handed, Failure> {
    match &to.out {
        None => c.command_with(new, action, sealed).await.map(Handed::In).map_err(more_than_one),
        Some(file) => {
            let life = COMMAND_LIFE.saturating_sub(SPARE);
            write(c, file, c.operator.sign(&c.to_command(new, action, life))?, sealed)
        }
    }
}

/// The same for any other document.
pub async fn document<T: Document>(
    app: &App,
    c: &Cluster,
    to: &SignTo,
    doc: &T,
) -> Result<Option<v1::SubmitReply>, Failure> {
    match &to.out {
        None => c.sign_and_submit(doc).await.map(Some).map_err(more_than_one),
        Some(file) => write(c, file, c.operator.sign(doc)?, Vec::new())?.tell(app),
    }
}

/// Where one signature is not enough, the way to more is said.
fn more_than_one(f: Failure) -> Failure {
    if f.code != Code::Threshold.word() {
        return f;
    }
    let help = "write it to a file with --out FILE, have others add theirs with `holdfast sign FILE`, then \
                `holdfast submit FILE`";
    Failure { help: help.to_owned(), ..f }
}

/// Refuses before anything is signed what one operator alone cannot do, unless it is written to a file.
pub fn one_is_enough(needed: usize, to: &SignTo, what: &str) -> Result<(), Failure> {
    if needed <= 1 || to.out.is_some() {
        return Ok(());
    }
    let f = Failure::new(Code::Threshold, format!("{what} needs the signatures of {needed} operators"), "");
    Err(more_than_one(f).with("needed", needed))
}

fn write(c: &Cluster, file: &Path, st: v1::Statement, sealed: Vec<u8>) -> Result<Handed, Failure> {
    let carried = Carried::new(&c.ctx.cluster, st, sealed)?;
    carried.create(file)?;
    let tallies = carried.tallies(c.trust.charter())?;
    let line = format!("signed, and written to {}\n{}", file.display(), said(&carried, &tallies));
    Ok(Handed::Written { document: document_of(file, &carried, &tallies), line: line.trim_end().to_owned() })
}

/// What is known of a file, for scripts: all but what is signed.
pub fn document_of(file: &Path, carried: &Carried, tallies: &[Tally]) -> Value {
    let tally = |t: &Tally| {
        json!({
            "entry": t.entry, "needed": t.needed, "missing": t.missing(), "signed_by": t.signed, "others": t.others,
        })
    };
    json!({
        "file": file.display().to_string(), "type": carried.signed.kind(), "sha256": carried.sha256(),
        "until": carried.signed.until_ms().map(|t| Millis(t).rfc3339()),
        "signatures": tallies.iter().map(tally).collect::<Vec<_>>(),
        "complete": tallies.iter().all(|t| t.missing() == 0),
    })
}

/// The same for people.
pub fn said(carried: &Carried, tallies: &[Tally]) -> String {
    let mut text = format!("{}  sha256:{}\n", carried.signed.kind(), carried.sha256());
    // A charter in a file names whomever its author likes.
    let names = |ids: &[String]| plain(&ids.join(", "));
    for t in tallies {
        let by = if t.signed.is_empty() { "nobody".to_owned() } else { names(&t.signed) };
        text.push_str(&format!("{}: {} needed, signed by {by}", t.entry, t.needed));
        if t.missing() > 0 {
            text.push_str(&format!("; {} missing of: {}", t.missing(), names(&t.others)));
        }
        text.push('\n');
    }
    if let Some(until) = carried.signed.until_ms() {
        text.push_str(&format!("to be submitted until {}\n", Millis(until)));
    }
    text
}

/// Text of unknown origin as a terminal may show it: nothing in it moves the cursor, or turns the order of letters round, so that
/// something else is read than is there.
pub fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if (c.is_control() && c != '\n') || turns(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_before_it_is_signed_cannot_hide_a_part_of_itself() {
        assert_eq!(plain("a\nb \u{1b}[2K\u{9b}1A\u{202e}c\r"), "a\nb \u{fffd}[2K\u{fffd}1A\u{fffd}c\u{fffd}");
        assert_eq!(plain("schön"), "schön");
    }

    #[test]
    fn one_operator_alone_is_told_how_to_ask_others() {
        let here = SignTo::default();
        one_is_enough(1, &here, "this").unwrap();
        let refused = one_is_enough(2, &here, "this").unwrap_err();
        assert_eq!((refused.code.as_ref(), refused.exit_code()), ("threshold", 3));
        assert!(refused.help.contains("--out") && refused.help.contains("holdfast sign"), "{refused:?}");
        one_is_enough(2, &SignTo { out: Some("file".into()) }, "this").unwrap();
        let other = more_than_one(Failure::new(Code::NotFound, "no such node", "list them"));
        assert_eq!(other.help, "list them");
    }
}
