//! This voter's token: started before rights are given up, and asked by one call at a time; the others wait in line.
//!
//! A token that failed is left alone: calls fail at once with its last word until a look finds that it answers again. So a
//! token that hangs costs those who were in line, each a few deadlines at most, and nobody who comes later.
//!
//! Must never: load a module into this process, try a PIN that was refused once more, or keep anything but root operations
//! waiting.

mod opening;
pub mod pin;
pub mod tokens;

use crate::config::Hsm;
use crate::disk::hsm::SlotToken;
use holdfast_hsm::process::{Keeper, KeeperOptions};
use holdfast_hsm::{KeyError, KeyId, KeyPort, Pkcs11Port, Purpose, Uri};
use holdfast_transport::failure::{Failure, FailureKind};
use holdfast_types::{SecretBytes, sha256};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a token is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// What a token that answers says in reports.
pub const OK: &str = "ok";
/// Longest word of a token's fault that goes into reports and alarms.
const WORDS: usize = 160;

/// What a token can do for a voter, whatever it is.
trait Back: KeyPort {
    fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError>;
    fn unwrap(&self, label: &str, wrapped: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError>;
    /// Whether it answers.
    fn check(&self) -> Result<(), KeyError>;
}

impl Back for Pkcs11Port {
    fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        Self::wrap(self, label, plain, aad)
    }
    fn unwrap(&self, label: &str, wrapped: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError> {
        Self::unwrap(self, label, wrapped, aad)
    }
    fn check(&self) -> Result<(), KeyError> {
        Self::check(self)
    }
}

/// How the token answered last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    /// It was not asked yet.
    Unasked,
    Good,
    Bad(KeyError),
}

/// The token.
pub struct Token {
    uri: Uri,
    issuer: bool,
    unlock: bool,
    /// `Err`: it cannot be used at all, and why.
    back: Result<Box<dyn Back>, KeyError>,
    health: Mutex<Health>,
}

impl Token {
    /// Starts what speaks with the token. What fails keeps the token from being used and the voter from nothing else.
    ///
    /// Call it before rights are given up: a confined process starts no other.
    pub fn start(config: &Hsm) -> Self {
        let back = begin(config);
        if let Err(e) = &back {
            tracing::error!("the token cannot be used: {e}");
        }
        Self::over(config, back)
    }

    fn over(config: &Hsm, back: Result<Box<dyn Back>, KeyError>) -> Self {
        let health = Mutex::new(back.as_ref().err().map_or(Health::Unasked, |e| Health::Bad(e.clone())));
        Self { uri: config.uri.clone(), issuer: config.issuer, unlock: config.unlock, back, health }
    }

    /// Whether keys of issuers are made in it.
    pub fn makes_issuers(&self) -> bool {
        self.issuer
    }

    /// Whether it is the token that `uri` names.
    pub fn is_named_by(&self, uri: &str) -> Result<bool, Failure> {
        let uri = Uri::parse(uri).map_err(|e| Failure::invalid("invalid-input", format!("the token's URI: {e}")))?;
        Ok(self.uri == uri)
    }

