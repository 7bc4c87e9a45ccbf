//! STORED: bytes on disk. Golden files hold one of each command, and a small state; `HOLDFAST_BLESS=1` writes them anew.

use crate::world::World;
use holdfast_types::{
    ClusterId, Digest, GrantId, MandateId, Millis, NodeId, OrchId, Role, TaskId, TokenId, VoterId, sha256,
};
use holdfast_vault_core::{
    Asked, CaKey, CertFacts, Command, CrossRow, GrantFact, GrantOrder, HpkeFacts, NewRoot, NodeTaskReport, NoteFacts,
    NoteKind, SealedKey, Stamped, State, StkFacts, Submission, VoterMark, VoterSaid,
};
use std::path::PathBuf;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}
fn blessing() -> bool {
    std::env::var_os("HOLDFAST_BLESS").is_some()
}
fn hex(b: &[u8]) -> String {
    b.iter().map(|x| format!("{x:02x}")).collect()
}
fn unhex(s: &str) -> Vec<u8> {
    let digit = |c: &[u8]| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap();
    s.trim().as_bytes().chunks(2).map(digit).collect()
}

fn cert() -> CertFacts {
    CertFacts {
        seq: 2,
        serial: "0a0b".into(),
        spki: sha256(&[b"spki"]),
        not_after: Millis(5_000),
        root: Digest([8; 32]),
    }
}
fn key() -> CaKey {
    CaKey::Sealed(SealedKey { name: "issuer/1".into(), record: vec![1, 2, 3] })
}
fn hpke() -> Option<HpkeFacts> {
    Some(HpkeFacts { seq: 2, pk: [6; 32], term: 1 })
}

fn voter_said() -> VoterSaid {
    VoterSaid {
        peer_addr: "p".into(),
        service_addr: "s".into(),
        join_addr: "j".into(),
        boot: (3, [5; 16]),
        unlock_epoch: 1,
        recovery_version: 2,
        disk_key_order: 3,
        kem: (4, [6; 32]),
        serial: "0a".into(),
    }
}

fn grant_fact() -> GrantFact {
    GrantFact {
        id: GrantId([1; 16]),
        sha256: Digest([2; 32]),
        task: TaskId::parse("shop.web.1").unwrap(),
        task_gen: 3,
        node: NodeId::parse("node-1").unwrap(),
        node_rev: 4,
        version: 5,
        spec_sha256: Digest([6; 32]),
        secrets: vec![("shop/db".into(), 7)],
        fence: 8,
        mandate: MandateId::parse("m1").unwrap(),
        start_before: Millis(9),
        lease_until: Millis(10),
        protected: false,
        life_ms: 9,
        grace_ms: 5,
        policies: vec!["L1-grant".into()],
        policy_version: 6,
    }
}

/// What becomes of a keyring term.
fn keyring_samples() -> Vec<Command> {
    use holdfast_vault_core::{NewTerm, RecordAt, Rewrapped};
    let moved = |at| Rewrapped { at, rev: 3, record: vec![5, 6] };
    let secret = RecordAt::Secret(holdfast_types::SecretRef::of("shop", "db").unwrap());
    let all = [secret, RecordAt::Token(TokenId([1; 8])), RecordAt::Key("root/1".into())];
    let boxes = vec![(VoterId(1), 4, vec![7]), (VoterId(3), 1, vec![8])];
    vec![
        Command::KeyringAdd(Box::new(NewTerm { term: 2, boxes, recovery_box: vec![9], bundle: vec![10] })),
        Command::Rewrap(all.map(moved).to_vec()),
        Command::KeyringDestroy(vec![1, 2]),
    ]
}

fn new_root() -> NewRoot {
    let cross = CrossRow { by: Digest([2; 32]), der: vec![9], not_after: Millis(10) };
    NewRoot {
        der: vec![1],
        not_after: Millis(2),
        key: CaKey::Token("root/2".into()),
        cross: vec![(Digest([1; 32]), cross)],
        issuer_der: vec![3],
        issuer_key: key(),
        issuer_not_after: Millis(4),
        bundle: vec![5],
    }
}

/// The rotation of the root, and what identities do beside their renewal chain.
fn root_samples() -> Vec<Command> {
    let sealed = SealedKey { name: "stk/1".into(), record: vec![4, 5] };
    let stk = StkFacts { public: [6; 32], key: sealed, from: Millis(7), until: Millis(8) };
    let (root, csr) = (Digest([3; 32]), vec![11]);
    let asked = Asked { root, issuer_key: CaKey::Offline, csr, stk, bundle: vec![12], since: Millis(13) };
    let id = || "node-1".to_owned();
    vec![
        Command::RootAdd(Box::new(new_root())),
        Command::RootSwitch { to: Digest([4; 32]) },
        Command::RootDrop { root, bundle: vec![14] },
        Command::RootDestroyed { root },
        Command::Acked(vec![(id(), 15)]),
        Command::Rejoin { id: id(), cert: cert(), hpke: hpke(), acked: 16, from: "10.0.0.1:1".into() },
        Command::Concurrent { id: id(), detail: "d".into() },
        Command::RootAsk(Box::new(asked)),
    ]
}

