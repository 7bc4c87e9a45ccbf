//! Grants: what is asked of the vault, at most two requests at a time, and what follows from the answers.
//!
//! LAW: an answer that was lost is never taken for a refusal: a grant that comes of it shows in the directory, and is
//! given back (`a_grant_whose_answer_was_lost_is_given_back`).

use super::ends::ended;
use super::retries::{Denial, Due, wait_after};
use super::tasks::{Handed, Phase, Task};
use super::{MAX_REQUESTS, Order, Scheduler};
use holdfast_orchestrator_core::plan::Retry;
use holdfast_transport::failure::Failure;
use holdfast_types::{GrantId, Millis, NodeId, ServiceRef, TaskId};
use holdfast_wire::statement;
use holdfast_wire::v1::{Assign, Grant, GrantDenied, GrantIssued, GrantRequest, GrantResult, grant_result};
use std::collections::{BTreeMap, VecDeque};

/// Requests that may wait for their answer at a time.
const IN_FLIGHT: usize = 2;

/// What waits to be asked, and what was.
#[derive(Default)]
pub(super) struct Requests {
    queue: VecDeque<TaskId>,
    asked: BTreeMap<u64, Vec<TaskId>>,
    next_ticket: u64,
}

impl Scheduler {
    /// The planner wants a task started.
    pub(super) fn place(&mut self, now: Millis, service: ServiceRef, version: u64, task: TaskId, node: NodeId) {
        let denied = self.denials.get(&(service.clone(), node.clone())).map(|d| d.until);
        let paused = self.paused.get(&service.namespace).copied();
        if let Some(until) = denied.max(paused).filter(|until| *until > now) {
            self.planner.apply(ended(&task, &node, false, Retry::Later));
            self.timers.add(until, Due::Retry(task));
            return;
        }
        self.requests.queue.push_back(task.clone());
        self.insert_task(task, Task::queued(service, version, node));
    }

    /// Puts what waits into requests, as far as the bounds allow.
    pub(super) fn send_requests(&mut self) {
        while self.requests.asked.len() < IN_FLIGHT && !self.requests.queue.is_empty() {
            let ticket = self.requests.next_ticket;
            let (mut tasks, mut requests) = (Vec::new(), Vec::new());
            while let Some(id) = self.requests.queue.pop_front() {
                // Those that were withdrawn meanwhile are skipped.
                let Some(request) = self.request(&id) else { continue };
                if let Some(t) = self.tasks.get_mut(&id) {
                    t.phase = Phase::Asked(ticket);
                }
                tasks.push(id);
                requests.push(request);
                if tasks.len() == MAX_REQUESTS {
                    break;
                }
            }
            if !tasks.is_empty() {
                self.requests.next_ticket += 1;
                self.requests.asked.insert(ticket, tasks);
                self.orders.push(Order::Request { ticket, requests });
            }
        }
    }

    fn request(&self, id: &TaskId) -> Option<GrantRequest> {
        let t = self.tasks.get(id).filter(|t| t.phase == Phase::Queued)?;
        let params = self.version_of(id).map(|v| v.params(id)).unwrap_or_default();
        Some(GrantRequest {
            namespace: t.service.namespace.to_string(),
            service: t.service.name.to_string(),
            version: t.version,
            node_id: t.node.to_string(),
            task_id: id.to_string(),
            params,
        })
    }

    /// The vault's answer to the request `ticket`, in its order; or why there is none.
    pub fn granted(&mut self, now: Millis, ticket: u64, answer: Result<Vec<GrantResult>, Failure>) {
        let Some(tasks) = self.requests.asked.remove(&ticket) else { return };
        let mut results = match answer {
            Ok(results) => results,
            Err(failure) => {
                tracing::warn!(code = %failure.code, tasks = tasks.len(), "grants not answered: {failure}");
                Vec::new()
            }
        }
        .into_iter();
        for task in tasks {
            let result = results.next().and_then(|r| r.result);
            if self.tasks.get(&task).is_none_or(|t| t.phase != Phase::Asked(ticket)) {
                continue;
            }
            match result {
                Some(grant_result::Result::Issued(issued)) => self.issued(now, &task, issued),
                Some(grant_result::Result::Denied(denied)) => self.denied(now, &task, &denied),
                None => self.unanswered(now, &task),
            }
        }
    }

    /// Nobody will bring the answers.
    pub(super) fn abandon_requests(&mut self, now: Millis) {
        let tickets: Vec<u64> = self.requests.asked.keys().copied().collect();
        for ticket in tickets {
            self.granted(
                now,
                ticket,
                Err(Failure::unavailable("connection-lost", "the connection to the vault ended")),
            );
        }
    }

