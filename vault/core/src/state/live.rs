//! Which live identities' certificates are under which root, and how far each believes the Bundles: derived, never stored.
//!
//! Live is a node or orchestrator that works and whose certificate has not expired. One that is switched off stops being
//! live by itself, so that a rotation of the root never waits for it longer than its certificate lasts.

use super::{Identity, IdentityState, State};
use holdfast_types::{Digest, Millis, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Orchestrators come before nodes (INV7); then by the end of the certificate.
type Entry = (u8, Millis, Arc<str>);
/// Of orchestrators, and of nodes.
const RANKS: [u8; 2] = [0, 1];

/// Look-ups by root and by Bundle.
#[derive(Debug, Default, Clone)]
pub(crate) struct Live {
    current: BTreeMap<Digest, BTreeSet<Entry>>,
    pending: BTreeMap<Digest, BTreeSet<Entry>>,
    acked: BTreeMap<u64, BTreeSet<Entry>>,
    places: BTreeMap<Arc<str>, Place>,
}

/// Where an identity stands in the sets.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    rank: u8,
    current: Option<(Digest, Millis)>,
    pending: Option<(Digest, Millis)>,
    acked: u64,
}

impl Place {
    /// The end of the certificate that lasts longest, in use or about to be.
    fn until(&self) -> Option<Millis> {
        self.current.iter().chain(&self.pending).map(|(_, end)| *end).max()
    }
}

fn place_of(row: &Identity) -> Option<Place> {
    let rank = match row.role {
        Role::Orch => 0,
        Role::Node => 1,
        // Operators log in again, voters have rows of their own, and workloads none.
        Role::Op | Role::Vault | Role::Svc => return None,
    };
    let works = matches!(row.state, IdentityState::Ready | IdentityState::Draining);
    let at = |c: &crate::CertFacts| (c.root, c.not_after);
    let (current, pending) = (row.certificate().map(at), row.pending.as_ref().map(at));
    works.then_some(Place { rank, current, pending, acked: row.acked })
}

impl Live {
    pub fn build(s: &State) -> Self {
        let mut live = Self::default();
        for (id, row) in &s.identities {
            live.place(id, Some(row));
        }
        live
    }
    /// Keeps the sets true after `id` came, changed or went.
    pub fn place(&mut self, id: &str, row: Option<&Identity>) {
        let next = row.and_then(place_of);
        if self.places.get(id) == next.as_ref() {
            return;
        }
        // One text for all the sets that it stands in.
        let before = self.places.remove_entry(id);
        let id = before.as_ref().map_or_else(|| Arc::from(id), |(id, _)| Arc::clone(id));
        if let Some((_, old)) = before {
            let entry = |end: Millis| (old.rank, end, Arc::clone(&id));
            if let Some((root, end)) = old.current {
                take(&mut self.current, &root, &entry(end));
            }
            if let Some(end) = old.until() {
                take(&mut self.acked, &old.acked, &entry(end));
            }
            if let Some((root, end)) = old.pending {
                take(&mut self.pending, &root, &entry(end));
            }
        }
        let Some(new) = next else { return };
        let entry = |end: Millis| (new.rank, end, Arc::clone(&id));
        if let Some((root, end)) = new.current {
            self.current.entry(root).or_default().insert(entry(end));
        }
        if let Some(end) = new.until() {
            self.acked.entry(new.acked).or_default().insert(entry(end));
        }
        if let Some((root, end)) = new.pending {
            self.pending.entry(root).or_default().insert(entry(end));
        }
        self.places.insert(id, new);
    }
    fn sets(&self, root: &Digest) -> impl Iterator<Item = &BTreeSet<Entry>> {
        [self.current.get(root), self.pending.get(root)].into_iter().flatten()
    }
    /// Live identities with a certificate under `root`, in use or about to be.
    pub fn under(&self, root: &Digest, now: Millis) -> impl Iterator<Item = &str> {
        self.sets(root).flat_map(move |set| lasting(set, now))
    }
    /// The same under any of `roots`: all orchestrators, then all nodes.
    pub fn in_order<'a>(&'a self, roots: &'a [Digest], now: Millis) -> impl Iterator<Item = &'a str> {
        let of =
            move |rank| roots.iter().flat_map(move |r| self.sets(r)).flat_map(move |set| lasting_of(set, rank, now));
        RANKS.into_iter().flat_map(of)
    }
    /// Live identities that have not said that they believe the Bundle of `epoch`.
    pub fn behind(&self, epoch: u64, now: Millis) -> impl Iterator<Item = &str> {
        self.acked.range(..epoch).flat_map(move |(_, set)| lasting(set, now))
    }
    /// How many live identities use a certificate under `root`.
    pub fn count(&self, root: &Digest, now: Millis) -> u64 {
        self.current.get(root).map_or(0, |set| size(set, now))
    }
}

/// Those of the set whose certificate has not expired at `now`.
fn lasting(set: &BTreeSet<Entry>, now: Millis) -> impl Iterator<Item = &str> {
    RANKS.into_iter().flat_map(move |rank| lasting_of(set, rank, now))
}

fn lasting_of(set: &BTreeSet<Entry>, rank: u8, now: Millis) -> impl Iterator<Item = &str> {
    let from: Bound<Entry> = Bound::Included((rank, Millis(now.0.saturating_add(1)), Arc::default()));
    let to: Bound<Entry> = Bound::Excluded((rank.saturating_add(1), Millis(i64::MIN), Arc::default()));
    set.range((from, to)).map(|(_, _, id)| &**id)
}

/// How many those are: what expired is counted, and it is few, or all of a fleet that is off.
fn size(set: &BTreeSet<Entry>, now: Millis) -> u64 {
    let over = |rank: u8| {
        let from: Bound<Entry> = Bound::Included((rank, Millis(i64::MIN), Arc::default()));
        let to: Bound<Entry> = Bound::Excluded((rank, Millis(now.0.saturating_add(1)), Arc::default()));
        set.range((from, to)).count()
    };
    (set.len() - RANKS.into_iter().map(over).sum::<usize>()) as u64
}

fn take<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<Entry>>, key: &K, entry: &Entry) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(entry);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
