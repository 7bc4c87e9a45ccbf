//! The rotation of the root, the leader's half: a new root with everything that follows from it, the end of an old one, and
//! what an offline one is to sign.

use super::found::{following_bundle, internal, listed, next_bundle, sealed_key, sealed_stk};
use super::submit::Wish;
use super::{Leader, prepared};
use crate::command::{Asked, CaKey, Command, CrossRow, NewRoot};
use crate::entropy::Entropy;
use crate::held::Prepared;
use crate::keys::Keyring;
use crate::refusal::Refusal;
use crate::state::{RootKind, State};
use holdfast_pki::given;
use holdfast_pki::issue::{RootCa, new_root};
use holdfast_pki::keys::{CertSigner, SubjectKey};
use holdfast_policy::{OperatorAct, Target};
use holdfast_types::{Digest, Millis, SecretBytes, sha256};
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::{boxes, v1};
use prost::Message as _;
use std::time::Duration;

/// What the Box of a given root's key is bound to, with revision 0 and the command's id.
pub const ROOT_KEY: &str = "root";

/// Where a new CA key rests.
#[derive(Clone, Copy)]
pub enum AtRest<'a> {
    /// In the state: its PKCS#8, to be sealed.
    Sealed(&'a SecretBytes),
    /// In the voters' token.
    Token,
}

/// The CA key that the port calls `name`, as the state keeps it.
pub fn ca_key(keys: &Keyring, name: &str, key: AtRest<'_>, entropy: &mut Entropy) -> Result<CaKey, Refusal> {
    match key {
        AtRest::Sealed(pkcs8) => sealed_key(keys, "ca", name, pkcs8, entropy).map(CaKey::Sealed),
        AtRest::Token => Ok(CaKey::Token(name.to_owned())),
    }
}

/// A root to be added, with the keys at hand.
pub struct RootMaterial<'a> {
    /// Its key; `None` = the key stays offline: its issuer is asked for once it is trusted.
    pub signer: Option<&'a dyn CertSigner>,
    /// The operators' own certificate; `None` = one is made for the key.
    pub der: Option<&'a [u8]>,
    /// Where the key rests: under the name that was ordered.
    pub key: CaKey,
    /// The key of its first issuer.
    pub issuer: &'a dyn CertSigner,
    /// Where that one rests.
    pub issuer_key: CaKey,
    /// Trusted roots whose keys can be used now, by the hash of their certificates.
    pub old: &'a [(Digest, &'a dyn CertSigner)],
    /// Life of the new root, unless it is given.
    pub life: Duration,
}

/// Whether operators may bring this root: what would not work later is refused now.
pub fn given_root(state: &State, der: &[u8]) -> Result<(), Refusal> {
    given::check_root(der, &state.cluster()?.id, state.last_at).map_err(|e| Refusal::invalid(e.to_string()))?;
    state.fresh_root(der)
}

/// A new root with all that follows from it: added, or shown to Admins where it was ordered without the old ones.
pub fn add_root(leader: &Leader<'_>, made: RootMaterial<'_>, entropy: &mut Entropy) -> Result<Prepared<()>, Refusal> {
    let state = leader.state;
    let (cluster, now) = (state.cluster()?.id, leader.now);
    let (der, not_after) = match (made.der, made.signer) {
        (Some(der), _) => {
            given_root(state, der)?;
            (der.to_vec(), given::not_after(der).map_err(internal)?)
        }
        (None, Some(signer)) => {
            let root = new_root(signer, &cluster, entropy.draw16("root-serial"), now, made.life).map_err(internal)?;
            (root.der, root.not_after)
        }
        (None, None) => return Err(Refusal::invalid("a root without a key and without a certificate")),
    };
    let root = sha256(&[&der]);
    let mut cross = Vec::new();
    for (by, signer) in made.old {
        let old = state.root(by).ok_or_else(|| Refusal::changed("the trusted roots changed meanwhile"))?;
        // What is expired certifies nothing.
        if old.not_after > now {
            cross.push((root, certified(&old.der, *signer, &der, now, entropy)?));
        }
    }
    if let Some(signer) = made.signer {
        // So that a rotation can be led back at any time.
        for old in state.roots().iter().filter(|r| r.not_after > now) {
            cross.push((old.sha256(), certified(&der, signer, &old.der, now, entropy)?));
        }
    }
    let (issuer_der, issuer_not_after) = match made.signer {
        Some(signer) => {
            let key = SubjectKey::from_sec1(&made.issuer.sec1()).map_err(internal)?;
            let ca = RootCa::open(&der, signer).map_err(internal)?;
            let issuer =
                ca.issuer(&key, entropy.draw16("issuer-serial"), now, leader.lives.issuer).map_err(internal)?;
            (issuer.der, issuer.not_after)
        }
        None => (Vec::new(), now),
    };
    let signers: Vec<&dyn CertSigner> = made.old.iter().map(|(_, s)| *s).chain(made.signer).collect();
    let by_admins = state.root_wanted(now).is_some_and(|t| t.without_old);
    let bundle = next_bundle(state, &signers, now, |b| {
        b.roots.push(der.clone());
        b.cross.extend(cross.iter().map(|(_, x)| x.der.clone()));
        if by_admins {
            b.epoch = state.epoch().saturating_add(ASK_ROOM);
            b.charter_version = state.charter().version;
        }
    })?;
    let (key, issuer_key) = (made.key, made.issuer_key);
    let new = NewRoot { der, not_after, key, cross, issuer_der, issuer_key, issuer_not_after, bundle };
    let new = Box::new(new);
    let command = if by_admins { Command::RootPropose(new) } else { Command::RootAdd(new) };
    Ok(prepared(now, entropy, command, ()))
}

