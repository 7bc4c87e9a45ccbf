//! Every rotation, cut short by a kill between two durable steps, twice in a row: the voter is opened with a key that its
//! operator was told to keep, and the rotation is brought to its end.
//!
//! One voter, which does every step itself. A run of all tests tries a few steps of each rotation; with
//! `HOLDFAST_SWEEP=every` (`make soak`) each step that there is.

use super::world::{Voter, Voters, local};
use crate::traced::Counted;
use crate::world::{World, eventually, within};
use holdfast_wire::v1;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The steps at which it is killed unless every one is tried: within the rotation, and within what comes after the first kill.
const FEW: [(usize, usize); 2] = [(2, 1), (4, 3)];
const ONE: [(usize, usize); 1] = [(3, 2)];
/// No rotation of one small voter has more.
const MOST: usize = 60;
/// For so long what a command began goes on once the command is back.
const GOES_ON: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    UnlockKey,
    Compromised,
    RecoveryKey,
    Keyring,
    DiskKey,
    Autolock,
}

/// How far the cluster is with its keys.
#[derive(Debug)]
struct Standing {
    autolock: bool,
    epoch: u64,
    pending: u64,
    charter: u64,
    term: u64,
    /// Nothing is under an older term, and there is none any more.
    is_alone: bool,
    /// Orders to replace the disk key: given, and done.
    ordered: u64,
    done: u64,
    /// What the voter says that its slots are sealed to: an epoch of the unlock key, a version of the charter.
    slots: (u64, u64),
    /// The term for which it has its key.
    kem: u64,
}

struct Sweep {
    v: Voters,
    rotation: Rotation,
    times: usize,
    /// The keys that the operator was told to keep, the newest last.
    unlock: Vec<PathBuf>,
    recovery: Vec<PathBuf>,
}

fn words(args: &[&str]) -> Vec<String> {
    [args, &["--timeout", "60s"]].concat().into_iter().map(str::to_owned).collect()
}

