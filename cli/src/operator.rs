//! The operator's keys on this machine: the operator key signs changes, the publisher key vouches for image digests.
//!
//! Seeds live in files of the context and in locked memory; nothing here ever prints or sends one.

use crate::clock;
use crate::context::{Context, ContextDir};
use crate::errors::{Code, Failure};
use crate::files;
use data_encoding::HEXLOWER;
use holdfast_types::Secret;
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::statement::{self, Document};
use holdfast_wire::v1;
use zeroize::{Zeroize as _, Zeroizing};

const OPERATOR_KEY: &str = "operator.key";
const PUBLISHER_KEY: &str = "publisher.key";

/// The operator of a context, able to sign.
pub struct Operator {
    /// As the charter names it.
    pub id: String,
    /// Signs commands, specs, mandates and logins.
    pub key: Ed25519Key,
    /// Vouches for image digests.
    pub publisher: Ed25519Key,
}

impl Operator {
    /// Makes fresh keys; nothing is written yet.
    pub fn generate(id: &str) -> Result<Self, Failure> {
        let key = || clock::random_secret().map(Ed25519Key::from_seed);
        Ok(Self { id: id.to_owned(), key: key()?, publisher: key()? })
    }
    /// Writes the keys into the context's folder.
    pub fn save(&self, dir: &ContextDir) -> Result<(), Failure> {
        for (file, key) in [(OPERATOR_KEY, &self.key), (PUBLISHER_KEY, &self.publisher)] {
            dir.write(file, text_of_key(key).as_bytes())?;
        }
        Ok(())
    }
    /// Reads the keys of a context.
    pub fn load(ctx: &Context) -> Result<Self, Failure> {
        let key = |file: &str| read_key(&ctx.dir, file);
        Ok(Self { id: ctx.settings.operator.clone(), key: key(OPERATOR_KEY)?, publisher: key(PUBLISHER_KEY)? })
    }
    /// Signs `doc` with the operator key.
    pub fn sign<T: Document>(&self, doc: &T) -> Result<v1::Statement, Failure> {
        sign(doc, &self.key)
    }
    /// Signs `doc` with the publisher key.
    pub fn vouch(&self, doc: &v1::Voucher) -> Result<v1::Statement, Failure> {
        sign(doc, &self.publisher)
    }
}

fn sign<T: Document>(doc: &T, key: &Ed25519Key) -> Result<v1::Statement, Failure> {
    statement::sign(doc, &[key]).map_err(|e| Failure::new(Code::Failed, e, "check the key files of the context"))
}

/// A key as it is stored: its seed in hex.
pub fn text_of_key(key: &Ed25519Key) -> Zeroizing<String> {
    Zeroizing::new(HEXLOWER.encode(key.seed().expose()))
}

/// The key that is stored as `text`.
pub fn key_of_text(text: &[u8]) -> Option<Ed25519Key> {
    let mut seed = HEXLOWER.decode(text.trim_ascii()).unwrap_or_default();
    let secret = Secret::from_slice(&seed);
    seed.zeroize();
    secret.map(Ed25519Key::from_seed)
}

fn read_key(dir: &ContextDir, file: &str) -> Result<Ed25519Key, Failure> {
    let path = dir.path(file);
    let text = files::read_private(&path, 256)?;
    let damaged =
        || Failure::new(Code::NoContext, format!("{} is not a key file", path.display()), "restore it from a backup");
    key_of_text(&text).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_written_are_the_keys_read() {
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "x").unwrap();
        dir.create().unwrap();
        let op = Operator::generate("op-a").unwrap();
        op.save(&dir).unwrap();
        assert_eq!(read_key(&dir, OPERATOR_KEY).unwrap().public_bytes(), op.key.public_bytes());
        assert_ne!(op.key.public_bytes(), op.publisher.public_bytes());
        dir.write(OPERATOR_KEY, b"not hex").unwrap();
        assert!(read_key(&dir, OPERATOR_KEY).is_err());
    }
}
