//! Founding a cluster; issuers and statement keys that follow.

use super::prepared;
use super::roots::{AtRest, ca_key};
use crate::command::{Command, EraKeys, Founding, SealedKey, StkFacts, VoterFacts};
use crate::entropy::Entropy;
use crate::held::Prepared;
use crate::keys::Keyring;
use crate::refusal::{Code, Refusal};
use crate::state::{State, UnlockKey};
use holdfast_pki::issue::{ROOT_LIFE, RootCa, new_root};
use holdfast_pki::keys::{CertSigner, RootStatementSigner, SubjectKey};
use holdfast_policy::OperatorAct;
use holdfast_types::{ClusterId, Millis, SecretBytes};
use holdfast_wire::charter::{CharterChain, MINT_ORCH};
use holdfast_wire::keys::{Ed25519Key, StatementSigner};
use holdfast_wire::{statement, v1};
use prost::Message as _;
use std::time::Duration;

/// Keys made for a founding, with the private halves to be sealed.
pub struct FoundingKeys<'a> {
    /// The root's key.
    pub root: &'a dyn CertSigner,
    /// Where it rests, in the token as `root/1`, or `root/era-N`.
    pub root_key: AtRest<'a>,
    /// The issuer's key.
    pub issuer: &'a dyn CertSigner,
    /// Where it rests, in the token as `issuer/1`, or `issuer/era-N`.
    pub issuer_key: AtRest<'a>,
    /// The statement key.
    pub stk: &'a Ed25519Key,
}

pub(super) fn internal(e: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Unavailable, e.to_string())
}

/// Checks charter v1: complete, and signed by every operator it names.
fn check_charter(st: &v1::Statement) -> Result<(ClusterId, [u8; 32]), Refusal> {
    let chain = CharterChain::found(st)?;
    let recovery = usable(chain.head())?;
    Ok((*chain.cluster(), recovery))
}

/// Checks what no reader of a charter checks: that it names a recovery key, and that its thresholds can be met. Answers with
/// the recovery key.
pub(super) fn usable(c: &v1::Charter) -> Result<[u8; 32], Refusal> {
    let recovery = c.recovery.as_ref().and_then(|r| <[u8; 32]>::try_from(r.public_key.as_slice()).ok());
    let recovery = recovery.ok_or_else(|| Refusal::invalid("the charter names no recovery key"))?;
    check_thresholds(c)?;
    Ok(recovery)
}

/// Each threshold is of an act that exists and can be met: one that cannot would lock everybody out for good. That none is
/// 0 or named twice, every reader of a charter checks.
fn check_thresholds(c: &v1::Charter) -> Result<(), Refusal> {
    for t in &c.thresholds {
        // The one act with two entries: who may mint a token may mint both kinds, if enough sign.
        let name = if t.action == MINT_ORCH { OperatorAct::MintToken.name() } else { t.action.as_str() };
        let act = OperatorAct::ALL.iter().find(|a| a.name() == name);
        let act =
            act.ok_or_else(|| Refusal::invalid(format!("the charter's threshold for {:?} is of no act", t.action)))?;
        let may = |o: &&v1::Operator| act.role().is_none_or(|role| o.roles.iter().any(|r| r == role));
        let signers = c.operators.iter().filter(may).count();
        if t.k as usize > signers {
            let why =
                format!("the charter wants {} signatures for {}, which {signers} operators may give", t.k, t.action);
            return Err(Refusal::invalid(why));
        }
    }
    Ok(())
}

/// The cluster that charter v1 founds, if it is acceptable.
pub fn founding_cluster(charter: &v1::Statement) -> Result<ClusterId, Refusal> {
    check_charter(charter).map(|(cluster, _)| cluster)
}

