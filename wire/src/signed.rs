//! A statement in a file: carried from one signer to the next, and to whoever submits it.
//!
//! STORED: `"HFST" | fmt u8=1 | SignedFile` in its one encoding; golden file `wire/golden/signed-file.hex`. Nothing in it is
//! secret: a value that goes with a command is sealed to the vault's intake key. Reading believes no signature.

use crate::statement::{Document, MAX_SIGS, StatementError, peek};
use crate::strict::{self, StrictError};
use crate::v1::{Charter, Command, Mandate, SignedFile, Spec, Statement, Voucher};
use prost::Message as _;

/// Longest file: a statement, and the box of the longest secret.
pub const MAX: usize = 2 << 20;

const MAGIC: &[u8; 5] = b"HFST\x01";

/// Why bytes are not such a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedFileError {
    /// Something else altogether.
    #[error("it is no file of a signed statement")]
    Foreign,
    /// Of a version that this program does not know.
    #[error("it is of format {0}, which this program does not know")]
    Format(u8),
    /// The file is damaged.
    #[error("the file is {0}")]
    Malformed(#[from] StrictError),
    /// It holds no statement.
    #[error("it holds no statement")]
    Empty,
    /// More signatures than are ever looked at.
    #[error("it has more than {MAX_SIGS} signatures")]
    TooManySignatures,
    /// What is submitted is none of this kind.
    #[error("statements of type {0:?} are not submitted")]
    Kind(String),
    /// What is signed is damaged.
    #[error("{0}")]
    Payload(StatementError),
    /// The file and what is signed in it name different clusters.
    #[error("the file and the statement in it are of different clusters")]
    Cluster,
}

/// What is signed, as its signers read it.
#[derive(Debug, Clone, PartialEq)]
pub enum Signed {
    /// A charter.
    Charter(Box<Charter>),
    /// A service.
    Spec(Box<Spec>),
    /// A publisher's word for an image.
    Voucher(Box<Voucher>),
    /// What orchestrators may schedule.
    Mandate(Box<Mandate>),
    /// Any other change.
    Command(Box<Command>),
}

impl Signed {
    /// Reads a statement of a kind that is submitted. No signature is believed.
    pub fn read(st: &Statement) -> Result<Self, SignedFileError> {
        fn doc<T: Document>(st: &Statement) -> Result<Box<T>, SignedFileError> {
            peek(st).map(Box::new).map_err(SignedFileError::Payload)
        }
        match st.r#type.as_str() {
            Charter::TYPE => doc(st).map(Self::Charter),
            Spec::TYPE => doc(st).map(Self::Spec),
            Voucher::TYPE => doc(st).map(Self::Voucher),
            Mandate::TYPE => doc(st).map(Self::Mandate),
            Command::TYPE => doc(st).map(Self::Command),
            other => Err(SignedFileError::Kind(other.to_owned())),
        }
    }
    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Charter(_) => "charter",
            Self::Spec(_) => "spec",
            Self::Voucher(_) => "voucher",
            Self::Mandate(_) => "mandate",
            Self::Command(_) => "command",
        }
    }
    /// The cluster that it names; a charter names none.
    pub fn cluster_id(&self) -> Option<&[u8]> {
        match self {
            Self::Charter(_) => None,
            Self::Spec(s) => Some(&s.cluster_id),
            Self::Voucher(v) => Some(&v.cluster_id),
            Self::Mandate(m) => Some(&m.cluster_id),
            Self::Command(c) => Some(&c.cluster_id),
        }
    }
    /// The era that it is for, if it ends with one.
    pub fn era(&self) -> Option<u64> {
        match self {
            Self::Mandate(m) => Some(m.era),
            Self::Command(c) => Some(c.era),
            Self::Charter(_) | Self::Spec(_) | Self::Voucher(_) => None,
        }
    }
    /// Until when it may be submitted, in milliseconds; `None`: no time is set.
    pub fn until_ms(&self) -> Option<i64> {
        match self {
            Self::Spec(s) => Some(s.valid_until_ms),
            Self::Mandate(m) => Some(m.not_after_ms),
            Self::Command(c) => Some(c.expires_at_ms),
            Self::Charter(_) | Self::Voucher(_) => None,
        }
    }
}

/// The bytes of a file.
pub fn encode(file: &SignedFile) -> Vec<u8> {
    [MAGIC.as_slice(), &file.encode_to_vec()].concat()
}

/// Reads a file strictly: the file, its statement, and what is signed.
pub fn decode(bytes: &[u8]) -> Result<(SignedFile, Signed), SignedFileError> {
    let Some(body) = bytes.strip_prefix(MAGIC) else {
        let format = bytes.strip_prefix(b"HFST").and_then(<[u8]>::first);
        return Err(format.map_or(SignedFileError::Foreign, |f| SignedFileError::Format(*f)));
    };
    let file: SignedFile = strict::decode(body, MAX)?;
    let st = file.statement.as_ref().ok_or(SignedFileError::Empty)?;
    if st.sigs.len() > MAX_SIGS {
        return Err(SignedFileError::TooManySignatures);
    }
    let signed = Signed::read(st)?;
    if signed.cluster_id().is_some_and(|id| id != file.cluster_id) {
        return Err(SignedFileError::Cluster);
    }
    Ok((file, signed))
}
