//! The first entry, and the rotation of issuers and statement keys.

use super::{Event, Step};
use crate::command::{CaKey, Command, EraKeys, Founding, StkFacts};
use crate::log::Draft;
use crate::refusal::Refusal;
use crate::state::{Issuer, RootRow, State, StkRow, Unlock, VoterRow};
use holdfast_types::{ClusterId, Digest, Millis, TrustDomain, sha256};
use holdfast_wire::statement;
use holdfast_wire::v1;

/// Issuers that are kept: those whose leaves may still be alive.
const KEEP_ISSUERS: usize = 4;

impl Step<'_> {
    pub(super) fn found(&mut self, f: Founding) -> Result<(), Refusal> {
        if self.state.is_founded() {
            return Err(Refusal::changed("this vault has been founded already"));
        }
        let st = Command::statement(&f.charter).ok_or_else(|| Refusal::corrupt("charter"))?;
        let charter: v1::Charter = statement::peek(&st)?;
        if ClusterId::of_charter(&st.payload) != f.cluster {
            return Err(Refusal::invalid("the charter is not the one that names this cluster"));
        }
        let td = TrustDomain::parse(&charter.trust_domain).map_err(|e| Refusal::invalid(e.to_string()))?;
        let s = &mut *self.state;
        s.founded = Some(crate::state::Cluster {
            id: f.cluster,
            trust_domain: td.clone(),
            era: 1,
            charters: vec![f.charter],
            // The policies that are compiled in; a PutPolicy counts from 1.
            policy_version: 0,
        });
        s.charter = charter;
        s.term = 1;
        s.term_since = self.at;
        s.recovery_terms.insert(1, f.recovery_box);
        s.unlock = Unlock { epoch: 1, key: f.unlock, ..Unlock::default() };
        let row = VoterRow::new(f.voter.kem_pk, f.voter.kem_gen, vec![(1, f.term_box)], None);
        s.voters.insert(f.voter.id, row);
        s.last_voter = f.voter.id.0;
        let leaf = Draft::new("init", "vault", f.cluster.hex()).with("trust_domain", td).with("voter", f.voter.id);
        self.take_era_keys(f.keys, leaf.signed(&st));
        self.state.keys_moved();
        self.next_epoch();
        self.event(Event::Keys);
        Ok(())
    }

    /// The keys of an era that begins are the only ones, and its term is a new one; `began` says what began it. The indexes
    /// follow.
    pub(super) fn take_era_keys(&mut self, k: EraKeys, began: Draft) {
        let (root, issuer) = (sha256(&[&k.root_der]), sha256(&[&k.issuer_der]));
        let (at, s) = (self.at, &mut *self.state);
        s.roots = vec![RootRow {
            der: k.root_der,
            not_after: k.root_not_after,
            key: k.root_key,
            given: false,
            signer: true,
            since: at,
            added_epoch: 1,
            cross: Vec::new(),
        }];
        s.issuers =
            vec![Issuer { root, der: k.issuer_der, key: k.issuer_key, since: at, not_after: k.issuer_not_after }];
        s.stks = vec![stk_row(k.stk)];
        s.bundles = vec![k.bundle];
        let term = s.term.to_string();
        self.leaf(began);
        self.leaf(Draft::new("root.add", "vault", root.hex()));
        self.leaf(Draft::new("issuer.create", "vault", issuer.hex()));
        self.leaf(Draft::new("stk.rotate", "vault", "1"));
        self.leaf(Draft::new("keyring.add", "vault", term));
    }

    pub(super) fn new_issuer(
        &mut self,
        root: Digest,
        der: Vec<u8>,
        key: CaKey,
        not_after: Millis,
    ) -> Result<(), Refusal> {
        if self.state.signing_root_sha256() != Some(root) {
            return Err(Refusal::changed("another root signs meanwhile"));
        }
        // Two that were made at a time have one name, and that is one key's.
        if self.state.is_key_known(&key) {
            return Err(Refusal::changed("another issuer was made meanwhile"));
        }
        self.live_ca_key(&key)?;
        self.put_issuer(Issuer { root, der, key, since: self.at, not_after });
        self.event(Event::Keys);
        Ok(())
    }

    /// Adds an issuer; of each root the newest are kept.
    pub(super) fn put_issuer(&mut self, issuer: Issuer) {
        self.leaf(Draft::new("issuer.create", "vault", sha256(&[&issuer.der]).hex()));
        let (s, root) = (&mut *self.state, issuer.root);
        let name = s.next_issuer_name();
        s.issuers.push(issuer);
        let mut surplus = s.issuers.iter().filter(|i| i.root == root).count().saturating_sub(KEEP_ISSUERS);
        let mut spent = Vec::new();
        s.issuers.retain(|i| {
            let goes = i.root == root && surplus > 0;
            surplus -= usize::from(goes);
            spent.extend(goes.then(|| i.key.clone()));
            !goes
        });
        spent.iter().for_each(|key| s.key_is_spent(key));
        s.issuer_name_was(name);
        s.keys_moved();
    }

    /// A sealed CA key must be under a term that is alive.
    pub(super) fn live_ca_key(&self, key: &CaKey) -> Result<(), Refusal> {
        key.sealed().map_or(Ok(()), |k| self.live_record(&k.record))
    }

    pub(super) fn new_stk(&mut self, stk: StkFacts, bundle: Vec<u8>) -> Result<(), Refusal> {
        let st = Command::statement(&bundle).ok_or_else(|| Refusal::corrupt("bundle"))?;
        let b: v1::Bundle = statement::peek(&st)?;
        if b.epoch != self.state.epoch + 1 {
            return Err(Refusal::changed("the epoch moved meanwhile"));
        }
        self.live_record(&stk.key.record)?;
        let exposed = |k: &&StkRow| self.state.is_exposed_stk(&k.public);
        let dropped: Vec<[u8; 32]> = self.state.stks.iter().filter(exposed).map(|k| k.public).collect();
        let draft =
            Draft::new("stk.rotate", "vault", b.epoch.to_string()).with("bundle_sha256", sha256(&[&st.payload]));
        self.leaf(if dropped.is_empty() { draft } else { draft.with("exposed", dropped.len()) });
        let at = self.at;
        let s = &mut *self.state;
        s.stks.retain(|k| k.until > at && !dropped.contains(&k.public));
        s.stks.push(stk_row(stk));
        s.bundles.push(bundle);
        s.keys_moved();
        self.next_epoch();
        self.event(Event::Keys);
        Ok(())
    }
}

pub(super) fn stk_row(f: StkFacts) -> StkRow {
    StkRow { public: f.public, key: f.key, from: f.from, until: f.until }
}

impl State {
    /// `H(payload)` of the newest Bundle.
    pub fn bundle_sha256(&self) -> Option<holdfast_types::Digest> {
        let st = Command::statement(self.bundles.last()?)?;
        Some(sha256(&[&st.payload]))
    }
}
