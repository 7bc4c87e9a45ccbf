//! Operators' statements: signatures, each signer's permission, thresholds, and what only the leader can add.

use super::grants::MOUNT;
use super::{Leader, bounds, prepared, unlock};
use crate::command::{Command, Submission};
use crate::entropy::Entropy;
use crate::held::Prepared;
use crate::refusal::{Code, Refusal};
use holdfast_policy::{
    NodeFacts, Operator, OperatorAct, OperatorFacts, OrchestratorFacts, Permit, SecretFacts, ServiceFacts, Target,
};
use holdfast_types::{Digest, NodeId, OperatorId, OrchId, SecretRef, ServiceRef, Zone, sha256};
use holdfast_wire::boxes;
use holdfast_wire::images::repository_of;
use holdfast_wire::statement::{Document, peek};
use holdfast_wire::{charter, specs, v1};
use prost::Message as _;
use v1::command::Action;

/// Longest secret value: 500 KiB.
pub const MAX_SECRET: usize = 500 << 10;

pub(super) fn invalid(e: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::InvalidInput, e.to_string())
}

/// What a statement wants, in the policy's words.
pub(super) struct Wish {
    act: OperatorAct,
    target: Target,
    /// The charter's threshold entry.
    threshold: &'static str,
    /// At least this many, whatever the charter says.
    at_least: usize,
}
impl Wish {
    pub(super) fn new(act: OperatorAct, target: Target) -> Self {
        Self { act, target, threshold: act.name(), at_least: 1 }
    }
}

/// Prepares an operator's Spec, Voucher, Mandate, Command or next Charter, or an Admin's word for a Bundle. `sealed_box` goes
/// with PutSecret, MintToken, and a RotateRoot that brings a key.
pub fn submit(
    leader: &Leader<'_>,
    st: &v1::Statement,
    sealed_box: &[u8],
    entropy: &mut Entropy,
) -> Result<Prepared<()>, Refusal> {
    let (st, behind, sealed) = match st.r#type.as_str() {
        v1::Voucher::TYPE => {
            let (publishers, st) = leader.voucher(st)?;
            (st, Behind::Publishers(publishers), None)
        }
        v1::Spec::TYPE => {
            let wish = leader.spec_wish(&peek(st)?)?;
            (st.clone(), leader.permitted::<v1::Spec>(st, &wish)?, None)
        }
        v1::Mandate::TYPE => {
            let wish = leader.mandate_wish(&peek(st)?)?;
            (st.clone(), leader.permitted::<v1::Mandate>(st, &wish)?, None)
        }
        v1::Charter::TYPE => {
            let behind = leader.admins(st)?;
            let next = leader.state.next_charter(st)?;
            (st.clone(), behind, leader.recovery_boxes(&next, entropy)?)
        }
        v1::Bundle::TYPE => (st.clone(), leader.approvers(st)?, None),
        v1::Command::TYPE => {
            let c: v1::Command = peek(st)?;
            leader.check_command(&c)?;
            let action = c.action.as_ref().ok_or_else(|| invalid("the command says nothing"))?;
            let wish = Wish { threshold: charter::entry(action), ..leader.wish(action)? };
            let behind = leader.permitted::<v1::Command>(st, &wish)?;
            (st.clone(), behind, leader.take_in(&c, action, sealed_box, entropy)?)
        }
        other => return Err(invalid(format!("statements of type {other} are not submitted here"))),
    };
    leader.check_news(&st)?;
    let submission = leader.submission(&st, behind, sealed);
    Ok(prepared(leader.now, entropy, Command::Submit(submission), ()))
}

/// Who stands behind a statement. LAW: a submission is made of this alone, so what an operator wants and nobody asked the
/// policy about does not compile (`a_signer_who_is_not_permitted_or_not_an_operator_does_not_count`).
pub(super) enum Behind {
    /// Operators, each with the policy's leave for what the statement wants.
    Operators(Vec<(String, Permit<Operator>)>),
    /// Publishers who vouch for an image: their word is looked at when something is to run, and is no act by itself.
    Publishers(Vec<String>),
}

