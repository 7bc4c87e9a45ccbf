//! Many clients at once for a span of time: how many calls were answered, and how long each took.

use crate::Failed;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

type Client = Pin<Box<dyn Future<Output = Result<Vec<Duration>, Failed>> + Send>>;

/// Clients that begin together.
pub struct Load {
    span: Duration,
    clients: Vec<Client>,
}

/// What a load came to.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Calls answered a second.
    pub a_second: f64,
    /// Each call's time, the shortest first.
    times: Vec<Duration>,
}

impl Taken {
    /// The time within which `share` of the calls were answered, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list that fits in memory"
        )]
        let at = (self.times.len() as f64 * share) as usize;
        let last = self.times.len().saturating_sub(1);
        self.times.get(at.min(last)).map_or(0.0, |t| t.as_secs_f64() * 1000.0)
    }
    /// The longest, in milliseconds.
    pub fn longest_ms(&self) -> f64 {
        self.times.last().map_or(0.0, |t| t.as_secs_f64() * 1000.0)
    }
}

impl Load {
    /// A load of so long.
    pub fn new(span: Duration) -> Self {
        Self { span, clients: Vec::new() }
    }

    /// One more client: `call(n)` makes its n-th call; `Ok(false)`: it has no more to ask.
    pub fn client<F, Fut>(&mut self, call: F)
    where
        F: Fn(usize) -> Fut + Send + 'static,
        Fut: Future<Output = Result<bool, Failed>> + Send,
    {
        let span = self.span;
        self.clients.push(Box::pin(async move {
            let (start, mut times) = (Instant::now(), Vec::new());
            for n in 0.. {
                let asked = Instant::now();
                if asked.duration_since(start) >= span || !call(n).await? {
                    break;
                }
                times.push(asked.elapsed());
            }
            Ok(times)
        }));
    }

    /// Runs them all to their end.
    pub async fn run(self) -> Result<Taken, Failed> {
        let start = Instant::now();
        let running: Vec<_> = self.clients.into_iter().map(tokio::spawn).collect();
        let mut times = Vec::new();
        for client in running {
            times.extend(client.await??);
        }
        let seconds = start.elapsed().as_secs_f64();
        times.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        let a_second = times.len() as f64 / seconds;
        Ok(Taken { a_second, times })
    }
}
