//! A cluster whose roots rotate: the keys of all of them, and machines with chains that are verified as anybody would.

use crate::world::{Machine, SoftKey, World};
use holdfast_pki::bundle::{Admins, follow, verify_bundle_chain};
use holdfast_pki::chain::{Anchors, ChainError, Peer, Usage, verify_peer};
use holdfast_pki::issue::IssuerCa;
use holdfast_pki::keys::CertSigner;
use holdfast_types::{Digest, Millis, TrustDomain, sha256};
use holdfast_vault_core::prepare::{self, AtRest};
use holdfast_vault_core::{Code, Command, NewRoot, Refusal, RootStep, RootTarget};
use holdfast_wire::charter::CharterChain;
use holdfast_wire::statement::Verified;
use holdfast_wire::v1;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use v1::command::Action;

pub const ADMINS: &[&str] = &["ada", "ben"];
pub const HOUR: i64 = 3_600_000;

pub struct Roots {
    pub w: World,
    first: Digest,
    keys: BTreeMap<Digest, SoftKey>,
    issuers: BTreeMap<Digest, IssuerCa<SoftKey>>,
    /// The voter's chain.
    pub vault: Vec<Vec<u8>>,
    pub reports: u64,
}

/// A machine as it stands: what it trusts, and what it shows.
pub struct Standing {
    pub m: Machine,
    pub trust: Verified<v1::Bundle>,
    pub chain: Vec<Vec<u8>>,
    /// Its next chain, not shown yet.
    pub next: Option<Vec<Vec<u8>>>,
    pub online: bool,
}

pub fn rotate(kind: &str) -> Action {
    Action::RotateRoot(v1::RotateRoot { kind: kind.into(), ..Default::default() })
}

/// Whether who trusts `roots` believes `chain` at `now`.
pub fn believes(
    roots: &[Vec<u8>],
    chain: &[Vec<u8>],
    domain: &TrustDomain,
    now: Millis,
    usage: Usage,
) -> Result<Peer, ChainError> {
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
    verify_peer(&chain, &Anchors::new(roots, domain.clone())?, now, usage)
}

