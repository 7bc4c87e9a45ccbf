//! Long random histories, refusals included: replayed, cut by a snapshot, and held against the laws of the log.

use crate::log;
use crate::world::{Machine, START, World};
use holdfast_types::{GrantId, Millis};
use holdfast_vault_core::{Command, NoteFacts, NoteKind, Stamped, State};
use holdfast_wire::v1;
use proptest::prelude::*;
use v1::command::Action;

/// One operation: which, on what, and how far time goes before it.
type Op = (u8, u8, u16);

struct Player {
    w: World,
    orchs: Vec<Machine>,
    nodes: Vec<Machine>,
    secret: u64,
    spec: u64,
}

impl Player {
    fn new() -> Self {
        let (mut w, a, n) = World::shop();
        let b = w.orchestrator();
        let m = w.mandate("m2", &[&b.id]);
        w.put_mandate(&m).unwrap();
        let second = w.node();
        Self { w, orchs: vec![a, b], nodes: vec![n, second], secret: 1, spec: 1 }
    }
    fn grant(&self, pick: u8) -> Option<GrantId> {
        let n = self.w.state.grants().count();
        self.w.state.grants().map(|(id, _)| *id).nth(usize::from(pick) % n.max(1))
    }
    fn operator(&mut self, kind: u8, pick: u8) {
        let who: &[&str] = [&["ada"][..], &["oz"], &["ada", "ben"], &["cleo"]][usize::from(pick / 8) % 4];
        let id = self.nodes[usize::from(pick) % self.nodes.len()].id.clone();
        let action = match kind {
            0 => Action::SetDrain(v1::SetDrain { id, drain: pick.is_multiple_of(2) }),
            1 => Action::SetPlace(v1::SetPlace {
                id,
                zone: ["eu", "us", "*", "Bad"][usize::from(pick) % 4].into(),
                labels: Vec::new(),
            }),
            2 => Action::QuarantineNode(v1::QuarantineNode { id, reason: "odd".into() }),
            3 => Action::RemoveNode(v1::RemoveNode { id }),
            4 => Action::Lockdown(v1::Lockdown::default()),
            5 => Action::Release(v1::Release::default()),
            6 => Action::RemoveService(v1::RemoveService { namespace: "shop".into(), service: "web".into() }),
            7 => Action::DeleteSecret(v1::DeleteSecret { namespace: "shop".into(), name: "db".into() }),
            8 => Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m2".into() }),
            9 => Action::RevokeToken(v1::RevokeToken { token_id: vec![pick; 8] }),
            _ => Action::RevokeGrant(v1::RevokeGrant {
                grant_id: self.grant(pick).map_or_else(Vec::new, GrantId::to_vec),
            }),
        };
        drop(self.w.act(who, action));
    }
    fn machine(&mut self, kind: u8, pick: u8) {
        let node = usize::from(pick) % self.nodes.len();
        let (id, node_id) = (self.nodes[node].id.clone(), self.nodes[node].node());
        match kind {
            0 => {
                let t = self.w.mint("node");
                if let Ok(m) = self.w.try_join(&t) {
                    self.nodes.push(m);
                }
                drop(self.w.try_join(&t));
            }
            1 => drop(self.w.renew(&id, &crate::world::csr().1, &[3; 32])),
            2 => {
                let serial = self.w.state.node_view(&id, false).unwrap().pending_serial;
                drop(self.w.propose(Command::Activate { id, serial }));
            }
            3 => drop(self.w.propose(Command::Fork { id, detail: "seen twice".into() })),
            _ => {
                let Some(grant) = self.grant(pick) else { return };
                let state = ["started", "running", "stopped", "failed"][usize::from(pick / 16) % 4].to_owned();
                let task = |g| holdfast_vault_core::NodeTaskReport {
                    grant: g,
                    state: state.clone(),
                    exit_code: 0,
                    detail: "x".into(),
                    restarts: 0,
                };
                let owner = self.w.state.grant(&grant).unwrap().node.clone();
                let node = if pick.is_multiple_of(5) { node_id } else { owner };
                let tasks = self
                    .w
                    .state
                    .grants()
                    .map(|(g, _)| *g)
                    .filter(|g| pick.is_multiple_of(7) || *g == grant)
                    .map(task)
                    .collect();
                drop(self.w.propose(Command::Reports { node, tasks }));
            }
        }
    }
    fn scheduler(&mut self, kind: u8, pick: u8) {
        let orch = usize::from(pick) % 2;
        match kind {
            0 => drop(self.w.keep_lease(&self.orchs[orch])),
            1 => {
                let grants = self.grant(pick).into_iter().collect();
                drop(self.w.propose(Command::ReleaseGrants {
                    orch: self.orchs[orch].orch(),
                    grants,
                    reason: "r".into(),
                }));
            }
            2 => {
                let extend =
                    self.w.state.extensions(self.w.now, 100, |n| !pick.is_multiple_of(3) || *n != self.nodes[0].node());
                drop(extend.map(|e| self.w.propose(e)));
            }
            3 => {
                let since = Millis(self.w.now.0 - 1_000 * i64::from(pick));
                drop(self.w.propose(Command::ExtendLeases { since, life_ms: 60_000 }));
            }
            _ => {
                let node = &self.nodes[usize::from(pick) % self.nodes.len()];
                let ask = (1..=u32::from(pick % 4))
                    .map(|s| self.w.ask(if pick.is_multiple_of(9) { "none" } else { "web" }, node, s))
                    .collect();
                drop(self.w.grants(&self.orchs[orch], ask));
            }
        }
    }
    fn play(&mut self, (kind, pick, pause): Op) {
        let ms = i64::from(pause);
        self.w.pass(if pause > 65_000 { 86_400_000 } else { ms });
        match kind % 32 {
            k @ 0..=10 => self.operator(k, pick),
            k @ 11..=16 => self.machine(k - 11, pick),
            k @ 17..=24 => self.scheduler(k - 17, pick),
            25 | 26 => {
                let next = self.secret + u64::from(!pick.is_multiple_of(4));
                let readers = if pick.is_multiple_of(5) { "shop/other" } else { "shop/*" };
                if self.w.put_secret("db", next, &[pick; 9], &[readers]).is_ok() {
                    self.secret = next;
                }
            }
            27 | 28 => {
                let spec = self.w.spec("web", self.spec + u64::from(!pick.is_multiple_of(4)), &["db"]);
                if self.w.deploy(&spec).is_ok() {
                    self.spec = spec.version;
                }
            }
            29 => drop(self.w.vouch(["web", "x", "y"][usize::from(pick) % 3])),
            30 => {
                let note = NoteFacts {
                    kind: NoteKind::Evidence,
                    actor: "node/x".into(),
                    subject: "s".into(),
                    detail: "d".into(),
                    count: 1,
                };
                drop(self.w.propose(Command::Note(note)));
            }
            _ => drop(self.w.propose(Command::Tick)),
        }
    }
}

