//! Committed writes a second: 1 KiB secrets put by 64 clients, encrypted and synced.
//!
//! Beside it: etcd with as many members on the same disk in the same run, over clear connections and without encryption.

use crate::Failed;
use crate::cluster::{self, world::World};
use crate::etcd::Etcd;
use crate::line::{Goal, Line};
use crate::load::Taken;
use crate::puts::Operator;
use std::sync::OnceLock;
use std::time::Duration;

pub const HOW: &str = "64 clients, each on a connection of its own, put 1 KiB secrets for 5 s: each is opened from its box, checked, \
     sealed, in the log and synced before it is answered; beside: etcd's puts of 1 KiB by 64 clients that way";
pub const HOW_P99: &str = "the same run: 99 of 100 calls were answered within; beside: etcd's";

const CLIENTS: usize = 64;
const BYTES: usize = 1 << 10;
const SPAN: Duration = Duration::from_secs(5);
/// Versions each client has ready: more than it comes to.
const READY: usize = 1500;

type Both = (Taken, Taken);

fn one() -> Result<&'static Both, Failed> {
    static RUN: OnceLock<Result<Both, String>> = OnceLock::new();
    let measure = || -> Result<Both, Failed> {
        let w = World::founded();
        w.ok(&["status"]);
        let ours = cluster::runtime()?.block_on(async {
            let operator = Operator::load(&w.path("home"))?;
            operator.puts(&format!("127.0.0.1:{}", w.service), CLIENTS, BYTES, READY, SPAN).await
        })?;
        drop(w);
        let etcd = Etcd::start(1)?;
        let theirs = cluster::runtime()?.block_on(etcd.puts(CLIENTS, BYTES, SPAN))?;
        Ok((ours, theirs))
    };
    RUN.get_or_init(|| measure().map_err(|e| e.to_string())).as_ref().map_err(|e| e.clone().into())
}

pub fn one_voter() -> Result<Line, Failed> {
    let (ours, theirs) = one()?;
    Ok(Line { value: ours.a_second, unit: "puts/s", beside: theirs.a_second, goal: Goal::OfBeside(1.2) })
}

pub fn one_voter_p99() -> Result<Line, Failed> {
    let (ours, theirs) = one()?;
    let (value, beside) = (ours.quantile_ms(0.99), theirs.quantile_ms(0.99));
    Ok(Line { value, unit: "ms", beside, goal: Goal::AboveBeside(0.0) })
}
