//! The first start of a further voter: from a join token to a disk of its own.
//!
//! It makes its keys, joins with the token, waits for `voter admit`, and is told its number and to whom its disk key is
//! sealed. The disk is made aside and put in place by one rename. What is needed until then is kept, so that a restart goes on
//! with the same keys, with neither token nor address: the keys beside the unix socket, if that is in memory, the rest in
//! `joining/`.
//!
//! Must never: leave keys on a disk in clear where there is a place in memory for them, send anything to a server that the
//! token's anchor does not prove, or make a disk by a charter that does not follow from the cluster's name.

use crate::disk::ident::Ident;
use crate::disk::keys;
use crate::disk::slots::{Recipient, Slots};
use crate::found::{disk, making, put_in_place, store_failed};
use crate::gate::{Applied, Phase};
use crate::keystore::random32;
use crate::raft::Store;
use crate::run::{Daemon, Join};
use holdfast_pki::chain::verify_by_anchor;
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::files::{self, PRIVATE};
use holdfast_transport::join::{Admitted, Applicant, await_admission, one_cluster, read_token};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::tls::{ClientTls, Server};
use holdfast_types::{ClusterId, Digest, Role, Secret, SecretBytes, VoterId, kind};
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::charter::CharterChain;
use holdfast_wire::token::TokenRole;
use holdfast_wire::v1;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Where answers lie until there is a disk, in the state directory.
const DIR: &str = "joining";
/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (statfs(2)).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// Where the others were when this voter was admitted, for its first word to them.
const PEERS: &str = "peers";
/// How long the vault is looked for before the first start gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What to do about a join that cannot go on.
const AGAIN: &str = "empty the state directory and join again with a new token";

/// Where a join that is under way is kept.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
    keys: PathBuf,
}

impl Place {
    /// For a voter with this state directory and this unix socket: its keys lie beside the socket if that is in memory, so that
    /// no disk ever held them in clear.
    pub fn of(state_dir: &Path, socket: &Path) -> Self {
        let in_memory = |d: &Path| rustix::fs::statfs(d).is_ok_and(|s| IN_MEMORY.contains(&s.f_type));
        let beside = socket.parent().filter(|d| in_memory(d)).zip(socket.file_name());
        let keys = beside.map(|(d, name)| {
            let mut name = name.to_owned();
            name.push(".joining");
            d.join(name)
        });
        let dir = state_dir.join(DIR);
        Self { keys: keys.unwrap_or_else(|| dir.join("keys")), dir }
    }

    /// Whether a join was begun here.
    pub fn is_under_way(&self) -> bool {
        self.dir.is_dir()
    }

    /// Removes the keys of a join that is over: they lie on the voter's disk, sealed.
    pub fn clean(&self) -> Result<(), Failure> {
        self.forget_keys()?;
        match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::disk("remove", &self.dir, &e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Overwrites the keys before they are removed: a file that is only removed goes on lying in the disk's free blocks.
    fn forget_keys(&self) -> Result<(), Failure> {
        let failed = |e: std::io::Error| Failure::disk("remove", &self.keys, &e);
        let mut file = match std::fs::OpenOptions::new().write(true).open(&self.keys) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed(e)),
        };
        let len = file.metadata().and_then(|m| usize::try_from(m.len()).map_err(std::io::Error::other));
        file.write_all(&vec![0_u8; len.map_err(failed)?]).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::remove_file(&self.keys).map_err(failed)
    }

    /// Makes the directory of a new join. Keys without one are of a join that was given up.
    fn begin(&self) -> Result<(), Failure> {
        if self.is_under_way() {
            return Ok(());
        }
        self.forget_keys()?;
        std::fs::create_dir_all(&self.dir).map_err(|e| Failure::disk("create", &self.dir, &e))
    }
}

/// Where the other voters were when this one was admitted; nobody once its own state knows.
pub fn known_peers(state_dir: &Path) -> Result<BTreeMap<VoterId, String>, Failure> {
    let path = state_dir.join(PEERS);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(peer_of_line).collect()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(Failure::disk("read", &path, &e)),
    }
}

fn peer_of_line(line: &str) -> Option<(VoterId, String)> {
    let (id, addr) = line.split_once(' ')?;
    Some((VoterId(id.parse().ok()?), addr.to_owned()))
}

/// Joins until this voter is at work; a refusal ends the process.
pub async fn run(daemon: Arc<Daemon>, join: Join) {
    if let Err(failure) = joined(&daemon, &join).await {
        // Whoever was told to stop did not fail.
        if !daemon.told_to_stop().is_cancelled() {
            daemon.fail(failure);
        }
    }
}

