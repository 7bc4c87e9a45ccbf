//! The tasks of this node: begun by a grant, adopted after a restart of the agent, ended by their own exit or an order.
//!
//! * [`machine`]: the life of one task, pure;
//! * `carry`: one such life being carried out;
//! * [`ground`]: what the machine under us does for it;
//! * [`job`]: what is to run.

mod carry;
pub mod ground;
pub mod job;
pub mod machine;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use crate::reports::Reports;
use crate::runtime::{ContainerId, Held, Status};
use crate::state::StateError;
use crate::state::records::{Record, Records};
use carry::{Carrier, Order};
use ground::{Ground, GroundError};
use holdfast_orchestrator_core::verify::{Accepted, Extended, RunningTask};
use holdfast_types::{GrantId, Millis, ServiceRef, TaskId};
use job::Job;
use machine::Life;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Ended containers whose output is kept; the oldest gives way.
const OUTPUTS_KEPT: usize = 64;
/// Time to end by itself for a task that is replaced by its next generation.
const REPLACED_GRACE: Duration = Duration::from_secs(10);

/// Why tasks could not be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Their records.
    #[error(transparent)]
    State(#[from] StateError),
    /// Their containers or secrets.
    #[error(transparent)]
    Ground(#[from] GroundError),
}

/// A container's output, and which one of its task's containers it was.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Output {
    /// The task.
    pub task: TaskId,
    /// Its generation.
    pub task_gen: u64,
    /// Which of the generation's containers, from 0.
    pub attempt: u32,
    /// The directory of its log files.
    pub path: PathBuf,
}

struct Carried {
    job: Arc<Job>,
    orders: mpsc::UnboundedSender<Order>,
    over: watch::Receiver<bool>,
}

/// The tasks of one node.
pub struct Tasks<G: Ground> {
    ground: Arc<G>,
    records: Records,
    reports: Arc<Reports>,
    clock: Box<dyn Fn() -> Millis + Send + Sync>,
    carried: Mutex<BTreeMap<GrantId, Carried>>,
}

