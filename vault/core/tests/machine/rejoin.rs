//! Coming back by the known key after a certificate was over, and the end of a quarantine.

use crate::world::{Machine, World, csr};
use holdfast_types::{Digest, Millis, Role, sha256};
use holdfast_vault_core::prepare::{self, Back, Pin};
use holdfast_vault_core::{Code, Command, IdentityState, Notice, Refusal, State};
use holdfast_wire::{statement, v1};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use v1::command::Action;

pub const HPKE: [u8; 32] = [3; 32];
const HOUR: i64 = 3_600_000;
/// A node's certificate is over after this time.
const AWAY: i64 = 73 * HOUR;

pub struct Key {
    pub pair: KeyPair,
    pub csr: Vec<u8>,
    pub spki: Digest,
}

pub fn key() -> Key {
    let (pair, csr) = csr();
    let spki = spki(&pair);
    Key { pair, csr, spki }
}

fn spki(pair: &KeyPair) -> Digest {
    sha256(&[&pair.subject_public_key_info()])
}

fn proof(nonce: &[u8; 32], id: &str, old: &KeyPair, next: &Key) -> v1::RejoinProof {
    v1::RejoinProof {
        csr: next.csr.clone(),
        hpke_pub: HPKE.to_vec(),
        spki: old.subject_public_key_info(),
        signature: old.sign(&prepare::rejoin_message(nonce, id, &next.csr, &HPKE)).unwrap(),
        bundle_epoch: 1,
    }
}

/// Asks to come back with `next`, proving `old`.
pub fn asks(w: &World, id: &str, old: &KeyPair, next: &Key) -> Result<Back, Refusal> {
    let nonce = w.entropy().draw("nonce");
    let proof = proof(&nonce, id, old, next);
    prepare::rejoin(&w.leader(), &nonce, id, &proof, "10.0.0.9:1", &mut w.entropy())
}

/// Comes back with `next`, proving `old`; `None`: it was a fork.
pub fn comes_back(w: &mut World, id: &str, old: &KeyPair, next: &Key) -> Result<Option<v1::Issued>, Refusal> {
    let p = match asks(w, id, old, next)? {
        Back::Comes(p) => *p,
        Back::Removed => return Err(IdentityState::Removed.into()),
    };
    w.commit(Ok(p)).map(|(issued, _)| issued)
}

/// A vault runs for `ms`, and writes something each hour.
pub fn runs(w: &mut World, ms: i64) {
    let until = w.now.0 + ms;
    while w.now.0 < until {
        w.pass(HOUR.min(until - w.now.0));
        w.propose(Command::Tick).result.unwrap();
    }
}

/// The window is over for this machine.
pub fn is_late(w: &mut World, m: &Machine) {
    let refused = comes_back(w, &m.id, &m.key, &key()).err().unwrap();
    assert_eq!(refused.code, Code::BadCredential);
    assert!(refused.reason.contains("comes back within"), "{refused}");
}

fn view(w: &World, m: &Machine) -> v1::NodeView {
    w.state.node_view(&m.id, false).unwrap()
}

/// Uses the certificate that waits to be used.
pub fn uses(w: &mut World, m: &Machine, key: &Key) -> bool {
    let serial = view(w, m).pending_serial;
    w.show(Role::Node, &m.id, &serial, &key.spki)
}

fn field(w: &World, kind: &str, name: &str) -> String {
    let entries = (0..w.leaves.len()).rev().map(|i| w.entry(i as u64));
    let entry = entries.into_iter().find(|e| e.kind == kind).unwrap();
    entry.fields.iter().find(|f| f.name == name).unwrap().value.clone()
}

