//! Histories of rotations in which everything may happen, in any order: the transitions of the model `rootrot.py`, driven
//! through the machine itself, with chains that are verified as anybody verifies them.

use super::world::{HOUR, Roots, Standing, believes};
use holdfast_pki::bundle::{Admins, verify_bundle_chain};
use holdfast_pki::chain::Usage;
use holdfast_pki::given::not_after;
use holdfast_types::{Digest, Millis, Role};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Nodes, and an orchestrator behind them.
const MACHINES: usize = 4;
/// So much time passes at once.
const PASS: i64 = 30 * HOUR;

#[derive(Debug, Clone, Copy)]
enum Op {
    Order,
    Abort,
    Add,
    Switch(u8),
    Drop(u8),
    Step,
    Report,
    Deliver(u8),
    Ack(u8),
    Renew(u8),
    Show(u8),
    Off(u8),
    On(u8),
    Pass,
}

fn op() -> impl Strategy<Value = Op> {
    let n = any::<u8>;
    prop_oneof![
        3 => Just(Op::Order),
        1 => Just(Op::Abort),
        3 => Just(Op::Add),
        3 => n().prop_map(Op::Switch),
        4 => n().prop_map(Op::Drop),
        3 => Just(Op::Step),
        3 => Just(Op::Report),
        4 => n().prop_map(Op::Deliver),
        4 => n().prop_map(Op::Ack),
        4 => n().prop_map(Op::Renew),
        4 => n().prop_map(Op::Show),
        1 => n().prop_map(Op::Off),
        2 => n().prop_map(Op::On),
        2 => Just(Op::Pass),
    ]
}

struct Play {
    r: Roots,
    machines: Vec<Standing>,
    /// Who trusts which Bundle, and which leaf it believed already, as a server's or a client's.
    seen: BTreeSet<(Digest, Vec<u8>, bool)>,
    epoch: u64,
}

