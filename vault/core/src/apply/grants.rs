//! Grants: preconditions checked again, budgets spent, leaves written.

use super::{Event, Step};
use crate::command::{GrantFact, GrantOrder, NodeTaskReport, RequestKey};
use crate::log::{Draft, grant_fields};
use crate::refusal::{Code, Refusal};
use crate::state::{GrantRow, GrantState, Placement, RequestRow, State};
use holdfast_types::{GrantId, Millis, NodeId, OrchId, ServiceRef, TaskId};
use holdfast_wire::specs::{self, template};
use holdfast_wire::tasks::{DONE, STOPPED, is_over, restarts};
use holdfast_wire::v1::Spec;
use std::time::Duration;

/// How long a request id is remembered.
const REQUEST_KEPT: Duration = Duration::from_secs(600);

impl Step<'_> {
    pub(super) fn grants(
        &mut self,
        orch: &OrchId,
        (request, body): RequestKey,
        orders: Vec<GrantOrder>,
    ) -> Result<(), Refusal> {
        self.state.new_request(&request, &body)?;
        self.state.requests.insert(request, RequestRow { body, until: self.at.plus(REQUEST_KEPT) });
        for order in orders {
            let done = match order {
                GrantOrder::Issue(f) => self.issue(orch, f),
                GrantOrder::Deny { service, node, code, reason, policies } => {
                    self.denied(orch, &service, &node, &code, &policies);
                    if code == Code::Pending.as_str() {
                        self.placement_asked(orch, &service, &node);
                    }
                    Err(Refusal { code: Code::PolicyDenied, reason, policies })
                }
            };
            self.orders.push(done);
        }
        Ok(())
    }

    /// A first placement of a sensitive service is held: told at once, so that somebody can look in the meantime.
    fn placement_asked(&mut self, orch: &OrchId, service: &str, node: &str) {
        let named = service.split_once('/').and_then(|(ns, name)| ServiceRef::of(ns, name).ok());
        let (Some(service), Ok(node)) = (named, NodeId::parse(node)) else { return };
        if self.state.ask_placement(&service, &node, self.at) {
            self.leaf(
                Draft::new("alarm/first-placement", format!("orch/{orch}"), service.to_string()).with("node", node),
            );
        }
    }

    fn issue(&mut self, orch: &OrchId, f: GrantFact) -> Result<u64, Refusal> {
        let service = f.task.service().map_err(|e| Refusal::invalid(e.to_string()))?;
        let (exclusive, sensitive, template) = match self.state.grant_preconditions(orch, &service, &f, self.at) {
            Ok(spec) => (spec.exclusive, spec.sensitive, template(spec)),
            Err(r) => {
                self.denied(orch, &service.to_string(), f.node.as_str(), r.code.as_str(), &r.policies);
                return Err(r);
            }
        };
        self.state.spend(&f.mandate, service.namespace.as_str(), &f.node, &f.secrets, self.at);
        self.state.services.entry(service.clone()).or_default().gens.insert(f.task.slot(), f.task_gen);
        let (name, sha) = grant_fields(&f.sha256);
        let secrets: Vec<_> = f.secrets.iter().map(|(n, v)| format!("{n}@{v}")).collect();
        let leaf = self.leaf(
            Draft::new("grant.issued", format!("orch/{orch}"), f.id.hex())
                .with(name, sha)
                .with("node", &f.node)
                .with("task", &f.task)
                .with("task_gen", f.task_gen)
                .with("spec_sha256", f.spec_sha256)
                .with("secrets", secrets.join(","))
                .with("policies", f.policies.join(","))
                .with("policy_version", f.policy_version)
                .with("mandate", &f.mandate)
                .with("fence", f.fence),
        );
        if sensitive {
            self.state.set_placement(&service, &f.node, Placement::Known);
        }
        let row = GrantRow {
            service,
            version: f.version,
            template,
            node: f.node,
            task: f.task,
            task_gen: f.task_gen,
            orch: orch.clone(),
            mandate: f.mandate,
            secrets: f.secrets,
            sha256: f.sha256,
            leaf,
            issued: self.at,
            start_before: f.start_before,
            lease_until: f.lease_until,
            protected: f.protected,
            life_ms: f.life_ms,
            grace_ms: f.grace_ms,
            exclusive,
            sensitive,
            held_back: Millis::default(),
            state: GrantState::Issued,
            task_state: String::new(),
            exit_code: 0,
            detail: String::new(),
            restarts: 0,
            over: None,
        };
        self.state.insert_grant(f.id, row);
        self.event(Event::Grant(f.id));
        Ok(leaf)
    }

    pub(super) fn reports(&mut self, node: &NodeId, tasks: Vec<NodeTaskReport>) -> Result<(), Refusal> {
        if tasks.iter().any(|t| self.state.grants.get(&t.grant).is_some_and(|g| g.node != *node)) {
            return Err(Refusal::credential("a node may only report its own tasks"));
        }
        for t in tasks {
            self.report(node, t);
        }
        Ok(())
    }

    fn report(&mut self, node: &NodeId, t: NodeTaskReport) {
        let Some(before) = self.state.grants.get(&t.grant).map(|g| g.state) else { return };
        let over = is_over(&t.state);
        let after = match (before, over) {
            (GrantState::Issued | GrantState::Running, false) => GrantState::Running,
            (GrantState::Issued | GrantState::Running | GrantState::Revoked, true) => GrantState::Ended,
            (GrantState::Revoked, false) => GrantState::Revoked,
            (GrantState::Ended | GrantState::Lapsed, true) => return,
            (GrantState::Ended | GrantState::Lapsed, false) => return self.runs_on(node, t),
        };
        let (id, at, state, code) = (t.grant, self.at, t.state.clone(), t.exit_code);
        let stopped = (t.state == STOPPED && before == GrantState::Running).then(|| self.stopped_by(&id)).flatten();
        // One that was taken back ended by order, whatever it says.
        let by_itself = state == DONE && before != GrantState::Revoked;
        self.state.change_grant(&id, |g| {
            g.state = after;
            g.task_state = t.state;
            g.exit_code = t.exit_code;
            g.detail = t.detail;
            g.restarts = t.restarts;
            if over {
                g.over = Some(at);
            }
        });
        if before != after {
            let kind = if after == GrantState::Running { "grant.started" } else { "grant.ended" };
            self.leaf(Draft::new(kind, format!("node/{node}"), id.hex()).with("state", state).with("exit_code", code));
        }
        if by_itself {
            self.done(&id, code != 0);
        }
        if let Some(orch) = stopped {
            self.stop_counts(&orch);
        }
        self.event(Event::Grant(id));
    }

    /// The task of the grant ended by itself: it is not granted again if the newest version says so, and is the same work.
    fn done(&mut self, id: &GrantId, failed: bool) {
        let Some(g) = self.state.grants.get(id) else { return };
        let (service, slot, ran) = (g.service.clone(), g.task.slot(), g.template);
        let Some(row) = self.state.services.get_mut(&service).filter(|s| s.active) else { return };
        let Some(newest) = row.newest() else { return };
        if !restarts(newest, failed) && ran == template(newest) && row.done.insert(slot) {
            self.event(Event::Service(service));
        }
    }

    /// A task runs under a grant that is over: its report was on its way when the grant lapsed. Its node is told to end it.
    fn runs_on(&mut self, node: &NodeId, t: NodeTaskReport) {
        let id = t.grant;
        if self.state.grants.get(&id).is_some_and(|g| g.task_state.is_empty()) {
            self.leaf(Draft::new("grant.late", format!("node/{node}"), id.hex()).with("state", &t.state));
            self.state.change_grant(&id, |g| g.task_state = t.state);
        }
        self.event(Event::GrantRevoked(id));
    }

    pub(super) fn release_grants(&mut self, orch: &OrchId, grants: &[GrantId], reason: &str) -> Result<(), Refusal> {
        let at = self.at;
        for id in grants {
            let Some(g) = self.state.grants.get(id) else { continue };
            let holder = self.state.leases.get(&g.service.namespace).is_some_and(|l| l.orch == *orch && l.until > at);
            if !(g.orch == *orch || holder) || !g.state.is_live() || (g.protected && !self.state.may_let_go(id, g)) {
                continue;
            }
            let stops = g.state == GrantState::Running && self.state.is_wanted(g);
            self.revoke_grant(*id, &format!("orch/{orch}"), reason);
            if stops {
                self.stop_counts(orch);
            }
        }
        Ok(())
    }

    /// Takes a live grant back: its node is told, and it may not be started any more.
    pub(super) fn revoke_grant(&mut self, id: GrantId, actor: &str, reason: &str) {
        if !self.state.grants.get(&id).is_some_and(|g| g.state.is_live()) {
            return;
        }
        let at = self.at;
        self.state.change_grant(&id, |g| {
            g.state = GrantState::Revoked;
            g.over = Some(at);
        });
        self.leaf(Draft::new("grant.revoked", actor, id.hex()).with("reason", reason));
        self.event(Event::Grant(id));
        self.event(Event::GrantRevoked(id));
    }

    pub(super) fn extend(&mut self, grants: Vec<(GrantId, Millis)>, away: &[GrantId]) -> Result<(), Refusal> {
        let mut n = 0_u64;
        for id in away {
            self.hold_back(id);
        }
        for (id, until) in grants {
            let Some(g) = self.state.grants.get(&id).filter(|g| g.lease_until < until) else { continue };
            if self.state.may_go_on(g, self.at) {
                self.state.change_grant(&id, |g| g.lease_until = until);
                self.event(Event::GrantExtended(id));
                n += 1;
            } else {
                self.hold_back(&id);
            }
        }
        if n > 0 {
            self.leaf(Draft::new("grant.extended", "vault", n.to_string()));
        }
        Ok(())
    }

    /// Asked again later: what may not go on now must not be looked at in every tick.
    fn hold_back(&mut self, id: &GrantId) {
        let at = self.at;
        self.state.change_grant(id, |g| g.held_back = at);
    }
}

