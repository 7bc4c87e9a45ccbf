//! The suite that every container runtime passes: the same cases, real containers, one module a back end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use holdfast_agent::image::{ImageStore, UnpackLimits};
use holdfast_agent::runtime::{ContainerId, Containers, RuntimeError, Signal, Status, logs};
use holdfast_agent::secretfs::{SecretFile, SecretFs};
use holdfast_agent::spec::NOBODY;
use holdfast_image::{Limits, Registries, Source};
use holdfast_wire::v1;
use std::fs;
use std::time::Duration;
use support::oci::{Layout, Pack, busybox_layer};
use support::{Node, shell, until, within};

macro_rules! conformance {
    ($($case:ident),+ $(,)?) => {
        mod libcontainer {
            $(#[tokio::test] async fn $case() { super::$case(super::Node::new(super::support::libcontainer)).await; })+
        }
        mod runc {
            $(#[tokio::test] async fn $case() { super::$case(super::Node::new(super::support::runc)).await; })+
        }
    };
}

conformance!(
    a_program_runs_and_its_exit_code_is_learnt,
    a_program_that_is_not_there_never_starts_and_leaves_nothing,
    what_a_program_prints_is_kept_by_stream,
    a_container_ends_when_it_is_asked_to,
    a_container_that_does_not_listen_is_killed_after_its_grace,
    a_container_has_nothing_to_gain_rights_with,
    a_containers_root_is_read_only_and_its_tmp_is_not,
    a_container_sees_only_itself,
    a_container_cannot_make_namespaces_or_mounts,
    the_limit_on_processes_holds,
    the_limit_on_memory_kills_and_is_told,
    a_container_outlives_its_agent,
    an_exit_that_no_agent_saw_is_learnt_by_the_next,
    a_container_without_its_shim_is_ended_and_told,
    a_name_is_free_again_once_its_container_is_removed,
    secrets_are_readable_as_asked_and_gone_with_the_task,
    an_image_runs_as_its_own_configuration_says,
);

fn id() -> ContainerId {
    ContainerId::parse("shop.web.1").unwrap()
}

async fn a_program_runs_and_its_exit_code_is_learnt(node: Node) {
    let (exit, _) = node.run("shop.web.1", "exit 7").await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (Some(7), None, false));
}

async fn a_program_that_is_not_there_never_starts_and_leaves_nothing(node: Node) {
    let wanted = v1::Spec { command: vec!["/bin/absent".into()], ..Default::default() };
    match node.containers.start(&id(), node.spec(&id(), &wanted, None)).await {
        // Some runtimes look before they start, some find out in the container.
        Err(RuntimeError::NotStarted { reason, .. }) => assert!(!reason.is_empty()),
        Ok(()) => {
            let exit = within(node.containers.wait(&id())).await.unwrap();
            assert!(!exit.success(), "{exit:?}");
            node.containers.remove(&id()).await.unwrap();
        }
        Err(e) => panic!("{e}"),
    }
    assert_eq!(node.containers.held().unwrap(), []);
    assert_eq!(holdfast_agent::runtime::Runtime::list(&node.layout.backend.runtime()).unwrap(), []);
}

async fn what_a_program_prints_is_kept_by_stream(node: Node) {
    let (exit, _) = node.run("shop.web.1", "echo one; echo two >&2; echo -n open; seq 1 3000").await;
    assert!(exit.success());
    let lines = logs::tail(&node.containers.log_dir(&id()), 0).unwrap();
    let of = |stream| lines.iter().filter(move |l| l.stream == stream).map(|l| String::from_utf8_lossy(&l.text));
    let out: Vec<_> = of(logs::Stream::Stdout).collect();
    assert_eq!(out.iter().take(3).collect::<Vec<_>>(), ["one", "open1", "2"]);
    assert_eq!((out.len(), out.last().unwrap().as_ref()), (3001, "3000"));
    assert_eq!(of(logs::Stream::Stderr).collect::<Vec<_>>(), ["two"]);
}

async fn a_container_ends_when_it_is_asked_to(node: Node) {
    node.start(&id(), &shell("trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.05; done")).await;
    until("the program's trap", || node.output(&id()).contains("ready")).await;
    let exit = within(node.containers.stop(&id(), Duration::from_secs(30))).await.unwrap();
    assert_eq!(exit.code, Some(3));
    assert_eq!(node.output(&id()), "ready\nbye\n");
}

async fn a_container_that_does_not_listen_is_killed_after_its_grace(node: Node) {
    node.start(&id(), &shell("trap '' TERM; echo ready; while true; do sleep 1; done")).await;
    until("the program's trap", || node.output(&id()).contains("ready")).await;
    let exit = within(node.containers.stop(&id(), Duration::from_millis(100))).await.unwrap();
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    node.containers.kill(&id(), Signal::Kill).await.unwrap();
}

async fn a_container_has_nothing_to_gain_rights_with(node: Node) {
    node.start(&id(), &shell("echo ready; sleep 1000")).await;
    let status = fs::read_to_string(format!("/proc/{}/status", node.init_pid(&id()))).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in\n{status}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("Uid"), "65532 65532 65532 65532");
    assert_eq!(field("Gid"), "65532 65532 65532 65532");
    assert_eq!(field("Groups"), "");
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.init_pid(&id()))).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["1", "1", "bytes"]);
}

