//! Records: encryption at rest. One fresh key per encryption, key-committing, the full context in the AAD (protocol, M3).
//!
//! STORED: every value of the Raft store and every secret in it; golden file `wire/golden/record.hex`.
//! ```text
//! 'HR' | fmt u8=1 | suite u8 | layer u8 (1 record, 2 disk) | term u32 | salt[32] | commit[32] | ct | tag[16]
//! AAD  = header without salt and commit ‖ lp(cluster_id) ‖ context
//! K ‖ C = HKDF-SHA256(ikm = key, salt, info = "holdfast/v1/" ‖ label ‖ H(AAD), 64 bytes)
//! commit = C, compared in constant time before decrypting; ct = AES-256-GCM(K, nonce 0, AAD, plaintext)
//! salt = HMAC-SHA256(hedge, random32 ‖ H(pt) ‖ H(AAD)), so a cloned generator does not repeat a key
//! ```

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use holdfast_types::{ClusterId, Secret, SecretBytes, kind, sha256, wipe_stack};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

/// Longest plaintext of one record: a snapshot chunk of 4 MiB.
pub const MAX_PLAINTEXT: usize = 4 << 20;
/// Bytes that a record adds to its plaintext.
pub const OVERHEAD: usize = HEADER + 32 + 32 + 16;
const HEADER: usize = 2 + 1 + 1 + 1 + 4;
const SUITE: u8 = 1;

/// Why a record does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a record or cut short.
    #[error("not a record: malformed or cut short")]
    Malformed,
    /// A format, suite or layer that does not belong here.
    #[error("record of an unknown format, suite or layer")]
    Unknown,
    /// Sealed under another term of the key.
    #[error("record is of key term {found}, not {wanted}")]
    OtherTerm {
        /// The term in the record's header.
        found: u32,
        /// The term of the key at hand.
        wanted: u32,
    },
    /// The commitment or tag does not match: wrong key, wrong place, or altered bytes.
    #[error("record does not open: wrong key, wrong place or altered")]
    Open,
    /// Plaintext over [`MAX_PLAINTEXT`].
    #[error("too long for a record")]
    TooLong,
}

/// Where a record lies; part of the AAD, so that no ciphertext works in another place.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// Record layer: a purpose (`secret`, `ca`, `stk`, `token`), a path and its revision.
    Record {
        /// What kind of value.
        purpose: &'a str,
        /// Which one.
        path: &'a str,
        /// Its revision, known before it is proposed.
        rev: u64,
    },
    /// Disk layer: one voter's keyspace and index.
    Disk {
        /// The voter whose disk it is.
        voter: u64,
        /// Which keyspace.
        keyspace: u8,
        /// Integer key within it.
        index: u64,
        /// Raft term, or 0 outside the log.
        raft_term: u64,
    },
}

/// The key of a record: a keyring term or a disk key, with its number.
#[derive(Clone, Copy)]
pub struct RecordKey<'a> {
    /// 32 bytes of key material.
    pub key: &'a [u8; 32],
    /// Which term or generation.
    pub term: u32,
}

fn aad(term: u32, cluster: &ClusterId, place: &Place<'_>) -> Vec<u8> {
    let lp = crate::boxes::lp;
    let layer = match place {
        Place::Record { .. } => 1,
        Place::Disk { .. } => 2,
    };
    let mut a = vec![b'H', b'R', 1, SUITE, layer];
    a.extend_from_slice(&term.to_be_bytes());
    a.extend(lp(&cluster.0));
    match place {
        Place::Record { purpose, path, rev } => {
            a.extend(lp(purpose.as_bytes()));
            a.extend(lp(path.as_bytes()));
            a.extend_from_slice(&rev.to_be_bytes());
        }
        Place::Disk { voter, keyspace, index, raft_term } => {
            a.extend(lp(&voter.to_be_bytes()));
            a.push(*keyspace);
            a.extend_from_slice(&index.to_be_bytes());
            a.extend_from_slice(&raft_term.to_be_bytes());
        }
    }
    a
}

fn derive(key: &[u8; 32], salt: &[u8; 32], place: &Place<'_>, aad_hash: &[u8; 32]) -> Zeroizing<[u8; 64]> {
    let label: &[u8] = match place {
        Place::Record { .. } => b"rec",
        Place::Disk { .. } => b"disk",
    };
    let info = [b"holdfast/v1/".as_slice(), label, aad_hash].concat();
    let mut okm = Zeroizing::new([0; 64]);
    // 64 bytes is far below HKDF's limit of 255 blocks, the only error there is.
    if Hkdf::<Sha256>::new(Some(salt), key).expand(&info, okm.as_mut()).is_err() {
        okm.zeroize();
    }
    okm
}

