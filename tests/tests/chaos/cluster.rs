//! One story: three voters, their clients and their faults, from the founding to the judgement.

use crate::clients::{Clients, NAMESPACE};
use crate::disks::{SmallDisks, small};
use crate::faults::{Draw, Kind, happen};
use crate::net::{HEALED, Net, VOTERS, address, around};
use crate::voters::{Voter, Voters};
use crate::world::{World, within};
use std::sync::Arc;
use std::time::{Duration, Instant};
use suite::history::{Held, Op, Outcome, judge};
use tokio::runtime::Runtime;

/// How many clients write, and how many tokens are fought over.
const WRITERS: u32 = 4;
const TOKENS: usize = 6;

/// What was seen.
pub struct Story {
    /// What was to happen, and what did.
    kinds: Vec<Kind>,
    happened: Vec<Kind>,
    ops: Vec<Op>,
    held: Vec<Held>,
    strange: Vec<String>,
}

/// A voter in a network of its own, whose log is cut short often.
fn place(w: &World, name: &str) -> Voter {
    let number = name.trim_start_matches("vault").parse().unwrap_or(1);
    let mut voter = Voter::place(w, name);
    voter.host = address(number);
    voter.through = around().through(number);
    voter.more = "snapshot_every = 100".to_owned();
    voter
}

/// The same on a small disk of its own.
fn small_place(w: &World, name: &str) -> Voter {
    let voter = place(w, name);
    small(&voter);
    voter
}

impl Story {
    /// Faults of these kinds for so long.
    pub fn of(net: &Net, draw: &mut Draw, kinds: &[Kind], time: Duration) -> Self {
        let fills = kinds.contains(&Kind::Full);
        let mut v = Voters::founded_at(VOTERS, if fills { small_place } else { place });
        let _disks = fills.then(|| SmallDisks::of(&v));
        v.settle();
        let tokens: Vec<_> = (0..TOKENS).map(|_| v.w.token("node", &["--zone", "eu"])).collect();
        let runtime = Runtime::new().unwrap();
        let clients = Arc::new(Clients::of(&v));
        let orchestrators = [0, 1].map(|_| runtime.block_on(clients.orchestrator(&v.w)));
        // A lease is of a namespace that has a service.
        let image = v.w.busybox();
        let spec =
            format!("name = \"web\"\nnamespace = \"{NAMESPACE}\"\nimage = {image:?}\ncommand = [\"/bin/busybox\"]\n");
        v.w.ok(&["service", "deploy", "-f", &v.w.write_spec("chaos", &spec), "--detach"]);
        let mut tasks = Vec::new();
        for client in 1..=WRITERS {
            tasks.push(runtime.spawn(clients.clone().write(client, Draw(draw.number()))));
        }
        for client in [10, 11] {
            tasks.push(runtime.spawn(clients.clone().use_tokens(client, tokens.clone(), Draw(draw.number()))));
        }
        for (id, identity) in orchestrators {
            tasks.push(runtime.spawn(clients.clone().keep(id, identity, Draw(draw.number()))));
        }

        let until = Instant::now() + time;
        // Each kind once, shortly; then, while there is time, whatever comes, for longer.
        let mut happened = Vec::new();
        for kind in draw.shuffled(kinds) {
            happen(&mut v, net, kind, draw, 1200);
            happened.push(kind);
            std::thread::park_timeout(draw.wait(0, 500));
        }
        while Instant::now() < until {
            let kind = kinds[draw.below(kinds.len())];
            happen(&mut v, net, kind, draw, 2500);
            happened.push(kind);
            // A moment without a fault, now and then none at all.
            std::thread::park_timeout(draw.wait(0, 1500));
        }
        net.heal();
        within(HEALED, "every voter to be ready once all is well again", || {
            v.all.iter().all(|voter| voter.state() == "ready").then_some(())
        });
        v.settle();
        clients.stop.cancel();
        runtime.block_on(async {
            for task in tasks {
                tokio::time::timeout(HEALED, task).await.expect("a client does not end").expect("a client failed");
            }
            clients.look(HEALED).await;
        });
        v.verifies();
        let (ops, held, strange) = clients.notes.taken();
        Self { kinds: kinds.to_vec(), happened, ops, held, strange }
    }

    /// Enough happened to be judged, and nothing of it was wrong.
    pub fn judged(self) {
        let missed: Vec<_> = self.kinds.iter().filter(|k| !self.happened.contains(k)).collect();
        assert!(missed.is_empty(), "never happened: {missed:?}");
        let count = |outcome: Outcome| self.ops.iter().filter(|op| op.outcome == outcome).count();
        let (done, refused, unknown) = (count(Outcome::Done), count(Outcome::Refused), count(Outcome::Unknown));
        eprintln!(
            "{} operations: {done} done, {refused} refused, {unknown} unknown; {} times sure of a lease",
            self.ops.len(),
            self.held.len()
        );
        assert!(done >= 20 && !self.held.is_empty(), "too little was acknowledged to judge by");
        assert!(self.strange.is_empty(), "{}", self.strange.join("\n"));
        let faults: Vec<String> = judge(&self.ops, &self.held).iter().map(ToString::to_string).collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
