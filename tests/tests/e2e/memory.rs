//! What a vault's memory holds: every readable page of the process is searched for keys and values that it must have forgotten.
//!
//! Each search is shown to find what is there.

use super::voters::rotate::{boxes_of, open};
use super::voters::world::Voters;
use super::world::{eventually, within};
use holdfast_wire::token::parse_unlock;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

const PAGE: usize = 4096;
/// A value that is stored, and a name beside it that is no secret.
const VALUE: &[u8] = b"canary-41d08be7f2a96c35-under-two-terms-and-two-disks";
const NAME: &str = "mine-of-the-canary";

/// Whether `hay` contains `needle`.
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    let begins = |at: &usize| hay[*at] == needle[0];
    (0..hay.len()).filter(begins).any(|at| hay[at..].starts_with(needle))
}

/// Whether any readable page of a process holds `needle`. A page that cannot be read hides none of the others.
pub fn holds(pid: u32, needle: &[u8]) -> bool {
    found(pid, needle).is_some()
}

/// Where: the line of the map, the offset in it, and what lies around.
fn found(pid: u32, needle: &[u8]) -> Option<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mem = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().filter(|l| l.split(' ').nth(1).is_some_and(|p| p.starts_with('r'))).find_map(|l| {
        let (from, to) = l.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        // The end of the page before goes with each page: what is looked for may lie across the two.
        let (mut seen, mut page) = (Vec::<u8>::new(), [0_u8; PAGE]);
        (from..to).step_by(PAGE).find_map(|at| {
            if mem.read_exact_at(&mut page, at).is_err() {
                seen.clear();
                return None;
            }
            seen.extend_from_slice(&page);
            let found = contains(&seen, needle).then(|| around(&seen, needle, l, at - from));
            seen.drain(..seen.len() - (needle.len() - 1));
            found
        })
    })
}

fn around(seen: &[u8], needle: &[u8], map: &str, offset: u64) -> String {
    let at = (0..seen.len()).find(|at| seen[*at..].starts_with(needle)).unwrap();
    let shown = &seen[at.saturating_sub(96)..(at + needle.len() + 64).min(seen.len())];
    format!("{map} + {offset:#x}: {}", shown.escape_ascii())
}

/// The secret half of a printed unlock key.
fn unlock_secret(key: &Path) -> Vec<u8> {
    parse_unlock(&fs::read_to_string(key).unwrap()).unwrap().expose().to_vec()
}

/// The voter holds none of these, and the search could have found them.
fn forgotten(v: &Voters, n: usize, keys: &[(&str, &[u8])]) {
    let pid = v.all[n].pid();
    for (name, key) in keys {
        let found = found(pid, key);
        assert!(found.is_none(), "voter {} holds {name}: {}", v.all[n].id, found.unwrap());
    }
}

#[test]
fn a_sealed_voter_holds_no_key_and_no_value_and_an_open_one_no_unlock_key() {
    let mut v = Voters::founded(1);
    v.w.put_secret(&format!("shop/{NAME}"), VALUE, &[]);
    let secret = unlock_secret(&v.w.unlock_key);
    let recovery = fs::read_to_string(&v.recovery_key).unwrap();
    let recovery = holdfast_wire::token::parse_recovery(&recovery).unwrap().expose().to_vec();
    let pid = v.all[0].pid();
    // The search finds what an open voter has every right to hold.
    assert!(holds(pid, NAME.as_bytes()), "the search of memory finds nothing at all");
    forgotten(&v, 0, &[("the unlock key", &secret), ("the recovery key", &recovery), ("the value", VALUE)]);
    v.seal(0);
    let disk = open(&boxes_of(&v.all[0].socket()), &v.w.unlock_key).unwrap();
    let all: [(&str, &[u8]); 5] = [
        ("the unlock key", &secret),
        ("the recovery key", &recovery),
        ("its disk key", &disk),
        ("the value", VALUE),
        ("a name", NAME.as_bytes()),
    ];
    forgotten(&v, 0, &all);
    v.all[0].unlock(&v.w);
    forgotten(&v, 0, &[("the unlock key", &secret), ("the value", VALUE)]);
    // A key that it works with is found where keys are: in locked pages that no dump holds.
    let pid = v.all[0].pid();
    assert!(holds(pid, &disk), "the search finds no key in locked pages");
}

