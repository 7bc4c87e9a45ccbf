//! The small files of agent and orchestrator, which are read whole, strictly, or not at all.
//!
//! Checksums are made to fit the damage, as in [`super::stored`].

use super::sent::HONEST;
use super::stored::folder;
use super::{damaged, unhex};
use holdfast_agent::keys::{KeyError, KeyRing};
use holdfast_agent::state::file::{self, StateError};
use holdfast_agent::state::records::Record;
use holdfast_agent::state::trust::TrustFiles;
use holdfast_agent::state::{JoiningFile, NodeFile};
use holdfast_orchestrator::state::StateDir;
use holdfast_transport::framed::{frame, unframe};
use holdfast_types::Digest;
use holdfast_wire::v1;
use prost::Message;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// What is said of the file of a name in a folder.
type Law = fn(&Path, &str);

/// A file's name, its law, and the message of a good one.
type Kept = (&'static str, Law, Vec<u8>);

static KEPT: LazyLock<Vec<Kept>> = LazyLock::new(|| {
    let golden = |hex: &str| unframe(&unhex(hex, 1)).unwrap().to_vec();
    let dir = folder();
    TrustFiles::new(dir.path()).save(&HONEST.trust).unwrap();
    let believed = |name: &str| unframe(&fs::read(dir.path().join(name)).unwrap()).unwrap().to_vec();
    let evidence = v1::Evidence { check: "node".into(), detail: "no".into(), ..v1::Evidence::default() };
    let kept = |name, law: Law, message| -> Kept { (name, law, message) };
    vec![
        kept("node", same::<NodeFile>, golden(include_str!("../../orchestrator/agent/golden/node.hex"))),
        kept("joining", same::<JoiningFile>, golden(include_str!("../../orchestrator/agent/golden/joining.hex"))),
        kept("record", same::<Record>, golden(include_str!("../../orchestrator/agent/golden/record.hex"))),
        kept("evidence", same::<v1::Evidence>, evidence.encode_to_vec()),
        kept("keys", keys, golden(include_str!("../../orchestrator/agent/golden/keys.hex"))),
        kept("anchors", trust, believed("anchors")),
        kept("heartbeat", trust, believed("heartbeat")),
        kept("cluster", cluster, golden(include_str!("../../orchestrator/golden/cluster.hex"))),
    ]
});

/// One of the files, damaged or of any bytes; the first byte chooses which.
pub fn files(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let (name, law, honest) = &KEPT[usize::from(*which) % KEPT.len()];
    for message in [damaged(honest, data), data.to_vec()] {
        let dir = folder();
        TrustFiles::new(dir.path()).save(&HONEST.trust).unwrap();
        fs::write(dir.path().join(name), frame(&message)).unwrap();
        law(dir.path(), name);
    }
}

/// What is read is written byte for byte as it was: nothing in it was dropped.
fn same<M: Message + Default>(dir: &Path, name: &str) {
    let path = dir.join(name);
    let before = fs::read(&path).unwrap();
    match file::load::<M>(&path) {
        Ok(found) => {
            file::save(&path, &found.unwrap()).unwrap();
            assert_eq!(fs::read(&path).unwrap(), before);
        }
        Err(e) => assert!(matches!(e, StateError::Corrupt(_)), "{e}"),
    }
}

fn cluster(dir: &Path, name: &str) {
    let before = fs::read(dir.join(name)).unwrap();
    let state = StateDir::open(dir).unwrap();
    match state.load() {
        Ok(found) => {
            state.save(&found.unwrap()).unwrap();
            assert_eq!(fs::read(dir.join(name)).unwrap(), before);
        }
        Err(e) => assert_eq!(e.code, "state"),
    }
}

/// Keys that are read stay when another is offered beside them.
fn keys(dir: &Path, _: &str) {
    match KeyRing::open(dir) {
        Ok(mut ring) => {
            let newest = ring.newest();
            ring.offer(Digest([0xee; 32])).unwrap();
            assert_eq!(KeyRing::open(dir).unwrap().newest(), newest);
        }
        Err(e) => assert!(matches!(e, KeyError::State(StateError::Corrupt(_))), "{e}"),
    }
}

/// What is believed once is believed again.
fn trust(dir: &Path, _: &str) {
    let files = TrustFiles::new(dir);
    match files.load() {
        Ok(trust) => {
            files.save(&trust).unwrap();
            assert_eq!(files.load().unwrap().saved(), trust.saved());
        }
        Err(e) => assert!(matches!(e, StateError::Corrupt(_) | StateError::Disbelieved { .. }), "{e}"),
    }
}
