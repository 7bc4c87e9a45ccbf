//! Leaves: what is written into the transparency log, in apply order (protocol, audit and transparency).

use crate::entropy::expand;
use holdfast_types::{Digest, Millis};
use holdfast_wire::merkle::{Frontier, Node, leaf_hash};
use holdfast_wire::v1;
use prost::Message as _;

/// A leaf as the shell stores it: its content and the complete subtrees it finished.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// Position in the log.
    pub index: u64,
    /// 32 bytes that hide the entry from those who see only proofs.
    pub salt: [u8; 32],
    /// `LogEntry`, encoded.
    pub entry: Vec<u8>,
    /// Complete subtrees that it finished, its own leaf first.
    pub nodes: Vec<Node>,
}

/// What one applied command writes, before it has an index.
pub(crate) struct Draft {
    pub kind: &'static str,
    pub actor: String,
    pub subject: String,
    pub fields: Vec<(&'static str, String)>,
    pub statement: Option<v1::Statement>,
}
impl Draft {
    pub fn new(kind: &'static str, actor: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { kind, actor: actor.into(), subject: subject.into(), fields: Vec::new(), statement: None }
    }
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }
    pub fn signed(mut self, st: &v1::Statement) -> Self {
        self.statement = Some(st.clone());
        self
    }
}

/// Appends `d` to the tree. `n` numbers the leaves of one command, so that salts differ.
pub(crate) fn append(frontier: &mut Frontier, d: Draft, at: Millis, salt_seed: &[u8; 32], n: u64) -> Leaf {
    let mut fields: Vec<v1::Field> =
        d.fields.into_iter().map(|(name, value)| v1::Field { name: name.to_owned(), value }).collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let index = frontier.size();
    let entry = v1::LogEntry {
        index,
        at_ms: at.0,
        kind: d.kind.to_owned(),
        actor: d.actor,
        subject: d.subject,
        fields,
        statement: d.statement,
    }
    .encode_to_vec();
    let salt = expand(salt_seed, "leaf", n);
    let nodes = frontier.push(leaf_hash(&salt, &entry));
    Leaf { index, salt, entry, nodes }
}

/// The field of a `grant.issued` entry that names the grant's payload.
pub fn grant_fields(grant_sha256: &Digest) -> (&'static str, String) {
    ("grant_sha256", grant_sha256.hex())
}
