//! Contexts: what this machine knows about a cluster, in `$HOLDFAST_HOME/contexts/<name>/`.
//!
//! ```text
//! context.toml     cluster id, anchor, addresses, operator id        trust.pb    verified charter and bundle chains
//! operator.key     Ed25519 seed, hex                                 log.toml    the last log size and root verified
//! publisher.key    Ed25519 seed, hex                                 login.*     8-hour certificate and its key
//! keys.toml        public halves of unlock and recovery keys
//! ```
//! Folders are 0700, files 0600. Keys are made once and never overwritten.

use crate::errors::{Code, Failure};
use crate::files;
use holdfast_types::{ClusterId, Digest};
use holdfast_wire::{strict, v1};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Anchors of the eras before, one a line, hex.
const ANCHORS: &str = "anchors";
/// Longest file of a context that is read; the trust chains are the long ones.
const MAX_FILE: u64 = 16 << 20;

/// `context.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The cluster's self-certifying name, hex.
    pub cluster_id: String,
    /// The SPIFFE trust domain.
    pub trust_domain: String,
    /// Pins the root certificate at founding time, hex.
    pub anchor: String,
    /// The operator whose key lies here, as the charter names it.
    pub operator: String,
    /// Service listeners of the voters, `host:port`.
    pub service_addrs: Vec<String>,
    /// Join listeners of the voters, `host:port`.
    pub join_addrs: Vec<String>,
    /// The unix socket of a voter on this machine, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_socket: Option<PathBuf>,
    /// Sockets of further voters that can be reached from here, as by `ssh -L`; added by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vault_sockets: Vec<PathBuf>,
}

impl Settings {
    /// Every voter's socket that is known here, each once.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = Vec::new();
        for path in self.vault_socket.iter().chain(&self.vault_sockets) {
            if !all.contains(path) {
                all.push(path.clone());
            }
        }
        all
    }
}

/// The last state of the log that this machine verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenLog {
    /// Era of that log.
    pub era: u64,
    /// Leaves.
    pub size: u64,
    /// Merkle root, hex.
    pub root: String,
}

/// A folder that is, or will be, a context.
#[derive(Debug, Clone)]
pub struct ContextDir {
    dir: PathBuf,
    name: String,
}

/// A context that was read and checked.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where it lies.
    pub dir: ContextDir,
    /// `context.toml`.
    pub settings: Settings,
    /// `settings.cluster_id`, parsed.
    pub cluster: ClusterId,
    /// `settings.anchor`, parsed.
    pub anchor: Digest,
}

/// `$HOLDFAST_HOME`, or `~/.config/holdfast`.
pub fn home() -> Result<PathBuf, Failure> {
    if let Some(h) = std::env::var_os("HOLDFAST_HOME").filter(|h| !h.is_empty()) {
        return Ok(h.into());
    }
    std::env::home_dir().map(|h| h.join(".config/holdfast")).ok_or_else(|| {
        Failure::new(Code::NoContext, "neither HOLDFAST_HOME nor HOME is set", "set HOLDFAST_HOME to a folder")
    })
}

