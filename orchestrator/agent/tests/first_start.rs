//! The program's first start, as a script sees it: exit status, words, and what goes over the wire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use holdfast_types::{Digest, Secret, TokenId};
use holdfast_wire::token::{JoinToken, TokenRole};
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A configured agent that has not joined; everything on a tmpfs, as keys must be.
struct Agent {
    dir: TempDir,
}

impl Agent {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "state_dir = \"{}\"\nruntime_dir = \"{}\"\nhealth = \"127.0.0.1:0\"\n",
            path("state"),
            path("runtime")
        );
        fs::write(dir.path().join("agent.toml"), config).unwrap();
        Self { dir }
    }
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
    fn run(&self, args: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_holdfast-agent"));
        program.arg("--config").arg(self.dir.path().join("agent.toml")).args(args).output().unwrap()
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().filter(|l| l.contains(" ERROR ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_token_with_a_typing_error_exits_with_3_and_nothing_reaches_the_network() {
    let agent = Agent::new();
    let token = JoinToken {
        role: TokenRole::Node,
        id: TokenId([1; 8]),
        anchor: Digest([2; 32]),
        secret: Secret::take(&mut [3; 20]),
    };
    let good = token.print();
    let (head, tail) = good.split_at(40);
    let text = match tail.strip_prefix('0') {
        Some(rest) => format!("{head}1{rest}"),
        None => format!("{head}0{}", &tail[1..]),
    };
    let file = agent.file("token", &text);
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let vault = TcpListener::bind("127.0.0.1:0").unwrap();
    vault.set_nonblocking(true).unwrap();
    let addr = vault.local_addr().unwrap().to_string();
    let output = agent.run(&["--join-token-file", file.to_str().unwrap(), "--vault", &addr]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = errors(&output);
    assert!(said.contains("checksum") && said.lines().count() == 1 && !said.contains(&text), "{said}");
    assert_eq!(vault.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_first_start_without_a_token_says_what_to_give() {
    let output = Agent::new().run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("give --join-token-file"), "{output:?}");
}

#[test]
fn check_config_tells_all_faults_and_starts_nothing() {
    let agent = Agent::new();
    let good = agent.run(&["--check-config"]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(!agent.dir.path().join("state").exists());
    agent.file("agent.toml", "state_dir = \"here\"\nhealth = \"0.0.0.0:1\"\n");
    let bad = agent.run(&["--check-config"]);
    assert_eq!(bad.status.code(), Some(2));
    let said = errors(&bad);
    assert!(said.contains("state_dir") && said.contains("health"), "{said}");
}

#[test]
fn keys_are_never_put_on_a_disk() {
    let agent = Agent::new();
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let state = agent.dir.path().join("state").display().to_string();
    let runtime = disk.path().display();
    agent.file(
        "agent.toml",
        &format!("state_dir = \"{state}\"\nruntime_dir = \"{runtime}\"\nhealth = \"127.0.0.1:0\"\n"),
    );
    let output = agent.run(&[]);
    // It has no token, so it ends; but first it has made its runtime folder a tmpfs of its own.
    let is_tmpfs = rustix::fs::statfs(disk.path()).unwrap().f_type == 0x0102_1994;
    rustix::mount::unmount(disk.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(is_tmpfs, "{output:?}");
}
