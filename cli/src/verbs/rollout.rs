//! Following a rollout until every task runs, one has failed for good, or the time is over; and asking the log why.

use super::log;
use super::service::rollout_failure;
use crate::app::App;
use crate::client::Cluster;
use crate::errors::{Code, Failure};
use crate::verbs::grant;
use holdfast_types::ServiceRef;
use holdfast_wire::tasks::DONE;
use holdfast_wire::{strict, v1};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// First and longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));
/// A failed task that gets no new grant for this long has failed for good.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// Entries from the end that are searched for a denial.
const RECENT: u64 = 500;

/// What a rollout is to come to.
pub struct Rollout<'a> {
    /// The service.
    pub name: &'a ServiceRef,
    /// Tasks that are to run.
    pub wanted: u32,
    /// Only tasks of this version count; `None`: tasks of earlier versions are good enough.
    pub version: Option<u64>,
    /// Leaf of the accepted spec: denials before it are of no interest.
    pub since: u64,
}

/// The newest grant of each task that counts.
type Newest = BTreeMap<String, v1::GrantView>;

impl Rollout<'_> {
    /// Waits until the wanted number of tasks run, no more and no fewer.
    pub async fn follow(&self, app: &App, c: &Cluster) -> Result<(), Failure> {
        let name = self.name;
        let deadline = Instant::now() + app.timeout(Duration::from_secs(60));
        let wanted = u64::from(self.wanted);
        let bar = app.out.bar(wanted, &name.to_string());
        let (mut pause, mut failed, mut said) = (PAUSES.0, BTreeMap::new(), String::new());
        loop {
            let grants = grant::list(c, Some(name.namespace.as_str()), Some(name.name.as_str()), true).await?;
            let tasks = newest(grants, self.version);
            let running = tasks.values().filter(|g| is_running(g)).count() as u64;
            bar.set_position(running);
            if running == wanted || (self.version.is_some() && running > wanted) {
                bar.finish_and_clear();
                return Ok(());
            }
            let progress = summary(&tasks, running, wanted);
            if progress != said {
                if bar.is_hidden() {
                    app.out.note(&progress);
                }
                bar.set_message(progress.clone());
                said = progress;
            }
            if let Some(g) = lasting_failure(&tasks, &mut failed, Instant::now()) {
                bar.finish_and_clear();
                return Err(with_tasks(rollout_failure(Code::RolloutFailed, name, &reason(g)), &tasks));
            }
            if Instant::now() >= deadline {
                bar.finish_and_clear();
                return Err(with_tasks(self.why_not(c, &tasks, running).await?, &tasks));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSES.1);
        }
    }

    /// Time is over: a denial by the vault is a refusal; anything else is a rollout that takes too long.
    async fn why_not(&self, c: &Cluster, tasks: &Newest, running: u64) -> Result<Failure, Failure> {
        if let Some(denial) = self.newest_denial(c).await? {
            let help = "the policy named decides; see `holdfast log tail` and the secret's readers and zones";
            return Ok(Failure::new(Code::PolicyDenied, format!("{} does not run: {denial}", self.name), help));
        }
        let why = if tasks.is_empty() {
            "no orchestrator asked for a grant; is one running with a mandate for this namespace, and is a node ready?"
                .to_owned()
        } else {
            summary(tasks, running, u64::from(self.wanted))
        };
        Ok(rollout_failure(Code::RolloutTimeout, self.name, &why))
    }

    /// The last time the vault refused a grant for this service since the spec was accepted, in words.
    async fn newest_denial(&self, c: &Cluster) -> Result<Option<String>, Failure> {
        let (checkpoint, _) = log::checkpoint(c).await?;
        let from = self.since.max(checkpoint.size.saturating_sub(RECENT));
        let mut stream = log::entries(c, from, checkpoint.size, false).await?;
        let mut found = None;
        while let Some(leaves) = log::next(&mut stream).await? {
            for leaf in leaves {
                let e: v1::LogEntry = strict::decode(&leaf.entry, log::MAX_ENTRY).map_err(Failure::untrusted)?;
                if e.kind == "grant.denied" && e.subject == self.name.to_string() {
                    found = Some(denial(&e));
                }
            }
        }
        Ok(found)
    }
}

/// It runs, or has done its work already.
fn is_running(g: &v1::GrantView) -> bool {
    let runs = g.task_state == "running" && matches!(g.state.as_str(), "issued" | "running");
    runs || (g.task_state == DONE && g.exit_code == 0)
}

