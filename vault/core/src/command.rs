//! Commands: what goes through Raft. Every choice is made before; `apply` only checks preconditions and writes.
//!
//! STORED: Raft log entries hold [`Stamped`] in postcard; golden file `vault/core/golden/command.hex`.
//! Variants are only ever appended, never reordered.

mod keys;
mod roots;
mod voters;

pub use keys::{CertFacts, EraKeys, Founding, HpkeFacts, SealedKey, StkFacts, VoterFacts};
pub use roots::{Asked, CaKey, CrossRow, NewRoot};
pub use voters::{NewTerm, RecordAt, Rewrapped, VoterMark, VoterSaid};

use crate::observation::NoteFacts;
use holdfast_types::{Digest, GrantId, MandateId, Millis, NodeId, OrchId, Role, TaskId, TokenId, VoterId};
use holdfast_wire::v1;
use serde::{Deserialize, Serialize};

/// A command with the leader's time and the seed of its leaves' salts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Leader's time; never goes backwards in the log.
    pub at: Millis,
    /// Fresh entropy for leaf salts.
    pub salt_seed: [u8; 32],
    /// What to do.
    pub command: Command,
}
impl Stamped {
    /// Encodes for the Raft log.
    pub fn encode(&self) -> Vec<u8> {
        // Serializing plain data into a growing vector cannot fail; an empty entry is refused by `decode`.
        postcard::to_stdvec(self).unwrap_or_default()
    }
    /// Decodes from the Raft log; `None` if the bytes are not a command as this version writes it.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (s, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(s)
    }
}

/// An operator's statement with what the vault added to carry it out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The statement, encoded.
    #[serde(with = "crate::bytes")]
    pub statement: Vec<u8>,
    /// Ids of the operators whose signatures counted.
    pub signers: Vec<String>,
    /// Charter under which they counted: a precondition.
    pub charter_version: u64,
    /// Policy under which they were permitted: a precondition.
    pub policy_version: u64,
    /// Policies that permitted it to them; none where no policy was asked.
    pub policies: Vec<String>,
    /// The value of a PutSecret or the MAC key of a MintToken, as a record; for an AdmitVoter, [`crate::prepare::Admission`]
    /// in postcard; for a Charter with another recovery key, the keyring's terms boxed to it, in postcard; for a RotateRoot that
    /// brings a key, its [`SealedKey`] in postcard.
    #[serde(with = "crate::bytes::option")]
    pub sealed: Option<Vec<u8>>,
}

/// One grant asked for, with what was looked up for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrantFact {
    /// The grant.
    pub id: GrantId,
    /// `H(grant payload)`.
    pub sha256: Digest,
    /// The task it starts and its incarnation.
    pub task: TaskId,
    /// Incarnation: last + 1, a precondition.
    pub task_gen: u64,
    /// The node.
    pub node: NodeId,
    /// The node's revision: a precondition.
    pub node_rev: u64,
    /// The spec's version and hash: preconditions.
    pub version: u64,
    /// `H(spec payload)`.
    pub spec_sha256: Digest,
    /// Secret names with versions: preconditions.
    pub secrets: Vec<(String, u64)>,
    /// The lease's fence: a precondition.
    pub fence: u64,
    /// The mandate used.
    pub mandate: MandateId,
    /// May be started until.
    pub start_before: Millis,
    /// Runs until, unless extended.
    pub lease_until: Millis,
    /// Only the vault may stop it, not its orchestrator.
    pub protected: bool,
    /// Length of the lease at each extension, milliseconds.
    pub life_ms: i64,
    /// After its lease the task may go on for, milliseconds.
    pub grace_ms: i64,
    /// Policies that permitted it.
    pub policies: Vec<String>,
    /// Of which version: a precondition.
    pub policy_version: u64,
}

/// A grant decided or refused, in the caller's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum GrantOrder {
    /// To be issued, if the preconditions still hold.
    Issue(GrantFact),
    /// Refused by policy or look-up: only written down.
    Deny {
        /// Service asked for.
        service: String,
        /// Node asked for.
        node: String,
        /// Stable code.
        code: String,
        /// Reason for people.
        reason: String,
        /// Determining policies.
        policies: Vec<String>,
    },
}