async fn a_containers_root_is_read_only_and_its_tmp_is_not(node: Node) {
    let script = "touch /x /etc/x /bin/x /proc/sys/kernel/hostname; echo a > /tmp/a && cat /tmp/a; \
                  echo 1 > /proc/sys/kernel/panic; cat /proc/kcore; ls /sys/firmware | grep -c . ; true";
    let (exit, said) = node.run("shop.web.1", script).await;
    assert!(exit.success());
    for path in ["touch: /x:", "touch: /etc/x:", "touch: /bin/x:", "/proc/sys/kernel/panic:"] {
        assert!(said.contains(path), "no refusal for {path} in {said}");
    }
    let printed: Vec<&str> = said.lines().filter(|l| !l.contains(':')).collect();
    assert_eq!(printed, ["a", "0"], "{said}");
    assert!(!node.rootfs.join("x").exists());
}

async fn a_container_sees_only_itself(node: Node) {
    let script = "hostname; ls /sys/class/net; cat /sys/class/net/lo/flags; ls -d /proc/[0-9]* | grep -c .; \
                  for ns in net ipc uts mnt cgroup; do readlink /proc/self/ns/$ns; done";
    let (exit, said) = node.run("shop.web.1", script).await;
    assert!(exit.success(), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    // IFF_UP | IFF_LOOPBACK: loopback is there, it is up, and nothing else is there.
    assert_eq!(lines.get(..3), Some(["shop-web-1", "lo", "0x9"].as_slice()), "{said}");
    let processes: u32 = lines.get(3).unwrap().parse().unwrap();
    assert!(processes <= 3, "{said}");
    for (namespace, seen) in ["net", "ipc", "uts", "mnt", "cgroup"].iter().zip(lines.iter().skip(4)) {
        let ours = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert_ne!(ours.to_string_lossy(), *seen);
    }
    assert_eq!(lines.len(), 9);
}

async fn a_container_cannot_make_namespaces_or_mounts(node: Node) {
    let script = "unshare -U true && echo got-user; unshare -n true && echo got-net; \
                  mount -t tmpfs none /tmp && echo got-mount; echo done";
    let (exit, said) = node.run("shop.web.1", script).await;
    assert!(exit.success());
    assert!(!said.contains("got-") && said.contains("done"), "{said}");
    assert!(said.contains("Operation not permitted") || said.contains("EPERM"), "{said}");
}

async fn the_limit_on_processes_holds(node: Node) {
    let resources = Some(v1::Resources { pids: 8, ..Default::default() });
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; echo all";
    let (exit, said) = node.run_spec("shop.web.1", &v1::Spec { resources, ..shell(script) }).await;
    assert!(!exit.success() && said.contains("fork") && !said.contains("all"), "{exit:?} {said}");
}

async fn the_limit_on_memory_kills_and_is_told(node: Node) {
    let resources = Some(v1::Resources { memory_bytes: 16 << 20, ..Default::default() });
    let command = ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"].map(str::to_owned).to_vec();
    let wanted = v1::Spec { resources, command, ..Default::default() };
    let (exit, said) = node.run_spec("shop.web.1", &wanted).await;
    assert_eq!((exit.signal, exit.oom_killed), (Some(9), true), "{said}");
}

async fn a_container_outlives_its_agent(node: Node) {
    node.start(&id(), &shell("echo ready; while ! test -e /tmp/end; do sleep 0.05; done; exit 4")).await;
    let pid = node.init_pid(&id());
    let shim = fs::read_to_string(node.containers.log_dir(&id()).join("shim.lock")).unwrap();
    let stat = fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    assert_ne!(fields.get(1), Some(&std::process::id().to_string().as_str()), "the shim is our child");
    assert_eq!(fields.get(3), Some(&shim.as_str()), "the shim leads no session of its own");

    let next_agent = Containers::open(node.layout.clone()).unwrap();
    let held = next_agent.held().unwrap();
    let [only] = held.as_slice() else { panic!("{held:?}") };
    assert!(only.alive);
    assert!(matches!(only.status, Some(Status::Running { pid: p, .. }) if p == pid));
    fs::write(format!("/proc/{pid}/root/tmp/end"), "").unwrap();
    assert_eq!(within(next_agent.wait(&id())).await.unwrap().code, Some(4));
}

async fn an_exit_that_no_agent_saw_is_learnt_by_the_next(node: Node) {
    node.start(&id(), &shell("exit 5")).await;
    until("the shim's end", || node.containers.held().unwrap().iter().all(|h| !h.alive)).await;
    let next_agent = Containers::open(node.layout.clone()).unwrap();
    assert_eq!(next_agent.wait(&id()).await.unwrap().code, Some(5));
}

async fn a_container_without_its_shim_is_ended_and_told(node: Node) {
    node.start(&id(), &shell("sleep 1000")).await;
    let pid = node.init_pid(&id());
    let shim: i32 = fs::read_to_string(node.containers.log_dir(&id()).join("shim.lock")).unwrap().parse().unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let exit = within(node.containers.wait(&id())).await.unwrap();
    assert_eq!((exit.code, exit.signal), (None, None));
    until("the init's end", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |s| s.contains(") Z "))
    })
    .await;
    assert_eq!(node.containers.wait(&id()).await.unwrap(), exit);
}

