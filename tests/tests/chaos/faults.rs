//! What goes wrong, drawn from a seed, and how it is undone.

use crate::disks;
use crate::net::{CLIENTS, Net, VOTERS};
use crate::traced::Traced;
use crate::voters::Voters;
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One voter is cut off from everybody.
    Isolated,
    /// One voter hears nothing, and is heard.
    Deaf,
    /// One voter is not heard, and hears.
    Mute,
    /// Two voters do not hear each other; the third hears both.
    OneLink,
    /// One voter is cut off and back, again and again.
    Flapping,
    /// SIGKILL, and a new process.
    Killed,
    /// SIGKILL for all at once.
    AllKilled,
    /// SIGSTOP, and SIGCONT later.
    Stopped,
    /// SIGKILL, and a new process whose clock is off.
    Misdated,
    /// No room on its disk, and room again later; then a new process.
    Full,
    /// Whatever it writes takes its disk a long time.
    Slow,
    /// SIGKILL while it waits for its disk for the K-th time, and a new process.
    KilledWriting,
}

/// Numbers drawn from a seed (SplitMix64).
pub struct Draw(pub u64);
impl Draw {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.number() % (n as u64)).unwrap()
    }
    /// Between the two, in milliseconds.
    pub fn wait(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.number() % (most - least))
    }
}

/// How far a clock is off, in seconds; leases are judged with room for two such clocks.
pub const OFF: [&str; 2] = ["+2s", "-2s"];
pub const OFF_BY: Duration = Duration::from_secs(2);

/// A voter under clients waits for its disk so often within this time.
const WRITES: Duration = Duration::from_secs(8);

fn pid(v: &Voters, n: usize) -> u32 {
    v.all[n].daemon.as_ref().expect("every voter is up before a fault").pid()
}

fn libfaketime() -> PathBuf {
    let dirs = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = dirs.map(|e| e.path().join("faketime/libfaketimeMT.so.1")).filter(|p| p.exists());
    found.next().expect("libfaketime is installed: make setup")
}

/// A pause that nothing ends early.
fn pass(time: Duration) {
    let until = std::time::Instant::now() + time;
    while let Some(left) = until.checked_duration_since(std::time::Instant::now()).filter(|l| !l.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn isolate(net: &Net, place: usize, hears: bool, is_heard: bool) {
    for other in (1..=VOTERS).chain([CLIENTS]).filter(|o| *o != place) {
        if !hears {
            net.cut(other, place);
        }
        if !is_heard {
            net.cut(place, other);
        }
    }
}

/// One fault, from its beginning to its end; then every process is up and every network whole.
pub fn happen(v: &mut Voters, net: &Net, kind: Kind, draw: &mut Draw) {
    let n = draw.below(VOTERS);
    let place = n + 1;
    let lasts = draw.wait(300, 2500);
    eprintln!("{kind:?}: voter {place}, {lasts:?}");
    match kind {
        Kind::Isolated => isolate(net, place, false, false),
        Kind::Deaf => isolate(net, place, false, true),
        Kind::Mute => isolate(net, place, true, false),
        Kind::OneLink => {
            let other = (n + 1) % VOTERS + 1;
            net.cut(place, other);
            net.cut(other, place);
        }
        Kind::Flapping => {
            for _ in 0..4 {
                isolate(net, place, false, false);
                pass(draw.wait(50, 600));
                net.heal();
                pass(draw.wait(50, 600));
            }
            return;
        }
        Kind::Killed | Kind::Misdated => v.all[n].kill(),
        Kind::AllKilled => v.all.iter_mut().for_each(crate::voters::Voter::kill),
        Kind::Stopped => v.all[n].signal(Signal::STOP),
        Kind::Full => disks::fill(&v.all[n].state_dir()),
        Kind::Slow => {
            let traced = Traced::begin(pid(v, n), &format!("delay_enter={}", draw.wait(20, 400).as_micros()));
            pass(lasts);
            return traced.end(|| disks::ended(&mut v.all[n]));
        }
        Kind::KilledWriting => {
            let traced = Traced::begin(pid(v, n), &format!("signal=SIGKILL:when={}", 1 + draw.below(30)));
            let until = std::time::Instant::now() + WRITES;
            while !disks::ended(&mut v.all[n]) && std::time::Instant::now() < until {
                pass(Duration::from_millis(20));
            }
            eprintln!("killed in a write: {}", disks::ended(&mut v.all[n]));
            traced.end(|| disks::ended(&mut v.all[n]));
            v.all[n].kill();
            return back(v, n, None);
        }
    }
    pass(lasts);
    match kind {
        Kind::Killed => back(v, n, None),
        Kind::Misdated => back(v, n, Some(OFF[draw.below(OFF.len())])),
        Kind::AllKilled => (0..VOTERS).for_each(|n| back(v, n, None)),
        Kind::Stopped => v.all[n].signal(Signal::CONT),
        Kind::Full => {
            disks::free(&v.all[n].state_dir());
            // Some of what it was to write may have failed: it has ended for that, or ends now. Its supervisor starts it.
            v.all[n].kill();
            back(v, n, None);
        }
        Kind::Slow | Kind::KilledWriting => {}
        Kind::Isolated | Kind::Deaf | Kind::Mute | Kind::OneLink | Kind::Flapping => net.heal(),
    }
}

/// A new process of the voter at `n`, unsealed as soon as it can be; whether it is ready already is another question.
fn back(v: &mut Voters, n: usize, clock: Option<&str>) {
    let Voters { all, w, .. } = v;
    let voter = &mut all[n];
    let mut c = voter.command();
    if let Some(by) = clock {
        c.env("LD_PRELOAD", libfaketime()).env("FAKETIME", by).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    voter.spawn(c);
    voter.becomes("sealed");
    let (socket, key) = (voter.socket(), w.unlock_key.display().to_string());
    // The others may be away: then it is open and goes on by itself.
    drop(w.cli(&["unlock", "--vault-socket", &socket, "--key-file", &key, "--timeout", "3s"]));
    assert_ne!(voter.state(), "sealed", "voter {} was not opened", n + 1);
}
