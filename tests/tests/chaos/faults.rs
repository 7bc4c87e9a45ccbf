//! What goes wrong, drawn from a seed, and how it is undone.

use crate::clocked::{clock_of, clock_off, set_clock};
use crate::disks;
use crate::net::{CLIENTS, Net, VOTERS};
use crate::traced::Traced;
use crate::voters::Voters;
use crate::world::{eventually, within};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
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
    /// Its clock jumps by a minute while it runs, and back.
    Jumped,
    /// No room on its disk, and room again later; then a new process.
    Full,
    /// Whatever it writes takes its disk a long time.
    Slow,
    /// SIGKILL while it waits for its disk for the K-th time, and a new process.
    KilledWriting,
}
impl Kind {
    pub const ALL: [Self; 13] = [
        Self::Isolated,
        Self::Deaf,
        Self::Mute,
        Self::OneLink,
        Self::Flapping,
        Self::Killed,
        Self::AllKilled,
        Self::Stopped,
        Self::Misdated,
        Self::Jumped,
        Self::Full,
        Self::Slow,
        Self::KilledWriting,
    ];
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
    /// All of them in a drawn order.
    pub fn shuffled<T: Copy>(&mut self, all: &[T]) -> Vec<T> {
        let mut left = all.to_vec();
        (0..all.len()).map(|_| left.swap_remove(self.below(left.len()))).collect()
    }
}

/// How far a clock is off, in seconds; leases are judged with room for two such clocks.
pub const OFF: [&str; 2] = ["+2s", "-2s"];
pub const OFF_BY: Duration = Duration::from_secs(2);

/// How far a clock jumps under a running voter. Its time follows at half to double pace (docs/decisions/0011): as long as a
/// jump lasts, that is no further off than a clock that is off all the time.
const JUMPS: [&str; 2] = ["+60s", "-60s"];
const JUMP_LASTS: Duration = Duration::from_millis(1500);

/// A voter under clients waits for its disk this often, at most, until it is killed there, and within this time.
const WRITES: usize = 12;
const WRITES_WITHIN: Duration = Duration::from_secs(20);

/// That a clock that is set under a running process is another for it.
pub fn clocks_really_jump() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clock");
    set_clock(&file, "+0s");
    let script = "import sys, time\nfor line in sys.stdin: print(time.time() - time.monotonic(), flush=True)\n";
    let mut c = Command::new("python3");
    clock_of(&mut c, &file);
    let mut child = c.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut clock = |by: &str| -> f64 {
        set_clock(&file, by);
        ask.write_all(b"now\n").unwrap();
        answers.next().unwrap().unwrap().parse().unwrap()
    };
    let begun = clock("+0s");
    for (by, off) in [(JUMPS[0], 60.0), (JUMPS[1], -60.0), ("+0s", 0.0)] {
        let apart = clock(by) - begun;
        assert!((apart - off).abs() < 5.0, "{by}: the process's clock is {apart} s off");
    }
    drop(ask);
    child.wait().unwrap();
}

/// SIGKILL for a process that runs; then there is none of it.
fn kill(v: &mut Voters, n: usize) {
    let pid = v.all[n].pid();
    assert!(!v.all[n].ended(), "voter {} had ended by itself: {}", n + 1, v.all[n].log_text());
    v.all[n].kill();
    assert!(!Path::new("/proc").join(pid.to_string()).exists(), "voter {} outlived its kill", n + 1);
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

/// One fault of at most `longest` milliseconds; then every process is up and every network whole.
pub fn happen(v: &mut Voters, net: &Net, kind: Kind, draw: &mut Draw, longest: u64) {
    let n = draw.below(VOTERS);
    let place = n + 1;
    let lasts = draw.wait(300, longest);
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
        Kind::Killed | Kind::Misdated => kill(v, n),
        Kind::AllKilled => (0..VOTERS).for_each(|n| kill(v, n)),
        Kind::Stopped => {
            v.all[n].signal(Signal::STOP);
            let status = format!("/proc/{}/status", v.all[n].pid());
            eventually("the voter to be stopped", || {
                std::fs::read_to_string(&status).ok()?.contains("\nState:\tT").then_some(())
            });
        }
        Kind::Jumped => {
            let file = v.w.path(&format!("clock-{place}"));
            kill(v, n);
            set_clock(&file, "+0s");
            back(v, n, |c| clock_of(c, &file));
            pass(lasts);
            set_clock(&file, JUMPS[draw.below(JUMPS.len())]);
            pass(JUMP_LASTS.min(lasts));
            return set_clock(&file, "+0s");
        }
        Kind::Full => disks::fill(&v.all[n].state_dir()),
        Kind::Slow => {
            let traced = Traced::begin(v.all[n].pid(), &format!("delay_enter={}", draw.wait(20, 400).as_micros()));
            pass(lasts);
            return traced.end(|| v.all[n].ended());
        }
        Kind::KilledWriting => {
            let traced = Traced::begin(v.all[n].pid(), &format!("signal=SIGKILL:when={}", 1 + draw.below(WRITES)));
            let daemon = v.all[n].daemon.as_mut().unwrap();
            let end = within(WRITES_WITHIN, "the voter to be killed while it waits for its disk", || daemon.exited());
            assert_eq!(end, None, "voter {place} ended by itself: {}", v.all[n].log_text());
            traced.end(|| v.all[n].ended());
            v.all[n].kill();
            return back(v, n, |_| ());
        }
    }
    pass(lasts);
    match kind {
        Kind::Killed => back(v, n, |_| ()),
        Kind::Misdated => {
            let by = OFF[draw.below(OFF.len())];
            back(v, n, |c| clock_off(c, by));
        }
        Kind::AllKilled => (0..VOTERS).for_each(|n| back(v, n, |_| ())),
        Kind::Stopped => v.all[n].signal(Signal::CONT),
        Kind::Full => {
            disks::free(&v.all[n].state_dir());
            // Some of what it was to write may have failed: it has ended for that, or ends now. Its supervisor starts it.
            v.all[n].kill();
            back(v, n, |_| ());
        }
        Kind::Slow | Kind::KilledWriting | Kind::Jumped => {}
        Kind::Isolated | Kind::Deaf | Kind::Mute | Kind::OneLink | Kind::Flapping => net.heal(),
    }
}

/// A new process of the voter at `n`, unsealed as soon as it can be; whether it is ready already is another question.
fn back(v: &mut Voters, n: usize, prepare: impl FnOnce(&mut Command)) {
    let Voters { all, w, .. } = v;
    let voter = &mut all[n];
    let mut c = voter.command();
    prepare(&mut c);
    voter.spawn(c);
    voter.becomes("sealed");
    let (socket, key) = (voter.socket(), w.unlock_key.display().to_string());
    // The others may be away: then it is open and goes on by itself.
    drop(w.cli(&["unlock", "--vault-socket", &socket, "--key-file", &key, "--timeout", "3s"]));
    assert_ne!(voter.state(), "sealed", "voter {} was not opened", n + 1);
}