async fn a_name_is_free_again_once_its_container_is_removed(node: Node) {
    node.start(&id(), &shell("sleep 1000")).await;
    let again = node.containers.start(&id(), node.spec(&id(), &shell("true"), None)).await;
    assert!(matches!(again, Err(RuntimeError::Exists(_))), "{again:?}");
    within(node.containers.remove(&id())).await.unwrap();
    within(node.containers.remove(&id())).await.unwrap();
    assert!(matches!(node.containers.wait(&id()).await, Err(RuntimeError::Missing(_))));
    let (exit, _) = node.run("shop.web.1", "exit 0").await;
    assert!(exit.success());
}

async fn secrets_are_readable_as_asked_and_gone_with_the_task(node: Node) {
    let secrets = SecretFs::open(node.dir.path().join("secrets")).unwrap();
    let file =
        |name, value: &'static str, mode, uid| SecretFile { name, value: value.as_bytes(), mode, uid, gid: NOBODY };
    let files = [file("mine", "s3cr3t-mine", 0o400, NOBODY), file("theirs", "s3cr3t-theirs", 0o400, 4321)];
    let mounted = secrets.mount(&id(), (NOBODY, NOBODY), 1 << 20, &files).unwrap();
    let script = "exec 2>&1; cat /run/secrets/mine; echo; cat /run/secrets/theirs; stat -c '%a %u %g' /run/secrets/mine; \
                  echo x > /run/secrets/mine; touch /run/secrets/new; chmod 777 /run/secrets/mine; \
                  grep ' /run/secrets ' /proc/self/mountinfo; echo end; sleep 1000";
    let spec = node.spec(&id(), &shell(script), Some(&mounted.path));
    node.containers.start(&id(), spec).await.unwrap();
    until("the script's end", || node.output(&id()).lines().last() == Some("end")).await;
    let said = node.output(&id());
    assert!(said.contains("s3cr3t-mine") && !said.contains("s3cr3t-theirs"), "{said}");
    assert!(said.contains("400 65532 65532"), "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 3, "{said}");
    assert!(said.contains("theirs': Permission denied"), "{said}");
    let mount = said.lines().find(|l| l.contains(" /run/secrets ")).unwrap();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.split([' ', ',']).any(|o| o == option), "{option} is not in {mount}");
    }

    // A new version arrives while it runs; the container sees it, and sees it whole.
    secrets.write(&id(), &[file("mine", "s3cr3t-next", 0o400, NOBODY)]).unwrap();
    let inside = format!("/proc/{}/root/run/secrets", node.init_pid(&id()));
    assert_eq!(fs::read_to_string(format!("{inside}/mine")).unwrap(), "s3cr3t-next");

    within(node.containers.remove(&id())).await.unwrap();
    secrets.remove(&id()).unwrap();
    assert!(!mounted.path.exists());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(mounted.path.to_str().unwrap()));
}

async fn an_image_runs_as_its_own_configuration_says(mut node: Node) {
    let layout = node.dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    let pinned = Layout(&layout).image("x", &[busybox_layer()], Pack::Zstd, |_| ());
    let images = node.dir.path().join("images");
    let store = ImageStore::open(&images, Registries::default(), Limits::default(), UnpackLimits::default()).unwrap();
    let source = Source::parse(&format!("oci-layout:{}", layout.display())).unwrap();
    let ready = within(store.ensure(&source, pinned)).await.unwrap();
    node.rootfs = ready.rootfs;
    let image = ready.image.config.config().clone().unwrap();
    let spec = node.spec_of(&id(), &v1::Spec::default(), None, (&image, ready.user));
    node.containers.start(&id(), spec).await.unwrap();
    assert!(within(node.containers.wait(&id())).await.unwrap().success());
    assert_eq!(node.output(&id()), "hello from the image\n1234\n/tmp\n");
}
