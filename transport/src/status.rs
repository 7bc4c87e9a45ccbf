//! Failures as gRPC statuses and back: the only file that knows gRPC's codes.
//!
//! Beside the code and the message, the whole [`Failure`] travels in the metadata `holdfast-failure-bin`. What arrives
//! is bounded and freed of control characters, for it ends on a terminal. Never put a `Debug` of a request in here.

use crate::failure::{Failure, FailureKind};
use prost::Message as _;
use std::borrow::Cow;
use std::error::Error;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const KEY: &str = "holdfast-failure-bin";
/// Bounds of what travels, in bytes. 64 + 512 + 16 x (64 + 256) is 5.6 KiB, 7.5 KiB in base64, and the message at most
/// 1.5 KiB once escaped: inside the 16 KiB that a client takes as headers.
const MAX_CODE: usize = 64;
const MAX_TEXT: usize = 512;
const MAX_DETAILS: usize = 16;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 256;

#[derive(Clone, PartialEq, prost::Message)]
struct RawFailure {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    code: String,
    #[prost(string, tag = "3")]
    help: String,
    #[prost(message, repeated, tag = "4")]
    details: Vec<RawDetail>,
}
#[derive(Clone, PartialEq, prost::Message)]
struct RawDetail {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// A kind's number on the wire; 0 is never used.
fn number(kind: FailureKind) -> u32 {
    match kind {
        FailureKind::Refused => 1,
        FailureKind::Exhausted => 2,
        FailureKind::Invalid => 3,
        FailureKind::NotFound => 4,
        FailureKind::Changed => 5,
        FailureKind::NotLeader => 6,
        FailureKind::Unavailable => 7,
        FailureKind::Failed => 8,
    }
}

fn grpc_code(kind: FailureKind) -> Code {
    match kind {
        FailureKind::Refused => Code::PermissionDenied,
        FailureKind::Exhausted => Code::ResourceExhausted,
        FailureKind::Invalid => Code::InvalidArgument,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::Changed => Code::FailedPrecondition,
        FailureKind::NotLeader | FailureKind::Unavailable => Code::Unavailable,
        FailureKind::Failed => Code::Internal,
    }
}

/// What a bare code means when no failure came with it: from gRPC itself, or from another program.
fn meaning(code: Code) -> (FailureKind, &'static str) {
    match code {
        Code::PermissionDenied => (FailureKind::Refused, "not-allowed"),
        Code::Unauthenticated => (FailureKind::Refused, "bad-credential"),
        Code::ResourceExhausted => (FailureKind::Exhausted, "budget-exhausted"),
        Code::InvalidArgument | Code::OutOfRange => (FailureKind::Invalid, "invalid-input"),
        Code::NotFound => (FailureKind::NotFound, "not-found"),
        Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => (FailureKind::Changed, "changed"),
        Code::Unavailable => (FailureKind::Unavailable, "unavailable"),
        Code::DeadlineExceeded => (FailureKind::Unavailable, "timed-out"),
        Code::Cancelled => (FailureKind::Unavailable, "cancelled"),
        Code::Unimplemented => (FailureKind::Failed, "unimplemented"),
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => (FailureKind::Failed, "internal"),
    }
}

impl From<Failure> for Status {
    fn from(f: Failure) -> Self {
        let raw = RawFailure {
            kind: number(f.kind),
            code: printable(&f.code, MAX_CODE),
            help: printable(f.help.as_deref().unwrap_or_default(), MAX_TEXT),
            details: f.details.iter().take(MAX_DETAILS).map(RawDetail::bounded).collect(),
        };
        let mut status = Status::new(grpc_code(f.kind), printable(&f.message, MAX_TEXT));
        status.metadata_mut().insert_bin(KEY, MetadataValue::from_bytes(&raw.encode_to_vec()));
        status
    }
}

impl RawDetail {
    fn bounded((name, value): &(String, String)) -> Self {
        Self { name: printable(name, MAX_NAME), value: printable(value, MAX_VALUE) }
    }
}

impl From<Status> for Failure {
    fn from(s: Status) -> Self {
        if let Some(f) = carried(&s) {
            return f;
        }
        // A status with a source was made on this side, because the connection failed.
        if let Some(source) = s.source() {
            return lost(source);
        }
        let (kind, code) = meaning(s.code());
        Failure::new(kind, code, printable(s.message(), MAX_TEXT))
    }
}

fn carried(s: &Status) -> Option<Failure> {
    let bytes = s.metadata().get_bin(KEY)?.to_bytes().ok()?;
    let raw = RawFailure::decode(bytes).ok()?;
    let kind = FailureKind::ALL.into_iter().find(|k| number(*k) == raw.kind)?;
    let kebab = |c: &str| c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if raw.code.is_empty() || raw.code.len() > MAX_CODE || !kebab(&raw.code) {
        return None;
    }
    let details = raw.details.into_iter().take(MAX_DETAILS).map(|d| {
        let d = RawDetail::bounded(&(d.name, d.value));
        (d.name, d.value)
    });
    Some(Failure {
        kind,
        code: Cow::Owned(raw.code),
        message: printable(s.message(), MAX_TEXT),
        help: (!raw.help.is_empty()).then(|| printable(&raw.help, MAX_TEXT)),
        details: details.collect(),
    })
}

/// A broken connection.
pub(crate) fn lost(source: &(dyn Error + 'static)) -> Failure {
    let words = printable(&innermost(source).to_string(), MAX_TEXT);
    Failure::unavailable("connection-lost", format!("the connection broke: {words}"))
}

/// A connection that did not come to be.
pub(crate) fn not_established(error: &std::io::Error) -> Failure {
    match innermost(error).downcast_ref::<rustls::Error>() {
        Some(tls) => crate::tls::failure_of(tls),
        None => lost(error),
    }
}

/// The first cause of `e`, or the TLS error on the way to it.
fn innermost<'a>(e: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut e = e;
    while let (false, Some(next)) = (e.is::<rustls::Error>(), cause(e)) {
        e = next;
    }
    e
}

/// What is behind `e`. The `source()` of an `io::Error` skips the error that it wraps: look inside first.
fn cause<'a>(e: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let wrapped = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    wrapped.map_or_else(|| e.source(), |w| Some(w as &(dyn Error + 'static)))
}

