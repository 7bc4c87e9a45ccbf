//! What the rotation of the root comes to: the next step, as the driver takes it, and the progress, as operators see it.
//! Both follow from what is stored, so that any leader goes on where the one before it stopped.

use super::{Identity, IdentityState, RetiredRoot, RootKind, RootRow, RootStep, RootTarget, State, third_over};
use crate::command::CaKey;
use crate::refusal::Refusal;
use holdfast_types::{Digest, Millis, NodeId, Role};
use holdfast_wire::v1;
use prost::Message as _;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::time::Duration;

/// Most roots that are trusted at a time.
const MAX_ROOTS: usize = holdfast_pki::bundle::MAX_ROOTS;
/// A rotation that begins by itself waits for so long after the one before.
const QUIET: Duration = Duration::from_secs(7 * 86_400);
/// Most identities that a view names.
const MAX_NAMED: usize = 100;

impl State {
    /// The key port's name of a root's key that is ordered at `at`: no other root's.
    pub(crate) fn root_name(&self, at: Millis) -> String {
        let names = (at.0..).map(|n| self.key_name("root", Millis(n)));
        names.take(16).find(|n| !self.names_root_key(n)).unwrap_or_default()
    }
    pub(crate) fn names_root_key(&self, name: &str) -> bool {
        let keys = self.roots.iter().map(|r| &r.key).chain(self.rotation.retired.iter().map(|r| &r.key));
        keys.filter_map(CaKey::name).any(|n| n == name)
    }
    /// Whether another root may be ordered now, by Admins' signatures if it is `without_old`; else what is to be waited for.
    pub(crate) fn may_order_root(&self, without_old: bool) -> Result<(), Refusal> {
        if let Some(t) = &self.rotation.target {
            let why =
                format!("a {} root was ordered by {} and is not made yet: wait, or abort it", t.kind.as_str(), t.by);
            return Err(Refusal::changed(why));
        }
        if !without_old && self.roots.iter().all(|r| r.key == CaKey::Offline) {
            let why = "the key of the only trusted root is offline: nothing here signs that another one is trusted beside it; \
                       Admins do for `holdfast root rotate --without-old-root`";
            return Err(Refusal::changed(why));
        }
        if self.roots.len() >= MAX_ROOTS {
            let why =
                format!("{MAX_ROOTS} roots are trusted already: wait until one is dropped; see holdfast root status");
            return Err(Refusal::changed(why));
        }
        Ok(())
    }
    /// When half of the life of the only root is over, and no rotation was there for a while; none where it is not the cluster's to
    /// replace.
    fn half_over(&self) -> Option<Millis> {
        // Who aborted it has a week before it begins again.
        self.half_at(false).map(|half| half.max(self.rotation.since.plus(QUIET)))
    }
    /// When half of the life of the only root is over, if it is the operators' to replace, or the cluster's.
    fn half_at(&self, theirs: bool) -> Option<Millis> {
        let [root] = self.roots.as_slice() else { return None };
        let half = root.since.plus(root.not_after.since(root.since) / 2);
        ((root.given || root.key == CaKey::Offline) == theirs).then_some(half)
    }
    /// How long the only root has waited at `now` to be replaced by itself.
    pub fn root_overdue(&self, now: Millis) -> Option<Duration> {
        let due = self.half_over().filter(|at| *at <= now && self.rotation.target.is_none());
        due.map(|at| now.since(at))
    }
    /// Whether half of the life of the only root is over, and operators are to bring or to order the next one: they brought this one.
    pub fn root_to_bring(&self, now: Millis) -> bool {
        self.rotation.target.is_none() && self.half_at(true).is_some_and(|at| at <= now)
    }
    /// The root that is to be made now: the one that was ordered, or one like the one that grows old.
    pub(crate) fn root_wanted(&self, now: Millis) -> Option<RootTarget> {
        if self.roots.len() >= MAX_ROOTS {
            return None;
        }
        if let Some(ordered) = &self.rotation.target {
            return Some(ordered.clone());
        }
        let at = self.half_over().filter(|at| *at <= now)?;
        let kind = match self.signing_root()?.key {
            CaKey::Sealed(_) => RootKind::Software,
            CaKey::Token(_) => RootKind::Token,
            CaKey::Offline => return None,
        };
        let name = self.key_name("root", at);
        Some(RootTarget { kind, name, given: None, by: "vault".to_owned(), ordered: at, without_old: false })
    }
    /// What the leader does next for the rotation of the root.
    pub fn root_step(&self, now: Millis) -> RootStep {
        let (to, others) = (self.rotation.to, self.other_roots());
        if let Some(to) = to.filter(|to| self.switch_guard(to).is_ok()) {
            return RootStep::Switch(to);
        }
        // The root that is to sign next stays, also while it does not sign yet.
        if let Some(root) = others.iter().find(|r| to != Some(**r) && self.drop_guard(r, now).is_ok()) {
            return RootStep::Drop(*root);
        }
        if let Some(target) = self.root_wanted(now).filter(|t| !(t.without_old && self.is_proposed(now))) {
            return RootStep::Make(target);
        }
        if !self.distributing() && others.iter().any(|r| self.is_used(r, now)) {
            return RootStep::Renew;
        }
        self.to_destroy().first().map_or(RootStep::Nothing, |root| RootStep::Destroy(*root))
    }
    /// Dropped roots of whose keys something is left, oldest first: each is destroyed for itself.
    pub fn to_destroy(&self) -> Vec<Digest> {
        self.rotation.retired.iter().filter(|r| !r.destroyed).map(|r| r.sha256).collect()
    }
    /// Dropped roots of whose keys something is to be destroyed in a token.
    pub(crate) fn keys_to_forget(&self) -> Result<Vec<Digest>, Refusal> {
        let waits = |r: &&RetiredRoot| !r.destroyed && r.is_in_token();
        let all: Vec<Digest> = self.rotation.retired.iter().filter(waits).map(|r| r.sha256).collect();
        let none = || Refusal::changed("no dropped root's key is to be destroyed in a token");
        if all.is_empty() { Err(none()) } else { Ok(all) }
    }
    /// Whether there is what is to be given up.
    pub(crate) fn may_abort_root(&self, order: &v1::AbortRoot) -> Result<(), Refusal> {
        if order.key_is_gone { self.keys_to_forget().map(drop) } else { self.root_to_go_back_to().map(drop) }
    }
    /// Whether a root's key is in the voters' token, is to be made or found there, or is to be destroyed there.
    pub fn needs_token(&self) -> bool {
        let r = &self.rotation;
        let in_token = |k: &CaKey| matches!(k, CaKey::Token(_));
        let wanted = |t: &RootTarget| t.kind == RootKind::Token || t.given.as_ref().is_some_and(|g| in_token(&g.key));
        self.roots.iter().any(|r| in_token(&r.key))
            || r.retired.iter().any(RetiredRoot::is_in_token)
            || r.target.as_ref().is_some_and(wanted)
    }
    /// The trusted roots that do not sign.
    fn other_roots(&self) -> Vec<Digest> {
        self.roots.iter().filter(|r| !r.signer).map(RootRow::sha256).collect()
    }
    fn is_used(&self, root: &Digest, now: Millis) -> bool {
        self.voters_under(*root, now).next().is_some() || self.index.living.under(root, now).next().is_some()
    }
    /// Whether the root that all are led to does not sign yet.
    fn distributing(&self) -> bool {
        self.rotation.to.is_some() && self.rotation.to != self.signing_root_sha256()
    }
    /// Machines with a certificate under a trusted root that does not sign, `most` at a time: orchestrators first (INV7).
    pub fn to_renew(&self, now: Millis, most: usize) -> Vec<String> {
        let others = self.other_roots();
        let mut seen = BTreeSet::new();
        let once = self.index.living.in_order(&others, now).filter(|id| seen.insert(*id));
        once.take(most).map(str::to_owned).collect()
    }
    /// Machines that have not said that they believe the Bundle which lists the root that signs, or is to sign.
    pub fn unacked(&self, now: Millis) -> impl Iterator<Item = &str> {
        let to = self.rotation.to.and_then(|to| self.root(&to)).or(self.signing_root());
        self.index.living.behind(to.map_or(0, |r| r.added_epoch), now)
    }
    /// Whether what `id` says of a Bundle is news that something waits for: only then it is worth an entry.
    pub fn ack_matters(&self, id: &str, epoch: u64) -> bool {
        let row = self.identities.get(id);
        let wanted = || self.roots.iter().map(|r| r.added_epoch).max().unwrap_or(0);
        row.is_some_and(|r| r.acked < epoch && r.acked < wanted())
    }
    /// The root whose key is offline that is to sign an issuer, and has not been asked since the newest Bundle.
    pub fn to_ask(&self, now: Millis) -> Option<Digest> {
        let offline = |r: &&RootRow| r.key == CaKey::Offline && r.not_after > now;
        // An issuer may live far longer than the statement key that came with it.
        let stk_due = self.newest_stk().is_none_or(|k| third_over(now, k.from, k.until));
        let root = self.roots.iter().filter(offline).find(|r| {
            let issuer = self.issuer_under(&r.sha256());
            let needed = r.signer || self.rotation.to == Some(r.sha256());
            needed && ((r.signer && stk_due) || issuer.is_none_or(|i| third_over(now, i.since, i.not_after)))
        })?;
        let prev = self.bundle_sha256()?;
        let follows =
            |bundle: &[u8]| v1::Bundle::decode(bundle).is_ok_and(|b| b.prev_sha256 == prev.0 && b.epoch > self.epoch);
        let asked = self.rotation.asked.as_ref();
        let fresh = asked.is_some_and(|a| a.root == root.sha256() && a.stk.until > now && follows(&a.bundle));
        (!fresh).then(|| root.sha256())
    }
    /// Where the rotation stands, in a word.
    pub fn root_phase(&self) -> &'static str {
        if self.distributing() {
            "distributing"
        } else if self.roots.len() > 1 {
            "reissuing"
        } else if self.rotation.retired.iter().any(|r| !r.destroyed) {
            "retiring"
        } else {
            "stable"
        }
    }
    /// What the rotation waits for, in words; empty: nothing.
    fn root_waits_for(&self, now: Millis) -> String {
        let waits = match self.root_phase() {
            "distributing" => self.rotation.to.map(|to| self.switch_guard(&to)),
            "reissuing" => self.other_roots().first().map(|r| self.drop_guard(r, now)),
            "retiring" if self.keys_to_forget().is_ok() => {
                return "the key of the dropped root is to be destroyed in its token; if that one is gone for good: \
                        holdfast root abort --key-is-gone"
                    .to_owned();
            }
            "retiring" => return "the key of the dropped root is to be destroyed".to_owned(),
            _ => None,
        };
        match (waits, &self.rotation.target) {
            (Some(Err(why)), _) => why.to_string(),
            (_, Some(t)) if t.without_old && self.is_proposed(now) => self.approvals(),
            (_, Some(t)) => format!("the {} root is to be made", t.kind.as_str()),
            (_, None) => String::new(),
        }
    }
    /// One root, as operators see it.
    pub(crate) fn root_view(&self, r: &RootRow, now: Millis) -> v1::RootView {
        let sha256 = r.sha256();
        let live = self.index.living.count(&sha256, now);
        v1::RootView {
            sha256: sha256.to_vec(),
            not_after_ms: r.not_after.0,
            signer: r.signer,
            key: r.key.word().to_owned(),
            identities: live.saturating_add(self.voters_under(sha256, now).count() as u64),
            der: r.der.clone(),
        }
    }
    /// The rotation of the root, as operators see it. `connected` is the leader's observation; what the voters' tokens are
    /// like, too, and is not filled in.
    pub fn roots_view(&self, now: Millis, connected: impl Fn(&NodeId) -> bool) -> v1::RootsView {
        let trusted: Vec<_> = self.roots.iter().map(|r| self.root_view(r, now)).collect();
        let total = trusted.iter().map(|r| r.identities).sum();
        let to = self.rotation.to.or(self.signing_root_sha256()).map(|d| d.to_vec()).unwrap_or_default();
        let reissued = trusted.iter().filter(|r| r.sha256 == to).map(|r| r.identities).sum();
        let target = self.rotation.target.as_ref().map(|t| t.kind.as_str().to_owned()).unwrap_or_default();
        let asked = self.rotation.asked.as_ref();
        v1::RootsView {
            phase: self.root_phase().to_owned(),
            trusted,
            target,
            reissued,
            total,
            stragglers: self.stragglers(now, connected),
            since_ms: self.rotation.since.0,
            waits_for: self.root_waits_for(now),
            hsm: Vec::new(),
            issuer_csr: asked.map(|a| a.csr.clone()).unwrap_or_default(),
            next_bundle: asked.and_then(|a| v1::Bundle::decode(a.bundle.as_slice()).ok()),
            to_approve: self.rotation.proposed.as_ref().filter(|_| self.is_proposed(now)).and_then(|n| n.statement()),
        }
    }
    /// Whom the rotation waits for: voters, then machines, [`MAX_NAMED`] at most.
    fn stragglers(&self, now: Millis, connected: impl Fn(&NodeId) -> bool) -> Vec<v1::Straggler> {
        if self.roots.len() < 2 {
            return Vec::new();
        }
        let others = self.other_roots();
        let voters = others.iter().flat_map(|r| self.voters_under(*r, now).map(move |id| (id, r)));
        let voters = voters.filter_map(|(id, under)| {
            let (voter, id) = (self.voter(id)?, format!("{}/{id}", Role::Vault));
            let cert = voter.cert.iter().chain(&voter.shown).find(|c| c.root == *under)?;
            let (root, not_after_ms) = (cert.root.to_vec(), cert.not_after.0);
            let role = Role::Vault.to_string();
            Some(v1::Straggler { id, role, root, bundle_epoch: voter.acked, not_after_ms, connected: false })
        });
        let mut seen = BTreeSet::new();
        let named = self.to_renew(now, MAX_NAMED).into_iter();
        let behind = self.unacked(now).take(MAX_NAMED).map(str::to_owned);
        let once = named.chain(behind).filter(|id| seen.insert(id.clone()));
        let machines = once.filter_map(|id| {
            let row = self.identities.get(&id)?;
            let cert = row.certificate()?;
            Some(v1::Straggler {
                role: row.role.to_string(),
                root: cert.root.to_vec(),
                bundle_epoch: row.acked,
                not_after_ms: cert.not_after.0,
                connected: NodeId::parse(&id).is_ok_and(|n| connected(&n)),
                id,
            })
        });
        voters.chain(machines).take(MAX_NAMED).collect()
    }
    /// An identity in the registry.
    pub fn identity(&self, id: &str) -> Option<&Identity> {
        self.identities.get(id).map(Deref::deref)
    }
    /// Notes which Bundle an identity believes. Nobody believes one that is not there.
    pub(crate) fn note_ack(&mut self, id: &str, epoch: u64, newest: u64) {
        let Some(row) = self.identities.get_mut(id) else { return };
        if row.state != IdentityState::Removed && row.acked < epoch.min(newest) {
            row.acked = epoch.min(newest);
            self.identity_moved(id);
        }
    }
}
