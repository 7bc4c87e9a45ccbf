//! What lies on disks: a voter's files and state, an agent's records, a machine's keys.
//!
//! Checksums are made to fit the damage: they find accidents, and whoever writes to a disk can compute them.

use super::{damaged, unhex};
use holdfast_agent::state::{memory::MemoryFile, records::Record, records::Records};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::renew::{FileStore, KeyStore, StoreError};
use holdfast_types::{ClusterId, GrantId, Millis, Secret, SecretBytes, VoterId, sha256};
use holdfast_vault::disk::ident::Ident;
use holdfast_vault::disk::keys::{DiskKeys, Generation};
use holdfast_vault::disk::slots::Slots;
use holdfast_vault::disk::{boot, chain};
use holdfast_vault_core::{Stamped, State};
use holdfast_wire::v1;
use prost::Message as _;
use std::fs;
use std::sync::LazyLock;
use tempfile::TempDir;

/// A folder in memory.
pub(super) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

static SLOTS: LazyLock<Vec<u8>> = LazyLock::new(|| unhex(include_str!("../../vault/golden/slots.hex"), usize::MAX));

/// With the checksum at its end made to fit.
fn resealed(mut file: Vec<u8>) -> Vec<u8> {
    let Some(body) = file.len().checked_sub(32) else { return file };
    let sum = sha256(&[&file[..body]]);
    file[body..].copy_from_slice(&sum.0);
    file
}

/// The slots of a disk key: what is read is written the same again, and a disk key that is none opens nothing.
pub fn slots(data: &[u8]) {
    for file in [resealed(damaged(&SLOTS, data)), resealed(data.to_vec())] {
        if let Ok(slots) = Slots::decode(&file) {
            assert_eq!(*slots.encode().unwrap(), file);
            assert!(slots.open(vec![Secret::take(&mut [0x5a; 32])]).is_err());
        }
    }
}

fn disk_keys() -> DiskKeys {
    let current = Generation { number: 1, key: Secret::take(&mut [9; 32]) };
    DiskKeys::new(ClusterId([7; 32]), VoterId(3), current, None).unwrap()
}

static IDENT: LazyLock<(TempDir, Vec<u8>)> = LazyLock::new(|| {
    let dir = folder();
    let ident = Ident {
        kem_ikm: Secret::take(&mut [1; 32]),
        next_kem_ikm: Some(Secret::take(&mut [4; 32])),
        tls_key: SecretBytes::new(vec![2; 64]),
        chain: vec![vec![3; 300]],
    };
    ident.store(dir.path(), &disk_keys()).unwrap();
    let file = fs::read(dir.path().join("ident")).unwrap();
    (dir, file)
});

/// A voter's own keys: sealed, so that whatever is altered is found, however the checksum was made to fit.
pub fn ident(data: &[u8]) {
    let (_, honest) = &*IDENT;
    let file = resealed(damaged(honest, data));
    let dir = folder();
    fs::write(dir.path().join("ident"), &file).unwrap();
    assert!(Ident::load(dir.path(), &disk_keys()).is_err() || file == *honest);
}

static ANCHOR: LazyLock<Vec<u8>> = LazyLock::new(|| unhex(include_str!("../../vault/golden/anchor.hex"), usize::MAX));
static CHAIN: LazyLock<Vec<u8>> =
    LazyLock::new(|| unhex(include_str!("../../vault/golden/unlock-chain.hex"), usize::MAX));
/// Magic, format, cluster and voter at the beginning of each of a voter's files.
const WHOSE: usize = 4 + 1 + 32 + 8;

/// The files as they would be written again: what was read means every byte of them, of this voter's own alone.
fn rewritten(honest: &[u8], body: &[u8]) -> Vec<u8> {
    resealed([&honest[..WHOSE], body, &[0; 32]].concat())
}

/// What counts the boots of a disk: read as it was written, and never as another voter's.
pub fn anchor(data: &[u8]) {
    let dir = folder();
    for file in [resealed(damaged(&ANCHOR, data)), resealed(data.to_vec()), rewritten(&ANCHOR, data)] {
        fs::write(dir.path().join("anchor"), &file).unwrap();
        if let Ok(found) = boot::anchored(dir.path(), &ClusterId([7; 32]), VoterId(1)) {
            let (boot, end) = found.unwrap();
            let body = [boot.count.to_be_bytes().as_slice(), &boot.id, &[end]].concat();
            assert_eq!(rewritten(&ANCHOR, &body), file);
        }
    }
}

/// The box of the unlock key before: read as it was written, and never as another voter's.
pub fn unlock_chain(data: &[u8]) {
    let dir = folder();
    for file in [resealed(damaged(&CHAIN, data)), resealed(data.to_vec()), rewritten(&CHAIN, data)] {
        fs::write(dir.path().join("unlock.chain"), &file).unwrap();
        if let Ok(found) = chain::load(dir.path(), &ClusterId([7; 32]), VoterId(1)) {
            let (epoch, sealed) = found.unwrap();
            let body = [epoch.to_be_bytes().as_slice(), &sealed].concat();
            assert_eq!(rewritten(&CHAIN, &body), file);
        }
    }
}

static COMMANDS: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| include_str!("../../vault/core/golden/command.hex").lines().map(|line| unhex(line, 1)).collect());

