//! `scan`: finds join tokens, unlock and recovery keys and shares of them by their format, as a pre-commit hook or over
//! logs.
//!
//! Prints where they are and of which kind, never the rest of them. A checksum tells a real one from look-alikes.

use crate::errors::{Code, Failure};
use crate::output::Output;
use holdfast_wire::share::KeyShare;
use holdfast_wire::token::{JoinToken, parse_recovery, parse_unlock};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// Bytes of one line that are looked at as a whole; longer lines are looked at in overlapping pieces.
const PIECE: usize = 1 << 20;
/// Longest token, and so the overlap of two pieces.
const LONGEST: usize = 256;
/// Shortest tail of a token after its prefix (protocol, token format).
const SHORTEST_TAIL: usize = 40;
const PREFIX: &[u8] = b"hf_";
const KINDS: [&str; 4] = ["join", "unlock", "share", "recovery"];

/// A token in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: PathBuf,
    line: u64,
    kind: &'static str,
    /// The checksum matches: it is a token, not an example that looks like one.
    genuine: bool,
}

/// Runs the verb; exit 1 if anything with a good checksum was found.
pub fn run(out: &Output, paths: &[PathBuf]) -> Result<(), Failure> {
    let mut found = Vec::new();
    for p in paths {
        walk(p, &mut found)?;
    }
    let documents = found
        .iter()
        .map(|f| json!({"path": f.path, "line": f.line, "kind": f.kind, "genuine": f.genuine}))
        .collect::<Vec<_>>();
    let genuine = found.iter().filter(|f| f.genuine).count();
    if genuine > 0 {
        let first =
            found.iter().find(|f| f.genuine).map(|f| format!("{}:{}", f.path.display(), f.line)).unwrap_or_default();
        if !out.is_json() {
            out.raw(&lines(&found))?;
        }
        let what = format!("found {genuine} secret(s), the first in {first}");
        let help = "revoke join tokens with `holdfast token revoke`, rotate keys, and remove them from the files";
        return Err(Failure::new(Code::SecretsFound, what, help).with("findings", documents));
    }
    out.show(&json!({ "findings": documents }), || lines(&found))
}

fn lines(found: &[Finding]) -> String {
    let note = |f: &Finding| if f.genuine { "" } else { " (checksum does not match: an example or a damaged one)" };
    found.iter().map(|f| format!("{}:{}: {}{}\n", f.path.display(), f.line, f.kind, note(f))).collect()
}

fn walk(path: &Path, found: &mut Vec<Finding>) -> Result<(), Failure> {
    let error = |e: std::io::Error| Failure::io("read", path, &e);
    let kind = std::fs::symlink_metadata(path).map_err(error)?.file_type();
    if kind.is_dir() {
        let mut entries = std::fs::read_dir(path).map_err(error)?.collect::<Result<Vec<_>, _>>().map_err(error)?;
        entries.sort_by_key(std::fs::DirEntry::path);
        return entries.iter().try_for_each(|e| walk(&e.path(), found));
    }
    // Links, sockets and devices hold nothing that a repository or a log would carry.
    if kind.is_file() { scan_file(path, found) } else { Ok(()) }
}

fn scan_file(path: &Path, found: &mut Vec<Finding>) -> Result<(), Failure> {
    let error = |e: std::io::Error| Failure::io("read", path, &e);
    let mut input = BufReader::new(File::open(path).map_err(error)?);
    let (mut piece, mut line) = (Vec::new(), 1);
    loop {
        let before = piece.len();
        let room = (PIECE - before.min(PIECE)).max(1) as u64;
        if input.by_ref().take(room).read_until(b'\n', &mut piece).map_err(error)? == 0 {
            return Ok(());
        }
        for (kind, genuine) in tokens(&piece) {
            let f = Finding { path: path.to_owned(), line, kind, genuine };
            // The overlap of two pieces of one long line may show the same token twice.
            if before == 0 || found.last() != Some(&f) {
                found.push(f);
            }
        }
        if piece.last() == Some(&b'\n') {
            line += 1;
            piece.clear();
        } else if piece.len() >= PIECE {
            piece.drain(..piece.len() - LONGEST);
        }
    }
}

/// The tokens in `text`: their kind, and whether their checksum is right.
fn tokens(text: &[u8]) -> Vec<(&'static str, bool)> {
    let mut all = Vec::new();
    for at in positions(text) {
        let rest = text.get(at..).unwrap_or_default();
        let Some(kind) = KINDS.into_iter().find(|k| rest.starts_with(format!("hf_{k}_v1_").as_bytes())) else {
            continue;
        };
        let body = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
        let word: &[u8] = rest.get(..rest.iter().take_while(|b| body(b)).count()).unwrap_or_default();
        if word.len() >= format!("hf_{kind}_v1_").len() + SHORTEST_TAIL && word.len() <= LONGEST {
            all.push((kind, std::str::from_utf8(word).is_ok_and(|w| is_genuine(kind, w))));
        }
    }
    all
}

fn positions(text: &[u8]) -> impl Iterator<Item = usize> {
    text.windows(PREFIX.len()).enumerate().filter(|(_, w)| *w == PREFIX).map(|(at, _)| at)
}

fn is_genuine(kind: &str, word: &str) -> bool {
    match kind {
        "join" => JoinToken::parse(word).is_ok(),
        "unlock" => parse_unlock(word).is_ok(),
        "recovery" => parse_recovery(word).is_ok(),
        "share" => KeyShare::parse(word).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{Secret, kind};
    use holdfast_wire::token::print_key;

    fn key() -> String {
        print_key("unlock", &Secret::<kind::UnlockSecret, 32>::take(&mut [9; 32])).to_string()
    }

    #[test]
    fn a_key_is_found_in_the_middle_of_a_line_and_told_from_a_look_alike() {
        let text = format!("x=\"{}\";hf_join_v2_{}", key(), "a".repeat(60));
        assert_eq!(tokens(text.as_bytes()), [("unlock", true)]);
        let damaged = key().replace("v1_", "v1_0");
        assert_eq!(tokens(damaged.as_bytes()), [("unlock", false)]);
        assert_eq!(tokens(b"hf_unlock_v1_short"), []);
    }

    #[test]
    fn folders_are_walked_and_lines_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let file = dir.path().join("sub/log.txt");
        std::fs::write(&file, format!("nothing\n\n{} and\n", key())).unwrap();
        std::fs::write(dir.path().join("binary"), [0xff, 0, b'h', b'f', b'_']).unwrap();
        let mut found = Vec::new();
        walk(dir.path(), &mut found).unwrap();
        assert_eq!(found, [Finding { path: file, line: 3, kind: "unlock", genuine: true }]);
    }

    #[test]
    fn a_key_across_the_border_of_two_pieces_is_found_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("one-line.json");
        for before in [PIECE - 20, PIECE - LONGEST, PIECE - 100, PIECE] {
            std::fs::write(&file, format!("{}{} {}", " ".repeat(before), key(), " ".repeat(PIECE))).unwrap();
            let mut found = Vec::new();
            walk(&file, &mut found).unwrap();
            assert_eq!(found.len(), 1, "{before}");
        }
    }
}
