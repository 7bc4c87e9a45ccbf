//! What arrives over a network or is typed: tokens, requests, statements, boxes, notes, trust, assignments.

use super::{damaged, world};
use holdfast_orchestrator_core::verify::{CharterChain, NodeTrust, verify_assign};
use holdfast_pki::csr::Request;
use holdfast_pki::keys::SubjectKey;
use holdfast_types::{ClusterId, Digest, Millis, Secret, sha256};
use holdfast_vault::raft::{read_again, samples};
use holdfast_wire::keys::{Ed25519Key, StatementSigner};
use holdfast_wire::record::{self, Place, RecordKey};
use holdfast_wire::share::KeyShare;
use holdfast_wire::token::{JoinToken, parse_recovery, parse_unlock, print_key};
use holdfast_wire::{boxes, note, padding, signed, statement, strict as strictly, v1};
use prost::Message;
use std::sync::LazyLock;

const CLUSTER: ClusterId = ClusterId([7; 32]);
/// Longest message that the strict decoder is asked for.
const MAX: usize = 1 << 20;

fn signer() -> Ed25519Key {
    Ed25519Key::from_seed(Secret::take(&mut [1; 32]))
}

/// An envelope from the network; and any payload at all under a good signature.
pub fn statement(data: &[u8]) {
    let key = signer();
    if let Ok(st) = v1::Statement::decode(data) {
        // The fuzzer does not hold the key: nothing it makes may be believed.
        assert!(statement::verify::<v1::Grant>(&st, &[key.public()], 1).is_err());
    }
    let Ok(st) = statement::sign_payload::<v1::Grant>(data.to_vec(), &[&key]) else { return };
    if let Ok(v) = statement::verify::<v1::Grant>(&st, &[key.public()], 1) {
        assert_eq!(v.doc.encode_to_vec(), data);
    }
}

/// A statement in a file that somebody sent: what is read is all that is in it, and nothing makes a signature of ours.
pub fn signed_file(data: &[u8]) {
    const HONEST: &[u8] = include_bytes!("../seeds/signed_file/voucher");
    for bytes in [data.to_vec(), damaged(HONEST, data)] {
        let Ok((file, read)) = signed::decode(&bytes) else { continue };
        assert_eq!(signed::encode(&file), bytes);
        let st = file.statement.unwrap_or_default();
        assert_eq!(signed::Signed::read(&st), Ok(read));
        // The honest one is signed by this key: with other words it is not.
        let believed = statement::verify::<v1::Voucher>(&st, &[signer().public()], 1);
        let honest = signed::decode(HONEST).ok().and_then(|(f, _)| f.statement);
        assert!(believed.is_err() || honest.is_some_and(|h| h.payload == st.payload));
    }
}

/// A box from the network, in both modes.
pub fn boxes(data: &[u8]) {
    let (sk, _) = boxes::derive_keypair(&[3; 32]);
    let c = boxes::Context { purpose: "secret", cluster: &CLUSTER, aad: b"aad" };
    let psk = Secret::take(&mut [4; 32]);
    assert!(boxes::open(&sk, &c, Some(&psk), data).is_err());
    // Base mode has no sender: a fuzzer could in theory make one, but then it is padded or refused.
    if let Ok(pt) = boxes::open(&sk, &c, None, data) {
        let _ = padding::unpad(pt.expose());
    }
    if let Some(value) = padding::unpad(data) {
        assert_eq!(padding::pad(value), data);
    }
}

/// A value from the disk.
pub fn record(data: &[u8]) {
    let key = RecordKey { key: &[6; 32], term: 1 };
    for place in [
        Place::Record { purpose: "secret", path: "a/b", rev: 1 },
        Place::Disk { voter: 1, keyspace: 0, index: 1, raft_term: 1 },
    ] {
        assert!(record::open(key, &CLUSTER, &place, data).is_err());
    }
}

/// A token or key that someone typed: what is read prints as it was typed.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(t) = JoinToken::parse(text) {
        assert_eq!(*t.print(), text.trim());
    }
    if let Ok(k) = parse_unlock(text) {
        assert_eq!(*print_key("unlock", &k), text.trim());
    }
    if let Ok(k) = parse_recovery(text) {
        assert_eq!(*print_key("recovery", &k), text.trim());
    }
    if let Ok(s) = KeyShare::parse(text) {
        assert_eq!(*s.print(), text.trim());
    }
}

/// A checkpoint note: nobody but the key's holder makes one, and lines of other signers change nothing in it.
pub fn note(data: &[u8]) {
    const ORIGIN: &str = "holdfast/a.example/1";
    let keys = [signer().public()];
    assert!(note::Checkpoint::verify(data, ORIGIN, &keys).is_err());
    let honest = note::Checkpoint { origin: ORIGIN.to_owned(), size: 7, root: sha256(&[b"root"]) };
    let signed = honest.sign(&signer()).unwrap();
    let cosigned = [signed.as_slice(), data].concat();
    if let Ok(read) = note::Checkpoint::verify(&cosigned, ORIGIN, &keys) {
        assert_eq!(read, honest);
    }
    if let Ok(read) = note::Checkpoint::verify(&damaged(&signed, data), ORIGIN, &keys) {
        assert_eq!(read, honest);
    }
}

