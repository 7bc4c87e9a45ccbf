//! The key port over a token: [`KeyPort`] by a worker process that may hang, die and come back.
//!
//! One call at a time reaches the worker; the others wait in line, as many as [`LINE`]. A call that the token does not answer
//! within its deadline ends the worker, and the next call gets a new one. Every request may be repeated, so a call whose
//! worker was there before (a token that was restarted, logged out, taken away and put back) is tried once more by a new one.

use crate::message::{Answer, LONGEST_WRAPPED, Reply, Request, decode, encode};
use crate::port::{KeyError, KeyId, KeyPort, Purpose, Wraps};
use crate::process::{Channel, Keeper};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use holdfast_types::{SecretBytes, sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// As many calls wait for their turn; one more is refused.
const LINE: usize = 64;
/// Signatures are verified, but not more often than this: a token that signs wrongly does so more than once, and the
/// verification of each would cost half as much as making it.
const VERIFY_EVERY: Duration = Duration::from_millis(100);
/// No public key is looked up more often than necessary, and no more than these are remembered.
const REMEMBERED: usize = 64;

/// A token's keys, by its worker process.
pub struct Pkcs11Port {
    deadline: Duration,
    line: Mutex<Line>,
    turn: Condvar,
    known: Mutex<Known>,
}

/// Who speaks to the worker.
struct Line {
    waiting: usize,
    /// Absent while a call has it.
    link: Option<Link>,
}

/// The keeper, and the channel to the worker that runs.
struct Link {
    keeper: Keeper,
    worker: Option<Channel>,
}

#[derive(Default)]
struct Known {
    public: BTreeMap<KeyId, Vec<u8>>,
    verified: Option<Instant>,
}

impl Pkcs11Port {
    /// The port by this keeper. No worker is started before the first call.
    pub fn new(keeper: Keeper) -> Self {
        Self {
            deadline: keeper.deadline(),
            line: Mutex::new(Line { waiting: 0, link: Some(Link { keeper, worker: None }) }),
            turn: Condvar::new(),
            known: Mutex::default(),
        }
    }
    /// Asks the token whether it is there and logged in; starts a worker if there is none.
    pub fn check(&self) -> Result<(), KeyError> {
        match self.call(&Request::Check)? {
            Answer::Done => Ok(()),
            Answer::Id(_) | Answer::Bytes(_) | Answer::Ids(_) => Err(another()),
        }
    }
    /// Encrypts `plain` (at most 256 bytes) under the token's wrapping key of this label, which is made if there is none.
    /// The mechanism is the first byte of what comes back.
    pub fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        if plain.len() > LONGEST_WRAPPED {
            return Err(KeyError::Refused(format!("what is to be wrapped is over {LONGEST_WRAPPED} bytes")));
        }
        let mut request = Request::Wrap { label: label.to_owned(), aad: aad.to_vec(), plain: plain.to_vec() };
        let answer = self.call(&request);
        if let Request::Wrap { plain, .. } = &mut request {
            zeroize::Zeroize::zeroize(plain);
        }
        bytes(answer?)
    }
    /// Decrypts what [`Self::wrap`] gave; `aad` must be what it was.
    pub fn unwrap(&self, label: &str, blob: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError> {
        let request = Request::Unwrap { label: label.to_owned(), aad: aad.to_vec(), blob: blob.to_vec() };
        bytes(self.call(&request)?).map(SecretBytes::new)
    }

    /// Waits for its turn, and asks.
    fn call(&self, request: &Request) -> Reply {
        let mut link = self.take_turn()?;
        let reply = link.ask(request, self.deadline);
        lock(&self.line).link = Some(link);
        self.turn.notify_one();
        reply
    }
    /// The link, for one call. Most who have it give it back within one deadline; at the worst it takes three, and what the
    /// keeper takes: an old worker's answer, a new one's beginning, and its answer.
    fn take_turn(&self) -> Result<Link, KeyError> {
        let mut line = lock(&self.line);
        if line.waiting >= LINE {
            return Err(KeyError::Unavailable(format!("{LINE} calls wait for the token already")));
        }
        line.waiting += 1;
        let until = Instant::now() + self.deadline * 3;
        loop {
            if let Some(link) = line.link.take() {
                line.waiting -= 1;
                return Ok(link);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                line.waiting -= 1;
                return Err(KeyError::Unavailable("earlier calls keep the token busy".to_owned()));
            }
            line = self.turn.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
    /// Whether this signature is to be verified, and notes that it was.
    fn is_verified_now(&self) -> bool {
        let mut known = lock(&self.known);
        let due = known.verified.is_none_or(|at| at.elapsed() >= VERIFY_EVERY);
        if due {
            known.verified = Some(Instant::now());
        }
        due
    }
}

impl Link {
    /// Asks the worker; once more by a new one if it was an old one that had lost its token.
    fn ask(&mut self, request: &Request, deadline: Duration) -> Reply {
        if let Some(worker) = self.worker.take() {
            match exchange(&worker, request, deadline) {
                Err(KeyError::Unavailable(_)) => {}
                Err(e @ KeyError::Timeout(_)) => {
                    self.keeper.stop();
                    return Err(e);
                }
                reply => {
                    self.worker = Some(worker);
                    return reply;
                }
            }
        }
        let worker = self.keeper.start()?;
        let reply = match receive(&worker, deadline) {
            Ok(_) => exchange(&worker, request, deadline),
            // A worker that was not ready has ended itself.
            Err(e) => {
                self.keeper.stop();
                return Err(e);
            }
        };
        match &reply {
            Err(KeyError::Unavailable(_) | KeyError::Timeout(_)) => self.keeper.stop(),
            _ => self.worker = Some(worker),
        }
        reply
    }
}

fn exchange(worker: &Channel, request: &Request, deadline: Duration) -> Reply {
    let room =
        if let Request::Wrap { label, aad, plain } = request { label.len() + aad.len() + plain.len() } else { 64 } + 64;
    worker.send(&encode(request, room)?).map_err(|e| failed(&e, deadline))?;
    receive(worker, deadline)
}

fn receive(worker: &Channel, deadline: Duration) -> Reply {
    match worker.receive(Some(deadline)) {
        Ok(Some(bytes)) => decode::<Reply>(&bytes)?,
        Ok(None) => Err(KeyError::Unavailable("the token's process ended".to_owned())),
        Err(e) => Err(failed(&e, deadline)),
    }
}

fn failed(e: &io::Error, deadline: Duration) -> KeyError {
    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        KeyError::Timeout(deadline)
    } else {
        KeyError::Unavailable(format!("the token's process: {e}"))
    }
}

fn another() -> KeyError {
    KeyError::Corrupt("the token's process answered something else".to_owned())
}

fn bytes(answer: Answer) -> Result<Vec<u8>, KeyError> {
    match answer {
        Answer::Bytes(bytes) => Ok(bytes),
        Answer::Done | Answer::Id(_) | Answer::Ids(_) => Err(another()),
    }
}

/// Every change under these locks is one assignment, so a thread that panicked left it whole.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyPort for Pkcs11Port {
    fn generate(&self, purpose: Purpose, name: &[u8]) -> Result<KeyId, KeyError> {
        let id = KeyId::of(purpose, name);
        match self.call(&Request::Generate { purpose, name: name.to_vec() })? {
            Answer::Id(there) if there == id => Ok(id),
            Answer::Id(_) | Answer::Done | Answer::Bytes(_) | Answer::Ids(_) => Err(another()),
        }
    }
    fn public(&self, id: &KeyId) -> Result<Vec<u8>, KeyError> {
        let public = bytes(self.call(&Request::Public(*id))?)?;
        if public.len() != 65 || public.first() != Some(&4) {
            return Err(KeyError::Corrupt(format!("the token gave no P-256 point as the public key of {id}")));
        }
        let mut known = lock(&self.known);
        if known.public.len() >= REMEMBERED {
            known.public.clear();
        }
        known.public.insert(*id, public.clone());
        Ok(public)
    }
    fn sign_p256(&self, id: &KeyId, msg: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = bytes(self.call(&Request::Sign { id: *id, digest: sha256(&[msg]).0 })?)?;
        if self.is_verified_now() {
            let by =
                |public: &[u8]| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public).verify(msg, &signature).is_ok();
            let known = lock(&self.known).public.get(id).cloned();
            // The key may be another by now, made by somebody else: then the token is asked for it.
            if !known.is_some_and(|public| by(&public)) && !by(&self.public(id)?) {
                lock(&self.known).verified = None;
                return Err(KeyError::Corrupt(format!("the token's signature by {id} is not valid")));
            }
        }
        Ok(signature)
    }
    fn destroy(&self, id: &KeyId) -> Result<(), KeyError> {
        lock(&self.known).public.remove(id);
        match self.call(&Request::Destroy(*id))? {
            Answer::Done => Ok(()),
            Answer::Id(_) | Answer::Bytes(_) | Answer::Ids(_) => Err(another()),
        }
    }
    fn list(&self) -> Result<Vec<KeyId>, KeyError> {
        match self.call(&Request::List)? {
            Answer::Ids(ids) => Ok(ids),
            Answer::Done | Answer::Id(_) | Answer::Bytes(_) => Err(another()),
        }
    }
}

impl Wraps for Pkcs11Port {
    fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        Self::wrap(self, label, plain, aad)
    }
    fn unwrap(&self, label: &str, blob: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError> {
        Self::unwrap(self, label, blob, aad)
    }
}

impl fmt::Debug for Pkcs11Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Port").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
