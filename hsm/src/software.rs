//! Keys in this process' memory, for clusters without a token.
//!
//! The cryptographic library keeps each key and wipes it when it is dropped. Nothing is written anywhere: the vault
//! seals what [`SoftwareKeys::export`] gives it, and brings it back by [`SoftwareKeys::import`].

use crate::port::{KeyError, KeyId, KeyPort, Purpose};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use holdfast_types::SecretBytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Keys = BTreeMap<KeyId, Arc<EcdsaKeyPair>>;

/// A store of keys that lives as long as the process.
#[derive(Default)]
pub struct SoftwareKeys {
    keys: Mutex<Keys>,
}

impl SoftwareKeys {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
    /// The private key as PKCS#8 v1 DER (RFC 5958), for sealing at rest.
    pub fn export(&self, id: &KeyId) -> Result<SecretBytes, KeyError> {
        let pkcs8 =
            self.find(id)?.to_pkcs8v1().map_err(|_| KeyError::Corrupt(format!("key {id} cannot be encoded")))?;
        Ok(SecretBytes::new(pkcs8.as_ref().to_vec()))
    }
    /// Brings an exported key back under its purpose and name. A different key under that id is never replaced.
    pub fn import(&self, purpose: Purpose, name: &[u8], pkcs8: &SecretBytes) -> Result<KeyId, KeyError> {
        let id = KeyId::of(purpose, name);
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.expose())
            .map_err(|_| KeyError::Corrupt(format!("what was sealed as key {id} is not a P-256 key in PKCS#8")))?;
        match self.lock().entry(id) {
            Entry::Occupied(there) if there.get().public_key().as_ref() != key.public_key().as_ref() => {
                Err(KeyError::Refused(format!("another key is stored as {id} already")))
            }
            Entry::Occupied(_) => Ok(id),
            Entry::Vacant(place) => {
                place.insert(Arc::new(key));
                Ok(id)
            }
        }
    }
    /// The key, so that signing holds no lock.
    fn find(&self, id: &KeyId) -> Result<Arc<EcdsaKeyPair>, KeyError> {
        self.lock().get(id).cloned().ok_or(KeyError::NotFound(*id))
    }
    /// Every change of the map is one insertion or removal, so a thread that panicked left it whole.
    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyPort for SoftwareKeys {
    fn generate(&self, purpose: Purpose, name: &[u8]) -> Result<KeyId, KeyError> {
        let id = KeyId::of(purpose, name);
        let mut keys = self.lock();
        if let Entry::Vacant(place) = keys.entry(id) {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                .map_err(|_| KeyError::Unavailable("the system gave no randomness for a new key".to_owned()))?;
            place.insert(Arc::new(key));
        }
        Ok(id)
    }
    fn public(&self, id: &KeyId) -> Result<Vec<u8>, KeyError> {
        Ok(self.find(id)?.public_key().as_ref().to_vec())
    }
    fn sign_p256(&self, id: &KeyId, msg: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self
            .find(id)?
            .sign(&SystemRandom::new(), msg)
            .map_err(|_| KeyError::Unavailable("the system gave no randomness for a signature".to_owned()))?;
        Ok(signature.as_ref().to_vec())
    }
    fn destroy(&self, id: &KeyId) -> Result<(), KeyError> {
        self.lock().remove(id);
        Ok(())
    }
    fn list(&self) -> Result<Vec<KeyId>, KeyError> {
        Ok(self.lock().keys().copied().collect())
    }
}

impl fmt::Debug for SoftwareKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_software_store_conforms() {
        use crate::conformance::{LASTING, conformance, lasting};
        conformance(SoftwareKeys::new);
        // What a vault seals at its end and opens at its start.
        lasting(SoftwareKeys::new, |old: SoftwareKeys| {
            let new = SoftwareKeys::new();
            if let Ok(sealed) = old.export(&KeyId::of(Purpose::Root, LASTING)) {
                new.import(Purpose::Root, LASTING, &sealed).unwrap();
            }
            new
        });
    }

    #[test]
    fn an_exported_key_comes_back_as_the_same_key() {
        let (before, after) = (SoftwareKeys::new(), SoftwareKeys::new());
        let id = before.generate(Purpose::Root, b"a").unwrap();
        let sealed = before.export(&id).unwrap();
        assert_eq!(after.import(Purpose::Root, b"a", &sealed).unwrap(), id);
        assert_eq!(after.public(&id).unwrap(), before.public(&id).unwrap());
        assert_eq!(after.import(Purpose::Root, b"a", &sealed).unwrap(), id, "once more changes nothing");
    }

    #[test]
    fn an_import_never_replaces_another_key_and_takes_only_p256() {
        let store = SoftwareKeys::new();
        let (a, b) = (store.generate(Purpose::Root, b"a").unwrap(), store.generate(Purpose::Root, b"b").unwrap());
        let public = store.public(&b).unwrap();
        let refused = store.import(Purpose::Root, b"b", &store.export(&a).unwrap()).unwrap_err();
        assert!(matches!(refused, KeyError::Refused(_)));
        assert_eq!(store.public(&b).unwrap(), public);
        let junk = store.import(Purpose::Root, b"c", &SecretBytes::new(b"no key".to_vec())).unwrap_err();
        assert!(matches!(junk, KeyError::Corrupt(_)));
        let gone = KeyId::of(Purpose::Root, b"gone");
        assert_eq!(store.export(&gone).unwrap_err(), KeyError::NotFound(gone));
    }

    #[test]
    fn debug_output_names_keys_and_shows_none() {
        let store = SoftwareKeys::new();
        let id = store.generate(Purpose::Issuer, b"a").unwrap();
        assert_eq!(format!("{store:?}"), format!("{{KeyId({id})}}"));
    }
}
