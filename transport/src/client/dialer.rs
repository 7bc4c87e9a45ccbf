//! Keeps trying: one of several addresses, the leader's first.
//!
//! Retries only what may pass by itself ([`Failure::may_pass`]); a refusal is final. Every call of ours can be repeated:
//! commands and requests carry ids that the vault accepts once.

use super::backoff::Backoff;
use super::link::{Link, Timing, dial};
use super::search::Search;
use crate::failure::Failure;
use crate::tls::ClientTls;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Most addresses that are remembered; hints beyond push out the least promising.
const MAX_ADDRS: usize = 32;

/// Dials the servers of one kind.
pub struct Dialer {
    tls: ClientTls,
    timing: Timing,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The most promising first.
    addrs: VecDeque<String>,
    /// The connection of [`Dialer::call`], if it is good.
    link: Option<Link>,
}

impl Dialer {
    /// Tries `addrs` (`host:port`) in their order.
    pub fn new<S: Into<String>>(addrs: impl IntoIterator<Item = S>, tls: ClientTls, timing: Timing) -> Self {
        let addrs = addrs.into_iter().map(Into::into).take(MAX_ADDRS).collect();
        Self { tls, timing, state: Mutex::new(State { addrs, link: None }) }
    }
    /// Forgets all addresses but `addrs`.
    pub fn set_addrs<S: Into<String>>(&self, addrs: impl IntoIterator<Item = S>) {
        self.state().addrs = addrs.into_iter().map(Into::into).take(MAX_ADDRS).collect();
    }
    /// Tries `addrs` before all others: what a follower said of the leader.
    pub fn prefer<S: Into<String>>(&self, addrs: impl IntoIterator<Item = S>) {
        let wanted: Vec<String> = addrs.into_iter().map(Into::into).collect();
        let mut state = self.state();
        state.addrs.retain(|a| !wanted.contains(a));
        wanted.into_iter().rev().for_each(|a| state.addrs.push_front(a));
        state.addrs.truncate(MAX_ADDRS);
    }
    /// The addresses, the most promising first.
    pub fn addrs(&self) -> Vec<String> {
        self.state().addrs.iter().cloned().collect()
    }

    /// One round: a connection to the first server that answers and is believed.
    pub async fn dial(&self) -> Result<Link, Failure> {
        let mut failures = Vec::new();
        for addr in self.addrs() {
            match dial(&addr, &self.tls, self.timing).await {
                Ok(link) => return Ok(link),
                Err(failure) => failures.push((addr, failure)),
            }
        }
        Err(summary(failures))
    }

    /// Rounds until one succeeds; `None` once `stop` is given. Says in the log what is in the way, once per round.
    pub async fn dial_until(&self, stop: &CancellationToken) -> Option<Link> {
        let mut backoff = Backoff::dialling();
        let rounds = async {
            loop {
                match self.dial().await {
                    Ok(link) => return link,
                    Err(failure) => {
                        let help = failure.help.as_deref();
                        tracing::warn!(code = %failure.code, details = ?failure.details, help, "{failure}");
                    }
                }
                sleep(backoff.next_delay()).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => None,
            link = rounds => Some(link),
        }
    }

    /// Makes one call, on the leader if only the leader answers it: dials, follows hints and tries again until it is
    /// answered, refused, or `patience` is over. Then the failure names what each address said.
    pub async fn call<T, Op, Fut>(&self, patience: Duration, op: Op) -> Result<T, Failure>
    where
        Op: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let begun = Instant::now();
        let deadline = begun + patience;
        let mut search = Search::new(begun);
        let mut last = None;
        loop {
            let failure = match timeout_at(deadline, self.attempt(&op, &mut search)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) if !failure.may_pass() => return Err(failure),
                Ok(Err(failure)) => failure,
                Err(_) => break,
            };
            let delay = search.pause(&failure, Instant::now());
            last = Some(failure);
            if Instant::now() + delay >= deadline {
                break;
            }
            sleep(delay).await;
        }
        self.state().link = None;
        Err(last.unwrap_or_else(|| Failure::unavailable("timed-out", format!("no answer within {patience:?}"))))
    }

    async fn attempt<T, Op, Fut>(&self, op: &Op, search: &mut Search) -> Result<T, Failure>
    where
        Op: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let link = self.link().await?;
        let failure = match op(link.channel.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => link.explain(status),
        };
        search.asked(&link.addr);
        if failure.may_pass() || link.was_refused() {
            self.state().link = None;
        }
        if !failure.may_pass() {
            return Err(failure);
        }
        let leaders = failure.leader_addrs();
        if leaders.is_empty() {
            self.demote(&link.addr);
        } else {
            self.prefer(leaders);
        }
        Err(failure.detail(link.addr, "answered that"))
    }

    /// The kept connection, unless our identity was renewed since: to a server, a retired certificate in use is a thief's.
    async fn link(&self) -> Result<Link, Failure> {
        let kept = self.state().link.clone();
        if let Some(link) = kept.filter(|link| link.presented(self.tls.identity().as_ref())) {
            return Ok(link);
        }
        let link = self.dial().await?;
        self.state().link = Some(link.clone());
        Ok(link)
    }

    /// Tries `addr` after all others from now on.
    fn demote(&self, addr: &str) {
        let mut state = self.state();
        if let Some(at) = state.addrs.iter().position(|a| a == addr) {
            state.addrs.remove(at);
            state.addrs.push_back(addr.to_owned());
        }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A round without success: one server's word if there is only one, and final only if every server was reached and
/// refused.
fn summary(failures: Vec<(String, Failure)>) -> Failure {
    let one_voice = failures.len() == 1 || failures.iter().all(|(_, f)| !f.may_pass());
    let details = failures.iter().map(|(addr, f)| (addr.clone(), f.message.clone())).collect();
    let mut all = match failures.into_iter().next() {
        Some((addr, first)) if one_voice => Failure { message: format!("{addr}: {}", first.message), ..first },
        Some(_) => Failure::unavailable("unreachable", "none of the servers can be reached")
            .help("check that they run there, and the addresses"),
        None => Failure::invalid("no-address", "there is no server address to dial"),
    };
    all.details = details;
    all
}
