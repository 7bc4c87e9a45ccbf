//! Names of keys in the voters' token, and those that nothing uses any more: a token forgets nothing by itself.
//!
//! Must never: name a key that is in use.

use super::{RootKind, RootTarget, State};
use crate::command::CaKey;
use holdfast_types::Millis;
use std::collections::BTreeSet;

/// Most names that are kept: what is more is left in the token.
const MOST: usize = 256;
/// More names than are in use or spent at a time.
const TRIES: usize = 1024;

impl State {
    /// The key port's name of a key of this cluster: several may share a token.
    pub(crate) fn key_name(&self, what: &str, at: Millis) -> String {
        let cluster: String = self.cluster_id().map(|c| c.hex().chars().take(16).collect()).unwrap_or_default();
        format!("{what}/{cluster}/{}", at.0)
    }
    /// The name of the next issuer's key: the same until an entry uses it. So a key that was made in a token, and whose entry never
    /// came, is found again by whoever leads then.
    pub(crate) fn next_issuer_name(&self) -> String {
        let r = &self.rotation;
        // What names a key, or ends one that was named, moves the next name on: none is ever another key's.
        let made = self.issuers.iter().map(|i| i.since).chain(r.asked.iter().map(|a| a.since));
        let since = made.chain(r.retired.iter().map(|d| d.dropped)).max().unwrap_or_default();
        let used = self.used_keys();
        let names = (since.0..).take(TRIES).map(|n| self.key_name("issuer", Millis(n)));
        names.filter(|n| !r.spent.contains(n)).find(|n| !used.contains(n.as_str())).unwrap_or_default()
    }
    /// Whether a key of this name is in use, may be found again, or is to be destroyed.
    pub(crate) fn is_key_known(&self, key: &CaKey) -> bool {
        let is = |name: &str| self.used_keys().contains(name) || self.rotation.spent.iter().any(|n| n == name);
        key.name().is_some_and(is)
    }
    /// The next issuer's name was `before`, and may be another now. A key that was made under it, and is none of those in the token
    /// that are known, is found by nobody any more.
    pub(crate) fn issuer_name_was(&mut self, before: String) {
        let asked = self.rotation.asked.as_ref().map(|a| &a.issuer_key);
        let keys = self.issuers.iter().map(|i| &i.key).chain(asked);
        let in_token: BTreeSet<&str> = keys.filter(|k| matches!(k, CaKey::Token(_))).filter_map(CaKey::name).collect();
        let left = !in_token.is_empty() && !in_token.contains(before.as_str());
        if left && self.next_issuer_name() != before {
            self.name_is_spent(before);
        }
    }
    /// Keys in the token that nothing uses any more: to be destroyed when nothing else is to be done.
    pub fn spent_keys(&self) -> Vec<String> {
        let used = self.used_keys();
        self.rotation.spent.iter().filter(|n| !used.contains(n.as_str())).cloned().collect()
    }
    /// Every name under which a key is used, or may be found again.
    fn used_keys(&self) -> BTreeSet<&str> {
        let (r, mut used) = (&self.rotation, BTreeSet::new());
        used.extend(self.roots.iter().filter_map(|root| root.key.name()));
        used.extend(self.issuers.iter().filter_map(|i| i.key.name()));
        used.extend(r.retired.iter().filter_map(|root| root.key.name()));
        used.extend(r.retired.iter().flat_map(|root| root.issuers.iter().map(String::as_str)));
        used.extend(r.target.iter().map(|t| t.name.as_str()));
        used.extend(r.asked.iter().filter_map(|a| a.issuer_key.name()));
        used.extend(r.proposed.iter().flat_map(|n| [n.key.name(), n.issuer_key.name()]).flatten());
        used
    }
    /// The key is used no more. One that is sealed here went with its record.
    pub(crate) fn key_is_spent(&mut self, key: &CaKey) {
        if let CaKey::Token(name) = key {
            self.name_is_spent(name.clone());
        }
    }
    /// The keys that may have been made for an order that was taken back. Its issuer's is in the token where issuers are.
    pub(crate) fn order_is_spent(&mut self, order: &RootTarget) {
        if order.kind == RootKind::Token {
            self.name_is_spent(order.name.clone());
        }
        if order.kind == RootKind::Token || self.issuers.iter().any(|i| matches!(i.key, CaKey::Token(_))) {
            self.name_is_spent(format!("issuer/{}", order.name));
        }
    }
    fn name_is_spent(&mut self, name: String) {
        let spent = &mut self.rotation.spent;
        if spent.len() < MOST && !spent.contains(&name) {
            spent.push(name);
        }
    }
}
