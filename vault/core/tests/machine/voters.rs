//! Voters: admitted by the key that operators named, under a number of their own; evicted for good; and believed about
//! themselves only as far as it can be true.

use crate::world::{SoftKey, World, boot, csr_of};
use holdfast_types::{Role, TokenId, VoterId, sha256};
use holdfast_vault_core::prepare::{self, Admission, PeerPin, peer_pin};
use holdfast_vault_core::{
    Code, Command, Committed, Keyring, NoteFacts, NoteKind, Refusal, State, VoterMark, VoterSaid, VoterState,
};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::statement::peek;
use holdfast_wire::v1;
use v1::command::Action;

fn code<T>(r: Result<T, Refusal>) -> Code {
    r.err().unwrap().code
}

fn pin_of(w: &World, id: u64, m: &crate::world::Machine) -> PeerPin {
    peer_pin(&w.state, VoterId(id), &m.spki)
}

/// A report as it stands in the log, past everything that the leader looks at.
fn committed(w: &mut World, id: u64, said: &v1::VoterReport) -> Result<Committed, Refusal> {
    let b = said.boot.as_ref().unwrap();
    let facts = VoterSaid {
        peer_addr: said.peer_addr.clone(),
        service_addr: said.service_addr.clone(),
        join_addr: said.join_addr.clone(),
        boot: (b.count, b.id.clone().try_into().unwrap()),
        unlock_epoch: said.unlock_epoch,
        recovery_version: said.recovery_version,
        disk_key_order: said.disk_key_order,
        kem: (said.kem_gen, said.kem_pk.clone().try_into().unwrap()),
        serial: said.serial.clone(),
    };
    w.propose(Command::VoterReported { id: VoterId(id), leads: None, facts, cert: None, terms: Vec::new() }).result
}

/// The same refusal when it is prepared, and when it comes to be applied all the same.
fn refused_twice(w: &mut World, id: u64, said: &v1::VoterReport, why: Code) {
    assert_eq!(code(w.says(id, said, None)), why);
    assert_eq!(code(committed(w, id, said)), why);
}

#[test]
fn a_voters_number_is_never_given_to_another() {
    let mut w = World::new();
    let (second, m) = w.voter();
    w.evict(second, false).unwrap();
    w.state = State::decode(&w.state.encode()).unwrap();
    let (third, n) = w.voter();
    assert_eq!((second, third, w.state.last_voter()), (2, 3, VoterId(3)));
    let key = |id| w.state.voter(VoterId(id)).unwrap().spki;
    assert_eq!((key(2), key(3)), (Some(m.spki), Some(n.spki)), "the evicted one's row stays as it was");
}

#[test]
fn an_applicant_is_admitted_with_the_key_that_operators_named_and_no_other() {
    let mut w = World::new();
    let m = w.applicant();
    let admit = |key: Vec<u8>| Action::AdmitVoter(v1::AdmitVoter { id: m.id.clone(), spki_sha256: key });
    assert_eq!(code(w.act(&["ada", "ben"], admit(vec![0; 32]))), Code::BadCredential);
    assert_eq!(code(w.act(&["ada", "ben"], admit(vec![0; 31]))), Code::InvalidInput);
    assert_eq!(code(w.act(&["ada"], admit(m.spki.to_vec()))), Code::Threshold, "every Admin, unless the charter says");
    assert_eq!(code(w.act(&["ada", "sam"], admit(m.spki.to_vec()))), Code::PolicyDenied);
    assert_eq!(code(w.approve(&m)), Code::InvalidInput, "an approval does not make a voter");
    let node = w.node();
    assert_eq!(code(w.admit(&node)), Code::NotFound, "a node does not become a voter");
    assert_eq!(w.state.last_voter(), VoterId(1));
    let from = w.leaves.len();
    w.admit(&m).unwrap();
    assert_eq!(w.kinds_since(from), ["voter.admit"]);
    assert_eq!(code(w.admit(&m)), Code::Changed, "it is admitted once");
}

