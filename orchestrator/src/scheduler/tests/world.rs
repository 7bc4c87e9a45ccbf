//! A vault and its nodes, played by hand: events and time go in, orders come out and are followed.

use crate::scheduler::*;
use holdfast_orchestrator_core::plan::Resources;
use holdfast_wire::statement::Document;
use holdfast_wire::v1::{
    Grant, GrantDenied, GrantIssued, GrantResult, GrantView, NodeView, ServiceVersion, Spec, Statement, Synced,
    UpdatePolicy, grant_result,
};

const START: i64 = 1_000_000_020_000;
const CAPACITY: Resources = Resources { cpu_milli: 1000, memory_bytes: 1 << 30 };

/// A vault and its nodes; what the scheduler is told goes through here.
pub(super) struct World {
    pub(super) s: Scheduler,
    pub(super) now: Millis,
    /// By grant: what the directory shows.
    pub(super) grants: BTreeMap<GrantId, GrantView>,
    next_grant: u8,
    /// Everything that was ordered but requests, which are answered at once.
    pub(super) orders: Vec<Order>,
    pub(super) placed: Vec<GrantRequest>,
    /// Says no, if it does.
    pub(super) refuse: fn(&GrantRequest) -> Option<GrantDenied>,
    /// Tasks that have done their work, as the vault tells.
    pub(super) done: Vec<u32>,
    /// Grants are protected, and none is given up.
    pub(super) protects: bool,
    /// What the directory says that grants are for.
    pub(super) template: Vec<u8>,
}

