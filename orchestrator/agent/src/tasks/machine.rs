//! The life of one task as a machine: pure, one step an event, told the time.
//!
//! ```text
//! starting ─► running ─► (exited) ─► restarting ─► starting …
//!                 └─► stopping ─► stopped    └─► done    any ─► failed
//! ```
//! LAW: nothing is started after its lease is over; tested by `nothing_starts_after_the_lease_is_over`. What runs is
//! ended only by its own exit, an order, or (where its grant says so) the end of lease and grace.

use crate::runtime::{Exit, Restart, RestartPolicy};
use holdfast_types::Millis;
use holdfast_wire::tasks::DONE;
use std::time::Duration;

/// How long a task has to end by itself once its lease and grace are over.
const EXPIRY_GRACE: Duration = Duration::from_secs(10);

/// The time that a grant gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Until then it may be (re)started.
    pub until: Millis,
    /// For so long after that it may go on.
    pub grace: Duration,
    /// Whether it must end then, or may run on.
    pub stop_on_expiry: bool,
}
impl Lease {
    fn end(&self) -> Millis {
        self.until.plus(self.grace)
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The container's program runs.
    Started,
    /// It could not be started; `again`: another attempt may succeed.
    NotStarted {
        /// Why, for people.
        reason: String,
        /// Whether the restart policy is asked.
        again: bool,
    },
    /// The container has ended.
    Exited(Exit),
    /// Somebody who may wants it to end within `grace`.
    Stop {
        /// Time between asking and killing.
        grace: Duration,
        /// Who or why, for people.
        why: String,
    },
    /// The vault extended the lease.
    Extended(Millis),
    /// The time that [`Life::wake_at`] named has come.
    Woken,
}

/// What is to be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Wait for the next event.
    Idle,
    /// Start the container; answered by `Started` or `NotStarted`.
    Start,
    /// Ask the container to end, kill it after this time; answered by `Exited`. May come again with another time.
    Stop(Duration),
    /// The task is over: take its secrets away.
    Finish,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    Starting,
    Running { since: Millis },
    Restarting { at: Millis },
    Stopping { why: String },
    Over(End),
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// By itself, and its policy has it not started again.
    Done,
    /// By an order.
    Stopped,
    /// Otherwise: it could not be started, or not again.
    Failed,
}

/// A task's life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Life {
    phase: Phase,
    policy: RestartPolicy,
    lease: Lease,
    restarts: u32,
    last_wait: Duration,
    exit_code: i32,
    detail: String,
    overdue: bool,
}

impl Life {
    /// A task whose first container is about to be started.
    pub fn new(policy: RestartPolicy, lease: Lease) -> Self {
        Self {
            phase: Phase::Starting,
            policy,
            lease,
            restarts: 0,
            last_wait: Duration::ZERO,
            exit_code: 0,
            detail: String::new(),
            overdue: false,
        }
    }
    /// A task that an earlier agent started, whose container number `restarts` has run since `since`.
    pub fn adopted(policy: RestartPolicy, lease: Lease, restarts: u32, since: Millis) -> Self {
        Self { phase: Phase::Running { since }, restarts, ..Self::new(policy, lease) }
    }

    /// One step.
    pub fn step(&mut self, now: Millis, event: Event) -> Act {
        if let Event::Extended(until) = event {
            // An earlier end than the one held is an older extension that came late.
            self.lease.until = self.lease.until.max(until);
            self.overdue &= now > self.lease.end();
            return Act::Idle;
        }
        match self.phase.clone() {
            Phase::Starting => self.starting(now, event),
            Phase::Running { since } => self.running(now, since, event),
            Phase::Restarting { at } => self.restarting(now, at, event),
            Phase::Stopping { why } => self.stopping(&why, event),
            Phase::Over(_) => Act::Idle,
        }
    }