#[test]
fn of_two_admissions_at_once_one_gets_the_number_and_the_other_is_told_to_try_again() {
    let mut w = World::new();
    let (a, b) = (w.applicant(), w.applicant());
    let (first, second) = (w.admission(&a), w.admission(&b));
    let p = [&first, &second].map(|st| prepare::submit(&w.leader(), st, &[], &mut w.entropy()));
    let [p, q] = p;
    w.commit(p).unwrap();
    assert_eq!(code(w.commit(q)), Code::Changed);
    assert_eq!((pin_of(&w, 2, &a), w.state.last_voter()), (PeerPin::Member, VoterId(2)));
    w.submit(&second, &[]).unwrap();
    assert_eq!(pin_of(&w, 3, &b), PeerPin::Member);
}

#[test]
fn an_admission_brings_every_live_term_once_or_is_refused() {
    let mut w = World::new();
    let m = w.applicant();
    let st = w.admission(&m);
    let p = prepare::submit(&w.leader(), &st, &[], &mut w.entropy()).unwrap();
    let Command::Submit(good) = p.command.command.clone() else { panic!("no submission") };
    let brought = Admission::decode(good.sealed.as_deref().unwrap()).unwrap();
    let one = brought.terms[0].clone();
    for terms in [vec![], vec![one.clone(), one.clone()], vec![(2, one.1.clone())], vec![one.clone(), (2, one.1)]] {
        let sealed = Some(Admission { terms, ..brought.clone() }.encode());
        let command = Command::Submit(holdfast_vault_core::Submission { sealed, ..good.clone() });
        assert_eq!(w.propose(command).result.err().unwrap().code, Code::Changed);
    }
    for sealed in [None, Some(vec![]), Some([brought.encode(), vec![0]].concat())] {
        let command = Command::Submit(holdfast_vault_core::Submission { sealed, ..good.clone() });
        assert_eq!(w.propose(command).result.err().unwrap().code, Code::InvalidInput);
    }
    w.commit(Ok(p)).unwrap();
}

#[test]
fn who_waits_for_admission_gets_nothing() {
    let mut w = World::new();
    let m = w.applicant();
    assert!(m.id.starts_with("v-") && w.collect_voter(&m).unwrap().is_none());
    assert_eq!(w.state.voters().count(), 1);
    let waiting: Vec<_> = w.state.applicants().into_iter().map(|a| (a.id, a.role, a.spki_sha256)).collect();
    assert_eq!(waiting, [(m.id.clone(), "voter".to_owned(), m.spki.to_vec())]);
    assert!(!w.state.machine_ids().any(|id| id == m.id), "it is no machine of the directory");
    assert!(!w.show(Role::Vault, &m.id, "0", &m.spki) && !w.show(Role::Vault, "2", "0", &m.spki));
    assert_eq!(pin_of(&w, 1, &m), PeerPin::Unknown);
    let said = w.voter_report(1, 1);
    assert_eq!(code(w.says(2, &said, None)), Code::NotFound);
    assert_eq!(code(w.renew(&m.id, &csr_of(&m.key), &[3; 32])), Code::NotFound);
}

#[test]
fn who_was_turned_away_is_not_admitted_later() {
    let mut w = World::new();
    let m = w.applicant();
    w.act(&["ada"], Action::RemoveNode(v1::RemoveNode { id: m.id.clone() })).unwrap();
    assert_eq!(code(w.admit(&m)), Code::Changed);
    assert_eq!(code(w.collect_voter(&m)), Code::BadCredential);
    assert!(w.state.applicants().is_empty());
}

#[test]
fn a_join_by_a_voters_token_is_never_admitted_by_itself() {
    let mut w = World::new();
    let t = w.mint("voter");
    let (spki_der, spki) = (vec![1], sha256(&[b"key"]));
    let root = w.state.signing_root_sha256().unwrap();
    let cert = holdfast_vault_core::CertFacts { seq: 1, serial: "0a".into(), spki, not_after: w.now, root };
    let join = |token: TokenId, cert| Command::Join {
        token,
        id: "v-1".into(),
        role: Role::Vault,
        cert,
        spki_der: spki_der.clone(),
        spki,
        hpke: None,
    };
    assert_eq!(w.propose(join(t.id, Some(cert))).result.err().unwrap().code, Code::BadCredential);
    w.propose(join(t.id, None)).result.unwrap();
    assert_eq!(w.state_of("v-1"), "pending");
}

