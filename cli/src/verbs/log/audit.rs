//! The auditor: takes every leaf in order and says what is wrong with the first that is. No network, no files.

use crate::charter;
use crate::errors::{Code, Failure};
use holdfast_types::{ClusterId, Digest};
use holdfast_wire::charter::{CharterChain, keys};
use holdfast_wire::images::vouched;
use holdfast_wire::merkle::{Frontier, leaf_hash};
use holdfast_wire::statement::{self, Document as _, News};
use holdfast_wire::{strict, v1};

/// A log so far.
pub struct Auditor {
    cluster: ClusterId,
    tree: Frontier,
    charter: Option<CharterChain>,
    last_ms: i64,
}

impl Auditor {
    /// Before the first entry.
    pub fn new(cluster: ClusterId) -> Self {
        Self { cluster, tree: Frontier::default(), charter: None, last_ms: 0 }
    }
    /// Entries taken so far.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }
    /// Takes the next leaf, and returns the entry in it.
    pub fn take(&mut self, leaf: &v1::LeafData) -> Result<v1::LogEntry, Failure> {
        let index = self.size();
        let wrong = |why: String| wrong_entry(index, &why);
        let entry: v1::LogEntry = strict::decode(&leaf.entry, super::MAX_ENTRY).map_err(|e| wrong(e.to_string()))?;
        if leaf.index != index || entry.index != index {
            return Err(wrong(format!("it says that it is entry {}", entry.index)));
        }
        if leaf.salt.len() != 32 {
            return Err(wrong("its salt is not 32 bytes".to_owned()));
        }
        if entry.at_ms < self.last_ms {
            return Err(wrong("its time is before that of the entry before it".to_owned()));
        }
        if !entry.fields.is_sorted_by(|a, b| a.name < b.name) {
            return Err(wrong("its fields are not sorted, or named twice".to_owned()));
        }
        self.check_actor(&entry).map_err(wrong)?;
        self.last_ms = entry.at_ms;
        self.tree.push(leaf_hash(&leaf.salt, &leaf.entry));
        Ok(entry)
    }
    /// Compares the tree with the signed checkpoint.
    pub fn finish(&self, size: u64, root: &Digest) -> Result<(), Failure> {
        if self.size() != size {
            return Err(wrong_entry(self.size(), "it is missing"));
        }
        if self.tree.root() == *root {
            return Ok(());
        }
        let what = format!("the {size} entries do not make the root of the signed checkpoint");
        Err(Failure::new(Code::LogWrong, what, "the voter shows other entries than it signed: keep them as evidence"))
    }

    /// An entry that names an operator must hold what that operator signed: the vault cannot invent an operator's action.
    fn check_actor(&mut self, e: &v1::LogEntry) -> Result<(), String> {
        let Some(st) = &e.statement else {
            let invented = e.actor.starts_with("op/") && SIGNED.contains(&e.kind.as_str());
            return if invented {
                Err(format!("{} is said to be by {}, who signed nothing", e.kind, e.actor))
            } else {
                Ok(())
            };
        };
        if st.r#type == v1::Charter::TYPE {
            return self.check_charter(st);
        }
        let Some(current) = &self.charter else { return Err("it comes before the charter".to_owned()) };
        let named = signers(st, current.head())?;
        let said: Vec<&str> = e.actor.split(',').filter_map(|a| a.strip_prefix("op/")).collect();
        // A publisher is not an operator; whoever submitted the voucher is not part of it.
        let by_operators = st.r#type != v1::Voucher::TYPE;
        match said.iter().find(|s| by_operators && !named.iter().any(|n| n == *s)) {
            Some(s) => Err(format!("it is said to be by {s}, who did not sign it")),
            None => Ok(()),
        }
    }

    /// The first charter is the one that the cluster is named after; each other follows the one before.
    fn check_charter(&mut self, st: &v1::Statement) -> Result<(), String> {
        let Some(current) = &mut self.charter else {
            let first = charter::verify_chain(std::slice::from_ref(st), &self.cluster).map_err(|f| f.message)?;
            self.charter = Some(first);
            return Ok(());
        };
        match current.observe(st).map_err(|e| e.to_string())? {
            News::Todo(next) => current.adopt(next),
            News::AlreadyDone | News::Stale => return Err("it repeats a charter".to_owned()),
        }
        Ok(())
    }
}

