//! Failures as users and scripts see them: one line `error:`, one line `help:`, a stable code, an exit code.
//!
//! The codes are those of all programs; `docs/reference/errors.md` is generated from their table. What the cluster
//! answers keeps its code. A failure never contains a secret.

use holdfast_transport::failure::{Failure as Answer, FailureKind};

pub use holdfast_transport::codes::Code;

use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt::Display;

/// A failure: what was wrong, what to do, and details for scripts.
#[derive(Debug)]
pub struct Failure {
    /// Whose turn it is; gives the exit status.
    pub kind: FailureKind,
    /// The stable word.
    pub code: Cow<'static, str>,
    /// What was wrong: lower case, one line, no full stop.
    pub message: String,
    /// What to do next.
    pub help: String,
    /// Further fields of the JSON document.
    pub details: Map<String, Value>,
}

impl Failure {
    /// A failure with nothing but its message and help.
    pub fn new(code: Code, message: impl Display, help: impl Display) -> Self {
        let (message, help) = (one_line(&message.to_string()), one_line(&help.to_string()));
        Self { kind: code.kind(), code: code.word().into(), message, help, details: Map::new() }
    }
    /// Adds a field for scripts.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }
    /// A file that could not be read or written.
    pub fn io(doing: &str, path: &std::path::Path, e: &std::io::Error) -> Self {
        Self::from(Answer::disk(doing, path, e))
    }
    /// A feature that the interface names and this version lacks.
    pub fn not_yet(what: &str) -> Self {
        Self::new(Code::NotAvailableYet, format!("{what} is not available yet"), "leave it out")
    }
    /// An answer that does not verify.
    pub fn untrusted(why: impl Display) -> Self {
        let help =
            "do not go on: the answer is not from this cluster, or a voter is lying; check the address and the voter";
        Self::new(Code::Untrusted, why, help)
    }
    /// No such thing.
    pub fn not_found(what: impl Display, help: impl Display) -> Self {
        Self::new(Code::NotFound, format!("no such {what}"), help)
    }
    /// The same failure to see how far something is that was ordered and goes on by itself: whoever repeated the command would
    /// order it once more.
    pub fn unseen(self, goes_on: &str) -> Self {
        match self.kind {
            FailureKind::NotLeader | FailureKind::Unavailable => Self { help: goes_on.to_owned(), ..self },
            FailureKind::Failed
            | FailureKind::Invalid
            | FailureKind::Refused
            | FailureKind::Exhausted
            | FailureKind::NotFound
            | FailureKind::Changed => self,
        }
    }
    /// The exit status of the program.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }
    /// The two lines for people.
    pub fn lines(&self) -> String {
        format!("error: {}\nhelp: {}\n", self.message, self.help)
    }
    /// The document for scripts.
    pub fn document(&self) -> Value {
        json!({ "error": {
            "code": self.code, "message": self.message, "help": self.help, "details": self.details,
        } })
    }
}

impl From<Answer> for Failure {
    /// What the cluster answered. Where nobody could be reached, the message says what each address said.
    fn from(a: Answer) -> Self {
        let message = a.said();
        let mut details: Map<String, Value> = Map::new();
        for (name, value) in a.details {
            if let Value::Array(all) = details.entry(name).or_insert_with(|| json!([])) {
                all.push(value.into());
            }
        }
        let help = a.help.unwrap_or_else(|| advice(a.kind).to_owned());
        Self { kind: a.kind, code: a.code, message: one_line(&message), help: one_line(&help), details }
    }
}

/// What to do where the answer itself gave no advice.
fn advice(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Refused => "ask an operator whose roles allow it, or look at the policy that is named",
        FailureKind::Exhausted => "wait, or ask for a larger budget",
        FailureKind::Invalid => "correct the request; see `holdfast VERB --help`",
        FailureKind::NotFound => "list what there is with the verb `ls`",
        FailureKind::Changed => "look again and repeat the command",
        FailureKind::NotLeader | FailureKind::Unavailable => {
            "see `holdfast status`; repeat the command when voters are up"
        }
        FailureKind::Failed => "see the voter's log",
    }
}

/// Messages come from many places; what is shown is always one line without control characters.
fn one_line(s: &str) -> String {
    s.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "")
}

/// `docs/reference/errors.md`.
pub fn reference() -> String {
    let mut page = "# Error codes\n\n\
        Every failure of `holdfast` prints one line `error:` and one line `help:` on standard error. With `--json`, standard\n\
        output holds `{\"error\":{\"code\",\"message\",\"help\",\"details\"}}`. The exit status says what kind of failure it was:\n\n\
        | exit | meaning |\n|---|---|\n| 0 | done |\n| 1 | failed |\n| 2 | wrong usage |\n| 3 | refused: policy, threshold, credential |\n\
        | 4 | not found, or changed meanwhile |\n| 5 | unavailable: sealed, no quorum, unreachable |\n\n\
        | code | exit | meaning |\n|---|---|---|\n"
        .to_owned();
    for c in Code::ALL {
        page.push_str(&format!("| `{}` | {} | {} |\n", c.word(), c.kind().exit_code(), c.meaning()));
    }
    page.push_str(
        "\nThe daemons use the same codes: in the answers that `holdfast` passes on, in the last line of a daemon that\n\
         cannot start or go on, and in its exit status. `details` holds what a refusal names, such as the policy.\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_two_lines_whatever_its_cause_says() {
        let f = Failure::new(Code::PolicyDenied, "first\nsecond\u{1b}[31m", "do\tthis");
        assert_eq!(f.lines(), "error: first second[31m\nhelp: do this\n");
        assert_eq!(f.exit_code(), 3);
    }

    #[test]
    fn whoever_loses_sight_of_what_was_ordered_is_not_told_to_order_it_again() {
        let lost = |code: Code| Failure::new(code, "lost", "repeat the command").unseen("it goes on");
        assert_eq!((lost(Code::Unreachable).help.as_str(), lost(Code::Unreachable).exit_code()), ("it goes on", 5));
        assert_eq!(lost(Code::Untrusted).help, "repeat the command");
    }

    #[test]
    fn the_json_document_has_the_promised_fields() {
        let d = Failure::new(Code::NotFound, "no such node", "list them").with("id", "node-1").document();
        assert_eq!(
            d,
            json!({"error": {"code": "not-found", "message": "no such node", "help": "list them", "details": {"id": "node-1"}}})
        );
    }
}