#[test]
fn an_admitted_voter_is_given_its_number_and_its_keyring_until_it_is_up() {
    let mut w = World::new();
    let m = w.applicant();
    w.admit(&m).unwrap();
    let first = w.collect_voter(&m).unwrap().unwrap();
    let again = w.collect_voter(&m).unwrap().unwrap();
    assert_eq!((first.voter_id, again.voter_id, first.chain.len()), (2, 2, 3));
    assert_ne!(first.chain[0], again.chain[0], "an answer that was lost is given anew");
    assert_eq!(first.peers, [v1::VoterPeer { id: 1, addr: "v:7402".into() }]);
    assert_eq!(first.charter_chain, w.state.charter_chain());
    let row = w.state.voter(VoterId(2)).unwrap();
    let (term, sealed) = &row.terms[0];
    Keyring::open_term(&w.cluster, &m.hpke, *term, 2, 1, sealed).unwrap();
    assert!(Keyring::open_term(&w.cluster, &m.hpke, *term, 3, 1, sealed).is_err(), "a box is for one number");
    let stranger = crate::world::Machine { id: m.id.clone(), ..w.applicant() };
    assert_eq!(code(w.collect_voter(&stranger)), Code::BadCredential);

    let said = w.voter_report(2, 1);
    w.says(2, &said, None).unwrap().unwrap();
    assert_eq!(code(w.collect_voter(&m)), Code::BadCredential, "its join is over");
    assert_eq!(w.state.role_of(&m.id), None);
    let views: Vec<_> = w.state.voter_views().into_iter().map(|v| (v.id, v.state, v.peer_addr)).collect();
    assert_eq!(views[1], (2, "unknown".to_owned(), "v2:7402".to_owned()));
}

#[test]
fn a_voters_key_does_not_join_as_another_voter() {
    let mut w = World::new();
    let (second, m) = w.voter();
    w.evict(second, false).unwrap();
    let t = w.mint("voter");
    let back = w.try_join_with(&t, m.key).unwrap();
    let refused = w.admit(&back).err().unwrap();
    assert!(refused.code == Code::Changed && refused.reason.contains("voter 2"), "{refused}");
}

#[test]
fn an_evicted_voter_is_believed_nothing_and_given_nothing() {
    let mut w = World::new();
    let (second, m) = w.voter();
    let csr = csr_of(&m.key);
    let said = v1::VoterReport { csr, ..w.voter_report(second, 2) };
    w.says(second, &said, None).unwrap().unwrap();
    let serial = w.state.voter(VoterId(second)).unwrap().cert.clone().unwrap().serial;
    assert!(w.show(Role::Vault, "2", &serial, &m.spki));
    let mark = |index| Command::Progress(vec![VoterMark { id: VoterId(second), index, vote_term: 3 }]);
    w.propose(mark(40)).result.unwrap();
    assert_eq!(
        code(w.act(&["ada"], Action::EvictVoter(v1::EvictVoter { voter_id: 2, compromised: false }))),
        Code::Threshold
    );
    let from = w.leaves.len();
    w.evict(second, false).unwrap();
    assert_eq!(w.kinds_since(from), ["voter.evict"]);

    assert_eq!(pin_of(&w, second, &m), PeerPin::Leaving, "it is spoken with about its going alone");
    assert!(!w.show(Role::Vault, "2", &serial, &m.spki));
    let later = v1::VoterReport { csr: Vec::new(), ..w.voter_report(second, 3) };
    refused_twice(&mut w, second, &later, Code::BadCredential);
    w.propose(mark(50)).result.unwrap();
    assert_eq!(w.state.high_water(VoterId(second)), (40, 3, (2, [1; 16]), true));
    let row = w.state.voter(VoterId(second)).unwrap();
    assert!(row.state == VoterState::Evicted && row.terms.is_empty());
    assert_eq!(w.state.voters().map(|(id, _)| id).collect::<Vec<_>>(), [VoterId(1)]);
    let list: v1::Revocations = peek(&prepare::revocations(&w.state, &w.stk).unwrap()).unwrap();
    assert_eq!(list.revoked, [v1::Revocation { id: "vault/2".into(), not_before_seq: 3, ..Default::default() }]);
    assert_eq!(code(w.evict(second, false)), Code::Changed);
    assert_eq!(code(w.evict(9, false)), Code::NotFound);
}

