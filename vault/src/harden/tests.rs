//! Each step of the chain shows its effect in a child process of its own.

use super::swap::judge;
use super::syscalls::{ALLOWED, FATAL, RESTRICTED};
use super::*;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CHILD: &str = "HOLDFAST_HARDEN_CHILD";

/// Runs the test `name` once more in a process of its own, or `None` if this is that process.
fn in_child(name: &str) -> Option<ExitStatus> {
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let test = format!("harden::tests::{name}");
    let mut cmd = Command::new(std::env::current_exe().unwrap());
    Some(cmd.args([&test, "--exact", "--test-threads=1"]).env(CHILD, "1").output().unwrap().status)
}

fn hardened(dir: &Path) -> Hardened {
    let paths = Paths { write: vec![dir.to_owned()], read: Vec::new() };
    let swap = forbid_dumps().unwrap().forbid_new_privileges().unwrap().check_swap(true).unwrap();
    swap.confine_files(&paths).unwrap().filter_syscalls().unwrap()
}

#[test]
fn nobody_can_dump_the_process_or_gain_rights_through_it() {
    if let Some(status) = in_child("nobody_can_dump_the_process_or_gain_rights_through_it") {
        assert!(status.success());
        return;
    }
    let _kept = forbid_dumps().unwrap().forbid_new_privileges().unwrap();
    let behavior = rustix::process::dumpable_behavior().unwrap();
    assert!(matches!(behavior, rustix::process::DumpableBehavior::NotDumpable));
    assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).maximum, Some(0));
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn unencrypted_swap_is_refused_unless_allowed_by_name() {
    assert!(matches!(judge(Some("/dev/sda2".into()), false), Err(HardenError::Swap(d)) if d == "/dev/sda2"));
    assert_eq!(judge(Some("/dev/sda2".into()), true).unwrap(), SwapState::AllowedUnencrypted);
    assert_eq!(judge(None, false).unwrap(), SwapState::Safe);
}

#[test]
fn where_no_memory_can_be_locked_no_key_is_said_to_be_and_the_start_is_refused_unless_allowed() {
    if let Some(status) =
        in_child("where_no_memory_can_be_locked_no_key_is_said_to_be_and_the_start_is_refused_unless_allowed")
    {
        assert!(status.success());
        return;
    }
    assert!(holdfast_types::may_lock() && !holdfast_types::any_unlocked(), "the control: it can be locked here");
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Memlock, none).unwrap();
    // Root locks whatever the limit says.
    let nothing = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    rustix::thread::set_capabilities(None, sets).unwrap();
    let key = crate::disk::keys::generate().unwrap();
    assert!(!key.is_locked() && holdfast_types::any_unlocked());
    assert!(key.ct_eq(&key.duplicate()), "it is kept all the same");
    let refused = forbid_dumps().unwrap().forbid_new_privileges().unwrap().check_swap(false).unwrap_err();
    assert!(matches!(refused, HardenError::Unlocked), "{refused}");
    assert!(refused.to_string().contains("LimitMEMLOCK"));
    let _kept = forbid_dumps().unwrap().forbid_new_privileges().unwrap().check_swap(true).unwrap();
}

#[test]
fn files_outside_the_given_directories_are_out_of_reach() {
    if let Some(status) = in_child("files_outside_the_given_directories_are_out_of_reach") {
        assert!(status.success());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("theirs"), "x").unwrap();
    let hardened = hardened(dir.path());
    std::fs::write(dir.path().join("ours"), "x").unwrap();
    let denied = std::fs::read(other.path().join("theirs")).is_err();
    assert_eq!(denied, hardened.files != Enforcement::None, "landlock says {:?}", hardened.files);
}

#[test]
fn a_missing_directory_stops_the_start() {
    if let Some(status) = in_child("a_missing_directory_stops_the_start") {
        assert!(status.success());
        return;
    }
    let swap = forbid_dumps().unwrap().forbid_new_privileges().unwrap().check_swap(true).unwrap();
    let paths = Paths { write: vec!["/does/not/exist".into()], read: Vec::new() };
    assert!(matches!(swap.confine_files(&paths), Err(HardenError::Path { .. })));
}

