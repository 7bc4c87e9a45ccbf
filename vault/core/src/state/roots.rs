//! The trusted roots, and the rotation of the root: three guarded transitions, Add, Switch and Drop (protocol, root
//! rotation; model `rootrot.py`). Here is what is stored of it, and the guards.
//!
//! LAW: any two live identities can validate each other's chain, at every step of every rotation
//! (`any_two_live_identities_can_validate_each_other_whatever_happens`).

use super::{Issuer, RootRow, State, VoterState};
use crate::command::{Asked, CaKey, CrossRow, NewRoot};
use crate::refusal::Refusal;
use holdfast_types::{Digest, Millis, VoterId};
use serde::{Deserialize, Serialize};

/// What kind of root is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootKind {
    /// Its key is made here, and kept sealed in the state.
    Software,
    /// Its key is made in the voters' token, and never leaves it.
    Token,
    /// The operators' own certificate.
    Given,
}
impl RootKind {
    /// Lower-case word, as statements say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Token => "hsm",
            Self::Given => "given",
        }
    }
    /// The kind of that name.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Software, Self::Token, Self::Given].into_iter().find(|k| k.as_str() == word)
    }
}

/// A root that operators brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GivenRoot {
    /// Its certificate, DER.
    pub der: Vec<u8>,
    /// Where its key is.
    pub key: CaKey,
}

/// A root that was ordered and is not made yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootTarget {
    /// Of which kind.
    pub kind: RootKind,
    /// The key port's name of its key: the same after a crash, so that a key that was made already is found again.
    pub name: String,
    /// The operators' own.
    pub given: Option<GivenRoot>,
    /// Who ordered it.
    pub by: String,
    /// When.
    pub ordered: Millis,
    /// No trusted root can sign: Admins approve its Bundle in their place.
    pub without_old: bool,
}

/// A root that is trusted no more. Its certificate, and what it certified, are served until they expire: whoever slept since
/// may trust it alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetiredRoot {
    /// `H` of its certificate.
    pub sha256: Digest,
    /// Its certificate, DER.
    pub der: Vec<u8>,
    /// End of its validity.
    pub not_after: Millis,
    /// Epoch of the Bundle that listed it first.
    pub added_epoch: u64,
    /// Its key, to be destroyed.
    pub key: CaKey,
    /// Keys of issuers under it that are in the token, to be destroyed with it, by the key port's names.
    pub issuers: Vec<String>,
    /// It, certified by roots before it.
    pub cross: Vec<CrossRow>,
    /// When it was dropped.
    pub dropped: Millis,
    /// Nothing is left of its key.
    pub destroyed: bool,
}

impl RetiredRoot {
    /// Whether something of its keys is in a token.
    pub(crate) fn is_in_token(&self) -> bool {
        matches!(self.key, CaKey::Token(_)) || !self.issuers.is_empty()
    }
}

/// The rotation of the root. STORED with the state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rotation {
    /// The root that was ordered and is not made yet.
    pub target: Option<RootTarget>,
    /// The trusted root that all are led to; `None` = the one that signs.
    pub to: Option<Digest>,
    /// What a root whose key is offline is to sign.
    pub asked: Option<Asked>,
    /// When it last went a step on.
    pub since: Millis,
    /// Roots that are trusted no more, oldest first.
    pub retired: Vec<RetiredRoot>,
    /// The root that was made without the old ones, with its Bundle as far as Admins have signed it.
    pub proposed: Option<Box<NewRoot>>,
    /// Trusted roots whose keys are gone, as Admins said: nothing waits for them.
    pub gone: Vec<Digest>,
    /// Names of keys in the token that nothing uses any more.
    pub spent: Vec<String>,
}

/// What the leader does next for the rotation.
#[derive(Debug, Clone, PartialEq)]
pub enum RootStep {
    /// Nothing: it waits, or there is none.
    Nothing,
    /// Make the root, and add it.
    Make(RootTarget),
    /// Another root signs.
    Switch(Digest),
    /// Machines that are under another root than the one that signs are told to renew.
    Renew,
    /// A root that nobody needs is dropped.
    Drop(Digest),
    /// A dropped root's key is destroyed.
    Destroy(Digest),
}