fn submission() -> Submission {
    Submission {
        statement: vec![1],
        signers: vec!["ada".into()],
        charter_version: 1,
        policy_version: 2,
        policies: vec!["L1-secrets".into()],
        sealed: Some(vec![3]),
    }
}

/// One of each variant, in the order of the enum; built without a wildcard, so a new variant must come here too.
fn samples() -> Vec<Command> {
    let (node, orch) = (NodeId::parse("node-1").unwrap(), OrchId::parse("orch-1").unwrap());
    let deny = GrantOrder::Deny {
        service: "shop/web".into(),
        node: "node-1".into(),
        code: "policy-denied".into(),
        reason: "no".into(),
        policies: vec!["L0-zone".into()],
    };
    let report = NodeTaskReport {
        grant: GrantId([1; 16]),
        state: "failed".into(),
        exit_code: -1,
        detail: "d".into(),
        restarts: 2,
    };
    let kinds = [
        NoteKind::TokenDeny,
        NoteKind::CommandDeny,
        NoteKind::UnknownCert,
        NoteKind::Evidence,
        NoteKind::UnlockOpen,
        NoteKind::Seal,
        NoteKind::RolledBack,
        NoteKind::Backup,
        NoteKind::UnlockDeny,
        NoteKind::Impostor,
    ];
    let note =
        |kind| Command::Note(NoteFacts { kind, actor: "a".into(), subject: "s".into(), detail: "d".into(), count: 3 });
    let mut all = vec![
        Command::Submit(submission()),
        Command::Join {
            token: TokenId([1; 8]),
            id: "node-1".into(),
            role: Role::Node,
            cert: Some(cert()),
            spki_der: vec![4],
            spki: Digest([5; 32]),
            hpke: hpke(),
        },
        Command::IssueFirst { id: "node-1".into(), cert: cert(), hpke: None },
        Command::Login { id: "ada".into(), statement: vec![1], cert: cert() },
        Command::Renew { id: "node-1".into(), cert: cert(), hpke: hpke(), acked: 7 },
        Command::Activate { id: "node-1".into(), serial: "0a".into() },
        Command::Fork { id: "node-1".into(), detail: "d".into() },
        Command::KeepLease { orch: orch.clone(), session_addr: "o".into(), life_ms: 60_000 },
        Command::Grants {
            orch: orch.clone(),
            request: [9; 16],
            body: Digest([8; 32]),
            orders: vec![GrantOrder::Issue(grant_fact()), deny],
        },
        Command::Reports { node, tasks: vec![report] },
        Command::ReleaseGrants { orch, grants: vec![GrantId([1; 16])], reason: "r".into() },
        Command::Extend { grants: vec![(GrantId([1; 16]), Millis(11))], away: vec![GrantId([2; 16])] },
        Command::NewIssuer { root: Digest([9; 32]), der: vec![1], key: key(), not_after: Millis(12) },
        Command::Tick,
        Command::VoterReported {
            id: VoterId(2),
            leads: Some(7),
            facts: voter_said(),
            cert: Some(cert()),
            terms: vec![(1, vec![4])],
        },
        Command::Progress(vec![VoterMark { id: VoterId(2), index: 300, vote_term: 7 }]),
    ];
    all.extend(kinds.map(note));
    all.extend(keyring_samples());
    all.push(Command::Reset(Box::new(crate::reset::facts())));
    all.extend(root_samples());
    let (ids, shown_by) = (vec!["n-gone".to_owned()], "n-1".to_owned());
    all.push(Command::MergeRemoved { ids, shown_by, sha256: sha256(&[b"revocations"]) });
    all.push(Command::RootPropose(Box::new(new_root())));
    all.push(Command::KeysDestroyed(vec!["issuer/1".into()]));
    let (ids, shown_by) = (vec!["n-forked".to_owned()], "orch-1".to_owned());
    all.push(Command::MergeQuarantined { ids, shown_by, sha256: sha256(&[b"revocations"]), epoch: 12 });
    all.push(Command::ExtendLeases { since: Millis(17), life_ms: 60_000 });
    all
}

