//! The whole surface, by its descriptors: there is no call that answers with a secret in clear.
//!
//! A new field of bytes or with a telling name fails here until somebody has written down why it is none.

use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor};
use std::collections::{BTreeMap, BTreeSet};

/// Words of a name that a field with a secret in it would have.
const TELLING: &[&str] = &[
    "value",
    "plaintext",
    "cleartext",
    "plain",
    "clear",
    "secret",
    "secrets",
    "password",
    "passphrase",
    "private",
    "psk",
    "seed",
    "credential",
    "sk",
    "dk",
];
/// Fields with such a name in an answer or a signed document, and why they may be there.
const SPARED: &[(&str, &str)] = &[
    ("Command.delete_secret", "a name"),
    ("Command.put_secret", "a name, readers and the hash of a box"),
    ("EnvVar.value", "signed by the deployer, public by rule: secrets are mounted, never put into the environment"),
    ("Field.value", "a word of the log: ids and hashes"),
    ("Grant.secrets", "names, versions and hashes of boxes"),
    ("GrantView.secrets", "names, versions and hashes of boxes"),
    ("Param.value", "fills a hole of a spec; chosen by the orchestrator itself"),
    ("Spec.secrets", "names and targets"),
    ("SecretList.secrets", "names, versions and readers"),
    ("StatusView.secrets", "a count"),
    ("Issued.node_psk", "to the node that it belongs to, once, over its own TLS session"),
    ("SlotBoxes.dk_gen", "a number"),
    ("SlotBoxes.dk_pending", "a number"),
    ("SlotBox.dk_gen", "a number"),
];
/// What an orchestrator may call.
const FOR_ORCHESTRATORS: &[&str] = &["SchedPlane", "Read", "Log", "CommandPlane", "Deploy"];
/// Bytes in answers to an orchestrator: what each of them is.
const BYTES: &[(&str, &[&str])] = &[
    (
        "public",
        &[
            "LeafData.salt",
            "Receipt.salt",
            "InclusionReply.salt",
            "TokenView.token_id",
            "UnlockView.pending_pk",
            "Bundle.cross",
            "Bundle.intake_pk",
            "Bundle.roots",
            "PublicKey.key",
            "RootView.der",
            "RootsView.issuer_csr",
        ],
    ),
    ("signed document or note", &["Statement.payload", "CheckpointReply.note", "Receipt.checkpoint"]),
    ("signature", &["Sig.sig", "Sig.key_id"]),
    ("log entry: ids and hashes", &["Receipt.entry", "InclusionReply.entry", "LeafData.entry"]),
    ("sealed to a node or an operator", &["GrantIssued.boxes", "LogChunk.box"]),
    (
        "hash or random id",
        &[
            "Bundle.cluster_id",
            "Bundle.prev_sha256",
            "CheckpointReply.root",
            "ConsistencyReply.hashes",
            "DirectoryEvent.grant_gone",
            "GrantSecret.box_sha256",
            "GrantView.grant_id",
            "GrantView.grant_sha256",
            "GrantView.template",
            "InclusionReply.hashes",
            "LogChunk.request_id",
            "Mandate.cluster_id",
            "MandateView.sha256",
            "NodeView.pending_spki_sha256",
            "NodeView.spki_sha256",
            "Receipt.inclusion",
            "RootView.sha256",
            "ServiceVersion.spec_sha256",
            "Straggler.root",
            "StatusView.cluster_id",
            "UnlockView.share_digests",
        ],
    ),
];

fn pool() -> DescriptorPool {
    let folder = suite::repository::root().join("wire/proto");
    let mut compiler = protox::Compiler::new([folder]).unwrap();
    compiler.include_imports(true).open_file("session.proto").unwrap();
    compiler.descriptor_pool()
}

/// Every message that can be inside one of `roots`.
fn reachable(roots: impl IntoIterator<Item = MessageDescriptor>) -> BTreeMap<String, MessageDescriptor> {
    let mut found = BTreeMap::new();
    let mut waiting: Vec<_> = roots.into_iter().collect();
    while let Some(message) = waiting.pop() {
        if found.insert(message.name().to_owned(), message.clone()).is_none() {
            waiting.extend(message.fields().filter_map(|f| f.kind().as_message().cloned()));
        }
    }
    found
}

fn answers(services: impl IntoIterator<Item = ServiceDescriptor>) -> Vec<MessageDescriptor> {
    services.into_iter().flat_map(|s| s.methods().map(|m| m.output()).collect::<Vec<_>>()).collect()
}

fn to_orchestrators(pool: &DescriptorPool) -> BTreeMap<String, MessageDescriptor> {
    let services: Vec<_> = pool.services().filter(|s| FOR_ORCHESTRATORS.contains(&s.name())).collect();
    assert_eq!(services.len(), FOR_ORCHESTRATORS.len(), "a service was renamed");
    reachable(answers(services))
}

fn path(field: &FieldDescriptor) -> String {
    format!("{}.{}", field.parent_message().name(), field.name())
}

fn telling(message: &MessageDescriptor) -> Vec<String> {
    let tells = |f: &FieldDescriptor| f.name().split('_').any(|word| TELLING.contains(&word));
    message.fields().filter(tells).map(|f| path(&f)).collect()
}

#[test]
fn no_answer_and_no_signed_document_has_a_field_for_a_secret() {
    let pool = pool();
    let documents = pool.get_file_by_name("documents.proto").unwrap();
    let roots = answers(pool.services()).into_iter().chain(documents.messages());
    let all = reachable(roots);
    assert!(all.len() > 100, "the surface was not read: {} messages", all.len());
    let found: BTreeSet<String> = all.values().flat_map(telling).collect();
    let spared: BTreeSet<String> = SPARED.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(found, spared);
    assert!(SPARED.iter().all(|(_, why)| !why.is_empty()));
}

#[test]
fn a_field_for_a_secret_would_be_found() {
    // Requests do have such fields: the search that finds nothing in answers finds those.
    let pool = pool();
    let requests = pool.services().flat_map(|s| s.methods().map(|m| m.input()).collect::<Vec<_>>());
    let planted = DescriptorPool::from_file_descriptor_set({
        let folder = tempfile::tempdir().unwrap();
        let text = "syntax = \"proto3\"; package t; service S { rpc Get(Q) returns (A); } message Q {} \
                    message A { repeated Inner inner = 1; } message Inner { bytes secret_bytes = 1; }";
        std::fs::write(folder.path().join("planted.proto"), text).unwrap();
        protox::compile(["planted.proto"], [folder.path()]).unwrap()
    })
    .unwrap();
    let found: Vec<String> = reachable(answers(planted.services())).values().flat_map(telling).collect();
    assert_eq!(found, ["Inner.secret_bytes"]);
    assert!(reachable(requests).contains_key("OpenSlotRequest"));
}

#[test]
fn all_bytes_that_an_orchestrator_is_answered_with_are_accounted_for() {
    let all = to_orchestrators(&pool());
    assert!(!all.contains_key("Issued"), "an orchestrator's calls reach a node's pre-shared key");
    let bytes = all.values().flat_map(|m| m.fields().filter(|f| f.kind() == Kind::Bytes).collect::<Vec<_>>());
    let found: BTreeSet<String> = bytes.map(|f| path(&f)).collect();
    let known: BTreeSet<String> = BYTES.iter().flat_map(|(_, fields)| fields.iter().map(|f| (*f).to_owned())).collect();
    assert_eq!(found, known);
}
