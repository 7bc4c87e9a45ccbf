//! The second back end: `runc` (or what is called like it), an installed program.

use super::OciCommand;
use std::path::PathBuf;

/// Name in the configuration.
pub const NAME: &str = "runc";

/// The runtime at `program` (a path, or a name to be found in `PATH`), keeping its state under `root`.
pub fn runtime(program: PathBuf, root: PathBuf) -> OciCommand {
    OciCommand::new(NAME, program, Vec::new(), root)
}
