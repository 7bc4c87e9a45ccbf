//! One task being carried: its machine ([`super::machine`]) driven by what happens on the ground and by orders.
//!
//! LAW: what the machine decided is on disk before it is done, and a task's secrets are gone before its end is told
//! (`the_secrets_of_a_task_are_gone_before_its_end_is_told`).

use super::Tasks;
use super::ground::Ground;
use super::job::Job;
use super::machine::{Act, Event, Life};
use crate::runtime::Exit;
use crate::state::records::Record;
use holdfast_orchestrator_core::verify::OpenedSecret;
use holdfast_types::Millis;
use holdfast_wire::v1::TaskReport;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// Between two attempts to remove secrets that cannot be removed.
const STUBBORN: Duration = Duration::from_secs(1);
/// Longest sleep: after it the clock is looked at again.
const NAP: Duration = Duration::from_secs(60);

/// What may be asked of a task while it is carried.
#[derive(Debug)]
pub(super) enum Order {
    /// End it.
    Stop {
        /// Time between asking and killing.
        grace: Duration,
        /// Who or why.
        why: String,
    },
    /// Its lease ends later.
    Extend(Millis),
}

impl From<Order> for Event {
    fn from(order: Order) -> Self {
        match order {
            Order::Stop { grace, why } => Event::Stop { grace, why },
            Order::Extend(until) => Event::Extended(until),
        }
    }
}

type Ending = Pin<Box<dyn Future<Output = Exit> + Send>>;

/// The carrier of one task.
pub(super) struct Carrier<G: Ground> {
    pub(super) tasks: Arc<Tasks<G>>,
    pub(super) job: Arc<Job>,
    pub(super) life: Life,
    pub(super) record: Record,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) over: watch::Sender<bool>,
    ending: Ending,
}

impl<G: Ground> Carrier<G> {
    pub(super) fn new(
        tasks: Arc<Tasks<G>>,
        job: Arc<Job>,
        life: Life,
        record: Record,
        orders: mpsc::UnboundedReceiver<Order>,
        over: watch::Sender<bool>,
    ) -> Self {
        Self { tasks, job, life, record, orders, over, ending: Box::pin(pending()) }
    }

    /// A task that was just accepted: waits for its predecessors' end, fetches, mounts, starts, and carries on.
    pub(super) async fn begin(mut self, secrets: Vec<OpenedSecret>, predecessors: Vec<watch::Receiver<bool>>) {
        let mut act = match self.keep().await {
            true => Act::Start,
            false => self.step(not_started("the task could not be written down", false)),
        };
        self.tell();
        if act == Act::Start {
            let (ground, job) = (self.tasks.ground.clone(), self.job.clone());
            let prepared = self.unless_stopped(async move {
                for mut predecessor in predecessors {
                    // An error means that its carrier is gone, and with it whatever there was to wait for.
                    predecessor.wait_for(|over| *over).await.ok();
                }
                ground.fetch(&job).await
            });
            act = match prepared.await {
                Ok(Ok(())) => self.mount(secrets).await,
                Ok(Err(e)) => self.step(not_started(&e.to_string(), false)),
                Err(act) => act,
            };
        }
        self.carry(act).await;
    }

    /// A task that an earlier agent started, and that runs or has run since.
    pub(super) async fn adopt(mut self) {
        self.watch_container();
        self.carry(Act::Idle).await;
    }

    /// A task whose container is not there, although it was started: as if it had just ended.
    pub(super) async fn resume(mut self) {
        let exit = Exit { code: None, signal: None, oom_killed: false, at_ms: (self.tasks.clock)().0 };
        let act = match self.record.prepared {
            true => self.step(Event::Exited(exit)),
            false => {
                self.life = Life::new(self.job.policy, self.job.lease(Millis(self.record.lease_until_ms)));
                self.step(not_started("the agent ended before the task was started", false))
            }
        };
        self.carry(act).await;
    }

    async fn mount(&mut self, secrets: Vec<OpenedSecret>) -> Act {
        match self.tasks.ground.mount(&self.job, secrets).await {
            Ok(()) => {
                self.record.prepared = true;
                Act::Start
            }
            Err(e) => self.step(not_started(&e.to_string(), false)),
        }
    }

    async fn carry(mut self, mut act: Act) {
        while act != Act::Finish {
            self.record.attempt = self.life.restarts();
            self.record.lease_until_ms = self.life.lease_until().0;
            let kept = self.keep().await;
            self.tell();
            let event = match act {
                Act::Start if !kept => not_started("the task could not be written down", true),
                Act::Start => self.start().await,
                Act::Stop(grace) => {
                    let (ground, name) = (self.tasks.ground.clone(), self.job.container_name(self.life.restarts()));
                    self.ending = Box::pin(async move { ground.stop(&name, grace).await });
                    self.next().await
                }
                Act::Idle | Act::Finish => self.next().await,
            };
            act = self.step(event);
        }
        self.finish().await;
    }

