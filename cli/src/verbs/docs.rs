//! What is generated from the command line's own definition: completions, man pages, the reference page.

use crate::args::{Cli, Shell};
use crate::errors::{Code, Failure};
use crate::output::Output;
use clap::{Command, CommandFactory as _};
use clap_complete::shells;
use std::path::Path;

/// `completions`: the shell's script on standard output.
pub fn completions(out: &Output, shell: Shell) -> Result<(), Failure> {
    let (mut cli, mut script) = (Cli::command(), Vec::new());
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut cli, "holdfast", &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut cli, "holdfast", &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut cli, "holdfast", &mut script),
    }
    out.raw(&String::from_utf8_lossy(&script))
}

/// `man`: one page a verb into `dir`.
pub fn man(out: &Output, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|e| Failure::io("make the folder", dir, &e))?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), dir).map_err(|e| {
        Failure::new(Code::Io, format!("cannot write man pages to {}: {e}", dir.display()), "check the folder")
    })?;
    out.note(&format!("man pages are in {}", dir.display()));
    Ok(())
}

/// `reference`: the generated pages of `docs/reference` into `dir`.
pub fn reference(out: &Output, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|e| Failure::io("make the folder", dir, &e))?;
    for (name, page) in pages() {
        let path = dir.join(name);
        std::fs::write(&path, page).map_err(|e| Failure::io("write", &path, &e))?;
    }
    out.note(&format!("reference pages are in {}", dir.display()));
    Ok(())
}

fn pages() -> [(&'static str, String); 2] {
    [("cli.md", command_line()), ("errors.md", crate::errors::reference())]
}

fn command_line() -> String {
    let mut page =
        "# `holdfast`\n\nGenerated from the program itself; `holdfast VERB --help` prints the same.\n".to_owned();
    let mut cli = Cli::command().disable_help_subcommand(true).term_width(100);
    cli.build();
    chapter(&cli, "holdfast", &mut page);
    page
}

fn chapter(c: &Command, path: &str, page: &mut String) {
    let mut c = c.clone();
    let level = "#".repeat(path.split(' ').count().min(4) + 1);
    let help = c.render_long_help().to_string();
    // Every verb has the global options; they are listed once, with the program.
    page.push_str(&format!("\n{level} `{path}`\n\n```text\n{}\n```\n", help.trim_end()));
    for sub in c.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        chapter(sub, &format!("{path} {}", sub.get_name()), page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// With `HOLDFAST_BLESS=1` the pages are written instead.
    #[test]
    fn the_reference_pages_are_what_the_program_says() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
        if std::env::var_os("HOLDFAST_BLESS").is_some() {
            reference(&Output::new(false, true, true), &dir).unwrap();
        }
        for (name, page) in pages() {
            let stored = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
            assert!(
                stored == page,
                "docs/reference/{name} is stale: run the tests of holdfast-cli once with HOLDFAST_BLESS=1"
            );
        }
    }

    #[test]
    fn every_verb_gets_a_man_page_and_completions() {
        let dir = tempfile::tempdir().unwrap();
        man(&Output::new(false, true, true), dir.path()).unwrap();
        assert!(dir.path().join("holdfast.1").exists());
        assert!(dir.path().join("holdfast-service-deploy.1").exists());
    }
}