/// An honest certificate request.
pub const CSR: &[u8] = include_bytes!("../seeds/csr/p256.der");

/// A request for a certificate: its bytes have one spelling, and a request that was altered is none.
pub fn csr(data: &[u8]) {
    if let Ok(request) = Request::parse(data) {
        assert!(SubjectKey::from_spki(request.spki_der()).is_ok());
        assert!(Request::parse(&[data, &[0]].concat()).is_err());
    }
    let bytes = damaged(CSR, data);
    assert!(Request::parse(&bytes).is_err() || bytes == CSR);
}

fn canonical<M: Message + Default>(data: &[u8]) {
    if let Ok(m) = strictly::decode::<M>(data, MAX) {
        assert_eq!(m.encode_to_vec(), data);
    }
}

/// Every message that is decoded strictly; the first byte chooses which.
pub fn strict(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    macro_rules! choose {
        ($($message:ident),*) => {
            [$(canonical::<v1::$message> as fn(&[u8])),*]
        };
    }
    let all = choose![
        Charter,
        Spec,
        Voucher,
        Mandate,
        Command,
        Bundle,
        Status,
        Revocations,
        Grant,
        LeaseExt,
        Revoke,
        LogsRequest,
        Login,
        LogEntry,
        Receipt,
        Assign,
        Statement,
        TrustView,
        Issued
    ];
    if let Some(decode) = all.get(usize::from(*which) % all.len()) {
        decode(data);
    }
}

/// Charters, bundles, status and revocations shown to a joining node and to one that has joined.
pub fn trust(data: &[u8]) {
    let key = signer();
    if let Ok(st) = statement::sign_payload::<v1::Charter>(data.to_vec(), &[&key]) {
        // A charter that its only operator signed founds a cluster under its own hash, and no other.
        if let Ok(c) = CharterChain::verify(std::slice::from_ref(&st)) {
            assert_eq!(*c.cluster(), ClusterId::of_charter(data));
        }
    }
    let Ok(view) = v1::TrustView::decode(data) else { return };
    assert!(NodeTrust::join(Digest([0; 32]), &view.charter_chain, &view.bundle_chain).is_err());
    let t = &HONEST.trust;
    let now = Millis(world::NOW);
    for st in view.charter_chain.iter().chain(&view.bundle_chain).chain(&view.status).chain(&view.revocations) {
        // `AlreadyDone` is possible: the honest documents are in the corpus.
        assert!(!matches!(t.observe_charter(st), Ok(holdfast_orchestrator_core::verify::News::Todo(_))));
        assert!(!matches!(t.observe_bundle(st), Ok(holdfast_orchestrator_core::verify::News::Todo(_))));
        assert!(!matches!(t.observe_status(now, st), Ok(holdfast_orchestrator_core::verify::News::Todo(_))));
        assert!(!matches!(t.observe_revocations(now, st), Ok(holdfast_orchestrator_core::verify::News::Todo(_))));
    }
}

pub(super) static HONEST: LazyLock<world::Scene> = LazyLock::new(world::Scene::honest);

/// An assignment: the honest one, damaged.
pub fn assign(data: &[u8]) {
    let s = &*HONEST;
    let bytes = damaged(&s.assign.encode_to_vec(), data);
    let Ok(assign) = v1::Assign::decode(bytes.as_slice()) else { return };
    let Ok(a) = verify_assign(&s.trust, &s.me, &s.memory, &s.peer, Millis(world::NOW), &assign) else { return };
    assert_eq!(
        (a.grant, Some(a.spec)),
        (s.grant(), s.assign.spec.as_ref().and_then(|st| v1::Spec::decode(st.payload.as_slice()).ok()))
    );
    assert!(a.secrets.iter().all(|x| x.bytes.expose() == world::VALUE));
}

static MESSAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(samples);

/// A message among voters, of any kind: what is read is written one way alone, and every byte of it counts.
pub fn peer(data: &[u8]) {
    let Some((which, damage)) = data.split_first() else { return };
    let honest = &MESSAGES[usize::from(*which) % MESSAGES.len()];
    assert!(read_again(honest).iter().flatten().any(|written| written == honest));
    for body in [damaged(honest, damage), damage.to_vec()] {
        let longer = read_again(&[body.as_slice(), &[0]].concat());
        for (kind, written) in read_again(&body).into_iter().enumerate() {
            let Some(written) = written else { continue };
            assert_eq!(read_again(&written)[kind].as_ref(), Some(&written));
            assert_eq!(longer[kind], None, "bytes were left over");
        }
    }
}