impl ContextDir {
    /// The context `name` under `home`; the name is one path element.
    pub fn new(home: &Path, name: &str) -> Result<Self, Failure> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(ok) {
            let help = "use 1 to 64 letters, digits, '-' and '_'";
            return Err(Failure::new(Code::Usage, format!("context name {name:?} is not valid"), help));
        }
        Ok(Self { dir: home.join("contexts").join(name), name: name.to_owned() })
    }
    /// The context's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// A file of it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }
    /// Refuses if the context exists already.
    pub fn must_be_new(&self) -> Result<(), Failure> {
        let held = ["context.toml", "operator.key"].into_iter().find(|f| self.path(f).exists());
        let Some(file) = held else { return Ok(()) };
        let what = format!("context {:?} exists already: {}", self.name, self.path(file).display());
        Err(Failure::new(Code::ContextExists, what, "choose another with --context NAME"))
    }
    /// Makes the folder.
    pub fn create(&self) -> Result<(), Failure> {
        files::make_private_dir(&self.dir)
    }
    /// Writes one of its files. One program at a time: all that run hear of a new root at the same moment.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path("write.lock");
        let lock = File::create(&path).map_err(|e| Failure::io("write", &path, &e))?;
        lock.lock().map_err(|e| Failure::io("lock", &path, &e))?;
        files::write_private(&self.path(file), bytes)
    }
    /// Writes `context.toml`.
    pub fn write_settings(&self, s: &Settings) -> Result<(), Failure> {
        let text = toml::to_string(s)
            .map_err(|e| Failure::new(Code::Failed, format!("cannot write context.toml: {e}"), "report this"))?;
        self.write("context.toml", text.as_bytes())
    }
    /// Reads and checks the context.
    pub fn load(self) -> Result<Context, Failure> {
        let path = self.path("context.toml");
        if !path.exists() {
            let what = format!("there is no context {:?} in {}", self.name, self.dir.display());
            return Err(Failure::new(
                Code::NoContext,
                what,
                "found a cluster with `holdfast init`, or name another with --context",
            ));
        }
        let bytes = files::read(&path, MAX_FILE)?;
        let bad = |why: String| {
            Failure::new(Code::NoContext, format!("{}: {why}", path.display()), "restore the file from a backup")
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| bad("not UTF-8".to_owned()))?;
        let settings: Settings = toml::from_str(text).map_err(|e| bad(e.message().to_owned()))?;
        let cluster =
            ClusterId::parse(&settings.cluster_id).ok_or_else(|| bad("cluster-id is not 64 hex digits".to_owned()))?;
        let anchor = Digest::parse(&settings.anchor).ok_or_else(|| bad("anchor is not 64 hex digits".to_owned()))?;
        Ok(Context { dir: self, settings, cluster, anchor })
    }
}

