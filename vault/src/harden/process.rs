//! No core dumps, no debugger, no new privileges.
//!
//! Must never: be undone; the hard limit is lowered too.

use super::HardenError;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Neither a core dump nor another process of the same user shows this process's memory.
#[derive(Debug)]
#[must_use]
pub struct Undumpable(());

/// Nothing this process runs can gain rights it does not have.
#[derive(Debug)]
#[must_use]
pub struct Unprivileged(pub(super) ());

fn kernel(step: &'static str) -> impl Fn(rustix::io::Errno) -> HardenError {
    move |e| HardenError::Kernel { step, source: e.into() }
}

/// First step: `PR_SET_DUMPABLE` 0 (which also shuts `/proc/PID/mem` and ptrace to others) and a core limit of 0.
pub fn forbid_dumps() -> Result<Undumpable, HardenError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(kernel("make the process undumpable"))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(kernel("forbid core dumps"))?;
    Ok(Undumpable(()))
}

impl Undumpable {
    /// Second step: `PR_SET_NO_NEW_PRIVS`.
    pub fn forbid_new_privileges(self) -> Result<Unprivileged, HardenError> {
        rustix::thread::set_no_new_privs(true).map_err(kernel("set no_new_privs"))?;
        Ok(Unprivileged(()))
    }
}
