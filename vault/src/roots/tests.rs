use super::*;
use holdfast_hsm::SoftwareKeys;
use holdfast_pki::issue::new_root;
use holdfast_types::{ClusterId, Millis};

#[test]
fn the_highest_epoch_that_a_machine_said_is_written_down_and_each_once() {
    let acks = Acks::default();
    for (id, epoch) in [("node-1", 3), ("node-2", 2), ("node-1", 5), ("node-1", 4)] {
        acks.note(id, epoch);
    }
    assert_eq!(acks.take(), [("node-1".to_owned(), 5), ("node-2".to_owned(), 2)]);
    assert!(acks.take().is_empty());
}

#[test]
fn a_given_roots_key_is_found_in_the_token_by_its_public_half() {
    let token = Arc::new(SoftwareKeys::new());
    let theirs = token.generate(Purpose::Root, b"made elsewhere").unwrap();
    token.generate(Purpose::Root, b"another").unwrap();
    let signer = PortSigner::new(&token, theirs).unwrap();
    let (cluster, now) = (ClusterId::of_charter(b"one"), Millis(1_700_000_000_000));
    let der = new_root(&signer, &cluster, [1; 16], now, ROOT_LIFE).unwrap().der;
    let likely = token_id(Purpose::Root, "root/7");
    assert_eq!(find(&*token, &der, &likely).unwrap(), Some(theirs));
    assert_eq!(token_id(Purpose::Root, &name_of_found(&theirs)), theirs);
    token.destroy(&theirs).unwrap();
    assert_eq!(find(&*token, &der, &likely).unwrap(), None);
}
