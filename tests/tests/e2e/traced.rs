//! What `strace` does from outside to a process that waits for its disk: it lets it wait longer, or kills it right there.

use crate::world::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// `strace` over every thread of a process, for those calls by which it waits for its disk.
fn strace(pid: u32, inject: &str) -> Command {
    let mut c = Command::new("strace");
    c.args(["-f", "-qq", "-e", "trace=fsync,fdatasync"]);
    c.args(["-e", &format!("inject=fsync,fdatasync:{inject}"), "-p", &pid.to_string()]);
    c.stdin(Stdio::null()).stdout(Stdio::null());
    c
}

/// Ends it, if it has not ended; the process goes on untraced.
fn detach(mut strace: Child) {
    if strace.try_wait().unwrap().is_none() {
        kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
        strace.wait().unwrap();
    }
}

/// What is done to a process whenever it waits for its disk.
pub struct Traced(Child);
impl Traced {
    /// `inject`: as in strace(1). Of a thread's calls `when=K` counts its own.
    pub fn begin(pid: u32, inject: &str) -> Self {
        let mut c = strace(pid, inject);
        Self(c.args(["-o", "/dev/null"]).spawn().unwrap_or_else(|e| panic!("strace: {e}")))
    }
    /// Lets the process alone again. It was under it all the time, unless it has `ended`.
    pub fn end(mut self, ended: impl FnOnce() -> bool) {
        let left = self.0.try_wait().unwrap();
        assert!(left.is_none() || ended(), "strace ended before the voter: {left:?}");
        detach(self.0);
    }
    /// Until the process is over.
    pub fn wait(mut self) {
        self.0.wait().unwrap();
    }
}

/// A process that is killed as soon as it has waited for its disk so many times, whichever of its threads did: behind that
/// step, and before the next.
pub struct Counted {
    strace: Child,
    reader: JoinHandle<usize>,
}
impl Counted {
    /// Every thread is under it when this returns, unless the process is over.
    pub fn begin(pid: u32, killed_at: usize) -> Self {
        Self::when(pid, move |seen| seen == killed_at)
    }
    /// The same, killed behind the first step at which `dies` says so, told how many there were.
    pub fn when(pid: u32, mut dies: impl FnMut(usize) -> bool + Send + 'static) -> Self {
        // Whoever has waited stands still for a moment: the next step does not begin before the signal is there.
        let mut c = strace(pid, "delay_exit=20000");
        let mut strace = c.stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("strace: {e}"));
        let told = BufReader::new(strace.stderr.take().unwrap());
        let process = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            for line in told.lines().map_while(Result::ok) {
                if line.contains("sync") && line.contains("= 0") {
                    seen += 1;
                    if dies(seen) && kill_process(process, Signal::KILL).is_err() {
                        break;
                    }
                }
            }
            seen
        });
        eventually("every thread to be traced", || is_traced(pid).then_some(()));
        Self { strace, reader }
    }
    /// How often it has waited for its disk.
    pub fn end(self) -> usize {
        detach(self.strace);
        self.reader.join().unwrap()
    }
}

/// Whether each thread of a process is traced, or over.
pub fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        // One that has ended meanwhile needs no tracer.
        let Ok(text) = fs::read_to_string(task.path().join("status")) else { return true };
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        field("State:").starts_with(['Z', 'X']) || field("TracerPid:") != "0"
    })
}
