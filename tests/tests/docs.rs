//! What the documentation says is there: the tests it names, the pages it links to, the commands it tells to run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected should stop there")]

use holdfast_transport::codes::Code;
use holdfast_types::Role;
use holdfast_vault::rights::{Listener, TABLE};
use std::collections::BTreeSet;
use suite::repository::{self, Page};

fn documents() -> Vec<Page> {
    let pages = repository::pages().unwrap();
    let documents: Vec<Page> = pages.into_iter().filter(|p| p.ends_with(&[".md"])).collect();
    assert!(documents.iter().any(|p| p.path == "README.md"), "the documents were not read");
    documents
}

/// What stands between backticks on a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Names of all functions that carry a test attribute, and of the cases that a conformance suite lists.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for page in repository::pages().unwrap().iter().filter(|p| p.ends_with(&[".rs"])) {
        let mut marked = false;
        for line in page.text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                marked = true;
            } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| marked) {
                found.insert(rest.split(['(', '<']).next().unwrap_or_default().to_owned());
                marked = false;
            }
        }
        // A property test stands in a macro of its own; each case of a suite is a plain function that takes the subject.
        let macros = page.text.contains("proptest! {") || page.text.contains("macro_rules! conformance");
        let names = page.text.lines().filter_map(|l| l.trim().split_once("fn ")).filter(|_| macros);
        found.extend(names.map(|(_, rest)| rest.split(['(', '<']).next().unwrap_or_default().to_owned()));
    }
    found
}

/// The paragraphs that name tests.
fn shown_by(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").filter(|paragraph| paragraph.starts_with("Shown by "))
}

/// Headings as the anchors that they become.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#').trim().to_lowercase());
    let keep = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    headings.map(|h| h.chars().filter(keep).map(|c| if c == ' ' { '-' } else { c }).collect()).collect()
}

fn named_in_vain<'a>(text: &'a str, tests: &BTreeSet<String>) -> Vec<&'a str> {
    shown_by(text).flat_map(quoted).filter(|name| !tests.contains(*name)).collect()
}

#[test]
fn each_test_that_security_names_exists() {
    let text = repository::read("SECURITY.md").unwrap();
    let named = shown_by(&text).flat_map(quoted).count();
    assert!(named > 100, "SECURITY.md names {named} tests");
    let missing = named_in_vain(&text, &tests());
    assert!(missing.is_empty(), "SECURITY.md names tests that do not exist: {missing:?}");
}