#[test]
fn a_machine_that_was_away_comes_back_by_its_key() {
    let mut w = World::new();
    let node = w.node();
    assert_eq!(w.state.node_view_at(&node.id, false, w.now).unwrap().state, "ready");
    w.pass(10 * 24 * HOUR);
    assert_eq!(w.state.node_view_at(&node.id, false, w.now).unwrap().state, "expired");
    assert_eq!(w.state.status_view(w.now).nodes[0].state, "expired");
    let (next, from) = (key(), w.leaves.len());
    let issued = comes_back(&mut w, &node.id, &node.key, &next).unwrap().unwrap();
    assert_eq!((issued.id.as_str(), issued.seq), (node.id.as_str(), 2));
    assert_eq!(w.kinds_since(from), ["identity.rejoin", "cert.issue"]);
    assert!(field(&w, "identity.rejoin", "from").contains("10.0.0.9:1"));
    assert!(uses(&mut w, &node, &next));
    let now = w.state.node_view_at(&node.id, true, w.now).unwrap();
    assert_eq!((now.state.as_str(), now.seq), ("ready", 2));
    assert_eq!(w.state.noticed(Notice::Rejoin, w.now), [node.id.as_str()]);
    w.pass(25 * HOUR);
    assert!(w.state.noticed(Notice::Rejoin, w.now).is_empty(), "spoken of for a day");
}

#[test]
fn nobody_comes_back_after_the_window_or_with_a_key_of_before() {
    let mut w = World::new();
    let (node, late) = (w.node(), w.node());
    let old = view(&w, &node).not_after_ms.max(view(&w, &late).not_after_ms);
    w.now = Millis(old + 1);
    let same = Key { csr: crate::world::csr_of(&node.key), spki: node.spki, pair: key().pair };
    assert_eq!(comes_back(&mut w, &node.id, &node.key, &same).err().unwrap().code, Code::InvalidInput);
    assert!(comes_back(&mut w, &node.id, &node.key, &key()).unwrap().is_some(), "and in time it does");
    let window = w.lives.rejoin.as_millis() as i64;
    runs(&mut w, window + HOUR);
    is_late(&mut w, &late);
}

#[test]
fn strangers_are_refused_alike_and_change_nothing() {
    let mut w = World::new();
    let (node, next) = (w.node(), key());
    w.pass(AWAY);
    let (before, nonce) = (w.state.encode(), [7; 32]);
    let good = proof(&nonce, &node.id, &node.key, &next);
    let other = key();
    let ask = |w: &World, id: &str, nonce: &[u8; 32], proof: &v1::RejoinProof| {
        prepare::rejoin(&w.leader(), nonce, id, proof, "x", &mut w.entropy()).err().unwrap()
    };
    let bad = [
        ask(&w, "node-00000000000000000000000000000000", &nonce, &good),
        ask(&w, "", &nonce, &good),
        ask(&w, &"x".repeat(100_000), &nonce, &good),
        // The key of somebody else, and the right one with the signature of another key.
        ask(&w, &node.id, &nonce, &proof(&nonce, &node.id, &other.pair, &next)),
        ask(
            &w,
            &node.id,
            &nonce,
            &v1::RejoinProof {
                spki: node.key.subject_public_key_info(),
                ..proof(&nonce, &node.id, &other.pair, &next)
            },
        ),
        // A proof that was given before, to another challenge, for another request or another box key.
        ask(&w, &node.id, &[8; 32], &good),
        ask(&w, &node.id, &nonce, &v1::RejoinProof { csr: other.csr.clone(), ..good.clone() }),
        ask(&w, &node.id, &nonce, &v1::RejoinProof { hpke_pub: vec![4; 32], ..good.clone() }),
        ask(&w, &node.id, &nonce, &v1::RejoinProof { csr: vec![0x30; 1 << 20], ..good.clone() }),
        ask(&w, &node.id, &nonce, &v1::RejoinProof { spki: vec![0x30; 1 << 20], ..good.clone() }),
        ask(&w, &node.id, &nonce, &v1::RejoinProof { signature: Vec::new(), ..good.clone() }),
        ask(&w, &node.id, &nonce, &v1::RejoinProof::default()),
    ];
    for refusal in &bad {
        assert_eq!((refusal.code, &refusal.reason), (Code::BadCredential, &bad[0].reason));
    }
    assert!(w.state.encode() == before);
    // What is proven and no good is named.
    let no_request = v1::RejoinProof {
        csr: b"no request".to_vec(),
        signature: node.key.sign(&prepare::rejoin_message(&nonce, &node.id, b"no request", &HPKE)).unwrap(),
        ..good
    };
    assert_eq!(ask(&w, &node.id, &nonce, &no_request).code, Code::InvalidInput);
}

