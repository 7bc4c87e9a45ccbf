//! One history: a leader's decisions in drawn order, some of them held back until they are no longer true, and replicas
//! that follow, lag, crash and come back.

mod keys;
mod roots;

use super::history::{Ack, Fault, History};
use super::replica::Replica;
use super::world::{Machine, World, csr};
use holdfast_types::TokenId;
use holdfast_vault_core::prepare::{self, JoinOutcome};
use holdfast_vault_core::{Committed, Prepared, Refusal};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::v1;
use v1::command::Action;

/// Decisions in one history.
const STEPS: usize = 60;
/// Of one in so many seeds, the history goes into a new era shortly before its end.
const ERAS: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Join,
    Put,
    Delete,
    Lease,
    Grant,
    Report,
    Remove,
    Renew,
    Repeat,
    Tick,
    Root,
    /// Steps of a rotation until a root was added, signs, or was dropped: never drawn.
    RootAdded,
    RootSwitched,
    RootDropped,
    Term,
    Retire,
    Admit,
    Evict,
    Unlock,
    Charter,
    Reset,
}
const DRAWN: [Step; 25] = [
    Step::Join,
    Step::Put,
    Step::Put,
    Step::Put,
    Step::Delete,
    Step::Lease,
    Step::Lease,
    Step::Lease,
    Step::Grant,
    Step::Grant,
    Step::Grant,
    Step::Report,
    Step::Remove,
    Step::Renew,
    Step::Repeat,
    Step::Tick,
    Step::Root,
    Step::Term,
    Step::Retire,
    Step::Admit,
    Step::Evict,
    Step::Unlock,
    Step::Unlock,
    Step::Unlock,
    Step::Charter,
];

/// Numbers that follow from a seed (splitmix64).
struct Draw(u64);
impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// Decided, and not yet in the log: its leader may lose its place meanwhile.
type Decided = Box<dyn FnOnce(&mut Play)>;

struct Play {
    w: World,
    draw: Draw,
    orchs: Vec<Machine>,
    nodes: Vec<Machine>,
    removed: Vec<Machine>,
    tokens: Vec<(TokenId, super::world::Token)>,
    statements: Vec<(v1::Statement, Vec<u8>)>,
    waiting: Vec<Decided>,
    roots: roots::Keys,
    h: History,
    told: usize,
    /// A new era has begun, whose keys nobody has here.
    over: bool,
}

/// Plays the history of `seed`, with a fault planted in its midst.
pub fn play(seed: u64, fault: Option<Fault>) -> History {
    let mut p = Play::new(seed);
    let mut replicas = [Replica::new(), Replica::new(), Replica::new()];
    let mut planted = false;
    for n in 0..STEPS {
        let last = n + 8 == STEPS && seed % ERAS == 1;
        let drawn = if last { Step::Reset } else { DRAWN[p.draw.below(DRAWN.len())] };
        let forgets = fault.and_then(Fault::forgets).filter(|_| !planted && n > STEPS / 3);
        let step = forgets.unwrap_or(drawn);
        let before = forgets.is_some().then(|| p.remember());
        p.step(step);
        if let Some(before) = before
            && p.h.all.len() > before.2
        {
            planted = true;
            p.forget(before);
            if fault == Some(Fault::CommandTwice) { p.again() } else { p.step(step) }
        }
        for r in &mut replicas {
            if p.draw.one_in(3) {
                let upto = r.applied + p.draw.below(p.w.log.len() - r.applied + 1);
                r.follow(&p.w.log, upto);
            }
            if p.draw.one_in(9) {
                r.save();
            }
            if p.draw.one_in(11) {
                r.crash(&p.w.log);
            }
        }
        if fault == Some(Fault::SkippedCommand) && n == STEPS / 2 {
            replicas[1].follow(&p.w.log, p.w.log.len() - 1);
            replicas[1].skip();
        }
    }
    p.finish(&mut replicas, fault)
}

impl Play {
    fn new(seed: u64) -> Self {
        let (mut w, a, n) = World::shop();
        w.checked = seed.is_multiple_of(8);
        let b = w.orchestrator();
        let m = w.mandate("m2", &[&b.id]);
        w.put_mandate(&m).unwrap();
        let second = w.node();
        let mut p = Self {
            w,
            draw: Draw(seed),
            orchs: vec![a, b],
            nodes: vec![n, second],
            removed: Vec::new(),
            tokens: Vec::new(),
            statements: Vec::new(),
            waiting: Vec::new(),
            roots: roots::Keys::default(),
            h: History::empty(),
            told: 0,
            over: false,
        };
        p.observe();
        p
    }

