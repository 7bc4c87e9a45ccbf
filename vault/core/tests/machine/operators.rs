//! Operators' statements: who, how many, for which cluster, until when, once.

use crate::world::{World, image, secret};
use holdfast_vault_core::{Code, Refusal, prepare};
use holdfast_wire::{statement, v1};
use v1::command::Action;

fn code<T>(r: Result<T, Refusal>) -> Code {
    r.err().unwrap().code
}

#[test]
fn a_command_needs_as_many_operators_as_the_charter_says() {
    let mut w = World::new();
    let release = || Action::Release(v1::Release::default());
    assert_eq!(code(w.act(&["ada"], release())), Code::Threshold);
    assert_eq!(code(w.act(&["ada", "ada"], release())), Code::Threshold, "one key signs once");
    w.act(&["ada", "ben"], release()).unwrap();
}

#[test]
fn a_sensitive_service_needs_two_deployers_also_to_be_downgraded_or_retired() {
    let (mut w, ..) = World::shop();
    let vip = v1::Spec { sensitive: true, ..w.spec("vip", 1, &[]) };
    assert_eq!(code(w.deploy(&vip)), Code::Threshold);
    let both = w.sign(&vip, &["cleo", "dora"]);
    w.submit(&both, &[]).unwrap();
    let plain = w.spec("vip", 2, &[]);
    assert_eq!(code(w.deploy(&plain)), Code::Threshold, "one alone cannot sign it away");
    let remove = || Action::RemoveService(v1::RemoveService { namespace: "shop".into(), service: "vip".into() });
    assert_eq!(code(w.act(&["cleo"], remove())), Code::Threshold);
    let both = w.sign(&plain, &["cleo", "dora"]);
    w.submit(&both, &[]).unwrap();
    assert_eq!(code(w.act(&["cleo"], remove())), Code::Threshold, "the sensitive version is still active");
    w.act(&["cleo", "dora"], remove()).unwrap();
}

#[test]
fn a_charter_whose_thresholds_cannot_be_met_founds_nothing() {
    let founds = |thresholds: &[(&str, u32)]| {
        let mut c: v1::Charter = statement::peek(&crate::world::charter()).unwrap();
        c.thresholds.extend(thresholds.iter().map(|(a, k)| v1::Threshold { action: (*a).to_owned(), k: *k }));
        let keys: Vec<_> = c.operators.iter().map(|o| crate::world::named_key(&o.id)).collect();
        let signers: Vec<_> = keys.iter().map(|k| k as &dyn holdfast_wire::keys::StatementSigner).collect();
        holdfast_vault_core::prepare::founding_cluster(&statement::sign(&c, &signers).unwrap())
    };
    founds(&[("putPolicy", 2), ("mintToken(orch)", 2), ("rotateSecret", 1), ("seal", 7)]).unwrap();
    for bad in [("mintToken(orch)", 3), ("mintToken(node)", 1), ("mintToken", 1)] {
        assert_eq!(code(founds(&[bad])), Code::InvalidInput, "{bad:?}");
    }
    for bad in [("putPolicy", 3), ("rotateSecret", 2), ("seal", 8), ("putPolicy", 0), ("deploy", 1), ("fly", 1)] {
        assert_eq!(code(founds(&[bad])), Code::InvalidInput, "{bad:?}");
    }
}

#[test]
fn a_signer_who_is_not_permitted_or_not_an_operator_does_not_count() {
    let mut w = World::new();
    let mint = w.token("node");
    assert_eq!(w.mint_as(&["sam"], mint.clone()).err().unwrap().code, Code::PolicyDenied);
    assert_eq!(w.mint_as(&["ada", "sam"], mint).err().unwrap().code, Code::PolicyDenied);
    let lock = w.command(Action::Lockdown(v1::Lockdown::default()));
    let stranger = statement::sign(&lock, &[&crate::world::named_key("eve")]).unwrap();
    assert_eq!(code(w.submit(&stranger, &[])), Code::Threshold);
    let mut forged = w.sign(&lock, &["oz"]);
    forged.payload[40] ^= 1;
    assert_eq!(code(w.submit(&forged, &[])), Code::BadCredential);
    w.act(&["oz"], Action::Lockdown(v1::Lockdown::default())).unwrap();
}