#[test]
fn a_lost_reply_is_given_again_and_a_second_key_is_a_fork() {
    let mut w = World::new();
    let (node, next) = (w.node(), key());
    w.pass(AWAY);
    let first = comes_back(&mut w, &node.id, &node.key, &next).unwrap().unwrap();
    let again = comes_back(&mut w, &node.id, &node.key, &next).unwrap().unwrap();
    assert_eq!((first.seq, again.seq), (2, 2));
    assert_eq!(comes_back(&mut w, &node.id, &node.key, &key()).unwrap(), None, "another key asks");
    assert_eq!(w.state_of(&node.id), "quarantined");
    assert_eq!(w.state.noticed(Notice::Fork, w.now), [node.id.as_str()]);
    let refused = comes_back(&mut w, &node.id, &node.key, &next).err().unwrap();
    assert_eq!(refused.reason, "this identity is quarantined");
}

#[test]
fn a_stale_copy_that_asks_with_the_very_key_that_the_other_moved_on_to_is_a_fork() {
    // The disk was copied with the next key on it: both holders ask with that one.
    for moved_on in [false, true] {
        let mut w = World::new();
        let (node, next, third) = (w.node(), key(), key());
        w.pass(AWAY);
        comes_back(&mut w, &node.id, &node.key, &next).unwrap().unwrap();
        assert!(uses(&mut w, &node, &next));
        if moved_on {
            w.renew(&node.id, &third.csr, &HPKE).unwrap().unwrap();
            assert!(uses(&mut w, &node, &third));
        }
        assert_eq!(comes_back(&mut w, &node.id, &node.key, &next).unwrap(), None, "{moved_on}");
        assert_eq!(w.state_of(&node.id), "quarantined", "{moved_on}");
    }
}

#[test]
fn a_certificate_that_was_never_used_brings_its_machine_back() {
    let mut w = World::new();
    let (node, second, third) = (w.node(), key(), key());
    // Renewed and stored, and the machine was switched off before it called again.
    w.renew(&node.id, &second.csr, &HPKE).unwrap().unwrap();
    w.pass(AWAY);
    let from = w.leaves.len();
    let issued = comes_back(&mut w, &node.id, &second.pair, &third).unwrap().unwrap();
    assert_eq!(issued.seq, 3);
    assert_eq!(w.kinds_since(from), ["node.activate", "identity.rejoin", "cert.issue"]);
    // The reply was lost: the same again, by the key that is in use now.
    assert_eq!(comes_back(&mut w, &node.id, &second.pair, &third).unwrap().unwrap().seq, 3);
    assert!(uses(&mut w, &node, &third));
    // And its first key is one that was replaced.
    assert_eq!(comes_back(&mut w, &node.id, &node.key, &key()).unwrap(), None);
    assert_eq!(w.state_of(&node.id), "quarantined");
}

#[test]
fn a_thief_who_came_back_is_burnt_when_the_owner_returns_weeks_later() {
    let mut w = World::new();
    let node = w.node();
    w.pass(AWAY);
    // The thief has the disk of a machine that is off.
    let mut held = key();
    comes_back(&mut w, &node.id, &node.key, &held).unwrap().unwrap();
    assert!(uses(&mut w, &node, &held));
    for _ in 0..12 {
        w.pass(24 * HOUR);
        let next = key();
        w.renew(&node.id, &next.csr, &HPKE).unwrap().unwrap();
        assert!(uses(&mut w, &node, &next));
        held = next;
    }
    assert!(w.state.node_view_at(&node.id, true, w.now).unwrap().spki_sha256 == held.spki.to_vec());
    assert_eq!(comes_back(&mut w, &node.id, &node.key, &key()).unwrap(), None);
    assert_eq!(w.state_of(&node.id), "quarantined");
    assert!(field(&w, "identity.fork", "detail").contains("10.0.0.9:1"));
}

