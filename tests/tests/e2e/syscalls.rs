//! The list of system calls that a vault may make is no longer than what it makes: three voters are traced through a story.
//!
//! What counts is what a voter calls after its filters are in place; before that nothing holds it.

use super::voters::world::{Voter, Voters};
use super::world::{World, eventually};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use suite::repository;

/// Allowed calls that a story of some seconds need not make, and why they are allowed all the same.
const EXCUSED: &[(&str, &[&str])] = &[
    ("the allocator and the scheduler make them as sizes and waits fall", &["brk", "mremap", "sched_yield"]),
    ("the vDSO answers where it can", &["clock_gettime", "clock_getres"]),
    (
        "which call waits is a library's choice",
        &["clock_nanosleep", "nanosleep", "ppoll", "poll", "epoll_pwait", "epoll_wait"],
    ),
    (
        "the beginning of a thread, in one C library or another",
        &["set_tid_address", "arch_prctl", "prlimit64", "rseq", "gettid", "getpid"],
    ),
    ("a thread may end before it is looked at, and after the process", &["exit"]),
    ("abort()", &["tgkill"]),
    ("a process that was stopped goes on", &["restart_syscall"]),
    ("whose socket it is; libraries ask for one or another", &["getuid", "geteuid", "getgid", "getegid"]),
    (
        "the same file calls, as another C library or machine makes them",
        &[
            "openat",
            "open",
            "fstat",
            "newfstatat",
            "stat",
            "lstat",
            "statx",
            "access",
            "faccessat",
            "faccessat2",
            "readlink",
            "readlinkat",
            "rename",
            "renameat",
            "renameat2",
            "unlink",
            "unlinkat",
            "rmdir",
            "mkdir",
            "mkdirat",
            "chmod",
            "fchmod",
            "fchmodat",
        ],
    ),
    (
        "the store reads its tables once it has any, and syncs either way",
        &["pread64", "pwrite64", "readv", "fsync", "fdatasync"],
    ),
    ("other voters may be known by names", &["sendmmsg", "sendmsg", "recvmsg"]),
    ("which of the two takes a connection in is a library's choice", &["accept", "accept4"]),
    ("who is at the other end is asked where a stranger is turned away", &["getpeername"]),
];

/// Of calls that have several forms, one at least is made.
const ONE_OF: &[&[&str]] = &[
    &["epoll_wait", "epoll_pwait"],
    &["open", "openat"],
    &["stat", "fstat", "newfstatat", "statx"],
    &["rename", "renameat", "renameat2"],
    &["unlink", "unlinkat"],
    &["mkdir", "mkdirat"],
    &["accept", "accept4"],
    &["fsync", "fdatasync"],
];

fn trace(w: &World, name: &str) -> PathBuf {
    w.path(&format!("{name}.strace"))
}

/// A voter whose every call is written down. The tracer is not between it and the test: its signals and its end are its own.
fn place(w: &World, name: &str) -> Voter {
    let mut voter = Voter::place(w, name);
    let out = trace(w, name).display().to_string();
    voter.through = ["strace", "-D", "-f", "-A", "-qq", "-s", "0", "-o", &out].map(str::to_owned).to_vec();
    voter
}

/// The names of the list `ALLOWED`, as it is written, for this machine.
fn allowed() -> BTreeSet<String> {
    let text = repository::read("vault/src/harden/syscalls.rs").unwrap();
    let (_, list) = text.split_once("ALLOWED: &[i64] = &[").unwrap();
    let (list, _) = list.split_once("\n];").unwrap();
    let mut elsewhere = false;
    let mut names = BTreeSet::new();
    for line in list.lines().map(str::trim) {
        if let Some(arch) = line.strip_prefix("#[cfg(target_arch = \"") {
            elsewhere = !arch.starts_with(std::env::consts::ARCH);
        } else if let Some(rest) = line.strip_prefix("c::SYS_") {
            if !std::mem::take(&mut elsewhere) {
                names.insert(rest.split(',').next().unwrap().to_owned());
            }
        } else {
            assert!(line.is_empty() || line.starts_with("//"), "what is this line? {line}");
        }
    }
    names
}