/// The place of a variant in the enum; no wildcard, so that a new variant is not forgotten in `samples`.
fn variant(c: &Command) -> usize {
    match c {
        Command::Found(_) => 0,
        Command::Submit(_) => 1,
        Command::Join { .. } => 2,
        Command::IssueFirst { .. } => 3,
        Command::Login { .. } => 4,
        Command::Renew { .. } => 5,
        Command::Activate { .. } => 6,
        Command::Fork { .. } => 7,
        Command::KeepLease { .. } => 8,
        Command::Grants { .. } => 9,
        Command::Reports { .. } => 10,
        Command::ReleaseGrants { .. } => 11,
        Command::Extend { .. } => 12,
        Command::NewIssuer { .. } => 13,
        Command::NewStk { .. } => 14,
        Command::Note(_) => 15,
        Command::Tick => 16,
        Command::VoterReported { .. } => 17,
        Command::Progress(_) => 18,
        Command::KeyringAdd(_) => 19,
        Command::Rewrap(_) => 20,
        Command::KeyringDestroy(_) => 21,
        Command::Reset(_) => 22,
        Command::RootAdd(_) => 23,
        Command::RootSwitch { .. } => 24,
        Command::RootDrop { .. } => 25,
        Command::RootDestroyed { .. } => 26,
        Command::Acked(_) => 27,
        Command::Rejoin { .. } => 28,
        Command::Concurrent { .. } => 29,
        Command::RootAsk(_) => 30,
        Command::MergeRemoved { .. } => 31,
        Command::RootPropose(_) => 32,
        Command::KeysDestroyed(_) => 33,
        Command::MergeQuarantined { .. } => 34,
        Command::ExtendLeases { .. } => 35,
    }
}

fn stamped(command: Command) -> Stamped {
    Stamped { at: Millis(1_000), salt_seed: [7; 32], command }
}

fn lines(name: &str) -> Vec<Vec<u8>> {
    std::fs::read_to_string(golden(name)).unwrap().lines().map(unhex).collect()
}

/// A small cluster's log and state: keys differ at each blessing, so these are only made then.
fn bless() {
    let (mut w, orch, node) = World::shop();
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    let stk = crate::world::named_key("next stk");
    let p = holdfast_vault_core::prepare::new_stk(
        &w.state,
        &w.keys,
        &w.root,
        &stk,
        w.lives.issuer,
        w.now,
        &mut w.entropy(),
    );
    w.commit(p).unwrap();
    let of_log = w.log.iter().filter(|c| matches!(c.command, Command::Found(_) | Command::NewStk { .. })).cloned();
    let commands: Vec<String> = samples().into_iter().map(stamped).chain(of_log).map(|c| hex(&c.encode())).collect();
    std::fs::write(golden("command.hex"), commands.join("\n") + "\n").unwrap();
    let history = w.log.iter().map(|c| hex(&c.encode()));
    let lines: Vec<String> = std::iter::once(hex(&w.state.encode())).chain(history).collect();
    std::fs::write(golden("state.hex"), lines.join("\n") + "\n").unwrap();
}

#[test]
fn stored_commands_and_states_are_read_as_they_were_written() {
    if blessing() {
        bless();
    }
    let stored = lines("command.hex");
    let read: Vec<Stamped> = stored.iter().map(|b| Stamped::decode(b).expect("a stored command decodes")).collect();
    assert!(read.iter().zip(&stored).all(|(c, b)| c.encode() == *b));
    let wanted: Vec<Stamped> = samples().into_iter().map(stamped).collect();
    assert_eq!(read[..wanted.len()], wanted);
    let mut variants: Vec<usize> = read.iter().map(|c| variant(&c.command)).collect();
    variants.sort_unstable();
    variants.dedup();
    assert_eq!(variants, (0..36).collect::<Vec<_>>(), "each variant has a sample");

    // The first line is the state; the others are the log that led to it: old logs replay to the same state for ever.
    let stored = lines("state.hex");
    let (snapshot, log) = stored.split_first().unwrap();
    assert!(State::decode(snapshot).unwrap().encode() == *snapshot);
    let mut written = Vec::new();
    State::decode(snapshot).unwrap().encode_to(&mut written).unwrap();
    assert!(written == *snapshot, "written piece by piece it is another");
    let mut s = State::default();
    for c in log {
        drop(s.apply(Stamped::decode(c).unwrap()));
    }
    assert!(s.encode() == *snapshot, "the stored log does not lead to the stored state any more");
}

#[test]
fn a_cut_or_longer_command_or_snapshot_is_refused() {
    for b in lines("command.hex") {
        for n in 0..b.len() {
            assert_eq!(Stamped::decode(&b[..n]), None);
        }
        assert_eq!(Stamped::decode(&[&b[..], &[0]].concat()), None);
    }
    let snapshot = &lines("state.hex")[0];
    for n in (0..snapshot.len()).step_by(7).chain([snapshot.len() - 1]) {
        assert!(State::decode(&snapshot[..n]).is_err());
    }
    assert!(State::decode(&[&snapshot[..], &[0]].concat()).is_err());
    let mut newer = snapshot.clone();
    newer[0] += 1;
    assert!(State::decode(&newer).is_err());
}

#[test]
fn a_state_carries_no_secret_in_clear() {
    let (mut w, orch, node) = World::shop();
    let value = b"a value that nobody else has";
    w.put_secret("db", 2, value, &["shop/web"]).unwrap();
    w.grant(&orch, w.ask("web", &node, 1)).unwrap();
    let holds = |b: &[u8]| b.windows(value.len()).any(|x| x == value);
    assert!(
        !holds(&w.state.encode())
            && !w.log.iter().any(|c| holds(&c.encode()))
            && !w.leaves.iter().any(|l| holds(&l.entry))
    );
    assert_eq!(w.state.cluster_id(), Some(ClusterId(w.cluster.0)));
}
