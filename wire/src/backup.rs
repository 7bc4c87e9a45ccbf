//! Backups: one stream under one fresh key, in chunks of which each knows its place and the last one that it is the last.
//!
//! STORED: backup files; golden file `wire/golden/backup.hex`.
//! ```text
//! file   = "HFBK" | fmt u8=1 | frame*            frame = length u32 | BackupPart
//! parts  = head, chunk+, end                     end = Backup, signed by the statement key
//! K ‖ C  = HKDF-SHA256(ikm = stream key, salt = H(head), info = "holdfast/v1/backup" ‖ cluster_id, 64 bytes)
//! chunk  = AES-256-GCM(K, nonce = 0[7] ‖ number u32 ‖ last u8, AAD = H(head), 1 MiB or, the last one, less)
//!          the first one behind C, so that the stream opens under one key alone
//! plain  = the state, then each leaf: length u32 | salt[32] | entry
//! ```
//! LAW: a backup is complete or refused (`a_backup_that_is_cut_anywhere_is_refused`,
//! `every_single_bit_of_a_backup_counts`).

use crate::boxes::{self, BoxError, PrivateKey};
use crate::statement::{self, StatementError, Verified};
use crate::strict::{self, StrictError};
use crate::v1::{self, backup_part::Part};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use holdfast_types::{ClusterId, Digest, Secret, SecretBytes, kind, sha256};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

/// Plaintext of a chunk, in bytes.
pub const CHUNK: usize = 1 << 20;
/// What a file begins with.
pub const MAGIC: &[u8; 5] = b"HFBK\x01";
/// Longest part, encoded: a head with long chains.
pub const MAX_PART: usize = 16 << 20;
/// Longest state.
pub const MAX_STATE: u64 = 4 << 30;
/// Longest leaf: salt, entry, and room.
pub const MAX_LEAF: usize = 2 << 20;
const TAG: usize = 16;
const COMMIT: usize = 32;

/// The key of one backup's stream.
pub type StreamKey = Secret<kind::BackupKey, 32>;