#[test]
fn the_removed_do_not_come_back() {
    let mut w = World::new();
    let node = w.node();
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: node.id.clone() })).unwrap();
    w.pass(AWAY);
    let refused = comes_back(&mut w, &node.id, &node.key, &key()).err().unwrap();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::BadCredential, "this identity is removed"));
}

#[test]
fn operators_and_voters_have_no_such_way() {
    let mut w = World::new();
    let waiting = w.applicant();
    assert_eq!(comes_back(&mut w, &waiting.id, &waiting.key, &key()).err().unwrap().code, Code::BadCredential);
    assert_eq!(comes_back(&mut w, "ada", &key().pair, &key()).err().unwrap().code, Code::BadCredential);
}

#[test]
fn two_sessions_at_a_time_are_written_down_and_spoken_of() {
    let mut w = World::new();
    let (node, from) = (w.node(), w.leaves.len());
    let seen = Command::Concurrent { id: node.id.clone(), detail: "from 10.0.0.1 and 10.0.0.2".into() };
    w.propose(seen).result.unwrap();
    assert_eq!(w.kinds_since(from), ["identity.concurrent"]);
    assert_eq!((w.state_of(&node.id).as_str(), w.state.noticed(Notice::Concurrent, w.now).len()), ("ready", 1));
}

fn release(w: &mut World, who: &[&str], m: &Machine, key: &Digest) -> Result<(), Refusal> {
    let order = v1::ReleaseIdentity { id: m.id.clone(), spki_sha256: key.to_vec() };
    w.act(who, Action::ReleaseIdentity(order)).map(drop)
}

fn pin(w: &World, m: &Machine, serial: &str, spki: &Digest) -> Pin {
    prepare::pin(&w.state, Role::Node, &m.id, serial, spki, w.now)
}

/// What the list of revocations says of it.
fn listed(w: &World, m: &Machine) -> Option<v1::Revocation> {
    let list: v1::Revocations = statement::peek(&prepare::revocations(&w.state, &w.stk).unwrap()).unwrap();
    list.revoked.into_iter().find(|r| r.id == m.id)
}

#[test]
fn a_quarantined_machine_goes_on_with_the_key_that_operators_name_and_with_no_other() {
    let mut w = World::new();
    let (node, thief, next) = (w.node(), key(), key());
    let first = view(&w, &node).serial;
    assert_eq!(release(&mut w, &["ada", "ben"], &node, &next.spki).err().unwrap().code, Code::Changed, "it is ready");
    w.renew(&node.id, &thief.csr, &HPKE).unwrap().unwrap();
    let stolen = view(&w, &node).pending_serial;
    assert!(w.renew(&node.id, &next.csr, &HPKE).unwrap().is_none(), "two keys ask");
    assert!(matches!(pin(&w, &node, &first, &node.spki), Pin::State(_)));

    assert_eq!(release(&mut w, &["ada"], &node, &next.spki).err().unwrap().code, Code::Threshold);
    for known in [&node.spki, &thief.spki] {
        assert_eq!(release(&mut w, &["ada", "ben"], &node, known).err().unwrap().code, Code::InvalidInput);
    }
    release(&mut w, &["ada", "ben"], &node, &next.spki).unwrap();
    assert!(listed(&w, &node).unwrap().spki_sha256.is_empty(), "no key of it counts until the named one is used");
    // It may renew with that key, and nothing else; nor may the thief, who is not taken for a second fork.
    assert_eq!(pin(&w, &node, &first, &node.spki), Pin::Released);
    assert_eq!(pin(&w, &node, &stolen, &thief.spki), Pin::Released);
    for other in [&thief, &key()] {
        assert_eq!(w.renew(&node.id, &other.csr, &HPKE).err().unwrap().code, Code::BadCredential);
    }
    let issued = w.renew(&node.id, &next.csr, &HPKE).unwrap().unwrap();
    assert_eq!((w.state_of(&node.id).as_str(), issued.seq), ("quarantined", 3));
    assert_eq!(w.renew(&node.id, &next.csr, &HPKE).unwrap().unwrap().seq, 3, "the reply was lost");
    assert_eq!(pin(&w, &node, &stolen, &thief.spki), Pin::Released);
    assert!(uses(&mut w, &node, &next));
    assert_eq!((w.state_of(&node.id).as_str(), view(&w, &node).seq), ("ready", 3));
    assert!(w.state.noticed(Notice::Fork, w.now).is_empty());
    // The list that nodes and orchestrators have names the older ones alone, by their keys.
    let entry = listed(&w, &node).unwrap();
    let mut keys = vec![node.spki.to_vec(), thief.spki.to_vec()];
    keys.sort_unstable();
    assert_eq!((entry.not_before_seq, entry.spki_sha256), (3, keys));
    // Whoever still has an older one is a stranger: it is refused, and brings no quarantine back.
    for (serial, spki) in [(&stolen, &thief.spki), (&first, &node.spki)] {
        assert_eq!(pin(&w, &node, serial, spki), Pin::Unknown);
        assert!(!w.show(Role::Node, &node.id, serial, spki));
    }
    for known in [&node.key, &thief.pair] {
        assert_eq!(comes_back(&mut w, &node.id, known, &key()).err().unwrap().code, Code::BadCredential);
    }
    assert_eq!(w.state_of(&node.id), "ready");
    // The release was for that once: two holders of the keys since then are a fork as ever.
    let (third, fourth) = (key(), key());
    w.renew(&node.id, &third.csr, &HPKE).unwrap().unwrap();
    assert!(w.renew(&node.id, &fourth.csr, &HPKE).unwrap().is_none(), "two keys ask");
    assert_eq!(w.state_of(&node.id), "quarantined");
    let own = view(&w, &node).serial;
    assert!(matches!(pin(&w, &node, &own, &next.spki), Pin::State(_)));
    assert!(listed(&w, &node).unwrap().spki_sha256.is_empty(), "and no key of it counts again");
}