#[test]
fn a_command_is_for_this_cluster_and_era_and_in_time() {
    let mut w = World::new();
    let good = w.command(Action::Lockdown(v1::Lockdown::default()));
    let others = [
        v1::Command { cluster_id: vec![0; 32], ..good.clone() },
        v1::Command { era: 2, ..good.clone() },
        v1::Command { expires_at_ms: w.now.0, ..good.clone() },
        v1::Command { expires_at_ms: w.now.0 + 24 * 3_600_000 + 1, ..good.clone() },
        v1::Command { expires_at_ms: i64::MAX, ..good.clone() },
        v1::Command { expect_rev: 999, ..good.clone() },
    ];
    for c in others {
        let st = w.sign(&c, &["oz"]);
        assert_eq!(code(w.submit(&st, &[])), Code::Changed);
    }
    let short = v1::Command { command_id: vec![1; 15], ..good };
    let st = w.sign(&short, &["oz"]);
    assert_eq!(code(w.submit(&st, &[])), Code::InvalidInput);
}

#[test]
fn a_command_id_counts_once_even_with_other_words() {
    let mut w = World::new();
    let lock = w.command(Action::Lockdown(v1::Lockdown { reason: "a".into() }));
    let other = v1::Command { action: Some(Action::Lockdown(v1::Lockdown { reason: "b".into() })), ..lock.clone() };
    let (first, second) = (w.sign(&lock, &["oz"]), w.sign(&other, &["ada"]));
    w.submit(&first, &[]).unwrap();
    assert_eq!(code(w.submit(&second, &[])), Code::Changed);
    w.pass(2 * 3_600_000);
    w.propose(holdfast_vault_core::Command::Tick).result.unwrap();
    assert_eq!(code(w.submit(&first, &[])), Code::Changed, "forgotten and expired");
}

#[test]
fn a_statement_whose_answer_was_lost_is_answered_the_same_and_carried_out_once() {
    let mut w = World::new();
    let (st, sealed) = w.secret_statement(&["sam"], secret("db", 1, &["shop/*"]), b"value");
    assert_eq!(w.state.accepted(&st.payload), None);
    let prepared_twice = holdfast_vault_core::prepare::submit(&w.leader(), &st, &sealed, &mut w.entropy());
    let first = w.submit(&st, &sealed).unwrap();
    let told = w.state.accepted(&st.payload).unwrap();
    assert_eq!((told.leaf, told.rev), (first.leaf(), first.rev()));
    w.act(&["oz"], Action::Lockdown(v1::Lockdown::default())).unwrap();
    let (_, second) = w.commit(prepared_twice).unwrap();
    assert_eq!((second.leaf(), second.rev()), (first.leaf(), first.rev()));
    assert_eq!(w.state.secret_views()[0].version, 1);
    w.pass(25 * 3_600_000);
    w.propose(holdfast_vault_core::Command::Tick).result.unwrap();
    assert_eq!(w.state.accepted(&st.payload), None, "kept for a day");
}

#[test]
fn the_expected_revision_holds_at_the_commit_too() {
    let (mut w, _, node) = World::shop();
    let view = w.state.node_view(&node.id, false).unwrap();
    w.act(&["ada"], Action::SetDrain(v1::SetDrain { id: node.id.clone(), drain: true })).unwrap();
    let rev = w.state.node_view(&node.id, false).unwrap().rev;
    assert!(rev > view.rev);
    let lock = v1::Command { expect_rev: rev, ..w.command(Action::Lockdown(v1::Lockdown::default())) };
    let st = w.sign(&lock, &["oz"]);
    let p = holdfast_vault_core::prepare::submit(&w.leader(), &st, &[], &mut w.entropy());
    w.act(&["ada"], Action::SetDrain(v1::SetDrain { id: node.id, drain: false })).unwrap();
    assert_eq!(code(w.commit(p)), Code::Changed);
}

