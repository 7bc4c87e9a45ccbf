//! The identity that renews itself.

use super::world::*;
use crate::failure::Failure;
use crate::keys::PrivateKey;
use crate::renew::{Authority, FileStore, KeyStore, RenewError, Renewals, Renewed, Renewer, StoreError, pending_key};
use crate::tls::{IdentityCell, LocalIdentity, TrustCell};
use holdfast_pki::csr::Request;
use holdfast_types::{Digest, Millis, Role, SpiffeId};
use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the authority does with the next request.
enum Turn {
    Issue,
    LoseReply,
    IssueAs(SpiffeId),
    IssueFor(PrivateKey),
}

/// An authority that notes each request's key and checks that it was on disk before the request came.
struct Scripted {
    ca: Arc<Ca>,
    id: SpiffeId,
    store: FileStore,
    turns: Mutex<VecDeque<Turn>>,
    seen: mpsc::UnboundedSender<Digest>,
}
impl Authority for Scripted {
    async fn renew(&self, csr: Vec<u8>) -> Result<Renewed, Failure> {
        let request = Request::parse(&csr).unwrap();
        let pending = self.store.load_pending().unwrap().expect("the key must be stored before the request is sent");
        assert_eq!(pending.spki_sha256(), request.spki_sha256());
        self.seen.send(request.spki_sha256()).unwrap();
        let turn = self.turns.lock().unwrap().pop_front().unwrap_or(Turn::Issue);
        let (spki, id) = match turn {
            Turn::Issue => (request.spki_der().to_vec(), self.id.clone()),
            Turn::IssueAs(id) => (request.spki_der().to_vec(), id),
            Turn::IssueFor(key) => (key.spki_der().to_vec(), self.id.clone()),
            Turn::LoseReply => return Err(Failure::unavailable("connection-lost", "the reply was lost")),
        };
        Ok(Renewed { chain: self.ca.chain(&spki, &id, DAY), renew_after: Some(Duration::from_secs(3600)) })
    }
}

struct Node {
    cell: Arc<IdentityCell>,
    store: FileStore,
    renewer: Renewer<Scripted>,
    seen: mpsc::UnboundedReceiver<Digest>,
}

/// A node that starts from what is in `dir`, like a process does.
fn node(ca: &Arc<Ca>, dir: &Path, turns: impl IntoIterator<Item = Turn>) -> Node {
    node_trusting(ca.trust(), ca, dir, turns)
}

fn node_trusting(trust: Arc<TrustCell>, ca: &Arc<Ca>, dir: &Path, turns: impl IntoIterator<Item = Turn>) -> Node {
    let store = FileStore::new(dir);
    let stored = store.load().unwrap().unwrap();
    let cell = IdentityCell::new(LocalIdentity::new(&stored.chain, &stored.key).unwrap());
    let (sender, seen) = mpsc::unbounded_channel();
    let authority = Scripted {
        ca: ca.clone(),
        id: ca.id(Role::Node, "node-a"),
        store: store.clone(),
        turns: Mutex::new(turns.into_iter().collect()),
        seen: sender,
    };
    let renewer = Renewer::new(Arc::new(store.clone()), cell.clone(), trust, authority);
    Node { cell, store, renewer, seen }
}

/// A folder with an identity of `life`.
fn joined(ca: &Ca, life: Duration) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    let key = pending_key(&store).unwrap();
    store.promote(&ca.chain(key.spki_der(), &ca.id(Role::Node, "node-a"), life)).unwrap();
    dir
}

fn key_of(cell: &IdentityCell) -> Digest {
    cell.current().unwrap().spki_sha256()
}

#[tokio::test]
async fn a_renewal_replaces_key_and_certificate_in_memory_and_on_disk() {
    let ca = Arc::new(Ca::new("one"));
    let dir = joined(&ca, DAY);
    let mut node = node(&ca, dir.path(), []);
    let before = key_of(&node.cell);
    let due = node.renewer.renew().await.unwrap();
    let wait = due.since(crate::now());
    let hour = Duration::from_secs(3600);
    assert!(hour - Duration::from_secs(60) < wait && wait <= hour, "as the authority wants it: {wait:?}");
    let after = key_of(&node.cell);
    assert_ne!(before, after);
    assert_eq!(node.seen.recv().await, Some(after));
    assert_eq!(node.store.load().unwrap().unwrap().key.spki_sha256(), after);
    assert!(node.store.load_pending().unwrap().is_none());
}