fn run(w: &World, args: &[String]) -> String {
    w.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

impl Sweep {
    fn of(rotation: Rotation) -> Self {
        Self::at(rotation, Voter::place)
    }
    fn at(rotation: Rotation, place: fn(&World, &str) -> Voter) -> Self {
        let v = Voters::founded_at(1, place);
        v.put("shop/a", b"value");
        let (unlock, recovery) = (vec![v.w.unlock_key.clone()], vec![v.recovery_key.clone()]);
        Self { v, rotation, times: 0, unlock, recovery }
    }

    fn standing(&self) -> Standing {
        let shown = self.v.w.json(&["status"]);
        let (unlock, voter) = (&shown["unlock"], &shown["voters"][0]);
        let number = |n: &Value| n.as_u64().unwrap();
        Standing {
            autolock: unlock["autolock"] == true,
            epoch: number(&unlock["epoch"]),
            pending: number(&unlock["pending"]),
            charter: number(&self.v.w.json(&["recovery-key", "status"])["charter_version"]),
            term: number(&shown["keyring"]["term"]),
            is_alone: shown["keyring"]["left"] == 0 && shown["keyring"]["older"].as_array().is_some_and(Vec::is_empty),
            ordered: number(&unlock["disk_key_order"]),
            done: number(&voter["disk_key_order"]),
            slots: (number(&voter["unlock_epoch"]), number(&voter["recovery_version"])),
            kem: number(&voter["keyring_term"]),
        }
    }

    /// The command that begins the rotation. The file of a new key is among those to keep from now on, if it is written.
    fn begin(&mut self, autolock: bool) -> Vec<String> {
        self.times += 1;
        let file = self.v.w.path(&format!("{:?}-{}.key", self.rotation, self.times));
        let (out, old) = (file.display().to_string(), self.unlock[self.unlock.len() - 1].display().to_string());
        match self.rotation {
            Rotation::UnlockKey => {
                self.unlock.push(file);
                words(&["unlock-key", "rotate", "--key-file", &old, "--key-out", &out])
            }
            Rotation::Compromised => {
                self.unlock.push(file);
                words(&["unlock-key", "rotate", "--compromised", "--key-out", &out])
            }
            Rotation::Autolock if autolock => words(&["autolock", "off"]),
            Rotation::Autolock => {
                self.unlock.push(file);
                words(&["autolock", "on", "--key-out", &out])
            }
            Rotation::RecoveryKey => {
                self.recovery.push(file);
                words(&["recovery-key", "rotate", "--key-out", &out])
            }
            Rotation::Keyring => words(&["keyring", "rotate"]),
            Rotation::DiskKey => words(&["voter", "rotate-disk-keys"]),
        }
    }

    /// A new process, whatever has become of the one before.
    fn start(&mut self) {
        let voter = &mut self.v.all[0];
        voter.kill();
        voter.start(&[]);
        eventually("the voter to say what it is", || voter.ask());
    }

    /// Tries the keys that are to be kept, one after the other; the name of the one that opened it.
    fn open(&self) -> Option<&Path> {
        let voter = &self.v.all[0];
        // Whoever replaces the recovery key has that one at hand.
        let keys = [&self.unlock, &self.recovery];
        let [first, then] = if self.rotation == Rotation::RecoveryKey { [keys[1], keys[0]] } else { keys };
        let kept = first.iter().rev().chain(then.iter().rev());
        kept.map(PathBuf::as_path).filter(|key| key.exists()).find(|key| {
            let (socket, key) = (voter.socket(), key.display().to_string());
            drop(self.v.w.cli(&["unlock", "--vault-socket", &socket, "--key-file", &key, "--timeout", "20s"]));
            voter.ask().is_none_or(|told| told.state != "sealed")
        })
    }

    /// A new process that is open. Without autolock it opens itself.
    fn up(&mut self) {
        self.start();
        let state = eventually("the voter to be open, or sealed for good", || {
            let state = self.v.all[0].state();
            matches!(state.as_str(), "sealed" | "ready").then_some(state)
        });
        if state == "sealed" && self.open().is_none() {
            // One that opens itself says `sealed` for a moment.
            let told = self.v.all[0].ask();
            assert!(told.as_ref().is_some_and(|t| !t.autolock), "no key that was to be kept opens it: {told:?}");
        }
        self.v.all[0].becomes("ready");
    }

    /// One rotation: killed behind step `k`, then behind step `again` of what the next process does, and brought to its end.
    /// False if it has no step `k`.
    fn one(&mut self, k: usize, again: usize) -> bool {
        let before = self.standing();
        let begun = self.begin(before.autolock);
        let traced = Counted::begin(self.v.all[0].pid(), k);
        let mut tool = self.v.w.beside(&begun.iter().map(String::as_str).collect::<Vec<_>>(), "tool.log");
        let first = self.v.all[0].killed(GOES_ON, || tool.exited().is_some());
        drop(tool);
        eprintln!("{:?}: step {k} of {}: killed {first}", self.rotation, traced.end());
        if first {
            self.start();
            let traced = Counted::begin(self.v.all[0].pid(), again);
            let opened = self.open().map(Path::to_path_buf);
            let second = self.v.all[0].killed(GOES_ON, || true);
            eprintln!("opened with {opened:?}; then step {again} of {}: killed {second}", traced.end());
        }
        self.up();
        self.end(&before);
        first
    }

    /// Goes on with the rotation where it is, or begins it again if nobody heard of it; then it is over.
    fn end(&mut self, before: &Standing) {
        let now = self.standing();
        let unheard = match self.rotation {
            Rotation::UnlockKey | Rotation::Compromised => now.pending == 0 && now.epoch == before.epoch,
            Rotation::Autolock => now.pending == 0 && now.autolock == before.autolock,
            Rotation::RecoveryKey => now.charter == before.charter,
            Rotation::Keyring => now.term == before.term,
            Rotation::DiskKey => now.ordered == before.ordered,
        };
        if unheard {
            // The key of a rotation that nobody heard of opens nothing: it takes over from the one before.
            for keys in [&mut self.unlock, &mut self.recovery] {
                keys.truncate(1);
            }
            let args = self.begin(before.autolock);
            run(&self.v.w, &args);
        } else if now.pending > 0 {
            let new = self.unlock[self.unlock.len() - 1].display().to_string();
            run(&self.v.w, &words(&["unlock-key", "rotate", "--resume", "--key-file", &new]));
        }
        eventually(&format!("{:?} to be over", self.rotation), || self.is_over(before).then_some(()));
        // Only now is the old key called disposable.
        for keys in [&mut self.unlock, &mut self.recovery] {
            keys.drain(..keys.len() - 1);
        }
        self.v.put("shop/a", b"value");
    }

    fn is_over(&self, before: &Standing) -> bool {
        let now = self.standing();
        let (epoch, charter) = now.slots;
        match self.rotation {
            Rotation::UnlockKey => now.pending == 0 && now.epoch > before.epoch && epoch == now.epoch,
            Rotation::Compromised => {
                let replaced = now.ordered > before.ordered && now.done == now.ordered;
                replaced && now.pending == 0 && epoch == now.epoch
            }
            Rotation::Autolock if before.autolock => !now.autolock && epoch == 0,
            Rotation::Autolock => now.autolock && epoch == now.epoch && now.done == now.ordered,
            Rotation::RecoveryKey => now.charter > before.charter && charter == now.charter,
            Rotation::Keyring => now.is_alone && now.term > before.term && now.kem == now.term,
            Rotation::DiskKey => now.ordered > before.ordered && now.done == now.ordered,
        }
    }

    /// Whatever was done: all that was stored is there, and the one key of each kind that is left opens the voter.
    fn whole(&mut self) {
        for (keys, others) in [(self.unlock.clone(), Vec::new()), (Vec::new(), self.recovery.clone())] {
            let kept = (std::mem::replace(&mut self.unlock, keys), std::mem::replace(&mut self.recovery, others));
            self.up();
            (self.unlock, self.recovery) = kept;
        }
        assert!(self.v.version("shop/a") > 1);
        self.v.verifies();
    }
}

/// The rotation, cut short at these steps.
fn swept(rotation: Rotation) {
    let mut s = Sweep::of(rotation);
    if std::env::var("HOLDFAST_SWEEP").is_ok_and(|v| v == "every") {
        let steps = (1..=MOST).take_while(|k| s.one(*k, 1 + 2 * (k % 2))).count();
        assert!((1..MOST).contains(&steps), "{rotation:?}: killed behind {steps} steps");
    } else {
        // Off, and on again, are two.
        let few: &[(usize, usize)] = match rotation {
            Rotation::UnlockKey | Rotation::Autolock => &FEW,
            Rotation::Compromised | Rotation::RecoveryKey | Rotation::Keyring | Rotation::DiskKey => &ONE,
        };
        let killed = few.iter().filter(|(k, again)| s.one(*k, *again)).count();
        assert!(killed > 0, "{rotation:?}: nothing was killed");
    }
    s.whole();
}

#[test]
fn a_rotation_of_the_unlock_key_is_killed_twice_in_a_row_and_a_key_that_was_kept_opens_and_ends_it() {
    swept(Rotation::UnlockKey);
}

#[test]
fn a_rotation_after_a_theft_is_killed_twice_in_a_row_and_a_key_that_was_kept_opens_and_ends_it() {
    swept(Rotation::Compromised);
}

#[test]
fn a_rotation_of_the_recovery_key_is_killed_twice_in_a_row_and_a_key_that_was_kept_opens_and_ends_it() {
    swept(Rotation::RecoveryKey);
}

#[test]
fn a_rotation_of_the_keyring_is_killed_twice_in_a_row_and_a_key_that_was_kept_opens_and_ends_it() {
    swept(Rotation::Keyring);
}

#[test]
fn a_rotation_of_the_disk_key_is_killed_twice_in_a_row_and_a_key_that_was_kept_opens_and_ends_it() {
    swept(Rotation::DiskKey);
}

#[test]
fn autolock_off_and_on_is_killed_twice_in_a_row_and_a_key_that_was_kept_opens_and_ends_it() {
    swept(Rotation::Autolock);
}

#[test]
fn a_vault_that_is_killed_while_it_renews_its_issuer_and_statement_key_renews_them_at_its_next_start() {
    fn short(w: &World, name: &str) -> Voter {
        let mut voter = Voter::place(w, name);
        voter.lives = "issuer = \"8s\"\noperator = \"6s\"\nvoter = \"6s\"";
        voter
    }
    let mut s = Sweep::at(Rotation::Keyring, short);
    let renewed = |s: &Sweep| {
        let log = s.v.w.ok(&["log", "tail", "-n", "1000"]);
        (log.matches("stk.rotate").count(), log.matches("issuer.create").count())
    };
    for (k, again) in ONE {
        let before = renewed(&s);
        // It renews them all the time, and does nothing else: each of its writes is of one of them, or of what it says then.
        for k in [k, again] {
            let traced = Counted::begin(s.v.all[0].pid(), k);
            assert!(s.v.all[0].killed(GOES_ON, || false));
            traced.end();
            s.up();
        }
        within(Duration::from_secs(30), "both to be renewed", || {
            let now = renewed(&s);
            (now.0 > before.0 && now.1 > before.1).then_some(())
        });
        s.v.put("shop/a", b"value");
    }
    s.v.verifies();
}

#[test]
fn a_voter_that_is_killed_at_any_write_while_it_is_taken_in_twice_in_a_row_is_taken_in() {
    let every = std::env::var("HOLDFAST_SWEEP").is_ok_and(|v| v == "every");
    let steps: Vec<(usize, usize)> =
        if every { (1..=12).map(|k| (k, 1 + 2 * (k % 2))).collect() } else { ONE.to_vec() };
    for (k, again) in steps {
        let mut v = Voters::founded(1);
        v.put("shop/a", b"value");
        let (mut voter, id, key) = v.apply();
        let traced = Counted::begin(voter.pid(), k);
        v.w.ok(&["voter", "admit", &id, "--key", &key]);
        let socket = voter.socket();
        let is_taken_in = || {
            let told = local(&socket, async |mut c| c.seal_status(v1::Ack {}).await);
            told.is_ok_and(|s| s.state == "ready")
        };
        let first = voter.killed(GOES_ON, is_taken_in);
        eprintln!("admission: step {k} of {}: killed {first}", traced.end());
        voter.kill();
        voter.start(&[]);
        let traced = Counted::begin(voter.pid(), again);
        let open = |voter: &Voter| {
            if voter.state() == "sealed" {
                let key = v.w.unlock_key.display().to_string();
                drop(v.w.cli(&["unlock", "--vault-socket", &socket, "--key-file", &key, "--timeout", "20s"]));
            }
        };
        open(&voter);
        let second = voter.killed(GOES_ON, is_taken_in);
        eprintln!("then step {again} of {}: killed {second}", traced.end());
        assert!(first || second || every, "nothing was killed");
        voter.kill();
        voter.start(&[]);
        eventually("the voter to be open", || {
            open(&voter);
            (voter.state() == "ready").then_some(())
        });
        assert_eq!(voter.ask().unwrap().voter_id, 2);
        v.all.push(voter);
        v.settle();
        assert_eq!(v.rows().len(), 2, "no second number was given");
        v.verifies();
    }
}
