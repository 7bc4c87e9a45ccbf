//! What is sealed under which keyring term: records, and nodes whose keys derive from a term. Derived, never stored.
//!
//! LAW: a term is destroyed only once nothing that is alive needs it (`a_term_goes_only_when_no_record_and_no_node_needs_it`).

use super::{Identity, IdentityState, Rotation, State};
use crate::command::{CaKey, NewRoot, RecordAt, SealedKey};
use holdfast_types::{Role, SecretRef, TokenId};
use holdfast_wire::{record, v1};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Look-ups by term.
#[derive(Debug, Default, Clone)]
pub(crate) struct UnderTerms {
    records: BTreeMap<u32, BTreeSet<RecordAt>>,
    nodes: BTreeMap<u32, BTreeSet<String>>,
}

/// A record as it lies in the state, with everything it is bound to.
pub(crate) struct Lying<'a> {
    pub purpose: &'static str,
    pub path: String,
    pub rev: u64,
    pub record: &'a [u8],
}

impl UnderTerms {
    pub fn build(s: &State) -> Self {
        let tokens = s.tokens.keys().copied().map(RecordAt::Token);
        let keys = s.sealed_keys().map(|(_, k)| RecordAt::Key(k.name.clone()));
        let mut ix = Self { records: secrets_under_terms(s), ..Self::default() };
        for at in tokens.chain(keys) {
            ix.place(s, at);
        }
        for (id, row) in &s.identities {
            ix.place_node(id, row);
        }
        ix
    }
    fn place(&mut self, s: &State, at: RecordAt) {
        let term = s.lying(&at).and_then(|l| record::term_of(l.record).ok());
        if is_under(&self.records, &at, term.as_slice()) {
            return;
        }
        take(&mut self.records, &at);
        if let Some(term) = term {
            self.records.entry(term).or_default().insert(at);
        }
    }
    fn place_node(&mut self, id: &str, row: &Identity) {
        let terms = needed_by(row);
        if is_under(&self.nodes, id, &terms) {
            return;
        }
        take(&mut self.nodes, id);
        for term in terms {
            self.nodes.entry(term).or_default().insert(id.to_owned());
        }
    }
    /// Records under terms before `active`, oldest term first.
    pub fn older(&self, active: u32) -> impl Iterator<Item = &RecordAt> {
        self.records.range(..active).flat_map(|(_, at)| at)
    }
    fn holders(&self, term: u32) -> impl Iterator<Item = &String> {
        self.nodes.get(&term).into_iter().flatten()
    }
}

/// The secrets, in order as they lie: a set is built of them at once, where looking each up would take as long as reading it.
fn secrets_under_terms(s: &State) -> BTreeMap<u32, BTreeSet<RecordAt>> {
    let mut under = BTreeMap::<u32, Vec<RecordAt>>::new();
    for (name, row) in &s.secrets {
        if let Ok(term) = record::term_of(&row.version.record) {
            under.entry(term).or_default().push(RecordAt::Secret(name.clone()));
        }
    }
    under.into_iter().map(|(term, at)| (term, at.into_iter().collect())).collect()
}

/// Takes `x` out of every set; an empty set goes. There are as many as terms are alive: few.
fn take<T: Ord + ?Sized, O: Ord + std::borrow::Borrow<T>>(sets: &mut BTreeMap<u32, BTreeSet<O>>, x: &T) {
    sets.retain(|_, set| {
        set.remove(x);
        !set.is_empty()
    });
}

/// Whether `x` is in the sets of `terms` and in no other: a record put again or a renewed key is, but for a new term.
fn is_under<T: Ord + ?Sized, O: Ord + std::borrow::Borrow<T>>(
    sets: &BTreeMap<u32, BTreeSet<O>>,
    x: &T,
    terms: &[u32],
) -> bool {
    let known = terms.iter().all(|term| sets.contains_key(term));
    known && sets.iter().all(|(term, set)| set.contains(x) == terms.contains(term))
}

/// Terms that the vault derives a node's key from when it boxes to it: of the key in use, and of the one that follows. What
/// the node had before, it holds itself.
fn needed_by(row: &Identity) -> Vec<u32> {
    let works = matches!(row.state, IdentityState::Ready | IdentityState::Draining);
    if row.role != Role::Node || !works {
        return Vec::new();
    }
    let Some(used) = row.recipient().map(|h| h.seq) else { return Vec::new() };
    row.hpke.iter().filter(|h| h.seq >= used).map(|h| h.term).collect()
}