/// Why a backup is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Not a backup, or a part of it cannot be read.
    #[error("not a backup, or damaged: {0}")]
    Malformed(&'static str),
    /// It ends before its end.
    #[error("the backup is cut short")]
    CutShort,
    /// A part is not in canonical form.
    #[error("the backup is damaged: {0}")]
    Part(#[from] StrictError),
    /// What its end says is not what it is.
    #[error("the backup was altered: it is not what was signed")]
    Altered,
    /// Its end is not signed by whom it should be.
    #[error("the backup's end: {0}")]
    Signature(#[from] StatementError),
    /// A chunk does not open.
    #[error("chunk {0} does not open: wrong key, wrong place or altered")]
    Chunk(u32),
    /// More chunks than may be.
    #[error("the backup is too long")]
    TooLong,
    /// Key material that cannot be used.
    #[error("the stream's key cannot be used")]
    Key,
}

/// Number and AAD of the boxes of a backup's key: `backup_id ‖ era ‖ raft_index` (protocol, Box).
pub fn key_aad(head: &v1::BackupHead) -> Vec<u8> {
    [head.backup_id.as_slice(), &head.era.to_be_bytes(), &head.raft_index.to_be_bytes()].concat()
}

/// Boxes the stream's key to the recovery key `pk`.
pub fn box_key(
    head: &v1::BackupHead,
    cluster: &ClusterId,
    pk: &[u8],
    key: &StreamKey,
    random: [u8; 32],
) -> Result<Vec<u8>, BoxError> {
    let aad = key_aad(head);
    boxes::seal(pk, &boxes::Context { purpose: "backup", cluster, aad: &aad }, None, key.expose(), random)
}

/// Opens the box of the stream's key with the recovery key.
pub fn open_key(head: &v1::BackupHead, cluster: &ClusterId, sk: &PrivateKey) -> Result<StreamKey, BoxError> {
    let aad = key_aad(head);
    let raw = boxes::open(sk, &boxes::Context { purpose: "backup", cluster, aad: &aad }, None, &head.key_box)?;
    Secret::from_slice(raw.expose()).ok_or(BoxError::Malformed)
}

/// Opens a keyring term that was boxed to the recovery key.
pub fn open_term(
    term: &v1::TermBox,
    cluster: &ClusterId,
    sk: &PrivateKey,
) -> Result<Secret<kind::KeyringTerm, 32>, BoxError> {
    let aad = term.term.to_be_bytes();
    let raw = boxes::open(sk, &boxes::Context { purpose: "keyring-rec", cluster, aad: &aad }, None, &term.r#box)?;
    Secret::from_slice(raw.expose()).ok_or(BoxError::Malformed)
}

struct Cipher {
    key: LessSafeKey,
    commit: [u8; COMMIT],
    aad: Digest,
    next: u32,
}

impl Cipher {
    fn new(key: &StreamKey, cluster: &[u8], head: &[u8]) -> Result<Self, BackupError> {
        let aad = sha256(&[head]);
        let info = [b"holdfast/v1/backup".as_slice(), cluster].concat();
        let mut okm = Zeroizing::new([0; 64]);
        let expanded = Hkdf::<Sha256>::new(Some(&aad.0), key.expose()).expand(&info, okm.as_mut());
        expanded.map_err(|_| BackupError::Key)?;
        let (k, c) = okm.split_at(32);
        let key = UnboundKey::new(&AES_256_GCM, k).map_err(|_| BackupError::Key)?;
        Ok(Self { key: LessSafeKey::new(key), commit: c.try_into().map_err(|_| BackupError::Key)?, aad, next: 0 })
    }
    fn nonce(&self, last: bool) -> Nonce {
        let [a, b, c, d] = self.next.to_be_bytes();
        Nonce::assume_unique_for_key([0, 0, 0, 0, 0, 0, 0, a, b, c, d, u8::from(last)])
    }
    fn seal(&mut self, plain: &[u8], last: bool) -> Result<Vec<u8>, BackupError> {
        let mut out = Vec::with_capacity(COMMIT + plain.len() + TAG);
        if self.next == 0 {
            out.extend_from_slice(&self.commit);
        }
        let body = out.len();
        out.extend_from_slice(plain);
        let tag = {
            let text = out.get_mut(body..).unwrap_or_default();
            let sealed = self.key.seal_in_place_separate_tag(self.nonce(last), Aad::from(&self.aad.0), text);
            sealed.map_err(|_| BackupError::TooLong)?
        };
        out.extend_from_slice(tag.as_ref());
        self.next = self.next.checked_add(1).ok_or(BackupError::TooLong)?;
        Ok(out)
    }
    fn open(&mut self, chunk: &[u8], last: bool) -> Result<SecretBytes, BackupError> {
        let wrong = BackupError::Chunk(self.next);
        let sealed = if self.next == 0 {
            let (commit, sealed) = chunk.split_first_chunk::<COMMIT>().ok_or(wrong.clone())?;
            if !bool::from(self.commit.ct_eq(commit)) {
                return Err(wrong);
            }
            sealed
        } else {
            chunk
        };
        let mut text = sealed.to_vec();
        let opened = self.key.open_in_place(self.nonce(last), Aad::from(&self.aad.0), &mut text).map(|t| t.len());
        let Ok(length) = opened else {
            text.zeroize();
            return Err(wrong);
        };
        let mut plain = SecretBytes::new(text);
        plain.truncate(length);
        Ok(plain)
    }
}

/// Seals a stream, chunk by chunk.
pub struct Sealer {
    cipher: Cipher,
    buffer: Zeroizing<Vec<u8>>,
    hash: Sha256,
}

impl Sealer {
    /// Of the backup with this head.
    pub fn new(key: &StreamKey, head: &v1::BackupHead) -> Result<Self, BackupError> {
        let bytes = head.encode_to_vec();
        let hash = Sha256::new().chain_update(&bytes);
        let buffer = Zeroizing::new(Vec::with_capacity(CHUNK));
        Ok(Self { cipher: Cipher::new(key, &head.cluster_id, &bytes)?, buffer, hash })
    }
    /// Takes plaintext; returns the chunks that are full and not the last.
    pub fn push(&mut self, mut plain: &[u8]) -> Result<Vec<Vec<u8>>, BackupError> {
        let mut full = Vec::new();
        while !plain.is_empty() {
            if self.buffer.len() == CHUNK {
                full.push(self.chunk(false)?);
            }
            let (now, later) = plain.split_at(plain.len().min(CHUNK - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            plain = later;
        }
        Ok(full)
    }
    /// The last chunk, and the hash of everything for the end.
    pub fn finish(mut self) -> Result<(Vec<u8>, Digest), BackupError> {
        let last = self.chunk(true)?;
        Ok((last, Digest(self.hash.finalize().into())))
    }
    fn chunk(&mut self, last: bool) -> Result<Vec<u8>, BackupError> {
        let sealed = self.cipher.seal(&self.buffer, last)?;
        self.hash.update(&sealed);
        self.buffer.zeroize();
        Ok(sealed)
    }
}

/// Opens a stream, chunk by chunk.
pub struct Opener {
    cipher: Cipher,
    done: bool,
}

impl Opener {
    /// Of the backup with this head.
    pub fn new(key: &StreamKey, head: &v1::BackupHead) -> Result<Self, BackupError> {
        Ok(Self { cipher: Cipher::new(key, &head.cluster_id, &head.encode_to_vec())?, done: false })
    }
    /// Opens the next chunk. Nothing may follow the last.
    pub fn open(&mut self, chunk: &[u8]) -> Result<SecretBytes, BackupError> {
        if self.done {
            return Err(BackupError::Altered);
        }
        let plain = match self.cipher.open(chunk, false) {
            Ok(plain) => plain,
            Err(_) => {
                let plain = self.cipher.open(chunk, true)?;
                self.done = true;
                plain
            }
        };
        self.cipher.next = self.cipher.next.checked_add(1).ok_or(BackupError::TooLong)?;
        Ok(plain)
    }
    /// Whether the last chunk was opened.
    pub fn finish(self) -> Result<(), BackupError> {
        if self.done { Ok(()) } else { Err(BackupError::CutShort) }
    }
}

/// The order and the hash of a backup's parts: all that can be told without its key.
#[derive(Default)]
pub struct Outline {
    head: Option<v1::BackupHead>,
    hash: Sha256,
    chunks: u64,
    short: bool,
    end: Option<v1::Statement>,
}

impl Outline {
    /// Takes the next part.
    pub fn take(&mut self, part: &v1::BackupPart) -> Result<(), BackupError> {
        if self.end.is_some() {
            return Err(BackupError::Malformed("something follows its end"));
        }
        match (&part.part, &self.head) {
            (Some(Part::Head(head)), None) => {
                if head.state_bytes > MAX_STATE {
                    return Err(BackupError::TooLong);
                }
                self.hash.update(head.encode_to_vec());
                self.head = Some(head.clone());
            }
            (Some(Part::Chunk(chunk)), Some(_)) => {
                let extra = TAG + if self.chunks == 0 { COMMIT } else { 0 };
                if self.short || chunk.len() < extra || chunk.len() > CHUNK + extra {
                    return Err(BackupError::Malformed("a chunk has the wrong length"));
                }
                self.short = chunk.len() < CHUNK + extra;
                self.hash.update(chunk);
                self.chunks += 1;
            }
            (Some(Part::End(end)), Some(_)) => self.end = Some(end.clone()),
            (None | Some(_), _) => return Err(BackupError::Malformed("its parts are not in order")),
        }
        Ok(())
    }
    /// The head, once it was taken.
    pub fn head(&self) -> Option<&v1::BackupHead> {
        self.head.as_ref()
    }
    /// What the end says, if one of `keys` signed it and it is about exactly what was taken.
    pub fn finish(self, keys: &[v1::PublicKey]) -> Result<(v1::BackupHead, Verified<v1::Backup>), BackupError> {
        let (Some(head), Some(end)) = (self.head, self.end) else { return Err(BackupError::CutShort) };
        let said = statement::verify::<v1::Backup>(&end, keys, 1)?;
        let d = &said.doc;
        let same = d.cluster_id == head.cluster_id
            && d.backup_id == head.backup_id
            && (d.era, d.raft_index, d.made_at_ms) == (head.era, head.raft_index, head.made_at_ms)
            && d.checkpoint == head.checkpoint
            && d.sha256 == self.hash.finalize().as_slice();
        if same && self.chunks > 0 { Ok((head, said)) } else { Err(BackupError::Altered) }
    }
}

/// Takes the plaintext apart: the state whole, then the leaves one by one.
pub struct Content {
    state_bytes: u64,
    leaves: u64,
    state: Zeroizing<Vec<u8>>,
    rest: Zeroizing<Vec<u8>>,
    seen: u64,
}

impl Content {
    /// Of the backup with this head.
    pub fn new(head: &v1::BackupHead) -> Self {
        let (state, rest) = (Zeroizing::default(), Zeroizing::default());
        Self { state_bytes: head.state_bytes, leaves: head.leaves, state, rest, seen: 0 }
    }
    /// Takes plaintext; returns the leaves that are complete, `salt ‖ entry`, in order.
    pub fn push(&mut self, plain: &[u8]) -> Result<Vec<Vec<u8>>, BackupError> {
        let lacks = self.state_bytes.saturating_sub(self.state.len() as u64);
        let (state, leaves) = plain.split_at(usize::try_from(lacks).unwrap_or(usize::MAX).min(plain.len()));
        self.state.extend_from_slice(state);
        self.rest.extend_from_slice(leaves);
        let (mut done, mut at) = (Vec::new(), 0);
        while let Some((length, after)) = self.rest.get(at..).unwrap_or_default().split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if !(32..=MAX_LEAF).contains(&length) || self.seen == self.leaves {
                return Err(BackupError::Malformed("a leaf has the wrong length"));
            }
            let Some(leaf) = after.get(..length) else { break };
            done.push(leaf.to_vec());
            self.seen += 1;
            at += 4 + length;
        }
        self.rest.drain(..at);
        Ok(done)
    }
    /// The state, as soon as it is whole.
    pub fn state(&self) -> Option<&[u8]> {
        (self.state.len() as u64 == self.state_bytes).then_some(self.state.as_slice())
    }
    /// Leaves so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }
    /// The state, if everything came and nothing else did.
    pub fn finish(self) -> Result<Zeroizing<Vec<u8>>, BackupError> {
        let whole = self.state.len() as u64 == self.state_bytes && self.seen == self.leaves && self.rest.is_empty();
        if whole { Ok(self.state) } else { Err(BackupError::CutShort) }
    }
}

/// A leaf as the plaintext holds it.
pub fn leaf(salt_and_entry: &[u8]) -> Result<Vec<u8>, BackupError> {
    let length = u32::try_from(salt_and_entry.len()).map_err(|_| BackupError::TooLong)?;
    Ok([length.to_be_bytes().as_slice(), salt_and_entry].concat())
}

/// A part as the file holds it.
pub fn frame(part: &v1::BackupPart) -> Result<Vec<u8>, BackupError> {
    let bytes = part.encode_to_vec();
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_PART).ok_or(BackupError::TooLong)?;
    Ok([length.to_be_bytes().as_slice(), &bytes].concat())
}

/// Length of the frame that begins with these four bytes.
pub fn frame_length(bytes: [u8; 4]) -> Result<usize, BackupError> {
    let length = u32::from_be_bytes(bytes) as usize;
    if length <= MAX_PART { Ok(length) } else { Err(BackupError::Malformed("a part is too long")) }
}

/// Reads what is in a frame.
pub fn part(bytes: &[u8]) -> Result<v1::BackupPart, BackupError> {
    Ok(strict::decode(bytes, MAX_PART)?)
}