#[tokio::test]
async fn a_lost_reply_is_retried_with_the_same_key_even_after_a_restart() {
    let ca = Arc::new(Ca::new("one"));
    let dir = joined(&ca, DAY);
    let mut first = node(&ca, dir.path(), [Turn::LoseReply]);
    let before = key_of(&first.cell);
    assert!(matches!(first.renewer.renew().await, Err(RenewError::Authority(_))));
    assert_eq!(key_of(&first.cell), before, "the old identity stays until the new one is whole");
    let asked = first.seen.recv().await.unwrap();

    let mut again = node(&ca, dir.path(), []);
    again.renewer.renew().await.unwrap();
    assert_eq!(again.seen.recv().await, Some(asked), "the same key");
    assert_eq!(key_of(&again.cell), asked);
    again.renewer.renew().await.unwrap();
    assert_ne!(again.seen.recv().await, Some(asked), "a finished renewal is followed by a new key");
}

#[tokio::test]
async fn a_certificate_that_is_not_ours_never_replaces_a_good_one() {
    let ca = Arc::new(Ca::new("one"));
    let dir = joined(&ca, DAY);
    let other = ca.id(Role::Node, "node-b");
    let stranger = PrivateKey::generate().unwrap();
    let node = node(&ca, dir.path(), [Turn::IssueAs(other), Turn::IssueFor(stranger)]);
    let before = key_of(&node.cell);
    assert!(matches!(node.renewer.renew().await, Err(RenewError::OtherName(_))));
    assert!(matches!(node.renewer.renew().await, Err(RenewError::Identity(_))));
    assert_eq!(key_of(&node.cell), before);
    assert_eq!(node.store.load().unwrap().unwrap().key.spki_sha256(), before);
    node.renewer.renew().await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_an_unknown_root_never_replaces_a_good_one() {
    let (ca, other) = (Arc::new(Ca::new("one")), Arc::new(Ca::new("two")));
    let dir = joined(&ca, DAY);
    // The node trusts one cluster, the authority issues under the other.
    let node = node_trusting(ca.trust(), &other, dir.path(), []);
    let before = key_of(&node.cell);
    assert!(matches!(node.renewer.renew().await, Err(RenewError::Chain(_))));
    assert_eq!(key_of(&node.cell), before);
    assert_eq!(node.store.load().unwrap().unwrap().key.spki_sha256(), before);
}

#[tokio::test]
async fn it_renews_when_a_third_of_the_life_is_over_and_when_ordered() {
    let ca = Arc::new(Ca::new("one"));
    // Begins five minutes ago and ends in one: the third is over.
    let dir = joined(&ca, Duration::from_secs(60));
    let node = node(&ca, dir.path(), []);
    let (renewals, stop) = (Arc::new(Renewals::default()), CancellationToken::new());
    let mut done = renewals.done.subscribe();
    let (renewer, mut seen) = (node.renewer, node.seen);
    let running = tokio::spawn({
        let (renewals, stop) = (renewals.clone(), stop.clone());
        async move { renewer.run(&renewals, false, &stop).await }
    });
    let first = within(seen.recv()).await.unwrap();
    renewals.wanted.notify_one();
    let second = within(seen.recv()).await.unwrap();
    assert_ne!(first, second);
    within(done.wait_for(|n| *n == 2)).await.unwrap();
    stop.cancel();
    within(running).await.unwrap();
}

#[tokio::test]
async fn a_renewal_that_is_wanted_at_the_start_does_not_wait_for_its_turn() {
    let ca = Arc::new(Ca::new("one"));
    let dir = joined(&ca, DAY);
    let Node { renewer, mut seen, .. } = node(&ca, dir.path(), []);
    let (renewals, stop) = (Renewals::default(), CancellationToken::new());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { renewer.run(&renewals, true, &stop).await }
    });
    within(seen.recv()).await.unwrap();
    stop.cancel();
    within(running).await.unwrap();
}

/// An authority that answers no renewal, and notes who comes back by their key.
struct Silent(mpsc::UnboundedSender<()>);
impl Authority for Silent {
    async fn renew(&self, _: Vec<u8>) -> Result<Renewed, Failure> {
        std::future::pending().await
    }
    async fn rejoin(&self, _: Vec<u8>, _: PrivateKey) -> Result<Renewed, Failure> {
        self.0.send(()).unwrap();
        Err(Failure::unavailable("unreachable", "nobody is there yet"))
    }
}

