//! Keys that are made here and handed to the operator: on paper or in files before the cluster hears of them.

use crate::app::App;
use crate::args::KeyOutput;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::files;
use crate::known::KnownKey;
use crate::shares::{self, KeySecret, Scheme};
use crate::slots::{SlotKey, SlotKind};
use data_encoding::HEXLOWER;
use holdfast_types::{ClusterId, Digest};
use holdfast_wire::share::{KeyShare, ShareKind};
use holdfast_wire::token::print_key;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A key with what the operator is told to keep.
pub struct NewKey {
    /// Which slots it opens.
    pub kind: SlotKind,
    /// The unlock epoch, or the charter's version.
    pub epoch: u64,
    /// Opens slots.
    pub slot: SlotKey,
    /// Shares needed; 0 = whole.
    pub threshold: u8,
    /// The key, or each share, as it is printed.
    pub printed: Vec<Zeroizing<String>>,
    /// SHA-256 of each share.
    pub digests: Vec<Digest>,
}

/// Refuses options that could lose a key: with `--json` a key is printed when all is done, and that may be never.
pub fn must_be_handed_over(app: &App, new: &KeyOutput) -> Result<Option<Scheme>, Failure> {
    let scheme = Scheme::of(new.shares, new.threshold)?;
    if let Some(path) = &new.key_out {
        let taken = places(path, scheme.map(|s| s.shares)).into_iter().find(|p| p.exists());
        if let Some(taken) = taken {
            let what = format!("{} exists already", taken.display());
            return Err(Failure::new(Code::Usage, what, "a key is never overwritten: give another --key-out"));
        }
    } else if app.out.is_json() {
        return Err(Failure::new(Code::Usage, "--json does not print keys", "give a file with --key-out"));
    }
    Ok(scheme)
}

/// The file of a whole key, or one for each share.
fn places(path: &Path, shares: Option<u8>) -> Vec<PathBuf> {
    let numbered = |n: u8| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    shares.map_or_else(|| vec![path.to_owned()], |n| (1..=n).map(numbered).collect())
}

impl NewKey {
    /// A fresh key.
    pub fn make(kind: SlotKind, epoch: u64, cluster: &ClusterId, scheme: Option<Scheme>) -> Result<Self, Failure> {
        Self::of(&clock::random_secret()?, kind, epoch, cluster, scheme)
    }
    /// A key that exists, whole or split anew.
    pub fn of(
        secret: &KeySecret,
        kind: SlotKind,
        epoch: u64,
        cluster: &ClusterId,
        scheme: Option<Scheme>,
    ) -> Result<Self, Failure> {
        let slot = SlotKey::derive(kind, secret.expose()).0;
        let Some(scheme) = scheme else {
            let printed = vec![print_key(kind.word(), secret)];
            return Ok(Self { kind, epoch, slot, threshold: 0, printed, digests: Vec::new() });
        };
        let of = match kind {
            SlotKind::Unlock => ShareKind::Unlock,
            SlotKind::Recovery => ShareKind::Recovery,
        };
        let made = shares::split(secret, of, epoch, cluster, scheme)?;
        let printed = made.iter().map(KeyShare::print).collect();
        let digests: Vec<Digest> = made.iter().map(KeyShare::digest).collect();
        // What is handed out is proven: as many shares as are needed, read back from what is printed.
        let last = made.len().saturating_sub(usize::from(scheme.threshold));
        let needed: Vec<KeyShare> = made.into_iter().skip(last).collect();
        shares::combine(&needed, &digests, &|s| s.ct_eq(secret))?;
        Ok(Self { kind, epoch, slot, threshold: scheme.threshold, printed, digests })
    }
    /// Hands it over: into files, or on standard output at once. Returns the files.
    pub fn hand_over(&self, app: &App, out: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
        let Some(path) = out else {
            app.out.raw(&self.text())?;
            return Ok(Vec::new());
        };
        let shares = u8::try_from(self.printed.len()).ok().filter(|_| self.threshold > 0);
        let files = places(path, shares);
        for (file, key) in files.iter().zip(&self.printed) {
            files::write_private(file, Zeroizing::new(format!("{}\n", key.as_str())).as_bytes())?;
        }
        let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        app.out.note(&format!("the new {} key is in {}", self.kind.word(), names.join(", ")));
        Ok(files)
    }
    fn text(&self) -> Zeroizing<String> {
        let word = self.kind.word();
        let (n, k) = (self.printed.len(), self.threshold);
        let keys = self.printed.iter().map(|p| p.as_str()).collect::<Vec<_>>();
        let keys = Zeroizing::new(keys.join("\n"));
        let head =
            if k == 0 { format!("{word} key") } else { format!("{word} key, {n} shares of which {k} are needed") };
        Zeroizing::new(format!("{head}\n{}\n", keys.as_str()))
    }
    /// What the context remembers of it.
    pub fn known(&self, chain: &[u8]) -> KnownKey {
        KnownKey {
            kind: self.kind.word().to_owned(),
            epoch: self.epoch,
            public: HEXLOWER.encode(&self.slot.public),
            threshold: self.threshold,
            share_digests: self.digests.iter().map(Digest::hex).collect(),
            chain: HEXLOWER.encode(chain),
        }
    }
    /// The digests, as documents carry them.
    pub fn share_digests(&self) -> Vec<Vec<u8>> {
        self.digests.iter().map(|d| d.to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;
    use std::os::unix::fs::PermissionsExt as _;

    fn app(json: bool) -> App {
        let context = "x".to_owned();
        App::new(&Global { context, json, quiet: true, no_color: true, timeout: None })
    }

    #[test]
    fn a_new_key_is_in_private_files_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new.key");
        let options = |shares| KeyOutput { shares, threshold: shares.map(|_| 2), key_out: Some(path.clone()) };
        let scheme = must_be_handed_over(&app(true), &options(Some(3))).unwrap();
        let key = NewKey::make(SlotKind::Unlock, 2, &ClusterId([1; 32]), scheme).unwrap();
        let files = key.hand_over(&app(true), Some(&path)).unwrap();
        assert_eq!(files.len(), 3);
        for (file, digest) in files.iter().zip(&key.digests) {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(KeyShare::parse(&std::fs::read_to_string(file).unwrap()).unwrap().digest(), *digest);
        }
        assert_eq!(must_be_handed_over(&app(false), &options(Some(2))).unwrap_err().code, "usage");
        assert!(must_be_handed_over(&app(false), &options(None)).unwrap().is_none());
        let printed = KeyOutput { shares: None, threshold: None, key_out: None };
        assert_eq!(must_be_handed_over(&app(true), &printed).unwrap_err().code, "usage");
        assert!(must_be_handed_over(&app(false), &printed).is_ok());
    }
}
