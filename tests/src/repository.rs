//! The repository as text: which files there are, and what is in them.
//!
//! Reads the work tree, not git, so that a source archive can be tested as well. Writes nothing.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Names of what is built or found, not written. In a second work tree `.git` is a file.
const NOT_OURS: [&str; 6] = [".git", "target", "corpus", "artifacts", "demo", ".cargo-home"];

/// A text file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Path from the root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl Page {
    /// Whether it has one of these endings.
    pub fn ends_with(&self, endings: &[&str]) -> bool {
        endings.iter().any(|e| self.path.ends_with(e))
    }

    /// Whether it is test code: below a `tests` directory, or a file of tests beside the code.
    pub fn is_test(&self) -> bool {
        let stem = self.path.trim_end_matches(".rs");
        self.path.split('/').any(|part| part == "tests") || stem.ends_with("tests") || stem.ends_with("testing")
    }

    /// The code that ships: without the test module at the end, and without comment lines.
    pub fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        lines
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Every text file of the repository, in order of its path. Files that are not UTF-8 are left out.
pub fn pages() -> io::Result<Vec<Page>> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if NOT_OURS.iter().any(|n| entry.file_name() == *n) {
                continue;
            }
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file()
                && let Ok(text) = String::from_utf8(fs::read(&path)?)
            {
                let path = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
                found.push(Page { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// One file, by its path from the root.
pub fn read(path: &str) -> io::Result<String> {
    let full = root().join(path);
    fs::read_to_string(&full).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))
}

/// Holds a generated file against what it should be; with `HOLDFAST_BLESS=1` it is written instead.
///
/// # Errors
/// One line that says how to mend it.
pub fn agrees(path: &str, wanted: &str) -> Result<(), String> {
    if std::env::var_os("HOLDFAST_BLESS").is_some_and(|v| v == "1") {
        return fs::write(root().join(path), wanted).map_err(|e| format!("{path}: {e}"));
    }
    match read(path) {
        Ok(text) if text == wanted => Ok(()),
        Ok(_) => {
            Err(format!("{path} is not what the code says: run the test with HOLDFAST_BLESS=1 and look at the change"))
        }
        Err(e) => Err(format!("{e}: run the test with HOLDFAST_BLESS=1")),
    }
}