pub(super) fn no_refusal(_: &GrantRequest) -> Option<GrantDenied> {
    None
}
pub(super) fn node(n: u32) -> NodeId {
    NodeId::parse(&format!("node-{n}")).unwrap()
}
pub(super) fn task(slot: u32) -> TaskId {
    TaskId::parse(&format!("shop.web.{slot}")).unwrap()
}
pub(super) fn document<T: Document>(doc: &T) -> Statement {
    Statement { payload: doc.encode_to_vec(), r#type: T::TYPE.to_owned(), sigs: Vec::new() }
}
pub(super) fn spec(version: u64, replicas: u32) -> Spec {
    Spec {
        namespace: "shop".into(),
        service: "web".into(),
        version,
        replicas_min: replicas,
        replicas_max: replicas,
        zones: vec!["*".into()],
        restart: "always".into(),
        update: Some(UpdatePolicy {
            parallelism: 1,
            order: "stop-first".into(),
            on_failure: "pause".into(),
            monitor_ms: 5000,
        }),
        ..Spec::default()
    }
}

impl World {
    /// The lease of `shop` is held and the directory is complete: `nodes` nodes, all here.
    pub(super) fn new(nodes: u32) -> Self {
        let mut w = Self::unsynced();
        w.lease(60);
        (1..=nodes).for_each(|n| w.node_is(n, "ready", true));
        (1..=nodes).for_each(|n| w.greet(n, &[]));
        w.synced();
        w
    }
    pub(super) fn unsynced() -> Self {
        let settings = Settings { node_lost_after: Duration::from_secs(30), stop_timeout: Duration::from_secs(10) };
        Self {
            s: Scheduler::new(settings),
            now: Millis(START),
            grants: BTreeMap::new(),
            next_grant: 1,
            orders: Vec::new(),
            placed: Vec::new(),
            refuse: no_refusal,
            done: Vec::new(),
            protects: false,
            template: Vec::new(),
        }
    }
    pub(super) fn shown(&mut self, event: Shown) {
        self.s.directory(self.now, DirectoryEvent { event: Some(event) });
    }
    pub(super) fn synced(&mut self) {
        self.shown(Shown::Synced(Synced::default()));
    }
    pub(super) fn node_is(&mut self, n: u32, state: &str, connected: bool) {
        let view = NodeView {
            id: node(n).to_string(),
            role: "node".into(),
            state: state.into(),
            zone: "eu".into(),
            connected,
            ..NodeView::default()
        };
        self.shown(Shown::Node(view));
    }
    pub(super) fn greet(&mut self, n: u32, held: &[GrantId]) {
        self.s.session_opened(self.now, &node(n), CAPACITY, held.iter().copied().collect());
    }
    /// The lease of `shop` for `seconds` from now; 0: none.
    pub(super) fn lease(&mut self, seconds: i64) {
        let until_ms = self.now.0 + seconds * 1000;
        let lease = LeaseState { namespace: "shop".into(), fence: 7, until_ms, holder: "orch-1".into() };
        self.s.leases(self.now, &[lease]);
    }
    pub(super) fn service(&mut self, specs: &[Spec]) {
        let version =
            |s: &Spec| ServiceVersion { version: s.version, spec: Some(document(s)), ..ServiceVersion::default() };
        let versions = specs.iter().map(version).collect();
        self.shown(Shown::Service(ServiceView {
            namespace: "shop".into(),
            service: "web".into(),
            versions,
            done: self.done.clone(),
            ..ServiceView::default()
        }));
    }

    /// Takes orders until there are none; requests are answered at once, grants shown by the directory first.
    pub(super) fn run(&mut self) {
        loop {
            let orders = self.s.take_orders(self.now);
            if orders.is_empty() {
                return;
            }
            for order in orders {
                match order {
                    Order::Request { ticket, requests } => {
                        let results = requests.iter().map(|r| self.grant(r)).collect();
                        self.placed.extend(requests);
                        self.s.granted(self.now, ticket, Ok(results));
                    }
                    Order::Release { ref grants, .. } => {
                        let ids = grants.clone();
                        self.orders.push(order);
                        let given_up = if self.protects { &[][..] } else { &ids };
                        given_up.iter().for_each(|id| self.becomes(id, "revoked", ""));
                    }
                    Order::Assign { .. } | Order::Stop { .. } | Order::KeepLease => self.orders.push(order),
                }
            }
        }
    }
    pub(super) fn wait(&mut self, time: Duration) {
        // Stepwise, as a running process would wake.
        let end = self.now.plus(time);
        while self.now < end {
            self.now = self.s.next_wake().map_or(end, |at| at.max(self.now)).min(end);
            self.s.wake(self.now);
            self.run();
            if self.s.next_wake().is_some_and(|at| at <= self.now) {
                continue;
            }
            if self.s.next_wake().is_none_or(|at| at > end) {
                self.now = end;
            }
        }
        self.s.wake(self.now);
        self.run();
    }
    pub(super) fn grant(&mut self, r: &GrantRequest) -> GrantResult {
        if let Some(denied) = (self.refuse)(r) {
            return GrantResult { result: Some(grant_result::Result::Denied(denied)) };
        }
        let id = self.issue(&r.task_id, &r.node_id, r.version);
        let view = self.grants[&id].clone();
        let grant =
            Grant { grant_id: view.grant_id, task_id: view.task_id, task_gen: view.task_gen, ..Grant::default() };
        let issued = GrantIssued { grant: Some(document(&grant)), ..GrantIssued::default() };
        GrantResult { result: Some(grant_result::Result::Issued(issued)) }
    }
    /// A grant is issued and shown, whoever asked for it.
    pub(super) fn issue(&mut self, task: &str, node: &str, version: u64) -> GrantId {
        let id = GrantId([self.next_grant; 16]);
        let view = GrantView {
            grant_id: id.to_vec(),
            namespace: "shop".into(),
            service: "web".into(),
            version,
            node_id: node.into(),
            task_id: task.into(),
            task_gen: self.next_grant.into(),
            state: "issued".into(),
            issued_at_ms: self.now.0,
            protected: self.protects,
            template: self.template.clone(),
            ..GrantView::default()
        };
        self.next_grant += 1;
        self.grants.insert(id, view.clone());
        self.shown(Shown::Grant(view));
        id
    }
    pub(super) fn becomes(&mut self, id: &GrantId, state: &str, task_state: &str) {
        let view = self.grants.get_mut(id).unwrap();
        view.state = state.into();
        if !task_state.is_empty() {
            view.task_state = task_state.into();
        }
        let view = view.clone();
        self.shown(Shown::Grant(view));
    }
    pub(super) fn ends(&mut self, id: &GrantId, task_state: &str, exit_code: i32) {
        self.grants.get_mut(id).unwrap().exit_code = exit_code;
        self.becomes(id, "ended", task_state);
        self.run();
    }
    /// Every task that was assigned runs, and is watched for long enough.
    pub(super) fn settle(&mut self) {
        let issued: Vec<_> = self.grants.iter().filter(|(_, g)| g.state == "issued").map(|(id, _)| *id).collect();
        for id in issued {
            let n = NodeId::parse(&self.grants[&id].node_id).unwrap();
            self.s.assign_answered(self.now, &n, id, None);
            self.becomes(&id, "running", "running");
        }
        self.run();
        self.keep_lease_and_wait(5);
    }
    pub(super) fn keep_lease_and_wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.lease(60);
            self.wait(Duration::from_secs(1));
        }
    }
    /// The live grant of a task.
    pub(super) fn live(&self, slot: u32) -> Option<GrantId> {
        let is = |g: &GrantView| g.task_id == task(slot).as_str() && matches!(g.state.as_str(), "issued" | "running");
        self.grants.iter().find(|(_, g)| is(g)).map(|(id, _)| *id)
    }
    pub(super) fn live_count(&self) -> usize {
        self.grants.values().filter(|g| matches!(g.state.as_str(), "issued" | "running")).count()
    }
    pub(super) fn node_of(&self, slot: u32) -> NodeId {
        NodeId::parse(&self.grants[&self.live(slot).unwrap()].node_id).unwrap()
    }
    pub(super) fn released(&self) -> Vec<GrantId> {
        let of = |o: &Order| match o {
            Order::Release { grants, .. } => grants.clone(),
            Order::Request { .. } | Order::Assign { .. } | Order::Stop { .. } | Order::KeepLease => Vec::new(),
        };
        self.orders.iter().flat_map(of).collect()
    }
    pub(super) fn stops(&self) -> Vec<(NodeId, String, u64)> {
        let of = |o: &Order| match o {
            Order::Stop { node, stop } => Some((node.clone(), stop.task_id.clone(), stop.fence)),
            Order::Request { .. } | Order::Assign { .. } | Order::Release { .. } | Order::KeepLease => None,
        };
        self.orders.iter().filter_map(of).collect()
    }
    pub(super) fn assigned(&self) -> usize {
        self.orders.iter().filter(|o| matches!(o, Order::Assign { .. })).count()
    }
}
