//! Reading a TOML configuration, with errors of one line that name file, line and key.
//!
//! Environment variables replace only the keys that the daemon lists, so a secret can never be asked for there. A
//! configuration names the files of secrets and holds none: errors quote the value that is wrong.

use crate::failure::Failure;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the configuration that this program takes.
    #[error("{path}{place}: {message}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// `:line` and key, where known.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// The values make no sense: all of them together.
    #[error("{path}: {}", .faults.join("; "))]
    Values {
        /// Which file, or what stood in for it.
        path: PathBuf,
        /// Each names its key.
        faults: Vec<String>,
    },
    /// A variable replaces a key below something that is no table.
    #[error("{variable} cannot replace {key}: there is no table to hold it")]
    Override {
        /// The variable.
        variable: String,
        /// The key.
        key: String,
    },
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        let help = match &e {
            ConfigError::Read { .. } => "name a file that you may read with --config; dist/config has examples",
            ConfigError::Invalid { .. } | ConfigError::Values { .. } => {
                "correct it; docs/reference/config.md explains every key"
            }
            ConfigError::Override { .. } => "unset the variable",
        };
        Failure::invalid("configuration", e.to_string()).help(help)
    }
}

/// An address to dial: `host:port`, a name or a number, never port 0.
pub fn is_dialable(addr: &str) -> bool {
    let Some((host, port)) = addr.rsplit_once(':') else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    let bracketed = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    !host.is_empty() && host.chars().all(plain) && bracketed && port.parse::<u16>().is_ok_and(|p| p > 0)
}

/// Reads `T` (which should deny unknown fields) from the TOML file at `path`. Each of `overridable` (dotted keys, as
/// `listen.join`) is replaced by the variable `HOLDFAST_` + the key in upper case with `_` for `.` and `-`
/// (`HOLDFAST_LISTEN_JOIN`), if `env` knows it: TOML if it parses as such, else a string.
pub fn load_toml<T: DeserializeOwned>(
    path: &Path,
    overridable: &[&str],
    env: impl Fn(&str) -> Option<String>,
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let invalid = |e: &toml::de::Error| ConfigError::Invalid {
        path: path.to_owned(),
        place: e.span().map_or_else(String::new, |s| place(&text, s.start)),
        message: one_line(e.message()),
    };
    let found: Vec<(&str, String, String)> = overridable
        .iter()
        .filter_map(|key| {
            let variable = variable(key);
            env(&variable).map(|value| (*key, variable, value))
        })
        .collect();
    if found.is_empty() {
        return toml::from_str(&text).map_err(|e| invalid(&e));
    }
    let mut table: Table = toml::from_str(&text).map_err(|e| invalid(&e))?;
    for (key, variable, value) in found {
        set(&mut table, key, literal(value)).ok_or_else(|| ConfigError::Override { variable, key: key.to_owned() })?;
    }
    table.try_into().map_err(|e| invalid(&e))
}

fn variable(key: &str) -> String {
    format!("HOLDFAST_{}", key.to_uppercase().replace(['.', '-'], "_"))
}

fn literal(value: String) -> Value {
    let parsed = toml::from_str::<Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    parsed.unwrap_or(Value::String(value))
}

/// Sets `key` (dotted), making tables on the way; `None` if something else is in the way.
fn set(table: &mut Table, key: &str, value: Value) -> Option<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Some(())
        }
        Some((head, rest)) => {
            let below = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            set(below.as_table_mut()?, rest, value)
        }
    }
}

/// `:line`, and the key that stands at the start of that line.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let content = text.lines().nth(line - 1).unwrap_or_default();
    match content.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() && !key.trim_start().starts_with('#') => {
            format!(":{line}: {}", key.trim())
        }
        Some(_) | None => format!(":{line}"),
    }
}

fn one_line(message: &str) -> String {
    message.split('\n').map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Config {
        data_dir: String,
        listen: Listen,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Listen {
        join: String,
        workers: Option<u32>,
    }

    fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.toml");
        std::fs::write(&path, text).unwrap();
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let loaded = load_toml(&path, &["data-dir", "listen.join", "listen.workers"], env);
        loaded.map_err(|e: ConfigError| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
    }

    const GOOD: &str = "data-dir = \"/var/lib/x\"\n\n[listen]\njoin = \"127.0.0.1:1\"\n";

    #[test]
    fn errors_name_file_line_and_key_in_one_line() {
        let unknown = load(&format!("{GOOD}jion = 1\n"), &[]).unwrap_err();
        assert!(unknown.starts_with("vault.toml:5: jion: unknown field `jion`"), "{unknown}");
        let wrong = load(&GOOD.replace("\"/var/lib/x\"", "5"), &[]).unwrap_err();
        assert!(wrong.starts_with("vault.toml:1: data-dir: invalid type"), "{wrong}");
        let broken = load("data-dir = \"/var/lib/x\nnext = 1\n", &[]).unwrap_err();
        assert!(broken.starts_with("vault.toml:1"), "{broken}");
        for e in [unknown, wrong, broken] {
            assert!(!e.contains('\n'), "{e}");
        }
    }

    #[test]
    fn variables_replace_listed_keys_only() {
        let env = [("HOLDFAST_LISTEN_JOIN", "0.0.0.0:7"), ("HOLDFAST_LISTEN_WORKERS", "3"), ("HOLDFAST_SECRET", "x")];
        let c = load(GOOD, &env).unwrap();
        assert_eq!((c.listen.join.as_str(), c.listen.workers), ("0.0.0.0:7", Some(3)));
        assert_eq!(load(GOOD, &[]).unwrap().listen.workers, None);
        let wrong = load(GOOD, &[("HOLDFAST_LISTEN_WORKERS", "many")]).unwrap_err();
        assert!(wrong.contains("invalid type"), "{wrong}");
    }
}
