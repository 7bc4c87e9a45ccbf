//! The token's slot: opens with its token alone, is bound to its disk, and never stands in the way of the others.

use super::*;
use crate::disk::testing::{self, CLUSTER, RECOVERY, VOTER, pk};
use holdfast_types::sha256;
use std::sync::Mutex;

/// A token in memory: what it wraps it keeps, under the hash of all that it is bound to.
struct FakeToken {
    id: u8,
    held: Mutex<Vec<([u8; 32], Vec<u8>)>>,
    away: bool,
}
impl FakeToken {
    fn new(id: u8) -> Self {
        Self { id, held: Mutex::default(), away: false }
    }
    fn answers(&self) -> Result<(), KeyError> {
        if self.away { Err(KeyError::Unavailable("it was pulled out".to_owned())) } else { Ok(()) }
    }
}
impl SlotToken for FakeToken {
    fn id(&self) -> [u8; 16] {
        [self.id; 16]
    }
    fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.answers()?;
        let mut held = self.held.lock().unwrap();
        let handle = held.len().to_be_bytes().to_vec();
        held.push((sha256(&[label.as_bytes(), &[0], &handle, aad]).0, plain.to_vec()));
        Ok(handle)
    }
    fn unwrap(&self, label: &str, wrapped: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError> {
        self.answers()?;
        let bound = sha256(&[label.as_bytes(), &[0], wrapped, aad]).0;
        let held = self.held.lock().unwrap();
        let found = held.iter().find(|(b, _)| *b == bound).map(|(_, plain)| SecretBytes::new(plain.clone()));
        found.ok_or_else(|| KeyError::Corrupt("what was wrapped does not open".to_owned()))
    }
}

fn key(byte: u8) -> DiskKey {
    DiskKey::take(&mut [byte; 32])
}
fn generation(number: u32, byte: u8) -> Generation {
    Generation { number, key: key(byte) }
}
fn slots(voter: VoterId) -> Slots {
    Slots::create(CLUSTER, voter, &key(9), 1, &pk(RECOVERY)).unwrap()
}

#[test]
fn the_token_opens_the_disk_that_it_wrapped_both_generations_of_it() {
    let (token, mut s) = (FakeToken::new(1), slots(VOTER));
    assert!(try_open(&s, &token).unwrap().is_none(), "no slot is a token's");
    seal(&mut s, &generation(1, 9), &token).unwrap();
    let again = Slots::decode(&s.encode().unwrap()).unwrap();
    again.open(try_open(&again, &token).unwrap().unwrap()).unwrap();
    s.begin_rotation(&key(10), 1, &pk(RECOVERY)).unwrap();
    assert!(matches!(try_open(&s, &token), Err(DiskError::NoSlot)), "the next key has no slot of the token yet");
    seal(&mut s, &generation(2, 10), &token).unwrap();
    s.open(try_open(&s, &token).unwrap().unwrap()).unwrap();
}

#[test]
fn a_wrapped_key_of_another_disk_or_token_opens_nothing() {
    let (token, mut ours, mut theirs) = (FakeToken::new(1), slots(VOTER), slots(VoterId(2)));
    seal(&mut ours, &generation(1, 9), &token).unwrap();
    seal(&mut theirs, &generation(1, 9), &token).unwrap();
    let stolen = theirs.iter().find_map(|s| matches!(s.recipient, Recipient::Hsm { .. }).then(|| s.boxed())).flatten();
    ours.put_wrapped(1, Recipient::Hsm { token: token.id() }, stolen.unwrap().to_vec());
    assert!(matches!(try_open(&ours, &token), Err(DiskError::Token(KeyError::Corrupt(_)))));
    assert!(matches!(try_open(&ours, &FakeToken::new(2)), Err(DiskError::NoSlot)));
}

#[test]
fn a_token_that_is_away_is_named_and_the_other_slots_are_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    testing::make_voter(dir.path(), CLUSTER, VOTER);
    let keys = testing::opened(dir.path());
    let away = FakeToken { away: true, ..FakeToken::new(1) };
    let file = || std::fs::read(dir.path().join("slots")).unwrap();
    let before = file();
    let e = bring_slots(dir.path(), &keys, &away).unwrap_err().to_string();
    assert!(e.contains("pulled out"), "{e}");
    assert_eq!(file(), before);
    let token = FakeToken::new(1);
    assert!(bring_slots(dir.path(), &keys, &token).unwrap());
    let with = file();
    assert!(!bring_slots(dir.path(), &keys, &token).unwrap());
    assert_eq!(file(), with, "nothing to do, and yet the file was written");
    testing::opened(dir.path());
}

#[test]
fn the_slot_goes_when_the_token_is_not_to_open_the_disk_any_more() {
    let dir = tempfile::tempdir().unwrap();
    testing::make_voter(dir.path(), CLUSTER, VOTER);
    let keys = testing::opened(dir.path());
    let token: Arc<dyn SlotToken> = Arc::new(FakeToken::new(1));
    bring_slots(dir.path(), &keys, &*token).unwrap();
    let has = || is_wanted_by(&Slots::load(dir.path()).unwrap());
    // Slots follow the cluster, and a token's stays with them, whether it answers or not.
    duty::bring_slots(dir.path(), &keys, &testing::wanted(), &Some(Arc::clone(&token))).unwrap();
    assert!(has());
    duty::bring_slots(dir.path(), &keys, &testing::wanted(), &None).unwrap();
    assert!(!has());
}

/// Keys of a token, of which it is seen which are destroyed.
struct Seen(Mutex<Vec<KeyId>>);

impl KeyPort for Seen {
    fn generate(&self, _: holdfast_hsm::Purpose, _: &[u8]) -> Result<KeyId, KeyError> {
        Err(KeyError::NotFound(KeyId([0; 16])))
    }
    fn public(&self, id: &KeyId) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::NotFound(*id))
    }
    fn sign_p256(&self, id: &KeyId, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::NotFound(*id))
    }
    fn destroy(&self, id: &KeyId) -> Result<(), KeyError> {
        self.0.lock().unwrap().push(*id);
        Ok(())
    }
    fn list(&self) -> Result<Vec<KeyId>, KeyError> {
        Ok(Vec::new())
    }
}

#[test]
fn what_wrapped_the_disk_key_is_destroyed_for_that_disk_alone() {
    let token = Seen(Mutex::default());
    forget(&CLUSTER, VOTER, &token).unwrap();
    assert_eq!(*token.0.lock().unwrap(), [KeyId::wrapping(&label(&CLUSTER, VOTER))]);
    assert_ne!(label(&CLUSTER, VOTER), label(&CLUSTER, VoterId(2)));
}
