//! Joining, approval, login, and the renewal chain R1–R5.

use super::{Event, Step};
use crate::command::{CertFacts, Command, HpkeFacts};
use crate::log::Draft;
use crate::refusal::{Code, Refusal};
use crate::state::{Identity, IdentityState, Notice, Revoked};
use holdfast_types::{Digest, NodeId, Role, TokenId, Zone};

/// What a join brings.
pub(super) struct Applicant {
    pub id: String,
    pub role: Role,
    pub cert: Option<CertFacts>,
    pub spki_der: Vec<u8>,
    pub spki: Digest,
    pub hpke: Option<HpkeFacts>,
}

impl Step<'_> {
    pub(super) fn join(&mut self, token: TokenId, a: Applicant) -> Result<(), Refusal> {
        self.live_hpke(a.hpke.as_ref().filter(|_| a.role == Role::Node))?;
        let at = self.at;
        let taken = self.state.identities.contains_key(&a.id);
        let t = self
            .state
            .tokens
            .get_mut(&token)
            .ok_or_else(|| Refusal::credential("this join token is not known here"))?;
        if t.revoked || t.uses_left == 0 || t.expires <= at {
            return Err(Refusal::credential("this join token is expired, used up or revoked; create another one"));
        }
        if taken {
            return Err(Refusal::changed("this identity exists already"));
        }
        if a.role == Role::Vault && a.cert.is_some() {
            return Err(Refusal::credential("a voter is admitted by operators who name its key"));
        }
        t.uses_left -= 1;
        let state = if a.cert.is_some() { IdentityState::Ready } else { IdentityState::Pending };
        let mut row = Identity::new(a.role, state, t.zone.clone(), t.labels.clone(), at);
        let zone = t.zone.clone();
        let actor = format!("{}/{}", a.role, a.id);
        self.leaf(Draft::new("token.use", actor.clone(), token.hex()));
        let create = match a.role {
            Role::Node => "node.create",
            Role::Vault => "voter.join",
            Role::Orch | Role::Op | Role::Svc => "orch.create",
        };
        self.leaf(
            Draft::new(create, actor.clone(), a.id.clone())
                .with("state", state.as_str())
                .with("zone", zone)
                .with("spki", a.spki),
        );
        match a.cert {
            Some(cert) => {
                self.cert_leaf(&actor, &cert);
                row.first(cert, a.hpke);
            }
            None => {
                row.applicant = Some((a.spki_der, a.spki));
                row.hpke = a.hpke.into_iter().collect();
            }
        }
        row.rev = self.next_rev();
        self.state.identities.insert(a.id.clone(), row.into());
        self.state.identity_moved(&a.id);
        self.event(Event::Identity(a.id));
        Ok(())
    }

    pub(super) fn cert_leaf(&mut self, subject: &str, cert: &CertFacts) {
        let d = Draft::new("cert.issue", "vault", subject).with("serial", &cert.serial).with("spki", cert.spki);
        self.leaf(d.with("not_after", cert.not_after).with("seq", cert.seq));
    }

    /// Changes a machine's identity that is not removed; its revision moves. Operators are the charter's, not the registry's.
    pub(super) fn with_identity(
        &mut self,
        id: &str,
        f: impl FnOnce(&mut Identity) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let next = self.state.rev + 1;
        let row = self
            .state
            .identities
            .get_mut(id)
            .filter(|r| r.role != Role::Op)
            .ok_or_else(|| Refusal::not_found("identity", id))?;
        if row.state == IdentityState::Removed {
            return Err(Refusal::changed(format!("{id} has been removed")));
        }
        f(row)?;
        row.rev = next;
        self.state.rev = next;
        self.state.identity_moved(id);
        self.event(Event::Identity(id.to_owned()));
        Ok(())
    }

    pub(super) fn issue_first(&mut self, id: &str, cert: CertFacts, hpke: Option<HpkeFacts>) -> Result<(), Refusal> {
        self.live_hpke(hpke.as_ref())?;
        let mut subject = String::new();
        let issued = cert.clone();
        self.with_identity(id, |row| {
            if row.state != IdentityState::Ready || row.approved != Some(cert.spki) || row.next_seq() > 2 {
                return Err(Refusal::new(Code::Pending, "this identity is not approved with this key"));
            }
            subject = format!("{}/{id}", row.role);
            row.first(cert, hpke);
            Ok(())
        })?;
        self.cert_leaf(&subject, &issued);
        Ok(())
    }

    pub(super) fn login(&mut self, id: &str, statement: &[u8], cert: CertFacts) -> Result<(), Refusal> {
        let st = Command::statement(statement).ok_or_else(|| Refusal::corrupt("login"))?;
        if self.state.operator(id).is_none() {
            return Err(Refusal::credential("no such operator in the charter"));
        }
        let at = self.at;
        let row = self
            .state
            .identities
            .entry(id.to_owned())
            .or_insert_with(|| Identity::new(Role::Op, IdentityState::Ready, Zone::all(), Vec::new(), at).into());
        if row.role != Role::Op {
            return Err(Refusal::changed("the id is taken"));
        }
        row.login(cert.clone(), at);
        self.leaf(Draft::new("operator.login", format!("op/{id}"), id).signed(&st));
        self.cert_leaf(&format!("op/{id}"), &cert);
        Ok(())
    }

    pub(super) fn renew(
        &mut self,
        id: &str,
        cert: CertFacts,
        hpke: Option<HpkeFacts>,
        acked: u64,
    ) -> Result<(), Refusal> {
        self.live_hpke(hpke.as_ref())?;
        let acked = self.state.newly_acked(id, acked);
        let mut subject = String::new();
        let next = cert.clone();
        self.with_identity(id, |row| {
            let released = row.is_released(&cert.spki);
            if !released && !matches!(row.state, IdentityState::Ready | IdentityState::Draining) {
                return Err(Refusal::credential("this identity may not renew"));
            }
            match &row.pending {
                Some(p) if p.spki != cert.spki && !released => {
                    return Err(Refusal::changed("another renewal of this identity is pending"));
                }
                Some(_) | None if cert.seq < row.certificate().map_or(0, |c| c.seq) + 1 => {
                    return Err(Refusal::changed("a newer certificate exists"));
                }
                Some(_) | None => {}
            }
            subject = format!("{}/{id}", row.role);
            row.offer(cert, hpke);
            row.acked = row.acked.max(acked);
            Ok(())
        })?;
        self.leaf(Draft::new("node.renew", subject.clone(), id).with("seq", next.seq));
        self.cert_leaf(&subject, &next);
        Ok(())
    }

    /// R4. Whoever comes second with the same certificate finds it current already: nothing left to do.
    pub(super) fn activate(&mut self, id: &str, serial: &str) -> Result<(), Refusal> {
        let (at, known) = (self.at, self.state.keys_since(self.at));
        if self.state.identity(id).and_then(Identity::certificate).is_some_and(|c| c.serial == serial) {
            return Ok(());
        }
        let (mut seq, mut before) = (0, None);
        self.with_identity(id, |row| match &row.pending {
            Some(p) if p.serial == serial => {
                seq = p.seq;
                before = row.activate(at, known);
                Ok(())
            }
            Some(_) | None => Err(Refusal::changed("this certificate is not the pending one any more; renew again")),
        })?;
        self.leaf(Draft::new("node.activate", id, id).with("seq", seq));
        if let Some(keys) = before {
            self.list_keys_of(id, keys);
        }
        Ok(())
    }

    /// It was released: on the list of revocations stay the keys of before, as long as a certificate for one of them lasts.
    pub(super) fn list_keys_of(&mut self, id: &str, keys: Vec<Digest>) {
        let Some(mut listed) = self.state.revoked.remove(id) else { return };
        listed.released = true;
        listed.keys.extend(keys);
        listed.keys.sort_unstable();
        listed.keys.dedup();
        if !listed.keys.is_empty() {
            self.state.revoked.insert(id.to_owned(), listed);
        }
        self.next_epoch();
    }

    pub(super) fn fork(&mut self, id: &str, detail: &str) -> Result<(), Refusal> {
        self.quarantine(id, Draft::new("identity.fork", "vault", id).with("detail", detail))?;
        self.notice(id, Notice::Fork, detail)
    }

    /// All certificates of `id` stop counting; it gets nothing new. Its sensitive tasks are taken back, the others have
    /// the rest of their leases.
    pub(super) fn quarantine(&mut self, id: &str, why: Draft) -> Result<(), Refusal> {
        self.with_identity(id, |row| {
            row.state = IdentityState::Quarantined;
            row.released = None;
            Ok(())
        })?;
        let actor = why.actor.clone();
        self.leaf(why);
        for grant in NodeId::parse(id).map(|n| self.state.sensitive_on(&n)).unwrap_or_default() {
            self.revoke_grant(grant, &actor, "its node is quarantined");
        }
        self.revoke_identity(id);
        Ok(())
    }

    /// Puts every certificate issued so far on the revocation list; leases end now.
    pub(super) fn revoke_identity(&mut self, id: &str) {
        let Some(row) = self.state.identities.get(id) else { return };
        let certs = row.current.iter().chain(&row.pending).chain(&row.retired);
        // What a release forgot may still last.
        let listed = self.state.revoked.get(id);
        let until = certs.map(|c| c.not_after).chain(listed.map(|r| r.until)).max().unwrap_or(self.at);
        let keys = listed.map(|r| r.keys.clone()).unwrap_or_default();
        // Of one that was removed no certificate ever counts again, and its node ends what it runs.
        let removed = (row.state == IdentityState::Removed).then_some(self.at);
        let not_before_seq = removed.map_or_else(|| row.next_seq(), |_| u64::MAX);
        let revoked = Revoked { not_before_seq, until, removed, keys, released: false };
        self.state.revoked.insert(id.to_owned(), revoked);
        for lease in self.state.leases.values_mut().filter(|l| l.orch.as_str() == id) {
            lease.until = lease.until.min(self.at);
        }
        self.next_epoch();
        self.event(Event::Revoked(id.to_owned()));
    }
}
