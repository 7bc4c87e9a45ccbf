//! The identity that renews itself.
//!
//! LAW: a new private key is on disk before its request is sent, and a lost reply is followed by the same request with
//! the same key (protocol, renewal chain R2): a second key would look like a clone and burn the identity. Test:
//! `a_lost_reply_is_retried_with_the_same_key_even_after_a_restart`. An identity whose certificate is over comes back by its
//! key, with the same pending key: [`crate::rejoin`].

mod store;

pub use store::{FileStore, KeyStore, StoreError, Stored};

use crate::client::Backoff;
use crate::clock::{jittered, now};
use crate::failure::Failure;
use crate::keys::{KeyError, PrivateKey};
use crate::tls::{IdentityCell, IdentityError, LocalIdentity, TrustCell};
use holdfast_pki::chain::{ChainError, Usage, verify_peer};
use holdfast_types::{Millis, SpiffeId};
use rustls::pki_types::CertificateDer;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Whoever signs requests: calls `Identity.Renew` over a connection that presents the current identity.
pub trait Authority: Send + Sync {
    /// Asks for a certificate for the key of `csr` (PKCS #10, DER). May be called again with the same request.
    fn renew(&self, csr: Vec<u8>) -> impl Future<Output = Result<Renewed, Failure>> + Send;
    /// Asks for a certificate for the key of `csr` where the present one is over or not believed: `old`, the key that it is for,
    /// proves who asks. May be called again with the same request.
    fn rejoin(&self, csr: Vec<u8>, old: PrivateKey) -> impl Future<Output = Result<Renewed, Failure>> + Send {
        drop((csr, old));
        std::future::ready(Err(Failure::refused("certificate-refused", "the certificate is over")))
    }
}

/// What the authority gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// When the authority wants to be asked again, which spreads that itself; by default after a third of the
    /// certificate's life, spread by a fifth.
    pub renew_after: Option<Duration>,
}

/// Why a renewal did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The authority said no, or cannot be reached.
    #[error("renewal: {0}")]
    Authority(#[from] Failure),
    /// The new key could not be kept, so it was not used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key could not be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What came back is not an identity for our key.
    #[error("the renewed certificate is not ours: {0}")]
    Identity(#[from] IdentityError),
    /// What came back is not believed.
    #[error("the renewed certificate is not believed: {0}")]
    Chain(#[from] ChainError),
    /// What came back names somebody else.
    #[error("the renewed certificate names {0}")]
    OtherName(SpiffeId),
}

impl RenewError {
    /// True if another attempt may succeed without anybody changing anything: nobody has refused this identity. A server that is not
    /// believed may be a voter that was off for as long as we were, and has no certificate of now yet.
    pub(crate) fn may_pass(&self) -> bool {
        let not_believed = |failure: &Failure| matches!(&*failure.code, "clock" | "server-not-trusted");
        matches!(self, Self::Authority(failure) if failure.may_pass() || not_believed(failure))
    }
}

/// When to renew out of turn, and who wants to know that it was done.
#[derive(Debug)]
pub struct Renewals {
    /// Notify it to renew at once: the vault's `RenewNow`.
    pub wanted: Notify,
    /// Rises with every new certificate.
    pub done: watch::Sender<u64>,
    /// The vault does not believe the present certificate.
    refused: AtomicBool,
}
impl Default for Renewals {
    fn default() -> Self {
        Self { wanted: Notify::new(), done: watch::Sender::new(0), refused: AtomicBool::new(false) }
    }
}
impl Renewals {
    /// The vault does not believe our certificate, whatever our clock says of it: we come back by its key. Until that is done it
    /// is news only once.
    pub fn refused(&self) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            self.wanted.notify_one();
        }
    }
}

/// Renews the identity in a cell, again and again.
pub struct Renewer<A> {
    store: Arc<dyn KeyStore>,
    cell: Arc<IdentityCell>,
    trust: Arc<TrustCell>,
    authority: A,
}

/// Shortest wait between two renewals, whatever the authority says.
const MIN_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two attempts of an identity whose certificate is over, while nobody has refused it.
const AWAY: Duration = Duration::from_secs(10);
/// Longest sleep: after it the clock is looked at again.
const NAP: Duration = Duration::from_secs(60);

impl<A: Authority> Renewer<A> {
    /// For the identity in `cell`, whose key is kept in `store`.
    pub fn new(store: Arc<dyn KeyStore>, cell: Arc<IdentityCell>, trust: Arc<TrustCell>, authority: A) -> Self {
        Self { store, cell, trust, authority }
    }