#[test]
fn each_attack_is_tried_by_tests_that_exist() {
    let text = repository::read("docs/attacks.md").unwrap();
    let tests = tests();
    let is_attack = |line: &&str| line.starts_with("| ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_uppercase);
    let rows: Vec<&str> = text.lines().filter(is_attack).collect();
    assert!(rows.len() > 60, "docs/attacks.md lists {} attacks", rows.len());
    for row in rows {
        let named: Vec<&str> = quoted(row.rsplit_once(" | ").map_or("", |(_, last)| last)).collect();
        let missing: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
        assert!(!named.is_empty() && missing.is_empty(), "no such tests {missing:?}: {row}");
    }
}

/// Each comment that marks an invariant, from its mark to the next one or its end.
fn laws(text: &str) -> Vec<String> {
    let mark = concat!("LAW", ":");
    let mut found = Vec::new();
    let mut comment = String::new();
    for line in text.lines().chain([""]).map(str::trim_start) {
        if line.starts_with("//") {
            comment += line.trim_start_matches(['/', '!']);
            continue;
        }
        found.extend(comment.split(mark).skip(1).map(str::to_owned));
        comment.clear();
    }
    found
}

#[test]
fn each_law_in_the_code_names_a_test_that_exists() {
    let tests = tests();
    let mut seen = 0;
    let mut faults = Vec::new();
    for page in repository::pages().unwrap().iter().filter(|p| p.ends_with(&[".rs"]) && !p.is_test()) {
        for law in laws(&page.text) {
            seen += 1;
            if !quoted(&law).any(|name| tests.contains(name)) {
                faults.push(format!("{}: {}", page.path, law.chars().take(80).collect::<String>()));
            }
        }
    }
    assert!(seen > 20, "the laws were not read: {seen}");
    assert!(faults.is_empty(), "laws that no test shows:\n  {}", faults.join("\n  "));
    assert_eq!(laws("// LAW: one,\n// of two.\nfn f() {}\n/// LAW: two\n").len(), 2);
}

#[test]
fn a_test_that_is_named_in_vain_is_found() {
    let text = "What follows.\n\nShown by `a_planted_edge_is_found`,\n`no_such_test`.\n\n`not_a_test` is elsewhere.";
    assert_eq!(named_in_vain(text, &tests()), ["no_such_test"]);
}

#[test]
fn each_boundary_is_shown_by_tests_or_said_to_be_missing() {
    let text = repository::read("SECURITY.md").unwrap();
    for boundary in text.split("\n## Boundary: ").skip(1) {
        let boundary = boundary.split("\n## ").next().unwrap_or_default();
        let title = boundary.lines().next().unwrap_or_default();
        assert!(shown_by(boundary).next().is_some(), "{title}: no test shows it");
        assert!(boundary.contains("**Not prevented.**"), "{title}: does not say what is not prevented");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    for page in documents() {
        let dir = page.path.rsplit_once('/').map_or("", |(dir, _)| dir);
        for target in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.path.clone() } else { format!("{dir}/{file}") };
            let full = repository::root().join(path.trim_start_matches('/'));
            let there = full.exists();
            let found = anchor.is_empty() || std::fs::read_to_string(&full).is_ok_and(|t| anchors(&t).contains(anchor));
            if !there || !found {
                faults.push(format!("{}: {target}", page.path));
            }
        }
    }
    assert!(faults.is_empty(), "links that lead nowhere:\n  {}", faults.join("\n  "));
}

#[test]
fn each_make_target_that_a_page_names_exists() {
    let makefile = repository::read("Makefile").unwrap();
    let rules = makefile.lines().filter(|l| !l.starts_with(['\t', '#', '.'])).filter_map(|l| l.split_once(':'));
    let targets: BTreeSet<&str> = rules.flat_map(|(names, _)| names.split_whitespace()).collect();
    let is_word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase());
    let mut named = BTreeSet::new();
    for page in documents() {
        let fenced = page.text.split("```").skip(1).step_by(2).flat_map(str::lines);
        let inline = page.text.lines().filter(|l| !l.starts_with("```")).flat_map(quoted);
        for code in fenced.chain(inline) {
            let target = code.trim().strip_prefix("make ").and_then(|rest| rest.split_whitespace().next());
            named.extend(target.filter(|t| is_word(t)).map(|t| (page.path.clone(), t.to_owned())));
        }
    }
    for command in ["demo", "test"] {
        assert!(
            named.contains(&("README.md".to_owned(), command.to_owned())),
            "README.md does not name make {command}"
        );
    }
    let missing: Vec<_> = named.iter().filter(|(_, target)| !targets.contains(target.as_str())).collect();
    assert!(missing.is_empty(), "pages name targets that the Makefile lacks: {missing:?}");
}

/// The verbs of the tool that a line names, each in as many words as tell it from others.
fn named_verbs(line: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_word = |w: &&str| !w.starts_with('-') && w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let quoted = line.split("`holdfast ").skip(1).filter_map(|rest| rest.split(['`', '"', '\\']).next());
    quoted.map(move |said| said.split_whitespace().take_while(is_word).take(2).collect::<Vec<_>>())
}

