//! `secret history`: who could read which version where, and which nodes were given it. The vault is not asked for its word: the
//! log is read whole and verified, readers and zones are those that operators signed, and nodes are those of grants.

use crate::app::App;
use crate::client::Cluster;
use crate::errors::Failure;
use crate::output::{Output, time, words};
use crate::verbs::{log, node};
use holdfast_types::{Millis, SecretRef};
use holdfast_wire::{statement, v1};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use v1::command::Action;

/// Grants of one version to one node.
#[derive(Debug, PartialEq, Eq)]
struct Given {
    first: i64,
    last: i64,
    grants: u64,
}

/// One version.
#[derive(Debug)]
struct Version {
    at: i64,
    by: String,
    put: v1::PutSecret,
    /// By node.
    given: BTreeMap<String, Given>,
}

/// What the log says of one secret.
#[derive(Debug, Default)]
struct History {
    versions: BTreeMap<u64, Version>,
    /// When, and by whom.
    deleted: Vec<(i64, String)>,
}

impl History {
    /// Takes an entry of the log that was verified, of the secret `name`.
    fn take(&mut self, name: &SecretRef, e: &v1::LogEntry) {
        if let Some((node, secrets)) = node::boxed(e) {
            let ours = name.to_string();
            secrets.iter().filter(|(s, _)| *s == ours).for_each(|(_, version)| self.give(*version, node, e.at_ms));
            return;
        }
        // What operators signed counts, not what the entry says beside it.
        let signed = e.statement.as_ref().and_then(|st| statement::peek::<v1::Command>(st).ok());
        let is_ours = |ns: &str, n: &str| ns == name.namespace.as_str() && n == name.name.as_str();
        match (e.kind.as_str(), signed.and_then(|c| c.action)) {
            ("secret.put", Some(Action::PutSecret(put))) if is_ours(&put.namespace, &put.name) => {
                let version = Version { at: e.at_ms, by: e.actor.clone(), given: BTreeMap::new(), put };
                self.versions.insert(version.put.version, version);
            }
            ("secret.delete", Some(Action::DeleteSecret(d))) if is_ours(&d.namespace, &d.name) => {
                self.deleted.push((e.at_ms, e.actor.clone()));
            }
            (_, Some(_) | None) => {}
        }
    }
    fn give(&mut self, version: u64, node: &str, at: i64) {
        let Some(v) = self.versions.get_mut(&version) else { return };
        let given = v.given.entry(node.to_owned()).or_insert(Given { first: at, last: at, grants: 0 });
        given.last = at;
        given.grants += 1;
    }

    fn document(&self, name: &SecretRef) -> Value {
        let given = |(node, g): (&String, &Given)| {
            let (first, last) = (time(g.first), time(g.last));
            json!({"node": node, "first": first, "last": last, "grants": g.grants})
        };
        let version = |(number, v): (&u64, &Version)| {
            json!({
                "version": number, "at": time(v.at), "by": v.by, "readers": v.put.readers, "zones": v.put.zones,
                "attested_only": v.put.attested_only, "given": v.given.iter().map(given).collect::<Vec<_>>(),
            })
        };
        let deleted = |(at, by): &(i64, String)| json!({"at": time(*at), "by": by});
        json!({
            "secret": name.to_string(), "versions": self.versions.iter().map(version).collect::<Vec<_>>(),
            "deleted": self.deleted.iter().map(deleted).collect::<Vec<_>>(),
        })
    }
    /// A line a version, and one more for each further node.
    fn table(&self, out: &Output) -> String {
        let mut rows = Vec::new();
        for (number, v) in &self.versions {
            let (readers, zones, at) = (words(&v.put.readers), words(&v.put.zones), Millis(v.at).rfc3339());
            let mut begin = vec![number.to_string(), at, v.by.clone(), readers, zones];
            if v.given.is_empty() {
                rows.push([begin.clone(), vec!["nobody".to_owned(), "-".to_owned()]].concat());
            }
            for (node, g) in &v.given {
                rows.push([begin, vec![node.clone(), Millis(g.first).rfc3339()]].concat());
                begin = vec![String::new(); 5];
            }
        }
        let mut text = out.table(&["version", "stored", "by", "readers", "zones", "given to", "first"], rows);
        for (at, by) in &self.deleted {
            text.push_str(&format!("deleted {} by {by}\n", Millis(*at)));
        }
        text
    }
}

/// `secret history`.
pub async fn show(app: &App, name: &SecretRef) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let mut history = History::default();
    log::audited(app, &c, |entry| history.take(name, entry)).await?;
    if history.versions.is_empty() {
        return Err(Failure::not_found(format!("secret: {name}"), "list them with `holdfast secret ls`"));
    }
    app.out.show(&history.document(name), || history.table(&app.out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Operator;

    fn entry(kind: &str, at_ms: i64, fields: &[(&str, &str)], action: Option<Action>) -> v1::LogEntry {
        let op = Operator::generate("op-a").unwrap();
        let field = |(name, value): &(&str, &str)| v1::Field { name: (*name).into(), value: (*value).into() };
        let command = |action| op.sign(&v1::Command { action: Some(action), ..v1::Command::default() }).unwrap();
        v1::LogEntry {
            kind: kind.into(),
            at_ms,
            actor: "op/op-a".into(),
            fields: fields.iter().map(field).collect(),
            statement: action.map(command),
            ..v1::LogEntry::default()
        }
    }
    fn put(at: i64, name: &str, version: u64, reader: &str) -> v1::LogEntry {
        let put = v1::PutSecret {
            namespace: "shop".into(),
            name: name.into(),
            version,
            readers: vec![reader.into()],
            zones: vec!["eu".into()],
            ..v1::PutSecret::default()
        };
        entry("secret.put", at, &[("version", "9")], Some(Action::PutSecret(put)))
    }
    fn granted(at: i64, node: &str, secrets: &str) -> v1::LogEntry {
        entry("grant.issued", at, &[("node", node), ("secrets", secrets)], None)
    }

    #[test]
    fn each_version_tells_its_signed_readers_and_the_nodes_that_were_given_it() {
        let name = SecretRef::of("shop", "db").unwrap();
        let delete = v1::DeleteSecret { namespace: "shop".into(), name: "db".into() };
        let log = [
            put(1, "db", 1, "shop/web"),
            put(2, "other", 1, "shop/web"),
            granted(3, "node-1", "shop/db@1,shop/other@1"),
            granted(4, "node-1", "shop/db@1"),
            granted(5, "node-2", "shop/other@1"),
            put(6, "db", 2, "shop/api"),
            granted(7, "node-2", "shop/db@2"),
            entry("secret.delete", 8, &[], Some(Action::DeleteSecret(delete))),
        ];
        let mut history = History::default();
        log.iter().for_each(|e| history.take(&name, e));
        let said = history.document(&name);
        assert_eq!(said["versions"].as_array().unwrap().len(), 2, "by the number that was signed: {said}");
        assert_eq!(said["versions"][0]["readers"], json!(["shop/web"]));
        assert_eq!(said["versions"][1]["readers"], json!(["shop/api"]));
        let first = json!([{"node": "node-1", "first": time(3), "last": time(4), "grants": 2}]);
        assert_eq!(said["versions"][0]["given"], first);
        assert_eq!(said["versions"][1]["given"][0]["node"], "node-2");
        assert_eq!(said["deleted"][0]["by"], "op/op-a");
        let table = history.table(&Output::new(false, false, true));
        assert!(table.contains("node-1") && table.contains("deleted"), "{table}");
    }
}