    /// Until `stop`: renews at once if `at_once`, else when a third of the certificate's life is over, spread by a fifth;
    /// then when the authority wants to be asked again, or when told to. Retries from 1 s to 5 min apart.
    pub async fn run(&self, renewals: &Renewals, at_once: bool, stop: &CancellationToken) {
        let rounds = async {
            let mut due = self.first_due(at_once);
            loop {
                tokio::select! {
                    () = until(due) => {}
                    () = renewals.wanted.notified() => {}
                }
                due = self.until_renewed(renewals).await;
                renewals.done.send_modify(|n| *n += 1);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
    }

    /// LAW: machines that joined or started together do not renew together (`first_renewals_spread_and_never_come_at_once`).
    pub(crate) fn first_due(&self, at_once: bool) -> Millis {
        self.cell.current().filter(|_| !at_once).map_or_else(now, |identity| planned(&identity))
    }

    /// Being told again to renew ends a wait: what was in the way may be gone.
    async fn until_renewed(&self, renewals: &Renewals) -> Millis {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        // What the vault did not believe, it may believe by now: the two ways in turn.
        let mut by_key = true;
        loop {
            let over = self.is_over() || (by_key && renewals.refused.load(Ordering::Relaxed));
            by_key = !by_key;
            let error = match self.attempt(over).await {
                Ok(due) => {
                    renewals.refused.store(false, Ordering::Relaxed);
                    return due;
                }
                Err(error) => error,
            };
            tracing::warn!(%error, over, "certificate not renewed yet");
            let away = over && error.may_pass();
            let wait = backoff.next_delay();
            tokio::select! {
                () = sleep(if away { wait.min(jittered(AWAY, 0.5)) } else { wait }) => {}
                () = renewals.wanted.notified() => {}
            }
        }
    }

    /// True if the certificate in use has ended.
    fn is_over(&self) -> bool {
        self.life_left().is_zero()
    }

    /// For how long the certificate in use is good. Validity counts whole seconds and includes its last one.
    fn life_left(&self) -> Duration {
        let last = Duration::from_secs(1);
        self.cell.current().map_or(Duration::MAX, |identity| identity.not_after().plus(last).since(now()))
    }

    /// One attempt; when the next renewal is due. On failure the pending key stays, and the next attempt uses it. A certificate
    /// that is over is not renewed: its key proves who comes back.
    pub async fn renew(&self) -> Result<Millis, RenewError> {
        self.attempt(self.is_over()).await
    }

    async fn attempt(&self, over: bool) -> Result<Millis, RenewError> {
        let key = in_background({
            let store = self.store.clone();
            move || pending_key(store.as_ref())
        })
        .await?;
        let renewed = if over {
            let store = self.store.clone();
            let stored = in_background(move || Ok(store.load()?.ok_or(StoreError::NoIdentity)?)).await?;
            self.authority.rejoin(key.csr()?, stored.key).await?
        } else {
            // Once it is over no connection is made with it, and what waits for one waits in vain.
            let late =
                |_| Failure::unavailable("timed-out", "the certificate was over before its renewal was answered");
            timeout(self.life_left(), self.authority.renew(key.csr()?)).await.map_err(late)??
        };
        let identity = LocalIdentity::new(&renewed.chain, &key)?;
        self.check(&renewed.chain, &identity)?;
        in_background({
            let (store, chain) = (self.store.clone(), renewed.chain);
            move || Ok(store.promote(&chain)?)
        })
        .await?;
        let due = renewed.renew_after.map_or_else(|| planned(&identity), |wait| now().plus(wait.max(MIN_WAIT)));
        tracing::info!(id = %identity.id().short(), until = %identity.not_after(), "certificate renewed");
        self.cell.swap(identity);
        Ok(due)
    }

    /// A certificate that others would refuse, or that makes us somebody else, never replaces a good one.
    fn check(&self, chain: &[Vec<u8>], identity: &LocalIdentity) -> Result<(), RenewError> {
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
        let peer = verify_peer(&chain, &self.trust.current(), now(), Usage::Client)?;
        match self.cell.current() {
            Some(old) if *old.id() != peer.id => Err(RenewError::OtherName(identity.id().clone())),
            Some(_) | None => Ok(()),
        }
    }
}

/// The pending key: the one of an attempt whose reply was lost, or a new one that is stored before it is returned.
pub fn pending_key(store: &dyn KeyStore) -> Result<PrivateKey, RenewError> {
    let key = match store.load_pending()? {
        Some(key) => key,
        None => {
            let key = PrivateKey::generate()?;
            store.save_pending(&key)?;
            key
        }
    };
    // What operators name who let a quarantined machine go on.
    tracing::info!(key = %key.spki_sha256(), "the next certificate is asked for with this key");
    Ok(key)
}

async fn until(due: Millis) {
    while now() < due {
        sleep(due.since(now()).min(NAP)).await;
    }
}

/// A third of the certificate's life after its start, spread by a fifth.
fn planned(identity: &LocalIdentity) -> Millis {
    let third = identity.not_after().since(identity.not_before()) / 3;
    identity.not_before().plus(jittered(third, 0.2))
}

/// Runs `f`, which waits for a disk, off the runtime's threads.
async fn in_background<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, RenewError> + Send + 'static,
) -> Result<T, RenewError> {
    tokio::task::spawn_blocking(f).await.unwrap_or_else(|_| Err(StoreError::Interrupted.into()))
}
