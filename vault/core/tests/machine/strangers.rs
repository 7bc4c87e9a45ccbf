//! Who has not proven anything yet costs little: what is cheap is looked at first, and a request, whose signature takes an
//! asymmetric operation, last. Each caller here is wrong in two ways, and is refused for the one that must be found first.

use crate::world::{Machine, World, csr};
use holdfast_types::sha256;
use holdfast_vault_core::prepare;
use holdfast_vault_core::{Code, Refusal};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::v1;
use rcgen::{PublicKeyData as _, SigningKey as _};

const NONCE: [u8; 32] = [7; 32];

/// A request that is none, and one whose own signature does not verify.
fn broken() -> [Vec<u8>; 2] {
    let mut unsigned = csr().1;
    *unsigned.last_mut().unwrap() ^= 1;
    [b"no request".to_vec(), unsigned]
}

#[test]
fn a_join_with_a_bad_mac_and_a_broken_request_is_refused_for_the_mac() {
    let mut w = World::new();
    let (token, other) = (w.mint("node"), w.mint("node"));
    let hpke = derive_keypair(&[3; 32]).1;
    let before = w.state.encode();
    let join = |w: &World, proof: &v1::Proof| {
        prepare::join(&w.leader(), token.id, &NONCE, proof, &mut w.entropy()).err().unwrap()
    };
    for request in broken() {
        let no = join(&w, &w.proof(&other, &NONCE, &request, &hpke));
        assert_eq!(no.code, Code::BadCredential, "{no}");
        let no = join(&w, &w.proof(&token, &NONCE, &request, &hpke));
        assert_eq!(no.code, Code::InvalidInput, "by whoever has the token the request is looked at: {no}");
    }
    // Too long to be looked at by anybody, and of a token that nobody knows.
    let long = w.proof(&token, &NONCE, &[0x30; holdfast_pki::csr::MAX_CSR + 1], &hpke);
    assert_eq!(join(&w, &long).code, Code::BadCredential);
    let unknown = holdfast_types::TokenId::from_slice(&[9; 8]).unwrap();
    let proof = w.proof(&token, &NONCE, b"no request", &hpke);
    let no = prepare::join(&w.leader(), unknown, &NONCE, &proof, &mut w.entropy()).err().unwrap();
    assert_eq!(no.code, Code::BadCredential);
    assert!(w.state.encode() == before, "nothing changed");
}

#[test]
fn a_rejoin_with_an_unknown_key_or_a_bad_signature_and_a_broken_request_is_refused_for_the_key() {
    let mut w = World::new();
    let (node, stranger) = (w.node(), csr().0);
    let before = w.state.encode();
    let ask = |w: &World, id: &str, proof: &v1::RejoinProof| {
        prepare::rejoin(&w.leader(), &NONCE, id, proof, "x", &mut w.entropy()).err().unwrap()
    };
    for request in broken() {
        let message = prepare::rejoin_message(&NONCE, &node.id, &request, &[3; 32]);
        let good = v1::RejoinProof {
            csr: request,
            hpke_pub: vec![3; 32],
            spki: node.key.subject_public_key_info(),
            signature: node.key.sign(&message).unwrap(),
            bundle_epoch: 1,
        };
        let foreign = v1::RejoinProof {
            spki: stranger.subject_public_key_info(),
            signature: stranger.sign(&message).unwrap(),
            ..good.clone()
        };
        let unsigned = v1::RejoinProof { signature: stranger.sign(&message).unwrap(), ..good.clone() };
        // A key that is none: to be compared, not to be parsed.
        let no_key = v1::RejoinProof { spki: vec![0x30; 64], ..good.clone() };
        for proof in [&foreign, &unsigned, &no_key] {
            assert_eq!(ask(&w, &node.id, proof).code, Code::BadCredential);
        }
        assert_eq!(ask(&w, "node-00000000000000000000000000000000", &good).code, Code::BadCredential);
        assert_eq!(ask(&w, &node.id, &good).code, Code::InvalidInput, "a request of the known key is looked at");
    }
    assert!(w.state.encode() == before, "nothing changed");
}

#[test]
fn an_await_by_a_stranger_is_refused_before_its_time_is_looked_at() {
    let mut w = World::new();
    let token = w.mint("orchestrator");
    let waits = w.try_join(&token).unwrap();
    let stranger = Machine { id: waits.id.clone(), ..w.orchestrator() };
    let late = |w: &World, m: &Machine| {
        let asked = w.await_request(m);
        v1::AwaitRequest { at_ms: asked.at_ms - 3_600_000, ..asked }
    };
    let ask = |w: &World, r: &v1::AwaitRequest| -> Refusal {
        prepare::approved(&w.leader(), r, &mut w.entropy()).err().unwrap()
    };
    // Another's key, a time that was not signed, an id that nobody has: each with a clock that is an hour behind.
    let by_another = late(&w, &stranger);
    let not_signed = late(&w, &waits);
    let nobody = v1::AwaitRequest { id: "orch-00000000000000000000000000000000".into(), ..not_signed.clone() };
    let told = [by_another, not_signed, nobody].map(|r| ask(&w, &r));
    for no in &told {
        assert_eq!((no.code, &no.reason), (Code::BadCredential, &told[0].reason));
    }
}

#[test]
fn a_login_for_another_session_is_refused_before_any_signature_and_the_request_is_looked_at_last() {
    let w = World::new();
    for request in broken() {
        let login = |operator: &str, nonce: [u8; 32]| v1::Login {
            cluster_id: w.cluster.0.to_vec(),
            operator_id: operator.into(),
            nonce: nonce.to_vec(),
            csr_sha256: sha256(&[&request]).to_vec(),
        };
        let ask = |doc: &v1::Login, who: &str, forged: bool| {
            let mut st = w.sign(doc, &[who]);
            if forged {
                *st.sigs[0].sig.last_mut().unwrap() ^= 1;
            }
            let proof = v1::LoginProof { login: Some(st), csr: request.clone() };
            prepare::login(&w.leader(), &NONCE, &proof, &mut w.entropy()).err().unwrap()
        };
        let (here, elsewhere) = (login("ada", NONCE), login("ada", [8; 32]));
        let session = ask(&elsewhere, "ada", true);
        assert!(
            session.code == Code::BadCredential && session.reason.contains("another cluster, session"),
            "{session}"
        );
        let unsigned = ask(&here, "ada", true);
        assert_eq!(unsigned.code, Code::BadCredential, "{unsigned}");
        assert!(!unsigned.reason.contains("session"), "{unsigned}");
        let other = ask(&login("ben", NONCE), "ada", false);
        assert_eq!(other.code, Code::BadCredential, "{other}");
        assert_eq!(ask(&here, "ada", false).code, Code::InvalidInput, "an operator's request is looked at");
    }
}