async fn joined(daemon: &Arc<Daemon>, join: &Join) -> Result<(), Failure> {
    let place = Place::of(&daemon.config.state_dir, &daemon.config.socket);
    let keys = Keys::of(&place)?;
    let waits = match Waits::load(&place.dir)? {
        Some(waits) => waits,
        None => apply(daemon, join, &place.dir, &keys).await?,
    };
    let anchor = Digest::from_slice(&waits.anchor).ok_or_else(lost)?;
    let spki = keys.tls.spki_sha256();
    daemon.gate.set(Phase::Joining(Some(Applied { id: waits.id.clone(), spki })));
    let dialer = Dialer::new(waits.join_addrs.iter().cloned(), ClientTls::join(anchor), Timing::default());
    let admitted = await_admission(&dialer, &waits.id, &keys.tls, daemon.told_to_stop()).await?;
    let (slots, disk_key) = make_disk(&daemon.config.state_dir, &anchor, &keys, &admitted)?;
    place.clean()?;
    // Nobody opens or founds anything here meanwhile: that is for a voter that is sealed or has no disk.
    let opening = daemon.open(slots, vec![disk_key]).await?;
    tracing::info!(voter = admitted.voter_id, "joined; the join token is used up and its file may be deleted");
    opening.wait().await.map(drop)
}

/// Applies with the token, and keeps what is needed to wait.
async fn apply(daemon: &Arc<Daemon>, join: &Join, dir: &Path, keys: &Keys) -> Result<Waits, Failure> {
    let missing = || {
        Failure::invalid("not-joined", "this voter has not joined a cluster yet")
            .help("start it with --join-token-file and --vault; `holdfast token create --role voter` makes a token")
    };
    let token = read_token(join.token_file.as_deref().ok_or_else(missing)?, TokenRole::Voter)?;
    if join.vault.is_empty() {
        return Err(Failure::invalid("no-address", "no address of the vault's join listener is known")
            .help("give --vault HOST:PORT"));
    }
    let dialer = Dialer::new(join.vault.iter().cloned(), ClientTls::join(token.anchor), Timing::default());
    let (_, kem_pk) = derive_keypair(keys.kem.expose());
    let applicant = Applicant { token: &token, key: &keys.tls, hpke_pub: &kem_pk };
    let judge = |server: &Server, shown: &v1::Challenge| charter_of(server, &shown.charter_chain).map(drop);
    let ((), answer) = applicant.join(&dialer, PATIENCE, daemon.told_to_stop(), judge).await?;
    let Admitted::Pending(pending) = answer else {
        return Err(Failure::failed("join-protocol", "the vault's answer does not follow the join protocol"));
    };
    let waits = Waits { anchor: token.anchor.to_vec(), id: pending.id, join_addrs: dialer.addrs() };
    waits.store(dir)?;
    Ok(waits)
}

/// The charter chain that a server showed, if it is of the cluster that TLS has proven.
fn charter_of(server: &Server, chain: &[v1::Statement]) -> Result<CharterChain, Failure> {
    let chain = believed(chain)?;
    one_cluster(server, chain.cluster(), chain.trust_domain())?;
    Ok(chain)
}

fn believed(chain: &[v1::Statement]) -> Result<CharterChain, Failure> {
    CharterChain::verify(chain).map_err(|e| Failure::refused("cluster-not-believed", e.to_string()))
}

/// Makes this voter's disk by what it was told, and puts it in place.
fn make_disk(
    state_dir: &Path,
    anchor: &Digest,
    own: &Keys,
    admitted: &v1::VoterAdmitted,
) -> Result<(Slots, keys::DiskKey), Failure> {
    let id = VoterId(admitted.voter_id);
    let charter = believed(&admitted.charter_chain)?;
    believe_certificate(anchor, own, admitted, charter.cluster())?;
    let recovery = charter.head().recovery.as_ref().map(|r| r.public_key.clone()).unwrap_or_default();
    let dir = making(state_dir)?;
    let disk_key = keys::generate().map_err(disk)?;
    let version = charter.head().version;
    let mut slots = Slots::create(*charter.cluster(), id, &disk_key, version, &recovery).map_err(disk)?;
    match admitted.unlock_pk.as_slice() {
        [] => slots.add_plain(1, &disk_key).map_err(disk)?,
        pk => slots.seal_to(1, &disk_key, Recipient::Unlock { epoch: admitted.unlock_epoch }, pk).map_err(disk)?,
    }
    slots.store(&dir).map_err(disk)?;
    let disk_keys = Arc::new(slots.open(vec![disk_key.duplicate()]).map_err(disk)?);
    let mut kem = *own.kem.expose();
    let ident = Ident {
        kem_ikm: Secret::take(&mut kem),
        next_kem_ikm: None,
        tls_key: SecretBytes::new(own.tls.pkcs8().to_vec()),
        chain: admitted.chain.clone(),
    };
    ident.store(&dir, &disk_keys).map_err(disk)?;
    drop(Store::create(&dir, disk_keys).map_err(store_failed)?);
    let lines: Vec<String> = admitted.peers.iter().map(|p| format!("{} {}\n", p.id, p.addr)).collect();
    let peers = state_dir.join(PEERS);
    files::replace(&peers, lines.concat().as_bytes(), PRIVATE).map_err(|e| Failure::disk("write", &peers, &e))?;
    put_in_place(&dir, state_dir)?;
    Ok((slots, disk_key))
}