    async fn start(&mut self) -> Event {
        let attempt = self.life.restarts();
        // The output of the last attempt stays: it tells why there is another one.
        if let Some(old) = attempt.checked_sub(2)
            && let Err(error) = self.tasks.ground.discard(&self.job.container_name(old)).await
        {
            tracing::warn!(task = %self.job.task, %error, "an earlier container was not removed");
        }
        match self.tasks.ground.start(&self.job, attempt).await {
            Ok(()) => {
                tracing::info!(task = %self.job.task, grant = %self.job.id, attempt, "task runs");
                self.watch_container();
                Event::Started
            }
            Err(error) => {
                tracing::warn!(task = %self.job.task, grant = %self.job.id, attempt, %error, "task not started");
                not_started(&error.to_string(), error.may_pass())
            }
        }
    }

    fn watch_container(&mut self) {
        let (ground, name) = (self.tasks.ground.clone(), self.job.container_name(self.life.restarts()));
        self.ending = Box::pin(async move { ground.wait(&name).await });
    }

    /// The next thing that happens.
    async fn next(&mut self) -> Event {
        let due = self.life.wake_at().map(|at| at.since((self.tasks.clock)()).min(NAP));
        let woken = async {
            match due {
                Some(wait) => sleep(wait).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            exit = &mut self.ending => {
                self.ending = Box::pin(pending());
                Event::Exited(exit)
            }
            order = self.orders.recv() => match order {
                Some(order) => order.into(),
                // Nobody can order anything any more: the agent is ending, and the container lives on.
                None => pending().await,
            },
            () = woken => Event::Woken,
        }
    }

    /// Runs `work` while orders are followed; `Err` if one of them ended the task before it had begun.
    async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Act> {
        let mut work = std::pin::pin!(work);
        loop {
            let order = tokio::select! {
                done = &mut work => return Ok(done),
                order = self.orders.recv() => order,
            };
            let Some(order) = order else { return Ok(work.await) };
            let act = self.step(order.into());
            if act == Act::Finish {
                return Err(act);
            }
        }
    }

    fn step(&mut self, event: Event) -> Act {
        let was_overdue = self.life.is_overdue();
        let act = self.life.step((self.tasks.clock)(), event);
        if self.life.is_overdue() && !was_overdue {
            tracing::error!(task = %self.job.task, grant = %self.job.id, "the task runs on without a lease");
        }
        act
    }

    /// Writes the record down; `false` if that failed.
    async fn keep(&mut self) -> bool {
        let (records, id, record) = (self.tasks.records.clone(), self.job.id, self.record.clone());
        let kept = tokio::task::spawn_blocking(move || records.save(&id, &record)).await;
        match kept {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(task = %self.job.task, %error, help = error.help(), "the task's record was not written");
                false
            }
            Err(_) => false,
        }
    }

    fn report(&self) -> TaskReport {
        let unchecked = self.job.spec.health.as_ref().is_some_and(|h| !h.command.is_empty());
        let detail = match self.life.detail() {
            "" if unchecked => "health checks are not run",
            detail => detail,
        };
        self.job.report(self.life.state(), self.life.exit_code(), detail, self.life.restarts())
    }

    /// Puts the newest state on the board.
    pub(super) fn tell(&self) {
        self.tasks.reports.put(self.job.id, self.job.grant.task_gen, self.report());
    }

    /// How it ended is written down first, so that no later agent starts it again; then its secrets are taken away, and
    /// only then is its end told.
    async fn finish(mut self) {
        let over = self.report();
        self.record.over = Some(over.clone());
        self.keep().await;
        self.conclude(over).await;
    }

    /// The rest of an end that is written down: for as long as the secrets cannot be removed, the task is not over.
    pub(super) async fn conclude(self, over: TaskReport) {
        let (id, task_gen) = (self.job.id, self.job.grant.task_gen);
        while let Err(error) = self.tasks.ground.unmount(&self.job).await {
            tracing::error!(task = %self.job.task, grant = %id, %error, "the secrets of an ended task are not removed; trying again");
            let detail = format!("it has ended, but its secrets are not removed yet: {error}");
            self.tasks.reports.put(id, task_gen, self.job.report("running", over.exit_code, &detail, over.restarts));
            sleep(STUBBORN).await;
        }
        tracing::info!(task = %self.job.task, grant = %id, state = over.state, detail = over.detail, "task is over");
        self.tasks.ended(&id);
        self.tasks.reports.put(id, task_gen, over);
        // Nobody may be waiting.
        self.over.send_replace(true);
        self.tasks.prune().await;
    }
}

fn not_started(reason: &str, again: bool) -> Event {
    Event::NotStarted { reason: reason.to_owned(), again }
}