impl<G: Ground> Tasks<G> {
    /// On `ground`, with records kept in `records`; `clock` is the one that counts for leases.
    pub fn new(
        ground: Arc<G>,
        records: Records,
        reports: Arc<Reports>,
        clock: impl Fn() -> Millis + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { ground, records, reports, clock: Box::new(clock), carried: Mutex::default() })
    }

    fn carried(&self) -> MutexGuard<'_, BTreeMap<GrantId, Carried>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what passed the checks. Older generations of the same task end first.
    pub fn begin(self: &Arc<Self>, accepted: Accepted) {
        let (id, grant) = (accepted.grant_id, accepted.grant);
        let (task_id, task_gen) = (grant.task_id.clone(), grant.task_gen);
        match Job::new(id, grant, accepted.spec) {
            Ok(job) => self.carry_out(job, accepted.secrets),
            Err(e) => {
                let report = holdfast_wire::v1::TaskReport {
                    grant_id: id.to_vec(),
                    task_id,
                    state: "failed".into(),
                    detail: e.to_string(),
                    ..Default::default()
                };
                self.reports.put(id, task_gen, report);
            }
        }
    }

    fn carry_out(self: &Arc<Self>, job: Job, secrets: Vec<holdfast_orchestrator_core::verify::OpenedSecret>) {
        let lease_until = Millis(job.grant.lease_until_ms);
        let record = Record {
            grant: Some(job.grant.clone()),
            spec: Some(job.spec.clone()),
            lease_until_ms: lease_until.0,
            ..Record::default()
        };
        let life = Life::new(job.policy, job.lease(lease_until));
        let predecessors = self.replace(&job.task);
        let carrier = self.carrier(Arc::new(job), life, record);
        tokio::spawn(carrier.begin(secrets, predecessors));
    }

    /// Tells all carried generations of `task` to end; how to learn that they have.
    fn replace(&self, task: &TaskId) -> Vec<watch::Receiver<bool>> {
        let stop = |c: &Carried| {
            let why = "replaced by its next generation".to_owned();
            // A carrier that takes no orders has ended already.
            c.orders.send(Order::Stop { grace: REPLACED_GRACE, why }).ok();
            c.over.clone()
        };
        self.carried().values().filter(|c| c.job.task == *task).map(stop).collect()
    }

    fn carrier(self: &Arc<Self>, job: Arc<Job>, life: Life, record: Record) -> Carrier<G> {
        let (orders, received) = mpsc::unbounded_channel();
        let (over, until_over) = watch::channel(false);
        self.carried().insert(job.id, Carried { job: job.clone(), orders, over: until_over });
        metrics::gauge!("holdfast_agent_tasks").increment(1.0);
        Carrier::new(self.clone(), job, life, record, received, over)
    }

    fn ended(&self, id: &GrantId) {
        if self.carried().remove(id).is_some() {
            metrics::gauge!("holdfast_agent_tasks").decrement(1.0);
        }
    }

    /// Orders the task of the grant `id` to end; `false` if it is not carried here.
    pub fn stop(&self, id: &GrantId, grace: Duration, why: &str) -> bool {
        let carried = self.carried();
        let order = || Order::Stop { grace, why: why.to_owned() };
        carried.get(id).is_some_and(|c| c.orders.send(order()).is_ok())
    }
    /// Orders every task to end; how many took the order.
    pub fn stop_all(&self, grace: Duration, why: &str) -> usize {
        let order = || Order::Stop { grace, why: why.to_owned() };
        self.carried().values().filter(|c| c.orders.send(order()).is_ok()).count()
    }
    /// Takes extended leases over.
    pub fn extend(&self, extended: &[Extended]) {
        let carried = self.carried();
        for e in extended {
            if let Some(c) = carried.get(&e.grant_id) {
                // A carrier that takes no orders has ended already.
                c.orders.send(Order::Extend(e.lease_until)).ok();
            }
        }
    }
    /// Runs `f` on each carried generation of the task `task_id`, as the check of a stop wants to see it.
    pub fn each_of<T>(&self, task_id: &str, f: impl Fn(&RunningTask<'_>) -> T) -> Vec<(GrantId, T)> {
        let carried = self.carried();
        let of_task = carried.values().filter(|c| c.job.grant.task_id == task_id);
        let judge = |c: &Carried| {
            let grant = &c.job.grant;
            let running = RunningTask {
                grant_id: c.job.id,
                task_id: &grant.task_id,
                namespace: &grant.namespace,
                protected: grant.protected,
            };
            (c.job.id, f(&running))
        };
        of_task.map(judge).collect()
    }
    /// The vault knows that the task of the grant `id` is over: its record may go.
    pub async fn forget(&self, id: GrantId) {
        let records = self.records.clone();
        let removed = tokio::task::spawn_blocking(move || records.remove(&id)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(grant = %id, %error, "a record was not removed");
        }
    }

    /// Output of the tasks of `service`, or of `task` alone: the newest generation of each, oldest container first.
    pub fn outputs(&self, service: &ServiceRef, task: Option<&TaskId>) -> Result<Vec<Output>, GroundError> {
        let held = self.ground.held()?;
        let wanted = |o: &Output| match task {
            Some(task) => o.task == *task,
            None => o.task.service().is_ok_and(|s| s == *service),
        };
        let mut all: Vec<Output> = held.iter().filter_map(|h| self.output_of(&h.id)).filter(wanted).collect();
        let mut newest = BTreeMap::<TaskId, u64>::new();
        for o in &all {
            let generation = newest.entry(o.task.clone()).or_default();
            *generation = (*generation).max(o.task_gen);
        }
        all.retain(|o| newest.get(&o.task) == Some(&o.task_gen));
        all.sort();
        Ok(all)
    }
    fn output_of(&self, name: &ContainerId) -> Option<Output> {
        let (rest, attempt) = name.as_str().rsplit_once('.')?;
        let (task, task_gen) = rest.rsplit_once('.')?;
        Some(Output {
            task: TaskId::parse(task).ok()?,
            task_gen: task_gen.parse().ok()?,
            attempt: attempt.parse().ok()?,
            path: self.ground.output(name),
        })
    }

    /// Takes over what an earlier agent left: runs on with what runs, ends what no record allows, forgets secrets that
    /// belong to nobody. Before any stream is opened.
    pub async fn adopt(self: &Arc<Self>) -> Result<(), AdoptError> {
        let found = self.records.load()?;
        for error in found.damaged {
            tracing::error!(%error, "a task's record is damaged: its container will be ended");
        }
        let held = self.ground.held()?;
        let (mut live, mut secrets) = (BTreeSet::new(), BTreeSet::new());
        let mut carriers = Vec::new();
        for (id, record) in found.whole {
            let Some(job) = Job::of_record(id, &record) else {
                tracing::error!(grant = %id, "a task's record cannot be used: its container will be ended");
                continue;
            };
            // Also of a task that has ended: it is over once they are gone.
            secrets.insert(job.secrets_name());
            if record.over.is_none() {
                live.insert(job.container_name(record.attempt));
            }
            carriers.push((job, record));
        }
        for orphan in held.iter().filter(|h| h.alive && !live.contains(&h.id)) {
            tracing::warn!(container = %orphan.id, "a container without a record is ended");
            self.ground.discard(&orphan.id).await?;
        }
        for swept in self.ground.sweep(&secrets)? {
            tracing::warn!(task = %swept, "secrets that belonged to no task were removed");
        }
        for (job, record) in carriers {
            self.adopt_one(job, record, &held);
        }
        self.prune().await;
        Ok(())
    }

    fn adopt_one(self: &Arc<Self>, job: Job, record: Record, held: &[Held]) {
        // What is adopted is on the board before any stream begins with it: the vault takes what is missing there for gone.
        if let Some(over) = record.over.clone() {
            let detail = "it has ended; its secrets are being removed";
            self.reports.put(job.id, job.grant.task_gen, job.report("running", over.exit_code, detail, over.restarts));
            let life = Life::new(job.policy, job.lease(Millis(record.lease_until_ms)));
            let carrier = self.carrier(Arc::new(job), life, record);
            drop(tokio::spawn(carrier.conclude(over)));
            return;
        }
        let name = job.container_name(record.attempt);
        let since = held.iter().find(|h| h.id == name).and_then(|h| match &h.status {
            Some(Status::Running { at_ms, .. }) => Some(Millis(*at_ms)),
            // When it began is not known any more: as if it had run for no time.
            Some(Status::Exited(exit)) => Some(Millis(exit.at_ms)),
            Some(Status::Failed { .. }) => None,
            // Its shim is still on its way up, or died there: whoever waits learns which. A second container beside it
            // would be a task that runs twice.
            None => Some((self.clock)()),
        });
        let from = since.unwrap_or_else(|| (self.clock)());
        let lease = job.lease(Millis(record.lease_until_ms));
        let life = Life::adopted(job.policy, lease, record.attempt, from);
        tracing::info!(task = %job.task, grant = %job.id, runs = since.is_some(), "task adopted");
        let carrier = self.carrier(Arc::new(job), life, record);
        carrier.tell();
        if since.is_some() {
            tokio::spawn(carrier.adopt());
        } else {
            tokio::spawn(carrier.resume());
        }
    }

    /// Removes what no task needs any more: outputs and images beyond those that are kept for a while.
    async fn prune(&self) {
        self.prune_outputs().await;
        let in_use = || self.carried().values().map(|c| c.job.image).collect();
        match self.ground.prune_images(&in_use).await {
            Ok(0) => {}
            Ok(freed) => tracing::info!(freed, "images that no task uses were removed"),
            Err(error) => tracing::warn!(%error, "images that no task uses were not removed"),
        }
    }

    /// Removes the oldest outputs beyond [`OUTPUTS_KEPT`]; never those of a task that is carried.
    async fn prune_outputs(&self) {
        let Ok(held) = self.ground.held() else { return };
        let carried: Vec<String> = self.carried().values().map(|c| format!("{}.", c.job.secrets_name())).collect();
        let ended_at = |h: &Held| match &h.status {
            Some(Status::Exited(exit)) => exit.at_ms,
            Some(Status::Running { .. } | Status::Failed { .. }) | None => 0,
        };
        let is_free = |h: &Held| !h.alive && !carried.iter().any(|c| h.id.as_str().starts_with(c.as_str()));
        let mut free: Vec<Held> = held.into_iter().filter(is_free).collect();
        free.sort_by_key(ended_at);
        let surplus = free.len().saturating_sub(OUTPUTS_KEPT);
        for old in free.iter().take(surplus) {
            if let Err(error) = self.ground.discard(&old.id).await {
                tracing::warn!(container = %old.id, %error, "an old output was not removed");
            }
        }
    }
}