#[test]
fn a_released_machine_whose_certificate_is_over_comes_back_with_the_named_key() {
    let mut w = World::new();
    let (node, next) = (w.node(), key());
    let order = v1::QuarantineNode { id: node.id.clone(), reason: "its disk was copied".into() };
    w.act(&["oz"], Action::QuarantineNode(order)).unwrap();
    w.pass(AWAY);
    release(&mut w, &["ada", "ben"], &node, &next.spki).unwrap();
    assert!(comes_back(&mut w, &node.id, &node.key, &key()).is_err(), "not with another key");
    assert!(comes_back(&mut w, &node.id, &node.key, &next).unwrap().is_some());
    assert!(uses(&mut w, &node, &next));
    assert_eq!(w.state_of(&node.id), "ready");
}

#[test]
fn a_fork_is_spoken_of_until_somebody_sees_to_it_whatever_else_is_noticed() {
    let mut w = World::new();
    let m = w.node();
    let detail = || "two of them".to_owned();
    w.propose(Command::Fork { id: m.id.clone(), detail: detail() }).result.unwrap();
    w.propose(Command::Concurrent { id: m.id.clone(), detail: detail() }).result.unwrap();
    assert_eq!(w.state.noticed(Notice::Fork, w.now), [m.id.as_str()]);
}

#[test]
fn what_was_seen_of_a_fork_is_kept_for_its_alarm_in_bounds() {
    let mut w = World::new();
    let m = w.node();
    let from = "a retired certificate was used from 10.0.0.2:7; before, it called from 10.0.0.1:5";
    w.propose(Command::Fork { id: m.id.clone(), detail: from.to_owned() }).result.unwrap();
    w.state = State::decode(&w.state.encode()).unwrap();
    assert_eq!(w.state.noticed_of(Notice::Fork, w.now), [(m.id.as_str(), from)]);
    w.propose(Command::Fork { id: m.id.clone(), detail: "é".repeat(10_000) }).result.unwrap();
    let kept = w.state.noticed_of(Notice::Fork, w.now)[0].1.to_owned();
    assert!(!kept.is_empty() && kept.len() < 4_000, "{}", kept.len());
}
