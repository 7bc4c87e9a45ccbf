//! The seccomp profile of every container: an allow-list (`seccomp.allow`) and the calls whose arguments decide.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// The `CLONE_NEW*` flags of clone(2): a new namespace is new kernel surface. (Not CLONE_NEWTIME: it is no clone flag.)
const CLONE_NEW: u64 = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;
/// personality(2): the default, 32-bit uname, and "what is it?"; not the ones that switch off address randomisation.
const PERSONALITIES: [u64; 4] = [0x0, 0x0002_0000, 0x8, 0xffff_ffff];
/// Address families that reach no further than the network namespace: unix, IPv4, IPv6, netlink.
const FAMILIES: [u64; 4] = [1, 2, 10, 16];

/// The names in `seccomp.allow`.
fn allowed() -> Vec<String> {
    let lines = include_str!("seccomp.allow").lines().map(str::trim);
    lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect()
}

fn arg(index: usize, op: LinuxSeccompOperator, value: u64, two: Option<u64>) -> Result<LinuxSeccompArg, OciSpecError> {
    let arg = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    match two {
        Some(two) => arg.value_two(two).build(),
        None => arg.build(),
    }
}

fn allow_if(name: &str, condition: LinuxSeccompArg) -> Result<LinuxSyscall, OciSpecError> {
    let call = LinuxSyscallBuilder::default().names(vec![name.to_owned()]);
    call.action(LinuxSeccompAction::ScmpActAllow).args(vec![condition]).build()
}

/// The profile. Calls that are refused fail with EPERM; `clone3`, whose flags no filter can read, with ENOSYS, so that
/// C libraries fall back to `clone`.
pub fn profile() -> Result<LinuxSeccomp, OciSpecError> {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpMaskedEq};
    let call = || LinuxSyscallBuilder::default();
    let mut calls = vec![call().names(allowed()).action(LinuxSeccompAction::ScmpActAllow).build()?];
    // The flags are the first argument on the architectures below.
    calls.push(allow_if("clone", arg(0, ScmpCmpMaskedEq, CLONE_NEW, Some(0))?)?);
    for persona in PERSONALITIES {
        calls.push(allow_if("personality", arg(0, ScmpCmpEq, persona, None)?)?);
    }
    for family in FAMILIES {
        calls.push(allow_if("socket", arg(0, ScmpCmpEq, family, None)?)?);
    }
    let no_clone3 = call().names(vec!["clone3".to_owned()]).action(LinuxSeccompAction::ScmpActErrno);
    calls.push(no_clone3.errno_ret(ENOSYS).build()?);
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures())
        .syscalls(calls)
        .build()
}

/// This machine's architecture. Its 32-bit companions are left out: `socketcall` would pass the family rule by.
fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "aarch64" => vec![Arch::ScmpArchAarch64],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        "s390x" => vec![Arch::ScmpArchS390x],
        _ => vec![Arch::ScmpArchX86_64],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_no_call_twice_and_none_that_is_a_known_way_out() {
        let names = allowed();
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), names.len());
        let ways_out = [
            "bpf",
            "clone",
            "clone3",
            "delete_module",
            "fanotify_init",
            "finit_module",
            "fsopen",
            "init_module",
            "io_uring_setup",
            "kcmp",
            "kexec_load",
            "keyctl",
            "mount",
            "move_mount",
            "open_by_handle_at",
            "open_tree",
            "perf_event_open",
            "personality",
            "pivot_root",
            "process_vm_readv",
            "process_vm_writev",
            "ptrace",
            "quotactl",
            "reboot",
            "request_key",
            "setns",
            "socket",
            "socketcall",
            "swapon",
            "umount2",
            "unshare",
            "userfaultfd",
        ];
        for call in ways_out {
            assert!(!names.iter().any(|n| n == call), "{call}");
        }
        for call in ["read", "write", "execve", "mmap", "futex", "epoll_wait", "getrandom"] {
            assert!(names.iter().any(|n| n == call), "{call}");
        }
    }
}
