//! Grants: look everything up by id, ask the policy, box the secrets, sign; all of it held until the commit.

use super::Leader;
use super::grant_batch::{GrantReply, Shared};
use super::grant_parts::{grant_image, vouching};
use super::submit::reads;
use crate::command::GrantFact;
use crate::entropy::Entropy;
use crate::refusal::{Code, Refusal};
use crate::state::{Identity, MandateRow, SecretRow, SpecVersion};
use holdfast_policy::{
    Grant, GrantFacts, Mount, MountFacts, NodeFacts, OrchestratorFacts, Permit, SecretFacts, ServiceFacts,
};
use holdfast_types::{Digest, GrantId, MandateId, NodeId, OrchId, Role, SecretRef, ServiceRef, TaskId, sha256};
use holdfast_wire::boxes::{self, Context};
use holdfast_wire::keys::{StatementSigner, key_id};
use holdfast_wire::{specs, statement, v1};

/// The rule that a node has the labels that a spec wants. It is applied here, where both are looked up, and stands beside
/// the built-in ones of `policy/src/text/l0.cedar`: no replaceable policy can take its name or permit past it.
const NODE_LABEL: &str = "L0-node-label";
/// The policy that would have to permit a secret to be mounted.
pub(super) const MOUNT: &str = "L1-mount";
/// How old a node's Status may be when it starts a task.
const MAX_STATUS_AGE_S: u32 = 600;

/// Everything that was looked up for one grant.
struct Looked<'a> {
    service: ServiceRef,
    version: &'a SpecVersion,
    spec: &'a v1::Spec,
    /// By image of the spec, who vouches for it.
    publishers: Vec<Vec<String>>,
    node_id: NodeId,
    node: &'a Identity,
    mandate_id: MandateId,
    mandate: &'a MandateRow,
    fence: u64,
    task: TaskId,
    secrets: Vec<(SecretRef, &'a SecretRow)>,
    node_facts: NodeFacts,
}

/// A secret that the task may be given. LAW: it is boxed by taking the policy's leave, so what nobody asked about is boxed
/// nowhere (`a_secret_that_no_longer_lists_the_service_is_refused_by_name`).
struct Mountable<'l> {
    name: &'l SecretRef,
    row: &'l SecretRow,
    permit: Permit<Mount>,
}

/// The part of a grant that says what was boxed, the boxes, and the policies that permitted them.
struct Boxed {
    grant: v1::Grant,
    boxes: Vec<Vec<u8>>,
    policies: Vec<String>,
}

impl<'a> Leader<'a> {
    pub(super) fn one(
        &self,
        stk: &dyn StatementSigner,
        orch: &OrchId,
        r: &v1::GrantRequest,
        fresh: &dyn Fn(&NodeId) -> bool,
        batch: &mut Shared,
        entropy: &mut Entropy,
    ) -> Result<(GrantFact, GrantReply), Refusal> {
        let l = self.look_up(orch, r, fresh, batch)?;
        let service = self.service_facts(&l.service, l.spec)?;
        let permit = self.may_grant(orch, &l, &service)?;
        let secrets = self.may_mount(&l, &service)?;
        let task_gen = match batch.gens.get(&l.task) {
            Some(g) => g + 1,
            None => self.state.last_gen(&l.task) + 1,
        };
        let id = GrantId(entropy.draw16("grant"));
        let Boxed { grant, boxes, mut policies } = self.boxed(&l, id, secrets, entropy)?;
        let (grant, permitted_by) = self.document(permit, grant, &l, orch, task_gen, r)?;
        policies.extend(permitted_by);
        policies.sort();
        policies.dedup();
        let signed = statement::sign(&grant, &[stk]).map_err(|e| Refusal::new(Code::Unavailable, e.to_string()))?;
        let fact = GrantFact {
            id,
            sha256: sha256(&[&signed.payload]),
            task: l.task.clone(),
            task_gen,
            node: l.node_id,
            node_rev: l.node.rev,
            version: l.version.version,
            spec_sha256: l.version.sha256,
            secrets: l.secrets.iter().map(|(n, s)| (n.to_string(), s.version.number)).collect(),
            fence: l.fence,
            mandate: l.mandate_id,
            start_before: holdfast_types::Millis(grant.start_before_ms),
            lease_until: holdfast_types::Millis(grant.lease_until_ms),
            protected: grant.protected,
            life_ms: grant.lease_until_ms - grant.issued_at_ms,
            grace_ms: i64::from(grant.grace_s) * 1000,
            policies,
            policy_version: grant.policy_version,
        };
        batch.gens.insert(l.task, task_gen);
        Ok((fact, GrantReply::Issued { id, grant: signed, boxes }))
    }

