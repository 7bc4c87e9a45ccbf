//! The end of a term of the keyring: what was deleted is gone with it. Its key is nowhere, and opens nothing that is left.

use super::attempts::guess;
use super::memory::holds;
use super::voters::rotate::{boxes_of, open};
use super::voters::world::Voters;
use super::world::within;
use holdfast_types::{ClusterId, Secret};
use holdfast_vault_core::{Keyring, State};
use holdfast_wire::backup::{self, Content, MAGIC, Opener};
use holdfast_wire::v1::backup_part::Part;
use holdfast_wire::{boxes, record, token};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What the recovery key opens of a backup: the terms of the keyring, and all that the cluster remembers.
struct Opened {
    cluster: ClusterId,
    terms: Vec<(u32, Vec<u8>)>,
    state: Vec<u8>,
}

impl Opened {
    fn of(file: &Path, recovery: &Path) -> Self {
        let secret = token::parse_recovery(&fs::read_to_string(recovery).unwrap()).unwrap();
        let (sk, _) = boxes::derive_keypair(secret.expose());
        let bytes = fs::read(file).unwrap();
        let mut rest = bytes.strip_prefix(MAGIC.as_slice()).unwrap();
        let mut parts = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (part, behind) = after.split_at(backup::frame_length(*length).unwrap());
            parts.push(backup::part(part).unwrap().part.unwrap());
            rest = behind;
        }
        let Some(Part::Head(head)) = parts.first() else { panic!("a backup begins with its head") };
        let cluster = ClusterId::from_slice(&head.cluster_id).unwrap();
        let term =
            |t: &holdfast_wire::v1::TermBox| (t.term, backup::open_term(t, &cluster, &sk).unwrap().expose().to_vec());
        let terms = head.terms.iter().map(term).collect();
        let stream = backup::open_key(head, &cluster, &sk).unwrap();
        let (mut opener, mut content) = (Opener::new(&stream, head).unwrap(), Content::new(head));
        for part in &parts {
            if let Part::Chunk(chunk) = part {
                content.push(opener.open(chunk).unwrap().expose()).unwrap();
            }
        }
        let state = content.state().unwrap().to_vec();
        Self { cluster, terms, state }
    }

    /// The terms of all records that are in it, wherever they lie.
    fn sealed_under(&self) -> BTreeSet<u32> {
        let at = 0..self.state.len().saturating_sub(4);
        at.filter(|i| self.state[*i..].starts_with(b"HR\x01"))
            .filter_map(|i| record::term_of(&self.state[i..]).ok())
            .collect()
    }

    /// Whether these bytes, as the key of `term`, open the statement key that is in it.
    fn opens(&self, term: u32, key: &[u8]) -> bool {
        let state = State::decode(&self.state).unwrap();
        let hedge = Secret::take(&mut [7; 32]);
        let keyring = Keyring::new(self.cluster, term, Secret::from_slice(key).unwrap(), hedge);
        let newest = state.newest_stk().unwrap();
        keyring.open("stk", &newest.key.name, 1, &newest.key.record).is_ok()
    }
}

fn backup_of(v: &Voters, name: &str) -> Opened {
    let (file, socket) = (v.w.path(name), v.all[0].socket());
    v.w.ok(&["backup", "create", file.to_str().unwrap(), "--vault-socket", &socket]);
    Opened::of(&file, &v.recovery_key)
}

#[test]
fn a_destroyed_term_is_in_no_memory_and_its_bytes_open_nothing_that_is_left() {
    let mut v = Voters::founded(1);
    v.put("shop/kept", b"value");
    v.put("shop/gone", b"a value that is deleted");
    v.seal(0);
    let disk = open(&boxes_of(&v.all[0].socket()), &v.w.unlock_key).unwrap();
    v.all[0].unlock(&v.w);
    let before = backup_of(&v, "before.hfbackup");
    let [(1, term)] = &before.terms[..] else { panic!("a new cluster has one term") };
    // The controls: the key is found while it lives, in locked pages, and opens what is sealed under it.
    let pid = v.all[0].pid();
    assert!(holds(pid, term) && holds(pid, &disk), "the search finds no key that lives");
    assert_eq!(before.sealed_under(), BTreeSet::from([1]));
    assert!(before.opens(1, term));

    v.w.ok(&["secret", "rm", "shop/gone"]);
    v.w.ok(&["keyring", "rotate", "--timeout", "60s"]);
    within(Duration::from_secs(60), "the old term and the old disk key to end", || {
        let keyring = v.w.json(&["keyring", "status"]);
        let alone = keyring["term"] == 2 && keyring["older"].as_array().is_some_and(Vec::is_empty);
        let row = &v.rows()[0];
        (alone && row["keyring_term"] == 2 && row["disk_key_order"].as_u64() >= Some(1)).then_some(())
    });
    assert!(!holds(pid, term), "the destroyed term is in memory");
    assert!(!holds(pid, &disk), "the disk key under which its boxes lay is in memory");
    let after = backup_of(&v, "after.hfbackup");
    let [(2, next)] = &after.terms[..] else { panic!("the old term is still boxed to the recovery key") };
    assert_eq!(after.sealed_under(), BTreeSet::from([2]), "a record of the destroyed term is left");
    assert!(after.opens(2, next) && !after.opens(2, term) && !after.opens(1, term));
    let plain = |o: &Opened| o.state.windows(term.len()).any(|w| w == term.as_slice());
    assert!(!plain(&before) && !plain(&after));
    // What lies on the disk from before, in files that the system has not overwritten, has lost its key as well.
    v.seal(0);
    assert_eq!(guess(&v.all[0].socket(), &disk), "bad-key");
    let now = open(&boxes_of(&v.all[0].socket()), &v.w.unlock_key).unwrap();
    assert_ne!(now, disk);
    v.all[0].unlock(&v.w);
    assert_eq!(v.version("shop/kept"), 1);
    v.verifies();
}
