//! What `holdfast completions` prints is loaded by each shell, and completes.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop there")]

use std::path::Path;
use std::process::Command;
use suite::programs::program;

/// Writes the script of `shell` into `dir`, as a user would.
fn script(shell: &str, dir: &Path) -> String {
    let out = Command::new(program("holdfast").unwrap()).args(["completions", shell]).output().unwrap();
    assert!(out.status.success());
    let path = dir.join(shell);
    std::fs::write(&path, out.stdout).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What a shell without anybody's settings prints for `commands`.
fn says(shell: &str, options: &[&str], commands: &str) -> String {
    let out = Command::new(shell).args(options).args(["-c", commands]).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && err.is_empty(), "{shell}: {err}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn bash_completes_verbs_and_options() {
    let dir = tempfile::tempdir().unwrap();
    let script = script("bash", dir.path());
    let complete = |line: &str| {
        let words = line.split(' ').count();
        let commands = format!(
            "source {script}; complete -p holdfast >/dev/null; COMP_WORDS=({line}); COMP_CWORD={}; \
             _holdfast holdfast \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            words - 1
        );
        says("bash", &["--norc", "--noprofile"], &commands)
    };
    assert_eq!(complete("holdfast sec").trim(), "secret");
    assert!(complete("holdfast token create --ro").contains("--role"));
}

#[test]
fn zsh_knows_the_function_that_completes() {
    let dir = tempfile::tempdir().unwrap();
    let script = script("zsh", dir.path());
    let dump = dir.path().join("dump");
    let commands = format!(
        "autoload -Uz compinit; compinit -u -d {}; source {script}; print $_comps[holdfast]; whence -w _holdfast",
        dump.display()
    );
    assert_eq!(says("zsh", &["-f"], &commands), "_holdfast\n_holdfast: function\n");
}

#[test]
fn fish_completes_verbs_and_options() {
    let dir = tempfile::tempdir().unwrap();
    let script = script("fish", dir.path());
    let complete = |line: &str| says("fish", &["--no-config"], &format!("source {script}; complete -C {line:?}"));
    assert!(complete("holdfast sec").starts_with("secret\t"));
    assert!(complete("holdfast token create --ro").starts_with("--role\t"));
}
