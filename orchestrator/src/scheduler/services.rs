//! Services as their deployers signed them, and what the planner is to make of them.
//!
//! Signatures are not checked here: a node checks them before it starts anything, and nothing else counts.

use holdfast_orchestrator_core::plan::{Order, Resources, Update, Wanted};
use holdfast_types::{Digest, ServiceRef, TaskId, Zone, sha256};
use holdfast_wire::specs::template;
use holdfast_wire::statement;
use holdfast_wire::v1::{Param, ServiceVersion, ServiceView, Spec, Statement};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Versions that are remembered for tasks that still run them; the vault grants only the newest two.
const REMEMBERED: usize = 16;

/// One version of a service.
pub(super) struct Version {
    pub(super) spec: Spec,
    pub(super) statement: Statement,
    pub(super) vouchers: Vec<Statement>,
    /// Digest of all that makes a running task outdated when it changes.
    pub(super) template: Digest,
}

impl Version {
    fn read(v: &ServiceVersion) -> Option<Self> {
        let statement = v.spec.clone()?;
        let spec: Spec = statement::peek(&statement).ok()?;
        let template = template(&spec);
        Some(Self { spec, statement, vouchers: v.vouchers.clone(), template })
    }
    /// The template of a version that nothing is known of: unlike any other.
    pub(super) fn unknown(number: u64) -> Digest {
        sha256(&[b"unknown version", &number.to_be_bytes()])
    }
    /// What a task of it reserves.
    pub(super) fn resources(&self) -> Resources {
        let r = self.spec.resources.unwrap_or_default();
        Resources { cpu_milli: r.cpu_milli.into(), memory_bytes: r.memory_bytes }
    }
    /// How long a new task is watched before it counts as well.
    pub(super) fn monitor(&self) -> Duration {
        Duration::from_millis(self.spec.update.as_ref().map_or(0, |u| u.monitor_ms).into())
    }
    /// A failed task halts the rollout.
    pub(super) fn failure_halts(&self) -> bool {
        self.spec.update.as_ref().is_none_or(|u| u.on_failure != "continue")
    }
    /// Values for the holes of the spec: the slot's number where it is asked for by that name, else the smallest.
    pub(super) fn params(&self, task: &TaskId) -> Vec<Param> {
        let value = |name: &str, kind: &str, min: i64, max: i64| match (kind, name) {
            ("int", "slot") => i64::from(task.slot()).clamp(min, max.max(min)).to_string(),
            ("int", _) => min.to_string(),
            _ => String::new(),
        };
        let of = |d: &holdfast_wire::v1::ParamDecl| Param {
            name: d.name.clone(),
            value: value(&d.name, &d.kind, d.min, d.max),
        };
        self.spec.params.iter().map(of).collect()
    }
}

/// A service of the directory.
#[derive(Default)]
pub(super) struct Service {
    versions: BTreeMap<u64, Version>,
    /// Numbers of tasks that have done their work, as the vault knows.
    done: BTreeSet<u32>,
}

impl Service {
    /// Takes what the directory says now.
    pub(super) fn update(&mut self, view: &ServiceView) {
        for v in &view.versions {
            if let Some(version) = Version::read(v) {
                self.versions.insert(v.version, version);
            } else {
                tracing::warn!(service = %view.service, version = v.version, "the directory shows a spec that cannot be read");
            }
        }
        self.done = view.done.iter().copied().collect();
        while self.versions.len() > REMEMBERED {
            self.versions.pop_first();
        }
    }
    pub(super) fn version(&self, number: u64) -> Option<&Version> {
        self.versions.get(&number)
    }
    /// The tasks of `name`, this service, that have done their work and are not started again.
    pub(super) fn done(&self, name: &ServiceRef) -> Vec<TaskId> {
        self.done.iter().map(|slot| TaskId::new(name, *slot)).collect()
    }
    pub(super) fn newest(&self) -> Option<(u64, &Version)> {
        self.versions.last_key_value().map(|(n, v)| (*n, v))
    }
    /// The newest version of the work that `template` stands for.
    pub(super) fn like(&self, template: Digest) -> Option<&Version> {
        self.versions.values().rev().find(|v| v.template == template)
    }
    /// What the planner is to reach. The vault's budget counts an unset parallelism as one, so it is one.
    pub(super) fn wanted(&self, name: &ServiceRef) -> Option<Wanted> {
        let (version, v) = self.newest()?;
        let update = v.spec.update.clone().unwrap_or_default();
        let order = if update.order == "start-first" { Order::StartFirst } else { Order::StopFirst };
        Some(Wanted {
            service: name.clone(),
            version,
            template: v.template,
            replicas: v.spec.replicas_max,
            resources: v.resources(),
            zones: v.spec.zones.iter().filter_map(|z| Zone::parse(z).ok()).collect(),
            labels: v.spec.node_labels.clone(),
            exclusive: v.spec.exclusive,
            update: Update { parallelism: update.parallelism.max(1), order },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_wire::v1::ParamDecl;

    #[test]
    fn only_what_a_running_task_would_notice_makes_it_outdated() {
        let one = Spec { version: 1, replicas_max: 1, command: vec!["a".into()], ..Spec::default() };
        let scaled = Spec { version: 2, replicas_max: 9, valid_until_ms: 5, ..one.clone() };
        let changed = Spec { version: 2, command: vec!["b".into()], ..one.clone() };
        assert_eq!(template(&one), template(&scaled));
        assert_ne!(template(&one), template(&changed));
    }

    #[test]
    fn params_fill_the_holes_in_their_order() {
        let decl =
            |name: &str, kind: &str, min, max| ParamDecl { name: name.into(), kind: kind.into(), min, max, max_len: 8 };
        let params = vec![decl("port", "int", 8000, 9000), decl("slot", "int", 1, 3), decl("peer", "text", 0, 0)];
        let spec = Spec { params, ..Spec::default() };
        let v = Version { template: template(&spec), spec, statement: Statement::default(), vouchers: vec![] };
        let task = TaskId::parse("shop.web.7").unwrap();
        let values: Vec<String> = v.params(&task).into_iter().map(|p| p.value).collect();
        assert_eq!(values, ["8000", "3", ""]);
    }
}
