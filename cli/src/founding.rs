//! The keys of a founding: on disk before a vault is asked, and until they have been printed.
//!
//! LAW: there is no cluster whose only keys were never on a disk (test `an_init_that_is_cut_off_goes_on_with_its_keys`,
//! decision 0030). So an `init` that did not end is gone on with, by the same keys, and never begun anew over them. The
//! file is overwritten and removed once everything has been said.

use crate::args::Init;
use crate::charter;
use crate::clock;
use crate::context::ContextDir;
use crate::errors::{Code, Failure};
use crate::files;
use crate::keyout::NewKey;
use crate::known::KnownKey;
use crate::operator::{Operator, key_of_text, text_of_key};
use crate::shares::{KeySecret, Scheme, combine};
use crate::slots::{SlotKey, SlotKind, parse_secret};
use data_encoding::HEXLOWER;
use holdfast_types::{ClusterId, OperatorId, Secret, TrustDomain, kind};
use holdfast_wire::share::KeyShare;
use holdfast_wire::token::print_key;
use holdfast_wire::v1;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize as _, Zeroizing};

const FILE: &str = "founding.toml";
/// Far longer than any.
const MAX_FILE: u64 = 64 << 10;
/// The unlock epoch and the charter's version of a founding.
const FIRST: u64 = 1;

/// An unlock or recovery key as it is handed to the operator.
pub struct Key {
    /// Opens slots.
    pub slot: SlotKey,
    /// The half that the voter sees.
    pub public: [u8; 32],
    /// What the operator is shown.
    pub printed: Zeroizing<String>,
}

impl Key {
    /// A fresh one.
    pub fn make(slot_kind: SlotKind) -> Result<Self, Failure> {
        let secret: Secret<kind::UnlockSecret, 32> = clock::random_secret()?;
        let (slot, public) = SlotKey::derive(slot_kind, secret.expose());
        Ok(Self { slot, public, printed: print_key(slot_kind.word(), &secret) })
    }
    fn parse(printed: &str) -> Result<Self, Failure> {
        let (slot, public) = SlotKey::parse_with_public(printed)?;
        Ok(Self { slot, public, printed: Zeroizing::new(printed.to_owned()) })
    }
}

/// What a cluster is founded with. The charter follows from it, and with it the cluster's name.
pub struct Founding {
    /// The operator, with the publisher key.
    pub operator: Operator,
    /// The SPIFFE trust domain.
    pub trust_domain: TrustDomain,
    /// Opens every voter and every backup.
    pub recovery: Key,
    /// Opens voters; `None` without autolock.
    pub unlock: Option<Key>,
    /// The unlock key in shares, as they are printed; empty if it stays whole.
    pub unlock_shares: Vec<Zeroizing<String>>,
    /// The token that the root's key is made in, by its URI.
    pub hsm: Option<String>,
    nonce: [u8; 32],
    socket: PathBuf,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    vault_socket: PathBuf,
    operator: String,
    trust_domain: String,
    nonce: String,
    operator_key: String,
    publisher_key: String,
    recovery_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlock_key: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unlock_shares: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hsm: Option<String>,
}
impl Drop for Raw {
    fn drop(&mut self) {
        [&mut self.operator_key, &mut self.publisher_key, &mut self.recovery_key].into_iter().for_each(|k| k.zeroize());
        self.unlock_key.zeroize();
        self.unlock_shares.zeroize();
    }
}