impl State {
    /// What must still hold when a grant is applied: decided again from committed state alone, without the policy engine.
    fn grant_preconditions(
        &self,
        orch: &OrchId,
        service: &ServiceRef,
        f: &GrantFact,
        at: Millis,
    ) -> Result<&Spec, Refusal> {
        let lease = self.leases.get(&service.namespace);
        if !lease.is_some_and(|l| l.orch == *orch && l.fence == f.fence && l.until > at) {
            return Err(Refusal {
                policies: vec!["L0-lease".into()],
                ..Refusal::new(Code::PolicyDenied, "the lease was lost meanwhile")
            });
        }
        if self.lockdown {
            return Err(Refusal {
                policies: vec!["L0-lockdown-grant".into()],
                ..Refusal::new(Code::PolicyDenied, "the cluster is locked down")
            });
        }
        if self.cluster()?.policy_version != f.policy_version {
            return Err(Refusal::changed("the policy changed meanwhile"));
        }
        if self.identities.get(f.node.as_str()).is_none_or(|n| n.rev != f.node_rev) {
            return Err(Refusal::changed("the node changed meanwhile"));
        }
        let row =
            self.services.get(service).filter(|s| s.active).ok_or_else(|| Refusal::not_found("service", service))?;
        let spec = row.versions.iter().find(|v| v.version == f.version && v.sha256 == f.spec_sha256);
        let spec = spec
            .and_then(crate::state::SpecVersion::spec)
            .ok_or_else(|| Refusal::changed("the spec is not active any more"))?;
        self.check_denied(spec)?;
        if !self.mandates.get(&f.mandate).is_some_and(|m| !m.revoked && at < m.not_after) {
            return Err(Refusal {
                policies: vec!["L0-lease".into()],
                ..Refusal::new(Code::PolicyDenied, "the mandate ended meanwhile")
            });
        }
        let same = |(name, version): &(String, u64)| {
            holdfast_types::SecretRef::parse(name, service.namespace.as_str())
                .is_ok_and(|r| self.secrets.get(&r).is_some_and(|s| s.version.number == *version))
        };
        if !f.secrets.iter().all(same) {
            return Err(Refusal::changed("a secret changed meanwhile"));
        }
        if f.task_gen != self.last_gen(&f.task) + 1 {
            return Err(Refusal::changed("the task was granted meanwhile"));
        }
        self.within_budget(&f.mandate, &f.task, spec, &f.node, &f.secrets, at)?;
        Ok(spec)
    }

