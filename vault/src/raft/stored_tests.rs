//! STORED: log values and marks. `HOLDFAST_BLESS=1` writes the golden file anew; it holds one value a line.

use super::codec::{decode, encode, log_id, open_entry, seal_entry};
use super::testing::keys;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn membership() -> openraft::Membership<u64, BasicNode> {
    let nodes = BTreeMap::from([(1, BasicNode::new("v1:7402")), (2, BasicNode::new("v2:7402"))]);
    openraft::Membership::new(vec![[1].into()], nodes).unwrap()
}

/// One entry of each kind.
fn entries() -> Vec<Entry> {
    let batch = Batch::pack([b"first".as_slice(), b"", b"third"]).unwrap();
    let kinds = [Payload::Blank, Payload::Normal(batch), Payload::Membership(membership())];
    kinds.into_iter().zip(5..).map(|(payload, index)| Entry { log_id: log_id(3, index), payload }).collect()
}

fn marks() -> [Vec<u8>; 3] {
    let vote = Vote::new_committed(3, 1);
    let meta = SnapshotMeta { last_log_id: Some(log_id(3, 7)), last_membership: StoredMembership::default() };
    [encode(&vote).unwrap(), encode(&Some(log_id(3, 7))).unwrap(), encode(&meta).unwrap()]
}

fn hex(b: &[u8]) -> String {
    b.iter().map(|x| format!("{x:02x}")).collect()
}
fn unhex(line: &str) -> Vec<u8> {
    (0..line.len()).step_by(2).map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn log_values_and_marks_are_stored_as_they_always_were() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/log.hex");
    let keys = keys(1, 9);
    if std::env::var_os("HOLDFAST_BLESS").is_some() {
        let values = entries().into_iter().map(|e| seal_entry(&keys, &e).unwrap()).chain(marks());
        let lines: Vec<String> = values.map(|v| hex(&v)).collect();
        std::fs::write(&golden, lines.join("\n") + "\n").unwrap();
    }
    let stored: Vec<Vec<u8>> = std::fs::read_to_string(golden).unwrap().lines().map(unhex).collect();
    let (values, stored_marks) = stored.split_at(entries().len());
    for (entry, value) in entries().into_iter().zip(values) {
        assert_eq!(open_entry(&keys, entry.log_id.index, value).unwrap(), entry);
    }
    assert_eq!(stored_marks, marks());
    assert_eq!(decode::<Vote>(&stored_marks[0]), Some(Vote::new_committed(3, 1)));
    assert_eq!(decode::<Vote>(&[&stored_marks[0][..], &[0]].concat()), None, "all of the bytes, and no more");
}

proptest! {
    #[test]
    fn a_log_value_comes_back_in_its_own_place_alone(
        commands in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..5),
        (term, index) in (1..u64::MAX, 1..u64::MAX),
    ) {
        let keys = keys(1, 9);
        let batch = Batch::pack(commands.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(batch.commands().unwrap(), commands.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let entry = Entry { log_id: log_id(term, index), payload: Payload::Normal(batch) };
        let value = seal_entry(&keys, &entry).unwrap();
        prop_assert_eq!(open_entry(&keys, index, &value).unwrap(), entry);
        prop_assert!(open_entry(&keys, index - 1, &value).is_err());
        let mut later = value.clone();
        later[..8].copy_from_slice(&(term - 1).to_be_bytes());
        prop_assert!(open_entry(&keys, index, &later).is_err());
        prop_assert!(open_entry(&keys, index, &value[..value.len() - 1]).is_err());
    }

    #[test]
    fn bytes_that_are_no_batch_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let batch = Batch::from(bytes.clone());
        if let Some(commands) = batch.commands() {
            let again = Batch::pack(commands).unwrap();
            prop_assert_eq!(again.as_bytes(), bytes.as_slice());
        }
    }
}