    /// Notes what the last commands did.
    fn observe(&mut self) {
        let fresh: Vec<_> = (self.told..self.w.leaves.len()).map(|i| self.w.entry(i as u64)).collect();
        self.told = self.w.leaves.len();
        self.h.all.extend(fresh);
        let s = &self.w.state;
        let held = s.lease_views().into_iter().map(|l| (self.w.now.0, l.namespace, l.holder, l.fence));
        self.h.leases.extend(held);
        // Epochs begin anew with an era.
        let revision = (s.era() << 40) + s.status_view(self.w.now).epoch;
        self.h.marks.push((s.time(holdfast_types::Millis(0)).0, revision, s.log_head().0));
        self.observe_roots();
    }

    fn remember(&self) -> (Vec<u8>, usize, usize) {
        (self.w.state.encode(), self.w.leaves.len(), self.h.all.len())
    }

    /// The leader goes back to what it remembered, as a disk that was put back would.
    fn forget(&mut self, (state, leaves, _): (Vec<u8>, usize, usize)) {
        self.w.state = holdfast_vault_core::State::decode(&state).unwrap();
        self.w.leaves.truncate(leaves);
        self.told = leaves;
        self.over = false;
        self.w.reopen();
        self.observe();
    }

    fn done(&mut self, kind: &'static str, subject: &str, done: &Committed) {
        // A command may write several leaves; the newest of this kind is its own.
        let last = (0..=done.leaf()).rev().take(8).find(|i| {
            let e = self.w.entry(*i);
            e.kind == kind && e.subject == subject
        });
        self.h.acks.extend(last.map(|leaf| Ack { leaf, kind, subject: subject.to_owned() }));
    }

