//! What a task is to run and under which grant, and the names that belong to it on this machine.

use crate::runtime::{ContainerId, RestartPolicy};
use crate::state::records::Record;
use crate::tasks::machine::Lease;
use holdfast_types::{Digest, GrantId, Millis, TaskId};
use holdfast_wire::v1::{Grant, Spec, SpecImage, TaskReport};
use std::time::Duration;

/// A granted task. Immutable; nothing in it is secret.
#[derive(Clone, PartialEq, Debug)]
pub struct Job {
    /// The grant's id.
    pub id: GrantId,
    /// The task.
    pub task: TaskId,
    /// What the vault granted.
    pub grant: Grant,
    /// What the deployer signed.
    pub spec: Spec,
    /// Its image's digest.
    pub image: Digest,
    /// Where the image may be had.
    pub source: String,
    /// What follows an exit.
    pub policy: RestartPolicy,
}

/// Why a believed grant cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A name that means nothing here.
    #[error("{0}")]
    Task(String),
    /// A task runs one image.
    #[error("the specification names {0} images; this agent runs one image a task")]
    Images(usize),
    /// The digest has another length.
    #[error("the image's digest is not SHA-256")]
    Digest,
    /// A word that this agent does not know.
    #[error("restart {0:?} is none of always, on-failure, never")]
    Restart(String),
}

impl Job {
    /// From what passed the checks.
    pub fn new(id: GrantId, grant: Grant, spec: Spec) -> Result<Self, JobError> {
        let task = TaskId::parse(&grant.task_id).map_err(|e| JobError::Task(e.to_string()))?;
        let [SpecImage { digest, source, .. }] = spec.images.as_slice() else {
            return Err(JobError::Images(spec.images.len()));
        };
        let image = Digest::from_slice(digest).ok_or(JobError::Digest)?;
        let source = source.clone();
        let word = if spec.restart.is_empty() { "always" } else { &spec.restart };
        let policy = RestartPolicy::parse(word).ok_or_else(|| JobError::Restart(spec.restart.clone()))?;
        Ok(Self { id, task, grant, spec, image, source, policy })
    }
    /// From a record that lies on disk.
    pub fn of_record(id: GrantId, record: &Record) -> Option<Self> {
        Self::new(id, record.grant.clone()?, record.spec.clone()?).ok()
    }
    /// The grant's lease, ending at `until`.
    pub fn lease(&self, until: Millis) -> Lease {
        Lease {
            until,
            grace: Duration::from_secs(self.grant.grace_s.into()),
            // Whatever is not plainly "run-on" ends: a guard has no default.
            stop_on_expiry: self.grant.on_expiry != "run-on",
        }
    }
    /// The name of the task's secrets: one a generation, shared by its containers.
    pub fn secrets_name(&self) -> ContainerId {
        self.name(None)
    }
    /// The name of its container number `attempt`, from 0.
    pub fn container_name(&self, attempt: u32) -> ContainerId {
        self.name(Some(attempt))
    }
    fn name(&self, attempt: Option<u32>) -> ContainerId {
        let attempt = attempt.map_or_else(String::new, |a| format!(".{a}"));
        let name = format!("{}.{}{attempt}", self.task, self.grant.task_gen);
        // A task id is two labels and a number, so this always parses; the fallback is the task's own name.
        ContainerId::parse(&name).unwrap_or_else(|_| ContainerId::from(&self.task))
    }
    /// A report of this task.
    pub fn report(&self, state: &str, exit_code: i32, detail: &str, restarts: u32) -> TaskReport {
        TaskReport {
            grant_id: self.id.to_vec(),
            task_id: self.grant.task_id.clone(),
            state: state.to_owned(),
            exit_code,
            detail: detail.chars().take(300).collect(),
            restarts,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A grant for `shop.web.1`, generation `task_gen`, with a lease of an hour from `now`.
    pub(crate) fn job(n: u8, task_gen: u64, now: Millis) -> Job {
        let grant = Grant {
            task_id: "shop.web.1".into(),
            namespace: "shop".into(),
            service: "web".into(),
            task_gen,
            lease_until_ms: now.plus(Duration::from_secs(3600)).0,
            grace_s: 60,
            on_expiry: "stop".into(),
            ..Grant::default()
        };
        let image = SpecImage { name: "web".into(), digest: vec![1; 32], source: "r.local/web:1".into() };
        let spec = Spec { images: vec![image], restart: "on-failure".into(), ..Spec::default() };
        Job::new(GrantId([n; 16]), grant, spec).unwrap()
    }

    #[test]
    fn names_tell_generations_and_attempts_apart() {
        let job = job(1, 7, Millis(0));
        assert_eq!(job.secrets_name().as_str(), "shop.web.1.7");
        assert_eq!(job.container_name(2).as_str(), "shop.web.1.7.2");
        let longest = format!("{0}.{0}.4294967295", "a".repeat(63));
        let grant = Grant { task_id: longest, task_gen: u64::MAX, ..job.grant };
        let longest = Job::new(job.id, grant, job.spec).unwrap().container_name(u32::MAX);
        assert!(longest.as_str().ends_with(&format!(".{}.{}", u64::MAX, u32::MAX)));
    }

    #[test]
    fn only_a_plain_run_on_lets_a_task_run_on() {
        let mut job = job(1, 1, Millis(0));
        for (word, stops) in [("run-on", false), ("stop", true), ("", true), ("Run-On", true)] {
            job.grant.on_expiry = word.into();
            assert_eq!(job.lease(Millis(0)).stop_on_expiry, stops, "{word:?}");
        }
    }

    #[test]
    fn a_spec_that_this_agent_cannot_run_is_refused_with_its_reason() {
        let good = job(1, 1, Millis(0));
        let of = |spec: Spec| Job::new(good.id, good.grant.clone(), spec).unwrap_err();
        assert_eq!(of(Spec { images: Vec::new(), ..good.spec.clone() }), JobError::Images(0));
        assert_eq!(
            of(Spec { restart: "sometimes".into(), ..good.spec.clone() }),
            JobError::Restart("sometimes".into())
        );
    }
}
