//! Join tokens: used once, in time, by whoever holds the secret, for the role that an operator gave them.

use crate::world::{Machine, World, csr};
use holdfast_types::Role;
use holdfast_vault_core::Code;
use holdfast_vault_core::prepare::{self, Approved};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::v1;
use v1::command::Action;

#[test]
fn a_token_admits_as_often_as_it_says_and_no_more() {
    let mut w = World::new();
    let t = v1::MintToken { uses: 2, ..w.token("node") };
    let t = w.mint_as(&["ada"], t).unwrap();
    let (a, b) = (w.try_join(&t).unwrap(), w.try_join(&t).unwrap());
    assert_ne!(a.id, b.id);
    assert_eq!(w.try_join(&t).err().unwrap().code, Code::BadCredential);
}

#[test]
fn of_two_joins_in_flight_by_one_token_one_is_admitted() {
    let mut w = World::new();
    let t = w.mint("node");
    let nonce = [1; 32];
    let mut prepared = Vec::new();
    for _ in 0..2 {
        let proof = w.proof(&t, &nonce, &csr().1, &derive_keypair(&[3; 32]).1);
        prepared.push(prepare::join(&w.leader(), t.id, &nonce, &proof, &mut w.entropy()));
    }
    let second = prepared.pop().unwrap();
    w.commit(prepared.pop().unwrap()).unwrap();
    assert_eq!(w.commit(second).err().unwrap().code, Code::BadCredential);
}

#[test]
fn a_first_certificate_that_was_lost_on_its_way_is_collected_again_by_the_same_key_alone() {
    let mut w = World::new();
    let t = w.mint("orchestrator");
    let m = w.try_join(&t).unwrap();
    w.approve(&m).unwrap();
    let serial = |w: &World| w.state.node_view(&m.id, false).unwrap().serial;
    w.collect(&m).unwrap().unwrap();
    let lost = serial(&w);
    let again = w.collect(&m).unwrap().unwrap();
    assert_eq!((again.seq, again.id.as_str()), (1, m.id.as_str()));
    assert_ne!(serial(&w), lost);
    assert!(w.show(Role::Orch, &m.id, &serial(&w), &m.spki));
    assert!(!w.show(Role::Orch, &m.id, &lost, &m.spki), "the one that was lost does not count beside it");
    let stranger = Machine { id: m.id.clone(), ..w.orchestrator() };
    assert_eq!(w.collect(&stranger).err().unwrap().code, Code::BadCredential);
    // Once it has renewed, nobody starts the chain anew.
    let (_, next) = csr();
    let issued = w.renew(&m.id, &next, &[]).unwrap().unwrap();
    assert_eq!(issued.seq, 2);
    assert!(w.collect(&m).is_err());
}

#[test]
fn an_expired_or_revoked_token_admits_nobody() {
    let mut w = World::new();
    let (old, revoked) = (w.mint("node"), w.mint("node"));
    w.act(&["ada"], Action::RevokeToken(v1::RevokeToken { token_id: revoked.id.to_vec() })).unwrap();
    assert_eq!(w.try_join(&revoked).err().unwrap().code, Code::BadCredential);
    w.pass(3_600_000);
    assert_eq!(w.try_join(&old).err().unwrap().code, Code::BadCredential);
}

#[test]
fn a_proof_counts_for_its_own_nonce_csr_key_and_secret_alone() {
    let mut w = World::new();
    let (t, other) = (w.mint("node"), w.mint("node"));
    let (nonce, hpke) = ([5; 32], derive_keypair(&[3; 32]).1);
    let good = w.proof(&t, &nonce, &csr().1, &hpke);
    let swapped = v1::Proof { csr: csr().1, ..good.clone() };
    let other_box = v1::Proof { hpke_pub: derive_keypair(&[4; 32]).1.to_vec(), ..good.clone() };
    let wrong_mac = w.proof(&other, &nonce, &good.csr, &hpke);
    let no_mac = v1::Proof { mac: Vec::new(), ..good.clone() };
    for (proof, nonce) in
        [(&good, [6; 32]), (&swapped, nonce), (&other_box, nonce), (&wrong_mac, nonce), (&no_mac, nonce)]
    {
        let refused = prepare::join(&w.leader(), t.id, &nonce, proof, &mut w.entropy()).err().unwrap();
        assert_eq!(refused.code, Code::BadCredential);
    }
    let p = prepare::join(&w.leader(), t.id, &nonce, &good, &mut w.entropy());
    w.commit(p).unwrap();
}