/// A request's id, and the hash of who asked for what: under one id only one request counts.
pub type RequestKey = ([u8; 16], Digest);

/// A node's word about one of its tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeTaskReport {
    /// Under which grant.
    pub grant: GrantId,
    /// `started`, `running`, `restarting`, `stopped`, `failed` or `refused`.
    pub state: String,
    /// Exit code of the container, where it ended.
    pub exit_code: i32,
    /// A reason for people.
    pub detail: String,
    /// Restarts so far.
    pub restarts: u32,
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry of a cluster.
    Found(Box<Founding>),
    /// An operator's Command, Spec, Voucher or Mandate.
    Submit(Submission),
    /// A token admits an identity, at once or pending approval.
    Join {
        /// The token used.
        token: TokenId,
        /// The new id.
        id: String,
        /// Node or orchestrator.
        role: Role,
        /// Its certificate; `None` = pending.
        cert: Option<CertFacts>,
        /// SubjectPublicKeyInfo of the CSR, kept while pending.
        spki_der: Vec<u8>,
        /// `H(spki_der)`.
        spki: Digest,
        /// The node's HPKE key.
        hpke: Option<HpkeFacts>,
    },
    /// An approved identity collects its first certificate.
    IssueFirst {
        /// Which identity.
        id: String,
        /// Its certificate.
        cert: CertFacts,
        /// Its HPKE key.
        hpke: Option<HpkeFacts>,
    },
    /// An operator proved its key and gets a certificate.
    Login {
        /// Operator id.
        id: String,
        /// The signed Login, encoded.
        statement: Vec<u8>,
        /// Its certificate.
        cert: CertFacts,
    },
    /// Renewal chain R1: a next certificate.
    Renew {
        /// Which identity.
        id: String,
        /// The pending certificate.
        cert: CertFacts,
        /// The node's next HPKE key.
        hpke: Option<HpkeFacts>,
        /// Epoch of the newest Bundle that it believes.
        acked: u64,
    },
    /// Renewal chain R4: the pending certificate was used.
    Activate {
        /// Which identity.
        id: String,
        /// Serial of the pending certificate.
        serial: String,
    },
    /// Renewal chain R3 or R5: two holders of one identity.
    Fork {
        /// Which identity.
        id: String,
        /// What was seen.
        detail: String,
    },
    /// An orchestrator keeps its leases.
    KeepLease {
        /// The orchestrator.
        orch: OrchId,
        /// Where nodes find it.
        session_addr: String,
        /// Lease length, milliseconds.
        life_ms: i64,
    },
    /// Grants decided for one request.
    Grants {
        /// Who asked.
        orch: OrchId,
        /// Accepted once.
        request: [u8; 16],
        /// Who asked for what, as a hash.
        body: Digest,
        /// In the caller's order.
        orders: Vec<GrantOrder>,
    },
    /// What a node says of its tasks.
    Reports {
        /// The node.
        node: NodeId,
        /// Its tasks.
        tasks: Vec<NodeTaskReport>,
    },
    /// An orchestrator gives grants back that it did not use.
    ReleaseGrants {
        /// Who.
        orch: OrchId,
        /// Which.
        grants: Vec<GrantId>,
        /// Why.
        reason: String,
    },
    /// Leases of running grants are extended.
    Extend {
        /// Grants with their new ends.
        grants: Vec<(GrantId, Millis)>,
        /// Grants whose nodes are out of reach: asked again later, or when the node is back.
        away: Vec<GrantId>,
    },
    /// A new issuer takes over.
    NewIssuer {
        /// `H` of the root that signed it: the signing one, a precondition.
        root: Digest,
        /// DER.
        der: Vec<u8>,
        /// Its key.
        key: CaKey,
        /// End of its validity.
        not_after: Millis,
    },
    /// A new statement key, listed in a new Bundle.
    NewStk {
        /// The key.
        stk: StkFacts,
        /// The Bundle, signed by a root.
        bundle: Vec<u8>,
    },
    /// Written down.
    Note(NoteFacts),
    /// Time passed: what has run out is removed.
    Tick,
    /// A voter said something new of itself.
    VoterReported {
        /// Which voter.
        id: VoterId,
        /// Its Raft term, if it leads.
        leads: Option<u64>,
        /// What it said.
        facts: VoterSaid,
        /// Its certificate, if it asked for one.
        cert: Option<CertFacts>,
        /// Keyring terms boxed to its next KEM key, if it has one.
        terms: Vec<(u32, Vec<u8>)>,
    },
    /// How far voters are known to have been, so that one whose disk is set back is known.
    Progress(Vec<VoterMark>),
    /// The next keyring term: boxed to each voter and to the recovery key, with the Bundle that names its intake key.
    KeyringAdd(Box<NewTerm>),
    /// Records sealed anew under the active term.
    Rewrap(Vec<Rewrapped>),
    /// No record and no node's key is left under these terms: they are destroyed.
    KeyringDestroy(Vec<u32>),
    /// A new era begins: a cluster was brought back on one voter.
    Reset(Box<crate::reset::ResetFacts>),
    /// Rotation of the root: another one is trusted from now on.
    RootAdd(Box<NewRoot>),
    /// Rotation of the root: another trusted one signs from now on.
    RootSwitch {
        /// `H` of its certificate.
        to: Digest,
    },
    /// Rotation of the root: one that nobody needs any more is trusted no longer.
    RootDrop {
        /// `H` of its certificate.
        root: Digest,
        /// The Bundle without it, signed by old and new roots.
        bundle: Vec<u8>,
    },
    /// The key of a root that was dropped is gone.
    RootDestroyed {
        /// `H` of its certificate.
        root: Digest,
    },
    /// Machines that said which Bundle is the newest that they believe, by its epoch.
    Acked(Vec<(String, u64)>),
    /// An identity whose certificate is over came back by the key that the registry knows.
    Rejoin {
        /// Which identity.
        id: String,
        /// Its certificate.
        cert: CertFacts,
        /// The node's next HPKE key.
        hpke: Option<HpkeFacts>,
        /// Epoch of the newest Bundle that it believes.
        acked: u64,
        /// Where it spoke from.
        from: String,
    },
    /// Two sessions of one identity at a time.
    Concurrent {
        /// Which identity.
        id: String,
        /// What was seen.
        detail: String,
    },
    /// What a root whose key is offline is to sign.
    RootAsk(Box<Asked>),
    /// Who was removed in the era before, later than this one knows of: a machine showed that era's own word for it.
    MergeRemoved {
        /// Nodes and orchestrators.
        ids: Vec<String>,
        /// Which node or orchestrator showed it.
        shown_by: String,
        /// `H(payload)` of the Revocations.
        sha256: Digest,
    },
    /// Rotation of the root: one that was made without the old ones, whose Bundle Admins are to sign.
    RootPropose(Box<NewRoot>),
    /// Keys in the token that nothing used any more are gone, by the key port's names.
    KeysDestroyed(Vec<String>),
    /// Who was in quarantine in the era before, as for those that were removed; of a list that is newer than any that was shown,
    /// perhaps nobody.
    MergeQuarantined {
        /// Nodes and orchestrators.
        ids: Vec<String>,
        /// Which node or orchestrator showed it.
        shown_by: String,
        /// `H(payload)` of the Revocations.
        sha256: Digest,
        /// The epoch of the Revocations.
        epoch: u64,
    },
    /// A voter begins to lead: leases that lived when the vault was heard last go on.
    ExtendLeases {
        /// The time of the last entry before.
        since: Millis,
        /// Lease length, milliseconds.
        life_ms: i64,
    },
}

impl Command {
    /// Decodes an embedded statement.
    pub(crate) fn statement(bytes: &[u8]) -> Option<v1::Statement> {
        holdfast_wire::strict::decode(bytes, 8 << 20).ok()
    }
}

/// A voter with its first KEM key.
pub fn command_voter(id: VoterId, kem_pk: [u8; 32]) -> VoterFacts {
    VoterFacts { id, kem_pk, kem_gen: 1 }
}
