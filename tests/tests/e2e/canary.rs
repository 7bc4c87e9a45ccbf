//! The canary rule: a planted secret is nowhere but in the container it was granted to.

use super::world::{World, eventually};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

const CANARY: &[u8] = b"canary-7f3a91c2e5d84b60-in-the-coal-mine";

fn contains(hay: &[u8]) -> bool {
    hay.windows(CANARY.len()).any(|w| w == CANARY)
}

fn files_with_canary(dir: &Path, found: &mut Vec<String>) {
    for e in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (e.path(), e.file_type().unwrap());
        if kind.is_dir() {
            files_with_canary(&path, found);
        } else if kind.is_file() && fs::read(&path).is_ok_and(|b| contains(&b)) {
            found.push(path.display().to_string());
        }
    }
}

/// Whether any readable page of a process holds the canary.
fn memory_has_canary(pid: u32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut mem = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().filter(|l| l.split(' ').nth(1).is_some_and(|p| p.starts_with('r'))).any(|l| {
        let (from, to) = l.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut buf = vec![0; usize::try_from(to - from).unwrap()];
        mem.seek(SeekFrom::Start(from)).is_ok() && mem.read_exact(&mut buf).is_ok() && contains(&buf)
    })
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
    eventually("packets in the capture", || pcap.metadata().is_ok_and(|m| m.len() > 10_000).then_some(()));
    dump.kill().unwrap();
    dump.wait().unwrap();
    let mut on_disk = Vec::new();
    files_with_canary(w.dir.path(), &mut on_disk);
    assert!(on_disk.is_empty(), "the secret is in {on_disk:?}");
}
