//! Decisions on a small shop: what is allowed by default, and what no rule can allow.

mod defaults;
mod must_deny;
mod scopes;
mod speed;
mod texts;

use crate::*;
use holdfast_types::{NodeId, OperatorId, OrchId, SecretRef, ServiceRef, Zone};

/// The most permissive L1 that can be written.
const PERMIT_ALL: &str = "permit(principal, action, resource);";

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|s| (*s).to_owned()).collect()
}
fn zones(texts: &[&str]) -> Vec<Zone> {
    texts.iter().map(|s| Zone::parse(s).unwrap()).collect()
}

fn orchestrator() -> OrchestratorFacts {
    OrchestratorFacts {
        orchestrator: OrchId::parse("orch-1").unwrap(),
        mandate_namespaces: strings(&["shop"]),
        mandate_zones: zones(&["eu"]),
        mandate_live: true,
        holds_lease: true,
    }
}
fn node() -> NodeFacts {
    NodeFacts {
        id: NodeId::parse("node-1").unwrap(),
        zone: Zone::parse("eu/pci").unwrap(),
        state: "ready".to_owned(),
        attested: false,
        status_fresh: true,
    }
}
fn service() -> ServiceFacts {
    ServiceFacts {
        service: ServiceRef::of("shop", "web").unwrap(),
        zones: zones(&["eu"]),
        publishers: strings(&["build"]),
        sensitive: false,
        isolation: "default".to_owned(),
    }
}
fn secret() -> SecretFacts {
    SecretFacts {
        secret: SecretRef::of("shop", "db-password").unwrap(),
        readers: strings(&["shop/web"]),
        zones: zones(&["eu/pci"]),
        attested_only: false,
    }
}
fn grant() -> GrantFacts {
    GrantFacts {
        orchestrator: orchestrator(),
        service: service(),
        node: node(),
        publishers: strings(&["build"]),
        spec_active: true,
        within_budget: true,
        wants_relaxed: false,
        lockdown: false,
    }
}
fn mount() -> MountFacts {
    MountFacts { service: service(), secret: secret(), node: node(), lockdown: false }
}
fn svid() -> SvidFacts {
    SvidFacts { node: node(), service: service(), live_grant_here: true, lockdown: false }
}
fn operator(roles: &[&str], owns: &[&str], act: OperatorAct, target: Target) -> OperatorFacts {
    OperatorFacts {
        operator: OperatorId::parse("ada").unwrap(),
        roles: strings(roles),
        owns: strings(owns),
        act,
        target,
    }
}
/// The kind of thing that the schema lets `act` be done to.
fn target_of(act: OperatorAct) -> Target {
    use OperatorAct as A;
    match act {
        A::Deploy | A::Retire | A::ApprovePlacement => Target::Service(service()),
        A::PutSecret | A::RotateSecret | A::DeleteSecret => Target::Secret(secret()),
        A::ApproveNode | A::SetZone | A::RemoveNode | A::QuarantineNode => Target::Node(node()),
        A::PutMandate => Target::Orchestrator(orchestrator()),
        A::PutPolicy
        | A::RotateRoot
        | A::RotateUnlock
        | A::RotateKeyring
        | A::AdmitVoter
        | A::EvictVoter
        | A::MintToken
        | A::Release
        | A::PutCharter
        | A::Lockdown
        | A::Seal
        | A::ReadAudit => Target::Cluster,
    }
}
