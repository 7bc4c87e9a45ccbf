//! `init`: a new voter's disk and the first entries of a new cluster, made aside and put in place by one rename.

use crate::disk::ident::Ident;
use crate::disk::slots::{Recipient, Slots};
use crate::disk::{DiskError, keys};
use crate::failure::{WHOLE, refused, unproposed};
use crate::hsm::{self, Token};
use crate::keystore::{NewKey, random32};
use crate::raft::{Options, PeerNetwork, Store, Voter};
use crate::registry::Registry;
use holdfast_hsm::{KeyPort, Purpose, SoftwareKeys};
use holdfast_transport::failure::{Failure, FailureKind};
use holdfast_transport::keys::PrivateKey;
use holdfast_types::{Secret, SecretBytes, VoterId};
use holdfast_vault_core::prepare::{self, FoundingKeys, Lives};
use holdfast_vault_core::{CaKey, Command, Entropy, Keyring, UnlockKey, command_voter};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::keys::Ed25519Key;
use holdfast_wire::v1;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::broadcast;

/// Where a voter's disk lies within the state directory, and where it is while it is being made.
pub const VOTER_DIR: &str = "voter";
const MAKING_DIR: &str = "founding";
/// A voter of the next era that is whole and is to take the place of the one that is there; the era's number follows.
const NEXT_PREFIX: &str = "voter.era-";
/// The voter whose place it took; the number of the era that ended it follows.
const BEFORE_PREFIX: &str = "voter.before-era-";
/// What to do about a disk that cannot be used.
const ROOM: &str = "check that the state directory exists, is writable and has room";
/// What to do where the credential that opens the disk is missing or another.
const CREDENTIAL: &str = "see `LoadCredential` in the unit, or unlock with the unlock or recovery key";
/// The first voter's number.
const FIRST: VoterId = VoterId(1);

/// The disk key slots of a new voter.
pub struct Founded {
    /// To be handed to the operator, who proves that each opens.
    pub slots: Slots,
    /// The disk key: the voter goes on unlocked.
    pub disk_key: keys::DiskKey,
}

pub(crate) fn disk(e: DiskError) -> Failure {
    let (code, help) = match &e {
        DiskError::NoCredential => ("no-slot", CREDENTIAL),
        DiskError::BadCredential(_) => ("bad-key", CREDENTIAL),
        DiskError::Token(e) => return hsm::failure(e),
        DiskError::BadKey => ("bad-key", "use the current unlock key or the recovery key of this cluster"),
        DiskError::NoSlot => ("no-slot", "use a key of a kind that this voter has a slot for"),
        DiskError::OtherCluster { .. } => ("wrong-cluster", WHOLE),
        DiskError::OtherVoter { .. } => ("wrong-voter", WHOLE),
        DiskError::Missing(_) => ("not-initialized", WHOLE),
        DiskError::Corrupt { .. } | DiskError::Format { .. } => ("corrupt", WHOLE),
        DiskError::Recipient(_) | DiskError::Entropy | DiskError::Io { .. } => ("disk", ROOM),
    };
    let refused =
        matches!(e, DiskError::BadKey | DiskError::NoSlot | DiskError::NoCredential | DiskError::BadCredential(_));
    let kind = if refused { FailureKind::Refused } else { FailureKind::Failed };
    Failure::new(kind, code, e.to_string()).help(help)
}

fn io(step: &'static str, e: &std::io::Error) -> Failure {
    Failure::failed("disk", format!("cannot {step}: {e}")).help(ROOM)
}

/// Removes what an interrupted founding left behind: nobody was told of it.
pub fn clean(state_dir: &Path) -> Result<(), Failure> {
    remove(&state_dir.join(MAKING_DIR))
}

/// Removes a voter that was founded and could not be opened, before anybody was told of it.
pub fn discard(state_dir: &Path) -> Result<(), Failure> {
    remove(&state_dir.join(VOTER_DIR))?;
    crate::disk::boot::forget(state_dir).map_err(|e| io("remove the anchor of an unfinished founding", &e))
}

fn remove(dir: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io("remove an unfinished founding", &e)),
    }
}

/// An empty directory in which a voter's disk is made.
pub fn making(state_dir: &Path) -> Result<PathBuf, Failure> {
    clean(state_dir)?;
    let dir = state_dir.join(MAKING_DIR);
    std::fs::create_dir_all(&dir).map_err(|e| io("create the voter's directory", &e))?;
    Ok(dir)
}

/// Puts a disk that is made in its place; it is there for good when this returns.
pub fn put_in_place(dir: &Path, state_dir: &Path) -> Result<(), Failure> {
    put(dir, state_dir, VOTER_DIR)
}

