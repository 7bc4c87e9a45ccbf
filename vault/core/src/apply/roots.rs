//! The rotation of the root: Add, Switch, Drop, and what follows from them (protocol, root rotation). Each is one entry, whose
//! guard is looked at again here; nothing of a rotation is held anywhere else.

use super::submit::By;
use super::{Event, Step};
use crate::command::{Asked, CaKey, Command, NewRoot, SealedKey};
use crate::log::Draft;
use crate::refusal::{Code, Refusal};
use crate::state::{GivenRoot, Issuer, RetiredRoot, RootKind, RootRow, RootTarget, State};
use holdfast_pki::bundle::{self, Admins};
use holdfast_pki::given;
use holdfast_types::{Digest, Millis, sha256};
use holdfast_wire::charter::CharterChain;
use holdfast_wire::statement::Verified;
use holdfast_wire::v1;
use prost::Message as _;

impl Step<'_> {
    /// A root is ordered; the leader makes it. LAW: nothing signed by a key whose entry is not committed leaves the vault (INV6,
    /// `until_a_root_is_added_nothing_that_leaves_the_vault_contains_it_or_anything_that_it_signed`).
    pub(super) fn rotate_root(
        &mut self,
        by: &By<'_>,
        r: &v1::RotateRoot,
        sealed: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let kind = RootKind::parse(&r.kind).ok_or_else(|| Refusal::invalid("a root is software, hsm or given"))?;
        self.state.may_order_root(r.without_old)?;
        let name = self.state.root_name(self.at);
        let (name, given) = match kind {
            RootKind::Software | RootKind::Token => (name, None),
            RootKind::Given => {
                let (name, key) = self.given_key(r, name, sealed)?;
                self.state.fresh_root(&r.cert)?;
                (name, Some(GivenRoot { der: r.cert.clone(), key }))
            }
        };
        let leaf = by.draft("command", "root").with("action", "rotate-root").with("kind", kind.as_str());
        self.leaf(if r.without_old { leaf.with("without_old", true) } else { leaf });
        let (at, by) = (self.at, by.actor.clone());
        // The key of one that the vault was about to make by itself may be there already.
        let own = self.state.root_wanted(at);
        let s = &mut *self.state;
        own.iter().for_each(|target| s.order_is_spent(target));
        let without_old = r.without_old;
        s.rotation.target = Some(RootTarget { kind, name, given, by, ordered: at, without_old });
        (s.rotation.proposed, s.rotation.since) = (None, at);
        s.keys_moved();
        self.event(Event::Trust);
        Ok(())
    }

    /// Where the key of a given root is, under which name.
    fn given_key(&self, r: &v1::RotateRoot, name: String, sealed: Option<&[u8]>) -> Result<(String, CaKey), Refusal> {
        match (sealed, r.key.as_str()) {
            (Some(bytes), "") => {
                let key: SealedKey = postcard::from_bytes(bytes).map_err(|_| Refusal::corrupt("root key"))?;
                self.live_record(&key.record)?;
                if self.state.names_root_key(&key.name) {
                    return Err(Refusal::changed("another key has this name; try again"));
                }
                Ok((key.name.clone(), CaKey::Sealed(key)))
            }
            (None, "hsm") => Ok((name.clone(), CaKey::Token(name))),
            (None, "offline") => Ok((name, CaKey::Offline)),
            _ => Err(Refusal::invalid("a given root's key travels in a box, or is in the hsm, or offline")),
        }
    }

    /// The last order is taken back: a root that is not made yet is not made, one that is trusted already is led away from.
    /// Or the token with a dropped root's key is gone for good, and nothing else changes.
    pub(super) fn abort_root(&mut self, by: &By<'_>, order: &v1::AbortRoot) -> Result<(), Refusal> {
        if order.key_is_gone {
            return self.forget_keys(by);
        }
        let back = self.state.root_to_go_back_to()?;
        let s = &mut *self.state;
        match s.rotation.target.take() {
            Some(order) => s.order_is_spent(&order),
            None => s.rotation.to = back,
        }
        (s.rotation.proposed, s.rotation.since) = (None, self.at);
        s.keys_moved();
        self.leaf(by.draft("command", "root").with("action", "abort-root"));
        self.event(Event::Trust);
        Ok(())
    }

    pub(super) fn root_add(&mut self, n: NewRoot) -> Result<(), Refusal> {
        let wanted = self.wanted_root(&n)?;
        if wanted.without_old {
            return Err(Refusal::changed("no trusted root signs for this one: Admins do"));
        }
        let roots: Vec<Vec<u8>> = self.state.roots_der().into_iter().chain([n.der.clone()]).collect();
        let signed = self.state.follows(&n.bundle, &roots)?;
        self.put_root(n, &wanted.by, &signed);
        Ok(())
    }

    /// The order that `n` is made for, if all of it is as ordered.
    pub(super) fn wanted_root(&self, n: &NewRoot) -> Result<RootTarget, Refusal> {
        let at = self.at;
        let wanted = self.state.root_wanted(at);
        let wanted = wanted.ok_or_else(|| Refusal::changed("no root is wanted: the order was taken back"))?;
        let offline = wanted.given.as_ref().is_some_and(|g| g.key == CaKey::Offline);
        let named = if offline { n.key == CaKey::Offline } else { n.key.name() == Some(wanted.name.as_str()) };
        if !named || wanted.given.as_ref().is_some_and(|g| g.der != n.der) || n.issuer_der.is_empty() != offline {
            return Err(Refusal::changed("another root is wanted meanwhile"));
        }
        if n.not_after < at.plus(given::LEAST_ROOT_LIFE) {
            return Err(Refusal::invalid("a new root lives for two years at least"));
        }
        self.state.fresh_root(&n.der)?;
        self.live_ca_key(&n.key)?;
        self.live_ca_key(&n.issuer_key)?;
        Ok(wanted)
    }

    /// Everything was looked at: the root is trusted from now on.
    pub(super) fn put_root(&mut self, n: NewRoot, by: &str, signed: &Verified<v1::Bundle>) {
        let (at, root) = (self.at, sha256(&[&n.der]));
        let leaf = Draft::new("root.add", "vault", root.hex()).with("ordered_by", by);
        self.leaf(leaf.with("key", n.key.word()).with("bundle_sha256", signed.sha256));
        let s = &mut *self.state;
        let row = RootRow {
            der: n.der,
            not_after: n.not_after,
            key: n.key,
            given: s.rotation.target.as_ref().is_some_and(|t| t.given.is_some()),
            signer: false,
            since: at,
            added_epoch: signed.doc.epoch,
            cross: Vec::new(),
        };
        s.roots.push(row);
        for (subject, x) in n.cross {
            if let Some(row) = s.roots.iter_mut().find(|r| r.sha256() == subject) {
                row.cross.push(x);
            }
        }
        (s.rotation.target, s.rotation.proposed) = (None, None);
        s.rotation.to = Some(root);
        if !n.issuer_der.is_empty() {
            let (der, key, not_after) = (n.issuer_der, n.issuer_key, n.issuer_not_after);
            self.put_issuer(Issuer { root, der, key, since: at, not_after });
        }
        self.next_bundle_is(n.bundle);
    }

    /// LAW: the root that signs is trusted (INV2, `any_two_live_identities_can_validate_each_other_whatever_happens`).
    pub(super) fn root_switch(&mut self, to: Digest) -> Result<(), Refusal> {
        self.state.switch_guard(&to)?;
        self.leaf(Draft::new("root.switch", "vault", to.hex()));
        let s = &mut *self.state;
        s.roots.iter_mut().for_each(|r| r.signer = r.sha256() == to);
        s.rotation.since = self.at;
        self.event(Event::Keys);
        self.event(Event::Trust);
        Ok(())
    }

    /// A certificate that was signed before its root was dropped, and comes to the log after it, is no more. LAW: INV3, in every
    /// history (`the_laws_hold_in_every_history_of_even_seeds`,
    /// `what_was_signed_before_its_root_was_dropped_does_not_begin_to_count_after_it`).
    pub(super) fn still_trusted(&self, command: &Command) -> Result<(), Refusal> {
        let (Command::Join { cert: Some(cert), .. }
        | Command::VoterReported { cert: Some(cert), .. }
        | Command::IssueFirst { cert, .. }
        | Command::Login { cert, .. }
        | Command::Renew { cert, .. }
        | Command::Rejoin { cert, .. }) = command
        else {
            return Ok(());
        };
        if self.state.root(&cert.root).is_none() {
            // Whoever asks again is given one under the root that signs now.
            return Err(Refusal::new(
                Code::Unavailable,
                "the root of this certificate was dropped meanwhile; try again",
            ));
        }
        Ok(())
    }

    /// LAW: no live certificate needs a root that is dropped (INV3, `a_root_goes_only_when_nobody_alive_is_under_it`).
    pub(super) fn root_drop(&mut self, root: Digest, raw: Vec<u8>) -> Result<(), Refusal> {
        let at = self.at;
        self.state.drop_guard(&root, at)?;
        let roots: Vec<Vec<u8>> = self.state.roots_der().into_iter().filter(|d| sha256(&[d]) != root).collect();
        let signed = self.state.follows(&raw, &roots)?;
        self.leaf(Draft::new("root.drop", "vault", root.hex()).with("bundle_sha256", signed.sha256));
        let s = &mut *self.state;
        let issuer_name = s.next_issuer_name();
        let gone = s.roots.iter().position(|r| r.sha256() == root).map(|i| s.roots.remove(i));
        let under = |i: &Issuer| i.root == root;
        let token = |i: &Issuer| match &i.key {
            CaKey::Token(name) => Some(name.clone()),
            CaKey::Sealed(_) | CaKey::Offline => None,
        };
        let issuers: Vec<String> = s.issuers.iter().filter(|i| under(i)).filter_map(token).collect();
        s.issuers.retain(|i| !under(i));
        // A key that is gone is waited for no more; what is left of it, in a token that is found again, is the operators' own.
        let lost = s.rotation.gone.contains(&root);
        let one_left = s.roots.len() == 1;
        s.rotation.gone.retain(|d| *d != root && !one_left);
        if let Some(RootRow { der, not_after, key, cross, added_epoch, .. }) = gone {
            let in_token = matches!(key, CaKey::Token(_));
            let key = if lost && in_token { CaKey::Offline } else { key };
            let issuers = if lost { Vec::new() } else { issuers };
            let destroyed = key == CaKey::Offline && issuers.is_empty();
            let retired =
                RetiredRoot { sha256: root, der, not_after, added_epoch, key, issuers, cross, dropped: at, destroyed };
            s.rotation.retired.push(retired);
        }
        let r = &mut s.rotation;
        r.to = r.to.filter(|to| *to != root && s.roots.len() > 1);
        if let Some(void) = r.asked.take_if(|a| a.root == root) {
            s.key_is_spent(&void.issuer_key);
        }
        s.issuer_name_was(issuer_name);
        self.next_bundle_is(raw);
        Ok(())
    }

    /// What machines believe decides of the rotation alone: too frequent for the log of changes.
    pub(super) fn acked(&mut self, said: &[(String, u64)]) -> Result<(), Refusal> {
        let newest = self.state.bundle_epoch();
        for (id, epoch) in said {
            self.state.note_ack(id, *epoch, newest);
        }
        Ok(())
    }

    /// An offline root is asked; what it was asked before is void.
    pub(super) fn root_ask(&mut self, a: Asked) -> Result<(), Refusal> {
        let row = self.state.root(&a.root).ok_or_else(|| Refusal::changed("this root is trusted no more"))?;
        if row.key != CaKey::Offline {
            return Err(Refusal::changed("this root's key is not offline"));
        }
        let shown = v1::Bundle::decode(a.bundle.as_slice()).map_err(|_| Refusal::corrupt("bundle"))?;
        if shown.epoch <= self.state.epoch || self.state.bundle_sha256().is_none_or(|d| shown.prev_sha256 != d.0) {
            return Err(Refusal::changed("the bundle moved meanwhile"));
        }
        if self.state.is_key_known(&a.issuer_key) {
            return Err(Refusal::changed("another issuer was made meanwhile"));
        }
        self.live_ca_key(&a.issuer_key)?;
        self.live_record(&a.stk.key.record)?;
        self.leaf(Draft::new("root.ask", "vault", a.root.hex()).with("bundle_sha256", sha256(&[&a.bundle])));
        let void = self.state.rotation.asked.replace(a);
        void.iter().for_each(|v| self.state.key_is_spent(&v.issuer_key));
        self.state.keys_moved();
        self.event(Event::Trust);
        Ok(())
    }

    /// What an offline root signed: an issuer for the key that was asked for, and the very Bundle that was shown.
    pub(super) fn install_issuer(&mut self, by: &By<'_>, i: &v1::InstallIssuer) -> Result<(), Refusal> {
        let at = self.at;
        let (issuer, st) = self.state.check_installed(i, at)?;
        let Some(asked) = self.state.rotation.asked.take() else {
            return Err(Refusal::changed("no offline root was asked to sign anything"));
        };
        self.leaf(by.draft("command", "root").with("action", "install-issuer").with("root", asked.root));
        self.put_issuer(Issuer { root: asked.root, key: asked.issuer_key, since: at, ..issuer });
        self.leaf(Draft::new("stk.rotate", "vault", st.doc.epoch.to_string()).with("bundle_sha256", st.sha256));
        let s = &mut *self.state;
        s.stks.retain(|k| k.until > at);
        s.stks.push(super::founding::stk_row(asked.stk));
        s.epoch = st.doc.epoch.saturating_sub(1);
        let raw = i.bundle.as_ref().map(prost::Message::encode_to_vec).unwrap_or_default();
        self.next_bundle_is(raw);
        Ok(())
    }

    /// The Bundle in force from now on, at the next epoch.
    pub(super) fn next_bundle_is(&mut self, raw: Vec<u8>) {
        let at = self.at;
        let s = &mut *self.state;
        s.bundles.push(raw);
        s.rotation.since = at;
        s.keys_moved();
        self.next_epoch();
        self.event(Event::Keys);
    }
}