    /// When to step with [`Event::Woken`], unless something else comes first.
    pub fn wake_at(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Running { .. } if !self.overdue => Some(self.lease.end().plus(Duration::from_millis(1))),
            Phase::Restarting { at } => Some(*at),
            Phase::Starting | Phase::Running { .. } | Phase::Stopping { .. } | Phase::Over(_) => None,
        }
    }

    fn starting(&mut self, now: Millis, event: Event) -> Act {
        match event {
            Event::Started => {
                self.phase = Phase::Running { since: now };
                self.detail.clear();
                Act::Idle
            }
            Event::NotStarted { reason, again: true } => {
                self.detail = reason;
                let never_ran = Exit { code: None, signal: None, oom_killed: false, at_ms: now.0 };
                self.again(now, &never_ran, Duration::ZERO)
            }
            Event::NotStarted { reason, again: false } => {
                self.detail = reason;
                self.over(End::Failed)
            }
            Event::Stop { why, .. } => self.stopped(why),
            Event::Exited(_) | Event::Extended(_) | Event::Woken => Act::Idle,
        }
    }

    fn running(&mut self, now: Millis, since: Millis, event: Event) -> Act {
        match event {
            Event::Exited(exit) => {
                self.exit_code = code(&exit);
                self.detail = words(&exit);
                self.again(now, &exit, now.since(since))
            }
            Event::Stop { grace, why } => {
                self.phase = Phase::Stopping { why };
                Act::Stop(grace)
            }
            Event::Woken if now > self.lease.end() && self.lease.stop_on_expiry => {
                self.phase = Phase::Stopping { why: "its lease is over".into() };
                Act::Stop(EXPIRY_GRACE)
            }
            Event::Woken if now > self.lease.end() => {
                self.overdue = true;
                self.detail = "its lease and grace are over: it runs on, as its grant says".into();
                Act::Idle
            }
            Event::Woken | Event::Started | Event::NotStarted { .. } | Event::Extended(_) => Act::Idle,
        }
    }

    fn restarting(&mut self, now: Millis, at: Millis, event: Event) -> Act {
        match event {
            Event::Woken if now < at => Act::Idle,
            Event::Woken if now > self.lease.until => self.lapsed(),
            Event::Woken => {
                self.restarts = self.restarts.saturating_add(1);
                self.phase = Phase::Starting;
                Act::Start
            }
            Event::Stop { why, .. } => self.stopped(why),
            Event::Started | Event::NotStarted { .. } | Event::Exited(_) | Event::Extended(_) => Act::Idle,
        }
    }

    fn stopping(&mut self, why: &str, event: Event) -> Act {
        match event {
            Event::Exited(exit) => {
                self.exit_code = code(&exit);
                self.stopped(why.to_owned())
            }
            Event::Stop { grace, .. } => Act::Stop(grace),
            Event::Started | Event::NotStarted { .. } | Event::Extended(_) | Event::Woken => Act::Idle,
        }
    }

    /// After an end that nobody ordered: again, or over.
    fn again(&mut self, now: Millis, exit: &Exit, ran: Duration) -> Act {
        match self.policy.after(exit, ran, self.last_wait) {
            Restart::No if matches!(self.phase, Phase::Running { .. }) => self.over(End::Done),
            Restart::No => self.over(End::Failed),
            Restart::After(_) if now > self.lease.until => self.lapsed(),
            Restart::After(wait) => {
                self.last_wait = wait;
                self.phase = Phase::Restarting { at: now.plus(wait) };
                Act::Idle
            }
        }
    }
    fn lapsed(&mut self) -> Act {
        self.detail = format!("{}; not started again, for its lease is over", self.detail);
        self.over(End::Failed)
    }
    fn stopped(&mut self, why: String) -> Act {
        self.detail = why;
        self.over(End::Stopped)
    }
    fn over(&mut self, end: End) -> Act {
        self.phase = Phase::Over(end);
        Act::Finish
    }

    /// The state's name in reports.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Starting if self.restarts == 0 => "started",
            Phase::Starting | Phase::Restarting { .. } => "restarting",
            Phase::Running { .. } | Phase::Stopping { .. } => "running",
            Phase::Over(End::Done) => DONE,
            Phase::Over(End::Stopped) => "stopped",
            Phase::Over(End::Failed) => "failed",
        }
    }
    /// True once nothing more happens.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }
    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }
    /// The last exit code; 128 and the signal if a signal ended it; -1 if nobody saw.
    pub fn exit_code(&self) -> i32 {
        self.exit_code
    }
    /// A reason for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }
    /// The lease's end, as last extended.
    pub fn lease_until(&self) -> Millis {
        self.lease.until
    }
    /// True if it runs although lease and grace are over.
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }
}

fn code(exit: &Exit) -> i32 {
    exit.code.or(exit.signal.map(|s| s.saturating_add(128))).unwrap_or(-1)
}

fn words(exit: &Exit) -> String {
    match (exit.code, exit.signal) {
        _ if exit.oom_killed => "out of memory".to_owned(),
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended while nobody watched".to_owned(),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