impl Play {
    fn new() -> Self {
        let mut r = Roots::new();
        // The laws of the world cost a copy of the state at each step; they have histories of their own.
        r.w.checked = false;
        // Who is up renews before as much time passes at once as an orchestrator's certificate lives.
        r.w.lives.orch = r.w.lives.node;
        let mut machines: Vec<Standing> = (1..MACHINES).map(|_| r.node()).collect();
        machines.push(r.orchestrator());
        Self { r, machines, seen: BTreeSet::new(), epoch: 0 }
    }
    fn root(&self, n: u8) -> Digest {
        let all = self.r.trusted();
        all[usize::from(n) % all.len()]
    }
    fn play(&mut self, op: Op) {
        let i = |n: u8| usize::from(n) % MACHINES;
        let r = &mut self.r;
        match op {
            Op::Order => drop(r.order("software")),
            Op::Abort => drop(r.abort()),
            Op::Add => drop(r.add()),
            Op::Switch(n) => {
                let root = self.root(n);
                drop(self.r.switch(root));
            }
            Op::Drop(n) => {
                let root = self.root(n);
                drop(self.r.drop_root(root));
            }
            Op::Step => {
                r.step();
            }
            Op::Report => r.report(),
            Op::Deliver(n) if self.machines[i(n)].online => r.deliver(&mut self.machines[i(n)]),
            Op::Ack(n) if self.machines[i(n)].online => r.ack(&self.machines[i(n)]),
            Op::Renew(n) if self.machines[i(n)].online && r.is_live(&self.machines[i(n)]) => {
                r.renew(&mut self.machines[i(n)]);
            }
            Op::Show(n) if self.machines[i(n)].online => {
                r.show(&mut self.machines[i(n)]);
            }
            Op::Off(n) => self.machines[i(n)].online = false,
            Op::On(n) => self.machines[i(n)].online = true,
            Op::Pass => self.pass(),
            Op::Deliver(_) | Op::Ack(_) | Op::Renew(_) | Op::Show(_) => {}
        }
    }
    /// Time passes; who is up renews in time, who is off does not. In time is before its certificate is over: also who was off
    /// until now, and has less left of it than what passes.
    fn pass(&mut self) {
        self.renew_all(|end, now| end <= Millis(now.0 + PASS));
        self.r.w.pass(PASS);
        self.r.keep_issuer();
        self.r.report();
        self.renew_all(|_, _| true);
    }
    /// Who is up, with a certificate that is good still and ends at a time that is `due`, renews, and uses what it gets.
    fn renew_all(&mut self, due: impl Fn(Millis, Millis) -> bool) {
        for s in self.machines.iter_mut().filter(|s| s.online) {
            if self.r.is_live(s) && self.r.cert_end(s).is_some_and(|end| due(end, self.r.w.now)) {
                assert!(self.r.renew(s) && self.r.show(s), "who is up is refused its next certificate");
            }
        }
    }
    fn check(&mut self) {
        let (state, now, domain) = (&self.r.w.state, self.r.w.now, self.r.domain());
        let roots = state.roots();
        // INV2, INV4.
        assert_eq!(roots.iter().filter(|r| r.signer).count(), 1, "exactly one trusted root signs");
        assert!(roots.len() <= 3);
        // INV5, INV8: whoever was there at the founding follows all Bundles to the roots of today.
        let epoch = state.bundle_epoch();
        assert!(epoch >= self.epoch && epoch <= state.epoch());
        if epoch > self.epoch {
            let chain = state.bundle_chain();
            let first = super::world::v1_bundle(&chain[0]).roots;
            let charters = self.r.charters();
            let newest = verify_bundle_chain(&chain, &first, Admins::ever(&charters), &self.r.w.cluster).unwrap();
            assert_eq!(newest.doc.roots, state.roots_der());
        }
        self.epoch = epoch;
        let live: Vec<&Standing> = self.machines.iter().filter(|s| self.r.is_live(s)).collect();
        for s in &live {
            // INV3.
            assert!(
                self.r.cert_root(s).is_some_and(|d| state.root(&d).is_some()),
                "a live certificate needs a dropped root"
            );
        }
        // INV1: each with each, the vault among them. An orchestrator is dialled as well.
        let servers = live.iter().filter(|s| s.m.role == Role::Orch).map(|s| &s.chain).chain([&self.r.vault]);
        let servers = servers.map(|chain| (chain, Usage::Server));
        let chains = live.iter().map(|s| (&s.chain, Usage::Client)).chain(servers);
        let trusts = live.iter().map(|s| s.trust.doc.roots.clone()).chain([state.roots_der()]);
        let chains: Vec<_> = chains.collect();
        for trust in trusts {
            let key = holdfast_types::sha256(&trust.iter().map(Vec::as_slice).collect::<Vec<_>>());
            for (chain, usage) in &chains {
                if self.seen.insert((key, chain[0].clone(), *usage == Usage::Server)) {
                    let peer = believes(&trust, chain, &domain, now, *usage);
                    peer.unwrap_or_else(|e| panic!("INV1: who trusts {} roots refuses: {e}", trust.len()));
                    // INV9.
                    let ends: Vec<_> = chain.iter().take(2).map(|c| not_after(c).unwrap()).collect();
                    assert!(ends[0] <= ends[1], "a leaf outlives its issuer");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_two_live_identities_can_validate_each_other_whatever_happens(ops in proptest::collection::vec(op(), 50)) {
        let mut p = Play::new();
        for op in ops {
            p.play(op);
            p.check();
        }
        // And every state can still reach a stable one: who is off expires, and holds up nothing.
        p.r.w.checked = true;
        for s in p.machines.iter_mut().filter(|s| !s.online || !p.r.is_live(s)) {
            s.online = false;
        }
        for _ in 0..3 {
            p.pass();
            p.check();
        }
        p.r.settle(&mut p.machines);
        p.check();
        let all = p.r.trusted();
        prop_assert_eq!(all.len(), 1);
        prop_assert!(p.machines.iter().filter(|s| s.online).all(|s| p.r.cert_root(s) == Some(all[0])));
    }
}
