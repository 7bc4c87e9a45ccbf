//! The file of `log export`: read as it always was, and with any bit of it altered or missing not at all.

use super::*;
use crate::charter;
use crate::operator::Operator;
use holdfast_pki::issue::{ROOT_LIFE, new_root};
use holdfast_pki::keys::{CertSigner, RootStatementSigner, SubjectKey};
use holdfast_transport::keys::PrivateKey;
use holdfast_types::TrustDomain;
use holdfast_wire::keys::{SignError, StatementSigner as _};
use holdfast_wire::merkle::{Frontier, leaf_hash};
use holdfast_wire::statement;
use std::path::PathBuf;

struct Root(PrivateKey);
impl CertSigner for Root {
    fn sec1(&self) -> Vec<u8> {
        SubjectKey::from_spki(self.0.spki_der()).unwrap().sec1().unwrap().to_vec()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        self.0.sign(msg).map_err(|e| SignError(e.to_string()))
    }
}

/// Three entries of a new cluster, as `write` puts them into a file.
fn exported() -> Vec<u8> {
    let (op, stk) = (Operator::generate("op-a").unwrap(), Operator::generate("stk").unwrap());
    let td = TrustDomain::parse("a.example").unwrap();
    let founding = op.sign(&charter::founding(&op, [1; 32], &td, [2; 32])).unwrap();
    let cluster = ClusterId::of_charter(&founding.payload);
    let root = Root(PrivateKey::generate().unwrap());
    let der = new_root(&root, &cluster, [5; 16], crate::clock::now(), ROOT_LIFE).unwrap().der;
    let bundle = v1::Bundle {
        cluster_id: cluster.0.to_vec(),
        era: 1,
        epoch: 1,
        roots: vec![der],
        stks: vec![v1::Stk { key: Some(stk.key.public()), from_ms: 1, until_ms: 2 }],
        intake_pk: vec![6; 32],
        ..v1::Bundle::default()
    };
    let bundle = statement::sign(&bundle, &[&RootStatementSigner(&root)]).unwrap();
    let chains =
        v1::TrustView { charter_chain: vec![founding.clone()], bundle_chain: vec![bundle], ..Default::default() };
    let command = op.sign(&v1::Command::default()).unwrap();
    let said = [("init", "vault", Some(founding)), ("command", "op/op-a", Some(command)), ("seal", "local", None)];
    let (mut tree, mut leaves) = (Frontier::default(), Vec::new());
    for (index, (kind, actor, statement)) in (0u64..).zip(said) {
        let (kind, actor) = (kind.to_owned(), actor.to_owned());
        let entry = v1::LogEntry { index, at_ms: 1, kind, actor, statement, ..v1::LogEntry::default() }.encode_to_vec();
        tree.push(leaf_hash(&[3; 32], &entry));
        leaves.push(v1::LeafData { index, salt: vec![3; 32], entry });
    }
    let checkpoint = Checkpoint { origin: origin(td.as_str(), 1), size: tree.size(), root: tree.root() };
    let note = checkpoint.sign(&stk.key).unwrap();
    let head = v1::CheckpointReply { note, size: checkpoint.size, root: checkpoint.root.to_vec() };
    let mut file = MAGIC.to_vec();
    file.extend(frame(&chains.encode_to_vec()).unwrap());
    file.extend(frame(&head.encode_to_vec()).unwrap());
    for leaf in leaves {
        file.extend(frame(&v1::EntriesChunk { leaves: vec![leaf] }.encode_to_vec()).unwrap());
    }
    file
}

/// Which cluster the file is of, by its first charter and root: what a context would know.
fn named(path: &Path) -> (ClusterId, Digest) {
    let chains: v1::TrustView =
        strict::decode(&Frames::open(path, MAGIC).unwrap().next().unwrap().unwrap(), MAX_PART).unwrap();
    let cluster = ClusterId::of_charter(&chains.charter_chain[0].payload);
    let bundle = statement::peek::<v1::Bundle>(&chains.bundle_chain[0]).unwrap();
    (cluster, cluster.anchor(&bundle.roots[0]))
}

fn checked(path: &Path, (cluster, anchor): &(ClusterId, Digest)) -> Result<u64, Failure> {
    check(path, cluster, anchor, |_, _| {}).map(|c| c.size)
}

fn write_to(dir: &Path, bytes: &[u8]) -> PathBuf {
    let path = dir.join("log");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// STORED: golden file. If this fails, files of old are not understood any more: make a new format instead.
#[test]
fn an_exported_log_is_stored_as_it_always_was() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/log-export.hex");
    if std::env::var_os("HOLDFAST_BLESS").is_some() {
        let hex: String = exported().iter().map(|b| format!("{b:02x}")).collect();
        std::fs::write(&golden, format!("{hex}\n")).unwrap();
    }
    let hex = std::fs::read_to_string(golden).unwrap();
    let hex = hex.trim();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = write_to(dir.path(), &bytes);
    assert_eq!(checked(&path, &named(&path)).unwrap(), 3);
    let (mut frames, mut again) = (Frames::open(&path, MAGIC).unwrap(), MAGIC.to_vec());
    while let Some(one) = frames.next().unwrap() {
        again.extend(frame(&one).unwrap());
    }
    assert_eq!(again, bytes);
}

#[test]
fn an_exported_log_with_any_byte_altered_or_the_rest_missing_is_refused() {
    let (dir, honest) = (tempfile::tempdir().unwrap(), exported());
    let whose = {
        let path = write_to(dir.path(), &honest);
        assert_eq!(checked(&path, &named(&path)).unwrap(), 3);
        named(&path)
    };
    for n in 0..honest.len() {
        let mut bad = honest.clone();
        bad[n] ^= 1 << (n % 8);
        for bad in [bad.as_slice(), &honest[..n]] {
            assert!(checked(&write_to(dir.path(), bad), &whose).is_err(), "byte {n} of {}", honest.len());
        }
    }
    let other = named(&write_to(dir.path(), &exported()));
    assert!(checked(&write_to(dir.path(), &honest), &other).is_err(), "the log of another cluster");
}
