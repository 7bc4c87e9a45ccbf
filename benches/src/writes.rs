//! Committed writes a second: 1 KiB secrets put by 64 clients, encrypted and synced.
//!
//! Beside it: etcd with as many members on the same disk in the same run, over clear connections and without encryption.

use crate::Failed;
use crate::cluster::voters::Voters;
use crate::cluster::{self, world::World};
use crate::etcd::Etcd;
use crate::line::{Goal, Line};
use crate::load::Taken;
use crate::puts::Operator;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

pub const HOW: &str = "64 clients, each on a connection of its own, put 1 KiB secrets for 5 s: each is opened from its box, checked, \
     sealed, in the log and synced before it is answered; beside: etcd's puts of 1 KiB by 64 clients that way";
pub const HOW_P99: &str = "the same run: 99 of 100 calls were answered within; beside: etcd's";

pub const HOW_3: &str = "the same at the leader of three voters on this machine: in the logs of two and synced there before it is answered; \
     beside: etcd with three members, with its clients all at its leader or spread over the members, whichever is better";
pub const HOW_3_P99: &str = "the same run: 99 of 100 calls were answered within; beside: etcd's, in its better way";

pub const CLIENTS: usize = 64;
pub const BYTES: usize = 1 << 10;
pub const SPAN: Duration = Duration::from_secs(5);
/// Versions each client has ready: more than it comes to.
const READY: usize = 1500;

/// Ours, and each way of the peer's.
type Both = (Taken, Vec<Taken>);

fn puts(home: &Path, port: u16) -> Result<Taken, Failed> {
    cluster::runtime()?.block_on(async {
        let operator = Operator::load(home)?;
        operator.puts(&format!("127.0.0.1:{port}"), CLIENTS, BYTES, READY, SPAN).await
    })
}

fn etcd(members: usize) -> Result<Vec<Taken>, Failed> {
    let etcd = Etcd::start(members)?;
    cluster::runtime()?.block_on(async {
        let mut ways = vec![Etcd::puts(etcd.members(), CLIENTS, BYTES, SPAN).await?];
        // Ours are at the leader too: a follower sends its clients there.
        if members > 1 {
            ways.push(Etcd::puts(&[etcd.leader().await?], CLIENTS, BYTES, SPAN).await?);
        }
        Ok(ways)
    })
}

fn one() -> Result<&'static Both, Failed> {
    static RUN: OnceLock<Result<Both, String>> = OnceLock::new();
    once(&RUN, || {
        let w = World::founded();
        w.ok(&["status"]);
        let ours = puts(&w.path("home"), w.service)?;
        drop(w);
        Ok((ours, etcd(1)?))
    })
}

fn three() -> Result<&'static Both, Failed> {
    static RUN: OnceLock<Result<Both, String>> = OnceLock::new();
    once(&RUN, || {
        let v = Voters::founded(3);
        let leader = v.all.get(v.leader().0).ok_or("nobody leads")?.service;
        let ours = puts(&v.w.path("home"), leader)?;
        drop(v);
        Ok((ours, etcd(3)?))
    })
}

/// One run for both of its measurements.
fn once(
    run: &'static OnceLock<Result<Both, String>>,
    measure: impl FnOnce() -> Result<Both, Failed>,
) -> Result<&'static Both, Failed> {
    run.get_or_init(|| measure().map_err(|e| e.to_string())).as_ref().map_err(|e| e.clone().into())
}

/// The peer with one member, as the runs of one voter saw it.
pub fn etcd_alone() -> Result<Taken, Failed> {
    one()?.1.first().cloned().ok_or_else(|| "etcd was not measured".into())
}

fn rate((ours, theirs): &Both, times: f64) -> Line {
    let beside = theirs.iter().map(|t| t.a_second).fold(0.0, f64::max);
    Line { value: ours.a_second, unit: "puts/s", beside, goal: Goal::OfBeside(times) }
}

fn p99((ours, theirs): &Both) -> Line {
    let (value, each) = (ours.quantile_ms(0.99), theirs.iter().map(|t| t.quantile_ms(0.99)));
    let beside = each.fold(f64::INFINITY, f64::min);
    Line { value, unit: "ms", beside, goal: Goal::AboveBeside(0.0) }
}

pub fn one_voter() -> Result<Line, Failed> {
    one().map(|both| rate(both, 1.2))
}

pub fn one_voter_p99() -> Result<Line, Failed> {
    one().map(p99)
}

pub fn three_voters() -> Result<Line, Failed> {
    three().map(|both| rate(both, 1.5))
}

pub fn three_voters_p99() -> Result<Line, Failed> {
    three().map(p99)
}