fn is_failed(g: &v1::GrantView) -> bool {
    matches!(g.task_state.as_str(), "failed" | "refused") || (g.task_state == DONE && g.exit_code != 0)
}

fn newest(grants: Vec<v1::GrantView>, version: Option<u64>) -> Newest {
    let mut tasks = Newest::new();
    for g in grants.into_iter().filter(|g| version.is_none_or(|v| g.version == v)) {
        if tasks.get(&g.task_id).is_none_or(|known| known.task_gen < g.task_gen) {
            tasks.insert(g.task_id.clone(), g);
        }
    }
    tasks
}

/// A task whose newest grant has been failed for [`GIVEN_UP`]; `since` remembers when each failure was first seen.
fn lasting_failure<'a>(
    tasks: &'a Newest,
    since: &mut BTreeMap<(String, u64), Instant>,
    now: Instant,
) -> Option<&'a v1::GrantView> {
    since.retain(|(task, generation), _| tasks.get(task).is_some_and(|g| g.task_gen == *generation && is_failed(g)));
    tasks.values().filter(|g| is_failed(g)).find(|g| {
        let first = *since.entry((g.task_id.clone(), g.task_gen)).or_insert(now);
        now.duration_since(first) >= GIVEN_UP
    })
}

fn summary(tasks: &Newest, running: u64, wanted: u64) -> String {
    let others = tasks.values().filter(|g| !is_running(g)).map(|g| format!("; {}", reason(g)));
    format!("{running} of {wanted} run{}", others.collect::<String>())
}

/// What a node said of a task last.
fn reason(g: &v1::GrantView) -> String {
    let state = if g.task_state.is_empty() { &g.state } else { &g.task_state };
    let exit =
        if is_failed(g) && g.exit_code != 0 { format!(" with exit code {}", g.exit_code) } else { String::new() };
    let detail = if g.detail.is_empty() { String::new() } else { format!(": {}", g.detail) };
    format!("{} on {} is {state}{exit}{detail}", g.task_id, g.node_id)
}

fn with_tasks(f: Failure, tasks: &Newest) -> Failure {
    f.with("tasks", tasks.values().map(grant::document).collect::<Vec<_>>())
}

fn denial(e: &v1::LogEntry) -> String {
    let field = |name: &str| e.fields.iter().find(|f| f.name == name).map(|f| f.value.as_str()).unwrap_or_default();
    let policies = field("policies");
    let by = if policies.is_empty() { "no policy permits it".to_owned() } else { format!("by {policies}") };
    format!("the vault denied a grant on {}: {}, {by}", field("node"), field("code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(slot: u32, generation: u64, state: &str) -> v1::GrantView {
        v1::GrantView {
            task_id: format!("shop.web.{slot}"),
            task_gen: generation,
            version: 2,
            state: "running".into(),
            task_state: state.into(),
            ..v1::GrantView::default()
        }
    }

    #[test]
    fn only_the_newest_grant_of_a_task_in_this_version_counts() {
        let old = v1::GrantView { version: 1, ..task(1, 9, "running") };
        let tasks = newest(vec![task(1, 3, "running"), old, task(1, 2, "failed"), task(2, 1, "started")], Some(2));
        assert_eq!(tasks.values().filter(|g| is_running(g)).count(), 1);
        assert_eq!(tasks.len(), 2);
    }

    #[test]
    fn a_failure_counts_once_nobody_tries_again() {
        let (mut since, start) = (BTreeMap::new(), Instant::now());
        let failed = newest(vec![task(1, 1, "failed")], Some(2));
        assert!(lasting_failure(&failed, &mut since, start).is_none());
        let retried = newest(vec![task(1, 1, "failed"), task(1, 2, "started")], Some(2));
        assert!(lasting_failure(&retried, &mut since, start + GIVEN_UP).is_none());
        let again = newest(vec![task(1, 2, "refused")], Some(2));
        assert!(lasting_failure(&again, &mut since, start + GIVEN_UP).is_none());
        assert!(lasting_failure(&again, &mut since, start + 2 * GIVEN_UP).is_some());
    }

    #[test]
    fn a_denial_names_the_policy_or_says_that_none_permits() {
        let field = |name: &str, value: &str| v1::Field { name: name.into(), value: value.into() };
        let mut e = v1::LogEntry {
            fields: vec![field("code", "policy-denied"), field("node", "node-1"), field("policies", "L0-zone")],
            ..v1::LogEntry::default()
        };
        assert_eq!(denial(&e), "the vault denied a grant on node-1: policy-denied, by L0-zone");
        e.fields.truncate(2);
        assert!(denial(&e).ends_with("no policy permits it"));
    }
}
