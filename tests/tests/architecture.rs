//! Who may import whom, and the house rules that a compiler does not hold.
//!
//! The table below is the security boundary of the product: code that cannot link the keyring cannot leak it. It is
//! data, and the page docs/architecture.md carries the same table.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected should stop there")]

use cargo_metadata::{Metadata, MetadataCommand};
use std::process::Command;
use suite::graph::{Graph, Row, Spared, forbidden_chains, forbidden_edges};
use suite::repository::{self, Page};

const TYPES: &str = "holdfast-types";
const WIRE: &str = "holdfast-wire";
const PKI: &str = "holdfast-pki";
const POLICY: &str = "holdfast-policy";
const HSM: &str = "holdfast-hsm";
const HSM_SHIM: &str = "holdfast-hsm-shim";
const TRANSPORT: &str = "holdfast-transport";
const IMAGE: &str = "holdfast-image";
const VAULT_CORE: &str = "holdfast-vault-core";
const VAULT: &str = "holdfast-vault";
const ORCHESTRATOR_CORE: &str = "holdfast-orchestrator-core";
const ORCHESTRATOR: &str = "holdfast-orchestrator";
const AGENT: &str = "holdfast-agent";
const CLI: &str = "holdfast-cli";

/// Runtimes, sockets, stores, files and entropy: what a pure crate never links.
const HANDS: &[&str] = &[
    "tokio",
    "tokio-util",
    "async-std",
    "smol",
    "mio",
    "socket2",
    "polling",
    "tonic",
    "hyper",
    "axum",
    "reqwest",
    "rustls",
    "openraft",
    "fjall",
    "cryptoki",
    "rustix",
    "nix",
    "landlock",
    "tempfile",
    "walkdir",
    "getrandom",
    "rand",
    "fastrand",
    "iana-time-zone",
];
const VAULT_SIDE: &[&str] = &[VAULT, VAULT_CORE, HSM, POLICY, "openraft", "fjall", "cedar-policy", "cryptoki"];
const PLACING_SIDE: &[&str] = &[ORCHESTRATOR, ORCHESTRATOR_CORE, AGENT, IMAGE, "libcontainer", "oci-client"];

const EVERYBODY: &[&str] = &[
    TYPES,
    WIRE,
    PKI,
    POLICY,
    HSM,
    HSM_SHIM,
    TRANSPORT,
    IMAGE,
    VAULT_CORE,
    VAULT,
    ORCHESTRATOR_CORE,
    ORCHESTRATOR,
    AGENT,
    CLI,
];

const ROWS: &[Row] = &[
    Row { name: TYPES, may: &[], never: &[HANDS] },
    Row { name: WIRE, may: &[TYPES], never: &[HANDS] },
    Row { name: POLICY, may: &[TYPES], never: &[HANDS] },
    Row { name: PKI, may: &[TYPES, WIRE], never: &[HANDS, &[HSM]] },
    Row { name: HSM, may: &[TYPES], never: &[&[PKI, POLICY, WIRE, "tonic"]] },
    // A double for tests, and what runs it: nothing that ships imports it.
    Row { name: HSM_SHIM, may: &[TYPES, HSM], never: &[&[PKI, POLICY, WIRE, "tonic"]] },
    Row { name: TRANSPORT, may: &[TYPES, WIRE, PKI], never: &[VAULT_SIDE, PLACING_SIDE] },
    Row {
        name: IMAGE,
        may: &[TYPES],
        never: &[VAULT_SIDE, &[WIRE, PKI, TRANSPORT, ORCHESTRATOR, ORCHESTRATOR_CORE, AGENT]],
    },
    Row { name: VAULT_CORE, may: &[TYPES, WIRE, PKI, POLICY], never: &[HANDS, &[HSM]] },
    Row { name: "base2histogram", may: &[], never: &[HANDS] },
    Row { name: VAULT, may: &[TYPES, WIRE, PKI, POLICY, HSM, TRANSPORT, VAULT_CORE], never: &[PLACING_SIDE] },
    Row { name: ORCHESTRATOR_CORE, may: &[TYPES, WIRE, PKI], never: &[HANDS, VAULT_SIDE] },
    Row {
        name: ORCHESTRATOR,
        may: &[TYPES, WIRE, PKI, TRANSPORT, ORCHESTRATOR_CORE],
        never: &[VAULT_SIDE, &[IMAGE, AGENT]],
    },
    Row {
        name: AGENT,
        may: &[TYPES, WIRE, PKI, TRANSPORT, IMAGE, ORCHESTRATOR_CORE],
        never: &[VAULT_SIDE, &[ORCHESTRATOR]],
    },
    Row {
        name: CLI,
        may: &[TYPES, WIRE, PKI, TRANSPORT, IMAGE],
        never: &[VAULT_SIDE, &[ORCHESTRATOR, ORCHESTRATOR_CORE, AGENT]],
    },
    Row { name: "holdfast-benches", may: EVERYBODY, never: &[] },
    Row { name: "suite", may: EVERYBODY, never: &[] },
];

