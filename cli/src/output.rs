//! What goes to standard output: one JSON document, or tables and lines for people; and notes on standard error.
//!
//! The only file that writes to the terminal. It never decides what is secret: verbs print a secret only where that is
//! their job.

use crate::errors::{Code, Failure};
use comfy_table::{Cell, Color, Table, presets};
use holdfast_types::{Millis, rough};
use serde_json::Value;
use std::io::{IsTerminal as _, Write as _};

/// How to print, as the global options say.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    quiet: bool,
    color: bool,
}

/// What a state means for the reader: the colour it gets on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// Nothing special.
    Plain,
}

impl Output {
    /// From the global options; colours only on a terminal and never with `NO_COLOR` (no-color.org).
    pub fn new(json: bool, quiet: bool, no_color: bool) -> Self {
        let forbidden = no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { json, quiet, color: !forbidden && std::io::stdout().is_terminal() }
    }
    /// True if one JSON document is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }
    /// Prints the JSON document (with `--json`) or else what `human` makes.
    pub fn show(&self, document: &Value, human: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.raw(&format!("{document:#}\n")) } else { self.raw(&human()) }
    }
    /// Prints a list: `{"<key>": [documents…]}` or a table.
    pub fn list(&self, key: &str, documents: Vec<Value>, head: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let mut map = serde_json::Map::new();
        map.insert(key.to_owned(), Value::Array(documents));
        self.show(&Value::Object(map), || self.table(head, rows))
    }
    /// Prints what was done: the document, or one line that `--quiet` silences.
    pub fn done(&self, document: &Value, line: &str) -> Result<(), Failure> {
        self.show(document, || if self.quiet { String::new() } else { format!("{line}\n") })
    }
    /// Writes text to standard output as it is. A closed pipe ends the program quietly, as `head` expects.
    pub fn raw(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| {
            Failure::new(Code::Io, format!("cannot write to standard output: {e}"), "check where the output goes")
        })
    }
    /// A line about progress on standard error; silenced by `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            complain(&format!("{text}\n"));
        }
    }
    /// A table without borders, as `kubectl` and `docker` print; state words get their colour.
    pub fn table(&self, head: &[&str], rows: Vec<Vec<String>>) -> String {
        let mut t = Table::new();
        t.load_style(presets::NOTHING).set_header(head.iter().map(|h| h.to_uppercase()).collect::<Vec<_>>());
        // Whether to colour is decided here and not by what the library thinks of the terminal.
        if self.color {
            t.enforce_styling()
        } else {
            t.force_no_tty()
        };
        for row in rows {
            t.add_row(row.into_iter().map(|text| self.cell(text)).collect::<Vec<_>>());
        }
        t.lines().map(|l| format!("{}\n", l.trim())).collect()
    }
    fn cell(&self, text: String) -> Cell {
        let color = match tone(&text) {
            Tone::Good => Color::Green,
            Tone::Warn => Color::Yellow,
            Tone::Bad => Color::Red,
            Tone::Plain => return Cell::new(text),
        };
        if self.color { Cell::new(text).fg(color) } else { Cell::new(text) }
    }
    /// Text in the colour of its tone.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Plain => return text.to_owned(),
        };
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
    /// A state word, painted by what it means.
    pub fn state(&self, word: &str) -> String {
        self.paint(word, tone(word))
    }
    /// Prints a failure where it belongs: the document on standard output, the two lines on standard error.
    pub fn failure(&self, f: &Failure) {
        if self.json {
            // Nothing better can be done when standard output is gone: the two lines still say what failed.
            drop(self.raw(&format!("{:#}\n", f.document())));
        }
        complain(&f.lines());
    }
    /// A bar for `total` steps on standard error; invisible with `--quiet`, `--json` or without a terminal.
    pub fn bar(&self, total: u64, what: &str) -> indicatif::ProgressBar {
        if self.quiet || self.json || !std::io::stderr().is_terminal() {
            return indicatif::ProgressBar::hidden();
        }
        let style = indicatif::ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} {wide_msg}");
        let bar = indicatif::ProgressBar::new(total).with_prefix(what.to_owned());
        style.map(|s| bar.clone().with_style(s.progress_chars("=> "))).unwrap_or(bar)
    }
}

/// Asks something on standard error; the answer is typed on the same line.
pub fn ask(question: &str) {
    complain(question);
}

/// Writes to standard error; where even that fails nobody is left to be told.
fn complain(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

fn tone(word: &str) -> Tone {
    match word {
        "ready" | "running" | "signed" | "ok" | "active" | "done" => Tone::Good,
        "pending" | "draining" | "recovering" | "issued" | "started" | "restarting" | "sealed" | "joining" => {
            Tone::Warn
        }
        "failed" | "refused" | "quarantined" | "removed" | "revoked" | "no-quorum" | "lapsed" | "unreachable"
        | "evicted" | "rolled-back" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// An RFC 3339 time for documents; null for "never".
pub fn time(ms: i64) -> Value {
    if ms == 0 { Value::Null } else { Value::String(Millis(ms).rfc3339()) }
}

/// How long ago or ahead `ms` is from `now`, for people: `3m`, `2h`, `5d`.
pub fn age(now: Millis, ms: i64) -> String {
    if ms == 0 {
        return "-".to_owned();
    }
    let (d, ahead) = if ms > now.0 { (Millis(ms).since(now), true) } else { (now.since(Millis(ms)), false) };
    let text = rough(d);
    if ahead { format!("in {text}") } else { format!("{text} ago") }
}

/// A list of words for a table cell; `-` for none.
pub fn words(v: &[String]) -> String {
    if v.is_empty() { "-".to_owned() } else { v.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_borders_and_no_trailing_spaces() {
        let t = Output::new(false, false, true).table(&["id", "state"], vec![vec!["node-1".into(), "ready".into()]]);
        let lines: Vec<_> = t.lines().map(str::split_whitespace).map(Iterator::collect::<Vec<_>>).collect();
        assert_eq!(lines, [vec!["ID", "STATE"], vec!["node-1", "ready"]]);
        assert!(t.lines().all(|l| l == l.trim()));
    }

    #[test]
    fn ages_say_which_side_of_now_they_are() {
        let now = Millis(1_000_000_000);
        assert_eq!(age(now, now.0 - 60_000), "60s ago");
        assert_eq!(age(now, now.0 + 3 * 86_400_000), "in 3d");
        assert_eq!(age(now, 0), "-");
        assert_eq!(time(0), Value::Null);
    }
}
