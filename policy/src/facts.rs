//! What the vault looked up before it asks: plain data, one struct per act.
//!
//! Sets are taken literally: an empty set allows nobody. Whoever reads "empty means everywhere" in a signed document
//! writes `*` here. A text that is no valid name matches nothing.

use holdfast_types::{NodeId, OperatorId, OrchId, SecretRef, ServiceRef, Zone};

/// An orchestrator, with what its mandate and lease say now.
#[derive(Debug, Clone)]
pub struct OrchestratorFacts {
    /// The orchestrator.
    pub orchestrator: OrchId,
    /// Namespaces of its mandate; `*` covers all.
    pub mandate_namespaces: Vec<String>,
    /// Zones of its mandate; each covers the zones nested in it.
    pub mandate_zones: Vec<Zone>,
    /// The mandate is neither expired nor revoked and is of this era.
    pub mandate_live: bool,
    /// It holds the namespace's lease with the current fence.
    pub holds_lease: bool,
}

/// A node as it is registered.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The node.
    pub id: NodeId,
    /// Where it stands; a node that was given no zone stands in `*`, which lies in no other zone.
    pub zone: Zone,
    /// `pending`, `ready`, `draining`, `quarantined` or `removed`.
    pub state: String,
    /// It joined with hardware attestation.
    pub attested: bool,
    /// Its last report is younger than the vault's bound.
    pub status_fresh: bool,
}

/// A service as its current spec says.
#[derive(Debug, Clone)]
pub struct ServiceFacts {
    /// The service.
    pub service: ServiceRef,
    /// Zones in which it may run.
    pub zones: Vec<Zone>,
    /// Publishers whose word is accepted for its images.
    pub publishers: Vec<String>,
    /// Two deployers are needed, and a first placement is approved.
    pub sensitive: bool,
    /// `default` or `relaxed`.
    pub isolation: String,
}

/// A secret's rules; never its value.
#[derive(Debug, Clone)]
pub struct SecretFacts {
    /// The secret.
    pub secret: SecretRef,
    /// Services that may mount it: `namespace/name`, or `namespace/*` for every service of the namespace.
    pub readers: Vec<String>,
    /// Zones to whose nodes it may be boxed.
    pub zones: Vec<Zone>,
    /// It may go to attested nodes alone.
    pub attested_only: bool,
}

/// May this orchestrator have this service started on this node?
#[derive(Debug, Clone)]
pub struct GrantFacts {
    /// Who asks.
    pub orchestrator: OrchestratorFacts,
    /// What is to run.
    pub service: ServiceFacts,
    /// Where.
    pub node: NodeFacts,
    /// Who vouched for every image digest of the spec.
    pub publishers: Vec<String>,
    /// The spec's hash is a current version of the service.
    pub spec_active: bool,
    /// Rate, concurrency and novelty budgets have room.
    pub within_budget: bool,
    /// The spec asks for relaxed isolation.
    pub wants_relaxed: bool,
    /// The cluster is locked down.
    pub lockdown: bool,
}

/// May this service's task on this node be given this secret?
#[derive(Debug, Clone)]
pub struct MountFacts {
    /// Whose task.
    pub service: ServiceFacts,
    /// Which secret.
    pub secret: SecretFacts,
    /// Where the task runs.
    pub node: NodeFacts,
    /// The cluster is locked down.
    pub lockdown: bool,
}

/// May this node be given an identity document for this service's task?
#[derive(Debug, Clone)]
pub struct SvidFacts {
    /// Who asks.
    pub node: NodeFacts,
    /// Whose identity.
    pub service: ServiceFacts,
    /// The node holds a live grant for a task of the service.
    pub live_grant_here: bool,
    /// The cluster is locked down.
    pub lockdown: bool,
}

/// May this operator, as one signer among the signers, do this?
#[derive(Debug, Clone)]
pub struct OperatorFacts {
    /// The signer.
    pub operator: OperatorId,
    /// Roles from the charter: `Admin`, `Deployer`, `SecretOwner`, `Approver`, `Auditor`.
    pub roles: Vec<String>,
    /// Namespaces from the charter; `*` owns all.
    pub owns: Vec<String>,
    /// What is to be done.
    pub act: OperatorAct,
    /// To what.
    pub target: Target,
}

/// What an operator acts on. A thing that does not exist yet is described as it would become.
#[derive(Debug, Clone)]
pub enum Target {
    /// A service.
    Service(ServiceFacts),
    /// A secret.
    Secret(SecretFacts),
    /// A node.
    Node(NodeFacts),
    /// An orchestrator, as the holder of a mandate.
    Orchestrator(OrchestratorFacts),
    /// The cluster itself.
    Cluster,
}

macro_rules! operator_acts {
    ($($variant:ident => $name:literal by $role:expr),* $(,)?) => {
        /// Everything that the schema lets an operator do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OperatorAct {
            $(#[doc = concat!("The schema's action `", $name, "`.")] $variant,)*
        }
        impl OperatorAct {
            /// All acts, in the order of the schema.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// The name in the schema.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
            /// The role to which the shipped rules give it; `None` = every operator
            /// (test `each_role_has_its_acts_and_no_others`).
            pub fn role(self) -> Option<&'static str> {
                match self { $(Self::$variant => $role,)* }
            }
        }
    };
}
const ADMIN: Option<&str> = Some("Admin");
const DEPLOYER: Option<&str> = Some("Deployer");
const SECRET_OWNER: Option<&str> = Some("SecretOwner");
operator_acts! {
    Deploy => "deploy" by DEPLOYER,
    Retire => "retire" by DEPLOYER,
    ApprovePlacement => "approvePlacement" by Some("Approver"),
    PutSecret => "putSecret" by SECRET_OWNER,
    RotateSecret => "rotateSecret" by SECRET_OWNER,
    DeleteSecret => "deleteSecret" by SECRET_OWNER,
    ApproveNode => "approveNode" by ADMIN,
    SetZone => "setZone" by ADMIN,
    RemoveNode => "removeNode" by ADMIN,
    QuarantineNode => "quarantineNode" by None,
    PutMandate => "putMandate" by ADMIN,
    PutPolicy => "putPolicy" by ADMIN,
    RotateRoot => "rotateRoot" by ADMIN,
    RotateUnlock => "rotateUnlock" by ADMIN,
    RotateKeyring => "rotateKeyring" by ADMIN,
    AdmitVoter => "admitVoter" by ADMIN,
    EvictVoter => "evictVoter" by ADMIN,
    MintToken => "mintToken" by ADMIN,
    Release => "release" by ADMIN,
    PutCharter => "putCharter" by ADMIN,
    Lockdown => "lockdown" by None,
    Seal => "seal" by None,
    ReadAudit => "readAudit" by Some("Auditor"),
}