impl Roots {
    pub fn new() -> Self {
        let w = World::new();
        let first = w.state.signing_root_sha256().unwrap();
        let (keys, issuers) = (BTreeMap::new(), BTreeMap::new());
        let mut r = Self { w, first, keys, issuers, vault: Vec::new(), reports: 1 };
        r.report();
        r
    }
    pub fn domain(&self) -> TrustDomain {
        self.w.state.trust_domain().unwrap().clone()
    }
    pub fn signer(&self) -> Digest {
        self.w.state.signing_root_sha256().unwrap()
    }
    pub fn trusted(&self) -> Vec<Digest> {
        self.w.state.roots().iter().map(|r| r.sha256()).collect()
    }
    pub fn key(&self, root: &Digest) -> &dyn CertSigner {
        if *root == self.first { &self.w.root } else { &self.keys[root] }
    }
    /// The voter starts anew and asks for a certificate.
    pub fn report(&mut self) {
        self.reports += 1;
        let csr = crate::world::csr_of(&self.w.tls);
        let said = v1::VoterReport { csr, ..self.w.voter_report(1, self.reports) };
        self.vault = self.w.says(1, &said, None).unwrap().unwrap().chain;
    }
    pub fn order(&mut self, kind: &str) -> Result<(), Refusal> {
        self.w.act(ADMINS, rotate(kind)).map(drop)
    }
    pub fn abort(&mut self) -> Result<(), Refusal> {
        self.w.act(ADMINS, Action::AbortRoot(v1::AbortRoot::default())).map(drop)
    }
    pub fn target(&self) -> Option<RootTarget> {
        if let RootStep::Make(t) = self.w.state.root_step(self.w.now) { Some(t) } else { None }
    }
    /// Makes the root that is wanted; its hash.
    pub fn add(&mut self) -> Result<Digest, Refusal> {
        self.add_edited(|_| {})
    }
    /// The same, with what is added changed on its way.
    pub fn add_edited(&mut self, edit: impl FnOnce(&mut NewRoot)) -> Result<Digest, Refusal> {
        let wanted = self.w.state.rotation().target.clone().or_else(|| self.target());
        let Some(t) = wanted else { return Err(Refusal::new(Code::Changed, "no root is wanted")) };
        let (root, issuer) = (SoftKey::new(), SoftKey::new());
        let name = format!("issuer/{}", t.name);
        let old: Vec<Digest> = if t.without_old { Vec::new() } else { self.trusted() };
        let old: Vec<(Digest, &dyn CertSigner)> = old.into_iter().map(|d| (d, self.key(&d))).collect();
        let mut command = self.w.root_to_add(&t, (&root, &issuer), &name, &old)?.command;
        let (Command::RootAdd(new) | Command::RootPropose(new)) = &mut command.command else {
            panic!("no root is added")
        };
        edit(new);
        let (added, der) = (sha256(&[&new.der]), new.issuer_der.clone());
        self.w.apply(command).result?;
        self.keys.insert(added, root);
        self.issuers.insert(added, IssuerCa::open(&der, issuer).unwrap());
        Ok(added)
    }
    pub fn switch(&mut self, to: Digest) -> Result<(), Refusal> {
        let before = self.signer();
        self.w.propose(Command::RootSwitch { to }).result?;
        let old = self.w.issuer.take().unwrap();
        self.issuers.insert(before, old);
        self.w.issuer = self.issuers.remove(&to);
        Ok(())
    }
    pub fn drop_root(&mut self, root: Digest) -> Result<(), Refusal> {
        let signers: Vec<&dyn CertSigner> = self.trusted().iter().map(|d| self.key(d)).collect();
        let p = prepare::drop_root(&self.w.state, &signers, &root, self.w.now, &mut self.w.entropy());
        self.w.commit(p).map(drop)
    }
    /// One step as the driver takes it; false if there was nothing to do but to wait.
    pub fn step(&mut self) -> bool {
        match self.w.state.root_step(self.w.now) {
            RootStep::Make(_) => self.add().map(drop).unwrap(),
            RootStep::Switch(to) => {
                self.switch(to).unwrap();
                self.report();
            }
            RootStep::Drop(root) => self.drop_root(root).unwrap(),
            RootStep::Destroy(root) => drop(self.w.propose(Command::RootDestroyed { root }).result.unwrap()),
            RootStep::Nothing | RootStep::Renew => return false,
        }
        true
    }
    /// Makes a new issuer where one is due.
    pub fn keep_issuer(&mut self) {
        if !self.w.state.issuer_due(self.w.now) {
            return;
        }
        let (issuer, life) = (SoftKey::new(), self.w.lives.issuer);
        let (pkcs8, root) = (issuer.private(), self.signer());
        let mut entropy = self.w.entropy();
        let key = self.key(&root);
        let w = &self.w;
        let p = prepare::new_issuer(&w.state, &w.keys, key, &issuer, AtRest::Sealed(&pkcs8), life, w.now, &mut entropy);
        self.w.commit(p).unwrap();
        self.w.issuer = Some(IssuerCa::open(&self.w.state.issuer().unwrap().der, issuer).unwrap());
    }
    pub fn charters(&self) -> CharterChain {
        CharterChain::verify(&self.w.state.charter_chain()).unwrap()
    }
    fn trust(&self) -> Verified<v1::Bundle> {
        let first = &self.w.state.bundle_chain()[..1];
        let root = v1_bundle(&first[0]).roots;
        verify_bundle_chain(first, &root, Admins::ever(&self.charters()), &self.w.cluster).unwrap()
    }
    /// A node that has renewed once: its chain is known.
    pub fn node(&mut self) -> Standing {
        let m = self.w.node();
        self.standing(m)
    }
    /// An orchestrator that has renewed once.
    pub fn orchestrator(&mut self) -> Standing {
        let m = self.w.orchestrator();
        self.standing(m)
    }
    fn standing(&mut self, m: Machine) -> Standing {
        let mut s = Standing { m, trust: self.trust(), chain: Vec::new(), next: None, online: true };
        self.deliver(&mut s);
        self.ack(&s);
        assert!(self.renew(&mut s) && self.show(&mut s));
        s
    }
    /// It is sent the Bundles that it lacks, and follows them one by one.
    pub fn deliver(&self, s: &mut Standing) {
        for st in self.w.state.bundle_chain() {
            if v1_bundle(&st).epoch > s.trust.doc.epoch {
                s.trust = follow(&s.trust, &st, Admins::in_force(&self.charters()), &self.w.cluster).unwrap();
            }
        }
    }
    pub fn ack(&mut self, s: &Standing) {
        let said = vec![(s.m.id.clone(), s.trust.doc.epoch)];
        self.w.propose(Command::Acked(said)).result.unwrap();
    }
    /// It asks for a next certificate; false if it was refused.
    pub fn renew(&mut self, s: &mut Standing) -> bool {
        let (csr, bundle_epoch) = (crate::world::csr_of(&s.m.key), s.trust.doc.epoch);
        let ask = v1::RenewRequest { csr, hpke_pub: s.m.hpke_pub.to_vec(), bundle_epoch };
        let p = prepare::renew(&self.w.leader(), &s.m.id, &ask, &mut self.w.entropy());
        let issued = self.w.commit(p).ok().and_then(|(issued, _)| issued);
        let done = issued.is_some();
        s.next = issued.map(|i| i.chain).or(s.next.take());
        done
    }
    /// It shows its next certificate for the first time.
    pub fn show(&mut self, s: &mut Standing) -> bool {
        let Some(next) = s.next.take() else { return false };
        let serial = self.w.state.node_view(&s.m.id, true).unwrap().pending_serial;
        let shown = self.w.propose(Command::Activate { id: s.m.id.clone(), serial }).result.is_ok();
        if shown {
            s.chain = next;
        }
        shown
    }
    /// Leads the rotation to its end with all who are online; panics if it does not end.
    pub fn settle(&mut self, all: &mut [Standing]) {
        for _ in 0..40 {
            let moved = self.step();
            let voter = self.w.state.voter(holdfast_types::VoterId(1)).and_then(|v| v.cert.as_ref()).map(|c| c.root);
            if voter != Some(self.signer()) {
                self.report();
            }
            let told = self.w.state.to_renew(self.w.now, 100);
            for s in all.iter_mut().filter(|s| s.online) {
                self.deliver(s);
                self.ack(s);
                if told.contains(&s.m.id) && self.renew(s) {
                    assert!(self.show(s));
                }
            }
            if !moved && self.w.state.root_phase() == "stable" && self.w.state.rotation().target.is_none() {
                return;
            }
        }
        panic!("the rotation does not end: {:?}", self.w.state.roots_view(self.w.now, |_| true).waits_for);
    }
    pub fn cert_root(&self, s: &Standing) -> Option<Digest> {
        self.w.state.identity(&s.m.id).and_then(|i| i.certificate()).map(|c| c.root)
    }
    /// When the certificate that it uses ends.
    pub fn cert_end(&self, s: &Standing) -> Option<Millis> {
        self.w.state.identity(&s.m.id).and_then(|i| i.certificate()).map(|c| c.not_after)
    }
    pub fn is_live(&self, s: &Standing) -> bool {
        self.cert_end(s).is_some_and(|end| end > self.w.now)
    }
}

pub fn v1_bundle(st: &v1::Statement) -> v1::Bundle {
    holdfast_wire::statement::peek(st).unwrap()
}