/// Takes a log whole: its leaves as `next` brings them, until there are as many as the signed checkpoint of `size` and
/// `root` says. `each` sees every entry; what it made of them counts only if this returns `Ok`.
pub async fn whole(
    cluster: ClusterId,
    (size, root): (u64, &Digest),
    mut next: impl AsyncFnMut() -> Result<Option<Vec<v1::LeafData>>, Failure>,
    mut each: impl FnMut(&v1::LogEntry),
) -> Result<(), Failure> {
    let mut auditor = Auditor::new(cluster);
    while auditor.size() < size {
        let Some(leaves) = next().await? else { break };
        for leaf in leaves {
            each(&auditor.take(&leaf)?);
        }
    }
    auditor.finish(size, root)
}

/// Kinds of entry that an operator causes by a statement. Others by an operator follow from one: `grant.revoked`, denials.
const SIGNED: [&str; 21] = [
    "command",
    "image.allow",
    "image.deny",
    "image.vouch",
    "lockdown",
    "mandate",
    "node.approve",
    "node.drain",
    "node.quarantine",
    "node.release",
    "node.remove",
    "node.zone",
    "operator.login",
    "release",
    "reset",
    "secret.delete",
    "secret.put",
    "service.deploy",
    "service.remove",
    "token.mint",
    "token.revoke",
];

/// Who signed `st` under `c`: ids of operators or publishers. At least one must have.
fn signers(st: &v1::Statement, c: &v1::Charter) -> Result<Vec<String>, String> {
    let operators: Vec<_> = c.operators.iter().filter_map(|o| Some((o.id.clone(), o.key.clone()?))).collect();
    let keys = keys(&c.operators);
    let by_operators = match st.r#type.as_str() {
        v1::Command::TYPE => statement::verify::<v1::Command>(st, &keys, 1).map(|v| v.signers),
        v1::Spec::TYPE => statement::verify::<v1::Spec>(st, &keys, 1).map(|v| v.signers),
        v1::Mandate::TYPE => statement::verify::<v1::Mandate>(st, &keys, 1).map(|v| v.signers),
        v1::Bundle::TYPE => statement::verify::<v1::Bundle>(st, &keys, 1).map(|v| v.signers),
        v1::Login::TYPE => statement::verify::<v1::Login>(st, &keys, 1).map(|v| v.signers),
        v1::Reset::TYPE => statement::verify::<v1::Reset>(st, &keys, 1).map(|v| v.signers),
        v1::LogsRequest::TYPE => statement::verify::<v1::LogsRequest>(st, &keys, 1).map(|v| v.signers),
        v1::Voucher::TYPE => return publishers(st, c),
        other => return Err(format!("it holds a statement of type {other}, which no operator signs")),
    };
    let by_operators = by_operators.map_err(|e| e.to_string())?;
    Ok(operators.into_iter().filter(|(_, k)| by_operators.contains(k)).map(|(id, _)| id).collect())
}

fn publishers(st: &v1::Statement, c: &v1::Charter) -> Result<Vec<String>, String> {
    let ids: Vec<_> = c.publishers.iter().filter(|p| vouched(p, st).is_some()).map(|p| p.id.clone()).collect();
    if ids.is_empty() { Err("it holds a voucher that no publisher of the charter signed".to_owned()) } else { Ok(ids) }
}

