//! What the leader remembers of machines' words until they are written down.

use super::*;

#[test]
fn the_highest_epoch_that_a_machine_said_is_written_down_and_each_once() {
    let acks = Acks::default();
    for (id, epoch) in [("node-1", 3), ("node-2", 2), ("node-1", 5), ("node-1", 4)] {
        acks.note(id, epoch);
    }
    assert_eq!(acks.take(), [("node-1".to_owned(), 5), ("node-2".to_owned(), 2)]);
    assert!(acks.take().is_empty());
}