#[test]
fn after_each_rotation_no_voter_holds_the_key_that_was_replaced() {
    let mut v = Voters::founded(3);
    v.w.put_secret(&format!("shop/{NAME}"), VALUE, &[]);
    let old = unlock_secret(&v.w.unlock_key);
    let mut disks = Vec::new();
    for n in 0..3 {
        v.seal(n);
        disks.push(open(&boxes_of(&v.all[n].socket()), &v.w.unlock_key).unwrap());
        v.all[n].unlock(&v.w);
        v.settle();
    }
    let path = v.w.path("new.key");
    let out = path.to_str().unwrap();
    v.w.ok(&["unlock-key", "rotate", "--compromised", "--key-out", out, "--timeout", "60s"]);
    eventually("every voter to have replaced its disk key", || {
        v.rows().iter().all(|r| r["disk_key_order"].as_u64() >= Some(1) && r["unlock_epoch"] == 2).then_some(())
    });
    let new = unlock_secret(&path);
    let check = |v: &Voters, disks: &[Vec<u8>], when: &str| {
        for (n, disk) in disks.iter().enumerate() {
            let pid = v.all[n].pid();
            assert!(holds(pid, NAME.as_bytes()), "{when}: the search of memory finds nothing at all");
            let keys: [(&str, &[u8]); 4] = [
                ("the unlock key from before", &old),
                ("the unlock key of now", &new),
                ("its disk key from before", disk),
                ("the value", VALUE),
            ];
            forgotten(v, n, &keys);
        }
    };
    check(&v, &disks, "after the rotation of the unlock key");
    v.w.ok(&["keyring", "rotate", "--timeout", "60s"]);
    within(Duration::from_secs(60), "the old term to end", || {
        let status = v.w.json(&["keyring", "status"]);
        (status["term"] == 2 && status["older"].as_array().is_some_and(Vec::is_empty)).then_some(())
    });
    v.settle();
    check(&v, &disks, "after the rotation of the keyring");

    let newer = v.w.text("newer-recovery.key");
    v.w.ok(&["recovery-key", "rotate", "--key-out", &newer, "--timeout", "60s"]);
    eventually("every voter to have a slot for it", || {
        v.rows().iter().all(|r| r["recovery_version"] == 2).then_some(())
    });
    let recovery = [v.recovery_key.clone(), newer.into()].map(|path| {
        let text = fs::read_to_string(path).unwrap();
        holdfast_wire::token::parse_recovery(&text).unwrap().expose().to_vec()
    });
    for n in 0..3 {
        forgotten(&v, n, &[("the recovery key from before", &recovery[0]), ("that of now", &recovery[1])]);
    }
    check(&v, &disks, "after the rotation of the recovery key");

    // The end of a term ordered new disk keys as well.
    eventually("every voter to have the disk key that was ordered last", || {
        let ordered = &v.w.json(&["unlock-key", "status"])["disk_key_order"];
        v.rows().iter().all(|r| r["disk_key_order"] == *ordered).then_some(())
    });
    // Without autolock the disk key lies on the disk; with it again, that one is no key of anything.
    for (n, disk) in disks.iter_mut().enumerate() {
        v.seal(n);
        *disk = open(&boxes_of(&v.all[n].socket()), &path).unwrap();
        v.all[n].unlock_with(&v.w, &path);
        v.all[n].becomes("ready");
        v.settle();
        assert!(holds(v.all[n].pid(), disk), "the search finds no key in locked pages");
    }
    v.w.ok(&["autolock", "off"]);
    eventually("every voter to lay its key down", || v.rows().iter().all(|r| r["unlock_epoch"] == 0).then_some(()));
    let orders = |v: &Voters| v.rows().iter().map(|r| r["disk_key_order"].as_u64().unwrap()).collect::<Vec<_>>();
    let before = orders(&v);
    let third = v.w.path("third.key");
    v.w.ok(&["autolock", "on", "--key-out", third.to_str().unwrap(), "--timeout", "60s"]);
    eventually("every voter to have replaced its disk key once more", || {
        let sealed = v.rows().iter().all(|r| r["unlock_epoch"].as_u64() > Some(0));
        (sealed && orders(&v).iter().zip(&before).all(|(now, before)| now > before)).then_some(())
    });
    let third = unlock_secret(&third);
    for (n, disk) in disks.iter().enumerate() {
        let keys: [(&str, &[u8]); 3] = [
            ("the disk key that lay on its disk", disk),
            ("the unlock key from before", &new),
            ("that of now", &third),
        ];
        forgotten(&v, n, &keys);
    }
}