/// Lays a voter that is made beside the one that is there: from here on the next start puts it in place.
pub fn put_beside(dir: &Path, state_dir: &Path, era: u64) -> Result<(), Failure> {
    put(dir, state_dir, &format!("{NEXT_PREFIX}{era}"))
}

fn put(dir: &Path, state_dir: &Path, name: &str) -> Result<(), Failure> {
    let made = std::fs::File::open(dir).and_then(|d| d.sync_all());
    made.map_err(|e| io("sync the voter's directory", &e))?;
    move_within(state_dir, dir, &state_dir.join(name))
}

/// Puts a voter of the next era in place, if one waits. The one before is kept beside it. Cut off at any point, the next start
/// goes on.
pub fn exchange(state_dir: &Path) -> Result<(), Failure> {
    let all = std::fs::read_dir(state_dir).map_err(|e| io("read the state directory", &e))?;
    let names = all.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let eras = names.filter_map(|name| name.strip_prefix(NEXT_PREFIX)?.parse::<u64>().ok());
    let Some(era) = eras.max() else { return Ok(()) };
    let voter = state_dir.join(VOTER_DIR);
    if voter.exists() {
        move_within(state_dir, &voter, &state_dir.join(format!("{BEFORE_PREFIX}{era}")))?;
    }
    move_within(state_dir, &state_dir.join(format!("{NEXT_PREFIX}{era}")), &voter)?;
    tracing::info!(era, "the voter of a new era is in place; the one before is kept beside it");
    Ok(())
}

/// Renames, for good when this returns.
fn move_within(state_dir: &Path, from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::rename(from, to).map_err(|e| io("put the new voter in place", &e))?;
    let parent = std::fs::File::open(state_dir).and_then(|d| d.sync_all());
    parent.map_err(|e| io("sync the state directory", &e))
}

/// A store that could not be made.
pub fn store_failed(e: crate::raft::StoreError) -> Failure {
    Failure::failed("disk", e.to_string()).help(ROOM)
}

/// Founds a cluster with this voter: nothing of it is visible before everything is on disk.
pub async fn found(
    state_dir: &Path,
    request: &v1::InitRequest,
    lives: &Lives,
    token: Option<&Arc<Token>>,
) -> Result<Founded, Failure> {
    let token = wanted_token(token, &request.hsm)?;
    let charter =
        request.charter.as_ref().ok_or_else(|| Failure::invalid("invalid-input", "the charter is missing"))?;
    let unlock = prepare::founding_unlock(request).map_err(refused)?;
    let cluster = prepare::founding_cluster(charter).map_err(refused)?;
    let doc: v1::Charter =
        holdfast_wire::statement::peek(charter).map_err(|e| Failure::invalid("invalid-input", e.to_string()))?;
    let recovery_pk = doc.recovery.map(|r| r.public_key).unwrap_or_default();
    let dir = making(state_dir)?;
    let disk_key = keys::generate().map_err(disk)?;
    let mut slots = Slots::create(cluster, FIRST, &disk_key, doc.version, &recovery_pk).map_err(disk)?;
    match &unlock {
        Some(key) => slots.seal_to(1, &disk_key, Recipient::Unlock { epoch: 1 }, &key.pk).map_err(disk)?,
        None => slots.add_plain(1, &disk_key).map_err(disk)?,
    }
    slots.store(&dir).map_err(disk)?;
    let disk_keys = Arc::new(slots.open(vec![disk_key.duplicate()]).map_err(disk)?);
    let ident = new_ident()?;
    ident.store(&dir, &disk_keys).map_err(disk)?;
    // A token may take its time.
    let command = match token {
        Some(_) => tokio::task::block_in_place(|| first_command(charter, &ident, unlock, lives, token))?,
        None => first_command(charter, &ident, unlock, lives, None)?,
    };
    commit_first(&dir, disk_keys, command).await?;
    put_in_place(&dir, state_dir)?;
    Ok(Founded { slots, disk_key })
}

/// A new voter's keys; it has no certificate yet.
pub fn new_ident() -> Result<Ident, Failure> {
    let key = PrivateKey::generate().map_err(|e| Failure::failed("no-entropy", e.to_string()))?;
    Ok(Ident {
        kem_ikm: Secret::take(&mut random32()?),
        next_kem_ikm: None,
        tls_key: SecretBytes::new(key.pkcs8().to_vec()),
        chain: Vec::new(),
    })
}

/// The token that the root's key is to be made in: the configured one, or none.
fn wanted_token<'a>(token: Option<&'a Arc<Token>>, uri: &str) -> Result<Option<&'a Arc<Token>>, Failure> {
    const HELP: &str = "give --hsm the URI of [hsm] in the voter's configuration; see docs/operations/hsm.md";
    if uri.is_empty() {
        return Ok(None);
    }
    let token = token.ok_or_else(|| Failure::invalid("invalid-input", "this voter has no token").help(HELP))?;
    if token.is_named_by(uri)? {
        return Ok(Some(token));
    }
    Err(Failure::invalid("invalid-input", "this voter's token is another one").help(HELP))
}