#[test]
fn a_voter_that_was_evicted_before_it_was_up_collects_nothing() {
    let mut w = World::new();
    let m = w.applicant();
    w.admit(&m).unwrap();
    w.evict(2, false).unwrap();
    assert_eq!(code(w.collect_voter(&m)), Code::BadCredential);
    assert_eq!(w.state.role_of(&m.id), None);
}

#[test]
fn the_last_voter_that_was_ever_up_is_not_evicted() {
    let mut w = World::new();
    let m = w.applicant();
    assert_eq!(code(w.evict(1, false)), Code::Changed);
    w.admit(&m).unwrap();
    let refused = w.evict(1, false).err().unwrap();
    assert!(refused.reason.contains("without voter 1"), "the other has no disk yet: {refused}");
    let said = w.voter_report(2, 1);
    w.says(2, &said, None).unwrap().unwrap();
    w.evict(1, false).unwrap();
    assert_eq!(code(w.evict(2, false)), Code::Changed);
}

#[test]
fn what_a_compromised_voter_held_stays_on_the_list_until_something_took_its_place() {
    let mut w = World::new();
    let (second, third) = (w.voter().0, w.voter().0);
    w.evict(second, true).unwrap();
    w.evict(third, false).unwrap();
    let open = w.state.compromised_voters();
    assert_eq!(open, [(VoterId(second), vec!["keyring", "statement key", "issuer"])], "autolock is off: no unlock key");
    let leaf = w.leaves.iter().map(|l| w.entry(l.index)).find(|e| e.kind == "voter.evict").unwrap();
    let field = |name: &str| leaf.fields.iter().find(|f| f.name == name).unwrap().value.clone();
    assert_eq!(field("compromised"), "true");
    assert_eq!(field("open"), "keyring, statement key, issuer");
    let (issuer, life) = (SoftKey::new(), w.lives.issuer);
    let pkcs8 = issuer.private();
    let p = prepare::new_issuer(
        &w.state,
        &w.keys,
        &w.root,
        &issuer,
        prepare::AtRest::Sealed(&pkcs8),
        life,
        w.now,
        &mut w.entropy(),
    );
    w.commit(p).unwrap();
    assert_eq!(w.state.compromised_voters(), [(VoterId(second), vec!["keyring", "statement key"])]);
}

#[test]
fn a_report_of_an_older_boot_or_of_a_second_process_is_rolled_back() {
    let mut w = World::new();
    let (second, _) = w.voter();
    let said = w.voter_report(second, 5);
    w.says(second, &said, None).unwrap().unwrap();
    for (count, id) in [(4, 1), (1, 1), (5, 2)] {
        let older = v1::VoterReport { boot: boot(count, id), ..said.clone() };
        refused_twice(&mut w, second, &older, Code::RolledBack);
    }
    assert_eq!(w.state.high_water(VoterId(second)).2, (5, [1; 16]));
    let never = v1::VoterReport { boot: boot(0, 1), ..said.clone() };
    refused_twice(&mut w, second, &never, Code::InvalidInput);
    let next = v1::VoterReport { boot: boot(6, 7), ..said };
    w.says(second, &next, None).unwrap().unwrap();
    let kind = NoteKind::RolledBack;
    let note =
        NoteFacts { kind, actor: "vault/2".into(), subject: "vault/2".into(), detail: "boot 5".into(), count: 1 };
    let from = w.leaves.len();
    w.propose(Command::Note(note)).result.unwrap();
    assert_eq!(w.kinds_since(from), ["voter.rolledback"]);
}

#[test]
fn a_report_is_an_entry_only_if_it_says_something_new() {
    let mut w = World::new();
    let (second, _) = w.voter();
    let said = w.voter_report(second, 1);
    assert_eq!(w.says(second, &said, None), Ok(None));
    assert!(w.says(second, &said, Some(7)).unwrap().is_some(), "it leads");
    assert_eq!(w.says(second, &said, Some(7)), Ok(None));
    assert_eq!(w.state.high_water(VoterId(second)).1, 7, "who leads in a term has voted in it");
    let from = w.leaves.len();
    let moved = v1::VoterReport { service_addr: "w:7443".into(), ..said.clone() };
    w.says(second, &moved, None).unwrap().unwrap();
    let slots = v1::VoterReport { recovery_version: 2, ..moved.clone() };
    w.says(second, &slots, None).unwrap().unwrap();
    assert_eq!(w.kinds_since(from), ["voter.up", "unlock.slotready"]);
    assert_eq!(w.says(second, &moved, None), Ok(None), "less than before is no news");
    let elsewhere = v1::VoterReport { peer_addr: "e:7402".into(), ..moved };
    w.says(second, &elsewhere, None).unwrap().unwrap();
    let row = w.state.voter(VoterId(second)).unwrap();
    assert_eq!((row.peer_addr.as_str(), row.recovery_version), ("e:7402", 2), "who has not caught up is found");
    for addr in ["two words", "a\nb", &"x".repeat(301)] {
        refused_twice(&mut w, second, &v1::VoterReport { peer_addr: addr.into(), ..slots.clone() }, Code::InvalidInput);
    }
}