    /// Rate, concurrency and novelty of the mandate, and first placements (protocol, budgets).
    pub(crate) fn within_budget(
        &self,
        mandate: &holdfast_types::MandateId,
        task: &TaskId,
        spec: &Spec,
        node: &NodeId,
        secrets: &[(String, u64)],
        at: Millis,
    ) -> Result<(), Refusal> {
        let refusal = |code, what| Refusal { policies: vec!["L0-budget".into()], ..Refusal::new(code, what) };
        let over = |what: String| refusal(Code::BudgetExhausted, what);
        // Of this place alone, and for a while: no reason for a whole namespace to wait.
        let held = |why: &str| refusal(Code::Changed, format!("task {task} {why}"));
        let service = &task.service().map_err(|e| Refusal::invalid(e.to_string()))?;
        let m = self.mandates.get(mandate).ok_or_else(|| Refusal::not_found("mandate", mandate))?;
        let empty = crate::state::Budget::default();
        let b = self.budget_of(m).unwrap_or(&empty);
        if b.used(service.namespace.as_str(), at) >= m.per_minute {
            return Err(over(format!("the mandate allows {} grants a minute in one namespace", m.per_minute)));
        }
        let fresh = b.new_pairs(node, secrets);
        if fresh > 0 && b.novelty(at).saturating_add(fresh) > m.novelty {
            return Err(over(format!("the mandate allows {} new pairs of secret and node an hour", m.novelty)));
        }
        let slots = specs::slots(spec);
        let live = self.index.live_of.get(service).copied().unwrap_or(0);
        // Slots bound an exclusive service: a task that was taken back holds its own until it is over.
        if task.slot() > slots || live >= slots as usize && !spec.exclusive {
            let (max, surge) = (spec.replicas_max, specs::surge(spec));
            return Err(over(format!("the service may have {max} replicas and {surge} more while it changes")));
        }
        if spec.exclusive && self.grants_of_task(task).next().is_some() {
            return Err(held("is exclusive and its last grant is not over"));
        }
        // Its node ends the incarnation before it: nobody may order that of a protected task.
        if self.grants_of_task(task).any(|g| g.protected && g.state == GrantState::Running) {
            return Err(held("is protected and runs"));
        }
        if spec.sensitive { self.placement_allowed(service, node, at) } else { Ok(()) }
    }
}