/// A message told operators to run a verb that there is not.
#[test]
fn each_verb_that_a_message_or_a_page_names_exists() {
    let reference = repository::read("docs/reference/cli.md").unwrap();
    let headings = reference.lines().map(|l| l.trim_start_matches('#').trim());
    let verbs: BTreeSet<&str> = headings.filter_map(|h| h.strip_prefix("`holdfast ")?.strip_suffix('`')).collect();
    let is_group = |verb: &str| verbs.iter().any(|v| v.strip_prefix(verb).is_some_and(|rest| rest.starts_with(' ')));
    let (mut seen, mut faults) = (0, Vec::new());
    for page in repository::pages().unwrap() {
        let is_code = page.ends_with(&[".rs"]) && !page.is_test();
        if !is_code && !page.path.starts_with("docs/operations/") {
            continue;
        }
        for words in page.shipped_lines().flat_map(|(_, line)| named_verbs(line)) {
            let Some(&first) = words.first() else { continue };
            seen += 1;
            let verb = if is_group(first) { words.join(" ") } else { first.to_owned() };
            if !verbs.contains(verb.as_str()) {
                faults.push(format!("{}: {verb}", page.path));
            }
        }
    }
    assert!(seen > 50, "the verbs were not read: {seen}");
    assert!(faults.is_empty(), "no verbs of the tool:\n  {}", faults.join("\n  "));
    let planted: Vec<_> = named_verbs("see `holdfast secret rotate NAME` and `holdfast VERB --help`").collect();
    assert_eq!(planted, [vec!["secret", "rotate"], vec![]]);
}

#[test]
fn the_page_of_rights_is_the_table_in_the_code() {
    let mut page = String::from(
        "# Rights\n\nEvery RPC, the listener that serves it, the roles that may call it there, and what the call is checked \
         against.\nGenerated from `vault/src/rights.rs` and `orchestrator/src/rights.rs`; an RPC that is not in this table is \
         served to nobody.\n\n\
         | RPC | listener | roles | authority |\n|---|---|---|---|\n",
    );
    let words = |roles: &[Role]| roles.iter().map(|r| format!("{r:?}").to_lowercase()).collect::<Vec<_>>().join(", ");
    for (_, path, listener, roles, why) in TABLE {
        let listener = match listener {
            Listener::Join => "J (join)",
            Listener::Service => "S (service)",
            Listener::Local => "U (unix socket)",
            Listener::Peer => "P (peers)",
        };
        let roles = if roles.is_empty() { "–".to_owned() } else { words(roles) };
        page += &format!("| `{path}` | {listener} | {roles} | {why} |\n");
    }
    for (_, path, roles, why) in holdfast_orchestrator::rights::TABLE {
        page += &format!("| `{path}` | orchestrator | {} | {why} |\n", words(roles));
    }
    repository::agrees("docs/reference/rights.md", &page).unwrap();
}

#[test]
fn the_table_of_checks_has_the_words_of_the_code() {
    let pages = repository::pages().unwrap();
    let verify = pages.iter().filter(|p| p.path.starts_with("orchestrator/core/src/verify/"));
    let code: String = verify.flat_map(Page::shipped_lines).map(|(_, line)| line.trim().to_owned() + "\n").collect();
    let text = repository::read("docs/architecture.md").unwrap();
    let mut seen = 0;
    for check in 1..10 {
        let row = text.lines().find(|l| l.starts_with(&format!("| {check} | "))).unwrap();
        let listed: BTreeSet<&str> = quoted(row).collect();
        for word in &listed {
            assert!(code.contains(&format!("\"{word}\"")), "check {check} never refuses with {word}");
        }
        let mark = format!("{check}, \"");
        let made = code.split(mark.as_str()).skip(1).filter_map(|rest| rest.split('"').next());
        for word in made {
            assert!(
                listed.contains(word),
                "check {check} refuses with {word}, which docs/architecture.md does not list"
            );
            seen += 1;
        }
    }
    assert!(seen > 30, "the refusals were not read: {seen}");
}

#[test]
fn every_decision_has_its_four_parts() {
    let decisions: Vec<Page> = documents().into_iter().filter(|p| p.path.starts_with("docs/decisions/0")).collect();
    assert!(!decisions.is_empty());
    for page in decisions {
        for part in ["## Context", "## Choice", "## What was tried", "## What would change our mind"] {
            assert!(page.text.contains(part), "{}: no {part:?}", page.path);
        }
    }
}

