//! What is known about things, as messages for operators and orchestrators. Never a secret, never a record.

use crate::state::{GrantRow, Identity, SpecVersion, State, VoterRow, VoterState};
use holdfast_types::{Digest, GrantId, Millis, OrchId, Role, SecretRef, ServiceRef, TokenId, VoterId};
use holdfast_wire::v1;

impl State {
    /// An identity, as the directory shows it. `connected` is the leader's observation.
    pub fn node_view(&self, id: &str, connected: bool) -> Option<v1::NodeView> {
        self.identities.get(id).filter(|i| i.role != Role::Op).map(|i| node_view(id, i, connected))
    }
    /// The same as operators see it at `now`: an identity whose certificates are over is `expired`.
    pub fn node_view_at(&self, id: &str, connected: bool, now: Millis) -> Option<v1::NodeView> {
        let row = self.identities.get(id)?;
        let state = row.shown_state(now).to_owned();
        self.node_view(id, connected).map(|v| v1::NodeView { state, ..v })
    }
    /// Ids of all nodes and orchestrators, removed ones included. Who waits to become a voter is neither: see
    /// [`Self::applicants`].
    pub fn machine_ids(&self) -> impl Iterator<Item = &str> {
        self.identities.iter().filter(|(_, i)| !matches!(i.role, Role::Op | Role::Vault)).map(|(id, _)| id.as_str())
    }
    /// The voters as committed state knows them, evicted ones included: `evicted`, `joining` until it said something of
    /// itself, or `unknown`. Who leads and who follows is the leader's to say.
    pub fn voter_views(&self) -> Vec<v1::VoterView> {
        self.all_voters().map(|(id, v)| voter_view(id, v)).collect()
    }
    /// Who joined with a voter's token and waits to be admitted.
    pub fn applicants(&self) -> Vec<v1::NodeView> {
        let waiting = self.applicant_rows().filter(|(_, i)| i.state == crate::IdentityState::Pending);
        waiting.map(|(id, i)| node_view(id, i, false)).collect()
    }
    /// Role of an identity.
    pub fn role_of(&self, id: &str) -> Option<Role> {
        self.identities.get(id).map(|i| i.role)
    }
    /// The roots that an identity's certificates are under, the one in use and the one that it was offered.
    pub fn roots_of(&self, id: &str) -> Vec<Digest> {
        let row = self.identities.get(id);
        row.into_iter().flat_map(|i| i.certificate().into_iter().chain(&i.pending)).map(|c| c.root).collect()
    }
    /// A service with its active specs and the vouchers they need; `None` once removed.
    pub fn service_view(&self, name: &ServiceRef) -> Option<v1::ServiceView> {
        let row = self.services.get(name).filter(|s| s.active)?;
        Some(v1::ServiceView {
            namespace: name.namespace.to_string(),
            service: name.name.to_string(),
            versions: row.versions.iter().map(|v| self.version_view(v)).collect(),
            rev: row.rev,
            removing: false,
            done: row.done.iter().copied().collect(),
        })
    }
    /// The last version number that a service ever had; 0 if it never existed.
    pub fn last_version(&self, name: &ServiceRef) -> u64 {
        self.services.get(name).map_or(0, |s| s.last_version)
    }
    fn version_view(&self, v: &SpecVersion) -> v1::ServiceVersion {
        let digests = v.spec().into_iter().flat_map(|s| &s.images).filter_map(|i| Digest::from_slice(&i.digest));
        let vouchers = digests
            .flat_map(|d| self.vouchers.get(&d).cloned().unwrap_or_default())
            .filter_map(|b| crate::Command::statement(&b));
        v1::ServiceVersion {
            version: v.version,
            spec: crate::Command::statement(&v.statement),
            vouchers: vouchers.collect(),
            spec_sha256: v.sha256.to_vec(),
        }
    }
    /// Names of all services that are not removed.
    pub fn service_names(&self) -> impl Iterator<Item = &ServiceRef> {
        self.services.iter().filter(|(_, s)| s.active).map(|(n, _)| n)
    }
    /// A grant, as the directory shows it.
    pub fn grant_view(&self, id: &GrantId) -> Option<v1::GrantView> {
        self.grants.get(id).map(|g| grant_view(id, g))
    }
    /// All secrets, without values.
    pub fn secret_views(&self) -> Vec<v1::SecretView> {
        let view = |(name, s): (&SecretRef, &crate::SecretRow)| v1::SecretView {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            version: s.version.number,
            readers: s.readers.clone(),
            zones: s.zones.iter().map(ToString::to_string).collect(),
            attested_only: s.attested_only,
            created_at_ms: s.created.0,
            updated_at_ms: s.version.at.0,
            deleted: false,
        };
        self.secrets.iter().map(|(name, row)| (name, &**row)).map(view).collect()
    }
    /// What is left of a deleted secret: its last version, which the next one must follow.
    pub fn deleted_secret_view(&self, name: &SecretRef) -> Option<v1::SecretView> {
        self.deleted_secrets.get(name).map(|version| v1::SecretView {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            version: *version,
            deleted: true,
            ..Default::default()
        })
    }
    /// All join tokens, without secrets.
    pub fn token_views(&self) -> Vec<v1::TokenView> {
        let view = |(id, t): (&TokenId, &crate::TokenRow)| v1::TokenView {
            token_id: id.to_vec(),
            role: t.role.clone(),
            expires_at_ms: t.expires.0,
            uses_left: t.uses_left,
            zone: t.zone.to_string(),
            labels: t.labels.clone(),
            minted_by: t.minted_by.clone(),
            revoked: t.revoked,
        };
        self.tokens.iter().map(view).collect()
    }
    /// All mandates.
    pub fn mandate_views(&self) -> Vec<v1::MandateView> {
        let view = |m: &crate::MandateRow| v1::MandateView {
            mandate: crate::Command::statement(&m.statement).and_then(|s| holdfast_wire::statement::peek(&s).ok()),
            revoked: m.revoked,
            sha256: m.sha256.to_vec(),
        };
        self.mandates.values().map(view).collect()
    }
    /// All leases, ended ones included.
    pub fn lease_views(&self) -> Vec<v1::LeaseState> {
        let view = |(ns, l): (&holdfast_types::Namespace, &crate::Lease)| v1::LeaseState {
            namespace: ns.to_string(),
            fence: l.fence,
            until_ms: l.until.0,
            holder: l.orch.to_string(),
        };
        self.leases.iter().map(view).collect()
    }
    /// Orchestrators that hold a lease now, with the address that nodes dial.
    pub fn orchestrators(&self, now: Millis) -> Vec<v1::OrchestratorAddr> {
        let of = |id: &str| {
            let held = self.leases.iter().filter(|(_, l)| l.orch.as_str() == id && l.until > now);
            held.map(|(ns, _)| ns.to_string()).collect::<Vec<_>>()
        };
        // Asked for each node that connects: their ids stand together, so that the fleet is not searched for them.
        let named =
            self.identities.range(OrchId::PREFIX.to_owned()..).take_while(|(id, _)| id.starts_with(OrchId::PREFIX));
        let ready = named.filter(|(_, i)| i.role == Role::Orch && i.state == crate::IdentityState::Ready);
        ready
            .filter(|(_, i)| !i.session_addr.is_empty())
            .map(|(id, i)| v1::OrchestratorAddr {
                orch_id: id.clone(),
                addr: i.session_addr.clone(),
                namespaces: of(id),
            })
            .collect()
    }
    /// Where nodes find an orchestrator; empty if it has not said.
    pub fn session_addr(&self, orch: &OrchId) -> String {
        self.identities.get(orch.as_str()).map_or_else(String::new, |i| i.session_addr.clone())
    }
    /// Leases of one orchestrator that are live at `now`.
    pub fn leases_of(&self, orch: &str, now: Millis) -> Vec<v1::LeaseState> {
        self.lease_views().into_iter().filter(|l| l.holder == orch && l.until_ms > now.0).collect()
    }
    /// Namespaces that an orchestrator may schedule and does not hold at `now`: who held them last, and until when.
    pub fn leases_of_others(&self, orch: &OrchId, now: Millis) -> Vec<v1::LeaseState> {
        let other = |ns: holdfast_types::Namespace| {
            let last = self.leases.get(&ns);
            let own = last.is_some_and(|l| l.orch == *orch && l.until > now);
            (!own).then(|| v1::LeaseState {
                namespace: ns.to_string(),
                fence: last.map_or(0, |l| l.fence),
                until_ms: last.map_or(0, |l| l.until.0),
                holder: last.map(|l| l.orch.to_string()).unwrap_or_default(),
            })
        };
        self.leasable(orch, now).into_iter().filter_map(other).collect()
    }
    /// The part of a status document that committed state knows.
    pub fn status_view(&self, now: Millis) -> v1::StatusView {
        let mut counts = std::collections::BTreeMap::<&str, u64>::new();
        for i in self.identities.values().filter(|i| i.role == Role::Node) {
            *counts.entry(i.shown_state(now)).or_default() += 1;
        }
        v1::StatusView {
            cluster_id: self.cluster_id().map(|c| c.0.to_vec()).unwrap_or_default(),
            trust_domain: self.trust_domain().map(ToString::to_string).unwrap_or_default(),
            nodes: counts.into_iter().map(|(state, count)| v1::NodeCount { state: state.to_owned(), count }).collect(),
            roots: self.roots.iter().map(|r| self.root_view(r, now)).collect(),
            autolock: self.autolock(),
            era: self.era(),
            epoch: self.epoch,
            log_size: self.log_size,
            lockdown: self.lockdown,
            leases: self.lease_views(),
            orchestrators: self.orchestrators(now),
            services: self.service_names().count() as u64,
            secrets: self.secrets.len() as u64,
            live_grants: self.index.live,
            voters: self.voters().map(|(id, v)| voter_view(id, v)).collect(),
            ..Default::default()
        }
    }
}