#[test]
fn running_another_program_ends_a_hardened_process() {
    if let Some(status) = in_child("running_another_program_ends_a_hardened_process") {
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status:?}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _kept = hardened(dir.path());
    use std::os::unix::process::CommandExt as _;
    panic!("exec came back: {}", Command::new("/bin/true").exec());
}

#[test]
fn a_hardened_process_starts_no_process_and_no_netlink_socket() {
    if let Some(status) = in_child("a_hardened_process_starts_no_process_and_no_netlink_socket") {
        assert!(status.success());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _kept = hardened(dir.path());
    let netlink = rustix::net::socket(rustix::net::AddressFamily::NETLINK, rustix::net::SocketType::RAW, None);
    assert_eq!(netlink.unwrap_err(), rustix::io::Errno::NOSYS);
    assert!(Command::new("/bin/true").spawn().is_err());
}

#[test]
fn no_call_is_both_allowed_and_fatal() {
    let restricted = RESTRICTED.iter().map(|(n, _)| n);
    assert!(ALLOWED.iter().chain(restricted).all(|n| !FATAL.contains(n)));
    assert!(RESTRICTED.iter().all(|(n, only)| !ALLOWED.contains(n) && !only.is_empty()));
}

#[test]
fn a_hardened_process_runs_a_voter_sockets_and_locked_keys() {
    if let Some(status) = in_child("a_hardened_process_runs_a_voter_sockets_and_locked_keys") {
        assert!(status.success(), "{status:?}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _kept = hardened(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        crate::raft::testing::one_voter_counts_to(dir.path(), 20).await;
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = tcp.local_addr().unwrap();
        let (accepted, connected) = tokio::join!(tcp.accept(), tokio::net::TcpStream::connect(there));
        accepted.unwrap();
        connected.unwrap();
        tokio::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let _kept = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    });
    assert!(crate::disk::keys::generate().unwrap().is_locked());
}

#[test]
fn a_hardened_process_reaches_other_voters_by_address_and_by_name() {
    if let Some(status) = in_child("a_hardened_process_reaches_other_voters_by_address_and_by_name") {
        assert!(status.success(), "{status:?}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _kept = hardened(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            let there = format!("{host}:{port}");
            let connected = tokio::net::TcpStream::connect(&there).await;
            let mut far = connected.unwrap_or_else(|e| panic!("{there}: {e}"));
            let (mut near, _) = listener.accept().await.unwrap();
            // As peers do with each connection: without delay, both ways, and with its end seen.
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            assert_eq!(far.peer_addr().unwrap().port(), port);
            near.write_all(b"heartbeat").await.unwrap();
            near.shutdown().await.unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"heartbeat");
        }
    });
}

#[test]
fn a_hardened_process_is_handed_the_end_of_a_channel_in_a_packet() {
    use rustix::net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair, sockopt,
    };
    use std::io::{IoSlice, IoSliceMut};
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd as _;
    if let Some(status) = in_child("a_hardened_process_is_handed_the_end_of_a_channel_in_a_packet") {
        assert!(status.success(), "{status:?}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    // As the vault and the process that keeps its token's PIN: joined before rights are given up, and asked after.
    let (mine, theirs) = pair();
    let _kept = hardened(dir.path());
    let (end, far) = pair();
    let fds = [end.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(&theirs, &[IoSlice::new(b"here")], &mut control, SendFlags::NOSIGNAL).unwrap();
    sockopt::set_socket_timeout(&mine, sockopt::Timeout::Recv, Some(std::time::Duration::from_secs(1))).unwrap();
    let mut bytes = [0_u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&mine, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut handed = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            handed = fds.last();
        }
    }
    send(handed.unwrap(), b"through", SendFlags::NOSIGNAL).unwrap();
    let mut said = [0_u8; 7];
    recv(&far, &mut said[..], RecvFlags::empty()).unwrap();
    assert_eq!((&bytes, &said), (b"here", b"through"));
}
