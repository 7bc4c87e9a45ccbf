//! What laws look at, and what is planted to show that they can fail.

use super::play::Step;
use holdfast_types::Digest;
use holdfast_vault_core::Leaf;
use holdfast_wire::v1;

/// What is planted to show that a law can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A replica leaves a command out.
    SkippedCommand,
    /// The leader forgets what it acknowledged last.
    LostWrite,
    /// The leader forgets a join, and its token is used again.
    TokenGivenBack,
    /// The leader forgets a put, and its version is put again.
    VersionAgain,
    /// The leader forgets a change of lease.
    FenceForgotten,
    /// The leader forgets a grant, and grants the same incarnation again.
    GrantTwice,
    /// The leader forgets a removal.
    RemovedCameBack,
    /// The leader forgets that it carried a command out.
    CommandTwice,
    /// The leader is set back.
    SetBack,
    /// A leaf is altered after it was written.
    LeafAltered,
    /// The leader forgets a term of the keyring, and begins it again.
    TermAgain,
    /// The leader forgets that a term was destroyed.
    TermNotGone,
    /// The leader forgets whom it admitted, and gives the number again.
    NumberAgain,
    /// The leader forgets an eviction.
    EvictedCameBack,
    /// The leader forgets an unlock key, and gives its epoch to another.
    EpochAgain,
    /// The leader forgets a charter.
    CharterAgain,
    /// The leader forgets that an era began.
    EraAgain,
}
impl Fault {
    pub const ALL: [Self; 17] = [
        Self::SkippedCommand,
        Self::LostWrite,
        Self::TokenGivenBack,
        Self::VersionAgain,
        Self::FenceForgotten,
        Self::GrantTwice,
        Self::RemovedCameBack,
        Self::CommandTwice,
        Self::SetBack,
        Self::LeafAltered,
        Self::TermAgain,
        Self::TermNotGone,
        Self::NumberAgain,
        Self::EvictedCameBack,
        Self::EpochAgain,
        Self::CharterAgain,
        Self::EraAgain,
    ];
    /// The step after which the leader is put back to where it was before it, if the fault is of that kind.
    pub fn forgets(self) -> Option<Step> {
        match self {
            Self::TokenGivenBack => Some(Step::Join),
            Self::LostWrite | Self::VersionAgain | Self::CommandTwice => Some(Step::Put),
            Self::FenceForgotten => Some(Step::Lease),
            Self::GrantTwice => Some(Step::Grant),
            Self::RemovedCameBack => Some(Step::Remove),
            Self::SetBack => Some(Step::Report),
            Self::TermAgain => Some(Step::Term),
            Self::TermNotGone => Some(Step::Retire),
            Self::NumberAgain => Some(Step::Admit),
            Self::EvictedCameBack => Some(Step::Evict),
            Self::EpochAgain => Some(Step::Unlock),
            Self::CharterAgain => Some(Step::Charter),
            Self::EraAgain => Some(Step::Reset),
            Self::SkippedCommand | Self::LeafAltered => None,
        }
    }
}

/// Something that was said to be done.
#[derive(Debug, Clone)]
pub struct Ack {
    pub leaf: u64,
    pub kind: &'static str,
    pub subject: String,
}

/// Everything that laws look at.
pub struct History {
    /// The log at the end.
    pub entries: Vec<v1::LogEntry>,
    pub leaves: Vec<Leaf>,
    pub head: (u64, Digest),
    /// Every leaf that was ever written, also one that was forgotten.
    pub all: Vec<v1::LogEntry>,
    pub acks: Vec<Ack>,
    /// After each decision: time, namespace, holder, fence.
    pub leases: Vec<(i64, String, String, u64)>,
    /// Task and incarnation of each grant, in order.
    pub grants: Vec<(String, u64)>,
    /// After each decision: time, revision, leaves.
    pub marks: Vec<(i64, u64, u64)>,
    /// The replicas at the end.
    pub ends: Vec<Vec<u8>>,
}

impl History {
    pub fn empty() -> Self {
        Self {
            entries: Vec::new(),
            leaves: Vec::new(),
            head: (0, holdfast_wire::merkle::empty_root()),
            all: Vec::new(),
            acks: Vec::new(),
            leases: Vec::new(),
            grants: Vec::new(),
            marks: Vec::new(),
            ends: Vec::new(),
        }
    }
}