/// A command in the log: what is read is written as it was read.
pub fn command(data: &[u8]) {
    let Some((which, damage)) = data.split_first() else { return };
    let honest = &COMMANDS[usize::from(*which) % COMMANDS.len()];
    for bytes in [damaged(honest, damage), damage.to_vec()] {
        if let Some(command) = Stamped::decode(&bytes) {
            assert_eq!(Stamped::decode(&command.encode()), Some(command));
        }
    }
}

static STATE: LazyLock<Vec<u8>> = LazyLock::new(|| unhex(include_str!("../../vault/core/golden/state.hex"), 1));

/// A snapshot of a voter's state: what is read can be looked at, and is written as it was read.
pub fn state(data: &[u8]) {
    for bytes in [damaged(&STATE, data), data.to_vec()] {
        if let Ok(state) = State::decode(&bytes) {
            let written = state.encode();
            assert_eq!(State::decode(&written).unwrap().encode(), written);
            look_at(&state);
        }
    }
}

fn look_at(state: &State) {
    let now = Millis(1_800_000_000_000);
    state.status_view(now);
    state.secret_views();
    state.token_views();
    state.mandate_views();
    state.bundle_chain();
    state.charter_chain();
    for name in state.service_names() {
        state.service_view(name);
    }
    for (id, _) in state.grants() {
        state.grant_view(id);
    }
}

/// A file of the agent's state, damaged behind a checksum that fits: `magic | SHA-256 | message`.
fn state_file(honest: &[u8], message: usize, data: &[u8]) -> Vec<u8> {
    let (head, body) = honest.split_at(honest.len() - message);
    let body = if body.is_empty() { data.to_vec() } else { damaged(body, data) };
    let magic = &head[..head.len() - 32];
    [magic, &sha256(&[&body]).0, &body].concat()
}

const GRANT: GrantId = GrantId([1; 16]);

fn record() -> Record {
    let grant = v1::Grant {
        grant_id: vec![1; 16],
        task_id: "shop.web.1".into(),
        namespace: "shop".into(),
        service: "web".into(),
        lease_until_ms: 1_800_000_000_000,
        ..v1::Grant::default()
    };
    let spec = v1::Spec { namespace: "shop".into(), service: "web".into(), ..v1::Spec::default() };
    Record { grant: Some(grant), spec: Some(spec), lease_until_ms: 5, prepared: true, attempt: 3, over: None }
}

static RECORD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = folder();
    fs::create_dir(dir.path().join("grants")).unwrap();
    Records::new(dir.path()).save(&GRANT, &record()).unwrap();
    fs::read(dir.path().join("grants").join(GRANT.hex())).unwrap()
});

/// Records of tasks: each is read or named as damaged, and none hides another.
pub fn records(data: &[u8]) {
    let dir = folder();
    let grants = dir.path().join("grants");
    fs::create_dir(&grants).unwrap();
    let other = GrantId([2; 16]);
    fs::write(grants.join(GRANT.hex()), state_file(&RECORD, record().encoded_len(), data)).unwrap();
    fs::write(grants.join(other.hex()), &*RECORD).unwrap();
    let records = Records::new(dir.path());
    let found = records.load().unwrap();
    assert_eq!(found.whole.len() + found.damaged.len(), 2);
    assert!(found.whole.contains(&(other, record())));
    for (id, record) in &found.whole {
        records.save(id, record).unwrap();
    }
    assert_eq!(records.load().unwrap().whole.len(), found.whole.len());
}

/// What a node must not forget: a file that is damaged stops it, and is never read as an empty one.
pub fn memory(data: &[u8]) {
    let dir = folder();
    let path = dir.path().join("memory");
    let file = MemoryFile::new(dir.path());
    assert!(file.load().is_err());
    fs::write(&path, data).unwrap();
    assert!(file.load().is_err(), "a file without its checksum was read");
    fs::write(&path, state_file(&RECORD[..RECORD.len() - record().encoded_len()], 0, data)).unwrap();
    if let Ok(memory) = file.load() {
        file.save(&memory).unwrap();
        assert_eq!(file.load().unwrap(), memory);
    }
}

static IDENTITY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = folder();
    let store = FileStore::new(dir.path());
    store.save_pending(&PrivateKey::generate().unwrap()).unwrap();
    store.promote(&[vec![0x30; 200], vec![0x30; 100]]).unwrap();
    fs::read(dir.path().join("identity.pem")).unwrap()
});

/// A machine's key and certificates: read, or named as damaged.
pub fn identity(data: &[u8]) {
    for file in [damaged(&IDENTITY, data), data.to_vec()] {
        let dir = folder();
        fs::write(dir.path().join("identity.pem"), &file).unwrap();
        fs::write(dir.path().join("pending.pem"), &file).unwrap();
        let store = FileStore::new(dir.path());
        match store.load() {
            Ok(found) => assert!(found.is_some_and(|s| !s.chain.is_empty()), "an identity without a certificate"),
            Err(e) => assert!(matches!(e, StoreError::Corrupt(_)), "{e}"),
        }
        // The key in use is pending no more.
        assert!(matches!(store.load_pending(), Ok(None) | Err(StoreError::Corrupt(_))));
    }
}
