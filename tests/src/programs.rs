//! The programs under test: those that were built beside the tests.

use std::path::{Path, PathBuf};

/// The program `name`, as the workspace builds it. Tests lie in `target/PROFILE/deps`, programs one directory above.
///
/// # Errors
/// One line that says how to build it.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|e| format!("the test does not know where it is: {e}"))?;
    let built = test.parent().and_then(Path::parent).map(|dir| dir.join(name));
    built.filter(|p| p.exists()).ok_or_else(|| format!("{name} is not built: run cargo build --workspace --bins"))
}