/// The root `subject`, certified by the root `by`.
fn certified(
    by: &[u8],
    signer: &dyn CertSigner,
    subject: &[u8],
    now: Millis,
    entropy: &mut Entropy,
) -> Result<CrossRow, Refusal> {
    let ca = RootCa::open(by, signer).map_err(internal)?;
    let cert = ca.cross(subject, entropy.draw16("cross-serial"), now).map_err(internal)?;
    Ok(CrossRow { by: sha256(&[by]), der: cert.der, not_after: cert.not_after })
}

/// The end of a root: the Bundle without it, which it signs itself where its key can be used. What the Bundle is told of
/// cross-certificates by roots that are no more goes with it. Over a frozen copy the guard lets everything pass: the caller asks
/// the state itself.
pub fn drop_root(
    state: &State,
    signers: &[&dyn CertSigner],
    root: &Digest,
    now: Millis,
    entropy: &mut Entropy,
) -> Result<Prepared<()>, Refusal> {
    state.drop_guard(root, now)?;
    let gone = state.root(root).ok_or_else(|| Refusal::not_found("trusted root", root))?;
    let kept: Vec<&[u8]> = state.roots().iter().filter(|r| r.der != gone.der).map(|r| r.der.as_slice()).collect();
    let between = |x: &CrossRow| x.by != *root && state.root(&x.by).is_some() && x.not_after > now;
    let rows = state.roots().iter().filter(|r| r.der != gone.der);
    let cross: Vec<Vec<u8>> = rows.flat_map(|r| &r.cross).filter(|x| between(x)).map(|x| x.der.clone()).collect();
    let bundle = next_bundle(state, signers, now, |b| {
        b.roots = kept.iter().map(|d| d.to_vec()).collect();
        b.cross = cross;
    })?;
    Ok(prepared(now, entropy, Command::RootDrop { root: *root, bundle }, ()))
}

/// Epochs that may pass while an offline root is carried to its machine and back, or while Admins sign one after the other: what
/// is signed counts at this epoch.
const ASK_ROOM: u64 = 1 << 20;

/// Asks an offline root for an issuer and for the next Bundle, which lists a new statement key. `issuer` is made for it and
/// proves itself in the request; where it rests is said by `issuer_key`, under the name of its [`super::issuer_name`].
#[expect(clippy::too_many_arguments, reason = "each is a thing of its own that only the leader has at hand")]
pub fn ask_offline(
    state: &State,
    keys: &Keyring,
    root: &Digest,
    issuer: &dyn CertSigner,
    issuer_key: CaKey,
    stk: &Ed25519Key,
    life: Duration,
    now: Millis,
    entropy: &mut Entropy,
) -> Result<Prepared<()>, Refusal> {
    let facts = sealed_stk(keys, stk, now, now.plus(life), entropy)?;
    let mut bundle = following_bundle(state, now)?;
    bundle.epoch = state.epoch().saturating_add(ASK_ROOM);
    bundle.stks.push(listed(stk, &facts));
    let csr = holdfast_pki::csr::request(issuer).map_err(internal)?;
    let bundle = bundle.encode_to_vec();
    let asked = Asked { root: *root, issuer_key, csr, stk: facts, bundle, since: now };
    Ok(prepared(now, entropy, Command::RootAsk(Box::new(asked)), ()))
}

impl Leader<'_> {
    /// An order for another root, in the policy's words: what would be refused later is refused now.
    pub(super) fn root_wish(&self, r: &v1::RotateRoot) -> Result<Wish, Refusal> {
        let kind = RootKind::parse(&r.kind).ok_or_else(|| Refusal::invalid("a root is software, hsm or given"))?;
        self.state.may_order_root(r.without_old)?;
        match kind {
            RootKind::Given => given_root(self.state, &r.cert)?,
            RootKind::Software | RootKind::Token
                if r.cert.is_empty() && r.box_sha256.is_empty() && r.key.is_empty() => {}
            RootKind::Software | RootKind::Token => {
                return Err(Refusal::invalid("a root that is made here brings no certificate and no key"));
            }
        }
        Ok(Wish::new(OperatorAct::RotateRoot, Target::Cluster))
    }

    /// A given root's key, opened and sealed under the keyring, if it travels with the order: it must be the certificate's.
    pub(super) fn given_key(
        &self,
        c: &v1::Command,
        r: &v1::RotateRoot,
        sealed_box: &[u8],
        entropy: &mut Entropy,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        if r.box_sha256.is_empty() {
            return Ok(None);
        }
        if sha256(&[sealed_box]).0 != r.box_sha256.as_slice() {
            return Err(Refusal::invalid("the sealed key is not the one that was signed"));
        }
        let aad = boxes::intake_aad(ROOT_KEY, 0, &c.command_id);
        let pkcs8 = self.opened_intake(&aad, sealed_box)?;
        let point = given::p256_of_pkcs8(pkcs8.expose());
        if point.is_none() || point != holdfast_pki::bundle::sec1_of_cert(&r.cert) {
            return Err(Refusal::invalid("the key is not the certificate's: a P-256 key in PKCS#8 is expected"));
        }
        let key = sealed_key(self.keys, "ca", &self.state.root_name(self.now), &pkcs8, entropy)?;
        // Plain data into a growing vector: cannot fail; an empty key is refused where it is applied.
        Ok(Some(postcard::to_stdvec(&key).unwrap_or_default()))
    }
}