const SPARED: &[Spared] = &[Spared {
    from: "memsec",
    to: "getrandom",
    why: "draws the canaries round a locked allocation; no value that it draws can be read",
}];

/// Second TLS stacks, second crypto libraries, and what nobody looks after any more.
const NOWHERE: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls", "bincode"];

const PURE: &[&str] = &["types/", "wire/", "pki/", "policy/", "vault/core/", "orchestrator/core/"];
/// Files, sockets, clocks and entropy as code would name them.
const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "now_utc",
    "SystemRandom",
    "OsRng",
    "getrandom",
    "KeyPair::generate",
    "rand::fill",
    "thread_rng",
];
/// The files that may hold `unsafe`: locked memory, the limits of the C library's heap, and the parameter of a token's module.
/// The shim is such a module, for tests.
const UNSAFE: &[&str] = &["types/src/secret.rs", "vault/src/heap.rs", "hsm/src/module.rs", "hsm/shim/src/lib.rs"];

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(repository::root().join("Cargo.toml")).no_deps();
    command.other_options(["--offline".to_owned()]).exec().unwrap()
}

fn tree(args: &[&str]) -> Graph {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let fixed = ["tree", "--offline", "--prefix", "depth", "--format", "{p}"];
    let out = Command::new(cargo).args(fixed).args(args).current_dir(repository::root()).output().unwrap();
    assert!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
    Graph::from_tree(&String::from_utf8(out.stdout).unwrap())
}

/// What ends up in the program: no build scripts, no macros, no tests.
fn linked(name: &str) -> Graph {
    tree(&["--package", name, "--edges", "normal,no-proc-macro"])
}

/// Every edge that a manifest of ours declares to a crate of ours: optional ones and those for tests as well.
fn declared_edges(metadata: &Metadata) -> Vec<(String, String)> {
    let ours: Vec<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let of = |p: &cargo_metadata::Package| {
        let to = p.dependencies.iter().map(|d| d.name.clone()).filter(|d| ours.contains(&d.as_str()));
        to.map(|to| (p.name.to_string(), to)).collect::<Vec<_>>()
    };
    metadata.packages.iter().flat_map(of).collect()
}

fn rust() -> Vec<Page> {
    let pages = repository::pages().unwrap();
    let rust: Vec<Page> = pages.into_iter().filter(|p| p.ends_with(&[".rs"])).collect();
    assert!(rust.len() > 100, "the repository was not read: {} files", rust.len());
    rust
}

fn nothing(faults: &[String]) {
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

#[test]
fn our_crates_import_only_what_their_row_allows() {
    let metadata = metadata();
    let names: Vec<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    for row in ROWS {
        assert!(names.contains(&row.name), "{} has a row and no crate", row.name);
    }
    let edges = declared_edges(&metadata);
    assert!(edges.iter().any(|(from, to)| from == VAULT && to == VAULT_CORE), "the edges were not read");
    nothing(&forbidden_edges(ROWS, &edges));
}

#[test]
fn no_chain_of_libraries_reaches_what_a_row_forbids() {
    for row in ROWS.iter().filter(|r| !r.never.is_empty()) {
        let graph = linked(row.name);
        assert!(graph.has(row.name), "{} is not in its own graph", row.name);
        nothing(&forbidden_chains(row, &graph, SPARED));
    }
}

#[test]
fn a_planted_edge_is_found() {
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let planted = [edge(CLI, TYPES), edge(CLI, VAULT_CORE), edge("newcomer", TYPES)];
    assert_eq!(forbidden_edges(ROWS, &planted), ["holdfast-cli -> holdfast-vault-core", "newcomer -> holdfast-types"]);
    let mut graph = linked(POLICY);
    let policy = ROWS.iter().find(|r| r.name == POLICY).unwrap();
    nothing(&forbidden_chains(policy, &graph, SPARED));
    graph.add("holdfast-policy 0.1.0", "colours 1.0.0");
    graph.add("colours 1.0.0", "tokio 1.54.0");
    assert_eq!(forbidden_chains(policy, &graph, SPARED), ["holdfast-policy 0.1.0 -> colours 1.0.0 -> tokio 1.54.0"]);
}

#[test]
fn what_is_spared_is_still_there_and_has_a_reason() {
    let graph = tree(&["--workspace", "--edges", "normal"]);
    for s in SPARED {
        assert!(graph.has_edge(s.from, s.to), "{} -> {} is gone: spare it no longer", s.from, s.to);
        assert!(!s.why.is_empty());
    }
}

#[test]
fn no_second_tls_or_crypto_library_is_anywhere() {
    let graph = tree(&["--workspace", "--edges", "all"]);
    assert!(graph.has("rustls") && graph.has("aws-lc-rs"), "the graph was not read");
    let found: Vec<String> = NOWHERE.iter().filter(|n| graph.has(n)).map(|n| (*n).to_owned()).collect();
    nothing(&found);
}

#[test]
fn every_crate_takes_lints_and_versions_from_the_workspace() {
    let mut faults = Vec::new();
    for package in &metadata().packages {
        let text = std::fs::read_to_string(&package.manifest_path).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        let inherits =
            |v: Option<&toml::Value>| v.and_then(|v| v.get("workspace")).is_some_and(|w| w.as_bool() == Some(true));
        if !inherits(manifest.get("lints")) {
            faults.push(format!("{}: no [lints] workspace = true", package.name));
        }
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let table = manifest.get(kind).and_then(toml::Value::as_table);
            let own = table.into_iter().flatten().filter(|(_, value)| !inherits(Some(value)));
            faults.extend(own.map(|(name, _)| format!("{}: {name} has a version of its own", package.name)));
        }
    }
    nothing(&faults);
}

