//! Checkpoints: C2SP tlog-checkpoint in a C2SP signed note, signed with Ed25519.
//!
//! ```text
//! holdfast/<trust-domain>/<era>\n<size>\n<root, base64>\n\n— <origin> <base64(key hash[4] ‖ signature[64])>\n
//! ```

use crate::keys::{ALG_ED25519, SignError, StatementSigner, verify};
use crate::v1::PublicKey;
use data_encoding::BASE64;
use holdfast_types::{Digest, sha256};

/// Longest note that is looked at, in bytes.
pub const MAX_NOTE: usize = 16 << 10;

/// Why a checkpoint is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a checkpoint note.
    #[error("not a checkpoint: malformed")]
    Malformed,
    /// It speaks of another log.
    #[error("checkpoint of another log")]
    Origin,
    /// No signature by a key that counts here.
    #[error("checkpoint is not signed by a key that counts here")]
    Signature,
}

/// A log's size and root under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// `holdfast/<trust-domain>/<era>`.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Merkle root.
    pub root: Digest,
}

/// The log's name.
pub fn origin(trust_domain: &str, era: u64) -> String {
    format!("holdfast/{trust_domain}/{era}")
}

fn key_hash(name: &str, key: &[u8]) -> [u8; 4] {
    let d = sha256(&[name.as_bytes(), b"\n\x01", key]).0;
    let [a, b, c, e, ..] = d;
    [a, b, c, e]
}

/// One line below a note: `— <name> <base64(key hash[4] ‖ signature)>`.
struct Signature<'a> {
    name: &'a str,
    key_hash: [u8; 4],
    bytes: Vec<u8>,
}
impl<'a> Signature<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (name, blob) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        let blob = BASE64.decode(blob.as_bytes()).ok()?;
        let (key_hash, bytes) = blob.split_first_chunk::<4>()?;
        // C2SP signed-note: names hold neither spaces nor plus signs.
        let plain = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
        (plain && !bytes.is_empty()).then(|| Self { name, key_hash: *key_hash, bytes: bytes.to_vec() })
    }
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(&self.root.0))
    }
    /// The signed note.
    pub fn sign(&self, key: &dyn StatementSigner) -> Result<Vec<u8>, SignError> {
        let text = self.text();
        let mut blob = key_hash(&self.origin, &key.public().key).to_vec();
        blob.extend(key.sign(text.as_bytes())?);
        Ok(format!("{text}\n\u{2014} {} {}\n", self.origin, BASE64.encode(&blob)).into_bytes())
    }
    /// Verifies a note: it must speak of `origin` and be signed by one of `keys` (Ed25519). Lines of other signers may be
    /// among its signatures; anything else, and a bad signature under one of `keys`, refuses it.
    pub fn verify(note: &[u8], origin: &str, keys: &[PublicKey]) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE {
            return Err(NoteError::Malformed);
        }
        let all = std::str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
        let (text, signatures) = all.split_once("\n\n").ok_or(NoteError::Malformed)?;
        let text = format!("{text}\n");
        let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
        let signatures = signatures.split('\n').map(Signature::parse).collect::<Option<Vec<_>>>();
        let c = Self::parse_text(&text)?;
        if c.origin != origin {
            return Err(NoteError::Origin);
        }
        let mut signed = false;
        for s in signatures.ok_or(NoteError::Malformed)? {
            for key in keys.iter().filter(|k| k.alg == ALG_ED25519 && key_hash(s.name, &k.key) == s.key_hash) {
                if !verify(key, text.as_bytes(), &s.bytes) {
                    return Err(NoteError::Signature);
                }
                signed = true;
            }
        }
        if signed { Ok(c) } else { Err(NoteError::Signature) }
    }
    fn parse_text(text: &str) -> Result<Self, NoteError> {
        let mut l = text.lines();
        let (Some(origin), Some(size), Some(root), None) = (l.next(), l.next(), l.next(), l.next()) else {
            return Err(NoteError::Malformed);
        };
        let n: u64 = size.parse().map_err(|_| NoteError::Malformed)?;
        let root =
            BASE64.decode(root.as_bytes()).ok().and_then(|r| Digest::from_slice(&r)).ok_or(NoteError::Malformed)?;
        let c = Self { origin: origin.to_owned(), size: n, root };
        if c.text() == text { Ok(c) } else { Err(NoteError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Ed25519Key;
    use holdfast_types::Secret;

    fn key(n: u8) -> Ed25519Key {
        Ed25519Key::from_seed(Secret::take(&mut [n; 32]))
    }

    #[test]
    fn a_checkpoint_is_believed_only_under_its_own_name_and_key() {
        let c = Checkpoint { origin: origin("a.example", 1), size: 7, root: sha256(&[b"r"]) };
        let n = c.sign(&key(1)).unwrap();
        assert_eq!(Checkpoint::verify(&n, &c.origin, &[key(1).public()]), Ok(c.clone()));
        assert_eq!(Checkpoint::verify(&n, &c.origin, &[key(2).public()]), Err(NoteError::Signature));
        assert_eq!(Checkpoint::verify(&n, "holdfast/a.example/2", &[key(1).public()]), Err(NoteError::Origin));
        let text = String::from_utf8(n).unwrap();
        for bad in [
            text.replace("\n7\n", "\n8\n"),
            text.replace("\n7\n", "\n07\n"),
            text.replace("\n\n", "\n"),
            text.replace("\n7\n", "\n7\nx\n"),
        ] {
            assert!(Checkpoint::verify(bad.as_bytes(), &c.origin, &[key(1).public()]).is_err(), "{bad}");
        }
    }
}