    /// This token as the one that opens the voter's disk, if it is to.
    pub fn for_disk(self: &Arc<Self>) -> crate::disk::hsm::OwnToken {
        self.unlock.then(|| Arc::clone(self) as Arc<dyn SlotToken>)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `ok`, or what is wrong: for reports, status and alarms. No call is made.
    pub fn word(&self) -> String {
        match &*self.health() {
            Health::Unasked => "was not asked yet".to_owned(),
            Health::Good => OK.to_owned(),
            Health::Bad(e) => shown(&e.to_string()),
        }
    }

    /// Whether it answered when it was asked last.
    #[cfg(test)]
    fn is_good(&self) -> bool {
        *self.health() == Health::Good
    }

    /// Whether anything is known of it yet.
    pub fn was_asked(&self) -> bool {
        *self.health() != Health::Unasked
    }

    /// Asks it whether it answers; blocks for as long as that takes, a few deadlines at most.
    pub fn look(&self) -> Result<(), KeyError> {
        let found = self.back.as_ref().map_err(Clone::clone).and_then(|back| back.check());
        self.learn(found.as_ref().map_or_else(|e| Health::Bad(e.clone()), |()| Health::Good));
        found
    }

    /// Calls the token, unless it failed lately.
    fn call<T>(&self, work: impl FnOnce(&dyn Back) -> Result<T, KeyError>) -> Result<T, KeyError> {
        let back = self.back.as_ref().map_err(Clone::clone)?;
        if let Health::Bad(e) = &*self.health() {
            return Err(e.clone());
        }
        let done = work(&**back);
        match &done {
            Ok(_) => self.learn(Health::Good),
            Err(e) if is_down(e) => self.learn(Health::Bad(e.clone())),
            // It will not do this one thing, which says nothing of the others.
            Err(_) => {}
        }
        done
    }

    fn learn(&self, now: Health) {
        let before = std::mem::replace(&mut *self.health(), now.clone());
        if before == now {
            return;
        }
        match now {
            Health::Bad(e) => tracing::warn!("the token does not answer: {e}"),
            Health::Good => tracing::info!("the token answers"),
            Health::Unasked => {}
        }
    }
}

fn begin(config: &Hsm) -> Result<Box<dyn Back>, KeyError> {
    let pin = pin::read(&config.pin).map_err(|why| KeyError::Unavailable(format!("there is no PIN: {why}")))?;
    let program =
        std::env::current_exe().map_err(|e| KeyError::Unavailable(format!("this program is not found: {e}")))?;
    let options = KeeperOptions { uri: config.uri.clone(), pin, deadline: config.timeout };
    let keeper = Keeper::spawn(&program, options)
        .map_err(|e| KeyError::Unavailable(format!("the token's process was not started: {e}")))?;
    Ok(Box::new(Pkcs11Port::new(keeper)))
}

/// Whether the token itself is out of reach, rather than unwilling in one case.
fn is_down(e: &KeyError) -> bool {
    matches!(e, KeyError::Unavailable(_) | KeyError::Timeout(_) | KeyError::Pin(_))
}

/// As it may stand in a report: short, in one line, of printable characters.
fn shown(word: &str) -> String {
    word.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect()
}

/// A token's error in the transport's words.
pub fn failure(e: &KeyError) -> Failure {
    let (kind, help) = match e {
        KeyError::Unavailable(_) | KeyError::Timeout(_) => {
            (FailureKind::Unavailable, Some("see docs/operations/hsm.md; it is tried again by itself"))
        }
        KeyError::Pin(_) => (
            FailureKind::Refused,
            Some("correct the PIN, then start this voter again: a PIN is tried once at each start"),
        ),
        KeyError::Full(_) => (FailureKind::Failed, Some("make room in the token")),
        KeyError::NotFound(_) | KeyError::Refused(_) | KeyError::Corrupt(_) => (FailureKind::Failed, None),
    };
    let failure = Failure::new(kind, e.word(), e.to_string());
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

impl KeyPort for Token {
    fn generate(&self, purpose: Purpose, name: &[u8]) -> Result<KeyId, KeyError> {
        self.call(|back| back.generate(purpose, name))
    }
    fn public(&self, id: &KeyId) -> Result<Vec<u8>, KeyError> {
        self.call(|back| back.public(id))
    }
    fn sign_p256(&self, id: &KeyId, msg: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.call(|back| back.sign_p256(id, msg))
    }
    fn destroy(&self, id: &KeyId) -> Result<(), KeyError> {
        self.call(|back| back.destroy(id))
    }
    fn list(&self) -> Result<Vec<KeyId>, KeyError> {
        self.call(|back| back.list())
    }
}

impl SlotToken for Token {
    fn id(&self) -> [u8; 16] {
        // Where its module lies is no part of which token it is.
        let u = &self.uri;
        let parts = format!("{:?}", (&u.token, &u.manufacturer, &u.serial, &u.model, u.slot_id));
        let mut id = [0; 16];
        id.iter_mut().zip(sha256(&[b"holdfast/v1/hsm-slot-token", parts.as_bytes()]).0).for_each(|(d, s)| *d = s);
        id
    }
    fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.call(|back| back.wrap(label, plain, aad))
    }
    fn unwrap(&self, label: &str, wrapped: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError> {
        self.call(|back| back.unwrap(label, wrapped, aad))
    }
}

/// Looks at the token now and then until `stop`: one that is back is used again.
pub async fn watch(token: Arc<Token>, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let of = Arc::clone(&token);
        // What is wrong is kept, and said where it is asked for.
        if tokio::task::spawn_blocking(move || of.look().is_ok()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
pub mod tests;