/// The unlock key that a founding names, with its shares; `None`: autolock is off.
pub fn founding_unlock(request: &v1::InitRequest) -> Result<Option<UnlockKey>, Refusal> {
    let (threshold, share_digests) = (request.threshold, request.share_digests.clone());
    if request.unlock_pk.is_empty() {
        let none = threshold == 0 && share_digests.is_empty();
        return if none { Ok(None) } else { Err(Refusal::invalid("shares are named, and no unlock key")) };
    }
    let pk = request.unlock_pk.clone();
    UnlockKey::read(&v1::UnlockPrepare { pk, threshold, share_digests, ..v1::UnlockPrepare::default() }).map(Some)
}

/// Everything that founds a cluster, in one command; replies with its name.
pub fn found(
    charter: &v1::Statement,
    keys: &Keyring,
    made: &FoundingKeys<'_>,
    voter: VoterFacts,
    unlock: Option<UnlockKey>,
    issuer_life: Duration,
    now: Millis,
    entropy: &mut Entropy,
) -> Result<Prepared<ClusterId>, Refusal> {
    let (cluster, recovery) = check_charter(charter)?;
    let founding = Founding {
        cluster,
        charter: charter.encode_to_vec(),
        keys: era_keys(keys, made, &cluster, 1, issuer_life, now, entropy)?,
        term_box: keys.box_term(1, voter.id.0, &voter.kem_pk, voter.kem_gen, entropy.draw("term-box"))?,
        recovery_box: keys.box_for_recovery(1, &recovery, entropy.draw("recovery-box"))?,
        voter,
        unlock,
    };
    Ok(prepared(now, entropy, Command::Found(Box::new(founding)), cluster))
}

/// What the era `era` begins with, under the active term of `keys`.
pub(super) fn era_keys(
    keys: &Keyring,
    made: &FoundingKeys<'_>,
    cluster: &ClusterId,
    era: u64,
    issuer_life: Duration,
    now: Millis,
    entropy: &mut Entropy,
) -> Result<EraKeys, Refusal> {
    let root = new_root(made.root, cluster, entropy.draw16("root-serial"), now, ROOT_LIFE).map_err(internal)?;
    let ca = RootCa::open(&root.der, made.root).map_err(internal)?;
    let key = SubjectKey::from_sec1(&made.issuer.sec1()).map_err(internal)?;
    let issuer = ca.issuer(&key, entropy.draw16("issuer-serial"), now, issuer_life).map_err(internal)?;
    let stk = sealed_stk(keys, made.stk, now, now.plus(issuer_life), entropy)?;
    let bundle = v1::Bundle {
        cluster_id: cluster.0.to_vec(),
        era,
        epoch: 1,
        roots: vec![root.der.clone()],
        cross: Vec::new(),
        stks: vec![listed(made.stk, &stk)],
        intake_pk: keys.intake(keys.active())?.1.to_vec(),
        prev_sha256: Vec::new(),
        charter_version: 0,
    };
    let bundle = statement::sign(&bundle, &[&RootStatementSigner(made.root)]).map_err(internal)?;
    let name = if era == 1 { "1".to_owned() } else { format!("era-{era}") };
    Ok(EraKeys {
        root_key: ca_key(keys, &format!("root/{name}"), made.root_key, entropy)?,
        root_der: root.der,
        root_not_after: root.not_after,
        issuer_key: ca_key(keys, &format!("issuer/{name}"), made.issuer_key, entropy)?,
        issuer_der: issuer.der,
        issuer_not_after: issuer.not_after,
        stk,
        bundle: bundle.encode_to_vec(),
    })
}

/// A statement key as a Bundle lists it.
pub(super) fn listed(stk: &Ed25519Key, facts: &StkFacts) -> v1::Stk {
    v1::Stk { key: Some(stk.public()), from_ms: facts.from.0, until_ms: facts.until.0 }
}

pub(super) fn sealed_key(
    keys: &Keyring,
    purpose: &str,
    name: &str,
    pkcs8: &SecretBytes,
    entropy: &mut Entropy,
) -> Result<SealedKey, Refusal> {
    let record = keys.seal(purpose, name, 1, pkcs8.expose(), entropy.draw("key"))?;
    Ok(SealedKey { name: name.to_owned(), record })
}