#[test]
fn a_secret_is_the_one_that_was_signed_the_next_version_and_its_owners() {
    let mut w = World::new();
    let put =
        |version, namespace: &str| v1::PutSecret { namespace: namespace.into(), ..secret("db", version, &["shop/*"]) };
    let (st, sealed) = w.secret_statement(&["sam"], put(1, "shop"), b"value");
    let mut other = sealed.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(code(w.submit(&st, &other)), Code::InvalidInput);
    assert_eq!(code(w.submit(&st, &[])), Code::InvalidInput);
    w.submit(&st, &sealed).unwrap();
    for version in [0, 1, 3] {
        let (st, sealed) = w.secret_statement(&["sam"], put(version, "shop"), b"value");
        assert_eq!(code(w.submit(&st, &sealed)), Code::Changed, "version {version}");
    }
    let (st, sealed) = w.secret_statement(&["sam"], put(1, "bank"), b"value");
    assert_eq!(code(w.submit(&st, &sealed)), Code::PolicyDenied, "another's namespace");
    let (st, sealed) = w.secret_statement(&["cleo"], put(2, "shop"), b"value");
    assert_eq!(code(w.submit(&st, &sealed)), Code::PolicyDenied, "not a secret owner");
    let long = vec![0; holdfast_vault_core::prepare::MAX_SECRET + 1];
    let (st, sealed) = w.secret_statement(&["sam"], put(2, "shop"), &long);
    assert_eq!(code(w.submit(&st, &sealed)), Code::InvalidInput);
}

#[test]
fn a_spec_is_the_next_version_of_vouched_images_with_secrets_it_may_read() {
    let (mut w, ..) = World::shop();
    let next = w.spec("web", 2, &["db"]);
    for version in [1, 3] {
        let other = v1::Spec { version, replicas_max: 9, ..next.clone() };
        assert_eq!(code(w.deploy(&other)), Code::Changed);
    }
    let unvouched = vec![v1::SpecImage { name: "x".into(), digest: image("x").to_vec(), source: String::new() }];
    let r = w.deploy(&v1::Spec { images: unvouched, ..next.clone() }).err().unwrap();
    assert_eq!(r.policies, ["L0-publisher"]);
    let foreign = w.spec("other", 1, &["db"]);
    assert_eq!(code(w.deploy(&foreign)), Code::PolicyDenied, "db does not list shop/other");
    let absent = w.spec("web", 2, &["nothing"]);
    assert_eq!(code(w.deploy(&absent)), Code::NotFound);
    let late = v1::Spec { valid_until_ms: w.now.0 + 181 * 86_400_000, ..next.clone() };
    assert_eq!(code(w.deploy(&late)), Code::InvalidInput);
    let elsewhere = v1::Spec { cluster_id: vec![0; 32], ..next.clone() };
    assert_eq!(code(w.deploy(&elsewhere)), Code::Changed);
    let bank = v1::Spec { namespace: "bank".into(), version: 1, secrets: Vec::new(), ..next.clone() };
    assert_eq!(code(w.deploy(&bank)), Code::PolicyDenied, "cleo does not own bank");
    w.deploy(&next).unwrap();
    w.repeat(&next, &["cleo"]);
}

/// Regression: the digest alone was compared, and every node then refused the task.
#[test]
fn a_voucher_for_another_repository_deploys_nothing() {
    let (mut w, ..) = World::shop();
    let sourced = |w: &World, source: &str| {
        let image = v1::SpecImage { name: "web".into(), digest: image("web").to_vec(), source: source.into() };
        v1::Spec { images: vec![image], ..w.spec("web", 2, &[]) }
    };
    for elsewhere in ["r.example/shop/api:1", "r.example/shop", "r.example/shop/web2", "oci-layout:/srv/web", ""] {
        let refusal = w.deploy(&sourced(&w, elsewhere)).err().unwrap();
        assert_eq!((refusal.code, refusal.policies.as_slice()), (Code::PolicyDenied, &["L0-publisher".to_owned()][..]));
        let repository = elsewhere.trim_end_matches(":1");
        assert!(refusal.reason.ends_with(&format!("in {repository}")), "{}", refusal.reason);
    }
    // The repository, not the spelling: neither tag nor digest counts.
    w.deploy(&sourced(&w, &format!("r.example/shop/web:2@{}", image("web").oci()))).unwrap();
    let st = w.voucher("ci", "r.example/shop/api", image("web"));
    w.submit(&st, &[]).unwrap();
    let next = v1::Spec { version: 3, ..sourced(&w, "r.example/shop/api:1") };
    w.deploy(&next).unwrap();
}

#[test]
fn a_sensitive_service_takes_two_deployers() {
    let (mut w, ..) = World::shop();
    let spec = v1::Spec { sensitive: true, ..w.spec("web", 2, &[]) };
    assert_eq!(code(w.deploy(&spec)), Code::Threshold);
    let st = w.sign(&spec, &["cleo", "dora"]);
    w.submit(&st, &[]).unwrap();
}