    fn issued(&mut self, now: Millis, task: &TaskId, issued: GrantIssued) {
        let grant: Option<Grant> = issued.grant.as_ref().and_then(|st| statement::peek(st).ok());
        let named = grant.and_then(|g| Some((GrantId::from_slice(&g.grant_id)?, g.task_gen)));
        let (Some((id, task_gen)), Some(t)) = (named, self.tasks.get_mut(task)) else {
            return self.unanswered(now, task);
        };
        t.phase = Phase::Live { grant: id, task_gen, handed: Handed::No };
        t.ours = true;
        let (pair, stop) = ((t.service.clone(), t.node.clone()), t.stop);
        self.denials.remove(&pair);
        let node = self.nodes.get(&pair.1);
        match self.assign(task, issued).filter(|_| !stop && node.is_some_and(|n| n.session.is_some() && !n.lost)) {
            Some(assign) => {
                self.orders.push(Order::Assign { node: pair.1, assign: Box::new(assign) });
                self.handed_over(task);
            }
            None => self.release(task, id, "its node is away, or it is not wanted any more"),
        }
        // The directory may have shown it before.
        self.judge(now, &id);
    }

    fn assign(&self, task: &TaskId, issued: GrantIssued) -> Option<Assign> {
        let v = self.version_of(task)?;
        Some(Assign {
            grant: issued.grant,
            receipt: issued.receipt,
            spec: Some(v.statement.clone()),
            vouchers: v.vouchers.clone(),
            boxes: issued.boxes,
        })
    }
    fn handed_over(&mut self, task: &TaskId) {
        if let Some(Phase::Live { handed, .. }) = self.tasks.get_mut(task).map(|t| &mut t.phase) {
            *handed = Handed::Yes;
        }
    }

    /// Nobody knows what became of the request. If it was granted, the directory shows a grant that nobody waits for.
    fn unanswered(&mut self, now: Millis, task: &TaskId) {
        let Some(t) = self.remove_task(task) else { return };
        self.planner.apply(ended(task, &t.node, false, Retry::Later));
        self.retry_later(now, task);
        let shown: Vec<GrantId> = self.grants.iter().filter(|(_, g)| g.is_of(task)).map(|(id, _)| *id).collect();
        shown.iter().for_each(|id| self.judge(now, id));
    }

    fn denied(&mut self, now: Millis, task: &TaskId, d: &GrantDenied) {
        let Some(t) = self.remove_task(task) else { return };
        self.planner.apply(ended(task, &t.node, false, Retry::Later));
        match d.code.as_str() {
            "budget-exhausted" => {
                let until = self.pause(now, &t.service.namespace, &d.reason);
                self.timers.add(until, Due::Retry(task.clone()));
            }
            // The facts moved while the vault decided, or a first placement here is held for a while: nothing is wrong
            // with this node, and another one would be told of and held just the same.
            "changed" | "pending" => self.retry_later(now, task),
            _ => {
                self.deny(now, &t.service, &t.node, &d.reason, &d.policies);
                self.retry_later(now, task);
            }
        }
    }

    /// The service gets nothing on this node for a while: longer than the place waits, so that others are tried first.
    pub(super) fn deny(&mut self, now: Millis, service: &ServiceRef, node: &NodeId, reason: &str, policies: &[String]) {
        let denial = self.denials.entry((service.clone(), node.clone())).or_insert(Denial { times: 0, until: now });
        if denial.times == 0 {
            tracing::warn!(%service, %node, policies = policies.join(","), "denied: {reason}");
        }
        denial.times = denial.times.saturating_add(1);
        denial.until = now.plus(wait_after(denial.times.saturating_add(1)));
    }

    /// The place of `task` may be filled again.
    pub(super) fn retry(&mut self, now: Millis, task: &TaskId) {
        if !self.is_synced() {
            return self.timers.add(now.plus(wait_after(1)), Due::Retry(task.clone()));
        }
        let Ok(service) = task.service() else { return };
        let still = |((s, _), d): &(&(ServiceRef, NodeId), &Denial)| *s == service && d.until > now;
        let denied: Vec<NodeId> = self.denials.iter().filter(still).map(|((_, node), _)| node.clone()).collect();
        if denied.is_empty() {
            self.planner.apply(holdfast_orchestrator_core::plan::Event::RetryDue(task.clone()));
        } else {
            self.retry_elsewhere(now, task, &denied);
        }
    }
}
