//! Printable shares of an unlock or recovery key that was split (Shamir, GF(256)). How one is written; the arithmetic is the
//! operator's tool's.
//!
//! ```text
//! hf_share_v1_<body><crc>   body = crockford32(kind u8 (1 unlock, 2 recovery) ‖ id u8 ‖ threshold u8 ‖ epoch u64 ‖ cluster[8] ‖ share[32])
//! ```
//! `epoch` is the unlock epoch, or the charter's version of a recovery key; `cluster` the first bytes of the cluster's name.
//! STORED by people: golden file `wire/golden/key-share.txt`. The digest by which a share is named is `H(body)`.

use crate::token::{TokenError, b32, unb32, with_checksum, without_checksum};
use holdfast_types::{ClusterId, Digest, Secret, kind, sha256};
use zeroize::Zeroizing;

const PREFIX: &str = "hf_share_v1_";
/// Bytes of the cluster's name that a share bears.
pub const CLUSTER_PREFIX: usize = 8;
/// Fewest shares that may open a key: one would be the key itself.
pub const LEAST: u8 = 2;

/// What the split key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareKind {
    /// Unlock slots.
    Unlock,
    /// Recovery slots and backups.
    Recovery,
}
impl ShareKind {
    /// `unlock` or `recovery`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unlock => "unlock",
            Self::Recovery => "recovery",
        }
    }
    fn byte(self) -> u8 {
        match self {
            Self::Unlock => 1,
            Self::Recovery => 2,
        }
    }
}

/// One share of a key.
#[derive(Debug)]
pub struct KeyShare {
    /// Of which key.
    pub kind: ShareKind,
    /// Its number, from 1.
    pub id: u8,
    /// How many are needed.
    pub threshold: u8,
    /// The key's unlock epoch, or the version of the charter that names the recovery key.
    pub epoch: u64,
    /// The first bytes of the cluster's name.
    pub cluster: [u8; CLUSTER_PREFIX],
    /// The share itself.
    pub body: Secret<kind::ShareBody, 32>,
}

impl KeyShare {
    /// The first bytes of a cluster's name, as its shares bear them.
    pub fn prefix_of(cluster: &ClusterId) -> [u8; CLUSTER_PREFIX] {
        let mut prefix = [0; CLUSTER_PREFIX];
        prefix.iter_mut().zip(cluster.0).for_each(|(d, s)| *d = s);
        prefix
    }
    fn raw(&self) -> Zeroizing<Vec<u8>> {
        let head = [self.kind.byte(), self.id, self.threshold];
        let parts: [&[u8]; 4] = [&head, &self.epoch.to_be_bytes(), &self.cluster, self.body.expose()];
        Zeroizing::new(parts.concat())
    }
    /// The name of this share: tells a wrong one from a right one, and tells nothing of the key.
    pub fn digest(&self) -> Digest {
        sha256(&[&self.raw()])
    }
    /// The printable share, one word.
    pub fn print(&self) -> Zeroizing<String> {
        with_checksum(format!("{PREFIX}{}", b32(&self.raw())))
    }
    /// Parses a printed share; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if !text.starts_with(PREFIX) {
            return Err(TokenError::Prefix("share of a key", PREFIX));
        }
        let raw = unb32(without_checksum(text)?.get(PREFIX.len()..).ok_or(TokenError::Shape)?)?;
        let (head, rest) = raw.split_first_chunk::<3>().ok_or(TokenError::Shape)?;
        let (epoch, rest) = rest.split_first_chunk::<8>().ok_or(TokenError::Shape)?;
        let (cluster, body) = rest.split_first_chunk::<CLUSTER_PREFIX>().ok_or(TokenError::Shape)?;
        let [kind, id, threshold] = *head;
        let kind = match kind {
            1 => ShareKind::Unlock,
            2 => ShareKind::Recovery,
            _ => return Err(TokenError::Shape),
        };
        if id == 0 || threshold < LEAST {
            return Err(TokenError::Shape);
        }
        let body = Secret::from_slice(body).ok_or(TokenError::Shape)?;
        Ok(Self { kind, id, threshold, epoch: u64::from_be_bytes(*epoch), cluster: *cluster, body })
    }
}
