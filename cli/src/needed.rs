//! Which recovery key opens a backup, as the charter in the backup's head says it: nothing of it is secret. It is named
//! before it is asked for, and whenever another one was given.

use crate::errors::{Code, Failure};
use crate::framed::refuse;
use crate::keyin::Given;
use crate::known::{KnownKey, KnownKeys};
use crate::slots::{SlotKey, SlotKind};
use data_encoding::HEXLOWER;
use holdfast_types::ClusterId;
use holdfast_wire::backup::BackupError;
use holdfast_wire::boxes::{self, PrivateKey};
use holdfast_wire::keys::key_id;
use holdfast_wire::{statement, v1};
use serde_json::{Value, json};

/// The recovery key that a backup is boxed to.
pub struct NeededKey {
    /// The version of the charter that brought it.
    since: u64,
    recovery: v1::Recovery,
}

/// The recovery key, put together here.
pub struct RecoveryKey {
    /// Opens boxes.
    pub opens: PrivateKey,
    /// Opens slots.
    pub slot: SlotKey,
}

impl NeededKey {
    /// As the head says.
    pub fn of(head: &v1::BackupHead) -> Result<Self, Failure> {
        let none = || Failure::untrusted("the charter in the backup names no recovery key");
        let mut found: Option<Self> = None;
        for st in &head.charter_chain {
            let charter: v1::Charter = statement::peek(st).map_err(Failure::untrusted)?;
            if charter.version > head.charter_version {
                break;
            }
            let recovery = charter.recovery.ok_or_else(none)?;
            let same = found.as_ref().is_some_and(|f| f.recovery.public_key == recovery.public_key);
            let since = found.filter(|_| same).map_or(charter.version, |f| f.since);
            found = Some(Self { since, recovery });
        }
        found.ok_or_else(none)
    }
    /// The key out of what was given, if it is this one.
    pub fn open(&self, given: Given, head: &v1::BackupHead, cluster: &ClusterId) -> Result<RecoveryKey, Failure> {
        let sealed = boxes::parse(&head.key_box);
        let kid = sealed.map_err(|_| refuse(BackupError::Malformed("the box of its key cannot be read")))?.kid;
        let fits = |public: &[u8; 32]| key_id(public) == kid;
        let secret = given.the_one(SlotKind::Recovery, cluster, &self.known(), &fits).map_err(|f| self.named(f))?;
        let (opens, _) = boxes::derive_keypair(secret.expose());
        let (slot, _) = SlotKey::derive(SlotKind::Recovery, secret.expose());
        Ok(RecoveryKey { opens, slot })
    }
    /// What the digests of shares are compared with.
    fn known(&self) -> KnownKeys {
        let key = KnownKey {
            kind: SlotKind::Recovery.word().to_owned(),
            epoch: self.since,
            public: HEXLOWER.encode(&self.recovery.public_key),
            threshold: u8::try_from(self.recovery.k).unwrap_or(u8::MAX),
            share_digests: self.digests(),
            chain: String::new(),
        };
        KnownKeys { keys: vec![key] }
    }
    fn digests(&self) -> Vec<String> {
        self.recovery.share_digests.iter().map(|d| HEXLOWER.encode(d)).collect()
    }
    /// The same failure, naming the key that is needed.
    fn named(&self, mut f: Failure) -> Failure {
        if f.code == Code::BadKey.word() {
            f.help = format!("give the {}", self.words());
        }
        f.with("recovery_key", self.document())
    }
    /// For people, in one line.
    pub fn words(&self) -> String {
        let public = HEXLOWER.encode(&self.recovery.public_key);
        let digests = self.digests();
        let parts = if digests.is_empty() {
            "whole".to_owned()
        } else {
            format!("{} of {} shares, digests {}", self.recovery.k, self.recovery.n, digests.join(", "))
        };
        format!("recovery key of charter {}, public half {public}, {parts}", self.since)
    }
    /// For scripts, as `recovery-key status` says it.
    pub fn document(&self) -> Value {
        json!({
            "charter_version": self.since, "public": HEXLOWER.encode(&self.recovery.public_key),
            "threshold": self.recovery.k, "shares": self.recovery.n, "share_digests": self.digests(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::KeyInput;
    use crate::shares::{self, KeySecret, Scheme};
    use holdfast_types::{Secret, kind};
    use holdfast_wire::share::ShareKind;
    use holdfast_wire::token::print_key;

    const CLUSTER: ClusterId = ClusterId([3; 32]);

    fn secret(byte: u8) -> KeySecret {
        Secret::take(&mut [byte; 32])
    }
    fn public(byte: u8) -> Vec<u8> {
        boxes::derive_keypair(&[byte; 32]).1.to_vec()
    }
    fn split(byte: u8, epoch: u64) -> Vec<holdfast_wire::share::KeyShare> {
        let scheme = Scheme { shares: 3, threshold: 2 };
        shares::split(&secret(byte), ShareKind::Recovery, epoch, &CLUSTER, scheme).unwrap()
    }
    /// Charters 1 (key 1, whole), 2 and 3 (key 2, in shares); the backup is of charter `version`.
    fn head(version: u64, digests: Vec<Vec<u8>>) -> v1::BackupHead {
        let op = crate::operator::Operator::generate("op-a").unwrap();
        let charter = |version: u64| {
            let recovery = if version == 1 {
                v1::Recovery { public_key: public(1), k: 1, n: 1, share_digests: Vec::new() }
            } else {
                v1::Recovery { public_key: public(2), k: 2, n: 3, share_digests: digests.clone() }
            };
            op.sign(&v1::Charter { version, recovery: Some(recovery), ..v1::Charter::default() }).unwrap()
        };
        let mut head = v1::BackupHead {
            cluster_id: CLUSTER.0.to_vec(),
            backup_id: vec![9; 16],
            era: 1,
            charter_version: version,
            charter_chain: (1..=version).map(charter).collect(),
            ..v1::BackupHead::default()
        };
        let to = if version == 1 { public(1) } else { public(2) };
        let stream = Secret::take(&mut [5; 32]);
        head.key_box = holdfast_wire::backup::box_key(&head, &CLUSTER, &to, &stream, [6; 32]).unwrap();
        head
    }
    /// What is given in a file.
    fn given(text: &str) -> Given {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        crate::files::write_private(&file, text.as_bytes()).unwrap();
        Given::read(&KeyInput { key_files: vec![file], share_files: Vec::new() }, "key").unwrap()
    }
    fn recovery(byte: u8) -> String {
        print_key("recovery", &Secret::<kind::UnlockSecret, 32>::take(&mut [byte; 32])).to_string()
    }

    #[test]
    fn shares_of_the_key_open_the_backup_as_the_whole_key_does() {
        let all = split(2, 2);
        let head = head(3, all.iter().map(|s| s.digest().0.to_vec()).collect());
        let needed = NeededKey::of(&head).unwrap();
        let two = format!("{}\n{}\n", *all[0].print(), *all[2].print());
        for text in [two, recovery(2)] {
            let key = needed.open(given(&text), &head, &CLUSTER).unwrap();
            assert!(holdfast_wire::backup::open_key(&head, &CLUSTER, &key.opens).is_ok());
        }
    }

    #[test]
    fn the_key_that_is_needed_is_named_by_charter_public_half_and_digests() {
        let all = split(2, 2);
        let digests: Vec<Vec<u8>> = all.iter().map(|s| s.digest().0.to_vec()).collect();
        let head = head(3, digests);
        let needed = NeededKey::of(&head).unwrap();
        assert_eq!((needed.since, needed.document()["shares"].as_u64()), (2, Some(3)));
        let refused = needed.open(given(&recovery(1)), &head, &CLUSTER).err().unwrap();
        assert_eq!(refused.code, "bad-key");
        for part in ["charter 2", &HEXLOWER.encode(&public(2)), "2 of 3 shares", &all[1].digest().hex()] {
            assert!(refused.help.contains(part), "{part}: {}", refused.help);
        }
        assert_eq!(refused.details["recovery_key"], needed.document());
        let one = needed.open(given(&all[0].print()), &head, &CLUSTER).err().unwrap();
        assert_eq!(one.code, "too-few-shares");
        // Shares of another split of the same key are none of these.
        let again = split(2, 2);
        let two = format!("{}\n{}\n", *all[0].print(), *again[1].print());
        let refused = needed.open(given(&two), &head, &CLUSTER).err().unwrap();
        assert!(
            refused.code == "bad-share" && refused.message.contains(&again[1].digest().hex()),
            "{}",
            refused.message
        );
    }

    #[test]
    fn a_backup_of_an_older_charter_needs_the_key_of_that_time() {
        let head = head(1, Vec::new());
        let needed = NeededKey::of(&head).unwrap();
        assert!(needed.words().contains("charter 1") && needed.words().ends_with("whole"), "{}", needed.words());
        assert!(needed.open(given(&recovery(1)), &head, &CLUSTER).is_ok());
    }
}
