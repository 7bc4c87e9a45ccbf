//! seccomp: the system calls of `syscalls.rs`, nothing else.
//!
//! Two filters, the stricter answer wins: calls that only an intruder makes end the process; calls that are merely not on the list
//! answer `ENOSYS`, as an older kernel would, so that libraries take their fallback (`clone3`, whose flags no filter can read, becomes `clone`).
//! Must never: be installed after the runtime has started its threads.

use super::syscalls::{ALLOWED, FATAL, Only, RESTRICTED};
use super::{Confined, Enforcement, HardenError, SwapState};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Every right that can be given up has been. The only way to get one is the whole chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Hardened {
    /// What was found about swap.
    pub swap: SwapState,
    /// How much of the file confinement this kernel enforces.
    pub files: Enforcement,
}

impl Hardened {
    /// What could not be given up or was allowed to stay, for `status`; `None` stands for a process that gave up nothing.
    pub fn weaknesses(hardened: Option<Self>) -> Vec<&'static str> {
        let Some(h) = hardened else {
            return vec![
                "harden = false: nothing confines this process, its memory may be dumped, and swap was not looked at",
            ];
        };
        let swap =
            (h.swap == SwapState::AllowedUnencrypted).then_some("swap is not encrypted, which allow_swap permits");
        let files = match h.files {
            Enforcement::Full => None,
            Enforcement::Partial => Some("this kernel confines the process to its files only in part"),
            Enforcement::None => Some("this kernel does not confine the process to its files (no Landlock)"),
        };
        swap.into_iter().chain(files).collect()
    }
}

impl Confined {
    /// Last step: installs the system call filters for this thread and those it starts.
    pub fn filter_syscalls(self) -> Result<Hardened, HardenError> {
        let fatal = FATAL.iter().map(|n| (*n, Vec::new())).collect();
        install(fatal, SeccompAction::Allow, SeccompAction::KillProcess)?;
        install(allow_list()?, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()), SeccompAction::Allow)?;
        Ok(Hardened { swap: self.swap, files: self.files })
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn allow_list() -> Result<Rules, HardenError> {
    let mut rules: Rules = ALLOWED.iter().map(|n| (*n, Vec::new())).collect();
    for (call, only) in RESTRICTED {
        let rule =
            only.iter().map(condition).collect::<Result<Vec<_>, _>>().and_then(SeccompRule::new).map_err(failed)?;
        rules.entry(*call).or_default().push(rule);
    }
    Ok(rules)
}

fn condition(only: &Only) -> Result<SeccompCondition, seccompiler::BackendError> {
    let (arg, op, value) = match *only {
        Only::Is(arg, value) => (arg, SeccompCmpOp::Eq, value),
        Only::Without(arg, bits) => (arg, SeccompCmpOp::MaskedEq(bits), 0),
        Only::With(arg, bits) => (arg, SeccompCmpOp::MaskedEq(bits), bits),
    };
    SeccompCondition::new(arg, SeccompCmpArgLen::Dword, op, value)
}

fn install(rules: Rules, otherwise: SeccompAction, on_match: SeccompAction) -> Result<(), HardenError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let filter = SeccompFilter::new(rules, otherwise, on_match, arch).map_err(failed)?;
    let program = BpfProgram::try_from(filter).map_err(failed)?;
    seccompiler::apply_filter(&program).map_err(failed)
}

fn failed(e: impl std::fmt::Display) -> HardenError {
    HardenError::Filter(e.to_string())
}
