//! The system calls of the vault and why it makes them.
//!
//! Must never: grow without a reason beside it, or hold what nothing here calls
//! (`every_allowed_call_is_made_by_three_voters_or_has_a_reason`).

use libc as c;

/// A condition on an argument, by position.
#[derive(Debug, Clone, Copy)]
pub(super) enum Only {
    /// It has this value.
    Is(u8, u64),
    /// None of these bits is set.
    Without(u8, u64),
    /// All of these bits are set.
    With(u8, u64),
}

/// Calls that only an intruder makes: the process ends at once.
pub(super) const FATAL: &[i64] = &[
    // Running another program.
    c::SYS_execve,
    c::SYS_execveat,
    // Looking into other processes, or letting them look in here.
    c::SYS_ptrace,
    c::SYS_process_vm_readv,
    c::SYS_process_vm_writev,
    c::SYS_pidfd_getfd,
    // Changing the kernel or what it measures.
    c::SYS_bpf,
    c::SYS_perf_event_open,
    c::SYS_init_module,
    c::SYS_finit_module,
    c::SYS_delete_module,
    c::SYS_kexec_load,
    c::SYS_reboot,
    // Changing the view of the file system, or going round it.
    c::SYS_mount,
    c::SYS_umount2,
    c::SYS_pivot_root,
    c::SYS_chroot,
    c::SYS_setns,
    c::SYS_unshare,
    c::SYS_open_by_handle_at,
    // Becoming somebody else.
    c::SYS_setuid,
    c::SYS_setgid,
    c::SYS_setresuid,
    c::SYS_setresgid,
    c::SYS_setgroups,
    c::SYS_capset,
    // Old ways to race the kernel.
    c::SYS_userfaultfd,
    c::SYS_keyctl,
    c::SYS_add_key,
    c::SYS_request_key,
    c::SYS_personality,
    // Swap could carry keys to a disk.
    c::SYS_swapon,
];

/// Calls allowed whatever their arguments.
pub(super) const ALLOWED: &[i64] = &[
    // Memory: the allocator, thread stacks, and locked pages for keys (mlock, MADV_DONTDUMP).
    c::SYS_brk,
    c::SYS_munmap,
    c::SYS_mremap,
    c::SYS_madvise,
    c::SYS_mlock,
    c::SYS_munlock,
    // Threads: the runtime's, the log writer's and fjall's workers; rseq and robust lists are glibc's start of a thread.
    c::SYS_futex,
    c::SYS_set_robust_list,
    c::SYS_rseq,
    c::SYS_sched_yield,
    c::SYS_sched_getaffinity,
    c::SYS_gettid,
    c::SYS_getpid,
    c::SYS_set_tid_address,
    c::SYS_prlimit64,
    c::SYS_getuid,
    c::SYS_geteuid,
    c::SYS_getgid,
    c::SYS_getegid,
    // The end of a thread and of the process; tgkill is abort().
    c::SYS_exit,
    c::SYS_exit_group,
    c::SYS_tgkill,
    // Signals: the runtime's handlers for SIGTERM and SIGHUP, and stack overflow guards.
    c::SYS_rt_sigaction,
    c::SYS_rt_sigprocmask,
    c::SYS_rt_sigreturn,
    c::SYS_sigaltstack,
    c::SYS_restart_syscall,
    // Clocks and timers, where the vDSO cannot answer.
    c::SYS_clock_gettime,
    c::SYS_clock_getres,
    c::SYS_clock_nanosleep,
    c::SYS_nanosleep,
    // Entropy.
    c::SYS_getrandom,
    // Files of the state directory; landlock says which.
    c::SYS_openat,
    c::SYS_close,
    c::SYS_read,
    c::SYS_write,
    c::SYS_readv,
    c::SYS_writev,
    c::SYS_pread64,
    c::SYS_pwrite64,
    c::SYS_lseek,
    c::SYS_fstat,
    c::SYS_newfstatat,
    c::SYS_statx,
    c::SYS_statfs,
    c::SYS_getdents64,
    c::SYS_faccessat,
    c::SYS_faccessat2,
    c::SYS_readlinkat,
    c::SYS_getcwd,
    c::SYS_fsync,
    c::SYS_fdatasync,
    c::SYS_ftruncate,
    c::SYS_flock,
    c::SYS_renameat,
    c::SYS_renameat2,
    c::SYS_unlinkat,
    c::SYS_mkdirat,
    c::SYS_fchmod,
    c::SYS_fchmodat,
    // The runtime's event loop.
    c::SYS_epoll_create1,
    c::SYS_epoll_ctl,
    c::SYS_epoll_pwait,
    c::SYS_eventfd2,
    c::SYS_ppoll,
    // Sockets once made; which families may be made is restricted below.
    c::SYS_bind,
    c::SYS_listen,
    c::SYS_accept,
    c::SYS_accept4,
    c::SYS_connect,
    c::SYS_shutdown,
    c::SYS_getsockname,
    c::SYS_getpeername,
    c::SYS_setsockopt,
    c::SYS_getsockopt,
    c::SYS_sendto,
    c::SYS_recvfrom,
    c::SYS_sendmsg,
    c::SYS_recvmsg,
    c::SYS_sendmmsg,
    #[cfg(target_arch = "x86_64")]
    c::SYS_arch_prctl, // thread-local storage of a new thread
    #[cfg(target_arch = "x86_64")]
    c::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    c::SYS_poll,
    // The same file calls in the form that glibc still uses on x86-64.
    #[cfg(target_arch = "x86_64")]
    c::SYS_open,
    #[cfg(target_arch = "x86_64")]
    c::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    c::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    c::SYS_access,
    #[cfg(target_arch = "x86_64")]
    c::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    c::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    c::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    c::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    c::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    c::SYS_chmod,
];