/// At most `max` bytes of `s`, cut at a character, without control characters.
fn printable(s: &str, max: usize) -> String {
    let mut out = String::new();
    for c in s.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_survives_the_wire() {
        for kind in FailureKind::ALL {
            let sent = Failure::new(kind, "some-code", "it did not work").help("try later").detail("voter", "2");
            let status = Status::from(sent.clone());
            assert_eq!(Failure::from(status), sent);
            let bare = Failure::new(kind, "some-code", "it did not work");
            assert_eq!(Failure::from(Status::from(bare.clone())), bare);
        }
        let hint = Failure::not_leader(["10.0.0.1:7443"]);
        assert_eq!(Failure::from(Status::from(hint)).leader_addrs(), ["10.0.0.1:7443"]);
    }

    #[test]
    fn a_bare_status_has_the_same_kind_as_the_failure_that_would_send_it() {
        for kind in FailureKind::ALL.into_iter().filter(|k| *k != FailureKind::NotLeader) {
            assert_eq!(Failure::from(Status::new(grpc_code(kind), "x")).kind, kind);
        }
        assert_eq!(Failure::from(Status::unauthenticated("x")).kind, FailureKind::Refused);
        assert_eq!(Failure::from(Status::deadline_exceeded("x")).kind, FailureKind::Unavailable);
    }

    #[test]
    fn what_travels_is_bounded_and_cannot_steer_a_terminal() {
        let long = "\u{1b}[31m\né".repeat(10_000);
        let mut sent = Failure::failed("internal", long.clone()).help(long.clone());
        for n in 0..1000 {
            sent = sent.detail(format!("name-{n}"), long.clone());
        }
        let status = Status::from(sent);
        let header = status.metadata().get_bin(KEY).unwrap().as_encoded_bytes().len();
        assert!(header < 10 << 10, "{header} bytes");
        let got = Failure::from(status);
        assert_eq!(got.details.len(), MAX_DETAILS);
        for text in [&got.message, got.help.as_ref().unwrap()].into_iter().chain(got.details.iter().map(|(_, v)| v)) {
            assert!(text.len() <= MAX_TEXT && !text.chars().any(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn a_hostile_server_cannot_smuggle_text_through_the_raw_message() {
        let smuggle = |raw: RawFailure| {
            let mut status = Status::new(Code::NotFound, "gone");
            status.metadata_mut().insert_bin(KEY, MetadataValue::from_bytes(&raw.encode_to_vec()));
            Failure::from(status)
        };
        let base = RawFailure { kind: 1, code: "policy".into(), help: "\u{7}\u{1b}]0;x".into(), details: Vec::new() };
        let help = smuggle(base.clone()).help.unwrap();
        assert!(!help.chars().any(char::is_control), "{help:?}");
        for bad in [RawFailure { kind: 99, ..base.clone() }, RawFailure { code: "Not Kebab".into(), ..base.clone() }] {
            assert_eq!(smuggle(bad).kind, FailureKind::NotFound, "falls back to the bare code");
        }
    }
}
