//! What the context remembers of unlock and recovery keys: nothing secret. With it a wrong key or share is named before any
//! voter is asked, and a voter that slept through rotations is opened by the present key.

use crate::context::ContextDir;
use crate::errors::{Code, Failure};
use crate::files;
use crate::slots::{Chain, SlotKind, chains_near};
use data_encoding::HEXLOWER;
use holdfast_types::Digest;
use serde::{Deserialize, Serialize};

/// STORED: golden file `cli/golden/keys.hex`.
const FILE: &str = "keys.toml";
/// Far longer than any.
const MAX_FILE: u64 = 4 << 20;

/// `keys.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KnownKeys {
    /// Oldest first.
    #[serde(default)]
    pub keys: Vec<KnownKey>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KnownKey {
    /// `unlock` or `recovery`.
    pub kind: String,
    /// The unlock epoch, or the version of the charter that names the recovery key.
    pub epoch: u64,
    /// The half that voters see, hex.
    pub public: String,
    /// Shares needed; 0 = whole.
    pub threshold: u8,
    /// SHA-256 of each share, hex.
    pub share_digests: Vec<String>,
    /// Box of the secret before this one for whoever has this one, hex; empty if there is none.
    pub chain: String,
}

impl KnownKeys {
    /// What the context remembers; nothing, if there is no context or no such file.
    pub fn load(dir: &ContextDir) -> Result<Self, Failure> {
        let path = dir.path(FILE);
        if !path.exists() {
            return Ok(Self::default());
        }
        let bytes = files::read(&path, MAX_FILE)?;
        let read = std::str::from_utf8(&bytes).ok().and_then(|text| toml::from_str(text).ok());
        let help = "remove it: it holds no key, but then a wrong share is no longer named";
        read.ok_or_else(|| Failure::new(Code::NoContext, format!("{} is damaged", path.display()), help))
    }
    fn save(&self, dir: &ContextDir) -> Result<(), Failure> {
        let text = toml::to_string(self)
            .map_err(|e| Failure::new(Code::Failed, format!("cannot write {FILE}: {e}"), "report this"))?;
        dir.write(FILE, text.as_bytes())
    }
    /// Remembers a key, in place of what was said of its epoch before.
    pub fn remember(dir: &ContextDir, key: KnownKey) -> Result<(), Failure> {
        let mut all = Self::load(dir)?;
        all.keys.retain(|k| (&k.kind, k.epoch) != (&key.kind, key.epoch));
        all.keys.push(key);
        all.save(dir)
    }
    /// The key of an epoch.
    pub fn of(&self, kind: SlotKind, epoch: u64) -> Option<&KnownKey> {
        self.keys.iter().find(|k| k.kind == kind.word() && k.epoch == epoch)
    }
    /// Whether `public` is a key that was ever made here.
    pub fn knows(&self, public: &[u8; 32]) -> bool {
        let public = HEXLOWER.encode(public);
        self.keys.iter().any(|k| k.public == public)
    }
    /// Digests of the shares of the key of an epoch; empty if they are not known.
    pub fn share_digests(&self, kind: SlotKind, epoch: u64) -> Vec<Digest> {
        self.of(kind, epoch).map(KnownKey::digests).unwrap_or_default()
    }
    /// The chains, from each key to the one before it.
    pub fn chains(&self) -> Vec<Chain> {
        let one = |k: &KnownKey| chains_near(k.epoch, &HEXLOWER.decode(k.chain.as_bytes()).unwrap_or_default());
        self.keys.iter().flat_map(one).collect()
    }
}

impl KnownKey {
    fn digests(&self) -> Vec<Digest> {
        self.share_digests.iter().filter_map(|d| Digest::parse(d)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(epoch: u64) -> KnownKey {
        KnownKey {
            kind: "unlock".into(),
            epoch,
            public: "ab".repeat(32),
            threshold: 2,
            share_digests: vec!["cd".repeat(32), "ef".repeat(32)],
            chain: "0102".into(),
        }
    }

    #[test]
    fn what_is_remembered_of_keys_is_stored_as_it_always_was_and_read_as_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "x").unwrap();
        assert_eq!(KnownKeys::load(&dir).unwrap(), KnownKeys::default());
        dir.create().unwrap();
        KnownKeys::remember(&dir, key(2)).unwrap();
        KnownKeys::remember(&dir, KnownKey { kind: "recovery".into(), ..key(2) }).unwrap();
        KnownKeys::remember(&dir, key(2)).unwrap();
        let path = dir.path(FILE);
        files::tests::golden("keys", &path);
        let all = KnownKeys::load(&dir).unwrap();
        assert_eq!(all.keys.len(), 2);
        assert!(all.knows(&[0xab; 32]) && !all.knows(&[0xac; 32]));
        assert_eq!(all.share_digests(SlotKind::Unlock, 2).len(), 2);
        assert!(all.share_digests(SlotKind::Unlock, 3).is_empty());
        assert!(all.chains().contains(&Chain { older: 1, sealed: vec![1, 2] }));
        std::fs::write(&path, "keys = 3\n").unwrap();
        assert!(KnownKeys::load(&dir).unwrap_err().message.contains("keys.toml is damaged"));
    }
}