pub(super) fn sealed_stk(
    keys: &Keyring,
    stk: &Ed25519Key,
    from: Millis,
    until: Millis,
    entropy: &mut Entropy,
) -> Result<StkFacts, Refusal> {
    let name = format!("stk/{}", from.0);
    let record = keys.seal("stk", &name, 1, stk.seed().expose(), entropy.draw("stk"))?;
    Ok(StkFacts { public: stk.public_bytes(), key: SealedKey { name, record }, from, until })
}

/// A new issuer under the signing root, in the token by the name of its `issuer_name`.
pub fn new_issuer(
    state: &State,
    keys: &Keyring,
    root: &dyn CertSigner,
    issuer: &dyn CertSigner,
    rests: AtRest<'_>,
    life: Duration,
    now: Millis,
    entropy: &mut Entropy,
) -> Result<Prepared<()>, Refusal> {
    let row = state.signing_root().ok_or_else(|| internal("there is no root"))?;
    let ca = RootCa::open(&row.der, root).map_err(internal)?;
    let key = SubjectKey::from_sec1(&issuer.sec1()).map_err(internal)?;
    let cert = ca.issuer(&key, entropy.draw16("issuer-serial"), now, life).map_err(internal)?;
    let key = ca_key(keys, &issuer_name(state), rests, entropy)?;
    let root = row.sha256();
    Ok(prepared(now, entropy, Command::NewIssuer { root, der: cert.der, key, not_after: cert.not_after }, ()))
}

/// The key port's name of the next issuer: the same until an entry uses it.
pub fn issuer_name(state: &State) -> String {
    state.next_issuer_name()
}

/// A new statement key, listed in a new Bundle one period before its window opens, so that every node knows it by then. In
/// place of keys that are exposed it counts at once, and the Bundle lists those no more: nothing that they sign is believed.
pub fn new_stk(
    state: &State,
    keys: &Keyring,
    root: &dyn CertSigner,
    stk: &Ed25519Key,
    life: Duration,
    now: Millis,
    entropy: &mut Entropy,
) -> Result<Prepared<()>, Refusal> {
    let from = now.plus(state.stk_lead(now, life));
    let facts = sealed_stk(keys, stk, from, now.plus(life), entropy)?;
    let listed = listed(stk, &facts);
    let bundle = next_bundle(state, &[root], now, |b| {
        b.stks.retain(|s| !s.key.as_ref().is_some_and(|k| state.is_exposed_stk(&k.key)));
        b.stks.push(listed);
    })?;
    Ok(prepared(now, entropy, Command::NewStk { stk: facts, bundle }, ()))
}

/// The Bundle that follows the newest one, with what `change` says, signed by the roots. It counts only at the epoch it names.
pub(super) fn next_bundle(
    state: &State,
    roots: &[&dyn CertSigner],
    now: Millis,
    change: impl FnOnce(&mut v1::Bundle),
) -> Result<Vec<u8>, Refusal> {
    let mut bundle = following_bundle(state, now)?;
    change(&mut bundle);
    let signers: Vec<_> = roots.iter().map(|r| RootStatementSigner(*r)).collect();
    let signers: Vec<&dyn StatementSigner> = signers.iter().map(|s| s as &dyn StatementSigner).collect();
    Ok(statement::sign(&bundle, &signers).map_err(internal)?.encode_to_vec())
}

/// The newest Bundle as the next one begins: at the next epoch, after it, and without statement keys that are over.
pub(super) fn following_bundle(state: &State, now: Millis) -> Result<v1::Bundle, Refusal> {
    let chain = state.bundle_chain();
    let last = chain.last().ok_or_else(|| internal("there is no bundle"))?;
    let mut bundle: v1::Bundle = statement::peek(last)?;
    bundle.stks.retain(|s| s.until_ms > now.0);
    bundle.epoch = state.epoch() + 1;
    bundle.prev_sha256 = holdfast_types::sha256(&[&last.payload]).to_vec();
    bundle.charter_version = 0;
    Ok(bundle)
}
