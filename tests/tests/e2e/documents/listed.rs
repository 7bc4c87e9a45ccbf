//! Whether the page of documents has a row for each that the command line prints. No process is started: the verbs are those of
//! the command line's own page, the fields those that its code writes.

use super::PAGE;
use std::collections::BTreeSet;
use suite::repository::{self, Page};

/// A script for a shell is no document.
const NO_DOCUMENT: &[&str] = &["completions"];
/// Where the content of a statement is put into words: `content{}`, whose keys are data.
const CONTENT: &str = "cli/src/verbs/statement/words.rs";
/// The help of the option of verbs that sign.
const SIGNED: &str = "instead of submitting it";
/// Of a service's parameters, which no service file declares yet.
const NOT_SHOWN: &[&str] = &["max", "max_len", "min"];

/// The verbs of the command line's page, each with its help.
fn verbs(help: &str) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    for chapter in help.split("\n#") {
        let Some((title, text)) = chapter.split_once('\n') else { continue };
        let title = title.trim_start_matches('#').trim();
        all.extend(title.strip_prefix("`holdfast ").and_then(|t| t.strip_suffix('`')).map(|verb| (verb, text)));
    }
    let is_above = |verb: &str, other: &str| other.strip_prefix(verb).is_some_and(|rest| rest.starts_with(' '));
    let last = |verb: &str| !all.iter().any(|(other, _)| is_above(verb, other));
    all.iter().filter(|(verb, _)| last(verb)).copied().collect()
}

/// The headings that are missing on the page.
fn missing(help: &str, page: &str) -> Vec<String> {
    let mut wanted = Vec::new();
    for (verb, text) in verbs(help).into_iter().filter(|(verb, _)| !NO_DOCUMENT.contains(verb)) {
        let has = |option: &str| text.lines().any(|l| l.trim_start().split(' ').next() == Some(option));
        // Without a file it prints what is asked for, and no document about it. What a verb signs and writes to a file is told by
        // all of them in the same words.
        let to_a_file = if has("--out") && !text.contains(SIGNED) { " (with `--out`)" } else { "" };
        wanted.push(format!("## `{verb}`{to_a_file}"));
        wanted.extend(has("--detach").then(|| format!("## `{verb}` (with `--detach`)")));
    }
    wanted.retain(|heading| !page.lines().any(|l| l == heading));
    wanted
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')).filter(|w| !w.is_empty())
}

/// The fields that a line of code writes into a document: `"name":`.
fn written(line: &str) -> impl Iterator<Item = &str> {
    let before = line.match_indices("\":").filter_map(move |(at, _)| line.get(..at));
    before.filter_map(|text| text.rsplit_once('"').map(|(_, name)| name)).filter(|n| words(n).eq([*n]))
}

#[test]
fn each_document_that_a_verb_prints_has_a_row_and_each_field_is_on_the_page() {
    let (help, page) = (repository::read("docs/reference/cli.md").unwrap(), repository::read(PAGE).unwrap());
    assert!(verbs(&help).len() > 50, "the verbs were not read");
    assert_eq!(missing(&help, &page), Vec::<String>::new(), "these have no row in {PAGE}");

    let listed: BTreeSet<&str> = page.split('`').skip(1).step_by(2).flat_map(words).collect();
    let pages = repository::pages().unwrap();
    let code = pages
        .iter()
        .filter(|p| p.path.starts_with("cli/src/") && p.ends_with(&[".rs"]) && !p.is_test() && p.path != CONTENT);
    let fields: BTreeSet<&str> = code.flat_map(Page::shipped_lines).flat_map(|(_, line)| written(line)).collect();
    assert!(fields.len() > 100, "the fields were not read: {}", fields.len());
    let unlisted: Vec<_> = fields.difference(&listed).filter(|f| !NOT_SHOWN.contains(f)).collect();
    assert!(unlisted.is_empty(), "these fields are nowhere in {PAGE}: {unlisted:?}");
}

#[test]
fn a_document_without_a_row_is_found() {
    let help = "# `holdfast`\n\n## `holdfast`\n\n### `holdfast a`\n\n#### `holdfast a b`\n\n      --detach\n\n\
                #### `holdfast a c`\n\n      --out <FILE>\n      --key-out <FILE>\n";
    let page = "# Page\n\n## `a b`\n\n`x`\n\n## `a c`\n";
    assert_eq!(missing(help, page), ["## `a b` (with `--detach`)", "## `a c` (with `--out`)"]);
    let line = r#"json!({"id": n.id, "made_at": time(1), "Not": 1, "two words": 2})"#;
    assert_eq!(written(line).collect::<Vec<_>>(), ["id", "made_at"]);
}