#[test]
fn a_voucher_is_a_publishers_and_for_its_own_repositories() {
    let mut w = World::new();
    for (who, repository) in
        [("eve", "r.example/shop/web"), ("ci", "r.example/bank"), ("ci", "r.example/shop2"), ("lab", "r.example/shop")]
    {
        let st = w.voucher(who, repository, image("web"));
        assert_eq!(code(w.submit(&st, &[])), Code::BadCredential, "{who} {repository}");
    }
    for repository in ["r.example/shop", "r.example/shop/web/x"] {
        let st = w.voucher("ci", repository, image("web"));
        w.submit(&st, &[]).unwrap();
    }
}

#[test]
fn a_voucher_with_strange_signatures_added_is_no_new_voucher() {
    let mut w = World::new();
    let st = w.voucher("ci", "r.example/shop", image("web"));
    w.submit(&st, &[]).unwrap();
    let before = w.state.encode();
    for n in 0..10 {
        let mut padded = st.clone();
        statement::add_signature(&mut padded, &crate::world::named_key(&format!("eve {n}"))).unwrap();
        let leaves = w.leaves.len();
        w.submit(&padded, &[]).unwrap();
        assert_eq!(w.leaves.len(), leaves);
    }
    assert!(w.state.encode() == before);
}

#[test]
fn a_mandate_names_real_orchestrators_and_ends() {
    let mut w = World::new();
    let (orch, node) = (w.orchestrator(), w.node());
    let good = w.mandate("m1", &[&orch.id]);
    for (m, why) in [
        (w.mandate("m1", &[&node.id]), Code::NotFound),
        (w.mandate("m1", &[]), Code::InvalidInput),
        (v1::Mandate { zones: Vec::new(), ..good.clone() }, Code::InvalidInput),
        (v1::Mandate { not_after_ms: w.now.0 + 91 * 86_400_000, ..good.clone() }, Code::InvalidInput),
        (v1::Mandate { era: 2, ..good.clone() }, Code::Changed),
    ] {
        assert_eq!(code(w.put_mandate(&m)), why);
    }
    let alone = w.sign(&good, &["ada"]);
    assert_eq!(code(w.submit(&alone, &[])), Code::Threshold);
    w.put_mandate(&good).unwrap();
    w.repeat(&good, &["ada", "ben"]);
    w.act(&["ada", "ben"], Action::RevokeMandate(v1::RevokeMandate { mandate_id: "m1".into() })).unwrap();
    w.repeat(&good, &["ada", "ben"]);
    let longer = v1::Mandate { not_after_ms: good.not_after_ms + 1, ..good };
    assert_eq!(code(w.put_mandate(&longer)), Code::Changed, "a revoked mandate does not come back");
}

#[test]
fn operators_log_in_with_a_charter_key_and_are_nobodys_to_remove() {
    let mut w = World::new();
    let (key, csr) = crate::world::csr();
    let nonce = [4; 32];
    let login = |operator: &str, nonce: &[u8; 32]| v1::Login {
        cluster_id: w.cluster.0.to_vec(),
        operator_id: operator.into(),
        nonce: nonce.to_vec(),
        csr_sha256: holdfast_types::sha256(&[&csr]).to_vec(),
    };
    let proof = |doc: &v1::Login, who: &str| v1::LoginProof { login: Some(w.sign(doc, &[who])), csr: csr.clone() };
    let bad = [proof(&login("ben", &nonce), "ada"), proof(&login("ada", &[5; 32]), "ada")];
    let good = proof(&login("ada", &nonce), "ada");
    for p in &bad {
        let refused = holdfast_vault_core::prepare::login(&w.leader(), &nonce, p, &mut w.entropy()).err().unwrap();
        assert_eq!(refused.code, Code::BadCredential);
    }
    let p = holdfast_vault_core::prepare::login(&w.leader(), &nonce, &good, &mut w.entropy());
    let (issued, _) = w.commit(p).unwrap();
    assert_eq!(issued.id, "ada");
    drop(key);
    let remove = Action::RemoveNode(v1::RemoveNode { id: "ada".into() });
    let brake = Action::QuarantineNode(v1::QuarantineNode { id: "ada".into(), reason: String::new() });
    assert_eq!(code(w.act(&["ben"], remove)), Code::NotFound);
    assert_eq!(code(w.act(&["oz"], brake)), Code::NotFound);
    assert_eq!(code(w.renew("ada", &csr, &[])), Code::NotFound, "operators log in again");
}

