//! From the death of the leader to the next write that is acknowledged, through the client library.
//!
//! Beside it: the longest that a follower waits before it stands for election: the leader's lease, then its own timeout.

use crate::Failed;
use crate::cluster;
use crate::cluster::voters::Voters;
use crate::cluster::world::PATIENCE;
use crate::line::{self, Goal, Line};
use crate::puts::Operator;
use holdfast_transport::rpc::command_plane_client::CommandPlaneClient;
use std::time::Instant;

pub const HOW: &str = "median of 20: the leader of three voters is killed, and an operator's client that was connected to it puts a secret; \
     it finds the next leader by itself; beside: a leader's lease and an election timeout at its longest, 1500 ms, not measured";

const KILLS: usize = 20;
/// Twice `election_timeout_max` of the vault, which is the lease, too.
const ELECTION_MS: f64 = 1500.0;

pub fn after_a_kill() -> Result<Line, Failed> {
    let mut v = Voters::founded(3);
    let runtime = cluster::runtime()?;
    v.w.ok(&["status"]);
    let operator = Operator::load(&v.w.path("home"))?;
    let dialer = operator.dialer(v.all.iter().map(|voter| format!("{}:{}", voter.host, voter.service)));
    let put = |version: u64| -> Result<f64, Failed> {
        let request = operator.put("failover", version, b"value")?;
        let start = Instant::now();
        runtime.block_on(dialer.call(PATIENCE, |channel| {
            let request = request.clone();
            async move { CommandPlaneClient::new(channel).submit(request).await }
        }))?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let (mut times, mut version) = (Vec::with_capacity(KILLS), 0);
    for _ in 0..KILLS {
        // Connected, as a client at work is.
        put(version + 1)?;
        let (leader, _) = v.leader();
        let start = Instant::now();
        v.kill(leader);
        let until_dead = start.elapsed().as_secs_f64() * 1e3;
        times.push(until_dead + put(version + 2)?);
        version += 2;
        v.come_back(leader);
        v.settle();
    }
    times.sort_by(f64::total_cmp);
    let (first, last) = (times.first().copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
    line::say(&format!("  between {first:.0} and {last:.0} ms"));
    let value = times.get(KILLS / 2).copied().ok_or("nothing was measured")?;
    Ok(Line { value, unit: "ms", beside: ELECTION_MS, goal: Goal::AtMost(2000.0) })
}