impl Leader<'_> {
    fn submission(&self, st: &v1::Statement, behind: Behind, sealed: Option<Vec<u8>>) -> Submission {
        let (signers, policies, policy_version) = match behind {
            Behind::Operators(who) => {
                // All of them were asked about under the policies in force.
                let version = who.first().map_or(self.policies.version(), |(_, p)| p.policy_version());
                let (signers, permits): (Vec<String>, Vec<Permit<Operator>>) = who.into_iter().unzip();
                let mut policies: Vec<String> = permits.into_iter().flat_map(Permit::used).collect();
                policies.sort();
                policies.dedup();
                (signers, policies, version)
            }
            Behind::Publishers(who) => (who, Vec::new(), self.policies.version()),
        };
        Submission {
            statement: st.encode_to_vec(),
            signers,
            charter_version: self.state.charter.version,
            policy_version,
            policies,
            sealed,
        }
    }

    /// The operators whose signatures count, if each is permitted and there are enough of them.
    fn permitted<T: Document>(&self, st: &v1::Statement, wish: &Wish) -> Result<Behind, Refusal> {
        let (_, who) = self.state.signed_by_operators::<T>(st)?;
        self.behind(who, wish)
    }

    /// The Admins in force who put another charter in the place of theirs. Whoever else signed it counts by that one.
    fn admins(&self, st: &v1::Statement) -> Result<Behind, Refusal> {
        let (_, mut who) = self.state.signed_by_operators::<v1::Charter>(st)?;
        who.retain(|o| o.roles.iter().any(|r| r == charter::ADMIN));
        self.behind(who, &Wish::new(OperatorAct::PutCharter, Target::Cluster))
    }

    /// Admins who sign a Bundle in the place of roots. Whether they are enough is counted where all signatures are together.
    pub(super) fn approvers(&self, st: &v1::Statement) -> Result<Behind, Refusal> {
        self.state.with_approval(st, self.now)?;
        let (_, mut who) = self.state.signed_by_operators::<v1::Bundle>(st)?;
        who.retain(|o| o.roles.iter().any(|r| r == charter::ADMIN));
        self.permits(who, &Wish::new(OperatorAct::RotateRoot, Target::Cluster)).map(Behind::Operators)
    }

    fn permits(&self, who: Vec<v1::Operator>, wish: &Wish) -> Result<Vec<(String, Permit<Operator>)>, Refusal> {
        let mut permitted = Vec::new();
        for o in who {
            let facts = OperatorFacts {
                operator: OperatorId::parse(&o.id).map_err(invalid)?,
                roles: o.roles.clone(),
                owns: o.owns.clone(),
                act: wish.act,
                target: wish.target.clone(),
            };
            permitted.push((o.id, self.policies.decide_operator(&facts)?));
        }
        Ok(permitted)
    }

    fn behind(&self, who: Vec<v1::Operator>, wish: &Wish) -> Result<Behind, Refusal> {
        let permitted = self.permits(who, wish)?;
        let needed = charter::threshold(&self.state.charter, wish.threshold).max(wish.at_least);
        if permitted.len() < needed {
            let why = format!("{} needs {needed} operators, {} signed", wish.threshold, permitted.len());
            return Err(Refusal::new(Code::Threshold, why));
        }
        Ok(Behind::Operators(permitted))
    }

    fn check_command(&self, c: &v1::Command) -> Result<(), Refusal> {
        let cluster = self.state.cluster()?;
        if c.cluster_id != cluster.id.0 || c.era != cluster.era {
            return Err(Refusal::changed("this command is for another cluster or era"));
        }
        bounds::command(c, self.now)?;
        if c.expect_rev != 0 && c.expect_rev != self.state.rev {
            return Err(Refusal::changed(format!("expected revision {}, it is {}", c.expect_rev, self.state.rev)));
        }
        Ok(())
    }

    fn spec_wish(&self, spec: &v1::Spec) -> Result<Wish, Refusal> {
        let name = specs::check(spec, self.now).map_err(invalid)?;
        if spec.cluster_id != self.state.cluster()?.id.0 {
            return Err(Refusal::changed("this spec is for another cluster"));
        }
        self.state.check_denied(spec)?;
        for i in &spec.images {
            let digest = Digest::from_slice(&i.digest).ok_or_else(|| invalid("images are named by SHA-256 digest"))?;
            if self.state.publishers_of(&digest, &i.source).is_empty() {
                let (image, repository) = (digest.oci(), repository_of(&i.source));
                let why = format!("no publisher of the charter vouches for image {} ({image}) in {repository}", i.name);
                return Err(Refusal { policies: vec!["L0-publisher".into()], ..Refusal::new(Code::PolicyDenied, why) });
            }
        }
        for m in &spec.secrets {
            let r = SecretRef::parse(&m.name, &spec.namespace).map_err(invalid)?;
            let row = self.state.secrets.get(&r).ok_or_else(|| Refusal::not_found("secret", &r))?;
            if !reads(&row.readers, &name) {
                let why = format!(
                    "secret {r} may not be read by service {name}; its owner can add the service to its readers"
                );
                return Err(Refusal { policies: vec![MOUNT.into()], ..Refusal::new(Code::PolicyDenied, why) });
            }
        }
        let target = Target::Service(self.service_facts(&name, spec)?);
        let at_least = charter::deployers_needed(&self.state.charter, spec.sensitive || self.is_sensitive(&name));
        Ok(Wish { at_least, ..Wish::new(OperatorAct::Deploy, target) })
    }

    /// Whether any active version is sensitive: one deployer alone cannot sign that away.
    fn is_sensitive(&self, name: &ServiceRef) -> bool {
        let row = self.state.services.get(name).filter(|s| s.active);
        row.is_some_and(|s| s.versions.iter().filter_map(crate::SpecVersion::spec).any(|v| v.sensitive))
    }

    /// A service as the policy sees it: zones as signed, publishers as chartered.
    pub(crate) fn service_facts(&self, name: &ServiceRef, spec: &v1::Spec) -> Result<ServiceFacts, Refusal> {
        Ok(ServiceFacts {
            service: name.clone(),
            zones: spec.zones.iter().map(|z| Zone::parse(z)).collect::<Result<_, _>>().map_err(invalid)?,
            publishers: self.state.charter.publishers.iter().map(|p| p.id.clone()).collect(),
            sensitive: spec.sensitive,
            isolation: if spec.isolation.is_empty() { "default".to_owned() } else { spec.isolation.clone() },
        })
    }

    fn mandate_wish(&self, m: &v1::Mandate) -> Result<Wish, Refusal> {
        let c = self.state.cluster()?;
        if m.cluster_id != c.id.0 || m.era != c.era {
            return Err(Refusal::changed("this mandate is for another cluster or era"));
        }
        bounds::mandate(m, self.now)?;
        let first = m.orchestrators.first().map_or("", String::as_str);
        let orchestrator = OrchId::parse(first).map_err(invalid)?;
        for o in &m.orchestrators {
            if self.state.identities.get(o).is_none_or(|i| i.role != holdfast_types::Role::Orch) {
                return Err(Refusal::not_found("orchestrator", o));
            }
        }
        let facts = OrchestratorFacts {
            orchestrator,
            mandate_namespaces: m.namespaces.clone(),
            mandate_zones: m.zones.iter().map(|z| Zone::parse(z)).collect::<Result<_, _>>().map_err(invalid)?,
            mandate_live: true,
            holds_lease: false,
        };
        Ok(Wish::new(OperatorAct::PutMandate, Target::Orchestrator(facts)))
    }

    fn secret_target(&self, namespace: &str, name: &str) -> Result<Target, Refusal> {
        let secret = SecretRef::of(namespace, name).map_err(invalid)?;
        Ok(Target::Secret(SecretFacts { secret, readers: Vec::new(), zones: Vec::new(), attested_only: false }))
    }

    /// An active service, as its newest spec says.
    fn service_target(&self, namespace: &str, service: &str) -> Result<(ServiceRef, Target), Refusal> {
        let name = ServiceRef::of(namespace, service).map_err(invalid)?;
        let row = self.state.services.get(&name).filter(|s| s.active);
        let spec = row.and_then(|s| s.versions.last()).and_then(crate::SpecVersion::spec);
        let facts = self.service_facts(&name, spec.ok_or_else(|| Refusal::not_found("service", &name))?)?;
        Ok((name, Target::Service(facts)))
    }

    fn node_target(&self, id: &str) -> Result<Target, Refusal> {
        let machine = self.state.identities.get(id).filter(|i| i.role != holdfast_types::Role::Op);
        let row = machine.ok_or_else(|| Refusal::not_found("node", id))?;
        let id = NodeId::parse(id).map_err(invalid)?;
        let state = row.state.as_str().to_owned();
        Ok(Target::Node(NodeFacts { id, zone: row.zone.clone(), state, attested: false, status_fresh: true }))
    }

    fn wish(&self, action: &Action) -> Result<Wish, Refusal> {
        use OperatorAct as A;
        let cluster = |act| Ok(Wish::new(act, Target::Cluster));
        match action {
            Action::PutSecret(p) => {
                bounds::secret(p)?;
                Ok(Wish::new(A::PutSecret, self.secret_target(&p.namespace, &p.name)?))
            }
            Action::DeleteSecret(d) => Ok(Wish::new(A::DeleteSecret, self.secret_target(&d.namespace, &d.name)?)),
            Action::MintToken(t) => {
                bounds::token(t, self.now)?;
                cluster(A::MintToken)
            }
            Action::RevokeToken(_) => cluster(A::MintToken),
            Action::ApproveIdentity(a) => Ok(Wish::new(A::ApproveNode, self.node_target(&a.id)?)),
            Action::RemoveNode(r) => Ok(Wish::new(A::RemoveNode, self.node_target(&r.id)?)),
            Action::SetDrain(d) => Ok(Wish::new(A::SetZone, self.node_target(&d.id)?)),
            Action::SetPlace(p) => Ok(Wish::new(A::SetZone, self.node_target(&p.id)?)),
            Action::ReleaseIdentity(r) => Ok(Wish::new(A::ApproveNode, self.node_target(&r.id)?)),
            Action::QuarantineNode(q) => Ok(Wish::new(A::QuarantineNode, self.node_target(&q.id)?)),
            Action::RemoveService(r) => {
                let (name, target) = self.service_target(&r.namespace, &r.service)?;
                let at_least = if self.is_sensitive(&name) { 2 } else { 1 };
                Ok(Wish { at_least, ..Wish::new(A::Retire, target) })
            }
            Action::ApprovePlacement(p) => {
                Ok(Wish::new(A::ApprovePlacement, self.service_target(&p.namespace, &p.service)?.1))
            }
            Action::RevokeMandate(m) => {
                let facts = OrchestratorFacts {
                    orchestrator: OrchId::parse(&m.mandate_id).map_err(invalid)?,
                    mandate_namespaces: Vec::new(),
                    mandate_zones: Vec::new(),
                    mandate_live: true,
                    holds_lease: false,
                };
                Ok(Wish::new(A::PutMandate, Target::Orchestrator(facts)))
            }
            Action::AdmitVoter(_) => cluster(A::AdmitVoter),
            Action::EvictVoter(_) => cluster(A::EvictVoter),
            // Brakes on one task and on one program, as on everything: anyone with a role may pull them.
            Action::RevokeGrant(_) | Action::Lockdown(_) | Action::DenyDigest(_) => cluster(A::Lockdown),
            Action::Release(_) | Action::AllowDigest(_) => cluster(A::Release),
            Action::UnlockPrepare(p) => unlock::prepare_wish(p),
            Action::UnlockFinalize(_) | Action::AutolockOff(_) | Action::RotateDiskKeys(_) => Ok(unlock::slots_wish()),
            Action::RotateKeyring(_) => unlock::keyring_wish(self.state),
            Action::RotateRoot(r) => self.root_wish(r),
            Action::AbortRoot(a) => {
                self.state.may_abort_root(a)?;
                cluster(A::RotateRoot)
            }
            Action::InstallIssuer(i) => {
                self.state.check_installed(i, self.now)?;
                cluster(A::RotateRoot)
            }
        }
    }

    /// Opens what was boxed to the intake key and seals it under the keyring, bound to its path and revision.
    fn take_in(
        &self,
        c: &v1::Command,
        action: &Action,
        sealed_box: &[u8],
        entropy: &mut Entropy,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let (subject, rev, box_sha256, purpose) = match action {
            Action::PutSecret(p) => (format!("{}/{}", p.namespace, p.name), p.version, &p.box_sha256, "secret"),
            Action::MintToken(t) => (format!("token/{}", hex(&t.token_id)), 0, &t.box_sha256, "token"),
            Action::AdmitVoter(a) => return self.admission(a, entropy).map(Some),
            Action::RotateRoot(r) => return self.given_key(c, r, sealed_box, entropy),
            Action::DeleteSecret(_)
            | Action::EvictVoter(_)
            | Action::RevokeToken(_)
            | Action::ApproveIdentity(_)
            | Action::RemoveNode(_)
            | Action::SetDrain(_)
            | Action::SetPlace(_)
            | Action::RemoveService(_)
            | Action::RevokeMandate(_)
            | Action::RevokeGrant(_)
            | Action::Lockdown(_)
            | Action::Release(_)
            | Action::ApprovePlacement(_)
            | Action::QuarantineNode(_)
            | Action::ReleaseIdentity(_)
            | Action::UnlockPrepare(_)
            | Action::UnlockFinalize(_)
            | Action::AutolockOff(_)
            | Action::RotateDiskKeys(_)
            | Action::AbortRoot(_)
            | Action::InstallIssuer(_)
            | Action::DenyDigest(_)
            | Action::AllowDigest(_)
            | Action::RotateKeyring(_) => return Ok(None),
        };
        if sha256(&[sealed_box]).0 != box_sha256.as_slice() {
            return Err(Refusal::invalid("the sealed value is not the one that was signed"));
        }
        let aad = boxes::intake_aad(&subject, rev, &c.command_id);
        let value = self.opened_intake(&aad, sealed_box)?;
        if purpose == "secret" && holdfast_wire::padding::unpad(value.expose()).is_none_or(|v| v.len() > MAX_SECRET) {
            return Err(Refusal::invalid("a secret's value is padded and at most 500 KiB"));
        }
        if purpose == "token" && value.len() != 32 {
            return Err(Refusal::invalid("a token's key has 32 bytes"));
        }
        self.keys.seal(purpose, &subject, rev.max(1), value.expose(), entropy.draw("record")).map(Some)
    }
}

/// True if `readers` names `service`, by itself or by its namespace.
pub(crate) fn reads(readers: &[String], service: &ServiceRef) -> bool {
    readers
        .iter()
        .any(|r| *r == service.to_string() || r.strip_suffix("/*").is_some_and(|ns| ns == service.namespace.as_str()))
}

fn hex(id: &[u8]) -> String {
    holdfast_types::TokenId::from_slice(id).map_or_else(String::new, |t| t.hex())
}