#[test]
fn the_role_zone_and_labels_come_from_the_token() {
    let mut w = World::new();
    let t = v1::MintToken { labels: vec!["disk=ssd".into()], ..w.token("node") };
    let t = w.mint_as(&["ada"], t).unwrap();
    let node = w.try_join(&t).unwrap();
    let view = w.state.node_view(&node.id, false).unwrap();
    assert_eq!((node.role, view.zone.as_str(), view.labels), (Role::Node, "eu/west", vec!["disk=ssd".to_owned()]));
    let t = w.mint("orchestrator");
    let orch = w.try_join(&t).unwrap();
    assert_eq!(
        (orch.role, w.state_of(&orch.id).as_str()),
        (Role::Orch, "pending"),
        "an orchestrator is always approved"
    );
    let t = w.mint("voter");
    let voter = w.try_join(&t).unwrap();
    assert_eq!((voter.role, w.state_of(&voter.id).as_str()), (Role::Vault, "pending"), "a voter is always admitted");
    let unknown = w.token("king");
    assert_eq!(w.mint_as(&["ada"], unknown).err().unwrap().code, Code::InvalidInput);
}

#[test]
fn only_the_approved_key_collects_the_first_certificate() {
    let mut w = World::new();
    let t = v1::MintToken { approval: true, ..w.token("node") };
    let t = w.mint_as(&["ada"], t).unwrap();
    let m = w.try_join(&t).unwrap();
    assert!(w.collect(&m).unwrap().is_none(), "it waits");
    let wrong = v1::ApproveIdentity { id: m.id.clone(), spki_sha256: vec![0; 32] };
    assert_eq!(w.act(&["ada"], Action::ApproveIdentity(wrong)).err().unwrap().code, Code::BadCredential);
    w.approve(&m).unwrap();
    let mut stranger = w.node();
    stranger.id.clone_from(&m.id);
    assert_eq!(w.collect(&stranger).err().unwrap().code, Code::BadCredential);
    let issued = w.collect(&m).unwrap().unwrap();
    assert_eq!((issued.seq, issued.chain.len(), issued.node_psk.len()), (1, 3, 32));
    assert_eq!(w.approve(&m).err().unwrap().code, Code::Changed, "approved once");
}

#[test]
fn an_applicant_whose_clock_is_off_is_told_by_how_much_and_a_stranger_is_told_nothing() {
    let mut w = World::new();
    let t = w.mint("orchestrator");
    let m = w.try_join(&t).unwrap();
    let stranger = Machine { id: m.id.clone(), ..w.orchestrator() };
    let ask = |w: &mut World, m: &Machine, off: i64| {
        w.pass(off);
        let question = w.await_request(m);
        w.pass(-off);
        prepare::approved(&w.leader(), &question, &mut w.entropy()).map(|answer| !matches!(answer, Approved::Waits))
    };
    let (skew, hour) = (120_000, 3_600_000);
    let nothing = ask(&mut w, &stranger, 0).err().unwrap();
    assert_eq!(nothing.code, Code::BadCredential);
    for approved in [false, true] {
        for near in [-skew, 0, skew] {
            assert_eq!(ask(&mut w, &m, near), Ok(approved), "{near}");
        }
        for (off, told) in
            [(-skew - 1, "behind"), (skew + 1, "ahead"), (-5 * hour, "5h behind"), (5 * hour, "5h ahead")]
        {
            let refused = ask(&mut w, &m, off).err().unwrap();
            assert!(refused.code == Code::Clock && refused.reason.contains(told), "{off}: {refused}");
            assert_eq!(ask(&mut w, &stranger, off).err().as_ref(), Some(&nothing), "{off}");
        }
        if !approved {
            w.approve(&m).unwrap();
        }
    }
}

#[test]
fn one_admin_mints_a_nodes_token_and_an_orchestrators_takes_two() {
    let mut w = World::new();
    let node = w.token("node");
    w.mint_as(&["ada"], node).unwrap();
    for role in ["orchestrator", "voter"] {
        let token = w.token(role);
        let refused = w.mint_as(&["ada"], token.clone()).err().unwrap();
        assert_eq!(refused.code, Code::Threshold);
        assert!(refused.reason.starts_with("mintToken(orch) needs 2 operators"), "{refused}");
        assert_eq!(w.mint_as(&["ada", "sam"], token.clone()).err().unwrap().code, Code::PolicyDenied, "no Admin");
        w.mint_as(&["ada", "ben"], token).unwrap();
    }
}