/// Several clusters may share a token: what is in it bears the cluster's name.
fn name_in_token(key: &mut CaKey, name: &str) {
    if let CaKey::Token(n) = key {
        name.clone_into(n);
    }
}

/// The command that founds a cluster with this voter, its keys made here or in the token.
pub fn first_command(
    charter: &v1::Statement,
    ident: &Ident,
    unlock: Option<UnlockKey>,
    lives: &Lives,
    token: Option<&Arc<Token>>,
) -> Result<Vec<u8>, Failure> {
    let cluster = prepare::founding_cluster(charter).map_err(refused)?;
    let short: String = cluster.hex().chars().take(16).collect();
    let (root_name, issuer_name) = (format!("root/{short}"), format!("issuer/{short}"));
    let port = Arc::new(SoftwareKeys::new());
    let made = |token: Option<&Arc<Token>>, purpose, name: &str| {
        let token = token.map(|t| Arc::clone(t) as Arc<dyn KeyPort>);
        NewKey::make(&port, token, purpose, name).map_err(|e| hsm::failure(&e))
    };
    let root = made(token, Purpose::Root, &root_name)?;
    let issuer = made(token.filter(|t| t.makes_issuers()), Purpose::Issuer, &issuer_name)?;
    let stk = Ed25519Key::from_seed(Secret::take(&mut random32()?));
    let keyring = Keyring::new(cluster, 1, Secret::take(&mut random32()?), Secret::take(&mut random32()?));
    let made = FoundingKeys {
        root: &root.signer,
        root_key: root.rests(),
        issuer: &issuer.signer,
        issuer_key: issuer.rests(),
        stk: &stk,
    };
    let (_, kem_pk) = derive_keypair(ident.kem_ikm.expose());
    let voter = command_voter(FIRST, kem_pk);
    let mut entropy = Entropy::new(random32()?);
    let p =
        prepare::found(charter, &keyring, &made, voter, unlock, lives.issuer, holdfast_transport::now(), &mut entropy);
    let mut stamped = p.map_err(refused)?.command;
    if let Command::Found(f) = &mut stamped.command {
        name_in_token(&mut f.keys.root_key, &root_name);
        name_in_token(&mut f.keys.issuer_key, &issuer_name);
    }
    Ok(stamped.encode())
}

async fn commit_first(dir: &Path, keys: Arc<keys::DiskKeys>, command: Vec<u8>) -> Result<(), Failure> {
    let store = Store::create(dir, keys).map_err(|e| Failure::failed("disk", e.to_string()).help(ROOM))?;
    let (events, _) = broadcast::channel(16);
    let machine = Registry::new(store.audit(), events);
    let options = Options { id: FIRST, snapshot_every: 10_000 };
    let failed = |e: crate::raft::StartError| Failure::failed("raft", e.to_string()).help(ROOM);
    let voter = Voter::start(store, machine, &options, PeerNetwork::alone()).await.map_err(failed)?;
    voter.found("").await.map_err(failed)?;
    let done = voter.proposer().propose(command).await.map_err(unproposed)?.map_err(refused);
    voter.shutdown().await;
    done.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(dir: &Path, what: &str) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("what"), what).unwrap();
    }
    fn said(dir: &Path) -> String {
        std::fs::read_to_string(dir.join("what")).unwrap()
    }

    #[test]
    fn a_voter_of_the_next_era_takes_its_place_from_wherever_the_exchange_was_cut_off() {
        let (voter, next, before) = ("voter", "voter.era-3", "voter.before-era-3");
        // Both there; the old one moved already; all done.
        for (old_at, new_at) in [(voter, next), (before, next), (before, voter)] {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            lay(&at(old_at), "old");
            lay(&at("founding-made"), "new");
            if new_at == next {
                put_beside(&at("founding-made"), dir.path(), 3).unwrap();
            } else {
                std::fs::rename(at("founding-made"), at(new_at)).unwrap();
            }
            for _ in 0..2 {
                exchange(dir.path()).unwrap();
                assert_eq!((said(&at(voter)), said(&at(before))), ("new".to_owned(), "old".to_owned()));
                assert!(!at(next).exists());
            }
        }
    }

    #[test]
    fn without_a_voter_of_the_next_era_nothing_is_exchanged() {
        let dir = tempfile::tempdir().unwrap();
        lay(&dir.path().join("voter"), "old");
        lay(&dir.path().join("voter.before-era-2"), "older");
        lay(&dir.path().join("voter.era-x"), "something else");
        exchange(dir.path()).unwrap();
        assert_eq!(said(&dir.path().join("voter")), "old");
    }
}