fn voter_view(id: VoterId, v: &VoterRow) -> v1::VoterView {
    let state = match v.state {
        VoterState::Evicted => "evicted",
        VoterState::Member if v.has_been_up() => "unknown",
        VoterState::Member => "joining",
    };
    v1::VoterView {
        id: id.0,
        state: state.to_owned(),
        service_addr: v.service_addr.clone(),
        join_addr: v.join_addr.clone(),
        peer_addr: v.peer_addr.clone(),
        unlock_epoch: v.unlock_epoch,
        disk_key_order: v.disk_key_order,
        keyring_term: v.terms.iter().map(|(t, _)| *t).max().unwrap_or(0),
        recovery_version: v.recovery_version,
        ..Default::default()
    }
}

fn node_view(id: &str, i: &Identity, connected: bool) -> v1::NodeView {
    let (cur, pend) = (i.certificate(), i.pending.as_ref());
    let applicant = i.applicant.as_ref().map(|(_, spki)| spki.to_vec());
    v1::NodeView {
        id: id.to_owned(),
        state: i.state.as_str().to_owned(),
        zone: i.zone.to_string(),
        labels: i.labels.clone(),
        seq: cur.map_or(0, |c| c.seq),
        serial: cur.map(|c| c.serial.clone()).unwrap_or_default(),
        spki_sha256: cur.map(|c| c.spki.to_vec()).or(applicant).unwrap_or_default(),
        pending_serial: pend.map(|c| c.serial.clone()).unwrap_or_default(),
        pending_spki_sha256: pend.map(|c| c.spki.to_vec()).unwrap_or_default(),
        not_after_ms: cur.map_or(0, |c| c.not_after.0),
        connected,
        joined_at_ms: i.joined.0,
        role: match i.role {
            Role::Orch => "orchestrator",
            Role::Vault => "voter",
            Role::Node | Role::Op | Role::Svc => "node",
        }
        .to_owned(),
        rev: i.rev,
    }
}

fn grant_view(id: &GrantId, g: &GrantRow) -> v1::GrantView {
    v1::GrantView {
        grant_id: id.to_vec(),
        namespace: g.service.namespace.to_string(),
        service: g.service.name.to_string(),
        version: g.version,
        node_id: g.node.to_string(),
        task_id: g.task.to_string(),
        task_gen: g.task_gen,
        state: g.state.as_str().to_owned(),
        task_state: g.task_state.clone(),
        exit_code: g.exit_code,
        detail: g.detail.clone(),
        issued_at_ms: g.issued.0,
        lease_until_ms: g.lease_until.0,
        orch_id: g.orch.to_string(),
        secrets: g
            .secrets
            .iter()
            .map(|(name, version)| v1::GrantSecret { name: name.clone(), version: *version, ..Default::default() })
            .collect(),
        restarts: g.restarts,
        grant_sha256: g.sha256.to_vec(),
        leaf_index: g.leaf,
        protected: g.protected,
        template: g.template.to_vec(),
    }
}