fn cipher(okm: &[u8; 64]) -> Result<(LessSafeKey, [u8; 32]), RecordError> {
    let (k, c) = okm.split_at(32);
    let key = UnboundKey::new(&AES_256_GCM, k).map_err(|_| RecordError::Open)?;
    Ok((LessSafeKey::new(key), c.try_into().map_err(|_| RecordError::Open)?))
}

/// Seals `plaintext` at `place`. `random` is fresh entropy, `hedge` the process's hedging key.
pub fn seal(
    key: RecordKey<'_>,
    cluster: &ClusterId,
    place: &Place<'_>,
    plaintext: &[u8],
    random: [u8; 32],
    hedge: &Secret<kind::HedgeKey, 32>,
) -> Result<Vec<u8>, RecordError> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(RecordError::TooLong);
    }
    let a = aad(key.term, cluster, place);
    let a_hash = sha256(&[&a]).0;
    let salt = hedged_salt(hedge, &random, plaintext, &a_hash)?;
    if let Place::Record { .. } = place {
        // The hash of a value holds its last block.
        wipe_stack();
    }
    let (cipher, commit) = cipher(&derive(key.key, &salt, place, &a_hash))?;
    let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD);
    out.extend_from_slice(a.get(..HEADER).unwrap_or_default());
    out.extend_from_slice(&salt);
    out.extend_from_slice(&commit);
    let body = out.len();
    out.extend_from_slice(plaintext);
    let tag = {
        let ct = out.get_mut(body..).unwrap_or_default();
        cipher
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key([0; 12]), Aad::from(&a), ct)
            .map_err(|_| RecordError::TooLong)?
    };
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

/// In a frame of its own, so that it can be wiped.
#[inline(never)]
fn hedged_salt(
    hedge: &Secret<kind::HedgeKey, 32>,
    random: &[u8; 32],
    pt: &[u8],
    a_hash: &[u8; 32],
) -> Result<[u8; 32], RecordError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(hedge.expose()).map_err(|_| RecordError::Open)?;
    mac.update(random);
    mac.update(sha256(&[pt]).as_bytes());
    mac.update(a_hash);
    Ok(mac.finalize().into_bytes().into())
}

/// The key term in a record's header, without opening it.
pub fn term_of(record: &[u8]) -> Result<u32, RecordError> {
    let head = record.first_chunk::<HEADER>().ok_or(RecordError::Malformed)?;
    let [b'H', b'R', fmt, suite, _, t @ ..] = head else { return Err(RecordError::Malformed) };
    if *fmt != 1 || *suite != SUITE {
        return Err(RecordError::Unknown);
    }
    <[u8; 4]>::try_from(t.as_slice()).map(u32::from_be_bytes).map_err(|_| RecordError::Malformed)
}

/// Opens a record that lies at `place`.
pub fn open(
    key: RecordKey<'_>,
    cluster: &ClusterId,
    place: &Place<'_>,
    record: &[u8],
) -> Result<SecretBytes, RecordError> {
    let found = term_of(record)?;
    if found != key.term {
        return Err(RecordError::OtherTerm { found, wanted: key.term });
    }
    let a = aad(key.term, cluster, place);
    let (head, rest) = record.split_at_checked(HEADER).ok_or(RecordError::Malformed)?;
    if a.get(..HEADER) != Some(head) {
        return Err(RecordError::Unknown);
    }
    let (salt, rest) = rest.split_first_chunk::<32>().ok_or(RecordError::Malformed)?;
    let (commit, ct) = rest.split_first_chunk::<32>().ok_or(RecordError::Malformed)?;
    if ct.len() < 16 || ct.len() > MAX_PLAINTEXT + 16 {
        return Err(RecordError::Malformed);
    }
    let (cipher, expected) = cipher(&derive(key.key, salt, place, &sha256(&[&a]).0))?;
    if !bool::from(expected.ct_eq(commit)) {
        return Err(RecordError::Open);
    }
    let mut buf = ct.to_vec();
    let n = match cipher.open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::from(&a), &mut buf) {
        Ok(pt) => pt.len(),
        Err(_) => {
            buf.zeroize();
            return Err(RecordError::Open);
        }
    };
    let mut s = SecretBytes::new(buf);
    s.truncate(n);
    Ok(s)
}
