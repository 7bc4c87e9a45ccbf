//! Where the daemons and the operator's tool are: beside this program, built by the same command.

use std::path::PathBuf;

/// The program `name`.
///
/// # Errors
/// One line that says how to build it.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("this program does not know where it is: {e}"))?;
    let built = Some(own.with_file_name(name)).filter(|p| p.exists());
    built.ok_or_else(|| format!("{name} is not built: run cargo build --release --workspace --bins"))
}