#[test]
fn vouchers_for_other_repositories_take_no_room_from_the_one_that_counts() {
    let (mut w, orch, node) = World::shop();
    let vouch = |w: &mut World, who: &str, repository: &str| {
        let st = w.voucher(who, repository, image("web"));
        w.submit(&st, &[]).map(drop)
    };
    let most = (0..).take_while(|n| vouch(&mut w, "ci", &format!("r.example/shop/mirror{n}")).is_ok()).count();
    assert!((200..256).contains(&most), "{most}");
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    // What its publisher may not any more, another may, and a repository that has its share goes on.
    vouch(&mut w, "lab", "r.example/lab/web").unwrap();
    w.pass(1);
    vouch(&mut w, "ci", "r.example/shop/mirror0").unwrap_err();
}

#[test]
fn a_command_that_lives_for_a_day_is_carried_out_once_in_all_of_it() {
    let mut w = World::new();
    let day = i64::try_from(holdfast_wire::documents::COMMAND_LIFE.as_millis()).unwrap();
    let lock = w.command(Action::Lockdown(v1::Lockdown { reason: "a".into() }));
    let lock = v1::Command { expires_at_ms: w.now.0 + day, ..lock };
    let other = v1::Command { action: Some(Action::Lockdown(v1::Lockdown { reason: "b".into() })), ..lock.clone() };
    let (first, second) = (w.sign(&lock, &["oz"]), w.sign(&other, &["ada"]));
    w.submit(&first, &[]).unwrap();
    w.act(&["ada", "ben"], Action::Release(v1::Release::default())).unwrap();
    // To its last moment, whoever kept the file and hands it in again changes nothing.
    w.pass(day - 1);
    w.propose(holdfast_vault_core::Command::Tick).result.unwrap();
    w.repeat(&lock, &["oz"]);
    assert_eq!(code(w.submit(&second, &[])), Code::Changed);
    w.pass(1);
    w.propose(holdfast_vault_core::Command::Tick).result.unwrap();
    assert_eq!(w.state.accepted(&first.payload), None);
    assert_eq!(code(w.submit(&first, &[])), Code::Changed, "it is over when it is forgotten");
}

/// Regression: orchestrators hold genuine vouchers and specs, and each repeat of one was an entry of the log.
#[test]
fn a_statement_that_changes_nothing_is_answered_before_it_is_proposed() {
    let (mut w, orch, _) = World::shop();
    let voucher = w.voucher("ci", "r.example/shop/web", image("web"));
    let spec = v1::Spec { valid_until_ms: w.now.0 + 90 * 86_400_000, ..w.spec("web", 2, &[]) };
    let (spec, mandate) = (w.sign(&spec, &["cleo"]), w.sign(&w.mandate("m2", &[&orch.id]), &["ada", "ben"]));
    let (secret, sealed) = w.secret_statement(&["sam"], secret("pin", 1, &["shop/*"]), b"value");
    let known = |w: &World, st: &v1::Statement| prepare::known(&w.leader(), st);
    let nothing: &[u8] = &[];
    for (st, sealed) in [(&spec, nothing), (&mandate, nothing), (&secret, sealed.as_slice())] {
        assert_eq!(known(&w, st), None, "{}", st.r#type);
        let done = w.submit(st, sealed).unwrap();
        assert_eq!(known(&w, st).map(|a| (a.leaf, a.rev)), Some((done.leaf(), done.rev())), "{}", st.r#type);
    }
    // A voucher is held for as long as it counts, also with signatures that count for nothing.
    w.pass(1);
    let later = w.voucher("ci", "r.example/shop/web", image("web"));
    assert_eq!((known(&w, &voucher).is_some(), known(&w, &later)), (true, None));
    let mut padded = voucher.clone();
    statement::add_signature(&mut padded, &crate::world::named_key("eve")).unwrap();
    assert!(known(&w, &padded).is_some());
    padded.sigs.remove(0);
    assert_eq!(known(&w, &padded), None, "without its publisher it is none");

    // What was accepted is forgotten after a day; it is not news for that.
    w.pass(25 * 3_600_000);
    w.propose(holdfast_vault_core::Command::Tick).result.unwrap();
    for st in [&spec, &mandate] {
        assert_eq!(known(&w, st), None);
        assert_eq!(code(prepare::submit(&w.leader(), st, &[], &mut w.entropy())), Code::Changed, "{}", st.r#type);
    }
}