impl State {
    /// The root that taking the last order back leads to: the one that was added before the one that all are led to.
    pub(crate) fn root_to_go_back_to(&self) -> Result<Option<Digest>, Refusal> {
        if self.rotation.target.is_some() {
            return Ok(self.rotation.to);
        }
        let now = self.rotation.to.and_then(|to| self.root(&to)).or(self.signing_root());
        let before = |r: &&RootRow| now.is_some_and(|n| r.added_epoch < n.added_epoch);
        let back = self.roots.iter().filter(before).max_by_key(|r| r.added_epoch);
        let back =
            back.ok_or_else(|| Refusal::changed("no rotation of the root is under way that could be aborted"))?;
        Ok(Some(back.sha256()))
    }
    /// Whether a root's key was never one of a root here, and is of this cluster.
    pub(crate) fn fresh_root(&self, der: &[u8]) -> Result<(), Refusal> {
        if holdfast_pki::issue::cluster_of_root(der) != self.cluster_id() {
            return Err(Refusal::invalid("this is not a root of this cluster"));
        }
        let (key, id) = (bundle::sec1_of_cert(der), given::key_id(der));
        let known = || self.roots.iter().map(|r| &r.der).chain(self.rotation.retired.iter().map(|r| &r.der));
        if key.is_none() || known().map(|d| bundle::sec1_of_cert(d)).any(|k| k == key) {
            return Err(Refusal::invalid("a new root has a P-256 key of its own, that no root here had before"));
        }
        // Roots have one name: one certified by the other would look like one that certifies itself.
        if id.is_some() && known().any(|d| given::key_id(d) == id) {
            return Err(Refusal::invalid("a root here has this subjectKeyIdentifier already: a new one needs its own"));
        }
        Ok(())
    }
    /// The encoded Bundle, if it follows the newest one at the next epoch and lists exactly `roots`, in any order.
    fn follows(&self, raw: &[u8], roots: &[Vec<u8>]) -> Result<Verified<v1::Bundle>, Refusal> {
        let st = Command::statement(raw).ok_or_else(|| Refusal::corrupt("bundle"))?;
        let signed = self.follows_at(&st)?;
        if signed.doc.epoch != self.epoch + 1 || !Self::lists(&signed.doc, roots) {
            return Err(Refusal::changed("the roots or the epoch moved meanwhile"));
        }
        Ok(signed)
    }
    /// The same at any later epoch.
    pub(crate) fn follows_at(&self, st: &v1::Statement) -> Result<Verified<v1::Bundle>, Refusal> {
        let (cluster, charters) = (self.cluster()?.id, CharterChain::verify(&self.charter_chain())?);
        let signed = bundle::verify_link(st, &self.roots_der(), Admins::in_force(&charters), &cluster);
        let signed = signed.map_err(|e| Refusal::invalid(e.to_string()))?;
        if ![0, self.charter.version].contains(&signed.doc.charter_version) {
            return Err(Refusal::changed(
                "another charter is in force meanwhile: fetch the bundle again and sign that",
            ));
        }
        let after = self.bundle_sha256().is_some_and(|d| signed.doc.prev_sha256 == d.0);
        if !after || signed.doc.era != self.era() || signed.doc.epoch <= self.epoch {
            return Err(Refusal::changed("the bundle moved meanwhile: fetch the newest one and sign that"));
        }
        Ok(signed)
    }
    /// What an offline root signed, if it is what it was asked for: the issuer, whose key is the one asked for, and the Bundle.
    pub(crate) fn check_installed(
        &self,
        i: &v1::InstallIssuer,
        now: Millis,
    ) -> Result<(Issuer, Verified<v1::Bundle>), Refusal> {
        let asked = self.rotation.asked.as_ref();
        let asked = asked.ok_or_else(|| Refusal::changed("no offline root was asked to sign anything"))?;
        let root =
            self.root(&asked.root).ok_or_else(|| Refusal::changed("the root that was asked is trusted no more"))?;
        let st = i.bundle.as_ref().ok_or_else(|| Refusal::invalid("the bundle is missing"))?;
        if st.payload != asked.bundle {
            return Err(Refusal::changed("this is not the bundle that was shown last: fetch it again and sign that"));
        }
        let signed = self.follows_at(st)?;
        let not_after = given::check_issuer(&i.issuer, &root.der, &asked.csr, now);
        let not_after = not_after.map_err(|e| Refusal::invalid(e.to_string()))?;
        let issuer = Issuer { root: asked.root, der: i.issuer.clone(), key: CaKey::Offline, since: now, not_after };
        Ok((issuer, signed))
    }
    /// The chain that is served with a leaf: its issuer, the signing root certified by others, and the certificates of all
    /// roots that somebody may trust alone, or have pinned when a join token was made for it.
    pub(crate) fn served_chain(&self, leaf: Vec<u8>, issuer: &Issuer, now: Millis) -> Vec<Vec<u8>> {
        let retired = move || self.rotation.retired.iter().rev().filter(move |r| r.not_after > now);
        // When the root that certifies came: none if it is over.
        let came = move |by: &Digest| {
            let old = || retired().find(|r| r.sha256 == *by).map(|r| r.added_epoch);
            self.root(by).map(|r| r.added_epoch).or_else(old)
        };
        let signer = self.roots.iter().filter(|r| r.signer);
        let lasting = signer.clone().flat_map(|r| &r.cross).filter(|x| x.not_after > now);
        let mut crossed: Vec<_> = lasting.filter_map(|x| came(&x.by).map(|epoch| (epoch, &x.der))).collect();
        // The oldest certifier first: verifiers that never come back to the second path reach it there.
        crossed.sort_unstable();
        let others = self.roots.iter().filter(|r| !r.signer && r.not_after > now);
        let roots = signer.chain(others).map(|r| &r.der).chain(retired().map(|r| &r.der));
        let rest = crossed.into_iter().map(|(_, der)| der).chain(roots).cloned();
        [leaf, issuer.der.clone()].into_iter().chain(rest).take(holdfast_pki::chain::MAX_CHAIN).collect()
    }
}
