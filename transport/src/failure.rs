//! Why something that was asked for did not happen, as a value that a program can act on and a person can read.
//!
//! Travels between programs (see [`crate::status`]) and ends as the tool's `error:` and `help:` lines and its exit
//! status. Never holds a secret: what is put here is printed, logged and sent.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::Path;

/// Whose turn it is now. The order of blame: the caller's right, the caller's request, the world, the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Policy, threshold or credential says no.
    Refused,
    /// A budget or rate is used up.
    Exhausted,
    /// The request makes no sense.
    Invalid,
    /// The thing does not exist.
    NotFound,
    /// The thing is not in the state that the request assumed.
    Changed,
    /// Another voter leads; [`Failure::leader_addrs`] says where.
    NotLeader,
    /// Sealed, no quorum, unreachable: the same request may succeed later.
    Unavailable,
    /// The server failed.
    Failed,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Exhausted,
        Self::Invalid,
        Self::NotFound,
        Self::Changed,
        Self::NotLeader,
        Self::Unavailable,
        Self::Failed,
    ];
    /// The exit status of the tool.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Refused | Self::Exhausted => 3,
            Self::NotFound | Self::Changed => 4,
            Self::NotLeader | Self::Unavailable => 5,
        }
    }
}

/// A failure: what kind, which one, in words, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whose turn it is.
    pub kind: FailureKind,
    /// A kebab-case word for scripts.
    pub code: Cow<'static, str>,
    /// What was wrong: lower case, no full stop.
    pub message: String,
    /// What to do next, where there is something to do.
    pub help: Option<String>,
    /// Names and values: the policy, the voter, the budget.
    pub details: Vec<(String, String)>,
}

/// Name of the detail that carries a leader's address.
const LEADER: &str = "leader";

impl Failure {
    /// A failure without help or details.
    pub fn new(kind: FailureKind, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { kind, code: code.into(), message: message.into(), help: None, details: Vec::new() }
    }
    /// [`FailureKind::Refused`].
    pub fn refused(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Refused, code, message)
    }
    /// [`FailureKind::Exhausted`].
    pub fn exhausted(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Exhausted, code, message)
    }
    /// [`FailureKind::Invalid`].
    pub fn invalid(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, code, message)
    }
    /// [`FailureKind::NotFound`].
    pub fn not_found(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, code, message)
    }
    /// [`FailureKind::Changed`].
    pub fn changed(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Changed, code, message)
    }
    /// [`FailureKind::Unavailable`].
    pub fn unavailable(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Unavailable, code, message)
    }
    /// [`FailureKind::Failed`].
    pub fn failed(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(FailureKind::Failed, code, message)
    }
    /// A file or folder that could not be read, written or made: `doing` is the verb. What helps follows the cause.
    pub fn disk(doing: &str, path: &Path, e: &io::Error) -> Self {
        use io::ErrorKind as K;
        let help = if matches!(e.kind(), K::StorageFull | K::QuotaExceeded) {
            "free some space there"
        } else if matches!(e.kind(), K::PermissionDenied | K::ReadOnlyFilesystem) {
            "run this as the user who owns it, or correct its owner and mode"
        } else {
            "check the path, its permissions and the disk"
        };
        Self::failed("disk", format!("cannot {doing} {}: {e}", path.display())).help(help)
    }
    /// A follower's answer: the addresses of the leader, `host:port`, as far as it knows them.
    pub fn not_leader<S: Into<String>>(addrs: impl IntoIterator<Item = S>) -> Self {
        let mut f = Self::new(FailureKind::NotLeader, "not-leader", "this voter does not lead");
        f.details = addrs.into_iter().map(|a| (LEADER.to_owned(), a.into())).collect();
        f
    }
    /// With advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
    /// With one more detail.
    #[must_use]
    pub fn detail(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.details.push((name.into(), value.into()));
        self
    }
    /// Everything in one line, for a log: what was wrong, what each server said, what to do.
    pub fn line(&self) -> String {
        let line = self.said();
        self.help.as_ref().map_or_else(|| line.clone(), |help| format!("{line}; {help}"))
    }
    /// What was wrong, and where nobody could be reached, what each server said that the message does not name.
    pub fn said(&self) -> String {
        let unnamed = self.details.iter().filter(|(who, _)| !self.message.contains(who));
        let each: Vec<_> = unnamed.map(|(who, what)| format!("{who}: {what}")).collect();
        if self.kind != FailureKind::Unavailable || each.is_empty() {
            return self.message.clone();
        }
        format!("{} ({})", self.message, each.join("; "))
    }
    /// Where the leader is, if this is [`FailureKind::NotLeader`]; may be empty while nobody leads.
    pub fn leader_addrs(&self) -> Vec<String> {
        let of = |(n, v): &(String, String)| (n == LEADER).then(|| v.clone());
        if self.kind == FailureKind::NotLeader { self.details.iter().filter_map(of).collect() } else { Vec::new() }
    }
    /// True if another attempt, elsewhere or later, may succeed without anybody changing anything.
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, FailureKind::Unavailable | FailureKind::NotLeader)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_exit_status_that_users_are_promised() {
        let codes: Vec<u8> = FailureKind::ALL.iter().map(|k| k.exit_code()).collect();
        assert_eq!(codes, [3, 3, 2, 4, 4, 5, 5, 1]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_with_what_helps_against_the_cause() {
        let told = |kind| Failure::disk("write", Path::new("/x/y"), &io::Error::from(kind));
        let full = told(io::ErrorKind::StorageFull);
        assert!(full.message.starts_with("cannot write /x/y: ") && full.kind.exit_code() == 1, "{full}");
        assert_eq!(full.help.as_deref(), Some("free some space there"));
        assert!(told(io::ErrorKind::PermissionDenied).help.unwrap().contains("owner"));
    }

    #[test]
    fn one_line_says_what_was_wrong_who_said_so_and_what_to_do() {
        let f = Failure::unavailable("unreachable", "nobody answers").detail("a:1", "refused").help("start it");
        assert_eq!(f.line(), "nobody answers (a:1: refused); start it");
    }

    #[test]
    fn only_a_not_leader_answer_names_a_leader() {
        let f = Failure::not_leader(["10.0.0.1:7443", "10.0.0.2:7443"]);
        assert_eq!(f.leader_addrs(), ["10.0.0.1:7443", "10.0.0.2:7443"]);
        assert!(Failure::refused("x", "y").detail("leader", "evil:1").leader_addrs().is_empty());
    }
}