const fn bits(flag: i32) -> u64 {
    flag.cast_unsigned() as u64
}

/// Calls allowed only so: the conditions of one line hold together, and any line of a call suffices.
pub(super) const RESTRICTED: &[(i64, &[Only])] = &[
    // Threads, never processes.
    (c::SYS_clone, &[Only::With(0, bits(c::CLONE_THREAD))]),
    // No memory that is writable and executable at once. Executable alone stays, for libraries that the C
    // library loads late; what is a token's module never comes into this process.
    (c::SYS_mmap, &[Only::Without(2, bits(c::PROT_WRITE))]),
    (c::SYS_mmap, &[Only::Without(2, bits(c::PROT_EXEC))]),
    (c::SYS_mprotect, &[Only::Without(2, bits(c::PROT_WRITE))]),
    (c::SYS_mprotect, &[Only::Without(2, bits(c::PROT_EXEC))]),
    // Internet and unix sockets only: no netlink, no packet sockets.
    (c::SYS_socket, &[Only::Is(0, bits(c::AF_UNIX))]),
    (c::SYS_socket, &[Only::Is(0, bits(c::AF_INET))]),
    (c::SYS_socket, &[Only::Is(0, bits(c::AF_INET6))]),
    // The runtime's own signal pipe.
    (c::SYS_socketpair, &[Only::Is(0, bits(c::AF_UNIX))]),
    // Non-blocking and close-on-exec, set on sockets and files; whether standard error is a terminal.
    (c::SYS_ioctl, &[Only::Is(1, c::FIONBIO)]),
    (c::SYS_ioctl, &[Only::Is(1, c::FIOCLEX)]),
    (c::SYS_ioctl, &[Only::Is(1, c::TCGETS)]),
    (c::SYS_fcntl, &[Only::Is(1, bits(c::F_GETFD))]),
    (c::SYS_fcntl, &[Only::Is(1, bits(c::F_SETFD))]),
    (c::SYS_fcntl, &[Only::Is(1, bits(c::F_GETFL))]),
    (c::SYS_fcntl, &[Only::Is(1, bits(c::F_SETFL))]),
    (c::SYS_fcntl, &[Only::Is(1, bits(c::F_DUPFD_CLOEXEC))]),
    // Names of threads and of their memory, for those who debug.
    (c::SYS_prctl, &[Only::Is(0, bits(c::PR_SET_NAME))]),
    (c::SYS_prctl, &[Only::Is(0, bits(c::PR_SET_VMA))]),
    // Installing the second filter after the first; a further one can only take more away.
    (c::SYS_prctl, &[Only::Is(0, bits(c::PR_SET_NO_NEW_PRIVS))]),
];
