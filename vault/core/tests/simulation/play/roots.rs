//! Rotations of the root within a history: orders and their end, steps as the driver takes them, and machines that follow.

use super::Play;
use crate::world::{Machine, SoftKey, csr, csr_of};
use holdfast_pki::issue::IssuerCa;
use holdfast_pki::keys::CertSigner;
use holdfast_types::{Digest, Millis, sha256};
use holdfast_vault_core::prepare;
use holdfast_vault_core::{Command, Prepared, Refusal, RootStep, RootTarget};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::v1;
use std::collections::BTreeMap;
use v1::command::Action;

const ADMINS: &[&str] = &["ada", "ben"];
/// No rotation has more steps, with one before it that is brought to its end.
const MOST: usize = 40;

/// The keys of every root and issuer that was ever made here, whatever became of it.
#[derive(Default)]
pub struct Keys {
    roots: BTreeMap<Digest, SoftKey>,
    issuers: BTreeMap<Vec<u8>, IssuerCa<SoftKey>>,
    /// The voters that were admitted, by their numbers, with the keys that they came with.
    pub voters: BTreeMap<u64, Machine>,
}

impl Play {
    /// Notes how the roots are after the last commands; the leader opens the issuer that is the newest now.
    pub fn observe_roots(&mut self) {
        let s = &self.w.state;
        self.h.bundles.push((s.era(), s.bundle_epoch(), s.bundle_sha256().unwrap()));
        self.h.signers.push((s.signing_root_sha256().unwrap(), self.h.all.len()));
        if self.over {
            // Whoever was there before the era renews first, and nobody here has its issuer's key.
            return;
        }
        let works = |id: &str| s.node_view(id, false).is_some_and(|v| v.state == "ready" || v.state == "draining");
        let lost = |id: &&str| works(id) && s.roots_of(id).iter().any(|root| s.root(root).is_none());
        self.h.stranded.extend(s.machine_ids().filter(lost).map(str::to_owned));
        let der = s.issuer().unwrap().der.clone();
        if self.w.issuer.as_ref().is_some_and(|i| i.der() == der) {
            return;
        }
        if let Some(before) = self.w.issuer.take() {
            self.roots.issuers.insert(before.der().to_vec(), before);
        }
        self.w.issuer = self.roots.issuers.remove(&der);
    }

    fn time(&self) -> Millis {
        self.w.state.time(self.w.now)
    }

    /// A few steps of a rotation, or the order for one; now and then it is taken back.
    pub fn rotate(&mut self) {
        for _ in 0..2 + self.draw.below(6) {
            let at_once = !self.draw.one_in(4);
            self.root_step(at_once);
        }
        if self.draw.one_in(12) {
            drop(self.w.act(ADMINS, Action::AbortRoot(v1::AbortRoot::default())));
            self.observe();
        }
    }
    /// Steps of rotations, each at once, until there is a leaf of this kind.
    pub fn rotate_until(&mut self, kind: &str) {
        let from = self.h.all.len();
        for _ in 0..MOST {
            self.root_step(true);
            if self.h.all[from..].iter().any(|e| e.kind == kind) {
                return;
            }
        }
    }

    /// What the driver does next; where there is nothing to do, a rotation is ordered.
    fn root_step(&mut self, at_once: bool) {
        match self.w.state.root_step(self.time()) {
            RootStep::Nothing => {
                let order = v1::RotateRoot { kind: "software".into(), ..v1::RotateRoot::default() };
                drop(self.w.act(ADMINS, Action::RotateRoot(order)));
            }
            RootStep::Make(target) => {
                let p = self.root_to_add(&target);
                self.decided(at_once, p);
            }
            RootStep::Switch(to) => drop(self.w.propose(Command::RootSwitch { to })),
            RootStep::Renew => self.follow(),
            RootStep::Drop(root) => {
                let p = self.root_to_drop(&root);
                self.decided(at_once, p);
            }
            RootStep::Destroy(root) => drop(self.w.propose(Command::RootDestroyed { root })),
        }
        self.observe();
    }
    /// Commits now, or whenever other decisions are committed.
    fn decided(&mut self, at_once: bool, prepared: Result<Prepared<()>, Refusal>) {
        if at_once {
            drop(self.w.commit(prepared));
        } else {
            self.commit(prepared, |_, (), _| {});
        }
    }

    pub(super) fn root_key(&self, root: &Digest) -> &dyn CertSigner {
        match self.roots.roots.get(root) {
            Some(key) => key,
            None => &self.w.root,
        }
    }
    fn root_to_add(&mut self, t: &RootTarget) -> Result<Prepared<()>, Refusal> {
        let (root, issuer) = (SoftKey::new(), SoftKey::new());
        let trusted: Vec<Digest> = self.w.state.roots().iter().map(|r| r.sha256()).collect();
        let old: Vec<(Digest, &dyn CertSigner)> = trusted.into_iter().map(|d| (d, self.root_key(&d))).collect();
        let prepared = self.w.root_to_add(t, (&root, &issuer), &format!("issuer/{}", t.name), &old)?;
        if let Command::RootAdd(new) = &prepared.command.command {
            let ca = IssuerCa::open(&new.issuer_der, issuer).unwrap();
            self.roots.issuers.insert(new.issuer_der.clone(), ca);
            self.roots.roots.insert(sha256(&[&new.der]), root);
        }
        Ok(prepared)
    }
    fn root_to_drop(&mut self, root: &Digest) -> Result<Prepared<()>, Refusal> {
        let trusted: Vec<Digest> = self.w.state.roots().iter().map(|r| r.sha256()).collect();
        let signers: Vec<&dyn CertSigner> = trusted.iter().map(|d| self.root_key(d)).collect();
        prepare::drop_root(&self.w.state, &signers, root, self.time(), &mut self.w.entropy())
    }

    /// The voters and whoever is told to renew do so, and everybody says which Bundle it believes.
    fn follow(&mut self) {
        let members: Vec<u64> = self.w.state.voters().map(|(id, _)| id.0).collect();
        for id in members {
            let key = if id == 1 { Some(&self.w.tls) } else { self.roots.voters.get(&id).map(|m| &m.key) };
            let Some(csr) = key.map(csr_of) else { continue };
            let said = v1::VoterReport { csr, ..self.w.voter_report(id, 1) };
            drop(self.w.says(id, &said, None));
        }
        for id in self.w.state.to_renew(self.time(), 100) {
            // What it was given before and has not used yet comes first.
            self.activate(&id);
            let (_, hpke) = derive_keypair(&self.w.entropy().draw("node hpke"));
            drop(self.w.renew(&id, &csr().1, &hpke));
            self.activate(&id);
        }
        let (now, epoch) = (self.time(), self.w.state.bundle_epoch());
        let said: Vec<_> = self.w.state.unacked(now).map(|id| (id.to_owned(), epoch)).collect();
        drop(self.w.propose(Command::Acked(said)));
    }
    fn activate(&mut self, id: &str) {
        let serial = self.w.state.node_view(id, true).map(|v| v.pending_serial).unwrap_or_default();
        if !serial.is_empty() {
            drop(self.w.propose(Command::Activate { id: id.to_owned(), serial }));
        }
    }
}