/// The calls of a trace of processes, one after the other, each from where its second filter was installed.
fn calls(trace: &str) -> BTreeSet<String> {
    let (mut filters, mut found) = (0, BTreeSet::new());
    for line in trace.lines() {
        // `PID name(…`, also of a call that has not come back; not `PID <... name resumed>`, `PID +++` or `PID ---`.
        let Some((name, _)) = line.split_once(' ').and_then(|(_, call)| call.trim_start().split_once('(')) else {
            continue;
        };
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            continue;
        }
        match name {
            "execve" => filters = 0,
            "seccomp" => filters += 1,
            _ if filters >= 2 => {
                found.insert(name.to_owned());
            }
            _ => {}
        }
    }
    found
}

#[test]
fn a_trace_is_read_from_the_second_filter_on() {
    let trace = "7 execve(\"/x\", ...) = 0\n7 brk(NULL) = 0x1\n7 seccomp(SECCOMP_SET_MODE_FILTER, 0, 0x1) = 0\n7 uname(0x1) = 0\n\
                 7 seccomp(SECCOMP_SET_MODE_FILTER, 0, 0x1) = 0\n8 futex(0x1, FUTEX_WAIT <unfinished ...>\n7 fsync(3) = 0\n\
                 8 <... futex resumed>) = 0\n7 --- SIGTERM {si_signo=SIGTERM} ---\n7 +++ exited with 0 +++\n\
                 9 execve(\"/x\", ...) = 0\n9 mmap(NULL) = 0\n";
    assert_eq!(calls(trace), BTreeSet::from(["fsync", "futex"].map(str::to_owned)));
    let list = allowed();
    assert!(
        list.len() > 50 && list.contains("futex") && list.contains("sendto") && !list.contains("execve"),
        "{list:?}"
    );
}

#[test]
fn every_allowed_call_is_made_by_three_voters_or_has_a_reason() {
    let mut v = Voters::founded_at(3, place);
    for n in 0..8 {
        v.put(&format!("shop/s{n}"), &[0x61; 2000]);
    }
    // Out of order, in order, and under its own power.
    let follower = v.follower();
    v.kill(follower);
    v.come_back(follower);
    v.settle();
    v.all[follower].stop();
    v.come_back(follower);
    v.settle();
    let (leader, _) = v.leader();
    let (file, socket) = (v.w.text("cluster.hfbackup"), v.all[leader].socket());
    v.w.ok(&["backup", "create", &file, "--vault-socket", &socket]);
    // Every disk is written anew: slots, log, snapshot, store.
    let new = v.w.text("new.key");
    v.w.ok(&["unlock-key", "rotate", "--compromised", "--key-out", &new, "--timeout", "90s"]);
    v.w.ok(&["keyring", "rotate", "--timeout", "90s"]);
    eventually("every voter to have replaced its disk key", || {
        v.rows().iter().all(|r| r["disk_key_order"].as_u64() >= Some(1)).then_some(())
    });
    v.verifies();
    for n in 0..3 {
        v.kill(n);
    }

    let listed = allowed();
    let traces = ["vault", "vault2", "vault3"].map(|name| trace(&v.w, name));
    let excused: BTreeSet<String> = EXCUSED.iter().flat_map(|(_, names)| *names).map(|n| (*n).to_owned()).collect();
    let seen: BTreeSet<String> = traces.iter().flat_map(|path| calls(&fs::read_to_string(path).unwrap())).collect();
    let unused: Vec<&String> = listed.iter().filter(|n| !seen.contains(*n) && !excused.contains(*n)).collect();
    assert!(unused.is_empty(), "nothing makes these calls: take them from the list, or say why they stay: {unused:?}");
    for forms in ONE_OF {
        assert!(forms.iter().any(|n| seen.contains(*n)), "none of {forms:?} was made");
    }
    // An excuse for what is not allowed at all is out of date.
    let stale: Vec<&String> =
        excused.iter().filter(|n| std::env::consts::ARCH == "x86_64" && !listed.contains(*n)).collect();
    assert!(stale.is_empty(), "excused, and not on the list: {stale:?}");
    let needless: Vec<&String> = excused.iter().filter(|n| seen.contains(*n)).collect();
    eprintln!("excused, and made all the same: {needless:?}");
}