#[test]
fn every_unit_is_hardened() {
    let always = [
        "Type=notify\n",
        "WatchdogSec=",
        "UMask=0077",
        "LimitCORE=",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "RestrictAddressFamilies=",
    ];
    let unprivileged = [
        "CapabilityBoundingSet=\n",
        "LimitCORE=0",
        "ProtectSystem=strict",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectProc=invisible",
        "ProtectKernelTunables=yes",
        "ProtectControlGroups=yes",
        "LockPersonality=yes",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@system-service",
        "SystemCallArchitectures=native",
    ];
    for (unit, more) in [("vault", &unprivileged[..]), ("orchestrator", &unprivileged[..]), ("agent", &[])] {
        let text = repository::read(&format!("dist/systemd/holdfast-{unit}.service")).unwrap();
        for directive in always.iter().chain(more) {
            assert!(text.contains(directive), "holdfast-{unit}.service: no {}", directive.trim());
        }
    }
    assert!(repository::read("dist/systemd/holdfast-vault.service").unwrap().contains("RestartForceExitStatus=75\n"));
}

#[test]
fn the_drop_in_for_a_token_gives_its_pin_and_loosens_nothing_by_itself() {
    const DROP_IN: &str = "dist/systemd/holdfast-vault.service.d/hsm.conf";
    let text = repository::read(DROP_IN).unwrap();
    let set: Vec<&str> = text.lines().filter(|l| !l.starts_with('#') && l.contains('=')).collect();
    assert_eq!(set, ["After=pcscd.socket", "LoadCredentialEncrypted=hsm-pin:/etc/holdfast/hsm-pin.cred"]);
    for offered in ["Environment=", "ReadWritePaths=", "SupplementaryGroups=", "PrivateDevices=no", "DeviceAllow="] {
        assert!(text.contains(&format!("\n#{offered}")), "{DROP_IN}: no {offered}");
    }
    let page = repository::read("docs/operations/hsm.md").unwrap();
    assert!(
        page.contains(DROP_IN) && page.contains("pin-credential = \"hsm-pin\""),
        "docs/operations/hsm.md: not there"
    );
}

/// Constructors that are given a code first, by the kind that they make.
const KINDS: [&str; 7] = ["refused", "exhausted", "invalid", "not_found", "changed", "unavailable", "failed"];

/// The literal code with which each failure is made: `(constructor, code, file)`.
fn made_failures() -> Vec<(String, String, String)> {
    let pages = repository::pages().unwrap();
    let mut found = Vec::new();
    for page in pages.iter().filter(|p| p.ends_with(&[".rs"]) && !p.is_test()) {
        let code: String = page.shipped_lines().map(|(_, line)| line.trim()).collect();
        for call in code.split("Failure::").skip(1) {
            let Some((constructor, arguments)) = call.split_once('(') else { continue };
            let Some((word, _)) = arguments.strip_prefix('"').and_then(|a| a.split_once('"')) else { continue };
            // The tool's `not_found` takes no code but what was not found.
            if !KINDS.contains(&constructor) || page.path.starts_with("cli/") && constructor == "not_found" {
                continue;
            }
            found.push((constructor.to_owned(), word.to_owned(), page.path.clone()));
        }
    }
    found
}

#[test]
fn every_failure_has_a_code_of_the_list_and_its_kind() {
    let made = made_failures();
    assert!(made.len() > 100, "the constructors were not found: {}", made.len());
    let wrong = |(constructor, word, _): &&(String, String, String)| {
        let listed = Code::ALL.iter().find(|c| c.word() == word);
        let kind = listed.map(|c| format!("{:?}", c.kind()).to_lowercase());
        // `not_found` is the constructor of `NotFound`.
        kind.is_none_or(|kind| kind != constructor.replace('_', ""))
    };
    let wrong: Vec<_> = made.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "not in transport/src/codes.rs, or there of another kind: {wrong:?}");
}
