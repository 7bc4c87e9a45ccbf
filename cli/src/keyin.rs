//! Keys and shares as they are given: read once, from files, standard input or the terminal, and joined here.

use crate::args::KeyInput;
use crate::errors::{Code, Failure};
use crate::files;
use crate::known::KnownKeys;
use crate::shares::{self, KeySecret};
use crate::slots::{SlotKey, SlotKind, parse_secret};
use holdfast_types::ClusterId;
use holdfast_wire::share::{KeyShare, ShareKind};
use std::io::IsTerminal as _;
use std::path::Path;
use zeroize::Zeroizing;

/// Longest text of keys, white space included: all shares of the largest split fit.
const MAX_KEY_TEXT: u64 = 4096;

/// What was given.
#[derive(Default)]
pub struct Given {
    whole: Vec<(SlotKind, KeySecret)>,
    shares: Vec<KeyShare>,
}

/// The kind of slot that a share's key opens.
fn kind_of(share: ShareKind) -> SlotKind {
    match share {
        ShareKind::Unlock => SlotKind::Unlock,
        ShareKind::Recovery => SlotKind::Recovery,
    }
}

impl Given {
    /// Reads what the command line names; `what` is asked for on the terminal where it names nothing.
    pub fn read(input: &KeyInput, what: &str) -> Result<Self, Failure> {
        let mut given = Self::default();
        for path in input.key_files.iter().chain(&input.share_files) {
            given.take(&text_of(path)?, &path.display().to_string())?;
        }
        if !input.is_empty() {
            return Ok(given);
        }
        if !std::io::stdin().is_terminal() {
            given.take(&text_of(Path::new("-"))?, "standard input")?;
            return Ok(given);
        }
        given.ask(what)?;
        Ok(given)
    }
    /// Asks until there is a key, or as many shares as the first one says.
    fn ask(&mut self, what: &str) -> Result<(), Failure> {
        let mut prompt = format!("{what}: ");
        loop {
            let typed = rpassword::prompt_password(&prompt).map(Zeroizing::new);
            let typed = typed
                .map_err(|e| Failure::new(Code::Io, format!("cannot read from the terminal: {e}"), "use --key-file"))?;
            self.take(&typed, "the terminal")?;
            let needed = self.shares.first().map_or(0, |s| usize::from(s.threshold));
            if self.shares.len() >= needed {
                return Ok(());
            }
            prompt = format!("share {} of {needed}: ", self.shares.len() + 1);
        }
    }
    /// Takes every key and share of a text.
    fn take(&mut self, text: &str, from: &str) -> Result<(), Failure> {
        let before = self.whole.len() + self.shares.len();
        for word in text.split_whitespace() {
            if word.starts_with("hf_share_") {
                let damaged = |e| Failure::new(Code::BadShare, format!("{from}: {e}"), "copy the share again, whole");
                self.shares.push(KeyShare::parse(word).map_err(damaged)?);
            } else {
                self.whole.push(parse_secret(word)?);
            }
        }
        if self.whole.len() + self.shares.len() > before {
            return Ok(());
        }
        let help = "give a key as it was printed: hf_unlock_v1_…, hf_recovery_v1_…, or shares of one, hf_share_v1_…";
        Err(Failure::new(Code::BadKey, format!("{from} holds no key"), help))
    }
    /// Each secret, shares joined. `fits` says whether a public key is one that something is sealed to; `cluster` is whose
    /// shares count.
    pub fn secrets(
        self,
        cluster: &ClusterId,
        known: &KnownKeys,
        fits: &dyn Fn(&[u8; 32]) -> bool,
    ) -> Result<Vec<(SlotKind, KeySecret)>, Failure> {
        let mut secrets = self.whole;
        let prefix = KeyShare::prefix_of(cluster);
        if let Some(other) = self.shares.iter().find(|s| s.cluster != prefix) {
            let what = format!("share {} belongs to another cluster", other.digest().hex());
            return Err(Failure::new(Code::WrongCluster, what, "give the shares of this cluster's key"));
        }
        let (unlock, recovery): (Vec<_>, Vec<_>) = self.shares.into_iter().partition(|s| s.kind == ShareKind::Unlock);
        for group in [unlock, recovery] {
            let Some((kind, epoch)) = group.first().map(|s| (kind_of(s.kind), s.epoch)) else { continue };
            let digests = known.share_digests(kind, epoch);
            let fits = |s: &KeySecret| fits(&SlotKey::derive(kind, s.expose()).1);
            secrets.push((kind, shares::combine(&group, &digests, &fits)?));
        }
        Ok(secrets)
    }
    /// The one secret of a kind, proven by `fits`.
    pub fn the_one(
        self,
        wanted: SlotKind,
        cluster: &ClusterId,
        known: &KnownKeys,
        fits: &dyn Fn(&[u8; 32]) -> bool,
    ) -> Result<KeySecret, Failure> {
        let mut secrets = self.secrets(cluster, known, fits)?;
        let (Some((kind, secret)), true) = (secrets.pop(), secrets.is_empty()) else {
            return Err(Failure::new(Code::Usage, "more than one key was given", "give one key, or its shares"));
        };
        let word = wanted.word();
        if kind != wanted {
            let what = format!("this is a {} key, and the {word} key is needed", kind.word());
            return Err(Failure::new(Code::BadKey, what, format!("give the {word} key")));
        }
        if fits(&SlotKey::derive(kind, secret.expose()).1) {
            return Ok(secret);
        }
        let what = format!("this {word} key is not the one that is needed");
        Err(Failure::new(Code::BadKey, what, "take the key of this cluster and of the right epoch"))
    }
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = if path == Path::new("-") {
        files::read_limited(std::io::stdin().lock(), MAX_KEY_TEXT, "standard input")?
    } else {
        files::read_private(path, MAX_KEY_TEXT)?
    };
    let text = std::str::from_utf8(&bytes).map(|t| Zeroizing::new(t.to_owned()));
    text.map_err(|_| Failure::new(Code::BadKey, "the key is not text", "give the key as `holdfast init` printed it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::Scheme;
    use holdfast_types::Secret;
    use holdfast_wire::token::print_key;

    const CLUSTER: ClusterId = ClusterId([3; 32]);

    fn secret() -> KeySecret {
        Secret::take(&mut [6; 32])
    }
    fn public() -> [u8; 32] {
        SlotKey::derive(SlotKind::Unlock, secret().expose()).1
    }
    fn printed(cluster: &ClusterId) -> Vec<String> {
        let scheme = Scheme { shares: 3, threshold: 2 };
        let all = shares::split(&secret(), ShareKind::Unlock, 1, cluster, scheme).unwrap();
        all.iter().map(|s| s.print().to_string()).collect()
    }
    fn given(text: &str) -> Result<Given, Failure> {
        let mut given = Given::default();
        given.take(text, "the file")?;
        Ok(given)
    }
    fn one(text: &str) -> Result<KeySecret, Failure> {
        given(text)?.the_one(SlotKind::Unlock, &CLUSTER, &KnownKeys::default(), &|pk| *pk == public())
    }

    #[test]
    fn a_key_is_the_same_whole_or_in_shares() {
        let whole = print_key("unlock", &secret());
        let shares = printed(&CLUSTER);
        assert!(one(&whole).unwrap().ct_eq(&secret()));
        assert!(one(&format!("{}\n{}\n", shares[0], shares[2])).unwrap().ct_eq(&secret()));
    }

    #[test]
    fn what_is_no_key_of_this_cluster_is_refused_by_what_is_wrong_with_it() {
        let (ours, theirs) = (printed(&CLUSTER), printed(&ClusterId([4; 32])));
        let other = print_key("unlock", &Secret::<holdfast_types::kind::UnlockSecret, 32>::take(&mut [7; 32]));
        let recovery = print_key("recovery", &secret());
        for (text, code) in [
            (ours[0].clone(), "too-few-shares"),
            (theirs.join("\n"), "wrong-cluster"),
            (ours[0].replace("_v1_", "_v1_1"), "bad-share"),
            (other.to_string(), "bad-key"),
            (recovery.to_string(), "bad-key"),
            (format!("{}\n{}", *other, *recovery), "usage"),
            (" \n".to_owned(), "bad-key"),
            ("nonsense".to_owned(), "bad-key"),
        ] {
            assert_eq!(one(&text).unwrap_err().code, code, "{text}");
        }
    }
}