    fn look_up(
        &self,
        orch: &OrchId,
        r: &v1::GrantRequest,
        fresh: &dyn Fn(&NodeId) -> bool,
        batch: &mut Shared,
    ) -> Result<Looked<'a>, Refusal> {
        let bad = |e: &dyn std::fmt::Display| Refusal::invalid(e.to_string());
        let service = ServiceRef::of(&r.namespace, &r.service).map_err(|e| bad(&e))?;
        let node_id = NodeId::parse(&r.node_id).map_err(|e| bad(&e))?;
        let task = TaskId::parse(&r.task_id).map_err(|e| bad(&e))?;
        if task.service().ok().as_ref() != Some(&service) {
            return Err(Refusal::invalid("the task is not one of this service"));
        }
        let row = self
            .state
            .services
            .get(&service)
            .filter(|s| s.active)
            .ok_or_else(|| Refusal::not_found("service", &service))?;
        if row.done.contains(&task.slot()) {
            return Err(Refusal::changed(format!("task {task} has done its work, and is not to be started again")));
        }
        let wanted = |v: &&SpecVersion| r.version == 0 || v.version == r.version;
        let version = row.versions.iter().rev().find(wanted);
        let inactive = || Refusal {
            policies: vec!["L0-spec-active".into()],
            ..Refusal::new(Code::PolicyDenied, "this version of the spec is not active")
        };
        let version = version.ok_or_else(inactive)?;
        let spec = version.spec().ok_or_else(|| Refusal::corrupt("spec"))?;
        self.state.check_denied(spec)?;
        let node = self
            .state
            .identity(node_id.as_str())
            .filter(|n| n.role == Role::Node)
            .ok_or_else(|| Refusal::not_found("node", &node_id))?;
        if let Some(label) = spec.node_labels.iter().find(|l| !node.labels.contains(l)) {
            let why = format!("the spec wants nodes labelled {label}; node {node_id} is not");
            return Err(Refusal { policies: vec![NODE_LABEL.into()], ..Refusal::new(Code::PolicyDenied, why) });
        }
        let (mandate_id, mandate) = self.mandate(orch, &service, node)?;
        let lease = self.state.leases.get(&service.namespace).filter(|l| l.orch == *orch && l.until > self.now);
        let lacks = || Refusal {
            policies: vec!["L0-lease".into()],
            ..Refusal::new(Code::PolicyDenied, "this orchestrator does not hold the namespace's lease")
        };
        let fence = lease.ok_or_else(lacks)?.fence;
        let find = |m: &v1::SecretMount| {
            let name = SecretRef::parse(&m.name, &spec.namespace).map_err(|e| Refusal::invalid(e.to_string()))?;
            let row = self.state.secret(&name).ok_or_else(|| Refusal::not_found("secret", &name))?;
            Ok::<_, Refusal>((name, row))
        };
        let secrets = spec.secrets.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let node_facts = NodeFacts {
            id: node_id.clone(),
            zone: node.zone.clone(),
            state: node.state.as_str().to_owned(),
            attested: false,
            status_fresh: fresh(&node_id),
        };
        let publishers = spec.images.iter().map(|i| self.vouchers(i, batch)).collect();
        Ok(Looked {
            service,
            version,
            spec,
            publishers,
            node_id,
            node,
            mandate_id,
            mandate,
            fence,
            task,
            secrets,
            node_facts,
        })
    }

    /// The live mandate that covers this namespace and node, or the one that comes closest, for the policy to judge.
    fn mandate(
        &self,
        orch: &OrchId,
        service: &ServiceRef,
        node: &Identity,
    ) -> Result<(MandateId, &'a MandateRow), Refusal> {
        let covers = |m: &MandateRow| {
            let ns = m.namespaces.iter().any(|n| n == "*" || n == service.namespace.as_str());
            (self.live(m), ns, m.zones.iter().any(|z| node.zone.within(z)))
        };
        let mine = self.state.mandates.iter().filter(|(_, m)| m.orchestrators.contains(orch));
        let best = mine.max_by_key(|(_, m)| covers(m)).map(|(id, m)| (id.clone(), m));
        best.ok_or_else(|| {
            Refusal::new(
                Code::PolicyDenied,
                "no mandate names this orchestrator; an operator gives one with: holdfast mandate put",
            )
        })
    }
    fn live(&self, m: &MandateRow) -> bool {
        !m.revoked && self.now < m.not_after
    }

    /// Asks the policy whether the task may be started there.
    fn may_grant(&self, orch: &OrchId, l: &Looked<'_>, service: &ServiceFacts) -> Result<Permit<Grant>, Refusal> {
        let named: Vec<_> = l.secrets.iter().map(|(n, s)| (n.to_string(), s.version.number)).collect();
        let budget = self.state.within_budget(&l.mandate_id, &l.task, l.spec, &l.node_id, &named, self.now);
        let facts = GrantFacts {
            orchestrator: OrchestratorFacts {
                orchestrator: orch.clone(),
                mandate_namespaces: l.mandate.namespaces.clone(),
                mandate_zones: l.mandate.zones.clone(),
                mandate_live: self.live(l.mandate),
                holds_lease: true,
            },
            service: service.clone(),
            node: l.node_facts.clone(),
            publishers: vouching(&l.publishers),
            spec_active: l.spec.valid_until_ms > self.now.0,
            within_budget: budget.is_ok(),
            wants_relaxed: l.spec.isolation == "relaxed",
            lockdown: self.state.lockdown,
        };
        self.policies.decide_grant(&facts).map_err(|r| match &budget {
            Err(b) if r.policies.iter().any(|p| p == "L0-budget") => b.clone(),
            Err(_) | Ok(()) => r.into(),
        })
    }

    /// Asks the policy about each secret, in the order of the spec.
    fn may_mount<'l>(&self, l: &'l Looked<'_>, service: &ServiceFacts) -> Result<Vec<Mountable<'l>>, Refusal> {
        let mut all = Vec::new();
        for (name, row) in &l.secrets {
            let secret = SecretFacts {
                secret: name.clone(),
                readers: row.readers.clone(),
                zones: row.zones.clone(),
                attested_only: row.attested_only,
            };
            let facts = MountFacts {
                service: service.clone(),
                secret,
                node: l.node_facts.clone(),
                lockdown: self.state.lockdown,
            };
            let permit = self.policies.decide_mount(&facts);
            let permit = permit.map_err(|r| mount_refusal(r, name, row, &l.service))?;
            all.push(Mountable { name, row, permit });
        }
        Ok(all)
    }

    /// Publishers who vouch for an image of a spec.
    fn vouchers(&self, i: &v1::SpecImage, batch: &mut Shared) -> Vec<String> {
        let Some(digest) = Digest::from_slice(&i.digest) else { return Vec::new() };
        let found = || self.state.publishers_of(&digest, &i.source);
        batch.publishers.entry((digest, i.source.clone())).or_insert_with(found).clone()
    }

    /// Boxes each secret to the node's key of this renewal period, in PSK mode.
    fn boxed(
        &self,
        l: &Looked<'_>,
        id: GrantId,
        secrets: Vec<Mountable<'_>>,
        entropy: &mut Entropy,
    ) -> Result<Boxed, Refusal> {
        let cluster = self.state.cluster()?.id;
        let to = l.node.recipient().ok_or_else(|| Refusal::changed("the node has no key to box to"))?;
        let psk = self.keys.node_psk(to.term, &l.node_id, to.seq)?;
        let (mut refs, mut boxes_out, mut policies) = (Vec::new(), Vec::new(), Vec::new());
        for (Mountable { name, row, permit }, mount) in secrets.into_iter().zip(&l.spec.secrets) {
            policies.extend(permit.used());
            let path = name.to_string();
            let value = self.keys.open("secret", &path, row.version.number, &row.version.record)?;
            let aad = boxes::secret_aad(&id.0, &path, row.version.number, l.node_id.as_str(), to.seq);
            let c = Context { purpose: "secret", cluster: &cluster, aad: &aad };
            let b = boxes::seal(&to.pk, &c, Some(&psk), value.expose(), entropy.draw("box"))
                .map_err(|e| Refusal::invalid(e.to_string()))?;
            refs.push(v1::GrantSecret {
                name: path,
                version: row.version.number,
                target: mount.target.clone(),
                mode: mount.mode,
                uid: mount.uid,
                gid: mount.gid,
                box_sha256: sha256(&[&b]).to_vec(),
            });
            boxes_out.push(b);
        }
        let grant = v1::Grant {
            grant_id: id.to_vec(),
            secrets: refs,
            node_seq: to.seq,
            hpke_kid: key_id(&to.pk).to_vec(),
            ..Default::default()
        };
        Ok(Boxed { grant, boxes: boxes_out, policies })
    }

    /// The whole grant, ready to be signed, and the policies that permitted it: the leave to start the task ends in it.
    fn document(
        &self,
        permit: Permit<Grant>,
        mut g: v1::Grant,
        l: &Looked<'_>,
        orch: &OrchId,
        task_gen: u64,
        r: &v1::GrantRequest,
    ) -> Result<(v1::Grant, Vec<String>), Refusal> {
        let c = self.state.cluster()?;
        specs::check_params(&r.params, &l.spec.params).map_err(|e| Refusal::invalid(e.to_string()))?;
        g.cluster_id = c.id.0.to_vec();
        g.era = c.era;
        g.orch_id = orch.to_string();
        g.namespace = l.service.namespace.to_string();
        g.fence = l.fence;
        g.mandate_sha256 = l.mandate.sha256.to_vec();
        g.node_id = l.node_id.to_string();
        g.task_id = l.task.to_string();
        g.task_gen = task_gen;
        g.service = l.service.name.to_string();
        g.service_version = l.version.version;
        g.spec_sha256 = l.version.sha256.to_vec();
        g.images = l.spec.images.iter().zip(&l.publishers).map(grant_image).collect();
        g.params = r.params.clone();
        g.exclusive = l.spec.exclusive;
        g.protected = l.spec.protected;
        g.issued_at_ms = self.now.0;
        let life = if l.spec.exclusive { self.lives.exclusive } else { self.lives.grant };
        // An exclusive task is replaced when its lease is over: it must not start after that.
        g.start_before_ms = self.now.plus(self.lives.start_before.min(life)).0;
        g.lease_until_ms = self.now.plus(life).0;
        g.grace_s = if l.spec.exclusive { 0 } else { u32::try_from(self.lives.grace.as_secs()).unwrap_or(u32::MAX) };
        g.on_expiry = l.spec.on_expiry.clone();
        g.policy_version = permit.policy_version();
        g.max_status_age_s = MAX_STATUS_AGE_S;
        Ok((g, permit.used()))
    }
}

/// Nothing permits a foreign secret, so Cedar names no policy: name the one that would have had to permit it.
fn mount_refusal(r: holdfast_policy::Refusal, name: &SecretRef, row: &SecretRow, service: &ServiceRef) -> Refusal {
    let mut refusal = Refusal::from(r);
    if refusal.policies.is_empty() && !reads(&row.readers, service) {
        refusal.policies.push(MOUNT.to_owned());
    }
    refusal.reason = format!("service {service} may not read secret {name}: {}", refusal.reason);
    refusal
}