impl State {
    /// The trusted roots, oldest first.
    pub fn roots(&self) -> &[RootRow] {
        &self.roots
    }
    /// The trusted root with this hash.
    pub fn root(&self, sha256: &Digest) -> Option<&RootRow> {
        self.roots.iter().find(|r| r.sha256() == *sha256)
    }
    /// The rotation of the root.
    pub fn rotation(&self) -> &Rotation {
        &self.rotation
    }
    /// The newest issuer under a root.
    pub fn issuer_under(&self, root: &Digest) -> Option<&Issuer> {
        self.issuers.iter().rev().find(|i| i.root == *root)
    }
    /// Hash of the root that signs.
    pub fn signing_root_sha256(&self) -> Option<Digest> {
        self.signing_root().map(RootRow::sha256)
    }
    /// A member whose certificate under `root` has not expired at `now`, be it the one that it shows or the one that it was given
    /// last. LAW: a voter is met with by what it shows (`a_root_stays_while_a_voter_shows_a_certificate_under_it`).
    pub(super) fn voters_under(&self, root: Digest, now: Millis) -> impl Iterator<Item = VoterId> {
        let live = move |c: &crate::CertFacts| c.root == root && c.not_after > now;
        let under = move |v: &super::VoterRow| v.state == VoterState::Member && v.cert.iter().chain(&v.shown).any(live);
        self.all_voters().filter(move |(_, v)| under(v)).map(|(id, _)| id)
    }
    /// Whether the root `to` may sign from now on: every verifier that trusts any of the roots reaches it by a
    /// cross-certificate, or every live identity said that it trusts it.
    pub fn switch_guard(&self, to: &Digest) -> Result<(), Refusal> {
        let now = self.last_at;
        let row = self.root(to).ok_or_else(|| Refusal::not_found("trusted root", to))?;
        if row.signer {
            return Err(Refusal::changed("this root signs already"));
        }
        if row.not_after <= now {
            return Err(Refusal::changed("this root has expired"));
        }
        if self.issuer_under(to).is_none_or(|i| i.not_after <= now) {
            return Err(Refusal::changed("there is no issuer under this root yet: it is offline, and is to sign one"));
        }
        // An expired root anchors nothing: nobody looks for a path to it.
        let mut others = self.roots.iter().filter(|r| r.der != row.der && r.not_after > now).map(RootRow::sha256);
        if others.all(|by| row.cross.iter().any(|x| x.by == by && x.not_after > now)) {
            return Ok(());
        }
        match self.index.living.behind(row.added_epoch, now).next() {
            Some(id) => Err(Refusal::changed(format!("{id} has not said yet that it trusts this root"))),
            None => Ok(()),
        }
    }
    /// Whether the root may be dropped at `now`: nobody's certificate is under it, and every live identity trusts the one
    /// that signs.
    pub fn drop_guard(&self, root: &Digest, now: Millis) -> Result<(), Refusal> {
        let row = self.root(root).ok_or_else(|| Refusal::not_found("trusted root", root))?;
        let signer = self.signing_root().ok_or_else(|| Refusal::corrupt("root"))?;
        if row.signer {
            return Err(Refusal::changed("this root signs: another one has to sign first"));
        }
        if let Some(id) = self.voters_under(*root, now).next() {
            return Err(Refusal::changed(format!("voter {id} has a certificate under this root")));
        }
        if let Some(id) = self.index.living.under(root, now).next() {
            return Err(Refusal::changed(format!("{id} has a certificate under this root")));
        }
        match self.index.living.behind(signer.added_epoch, now).next() {
            Some(id) => Err(Refusal::changed(format!("{id} has not said yet that it trusts the root that signs"))),
            None => Ok(()),
        }
    }
    /// Epoch of the newest Bundle; 0 before the founding.
    pub fn bundle_epoch(&self) -> u64 {
        let newest = self.bundles.last().and_then(|b| crate::Command::statement(b));
        let bundle = newest.and_then(|st| holdfast_wire::statement::peek::<holdfast_wire::v1::Bundle>(&st).ok());
        bundle.map_or(0, |b| b.epoch)
    }
    /// The Bundle that `id`, who says that it believes `acked`, is to be noted for: none that is not there. 0 where that is no
    /// news, as in nearly every renewal: the newest one is not read then.
    pub(crate) fn newly_acked(&self, id: &str, acked: u64) -> u64 {
        let known = self.identities.get(id).map_or(0, |row| row.acked);
        if acked <= known { 0 } else { acked.min(self.bundle_epoch()) }
    }
}