fn replayed(log: &[Stamped], mut s: State) -> State {
    for c in log {
        drop(s.apply(Stamped::decode(&c.encode()).unwrap()));
    }
    s
}

/// Commands that may change something small without a leaf: time, a lease kept, a detail of a report, when an extension
/// was last refused, how far a voter is, which Bundle a machine believes.
fn quiet(c: &Command) -> bool {
    use Command as C;
    matches!(
        c,
        C::Acked(_)
            | C::Tick
            | C::KeepLease { .. }
            | C::ExtendLeases { .. }
            | C::Reports { .. }
            | C::Grants { .. }
            | C::Extend { .. }
            | C::Progress(_)
    )
}

/// Replays step by step: whatever changes the state has a leaf.
fn each_change_has_a_leaf(log: &[Stamped]) {
    let mut s = State::default();
    for c in log {
        let before = s.encode();
        let done = s.apply(c.clone());
        if done.leaves.is_empty() && !quiet(&c.command) && s.is_founded() {
            let at = Millis(c.at.0.max(START.0));
            assert!(s.encode() == crate::world::at_time(&before, at), "changed without a leaf: {:?}", c.command);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    // The world's `apply` checks `a_refused_command_changes_nothing` at every step of these histories.
    #[test]
    fn replaying_the_log_gives_the_same_state(ops in proptest::collection::vec(any::<Op>(), 60), cut in any::<proptest::sample::Index>()) {
        let mut p = Player::new();
        for op in ops {
            p.play(op);
        }
        let end = p.w.state.encode();
        prop_assert!(replayed(&p.w.log, State::default()).encode() == end);
        let (first, second) = p.w.log.split_at(cut.index(p.w.log.len()));
        let snapshot = replayed(first, State::default()).frozen().encode();
        prop_assert!(replayed(second, State::decode(&snapshot).unwrap()).encode() == end);
        log::check(&p.w.leaves, &p.w.kinds_since(0), p.w.state.log_head());
        each_change_has_a_leaf(&p.w.log);
    }
}

#[test]
fn a_refused_command_changes_nothing() {
    // Each of these is refused in `apply`; the world compares the states.
    let (mut w, orch, node) = World::shop();
    let request = [1; 16];
    let body = holdfast_types::sha256(&[b"body"]);
    let grants = |orders| Command::Grants { orch: orch.orch(), request, body, orders };
    w.propose(grants(Vec::new())).result.unwrap();
    w.pass(5);
    // Regression: a replayed request id was remembered for longer by its refusal.
    let founding = w.log[0].command.clone();
    let stranger = holdfast_types::OrchId::parse("orch-x").unwrap();
    let refused = [
        grants(Vec::new()),
        founding,
        Command::Activate { id: node.id.clone(), serial: "0".into() },
        Command::Activate { id: "node-x".into(), serial: "0".into() },
        Command::Fork { id: "node-x".into(), detail: String::new() },
        Command::KeepLease { orch: stranger, session_addr: "x".into(), life_ms: 1 },
        // A certificate that the voter has already.
        w.log[1].command.clone(),
    ];
    for c in refused {
        assert!(w.propose(c.clone()).result.is_err(), "{c:?}");
    }
}
