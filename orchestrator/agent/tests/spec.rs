//! The runtime specification, byte for byte, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use holdfast_agent::host::Host;
use holdfast_agent::spec::{Facts, NOBODY, SpecError, build, user};
use holdfast_wire::v1;
use oci_spec::image::{Config, ConfigBuilder};
use std::path::Path;

fn host() -> Host {
    let cgroup_parent = "/holdfast".into();
    Host { cgroup_parent, swap_accounting: true, open_files_max: 20_000, core_max: u64::MAX }
}

fn facts<'a>(image: &'a Config, host: &'a Host) -> Facts<'a> {
    Facts {
        id: "shop.web.1",
        rootfs: Path::new("/var/lib/holdfast-agent/images/rootfs/00"),
        image,
        image_user: Some((1234, 0)),
        secrets: Some(Path::new("/run/holdfast-agent/node/secrets/shop.web.1")),
        env: &[],
        host,
    }
}

fn image() -> Config {
    let strings = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
    let config = ConfigBuilder::default().entrypoint(strings(&["/bin/server"])).cmd(strings(&["--port", "80"]));
    config.env(strings(&["PATH=/bin", "COLOUR=green"])).working_dir("/srv".to_owned()).build().unwrap()
}

#[test]
fn the_runtime_specification_keeps_its_hardened_form() {
    let (image, host) = (image(), host());
    let resources = Some(v1::Resources { cpu_milli: 250, memory_bytes: 128 << 20, pids: 64 });
    let env = vec![v1::EnvVar { name: "COLOUR".into(), value: "blue".into() }];
    let tmpfs = vec![v1::TmpfsMount { target: "/cache".into(), size_bytes: 1 << 20 }];
    let spec = v1::Spec { resources, env, tmpfs, ..Default::default() };
    let mut built = build(&spec, &facts(&image, &host)).unwrap();
    // The profile has a file and tests of its own, and depends on the architecture.
    assert!(built.linux_mut().as_mut().unwrap().seccomp().is_some());
    built.linux_mut().as_mut().unwrap().set_seccomp(None);
    let text = serde_json::to_string_pretty(&built).unwrap() + "\n";
    assert_eq!(text, include_str!("golden/spec.json"), "found:\n{text}");
}

#[test]
fn no_task_runs_as_root_whoever_asks() {
    let asks = |user: u32| v1::Spec { user, ..Default::default() };
    assert_eq!(user(&asks(0), None), (NOBODY, NOBODY));
    assert_eq!(user(&asks(0), Some((0, 0))), (NOBODY, NOBODY));
    assert_eq!(user(&asks(0), Some((7, 0))), (7, 7));
    assert_eq!(user(&asks(0), Some((7, 8))), (7, 8));
    assert_eq!(user(&asks(9), Some((7, 8))), (9, 9));
}

#[test]
fn what_would_soften_a_container_is_refused() {
    let (image, host) = (image(), host());
    let refused = |spec: v1::Spec| build(&spec, &facts(&image, &host)).unwrap_err();
    let relaxed = v1::Spec { isolation: "relaxed".into(), ..Default::default() };
    assert!(matches!(refused(relaxed), SpecError::Isolation(_)));
    for target in ["/", "relative", "/proc", "/sys/fs", "/dev/shm", "/run/secrets", "/a/../proc", "/run/secrets/x"] {
        let tmpfs = vec![v1::TmpfsMount { target: target.into(), size_bytes: 0 }];
        assert!(matches!(refused(v1::Spec { tmpfs, ..Default::default() }), SpecError::Path { .. }), "{target}");
    }
    for name in ["", "A=B", "A\0B"] {
        let env = vec![v1::EnvVar { name: name.into(), value: String::new() }];
        assert!(matches!(refused(v1::Spec { env, ..Default::default() }), SpecError::Env(_)), "{name:?}");
    }
    let empty = Config::default();
    assert!(matches!(build(&v1::Spec::default(), &facts(&empty, &host)), Err(SpecError::NoCommand)));
}
