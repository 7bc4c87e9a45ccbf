//! A vault whose disk is full: nothing that was acknowledged is lost, nothing is left half done, and with room it goes on.

use super::{SmallDisk, run};
use crate::world::{World, eventually};
use std::process::Command;
use suite::programs::program;

/// A cluster whose vault keeps its state on a small disk and is not founded yet.
fn on_a_small_disk() -> (World, SmallDisk) {
    let mut w = World::empty();
    w.kill_vault();
    let disk = SmallDisk::mount(&w.path("vault"), "200m");
    w.start_vault();
    (w, disk)
}

#[test]
fn an_init_on_a_full_disk_leaves_nothing_and_succeeds_with_room() {
    let (w, disk) = on_a_small_disk();
    disk.fill();
    let init = || {
        let mut c = Command::new(program("holdfast").unwrap());
        c.args(["init", "--vault-socket", &w.socket(), "--autolock"]).env("HOLDFAST_HOME", w.path("home"));
        c
    };
    run(&mut init()).tool_fails("init", 1, &["No space left", "room"]);
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "uninitialized");
    assert!(!w.path("vault").join("voter").exists());
    disk.make_room();
    let said = run(&mut init());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
}

#[test]
fn a_vault_whose_disk_fills_up_says_so_keeps_what_it_acknowledged_and_goes_on_with_room() {
    let (mut w, disk) = on_a_small_disk();
    w.found();
    let mut acknowledged = Vec::new();
    let put = |w: &World, n: usize| {
        w.cli_with(&["secret", "put", &format!("shop/s{n}"), "--timeout", "5s"], &[b'x'; 100 << 10])
    };
    assert!(put(&w, 0).status.success());
    acknowledged.push(0);
    disk.fill();
    // What is preallocated may hold some more; then the voter stops rather than acknowledge what it cannot keep.
    let refusal = eventually("a write to be refused", || {
        let n = acknowledged.len();
        let o = put(&w, n);
        if o.status.success() {
            acknowledged.push(n);
            return None;
        }
        Some(o)
    });
    let text = String::from_utf8_lossy(&refusal.stderr).into_owned();
    assert_eq!(refusal.status.code(), Some(5), "{text}");
    assert!(text.contains("error: ") && !text.contains("panicked"), "{text}");
    let vault = w.vault.as_mut().unwrap();
    assert_eq!(eventually("the voter to end", || vault.exited()), Some(1));
    let log = vault.log_text();
    let last = log.lines().rfind(|l| l.contains(" ERROR ")).unwrap();
    assert!(last.contains("make room on the disk") && log.contains("No space left"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    disk.make_room();
    w.start_vault();
    w.unlock();
    let listed = w.ok(&["secret", "ls"]);
    for n in &acknowledged {
        assert!(listed.contains(&format!("shop/s{n} ")), "s{n} was acknowledged and is lost: {listed}");
    }
    assert!(w.ok(&["log", "verify"]).starts_with("ok "));
    let again = put(&w, 100);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
}
