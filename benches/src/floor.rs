//! What the cryptography of a task costs by itself: the figure that no arrangement around it can exceed.

use crate::Failed;
use std::time::{Duration, Instant};

/// How long the floor is measured.
const SPAN: Duration = Duration::from_secs(2);

/// How often a second `work` is done while every processor does nothing else.
pub fn a_second(work: impl Fn() -> Result<(), Failed> + Sync) -> Result<f64, Failed> {
    let threads = std::thread::available_parallelism()?.get();
    let start = Instant::now();
    let done: Result<Vec<u32>, Failed> = std::thread::scope(|s| {
        let all: Vec<_> = (0..threads).map(|_| s.spawn(|| until(start + SPAN, &work))).collect();
        all.into_iter().map(|t| t.join().map_err(|_| "a thread panicked")?).collect()
    });
    Ok(f64::from(done?.iter().sum::<u32>()) / start.elapsed().as_secs_f64())
}

fn until(end: Instant, work: impl Fn() -> Result<(), Failed>) -> Result<u32, Failed> {
    let mut done = 0;
    while Instant::now() < end {
        work()?;
        done += 1;
    }
    Ok(done)
}