impl State {
    /// Private keys at rest, with their purposes.
    pub(crate) fn sealed_keys(&self) -> impl Iterator<Item = (&'static str, &SealedKey)> {
        let r = &self.rotation;
        let roots = self.roots.iter().map(|r| &r.key).chain(r.retired.iter().map(|r| &r.key));
        let issuers = self.issuers.iter().map(|i| &i.key).chain(r.asked.iter().map(|a| &a.issuer_key));
        let given = r.target.iter().filter_map(|t| t.given.as_ref()).map(|g| &g.key);
        // A given root that is proposed has its key with the order, and once is enough.
        let is_given = r.target.as_ref().is_some_and(|t| t.given.is_some());
        let own = r.proposed.iter().map(|n| &n.key).filter(move |_| !is_given);
        let proposed = own.chain(r.proposed.iter().map(|n| &n.issuer_key));
        let ca = roots.chain(issuers).chain(given).chain(proposed).filter_map(CaKey::sealed).map(|k| ("ca", k));
        let stks = self.stks.iter().map(|k| &k.key).chain(r.asked.iter().map(|a| &a.stk.key));
        ca.chain(stks.map(|k| ("stk", k)))
    }
    fn sealed_key_mut(&mut self, name: &str) -> Option<&mut SealedKey> {
        let Rotation { target, asked, retired, proposed, .. } = &mut self.rotation;
        let (asked_issuer, asked_stk) = asked.as_mut().map(|a| (&mut a.issuer_key, &mut a.stk.key)).unzip();
        let roots = self.roots.iter_mut().map(|r| &mut r.key).chain(retired.iter_mut().map(|r| &mut r.key));
        let issuers = self.issuers.iter_mut().map(|i| &mut i.key).chain(asked_issuer);
        let given = target.iter_mut().filter_map(|t| t.given.as_mut()).map(|g| &mut g.key);
        let proposed = proposed.iter_mut().flat_map(|n| {
            let NewRoot { key, issuer_key, .. } = n.as_mut();
            [key, issuer_key]
        });
        let ca = roots.chain(issuers).chain(given).chain(proposed).filter_map(CaKey::sealed_mut);
        ca.chain(self.stks.iter_mut().map(|k| &mut k.key)).chain(asked_stk).find(|k| k.name == name)
    }
    /// The record at `at`, if there is one.
    pub(crate) fn lying(&self, at: &RecordAt) -> Option<Lying<'_>> {
        match at {
            RecordAt::Secret(name) => self.secrets.get(name).map(|s| Lying {
                purpose: "secret",
                path: name.to_string(),
                rev: s.version.number,
                record: &s.version.record,
            }),
            RecordAt::Token(id) => self.tokens.get(id).map(|t| Lying {
                purpose: "token",
                path: format!("token/{}", id.hex()),
                rev: 1,
                record: &t.mac,
            }),
            RecordAt::Key(name) => self.sealed_keys().find(|(_, k)| k.name == *name).map(|(purpose, k)| Lying {
                purpose,
                path: k.name.clone(),
                rev: 1,
                record: &k.record,
            }),
        }
    }
    /// Puts another record in the place of the one at `at`, and keeps the index true.
    pub(crate) fn lay(&mut self, at: RecordAt, sealed: Vec<u8>) {
        let place = match &at {
            RecordAt::Secret(name) => {
                if let Some(s) = self.secrets.get_mut(name) {
                    s.version.record = sealed.into();
                }
                return self.record_moved(at);
            }
            RecordAt::Token(id) => self.tokens.get_mut(id).map(|t| &mut t.mac),
            RecordAt::Key(name) => self.sealed_key_mut(name).map(|k| &mut k.record),
        };
        if let Some(place) = place {
            *place = sealed;
        }
        self.record_moved(at);
    }
    /// Keeps the index true after the record at `at` came, changed or went.
    pub(crate) fn record_moved(&mut self, at: RecordAt) {
        let mut under = std::mem::take(&mut self.index.under);
        under.place(self, at);
        self.index.under = under;
    }
    /// The same for a secret.
    pub(crate) fn secret_moved(&mut self, name: &SecretRef) {
        self.record_moved(RecordAt::Secret(name.clone()));
    }
    /// The same for a token.
    pub(crate) fn token_moved(&mut self, id: TokenId) {
        self.record_moved(RecordAt::Token(id));
    }
    /// The same for the CA and statement keys, of which there are few.
    pub(crate) fn keys_moved(&mut self) {
        let mut under = std::mem::take(&mut self.index.under);
        under.records.retain(|_, set| {
            set.retain(|at| !matches!(at, RecordAt::Key(_)));
            !set.is_empty()
        });
        let names: Vec<_> = self.sealed_keys().map(|(_, k)| RecordAt::Key(k.name.clone())).collect();
        for at in names {
            under.place(self, at);
        }
        self.index.under = under;
    }
    /// The same for an identity's keys.
    pub(crate) fn identity_moved(&mut self, id: &str) {
        let row = self.identities.get(id).map(Deref::deref);
        match row {
            Some(row) => self.index.under.place_node(id, row),
            None => take(&mut self.index.under.nodes, id),
        }
        self.index.living.place(id, row);
    }
    /// Whether a node still needs `term`. One whose certificate has expired is given a new key when it comes back.
    fn has_node_under(&self, term: u32) -> bool {
        let lives = |id: &String| {
            let row = self.identities.get(id);
            row.is_some_and(|r| r.current.iter().chain(&r.pending).any(|c| c.not_after > self.last_at))
        };
        self.index.under.holders(term).any(lives)
    }
    /// Terms before the active one that nothing alive needs any more.
    pub fn destroyable_terms(&self) -> Vec<u32> {
        let old = self.recovery_terms.range(..self.term).map(|(t, _)| *t);
        old.filter(|t| !self.index.under.records.contains_key(t) && !self.has_node_under(*t)).collect()
    }
    /// Nodes whose keys derive from a term before the active one, after `after` in the order of their ids.
    pub fn nodes_under_older_terms<'a>(&'a self, after: &'a str) -> impl Iterator<Item = &'a String> {
        let sets = self.index.under.nodes.range(..self.term).map(|(_, ids)| ids);
        sets.flat_map(move |ids| ids.range::<str, _>((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded)))
    }
    /// The keyring, as operators see it.
    pub fn keyring_view(&self) -> v1::KeyringView {
        let records: usize = self.index.under.records.range(..self.term).map(|(_, at)| at.len()).sum();
        v1::KeyringView {
            term: self.term,
            older: self.recovery_terms.range(..self.term).map(|(t, _)| *t).collect(),
            left: records as u64,
            since_ms: self.term_since.0,
        }
    }
}