fn wrong_entry(index: u64, why: &str) -> Failure {
    let help = "the log was altered: stop trusting this voter, and keep its answer as evidence";
    Failure::new(Code::LogWrong, format!("entry {index} is wrong: {why}"), help).with("index", index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Operator;
    use holdfast_types::TrustDomain;
    use prost::Message as _;

    fn leaf(index: u64, e: &v1::LogEntry) -> v1::LeafData {
        v1::LeafData { index, salt: vec![3; 32], entry: e.encode_to_vec() }
    }
    struct World {
        op: Operator,
        auditor: Auditor,
        charter: v1::Statement,
    }
    fn world() -> World {
        let op = Operator::generate("op-a").unwrap();
        let td = TrustDomain::parse("a.example").unwrap();
        let charter = op.sign(&charter::founding(&op, [1; 32], &td, [2; 32])).unwrap();
        let cluster = ClusterId::of_charter(&charter.payload);
        World { op, auditor: Auditor::new(cluster), charter }
    }
    impl World {
        fn entry(&self, kind: &str, actor: &str, statement: Option<v1::Statement>) -> v1::LogEntry {
            let index = self.auditor.size();
            v1::LogEntry {
                index,
                at_ms: 1,
                kind: kind.into(),
                actor: actor.into(),
                statement,
                ..v1::LogEntry::default()
            }
        }
        fn take(&mut self, e: &v1::LogEntry) -> Result<(), Failure> {
            self.auditor.take(&leaf(self.auditor.size(), e)).map(drop)
        }
        fn found(&mut self) {
            let e = self.entry("init", "vault", Some(self.charter.clone()));
            self.take(&e).unwrap();
        }
    }

    #[test]
    fn an_honest_log_is_accepted_and_its_root_compared() {
        let mut w = world();
        w.found();
        let command = w.op.sign(&v1::Command::default()).unwrap();
        let e = w.entry("command", "op/op-a", Some(command));
        w.take(&e).unwrap();
        let root = w.auditor.tree.root();
        w.auditor.finish(2, &root).unwrap();
        assert!(w.auditor.finish(3, &root).is_err());
        assert!(w.auditor.finish(2, &holdfast_types::sha256(&[b"other"])).is_err());
    }

    /// Which entries were seen of a log that comes in chunks of one leaf.
    async fn read(cluster: ClusterId, given: &[v1::LeafData], size: u64, root: &Digest) -> Result<Vec<u64>, Failure> {
        let (mut chunks, mut seen) = (given.iter().cloned(), Vec::new());
        whole(cluster, (size, root), async || Ok(chunks.next().map(|leaf| vec![leaf])), |e| seen.push(e.index)).await?;
        Ok(seen)
    }

    #[tokio::test]
    async fn a_log_that_is_cut_short_or_is_not_the_signed_one_is_refused_whole() {
        let mut w = world();
        let mut leaves = Vec::new();
        for e in [
            w.entry("init", "vault", Some(w.charter.clone())),
            v1::LogEntry { index: 1, ..w.entry("a", "vault", None) },
        ] {
            leaves.push(leaf(w.auditor.size(), &e));
            w.take(&e).unwrap();
        }
        let (cluster, root) = (w.auditor.cluster, w.auditor.tree.root());
        assert_eq!(read(cluster, &leaves, 2, &root).await.unwrap(), [0, 1]);
        assert_eq!(read(cluster, &leaves[..1], 2, &root).await.unwrap_err().message, "entry 1 is wrong: it is missing");
        assert!(read(cluster, &leaves, 2, &holdfast_types::sha256(&[b"other"])).await.is_err());
        assert!(read(cluster, &leaves[1..], 2, &root).await.is_err());
    }

    #[test]
    fn an_operators_action_without_that_operators_signature_is_found() {
        let mut w = world();
        w.found();
        let stranger = Operator::generate("op-a").unwrap();
        let forged = stranger.sign(&v1::Command::default()).unwrap();
        let mine = w.op.sign(&v1::Command::default()).unwrap();
        for bad in [
            w.entry("command", "op/op-a", Some(forged)),
            w.entry("command", "op/op-b", Some(mine)),
            w.entry("secret.put", "op/op-a", None),
        ] {
            assert_eq!(w.take(&bad).unwrap_err().code, "log-wrong", "{}", bad.kind);
        }
    }

    #[test]
    fn gaps_disorder_and_foreign_bytes_are_named_by_their_entry() {
        let mut w = world();
        w.found();
        let mut bad = w.entry("alarm", "vault", None);
        bad.index = 2;
        assert!(w.take(&bad).unwrap_err().message.starts_with("entry 1 is wrong"));
        let mut bad = w.entry("alarm", "vault", None);
        bad.fields = vec![
            v1::Field { name: "b".into(), ..v1::Field::default() },
            v1::Field { name: "a".into(), ..v1::Field::default() },
        ];
        assert!(w.take(&bad).is_err());
        let mut bytes = w.entry("alarm", "vault", None).encode_to_vec();
        bytes.extend_from_slice(&[0xf8, 0x07, 0x01]);
        assert!(w.auditor.take(&v1::LeafData { index: 1, salt: vec![3; 32], entry: bytes }).is_err());
        let mut bad = w.entry("alarm", "vault", None);
        bad.at_ms = 0;
        assert!(w.take(&bad).is_err());
    }

    #[test]
    fn a_log_of_another_cluster_is_refused_at_its_first_entry() {
        let mut w = world();
        let other = world();
        let e = w.entry("init", "vault", Some(other.charter));
        assert_eq!(w.take(&e).unwrap_err().code, "log-wrong");
    }
}