#[tokio::test]
async fn a_renewal_that_nobody_answers_is_given_up_when_the_certificate_is_over() {
    let ca = Arc::new(Ca::new("one"));
    let dir = joined(&ca, Duration::from_secs(1));
    let store = FileStore::new(dir.path());
    let stored = store.load().unwrap().unwrap();
    let cell = IdentityCell::new(LocalIdentity::new(&stored.chain, &stored.key).unwrap());
    let (sender, mut back) = mpsc::unbounded_channel();
    let renewer = Renewer::new(Arc::new(store), cell, ca.trust(), Silent(sender));
    let (renewals, stop) = (Renewals::default(), CancellationToken::new());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { renewer.run(&renewals, true, &stop).await }
    });
    within(back.recv()).await.unwrap();
    stop.cancel();
    within(running).await.unwrap();
}

#[test]
fn a_server_that_is_not_believed_has_refused_nobody() {
    let passes = |failure: Failure| RenewError::from(failure).may_pass();
    assert!(passes(Failure::unavailable("unreachable", "nobody is there")));
    assert!(passes(Failure::refused("server-not-trusted", "its certificate is over")));
    assert!(passes(Failure::failed("clock", "its certificate is not good now")));
    assert!(!passes(Failure::refused("identity-refused", "it was removed")));
    assert!(!passes(Failure::refused("certificate-refused", "it was revoked")));
}

/// `times` lie in `0.8..=1.2` of `third` after `from`, all over that range, and no twentieth of it holds a fifth of them.
fn are_spread(times: &[Millis], from: Millis, third: Duration) {
    let parts: Vec<f64> = times.iter().map(|t| t.since(from).as_secs_f64() / third.as_secs_f64()).collect();
    // The clock moves on while they are drawn.
    assert!(parts.iter().all(|p| (0.799..=1.201).contains(p)), "{parts:?}");
    let in_part = |n: u32| {
        let (low, high) = (0.8 + f64::from(n) * 0.02, 0.82 + f64::from(n) * 0.02);
        parts.iter().filter(|p| (low..high).contains(*p)).count()
    };
    let counts: Vec<usize> = (0..20).map(in_part).collect();
    assert!(counts.iter().all(|n| *n > 0 && *n < parts.len() / 5), "{counts:?}");
}

/// Regression: the wait that was spread was in no program; both waited for exactly a third after a start.
#[tokio::test]
async fn first_renewals_spread_and_never_come_at_once() {
    let ca = Arc::new(Ca::new("one"));
    let dir = joined(&ca, DAY);
    let node = node(&ca, dir.path(), []);
    let identity = node.cell.current().unwrap();
    let third = identity.not_after().since(identity.not_before()) / 3;
    let times: Vec<Millis> = (0..1000).map(|_| node.renewer.first_due(false)).collect();
    are_spread(&times, identity.not_before(), third);
    assert!(node.renewer.first_due(true) <= crate::now());
}

#[test]
fn keys_at_rest_are_private_and_a_crash_between_the_steps_of_a_promotion_leaves_no_old_key() {
    let ca = Ca::new("one");
    let dir = joined(&ca, DAY);
    let (store, folder) = (FileStore::new(dir.path()), dir.path());
    let key = pending_key(&store).unwrap();
    let again = pending_key(&store).unwrap();
    assert_eq!(key.spki_sha256(), again.spki_sha256());
    for file in ["identity.pem", "pending.pem"] {
        let mode = std::fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // The crash: the identity is written, the pending file still there.
    let pending = std::fs::read(folder.join("pending.pem")).unwrap();
    store.promote(&ca.chain(key.spki_der(), &ca.id(Role::Node, "node-a"), DAY)).unwrap();
    std::fs::write(folder.join("pending.pem"), pending).unwrap();
    assert!(store.load_pending().unwrap().is_none(), "the current key is not pending");
    assert_ne!(pending_key(&store).unwrap().spki_sha256(), key.spki_sha256());
}

#[test]
fn a_damaged_key_file_is_named_and_never_taken_for_an_absent_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    assert!(store.load().unwrap().is_none());
    assert!(matches!(store.promote(&[]), Err(StoreError::NoPending)));
    std::fs::write(dir.path().join("identity.pem"), "-----BEGIN").unwrap();
    let error = store.load().unwrap_err();
    assert!(error.to_string().contains("identity.pem"), "{error}");
}
