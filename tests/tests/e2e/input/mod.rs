//! Bad input: every program and verb against every fault. One clear line that says what is wrong and what to do, the
//! promised exit status, no panic, nothing half done.
//!
//! Rows and columns are told in `docs/reference/errors.md`; the verbs' rows are in `verbs` and `dev`, the
//! daemons' in `daemons` and, once they have joined, in `joined`.

mod clock;
mod daemons;
mod dev;
mod disk;
mod founding;
mod joined;
mod verbs;

use super::clocked::clock_off;
use super::world::{PATIENCE, World, free_port};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use suite::programs::program;

/// How a program ended, and what it said.
pub struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `c` to its end, in at most [`PATIENCE`].
pub fn run(c: &mut Command) -> Said {
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    c.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = c.spawn().unwrap_or_else(|e| panic!("{c:?}: {e}"));
    let until = Instant::now() + 2 * PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= until {
            child.kill().unwrap();
            panic!("{c:?} does not end; it said: {}", text(&mut err));
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    };
    Said { code: status.code(), out: text(&mut out), err: text(&mut err) }
}

fn text(f: &mut File) -> String {
    use std::io::{Read as _, Seek as _};
    f.rewind().unwrap();
    let mut bytes = Vec::new();
    f.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

impl Said {
    /// The operator's tool failed as promised: one line `error:`, one line `help:` after it, `code`, and all of `words`
    /// in the two.
    pub fn tool_fails(&self, what: &str, code: i32, words: &[&str]) -> &Self {
        let errors: Vec<_> = self.err.lines().filter(|l| l.starts_with("error: ")).collect();
        let lines: Vec<_> = self.err.lines().collect();
        assert_eq!((self.code, errors.len()), (Some(code), 1), "{what}: {} {}", self.err, self.out);
        let [.., error, help] = lines[..] else { panic!("{what}: not two lines: {}", self.err) };
        assert!(error.starts_with("error: ") && help.starts_with("help: "), "{what}: {}", self.err);
        self.says(what, words)
    }
    /// A daemon failed as promised: one line of the level ERROR, the last one, `code`, and all of `words` in it.
    pub fn daemon_fails(&self, what: &str, code: i32, words: &[&str]) -> &Self {
        let errors = self.err.lines().filter(|l| l.contains(" ERROR ")).count();
        assert_eq!((self.code, errors), (Some(code), 1), "{what}: {}", self.err);
        assert!(self.err.lines().last().unwrap().contains(" ERROR "), "{what}: {}", self.err);
        self.says(what, words)
    }
    fn says(&self, what: &str, words: &[&str]) -> &Self {
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{what}: {}", self.err);
        for word in words {
            assert!(self.err.contains(word), "{what}: {word:?} is not in: {}", self.err);
        }
        self
    }
}

/// `program`, bound by the permissions of files although it is root: without the capabilities that override them.
pub fn without_override(name: &str) -> Command {
    let mut c = Command::new("setpriv");
    c.arg("--bounding-set=-dac_override,-dac_read_search").arg("--").arg(program(name).unwrap());
    c
}

/// `program` with a clock that is off by `by`, such as `-5h`.
pub fn with_clock(name: &str, by: &str) -> Command {
    let mut c = Command::new(program(name).unwrap());
    clock_off(&mut c, by);
    c
}

/// A small disk of its own at `at`, gone when this is dropped.
pub struct SmallDisk {
    at: PathBuf,
}
impl SmallDisk {
    pub fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status().unwrap();
        assert!(mounted.success());
        Self { at: at.to_owned() }
    }
    /// Leaves no byte free, until [`SmallDisk::make_room`].
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.at.join("ballast")).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while std::io::Write::write_all(&mut ballast, &vec![0; size]).is_ok() {}
        }
    }
    pub fn make_room(&self) {
        fs::remove_file(self.at.join("ballast")).unwrap();
    }
}
impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status());
    }
}

#[test]
fn an_occupied_port_is_named_and_the_vault_stays_sealed() {
    let w = World::founded();
    w.ok(&["seal", "--vault-socket", &w.socket()]);
    let mut w = w;
    let vault = w.vault.as_mut().unwrap();
    super::world::eventually("the sealed process to end", || vault.exited());
    let taken = TcpListener::bind(("127.0.0.1", w.service)).unwrap();
    w.start_vault();
    let key = w.unlock_key.to_str().unwrap().to_owned();
    let said = w.refused(&["unlock", "--vault-socket", &w.socket(), "--key-file", &key], 1);
    assert!(said.contains(&w.service.to_string()), "{said}");
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "sealed");
    drop(taken);
    w.unlock();
}

#[test]
fn an_init_that_cannot_open_its_ports_leaves_nothing_and_can_be_repeated() {
    let w = World::empty();
    let taken = TcpListener::bind(("127.0.0.1", w.service)).unwrap();
    let said = w.refused(&["init", "--vault-socket", &w.socket(), "--autolock"], 1);
    assert!(said.contains(&w.service.to_string()), "{said}");
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "uninitialized");
    assert!(!w.path("vault").join("voter").exists());
    drop(taken);
    w.found();
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn the_tool_uses_the_promised_exit_codes() {
    let w = World::founded();
    w.refused(&["no-such-verb"], 2);
    w.refused(&["service", "inspect", "shop/none"], 4);
    w.refused(&["secret", "rm", "shop/none"], 4);
    w.refused(&["node", "inspect", "node-none"], 4);
    let early = w.refused(&["secret", "put", "shop/x", "--attested-only"], 2);
    assert!(early.contains("is not available yet"), "{early}");
    assert!(w.json(&["token", "ls"])["tokens"].as_array().unwrap().is_empty());
    let big = vec![b'x'; (500 << 10) + 1];
    let o = w.cli_with(&["secret", "put", "shop/big"], &big);
    assert_eq!(o.status.code(), Some(2), "{}", String::from_utf8_lossy(&o.stderr));
    let spec = w.write_spec("bad", "name = \"web\"\nimage = \"oci-layout:/nowhere\"\nreplicsa = 3\n");
    let said = w.refused(&["service", "deploy", "-f", &spec], 2);
    assert!(said.contains("replicsa"), "{said}");
    let image = w.busybox();
    let text = format!("name = \"web\"\nnamespace = \"shop\"\nimage = {image:?}\nsensitive = true\n");
    let said = w.refused(&["service", "deploy", "-f", &w.write_spec("sensitive", &text)], 3);
    assert!(said.contains("signatures of 2 operators") && said.contains("--out FILE"), "{said}");
    assert!(!w.ok(&["log", "tail", "-n", "100"]).contains("image.vouch"), "something was signed");
    let unreachable = format!("/nonexistent-{}", free_port());
    w.refused(&["unlock", "--vault-socket", &unreachable, "--key-file", "/dev/null"], 5);
    let doc = w.cli(&["secret", "rm", "shop/none", "--json"]);
    let v: serde_json::Value = serde_json::from_slice(&doc.stdout).unwrap();
    assert_eq!(v["error"]["code"], "not-found");
}