#[test]
fn every_source_file_says_what_it_is_for_and_is_finished() {
    let (todo, ignored) = (concat!("todo", "!("), concat!("#[", "ignore"));
    let mut faults = Vec::new();
    for page in rust() {
        let lines = page.text.lines().count();
        if !page.text.starts_with("//! ") {
            faults.push(format!("{}: does not open with //!", page.path));
        }
        if lines > 400 {
            faults.push(format!("{}: {lines} lines, of at most 400", page.path));
        }
        for word in [todo, ignored] {
            let at = page.text.lines().position(|l| l.contains(word));
            faults.extend(at.map(|n| format!("{}:{}: {word}", page.path, n + 1)));
        }
    }
    nothing(&faults);
}

#[test]
fn the_pure_crates_name_no_file_clock_or_entropy() {
    let mut faults = Vec::new();
    for page in
        rust().iter().filter(|p| PURE.iter().any(|dir| p.path.starts_with(&format!("{dir}src/"))) && !p.is_test())
    {
        for (n, line) in page.shipped_lines() {
            let word = IMPURE_WORDS.iter().find(|w| line.contains(**w));
            faults.extend(word.map(|w| format!("{}:{n}: {w}", page.path)));
        }
    }
    nothing(&faults);
}

#[test]
fn what_only_verifies_cannot_issue() {
    let verifiers = ["orchestrator/", "cli/", "image/", "transport/"];
    // Operators sign with a root of their own, away from the cluster.
    let away = "cli/src/verbs/root/offline.rs";
    let mut faults = Vec::new();
    let checked = |p: &&Page| verifiers.iter().any(|dir| p.path.starts_with(dir)) && !p.is_test() && p.path != away;
    for page in rust().iter().filter(checked) {
        let found = page.shipped_lines().find(|(_, line)| line.contains("holdfast_pki::issue"));
        faults.extend(found.map(|(n, _)| format!("{}:{n}: issues certificates", page.path)));
    }
    nothing(&faults);
}

#[test]
fn unsafe_code_is_in_the_files_that_are_listed() {
    let word = concat!("uns", "afe ");
    for page in rust() {
        let has = page
            .text
            .lines()
            .any(|l| l.contains(word) && (l.contains(&format!("{word}{{")) || l.contains(&format!("{word}fn"))));
        assert!(!has || UNSAFE.contains(&page.path.as_str()), "{}: {word}code", page.path);
    }
}

#[test]
fn the_repository_names_no_machine() {
    let dirs = ["root", "home", "work", "Users", "tmp/bash"].map(|d| format!("/{d}/"));
    let mirrors =
        [concat!("replace", "-with"), concat!("index", "-url"), concat!("find", "-links"), concat!("GO", "PROXY=")];
    let starts_a_path = |before: Option<char>| before.is_none_or(|c| c.is_whitespace() || "\"'`=(:".contains(c));
    let mut faults = Vec::new();
    for page in repository::pages().unwrap() {
        for (n, line) in page.text.lines().enumerate() {
            let path = dirs
                .iter()
                .any(|d| line.match_indices(d.as_str()).any(|(at, _)| starts_a_path(line[..at].chars().next_back())));
            if path || mirrors.iter().any(|m| line.contains(m)) {
                faults.push(format!("{}:{}: {}", page.path, n + 1, line.trim()));
            }
        }
    }
    let lock = repository::read("Cargo.lock").unwrap();
    let foreign =
        lock.lines().filter(|l| l.starts_with("source = ") && !l.contains("github.com/rust-lang/crates.io-index"));
    faults.extend(foreign.map(|l| format!("Cargo.lock: {l}")));
    nothing(&faults);
}

#[test]
fn the_documentation_has_the_same_table() {
    let short = |name: &str| name.trim_start_matches("holdfast-").to_owned();
    let mut table = String::from("| crate | of ours |\n|---|---|\n");
    for row in ROWS.iter().filter(|r| r.may != EVERYBODY) {
        let may = row.may.iter().map(|n| short(n)).collect::<Vec<_>>().join(", ");
        table += &format!("| {} | {} |\n", short(row.name), if may.is_empty() { "–" } else { &may });
    }
    let page = repository::read("docs/architecture.md").unwrap();
    assert!(page.contains(&table), "docs/architecture.md should hold this table:\n{table}");
}
