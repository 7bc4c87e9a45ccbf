//! The canary rule: a planted secret is nowhere but in the container it was granted to.
//!
//! Each search is shown to find what it looks for, where it is.

use super::memory::{contains, holds};
use super::world::{World, eventually};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const CANARY: &[u8] = b"canary-7f3a91c2e5d84b60-in-the-coal-mine";
/// Sent in clear: when it is in the capture, so is everything that was sent before it.
const MARK: &[u8] = b"sparrow-59d1e07c4b8a2f36-before-the-canary";

fn files_with_canary(dir: &Path, found: &mut Vec<String>) {
    for e in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (e.path(), e.file_type().unwrap());
        if kind.is_dir() {
            files_with_canary(&path, found);
        } else if kind.is_file() && fs::read(&path).is_ok_and(|b| contains(&b, CANARY)) {
            found.push(path.display().to_string());
        }
    }
}

/// Whether any readable page of a process holds the canary.
fn memory_has_canary(pid: u32) -> bool {
    holds(pid, CANARY)
}

/// Sends `text` in clear to a port that is captured.
fn send_in_clear(port: u16, text: &[u8]) {
    TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(text).unwrap();
}

/// A process of ours, gone when this is dropped.
struct Control(Child);
impl Drop for Control {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_secret_is_in_no_file_no_log_no_packet_and_no_orchestrator() {
    let w = World::everything();
    let pcap = w.path("loopback.pcap");
    let filter = format!("tcp port {} or tcp port {} or tcp port {}", w.join, w.service, w.session);
    let mut dump = Command::new("tcpdump")
        .args(["-i", "lo", "-U", "-s", "0", "-w", pcap.to_str().unwrap(), &filter])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("tcpdump is needed: apt-get install tcpdump");
    eventually("the capture to begin", || pcap.metadata().is_ok_and(|m| m.len() > 0).then_some(()));

    w.put_secret("shop/db-password", CANARY, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(2)]);
    let expected = holdfast_types::sha256(&[CANARY]).hex();
    eventually("the containers to have read it", || {
        w.ok(&["service", "logs", "shop/web"]).contains(&expected).then_some(())
    });

    // The search can find: where the secret has to be, it is.
    let mut in_memory = Vec::new();
    files_with_canary(&w.agent_run(0), &mut in_memory);
    assert_eq!(in_memory.len(), 2, "the tasks' own tmpfs hold it: {in_memory:?}");

    assert!(!memory_has_canary(w.orchestrator.as_ref().unwrap().pid()), "the orchestrator's memory holds the secret");
    let captured = |text: &[u8]| contains(&fs::read(&pcap).unwrap(), text);
    send_in_clear(w.join, MARK);
    eventually("all packets so far in the capture", || captured(MARK).then_some(()));
    assert!(pcap.metadata().unwrap().len() > 10_000, "the traffic was not captured");
    assert!(!captured(CANARY), "a packet holds the secret");
    send_in_clear(w.service, CANARY);
    eventually("the canary that was sent in clear", || captured(CANARY).then_some(()));
    dump.kill().unwrap();
    dump.wait().unwrap();
    fs::remove_file(&pcap).unwrap();
    let mut on_disk = Vec::new();
    files_with_canary(w.dir.path(), &mut on_disk);
    assert!(on_disk.is_empty(), "the secret is in {on_disk:?}");
}

#[test]
fn the_search_of_memory_finds_what_a_process_holds_also_beside_a_page_that_cannot_be_read() {
    let sleeping = |value: &[u8]| {
        let value = String::from_utf8(value.to_vec()).unwrap();
        Control(Command::new("sleep").arg("600").env("HELD", value).spawn().unwrap())
    };
    assert!(memory_has_canary(sleeping(CANARY).0.id()), "not found in an environment");
    assert!(!memory_has_canary(sleeping(&CANARY[1..]).0.id()), "found where it is not");

    // A mapping of three pages of a file that has one: the first holds the canary, the others cannot be read.
    let dir = tempfile::tempdir().unwrap();
    let program = "import mmap, os, sys, time\n\
                   f = open(sys.argv[1], 'w+b')\n\
                   f.truncate(3 * 4096)\n\
                   m = mmap.mmap(f.fileno(), 3 * 4096)\n\
                   os.readv(0, [memoryview(m)[4000:4000 + int(sys.argv[2])]])\n\
                   f.truncate(4096)\n\
                   print('held', flush=True)\n\
                   time.sleep(600)\n";
    let length = CANARY.len().to_string();
    let mut c = Command::new("python3");
    c.args(["-c", program]).arg(dir.path().join("held")).arg(length).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = Control(c.spawn().unwrap());
    holder.0.stdin.take().unwrap().write_all(CANARY).unwrap();
    let mut said = String::new();
    BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "held\n");
    assert!(memory_has_canary(holder.0.id()), "not found beside a page that cannot be read");
}
