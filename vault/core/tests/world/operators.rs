//! The charter, its operators and publishers, and what they submit.

use super::{World, named_key};
use holdfast_types::{Digest, sha256};
use holdfast_vault_core::prepare;
use holdfast_vault_core::{Committed, Refusal};
use holdfast_wire::boxes::{self, Context};
use holdfast_wire::keys::{Ed25519Key, StatementSigner};
use holdfast_wire::statement::{self, Document};
use holdfast_wire::v1;
use std::collections::BTreeMap;
use v1::command::Action;

const HOUR: i64 = 3_600_000;
const PEOPLE: &[(&str, &[&str], &[&str])] = &[
    ("ada", &["Admin"], &["*"]),
    ("ben", &["Admin"], &["*"]),
    ("cleo", &["Deployer"], &["shop"]),
    ("dora", &["Deployer"], &["shop"]),
    ("sam", &["SecretOwner"], &["shop"]),
    ("oz", &["Auditor"], &[]),
    ("pat", &["Approver"], &["shop"]),
];

pub fn keys() -> BTreeMap<&'static str, Ed25519Key> {
    PEOPLE.iter().map(|(id, ..)| (*id, named_key(id))).collect()
}

fn all(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// Charter v1: one of each for most, two Admins for mandates and releases.
pub fn charter() -> v1::Statement {
    let operator = |(id, roles, owns): &(&str, &[&str], &[&str])| v1::Operator {
        id: (*id).to_owned(),
        key: Some(named_key(id).public()),
        roles: all(roles),
        owns: all(owns),
    };
    let one = [
        "deploy",
        "retire",
        "approvePlacement",
        "putSecret",
        "deleteSecret",
        "mintToken",
        "approveNode",
        "setZone",
        "removeNode",
        "quarantineNode",
        "lockdown",
    ];
    let threshold = |k| move |a: &&str| v1::Threshold { action: (*a).to_owned(), k };
    let publisher = |id: &str, prefix: &str| v1::Publisher {
        id: id.to_owned(),
        keys: vec![named_key(id).public()],
        threshold: 1,
        repo_prefixes: all(&[prefix]),
    };
    let c = v1::Charter {
        version: 1,
        founding_nonce: vec![1; 32],
        trust_domain: "test.example".into(),
        operators: PEOPLE.iter().map(operator).collect(),
        thresholds: one.iter().map(threshold(1)).chain(["putMandate", "release"].iter().map(threshold(2))).collect(),
        publishers: vec![publisher("ci", "r.example/shop"), publisher("lab", "r.example/lab")],
        recovery: Some(v1::Recovery { public_key: vec![2; 32], k: 2, n: 3, share_digests: Vec::new() }),
        ..Default::default()
    };
    let keys = keys();
    let signers: Vec<&dyn StatementSigner> = keys.values().map(|k| k as &dyn StatementSigner).collect();
    statement::sign(&c, &signers).unwrap()
}

/// A secret of the namespace `shop` for every zone, without its value.
pub fn secret(name: &str, version: u64, readers: &[&str]) -> v1::PutSecret {
    v1::PutSecret {
        namespace: "shop".into(),
        name: name.into(),
        version,
        readers: all(readers),
        zones: all(&["*"]),
        ..Default::default()
    }
}

/// The digest of an image by name.
pub fn image(name: &str) -> Digest {
    sha256(&[b"image", name.as_bytes()])
}

impl World {
    pub fn sign<T: Document>(&self, doc: &T, who: &[&str]) -> v1::Statement {
        let signers: Vec<&dyn StatementSigner> =
            who.iter().map(|w| &self.operators[w] as &dyn StatementSigner).collect();
        statement::sign(doc, &signers).unwrap()
    }
    pub fn submit(&mut self, st: &v1::Statement, sealed: &[u8]) -> Result<Committed, Refusal> {
        let p = prepare::submit(&self.leader(), st, sealed, &mut self.entropy());
        self.commit(p).map(|(_, done)| done)
    }
    /// A statement that was accepted before is answered as it was then, and carried out no second time.
    pub fn repeat<T: Document>(&mut self, doc: &T, who: &[&str]) {
        let st = self.sign(doc, who);
        let (told, head) = (self.state.accepted(&st.payload).unwrap(), self.state.log_head());
        let again = self.submit(&st, &[]).unwrap();
        assert_eq!((again.leaf(), again.rev()), (told.leaf, told.rev));
        assert_eq!(self.state.log_head(), head, "it was carried out again");
    }
    pub fn command(&self, action: Action) -> v1::Command {
        v1::Command {
            cluster_id: self.cluster.0.to_vec(),
            era: 1,
            command_id: self.fresh16().to_vec(),
            expires_at_ms: self.now.0 + HOUR,
            expect_rev: 0,
            action: Some(action),
        }
    }
    pub fn act(&mut self, who: &[&str], action: Action) -> Result<Committed, Refusal> {
        let st = self.sign(&self.command(action), who);
        self.submit(&st, &[])
    }
    /// Boxes `value` to the intake key, as the CLI does.
    pub fn intake(&self, subject: &str, rev: u64, command_id: &[u8], value: &[u8]) -> Vec<u8> {
        let (_, pk) = self.keys.intake(self.keys.active()).unwrap();
        let aad = boxes::intake_aad(subject, rev, command_id);
        let c = Context { purpose: "intake", cluster: &self.cluster, aad: &aad };
        boxes::seal(&pk, &c, None, value, self.entropy().draw("intake")).unwrap()
    }
    /// A signed PutSecret with its box.
    pub fn secret_statement(&self, who: &[&str], p: v1::PutSecret, value: &[u8]) -> (v1::Statement, Vec<u8>) {
        let id = self.fresh16();
        let sealed =
            self.intake(&format!("{}/{}", p.namespace, p.name), p.version, &id, &holdfast_wire::padding::pad(value));
        let p = v1::PutSecret { box_sha256: sha256(&[&sealed]).to_vec(), ..p };
        let c = v1::Command { command_id: id.to_vec(), ..self.command(Action::PutSecret(p)) };
        (self.sign(&c, who), sealed)
    }
    pub fn put_secret(
        &mut self,
        name: &str,
        version: u64,
        value: &[u8],
        readers: &[&str],
    ) -> Result<Committed, Refusal> {
        let (st, sealed) = self.secret_statement(&["sam"], secret(name, version, readers), value);
        self.submit(&st, &sealed)
    }
    pub fn voucher(&self, publisher: &str, repository: &str, digest: Digest) -> v1::Statement {
        let v = v1::Voucher {
            cluster_id: self.cluster.0.to_vec(),
            repository: repository.into(),
            digest: digest.to_vec(),
            issued_at_ms: self.now.0,
        };
        statement::sign(&v, &[&named_key(publisher)]).unwrap()
    }
    pub fn vouch(&mut self, name: &str) -> Result<Committed, Refusal> {
        let st = self.voucher("ci", "r.example/shop/web", image(name));
        self.submit(&st, &[])
    }
    /// A spec of `shop/<service>` with image `web`, to be completed.
    pub fn spec(&self, service: &str, version: u64, secrets: &[&str]) -> v1::Spec {
        let mount = |n: &&str| v1::SecretMount {
            name: (*n).to_owned(),
            target: format!("/run/{n}"),
            mode: 0o400,
            ..Default::default()
        };
        v1::Spec {
            cluster_id: self.cluster.0.to_vec(),
            namespace: "shop".into(),
            service: service.into(),
            version,
            valid_until_ms: self.now.0 + 24 * HOUR,
            images: vec![v1::SpecImage {
                name: "web".into(),
                digest: image("web").to_vec(),
                source: "r.example/shop/web:1".into(),
            }],
            secrets: secrets.iter().map(mount).collect(),
            replicas_min: 1,
            replicas_max: 3,
            zones: all(&["*"]),
            on_expiry: "run-on".into(),
            ..Default::default()
        }
    }
    pub fn deploy(&mut self, spec: &v1::Spec) -> Result<Committed, Refusal> {
        let st = self.sign(spec, &["cleo"]);
        self.submit(&st, &[])
    }
    pub fn mandate(&self, id: &str, orchestrators: &[&str]) -> v1::Mandate {
        v1::Mandate {
            cluster_id: self.cluster.0.to_vec(),
            era: 1,
            mandate_id: id.into(),
            orchestrators: all(orchestrators),
            namespaces: all(&["shop"]),
            zones: all(&["*"]),
            not_after_ms: self.now.0 + 30 * 24 * HOUR,
            grants_per_minute: 120,
            novelty_per_hour: 30,
        }
    }
    pub fn put_mandate(&mut self, m: &v1::Mandate) -> Result<Committed, Refusal> {
        let st = self.sign(m, &["ada", "ben"]);
        self.submit(&st, &[])
    }
}