/// The certificate must be of the cluster that the token named, for our key, and name the number that we were told.
fn believe_certificate(
    anchor: &Digest,
    own: &Keys,
    admitted: &v1::VoterAdmitted,
    cluster: &ClusterId,
) -> Result<(), Failure> {
    let not_ours = |why: &dyn std::fmt::Display| {
        Failure::refused("certificate-not-ours", format!("the certificate that the vault gave: {why}"))
    };
    let identity = holdfast_transport::tls::LocalIdentity::new(&admitted.chain, &own.tls).map_err(|e| not_ours(&e))?;
    let (of, peer) = verify_by_anchor(identity.chain(), anchor, holdfast_transport::now()).map_err(|e| not_ours(&e))?;
    if of != *cluster || peer.id.role != Role::Vault || peer.id.name != admitted.voter_id.to_string() {
        return Err(not_ours(&format!("it names {}", peer.id)));
    }
    Ok(())
}

/// The keys that this voter joins with.
struct Keys {
    tls: PrivateKey,
    kem: Secret<kind::HpkeKey, 32>,
}

/// STORED: file `SOCKET.joining` or `joining/keys`, postcard, mode 0600, until the voter has a disk; golden file
/// `vault/golden/joining-keys.hex`.
#[derive(Serialize, Deserialize)]
struct StoredKeys {
    tls: Zeroizing<Vec<u8>>,
    kem: Zeroizing<[u8; 32]>,
}

impl Keys {
    /// Those that a join was begun with, or new ones, which are kept when this returns. Who waits has told its keys already: they
    /// cannot be others.
    fn of(place: &Place) -> Result<Self, Failure> {
        place.begin()?;
        let mut stored: StoredKeys = match read(&place.keys)? {
            Some(stored) => stored,
            None if Waits::path(&place.dir).exists() => return Err(lost()),
            None => {
                let key = PrivateKey::generate().map_err(|e| Failure::failed("no-entropy", e.to_string()))?;
                let new = StoredKeys { tls: Zeroizing::new(key.pkcs8().to_vec()), kem: Zeroizing::new(random32()?) };
                write(&place.keys, &new)?;
                new
            }
        };
        let tls = PrivateKey::from_pkcs8(&stored.tls).map_err(|_| lost())?;
        Ok(Self { tls, kem: Secret::take(&mut stored.kem) })
    }
}

/// What a voter that waits has to know. STORED: file `joining/waits`, postcard, until the voter has a disk; golden file
/// `vault/golden/joining-waits.hex`.
#[derive(Serialize, Deserialize)]
struct Waits {
    anchor: Vec<u8>,
    id: String,
    join_addrs: Vec<String>,
}

impl Waits {
    fn path(dir: &Path) -> PathBuf {
        dir.join("waits")
    }
    fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        read(&Self::path(dir))
    }
    fn store(&self, dir: &Path) -> Result<(), Failure> {
        write(&Self::path(dir), self)
    }
}

fn lost() -> Failure {
    Failure::failed("join-lost", "the join under way has lost its key").help(AGAIN)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::disk("read", path, &e)),
    };
    let (value, rest) = postcard::take_from_bytes(&bytes).map_err(|_| lost())?;
    if rest.is_empty() { Ok(Some(value)) } else { Err(lost()) }
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let bytes = crate::disk::encoded(value).map_err(|_| lost())?;
    files::replace(path, &bytes, PRIVATE).map_err(|e| Failure::disk("write", path, &e))
}

#[cfg(test)]
#[path = "joining_tests.rs"]
mod tests;
