//! Operators' statements: Spec, Voucher, Mandate and Command, carried out once their preconditions hold.

use super::{Event, Step};
use crate::command::{Command, Submission};
use crate::log::Draft;
use crate::refusal::{Code, Refusal};
use crate::state::{Accepted, AcceptedRow, IdentityState, MandateRow, Placement, SpecVersion, TokenRow};
use holdfast_types::{
    CommandId, Digest, GrantId, MandateId, Millis, NodeId, OrchId, Role, ServiceRef, TokenId, Zone, sha256,
};
use holdfast_wire::documents::COMMAND_LIFE;
use holdfast_wire::specs::template;
use holdfast_wire::statement::{Document, peek};
use holdfast_wire::{specs, v1};
use v1::command::Action;

/// Specs of one service that may be granted at a time.
const ACTIVE_VERSIONS: usize = 2;

impl Step<'_> {
    pub(super) fn submit(&mut self, s: &Submission) -> Result<(), Refusal> {
        let st = Command::statement(&s.statement).ok_or_else(|| Refusal::corrupt("statement"))?;
        let sha = sha256(&[&st.payload]);
        if let Some(before) = self.state.accepted.get(&sha) {
            self.again = Some(before.answer);
            return Ok(());
        }
        if self.state.charter.version != s.charter_version || self.state.cluster()?.policy_version != s.policy_version {
            return Err(Refusal::changed("charter or policy changed meanwhile; try again"));
        }
        let actor = s.signers.iter().map(|i| format!("op/{i}")).collect::<Vec<_>>().join(",");
        let by = By { st: &st, actor, policies: &s.policies, policy_version: s.policy_version };
        match st.r#type.as_str() {
            v1::Spec::TYPE => self.put_spec(&by, peek(&st)?, &s.statement)?,
            // The same voucher may come again with more signatures; without any it changes nothing.
            v1::Voucher::TYPE => return self.put_voucher(&by, &peek(&st)?, &s.statement),
            // So may a Bundle, until it has as many as it needs.
            v1::Bundle::TYPE => return self.approve_root(&by),
            v1::Mandate::TYPE => self.put_mandate(&by, &peek(&st)?, &s.statement)?,
            v1::Command::TYPE => self.command(&by, peek(&st)?, s.sealed.as_deref())?,
            v1::Charter::TYPE => self.put_charter(&by, peek(&st)?, &s.statement, s.sealed.as_deref())?,
            other => return Err(Refusal::invalid(format!("statements of type {other} are not submitted here"))),
        }
        // It is answered again as it was for as long as a command can live: none is forgotten before it ends
        // (`a_command_that_lives_for_a_day_is_carried_out_once_in_all_of_it`).
        let answer = Accepted { leaf: self.frontier.size().saturating_sub(1), rev: self.state.rev };
        self.state.accepted.insert(sha, AcceptedRow { answer, until: self.at.plus(COMMAND_LIFE) });
        Ok(())
    }

    fn put_spec(&mut self, by: &By<'_>, spec: v1::Spec, raw: &[u8]) -> Result<(), Refusal> {
        let name = ServiceRef::of(&spec.namespace, &spec.service).map_err(invalid)?;
        let next = self.state.next_spec(&name, spec.version)?;
        let rev = self.next_rev();
        let row = self.state.services.entry(name.clone()).or_default();
        if !row.active {
            row.versions.clear();
        }
        if row.newest().is_some_and(|old| spec.replicas_max < old.replicas_max) {
            row.shrunk = next;
        }
        // What has done its work has more to do only if there is other work.
        if row.newest().is_none_or(|old| template(old) != template(&spec)) {
            row.done.clear();
        }
        let sha = sha256(&[&by.st.payload]);
        row.versions.push(SpecVersion {
            version: next,
            sha256: sha,
            statement: raw.to_vec(),
            spec: Some(Box::new(spec)),
        });
        let surplus = row.versions.len().saturating_sub(ACTIVE_VERSIONS);
        row.versions.drain(..surplus);
        row.forget_slots(row.versions.iter().filter_map(SpecVersion::spec).map(specs::slots).max().unwrap_or(0));
        row.last_version = next;
        row.active = true;
        row.rev = rev;
        self.leaf(by.draft("service.deploy", &name).with("version", next).with("spec_sha256", sha));
        self.event(Event::Service(name));
        Ok(())
    }

    fn put_mandate(&mut self, by: &By<'_>, m: &v1::Mandate, raw: &[u8]) -> Result<(), Refusal> {
        self.of_this_era(m.era)?;
        let id = MandateId::parse(&m.mandate_id).map_err(invalid)?;
        self.state.new_mandate(&id)?;
        let row = MandateRow {
            statement: raw.to_vec(),
            sha256: sha256(&[&by.st.payload]),
            orchestrators: m
                .orchestrators
                .iter()
                .map(|o| OrchId::parse(o))
                .collect::<Result<_, _>>()
                .map_err(invalid)?,
            namespaces: m.namespaces.clone(),
            zones: m.zones.iter().map(|z| Zone::parse(z)).collect::<Result<_, _>>().map_err(invalid)?,
            not_after: Millis(m.not_after_ms),
            per_minute: m.grants_per_minute,
            novelty: m.novelty_per_hour,
            revoked: false,
        };
        self.leaf(by.draft("mandate", &id).with("sha256", row.sha256));
        self.state.mandates.insert(id, row);
        self.event(Event::Trust);
        Ok(())
    }

    fn command(&mut self, by: &By<'_>, c: v1::Command, sealed: Option<&[u8]>) -> Result<(), Refusal> {
        self.of_this_era(c.era)?;
        let id = CommandId::from_slice(&c.command_id).ok_or_else(|| Refusal::invalid("a command id has 16 bytes"))?;
        self.state.new_command(&id)?;
        if c.expect_rev != 0 && c.expect_rev != self.state.rev {
            return Err(Refusal::changed(format!("expected revision {}, it is {}", c.expect_rev, self.state.rev)));
        }
        if c.expires_at_ms <= self.at.0 {
            return Err(Refusal::changed("this command has expired; sign it again"));
        }
        let action = c.action.ok_or_else(|| Refusal::invalid("the command says nothing"))?;
        self.act(by, action, sealed)?;
        self.state.commands.insert(id, Millis(c.expires_at_ms));
        Ok(())
    }

    fn act(&mut self, by: &By<'_>, action: Action, sealed: Option<&[u8]>) -> Result<(), Refusal> {
        match action {
            Action::PutSecret(p) => self.put_secret(by, p, sealed),
            Action::DeleteSecret(d) => self.delete_secret(by, &d),
            Action::MintToken(t) => self.mint_token(by, t, sealed),
            Action::RevokeToken(t) => self.revoke_token(by, &t),
            Action::ApproveIdentity(a) => self.approve(by, &a),
            Action::RemoveNode(r) => self.remove_node(by, &r.id),
            Action::SetDrain(d) => self.set_drain(by, &d),
            Action::SetPlace(p) => self.set_place(by, p),
            Action::RemoveService(r) => self.remove_service(by, &r),
            Action::RevokeMandate(m) => self.revoke_mandate(by, &m.mandate_id),
            Action::RevokeGrant(g) => {
                let id = GrantId::from_slice(&g.grant_id).ok_or_else(|| Refusal::invalid("a grant id has 16 bytes"))?;
                if !self.state.grants.get(&id).is_some_and(|g| g.state.is_live()) {
                    return Err(Refusal::not_found("live grant", id));
                }
                self.leaf(by.draft("command", id).with("action", "revoke-grant"));
                self.revoke_grant(id, &by.actor, "revoked by an operator");
                Ok(())
            }
            Action::Lockdown(l) => self.set_lockdown(by, true, &l.reason),
            Action::Release(r) => self.set_lockdown(by, false, &r.reason),
            Action::ApprovePlacement(p) => self.approve_placement(by, &p),
            Action::QuarantineNode(q) => {
                let draft = by.draft("node.quarantine", &q.id).with("reason", q.reason);
                self.quarantine(&q.id, draft)
            }
            Action::ReleaseIdentity(r) => self.release_identity(by, &r),
            Action::AdmitVoter(a) => self.admit_voter(by, &a, sealed),
            Action::EvictVoter(e) => self.evict_voter(by, &e),
            Action::UnlockPrepare(u) => self.unlock_prepare(by, u),
            Action::UnlockFinalize(u) => self.unlock_finalize(by, &u),
            Action::AutolockOff(_) => self.autolock_off(by),
            Action::RotateKeyring(_) => self.order_keyring(by),
            Action::RotateDiskKeys(_) => self.order_disk_keys(by),
            Action::RotateRoot(r) => self.rotate_root(by, &r, sealed),
            Action::AbortRoot(a) => self.abort_root(by, &a),
            Action::InstallIssuer(i) => self.install_issuer(by, &i),
            Action::DenyDigest(d) => self.deny_digest(by, &d),
            Action::AllowDigest(a) => self.allow_digest(by, &a),
        }
    }

    fn mint_token(&mut self, by: &By<'_>, t: v1::MintToken, sealed: Option<&[u8]>) -> Result<(), Refusal> {
        let id = TokenId::from_slice(&t.token_id).ok_or_else(|| Refusal::invalid("a token id has 8 bytes"))?;
        if self.state.tokens.contains_key(&id) {
            return Err(Refusal::changed("this token exists already"));
        }
        let zone = Zone::parse(&t.zone).map_err(invalid)?;
        let mac = sealed.ok_or_else(|| Refusal::invalid("the sealed token key is missing"))?.to_vec();
        self.live_record(&mac)?;
        let row = TokenRow {
            // Orchestrators and voters always need an operator who names their key (protocol, token).
            approval: t.approval || t.role != "node",
            role: t.role,
            mac,
            uses_left: t.uses,
            expires: Millis(t.expires_at_ms),
            zone,
            labels: t.labels,
            minted_by: by.actor.clone(),
            revoked: false,
        };
        self.leaf(by.draft("token.mint", id).with("role", &row.role).with("uses", row.uses_left));
        self.state.tokens.insert(id, row);
        self.state.token_moved(id);
        Ok(())
    }

    fn revoke_token(&mut self, by: &By<'_>, t: &v1::RevokeToken) -> Result<(), Refusal> {
        let id = TokenId::from_slice(&t.token_id).ok_or_else(|| Refusal::invalid("a token id has 8 bytes"))?;
        self.state.tokens.get_mut(&id).ok_or_else(|| Refusal::not_found("token", id))?.revoked = true;
        self.leaf(by.draft("token.revoke", id));
        Ok(())
    }

    fn approve(&mut self, by: &By<'_>, a: &v1::ApproveIdentity) -> Result<(), Refusal> {
        let key =
            Digest::from_slice(&a.spki_sha256).ok_or_else(|| Refusal::invalid("a key fingerprint has 32 bytes"))?;
        if self.state.role_of(&a.id) == Some(Role::Vault) {
            return Err(Refusal::invalid(format!("{} is to be a voter: it is admitted, not approved", a.id)));
        }
        self.with_identity(&a.id, |row| match (&row.state, &row.applicant) {
            (IdentityState::Pending, Some((_, spki))) if *spki == key => {
                row.state = IdentityState::Ready;
                row.approved = Some(key);
                Ok(())
            }
            (IdentityState::Pending, _) => Err(Refusal::credential("it joined with another key than the one approved")),
            _ => Err(Refusal::changed("it does not wait for approval")),
        })?;
        self.leaf(by.draft("node.approve", &a.id).with("spki", key));
        Ok(())
    }

    fn approve_placement(&mut self, by: &By<'_>, p: &v1::ApprovePlacement) -> Result<(), Refusal> {
        let service = ServiceRef::of(&p.namespace, &p.service).map_err(invalid)?;
        let node = NodeId::parse(&p.node_id).map_err(invalid)?;
        if !self.state.services.get(&service).is_some_and(|s| s.active) {
            return Err(Refusal::not_found("service", &service));
        }
        if !self.state.identities.get(node.as_str()).is_some_and(|n| n.state != IdentityState::Removed) {
            return Err(Refusal::not_found("node", &node));
        }
        self.leaf(by.draft("command", &service).with("action", "approve-placement").with("node", &node));
        self.state.set_placement(&service, &node, Placement::Known);
        Ok(())
    }

    pub(super) fn remove_node(&mut self, by: &By<'_>, id: &str) -> Result<(), Refusal> {
        self.take_out(id, by.draft("node.remove", id), &by.actor)
    }

    /// Removes a node or an orchestrator for ever, with what was granted there; `leaf` says why.
    pub(super) fn take_out(&mut self, id: &str, leaf: Draft, actor: &str) -> Result<(), Refusal> {
        let node = NodeId::parse(id).map_err(invalid)?;
        self.with_identity(id, |row| {
            row.state = IdentityState::Removed;
            row.hpke.clear();
            Ok(())
        })?;
        self.leaf(leaf);
        let grants: Vec<GrantId> = self.state.grants_of_node(&node).map(|(g, _)| *g).collect();
        for g in grants {
            self.revoke_grant(g, actor, "its node was removed");
        }
        self.state.budgets.values_mut().for_each(|b| b.forget_node(&node));
        for nodes in self.state.placements.values_mut() {
            nodes.remove(&node);
        }
        self.revoke_identity(id);
        Ok(())
    }

    fn set_drain(&mut self, by: &By<'_>, d: &v1::SetDrain) -> Result<(), Refusal> {
        self.with_identity(&d.id, |row| match (row.state, d.drain) {
            (IdentityState::Ready, true) | (IdentityState::Draining, true) => {
                row.state = IdentityState::Draining;
                Ok(())
            }
            (IdentityState::Draining | IdentityState::Ready, false) => {
                row.state = IdentityState::Ready;
                Ok(())
            }
            (other, _) => Err(Refusal::changed(format!("it is {}", other.as_str()))),
        })?;
        self.leaf(by.draft("node.drain", &d.id).with("drain", d.drain));
        Ok(())
    }

    fn set_place(&mut self, by: &By<'_>, p: v1::SetPlace) -> Result<(), Refusal> {
        let zone = Zone::parse(&p.zone).map_err(invalid)?;
        let draft = by.draft("node.zone", &p.id).with("zone", &zone);
        self.with_identity(&p.id, |row| {
            row.zone = zone;
            row.labels = p.labels;
            Ok(())
        })?;
        self.leaf(draft);
        // Grants are on nodes; of an orchestrator's place nothing follows.
        for (grant, why) in NodeId::parse(&p.id).map(|n| self.state.displaced(&n)).unwrap_or_default() {
            self.revoke_grant(grant, &by.actor, why);
        }
        Ok(())
    }

    fn remove_service(&mut self, by: &By<'_>, r: &v1::RemoveService) -> Result<(), Refusal> {
        let name = ServiceRef::of(&r.namespace, &r.service).map_err(invalid)?;
        let rev = self.state.rev + 1;
        let row = self
            .state
            .services
            .get_mut(&name)
            .filter(|s| s.active)
            .ok_or_else(|| Refusal::not_found("service", &name))?;
        row.active = false;
        row.versions.clear();
        row.forget_slots(0);
        row.rev = rev;
        self.state.rev = rev;
        self.leaf(by.draft("service.remove", &name));
        let grants: Vec<GrantId> = self.state.grants_of_service(&name).map(|(g, _)| *g).collect();
        for g in grants {
            self.revoke_grant(g, &by.actor, "its service was removed");
        }
        self.state.placements.remove(&name);
        self.event(Event::Service(name));
        Ok(())
    }

    fn revoke_mandate(&mut self, by: &By<'_>, id: &str) -> Result<(), Refusal> {
        let id = MandateId::parse(id).map_err(invalid)?;
        self.state.mandates.get_mut(&id).ok_or_else(|| Refusal::not_found("mandate", &id))?.revoked = true;
        self.leaf(by.draft("mandate", &id).with("revoked", true));
        self.event(Event::Trust);
        Ok(())
    }

    fn set_lockdown(&mut self, by: &By<'_>, on: bool, reason: &str) -> Result<(), Refusal> {
        self.state.lockdown = on;
        self.leaf(by.draft(if on { "lockdown" } else { "release" }, "cluster").with("reason", reason));
        self.next_epoch();
        Ok(())
    }
}

/// Who caused it, by which statement.
pub(super) struct By<'a> {
    pub st: &'a v1::Statement,
    pub actor: String,
    /// Policies that permitted it; none where no policy was asked.
    pub policies: &'a [String],
    pub policy_version: u64,
}
impl By<'_> {
    pub fn draft(&self, kind: &'static str, subject: impl ToString) -> Draft {
        let draft = Draft::new(kind, self.actor.clone(), subject.to_string()).signed(self.st);
        if self.policies.is_empty() {
            return draft;
        }
        draft.with("policies", self.policies.join(",")).with("policy_version", self.policy_version)
    }
}

pub(super) fn invalid(e: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::InvalidInput, e.to_string())
}