impl Founding {
    /// With fresh keys; nothing is written yet.
    pub fn make(a: &Init, socket: &Path) -> Result<Self, Failure> {
        let operator = Operator::generate(&operator_name(a.operator.as_deref())?)?;
        let nonce = clock::random()?;
        let trust_domain = match &a.trust_domain {
            Some(name) => {
                TrustDomain::parse(name).map_err(|e| Failure::new(Code::Usage, e, "give another --trust-domain"))?
            }
            None => charter::default_trust_domain(&nonce, &operator)?,
        };
        let recovery = Key::make(SlotKind::Recovery)?;
        let unlock = if a.autolock { Some(Key::make(SlotKind::Unlock)?) } else { None };
        let (unlock_shares, hsm, socket) = (Vec::new(), a.hsm.clone(), socket.to_owned());
        let mut founding = Self { operator, trust_domain, recovery, unlock, unlock_shares, hsm, nonce, socket };
        if let (Some(scheme), Some(unlock)) = (Scheme::of(a.unlock_shares, a.unlock_threshold)?, &founding.unlock) {
            let (_, secret) = parse_secret(&unlock.printed)?;
            let split = NewKey::of(&secret, SlotKind::Unlock, FIRST, &founding.cluster()?, Some(scheme))?;
            founding.unlock_shares = split.printed;
        }
        Ok(founding)
    }
    /// The name of the cluster that follows from all this.
    pub fn cluster(&self) -> Result<ClusterId, Failure> {
        Ok(ClusterId::of_charter(&self.charter()?.payload))
    }
    /// The shares, read back from what is printed.
    pub fn shares(&self) -> Result<Vec<KeyShare>, Failure> {
        let damaged = |e| Failure::new(Code::Failed, format!("a share was not written right: {e}"), "report this");
        self.unlock_shares.iter().map(|s| KeyShare::parse(s).map_err(damaged)).collect()
    }
    /// The unlock key made of what is printed: of as many shares as are needed, if it was split.
    pub fn unlock_as_printed(&self) -> Result<Option<SlotKey>, Failure> {
        let Some(unlock) = &self.unlock else { return Ok(None) };
        let mut shares = self.shares()?;
        let Some(needed) = shares.first().map(|s| usize::from(s.threshold)) else {
            return SlotKey::parse_with_public(&unlock.printed).map(|(key, _)| Some(key));
        };
        shares.truncate(needed);
        let fits = |s: &KeySecret| SlotKey::derive(SlotKind::Unlock, s.expose()).1 == unlock.public;
        let secret = combine(&shares, &[], &fits)?;
        Ok(Some(SlotKey::derive(SlotKind::Unlock, secret.expose()).0))
    }
    /// What the context is to remember of the keys.
    pub fn known(&self) -> Result<Vec<KnownKey>, Failure> {
        let shares = self.shares()?;
        let known = |kind: SlotKind, key: &Key, shares: &[KeyShare]| KnownKey {
            kind: kind.word().to_owned(),
            epoch: FIRST,
            public: HEXLOWER.encode(&key.public),
            threshold: shares.first().map_or(0, |s| s.threshold),
            share_digests: shares.iter().map(|s| s.digest().hex()).collect(),
            chain: String::new(),
        };
        let unlock = self.unlock.as_ref().map(|k| known(SlotKind::Unlock, k, &shares));
        Ok([known(SlotKind::Recovery, &self.recovery, &[])].into_iter().chain(unlock).collect())
    }
    /// The charter, signed: the same bytes each time.
    pub fn charter(&self) -> Result<v1::Statement, Failure> {
        let charter = charter::founding(&self.operator, self.nonce, &self.trust_domain, self.recovery.public);
        self.operator.sign(&charter)
    }
    /// Writes it down; on a disk when this returns.
    pub fn save(&self, dir: &ContextDir) -> Result<(), Failure> {
        let raw = Raw {
            vault_socket: self.socket.clone(),
            operator: self.operator.id.clone(),
            trust_domain: self.trust_domain.as_str().to_owned(),
            nonce: HEXLOWER.encode(&self.nonce),
            operator_key: text_of_key(&self.operator.key).to_string(),
            publisher_key: text_of_key(&self.operator.publisher).to_string(),
            recovery_key: self.recovery.printed.to_string(),
            unlock_key: self.unlock.as_ref().map(|k| k.printed.to_string()),
            unlock_shares: self.unlock_shares.iter().map(|s| s.to_string()).collect(),
            hsm: self.hsm.clone(),
        };
        let text = toml::to_string(&raw).map(Zeroizing::new);
        let text = text.map_err(|e| Failure::new(Code::Failed, format!("cannot write {FILE}: {e}"), "report this"))?;
        dir.write(FILE, text.as_bytes())
    }
    /// The one that did not end, if there is one.
    pub fn load(dir: &ContextDir) -> Result<Option<Self>, Failure> {
        let path = dir.path(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read_private(&path, MAX_FILE)?;
        let damaged = || {
            let what = format!("{} is damaged: it may hold the only keys of a cluster", path.display());
            Failure::new(Code::ContextExists, what, "restore it, or choose another context with --context NAME")
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let raw: Raw = toml::from_str(text).map_err(|_| damaged())?;
        let nonce = HEXLOWER.decode(raw.nonce.as_bytes()).ok().and_then(|n| n.try_into().ok()).ok_or_else(damaged)?;
        let key = |text: &str| key_of_text(text.as_bytes()).ok_or_else(damaged);
        let operator =
            Operator { id: raw.operator.clone(), key: key(&raw.operator_key)?, publisher: key(&raw.publisher_key)? };
        Ok(Some(Self {
            operator,
            trust_domain: TrustDomain::parse(&raw.trust_domain).map_err(|_| damaged())?,
            recovery: Key::parse(&raw.recovery_key)?,
            unlock: raw.unlock_key.as_deref().map(Key::parse).transpose()?,
            unlock_shares: raw.unlock_shares.iter().map(|s| Zeroizing::new(s.clone())).collect(),
            hsm: raw.hsm.clone(),
            nonce,
            socket: raw.vault_socket.clone(),
        }))
    }
    /// Refuses to go on with this founding if the command line speaks of another one.
    pub fn must_match(&self, a: &Init, socket: &Path, dir: &ContextDir) -> Result<(), Failure> {
        let other = |option: Option<&String>, ours: &str| option.is_some_and(|o| o != ours);
        let (operator, domain) = (a.operator.as_ref(), a.trust_domain.as_ref());
        let scheme = self.shares()?.first().map(|s| s.threshold).zip(u8::try_from(self.unlock_shares.len()).ok());
        let same = a.autolock == self.unlock.is_some()
            && scheme == a.unlock_threshold.zip(a.unlock_shares)
            && !other(operator, &self.operator.id)
            && !other(domain, self.trust_domain.as_str())
            && a.hsm == self.hsm
            && socket == self.socket;
        if same {
            return Ok(());
        }
        let autolock = if self.unlock.is_some() { " --autolock" } else { "" };
        let split = scheme.map(|(k, n)| format!(" --unlock-shares {n} --unlock-threshold {k}")).unwrap_or_default();
        let hsm = self.hsm.as_ref().map(|uri| format!(" --hsm '{uri}'")).unwrap_or_default();
        let what = format!(
            "an `init` of this context did not end: --vault-socket {}{autolock}{split}{hsm} --operator {} --trust-domain {}",
            self.socket.display(),
            self.operator.id,
            self.trust_domain.as_str()
        );
        let help = format!(
            "repeat it with those options; if surely no vault was founded by it, remove {}",
            dir.path(FILE).display()
        );
        Err(Failure::new(Code::ContextExists, what, help))
    }
    /// Removes the file: all has been said.
    pub fn forget(dir: &ContextDir) -> Result<(), Failure> {
        files::wipe(&dir.path(FILE))
    }
}

/// `--operator`, or `op-` and the user's name as far as it fits an id.
fn operator_name(given: Option<&str>) -> Result<String, Failure> {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
    let name = given.map_or_else(|| default_operator(&user), ToOwned::to_owned);
    OperatorId::parse(&name).map_err(|e| Failure::new(Code::Usage, e, "give another --operator"))?;
    Ok(name)
}

fn default_operator(user: &str) -> String {
    let kept: String =
        user.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(60).collect();
    format!("op-{}", if kept.is_empty() { "admin" } else { &kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_named_after_the_user_as_far_as_an_id_allows() {
        for (user, id) in [("alice", "op-alice"), ("Bob.Smith", "op-bobsmith"), ("", "op-admin"), ("äö", "op-admin")]
        {
            assert_eq!(default_operator(user), id);
        }
        assert_eq!(operator_name(Some("a b")).unwrap_err().code, "usage");
    }

    fn options(autolock: bool) -> Init {
        Init {
            vault_socket: "/s".into(),
            autolock,
            trust_domain: None,
            operator: Some("op-a".into()),
            unlock_shares: None,
            unlock_threshold: None,
            hsm: None,
        }
    }

    #[test]
    fn what_was_written_down_founds_the_same_cluster_again_and_no_other() {
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "x").unwrap();
        dir.create().unwrap();
        assert!(Founding::load(&dir).unwrap().is_none());
        let (a, socket) = (options(true), Path::new("/s"));
        let made = Founding::make(&a, socket).unwrap();
        made.save(&dir).unwrap();
        let again = Founding::load(&dir).unwrap().unwrap();
        assert_eq!(again.charter().unwrap(), made.charter().unwrap());
        assert_eq!(again.recovery.printed, made.recovery.printed);
        assert_eq!(again.unlock.as_ref().unwrap().public, made.unlock.as_ref().unwrap().public);
        again.must_match(&a, socket, &dir).unwrap();
        let hsm = Init { hsm: Some("pkcs11:token=ca".to_owned()), ..options(true) };
        for (options, socket) in [(options(false), "/s"), (options(true), "/other"), (hsm, "/s")] {
            let f = again.must_match(&options, Path::new(socket), &dir).unwrap_err();
            assert!(f.message.contains("--autolock") && f.help.contains("founding.toml"), "{}", f.lines());
        }
        Founding::forget(&dir).unwrap();
        assert!(Founding::load(&dir).unwrap().is_none());
    }

    #[test]
    fn a_founding_that_was_cut_off_keeps_its_shares_and_they_make_its_key() {
        let home = tempfile::tempdir().unwrap();
        let dir = ContextDir::new(home.path(), "x").unwrap();
        dir.create().unwrap();
        let split = |shares| Init { unlock_shares: Some(shares), unlock_threshold: Some(2), ..options(true) };
        let socket = Path::new("/s");
        let made = Founding::make(&split(3), socket).unwrap();
        made.save(&dir).unwrap();
        let again = Founding::load(&dir).unwrap().unwrap();
        assert_eq!((again.unlock_shares.len(), &again.unlock_shares), (3, &made.unlock_shares));
        let key = again.unlock_as_printed().unwrap().unwrap();
        assert_eq!(key.public, made.unlock.as_ref().unwrap().public);
        let known = again.known().unwrap();
        assert_eq!((known[0].kind.as_str(), known[0].threshold), ("recovery", 0));
        assert_eq!((known[1].threshold, known[1].share_digests.len()), (2, 3));
        again.must_match(&split(3), socket, &dir).unwrap();
        for other in [split(4), options(true)] {
            let f = again.must_match(&other, socket, &dir).unwrap_err();
            assert!(f.message.contains("--unlock-shares 3 --unlock-threshold 2"), "{}", f.lines());
        }
    }
}