    /// Commits at once, or later, when the leader that decided may have lost its place; or never.
    fn commit<T: 'static>(
        &mut self,
        prepared: Result<Prepared<T>, Refusal>,
        then: impl FnOnce(&mut Self, T, Committed) + 'static,
    ) {
        let Ok(prepared) = prepared else { return };
        let work: Decided = Box::new(move |p: &mut Self| {
            if let Ok((reply, done)) = p.w.commit(Ok(prepared)) {
                then(p, reply, done);
            }
            p.observe();
        });
        match self.draw.below(8) {
            0 => {}
            1 | 2 => self.waiting.push(work),
            _ => work(self),
        }
    }

    fn step(&mut self, step: Step) {
        let ms = [0, 3, 700, 9_000, 31_000, 62_000][self.draw.below(6)];
        self.w.pass(ms);
        if !self.waiting.is_empty() && self.draw.one_in(3) {
            let n = self.draw.below(self.waiting.len());
            let work = self.waiting.swap_remove(n);
            work(self);
        }
        match step {
            _ if self.over && step != Step::Repeat => drop(self.w.propose(holdfast_vault_core::Command::Tick)),
            Step::Join => self.join(),
            Step::Put => self.put(),
            Step::Delete => {
                let delete = v1::DeleteSecret { namespace: "shop".into(), name: self.name() };
                drop(self.w.act(&["sam"], Action::DeleteSecret(delete)));
            }
            Step::Lease => {
                let n = self.draw.below(2);
                drop(self.w.keep_lease(&self.orchs[n]));
            }
            Step::Grant => self.grant(),
            Step::Report => self.report(),
            Step::Remove => self.remove(),
            Step::Renew => {
                let n = self.draw.below(self.nodes.len());
                let (id, hpke) = (self.nodes[n].id.clone(), self.nodes[n].hpke_pub);
                drop(self.w.renew(&id, &csr().1, &hpke));
            }
            Step::Repeat => {
                if !self.statements.is_empty() {
                    let n = self.draw.below(self.statements.len());
                    let (st, sealed) = self.statements[n].clone();
                    drop(self.w.submit(&st, &sealed));
                }
            }
            Step::Tick => drop(self.w.propose(holdfast_vault_core::Command::Tick)),
            Step::Root => self.rotate(),
            Step::RootAdded => self.rotate_until("root.add"),
            Step::RootSwitched => self.rotate_until("root.switch"),
            Step::RootDropped => self.rotate_until("root.drop"),
            Step::Term => self.term(),
            Step::Retire => self.retire(),
            Step::Admit => self.admit(),
            Step::Evict => self.evict(),
            Step::Unlock => self.unlock(),
            Step::Charter => self.charter(),
            Step::Reset => self.reset(),
        }
        self.observe();
    }

    /// Submits the newest statement once more.
    fn again(&mut self) {
        if let Some((st, sealed)) = self.statements.last().cloned() {
            drop(self.w.submit(&st, &sealed));
        }
        self.observe();
    }

    fn name(&mut self) -> String {
        ["db", "key", "pin"][self.draw.below(3)].to_owned()
    }

    /// Somebody joins, with a fresh token or with one that was used before.
    fn join(&mut self) {
        if self.tokens.is_empty() || self.draw.one_in(2) {
            let t = self.w.mint("node");
            self.tokens.push((t.id, t));
        }
        let n = self.tokens.len() - 1;
        let (_, csr) = csr();
        let (_, hpke_pub) = derive_keypair(&self.w.entropy().draw("node hpke"));
        let nonce = self.w.entropy().draw("nonce");
        let token = &self.tokens[n].1;
        let proof = self.w.proof(token, &nonce, &csr, &hpke_pub);
        let prepared = prepare::join(&self.w.leader(), token.id, &nonce, &proof, &mut self.w.entropy());
        self.commit(prepared, |p, outcome, done| {
            if let JoinOutcome::Issued(i) = outcome {
                p.done("cert.issue", &format!("node/{}", i.id), &done);
            }
        });
    }

    fn put(&mut self) {
        let name = self.name();
        let views = self.w.state.secret_views();
        let secret = holdfast_types::SecretRef::of("shop", &name).unwrap();
        let deleted = self.w.state.deleted_secret_view(&secret).map_or(0, |v| v.version);
        let version = views.iter().find(|v| v.name == name).map_or(deleted, |v| v.version) + 1;
        let value = [u8::try_from(version % 251).unwrap_or(0); 24];
        let put = super::world::secret(&name, version, &["shop/web"]);
        let (st, sealed) = self.w.secret_statement(&["sam"], put, &value);
        let prepared = prepare::submit(&self.w.leader(), &st, &sealed, &mut self.w.entropy());
        self.statements.push((st, sealed));
        self.commit(prepared, move |p, (), done| p.done("secret.put", &format!("shop/{name}"), &done));
    }

    fn grant(&mut self) {
        let (o, n, slot) = (self.draw.below(2), self.draw.below(self.nodes.len()), 1 + self.draw.below(3) as u32);
        let ask = self.w.ask("web", &self.nodes[n], slot);
        let task = ask.task_id.clone();
        let prepared = self.w.prepare_grants(&self.orchs[o], vec![ask]);
        self.commit(prepared, move |p, replies, done| {
            for (reply, order) in replies.into_iter().zip(done.orders()) {
                if let (prepare::GrantReply::Issued { grant, .. }, Ok(_)) = (reply, order) {
                    let g: v1::Grant = holdfast_wire::statement::peek(&grant).unwrap();
                    p.h.grants.push((task.clone(), g.task_gen));
                }
            }
        });
    }

    fn report(&mut self) {
        let running: Vec<_> = self.w.state.grants().map(|(id, g)| (*id, g.node.clone())).collect();
        if running.is_empty() {
            return self.join();
        }
        let (grant, node) = running[self.draw.below(running.len())].clone();
        let state = ["started", "running", "stopped", "failed"][self.draw.below(4)];
        if let Some(n) = self.nodes.iter().position(|m| m.id == node.as_str()) {
            let node = self.nodes.swap_remove(n);
            drop(self.w.report(&node, &grant.to_vec(), state));
            self.nodes.push(node);
        }
    }

    /// Removes a node, and now and then one that was removed comes back and asks for more.
    fn remove(&mut self) {
        if self.nodes.len() < 2 || self.draw.one_in(3) {
            let m = self.w.node();
            self.nodes.push(m);
        }
        let n = self.draw.below(self.nodes.len());
        let id = self.nodes[n].id.clone();
        if self.w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id })).is_ok() && self.nodes.len() > 1 {
            let gone = self.nodes.swap_remove(n);
            self.removed.push(gone);
        }
        for m in &self.removed {
            let (id, hpke) = (m.id.clone(), m.hpke_pub);
            let r =
                v1::RenewRequest { csr: csr().1, hpke_pub: hpke.to_vec(), bundle_epoch: self.w.state.bundle_epoch() };
            let p = prepare::renew(&self.w.leader(), &id, &r, &mut self.w.entropy());
            drop(self.w.commit(p));
        }
        self.observe();
    }

    fn finish(mut self, replicas: &mut [Replica; 3], fault: Option<Fault>) -> History {
        while let Some(work) = self.waiting.pop() {
            work(&mut self);
        }
        let end = self.w.state.time(self.w.now);
        for r in replicas.iter_mut() {
            r.follow(&self.w.log, usize::MAX);
        }
        self.h.ends = replicas.iter().map(|r| r.at(end)).collect();
        self.h.leaves = self.w.leaves.clone();
        if fault == Some(Fault::LeafAltered)
            && let Some(l) = self.h.leaves.last_mut()
        {
            l.entry.push(0);
        }
        self.h.entries = (0..self.w.leaves.len()).map(|i| self.w.entry(i as u64)).collect();
        self.h.head = self.w.state.log_head();
        self.h
    }
}
