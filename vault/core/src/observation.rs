//! Observations: refusals, evidence and alarms that are only written down, never acted on.

use serde::{Deserialize, Serialize};

/// An observation that is only written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoteFacts {
    /// Entry kind, one of the protocol's list.
    pub kind: NoteKind,
    /// Who.
    pub actor: String,
    /// About what.
    pub subject: String,
    /// A reason for people.
    pub detail: String,
    /// How many it stands for (floods are coalesced).
    pub count: u64,
}

/// Kinds of observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoteKind {
    /// A join token was refused.
    TokenDeny,
    /// An operator's statement was refused.
    CommandDeny,
    /// A certificate that is not in the registry was shown.
    UnknownCert,
    /// A node reports what it refused.
    Evidence,
    /// A voter was unlocked.
    UnlockOpen,
    /// A voter was sealed.
    Seal,
    /// A voter's disk is older than what is known of it: it was refused.
    RolledBack,
    /// A backup was made.
    Backup,
    /// Attempts to unlock a voter failed.
    UnlockDeny,
    /// A voter spoke as another one.
    Impostor,
}
impl NoteKind {
    /// The entry kind.
    pub fn as_str(self) -> &'static str {
        match self {
            NoteKind::TokenDeny => "token.deny",
            NoteKind::CommandDeny => "command.deny",
            NoteKind::UnknownCert => "alarm/unknown-cert",
            NoteKind::Evidence => "evidence",
            NoteKind::UnlockOpen => "unlock.open",
            NoteKind::Seal => "seal",
            NoteKind::RolledBack => "voter.rolledback",
            NoteKind::Backup => "backup.create",
            NoteKind::UnlockDeny => "unlock.deny",
            NoteKind::Impostor => "alarm/impostor",
        }
    }
}