impl Context {
    /// The trust chains as last stored; they are verified again by whoever uses them.
    ///
    /// STORED: `trust.pb`; golden file `cli/golden/trust.hex`.
    pub fn stored_trust(&self) -> Result<v1::TrustView, Failure> {
        let path = self.dir.path("trust.pb");
        let bytes = files::read(&path, MAX_FILE)?;
        let bad = |_| {
            Failure::new(Code::NoContext, format!("{} is damaged", path.display()), "restore the file from a backup")
        };
        strict::decode(&bytes, usize::MAX).map_err(bad)
    }
    /// Stores trust chains that were verified.
    pub fn store_trust(&self, t: &v1::TrustView) -> Result<(), Failure> {
        self.dir.write("trust.pb", &t.encode_to_vec())
    }
    /// Anchors of the eras before, newest last.
    pub fn earlier_anchors(&self) -> Result<Vec<Digest>, Failure> {
        let path = self.dir.path(ANCHORS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let bytes = files::read(&path, MAX_FILE)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let damaged = || {
            let what = format!("{} is damaged", path.display());
            Failure::new(Code::NoContext, what, "restore the file from a backup")
        };
        text.lines().map(|line| Digest::parse(line).ok_or_else(damaged)).collect()
    }
    /// A new era begins: its anchor takes the place of the one in force, which is kept for backups of the era before.
    pub fn begin_era(&mut self, anchor: Digest) -> Result<(), Failure> {
        let mut known = self.earlier_anchors()?;
        if !known.contains(&self.anchor) && self.anchor != anchor {
            known.push(self.anchor);
        }
        let text: String = known.iter().map(|a| format!("{}\n", a.hex())).collect();
        self.dir.write(ANCHORS, text.as_bytes())?;
        self.anchor = anchor;
        self.settings.anchor = anchor.hex();
        Ok(())
    }
    /// The last verified state of the log; `None` before the first time.
    pub fn seen_log(&self) -> Result<Option<SeenLog>, Failure> {
        let path = self.dir.path("log.toml");
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read(&path, MAX_FILE)?;
        let seen = std::str::from_utf8(&bytes).ok().and_then(|t| toml::from_str(t).ok());
        let bad = || Failure::new(Code::NoContext, format!("{} is damaged", path.display()), "remove it to start anew");
        seen.ok_or_else(bad).map(Some)
    }
    /// Remembers the log as verified.
    pub fn remember_log(&self, seen: &SeenLog) -> Result<(), Failure> {
        let text = toml::to_string(seen)
            .map_err(|e| Failure::new(Code::Failed, format!("cannot write log.toml: {e}"), "report this"))?;
        self.dir.write("log.toml", text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn settings() -> Settings {
        Settings {
            cluster_id: "ab".repeat(32),
            trust_domain: "a.example".into(),
            anchor: "cd".repeat(32),
            operator: "op-a".into(),
            service_addrs: vec!["127.0.0.1:7401".into()],
            join_addrs: vec![],
            vault_socket: None,
            vault_sockets: vec![],
        }
    }

    #[test]
    fn settings_are_stored_as_they_always_were_and_may_name_several_sockets() {
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "x").unwrap();
        dir.create().unwrap();
        let sockets = vec!["/run/b.sock".into(), "/run/a.sock".into()];
        let all = Settings { vault_socket: Some("/run/a.sock".into()), vault_sockets: sockets, ..settings() };
        dir.write_settings(&all).unwrap();
        files::tests::golden("context", &dir.path("context.toml"));
        let read = dir.clone().load().unwrap().settings;
        assert_eq!(read, all);
        assert_eq!(read.sockets(), [Path::new("/run/a.sock"), Path::new("/run/b.sock")]);
        // As it was written before there could be several.
        dir.write_settings(&settings()).unwrap();
        assert!(!std::fs::read_to_string(dir.path("context.toml")).unwrap().contains("vault-socket"));
        assert!(dir.load().unwrap().settings.sockets().is_empty());
    }

    #[test]
    fn a_context_is_private_and_comes_back_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "default").unwrap();
        assert_eq!(dir.clone().load().unwrap_err().code, Code::NoContext.word());
        dir.must_be_new().unwrap();
        dir.create().unwrap();
        dir.write_settings(&settings()).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir.path("")), mode(&dir.path("context.toml"))), (0o700, 0o600));
        assert_eq!(dir.must_be_new().unwrap_err().code, Code::ContextExists.word());
        let c = dir.load().unwrap();
        assert_eq!((c.settings.clone(), c.cluster.hex()), (settings(), "ab".repeat(32)));
        assert_eq!(c.seen_log().unwrap(), None);
        let seen = SeenLog { era: 1, size: 7, root: "00".repeat(32) };
        c.remember_log(&seen).unwrap();
        assert_eq!(c.seen_log().unwrap(), Some(seen));
    }

    #[test]
    fn the_trust_chains_are_stored_as_they_always_were_and_read_as_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "x").unwrap();
        dir.create().unwrap();
        dir.write_settings(&settings()).unwrap();
        let context = dir.load().unwrap();
        let statement = |t: &str| v1::Statement { payload: vec![1, 2], r#type: t.into(), sigs: Vec::new() };
        let sample = v1::TrustView {
            charter_chain: vec![statement("c")],
            bundle_chain: vec![statement("b")],
            ..v1::TrustView::default()
        };
        context.store_trust(&sample).unwrap();
        let path = context.dir.path("trust.pb");
        files::tests::golden("trust", &path);
        assert_eq!(context.stored_trust().unwrap(), sample);
        let mut more = std::fs::read(&path).unwrap();
        more.extend([0x7a, 0x00]);
        std::fs::write(&path, more).unwrap();
        let failure = context.stored_trust().unwrap_err();
        assert!(failure.message.ends_with("trust.pb is damaged"), "{}", failure.message);
    }

    #[test]
    fn programs_that_run_beside_each_other_store_what_they_learn() {
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "x").unwrap();
        dir.create().unwrap();
        let store = |n: u8| (0..50).map(|_| dir.write("trust.pb", &[n; 100])).find(Result::is_err);
        std::thread::scope(|s| {
            let programs: Vec<_> = (0..4).map(|n| s.spawn(move || store(n))).collect();
            programs.into_iter().for_each(|p| assert!(p.join().unwrap().is_none()));
        });
        let kept = std::fs::read(dir.path("trust.pb")).unwrap();
        assert!(kept.len() == 100 && kept.iter().all(|b| *b == kept[0]), "{kept:?}");
    }

    #[test]
    fn a_context_name_never_leaves_the_folder() {
        for bad in ["", "..", "a/b", "a b", ".x"] {
            assert_eq!(ContextDir::new(Path::new("/h"), bad).unwrap_err().code, Code::Usage.word(), "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_key_in_a_context_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "x").unwrap();
        dir.create().unwrap();
        dir.write("context.toml", b"cluster-id = \"x\"\nfoo = 1\n").unwrap();
        assert!(dir.load().unwrap_err().message.contains("unknown field"));
    }
}
