//! What a node was ever given, as the log says it.

use crate::app::App;
use crate::client::Cluster;
use crate::errors::{Code, Failure};
use crate::verbs::log;
use holdfast_wire::v1;
use std::collections::BTreeSet;

/// What the log says of one node.
#[derive(Debug, Default)]
struct Told {
    given: BTreeSet<(String, u64)>,
    /// The node's first entry was there.
    created: bool,
    /// The entry of its removal was there.
    removed: bool,
}

impl Told {
    fn hear(&mut self, entry: &v1::LogEntry, id: &str) {
        self.created |= creates(entry, id);
        self.removed |= entry.kind == "node.remove" && entry.subject == id;
        self.given.extend(boxed_to(entry, id));
    }

    /// What it was given, of a log that reaches as far as its removal if it `is_removed`: a signed checkpoint of before is as
    /// genuine, and hides what came after it.
    fn whole(self, is_removed: bool) -> Result<BTreeSet<(String, u64)>, Failure> {
        if is_removed && !self.removed {
            let help = "stop trusting this voter if it goes on, and keep its answer as evidence";
            return Err(Failure::new(Code::LogWrong, "the log that was shown ends before the removal", help));
        }
        Ok(self.given)
    }
}

/// Every secret version that was ever boxed to a node: the log remembers what the registry has forgotten. It is read from the
/// node's first entry on, which has to be there, and verified, for an entry that is left out is a secret that nobody changes. Where
/// that entry is not found, the log is read whole. Of a node that `is_removed` the removal has to be there too.
pub(super) async fn exposure(
    app: &App,
    c: &Cluster,
    n: &v1::NodeView,
    is_removed: bool,
) -> Result<BTreeSet<(String, u64)>, Failure> {
    let mut told = Told::default();
    log::since(c, n.joined_at_ms, |entry| told.hear(entry, &n.id)).await?;
    if !told.created {
        told = Told::default();
        log::audited(app, c, |entry| told.hear(entry, &n.id)).await?;
    }
    told.whole(is_removed)
}

/// Whether this is the first entry of all that are about `id`: a node's id is drawn when it joins.
fn creates(entry: &v1::LogEntry, id: &str) -> bool {
    matches!(entry.kind.as_str(), "node.create" | "orch.create") && entry.subject == id
}

/// The secret versions that an entry says were boxed to `node`.
fn boxed_to(entry: &v1::LogEntry, node: &str) -> Vec<(String, u64)> {
    boxed(entry).filter(|(to, _)| *to == node).map(|(_, secrets)| secrets).unwrap_or_default()
}

/// The node that an entry says secret versions were boxed to, and which.
pub fn boxed(entry: &v1::LogEntry) -> Option<(&str, Vec<(String, u64)>)> {
    let field = |name: &str| entry.fields.iter().find(|f| f.name == name).map(|f| f.value.as_str());
    let node = field("node").filter(|_| entry.kind == "grant.issued")?;
    let one = |s: &str| s.rsplit_once('@').and_then(|(name, version)| Some((name.to_owned(), version.parse().ok()?)));
    Some((node, field("secrets").unwrap_or_default().split(',').filter_map(one).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_ends_before_the_removal_is_no_answer() {
        let entry = |kind: &str| v1::LogEntry { kind: kind.into(), subject: "node-1".into(), ..Default::default() };
        let told = |kinds: &[&str], is_removed| {
            let mut told = Told::default();
            kinds.iter().for_each(|kind| told.hear(&entry(kind), "node-1"));
            told.whole(is_removed).map_err(|f| f.code)
        };
        assert_eq!(told(&["node.create", "node.remove"], true), Ok(BTreeSet::new()));
        assert_eq!(told(&["node.create"], true).unwrap_err(), "log-wrong");
        assert_eq!(told(&["node.create"], false), Ok(BTreeSet::new()));
        let mut of_another = Told::default();
        of_another.hear(&entry("node.remove"), "node-2");
        assert_eq!(of_another.whole(true).unwrap_err().code, "log-wrong");
    }

    #[test]
    fn a_node_has_no_entry_before_the_one_that_creates_it() {
        let entry = |kind: &str, subject: &str| v1::LogEntry {
            kind: kind.into(),
            subject: subject.into(),
            ..v1::LogEntry::default()
        };
        assert!(
            creates(&entry("node.create", "node-1"), "node-1") && creates(&entry("orch.create", "orch-1"), "orch-1")
        );
        assert!(
            !creates(&entry("node.create", "node-2"), "node-1") && !creates(&entry("node.renew", "node-1"), "node-1")
        );
    }

    #[test]
    fn exposure_lists_each_secret_version_once_under_its_full_name() {
        let entry = |kind: &str, node: &str, secrets: &str| {
            let field = |name: &str, value: &str| v1::Field { name: name.into(), value: value.into() };
            v1::LogEntry {
                kind: kind.into(),
                fields: vec![field("node", node), field("secrets", secrets)],
                ..Default::default()
            }
        };
        let log = [
            entry("grant.issued", "node-1", "shop/a@1,shop/b@3"),
            entry("grant.issued", "node-1", "shop/a@1"),
            entry("grant.issued", "node-2", "shop/c@1"),
            entry("grant.issued", "node-1", ""),
            entry("grant.denied", "node-1", "shop/d@1"),
        ];
        let all: BTreeSet<_> = log.iter().flat_map(|e| boxed_to(e, "node-1")).collect();
        assert_eq!(all, BTreeSet::from([("shop/a".to_owned(), 1), ("shop/b".to_owned(), 3)]));
    }
}
