//! The line of a measurement: `value= unit= beside= ratio= goal= ok|short`.

use std::fmt;

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
    /// At least this share of what stands beside.
    OfBeside(f64),
    /// At most so many times what stands beside.
    TimesBeside(f64),
    /// At most this much more than what stands beside.
    AboveBeside(f64),
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// What was measured.
    pub value: f64,
    /// In which unit.
    pub unit: &'static str,
    /// What it stands beside, in the same unit: a peer, or what cannot be gone below.
    pub beside: f64,
    /// What is to be reached.
    pub goal: Goal,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, unit, beside, goal } = *self;
        let ratio = value / beside;
        let (goal, reached) = match goal {
            Goal::AtLeast(goal) => (format!(">={goal}"), value >= goal),
            Goal::AtMost(goal) => (format!("<={goal}"), value <= goal),
            Goal::OfBeside(share) => (format!("ratio>={share}"), ratio >= share),
            Goal::TimesBeside(times) => (format!("ratio<={times}"), ratio <= times),
            Goal::AboveBeside(more) => (format!("<=beside+{more}"), value <= beside + more),
        };
        let verdict = if reached { "ok" } else { "short" };
        write!(f, "value={value:.1} unit={unit} beside={beside:.1} ratio={ratio:.2} goal={goal} {verdict}")
    }
}

/// The processor and how busy the machine was: without them no figure means anything.
pub fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("machine {} x {count}, load {load}", model.trim_start_matches(['\t', ' ', ':']))
}

/// Prints a line of the result.
#[expect(clippy::print_stdout, reason = "its output is the measurement")]
pub fn say(line: &str) {
    println!("{line}");
}