#[test]
fn a_voter_obeys_no_order_that_was_not_given() {
    let mut w = World::new();
    let (second, _) = w.voter();
    let said = w.voter_report(second, 1);
    refused_twice(&mut w, second, &v1::VoterReport { disk_key_order: 1_000, ..said.clone() }, Code::Changed);
    refused_twice(&mut w, second, &v1::VoterReport { unlock_epoch: 1_000, ..said }, Code::Changed);
}

#[test]
fn a_voter_is_certified_for_the_key_it_was_admitted_with_alone() {
    let mut w = World::new();
    let (second, m) = w.voter();
    let ask = |w: &World, csr: Vec<u8>| v1::VoterReport { csr, ..w.voter_report(second, 1) };
    let stranger = ask(&w, crate::world::csr().1);
    assert_eq!(code(w.says(second, &stranger, None)), Code::BadCredential);
    let good = ask(&w, csr_of(&m.key));
    let lost = prepare::voter_said(&w.leader(), VoterId(second), &good, None, &mut w.entropy()).unwrap().unwrap();
    assert_eq!(w.says(second, &good, None).unwrap().unwrap().chain.len(), 3);
    assert_eq!(w.state.voter(VoterId(second)).unwrap().cert.as_ref().unwrap().seq, 2);
    assert_eq!(code(w.commit(Ok(lost))), Code::Changed, "each certificate has a number of its own");
    // The founder was approved by nobody: its first request names its key for good.
    assert_eq!(
        code(w.says(1, &v1::VoterReport { csr: stranger.csr, ..w.voter_report(1, 1) }, None)),
        Code::BadCredential
    );
}

#[test]
fn a_next_kem_key_gets_every_live_term_and_no_generation_is_skipped() {
    let mut w = World::new();
    let (second, _) = w.voter();
    let said = w.voter_report(second, 1);
    let (sk, pk) = derive_keypair(&[77; 32]);
    let with = |kem_gen, pk: [u8; 32]| v1::VoterReport { kem_gen, kem_pk: pk.to_vec(), ..said.clone() };
    assert_eq!(w.says(second, &with(0, pk), None), Ok(None), "an older generation is no news");
    for bad in [with(1, pk), with(3, pk), v1::VoterReport { kem_gen: 2, ..said.clone() }] {
        refused_twice(&mut w, second, &bad, Code::Changed);
    }
    let next = with(2, pk);
    assert_eq!(code(committed(&mut w, second, &next)), Code::Changed, "without its boxes it would hold nothing");
    w.says(second, &next, None).unwrap().unwrap();
    let row = w.state.voter(VoterId(second)).unwrap();
    let (term, sealed) = &row.terms[0];
    assert_eq!((row.kem_gen, row.kem_pk, row.terms.len()), (2, pk, 1));
    Keyring::open_term(&w.cluster, &sk, *term, second, 2, sealed).unwrap();
    assert_eq!(w.says(second, &next, None), Ok(None));
}

#[test]
fn a_peers_key_is_the_one_it_was_admitted_with() {
    let mut w = World::new();
    let ((second, m), (third, n)) = (w.voter(), w.voter());
    assert_eq!((pin_of(&w, second, &m), pin_of(&w, third, &n)), (PeerPin::Member, PeerPin::Member));
    assert_eq!((pin_of(&w, second, &n), pin_of(&w, third, &m)), (PeerPin::Unknown, PeerPin::Unknown));
    assert_eq!((pin_of(&w, 0, &m), pin_of(&w, 4, &m)), (PeerPin::Unknown, PeerPin::Newer));
}
