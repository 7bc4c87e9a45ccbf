//! Encrypting small values under a key that never leaves the token: by AES-GCM, else AES key wrap with padding, else RSA-OAEP.
//!
//! Which of them a token has is asked when a wrapping key is made; an existing key says it by its kind.
//! STORED: the first byte of a wrapped value is the mechanism. What binds no `aad` by itself has its digest in front of the
//! value.

use super::{Open, Token, blame, blame_decrypting};
use crate::message::LONGEST_WRAPPED;
use crate::port::{KeyError, KeyId, Wraps};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use holdfast_types::{SecretBytes, sha256};
use zeroize::Zeroizing;

const GCM: u8 = 1;
const KEY_WRAP: u8 = 2;
const OAEP_SHA256: u8 = 3;
const OAEP_SHA1: u8 = 4;

const IV: usize = 12;
const RSA_BITS: u64 = 3072;

/// A wrapping key as it lies in the token.
#[derive(Clone, Copy)]
pub(super) enum Key {
    /// AES, 256 bits.
    Aes(ObjectHandle),
    /// RSA.
    Rsa { public: ObjectHandle, private: ObjectHandle },
}

impl Open {
    fn wrapping_key(&mut self, id: &KeyId) -> Result<Option<Key>, KeyError> {
        if let Some(key) = self.wrapping.get(id) {
            return Ok(Some(*key));
        }
        let aes = self.of_class(ObjectClass::SECRET_KEY, KeyType::AES, id)?;
        let public = self.of_class(ObjectClass::PUBLIC_KEY, KeyType::RSA, id)?;
        let private = self.of_class(ObjectClass::PRIVATE_KEY, KeyType::RSA, id)?;
        let key = match (aes.as_slice(), public.as_slice(), private.as_slice()) {
            ([], _, []) => return Ok(None),
            ([aes], _, []) => Key::Aes(*aes),
            ([], [public], [private]) => Key::Rsa { public: *public, private: *private },
            _ => return Err(KeyError::Refused(format!("the token holds several wrapping keys {id}"))),
        };
        let held = match key {
            Key::Aes(aes) => aes,
            Key::Rsa { private, .. } => private,
        };
        self.kept(held, id)?;
        self.wrapping.insert(*id, key);
        Ok(Some(key))
    }
    fn aes(&self, key: Key) -> Result<ObjectHandle, KeyError> {
        if let Key::Aes(aes) = key {
            Ok(aes)
        } else {
            Err(KeyError::Corrupt("what was wrapped by AES has an RSA key in the token".to_owned()))
        }
    }
    /// Makes the best wrapping key that this token can use.
    fn make_wrapping_key(&mut self, id: &KeyId, label: &str) -> Result<Key, KeyError> {
        let label = format!("holdfast wrap {label}").into_bytes();
        let common = |more: Vec<Attribute>| {
            let mut all = vec![
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Decrypt(true),
                Attribute::Id(id.0.to_vec()),
                Attribute::Label(label.clone()),
            ];
            all.extend(more);
            all
        };
        if self.cipher().is_some() {
            let template = common(vec![Attribute::Encrypt(true), Attribute::ValueLen(32.into())]);
            self.session.generate_key(&Mechanism::AesKeyGen, &template).map_err(|e| blame(&e))?;
        } else if self.mechanism(MechanismType::RSA_PKCS_OAEP).is_some_and(|m| m.encrypt() && m.decrypt()) {
            let public = [
                Attribute::Token(true),
                Attribute::Private(false),
                Attribute::Encrypt(true),
                Attribute::ModulusBits(RSA_BITS.into()),
                Attribute::PublicExponent(vec![1, 0, 1]),
                Attribute::Id(id.0.to_vec()),
                Attribute::Label(label.clone()),
            ];
            let private = common(Vec::new());
            let made = self.session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private);
            made.map_err(|e| blame(&e))?;
        } else {
            return Err(KeyError::Refused(
                "the token can encrypt by none of AES-GCM, AES key wrap and RSA-OAEP".to_owned(),
            ));
        }
        let made = self.wrapping_key(id)?;
        made.ok_or_else(|| {
            KeyError::Corrupt("the token does not find the wrapping key that it has just made".to_owned())
        })
    }
    /// The mechanism for an AES key.
    fn cipher(&self) -> Option<u8> {
        let both = |m| self.mechanism(m).is_some_and(|m| m.encrypt() && m.decrypt());
        if both(MechanismType::AES_GCM) { Some(GCM) } else { both(MechanismType::AES_KEY_WRAP_PAD).then_some(KEY_WRAP) }
    }
    fn seal(&self, key: Key, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        match (key, self.cipher()) {
            (Key::Aes(aes), Some(GCM)) => self.seal_gcm(aes, plain, aad),
            (Key::Aes(aes), Some(_)) => self.seal_by(KEY_WRAP, &Mechanism::AesKeyWrapPad, aes, &bound(plain, aad)),
            (Key::Aes(_), None) => Err(KeyError::Refused("the token can use its wrapping key no longer".to_owned())),
            (Key::Rsa { public, .. }, _) => {
                let bound = bound(plain, aad);
                let first = self.seal_by(OAEP_SHA256, &oaep(OAEP_SHA256), public, &bound);
                // SoftHSM 2 has OAEP with SHA-1 only, where the digest's weakness does not matter (RFC 8017, 7.1).
                if matches!(first, Err(KeyError::Refused(_))) {
                    self.seal_by(OAEP_SHA1, &oaep(OAEP_SHA1), public, &bound)
                } else {
                    first
                }
            }
        }
    }
    fn seal_gcm(&self, key: ObjectHandle, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut iv = [0_u8; IV];
        aws_lc_rs::rand::fill(&mut iv)
            .map_err(|_| KeyError::Unavailable("the system gave no randomness".to_owned()))?;
        let sealed = {
            let params = GcmParams::new(&mut iv, aad, 128.into()).map_err(|e| blame(&e))?;
            self.session.encrypt(&Mechanism::AesGcm(params), key, plain).map_err(|e| blame(&e))?
        };
        // Read only now: some tokens put an IV of their own in its place.
        Ok([&[GCM][..], &iv, &sealed].concat())
    }
    fn seal_by(&self, tag: u8, by: &Mechanism<'_>, key: ObjectHandle, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        let sealed = self.session.encrypt(by, key, plain).map_err(|e| blame(&e))?;
        Ok([&[tag][..], &sealed].concat())
    }
    fn opened(&self, key: Key, blob: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let altered = || KeyError::Corrupt("what was wrapped was altered, or belongs elsewhere".to_owned());
        let (tag, sealed) = blob.split_first().ok_or_else(altered)?;
        if *tag == GCM {
            let (iv, sealed) = sealed.split_at_checked(IV).ok_or_else(altered)?;
            let mut iv = iv.to_vec();
            let params = GcmParams::new(&mut iv, aad, 128.into()).map_err(|e| blame(&e))?;
            let plain = self.session.decrypt(&Mechanism::AesGcm(params), self.aes(key)?, sealed);
            return plain.map(Zeroizing::new).map_err(|e| blame_decrypting(&e));
        }
        let (mechanism, key) = match (*tag, key) {
            (KEY_WRAP, Key::Aes(aes)) => (Mechanism::AesKeyWrapPad, aes),
            (OAEP_SHA256 | OAEP_SHA1, Key::Rsa { private, .. }) => (oaep(*tag), private),
            _ => return Err(altered()),
        };
        let plain = Zeroizing::new(self.session.decrypt(&mechanism, key, sealed).map_err(|e| blame_decrypting(&e))?);
        let (digest, plain) = plain.split_at_checked(32).ok_or_else(altered)?;
        verify_slices_are_equal(digest, &sha256(&[aad]).0).map_err(|_| altered())?;
        Ok(Zeroizing::new(plain.to_vec()))
    }
}

fn oaep(tag: u8) -> Mechanism<'static> {
    let (hash, mask) = if tag == OAEP_SHA1 {
        (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1)
    } else {
        (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256)
    };
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mask, PkcsOaepSource::empty()))
}

fn bound(plain: &[u8], aad: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&sha256(&[aad]).0[..], plain].concat())
}

impl Wraps for Token {
    fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        if plain.len() > LONGEST_WRAPPED {
            return Err(KeyError::Refused(format!("what is to be wrapped is over {LONGEST_WRAPPED} bytes")));
        }
        let id = KeyId::wrapping(label);
        let mut open = self.lock();
        let key = match open.wrapping_key(&id)? {
            Some(key) => key,
            None => open.make_wrapping_key(&id, label)?,
        };
        let blob = open.seal(key, plain, aad)?;
        // What cannot be unwrapped must not be relied on: found out now, and not when a voter is to be opened.
        let again = open.opened(key, &blob, aad)?;
        verify_slices_are_equal(&again, plain)
            .map_err(|_| KeyError::Corrupt("the token does not unwrap what it has wrapped".to_owned()))?;
        Ok(blob)
    }
    fn unwrap(&self, label: &str, blob: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError> {
        let id = KeyId::wrapping(label);
        let mut open = self.lock();
        let key = open.wrapping_key(&id)?.ok_or(KeyError::NotFound(id))?;
        open.opened(key, blob, aad).map(|plain| SecretBytes::new(plain.to_vec()))
    }
}

/// The mechanism of a wrapped value, for people.
pub fn mechanism_of(blob: &[u8]) -> &'static str {
    match blob.first().copied() {
        Some(GCM) => "AES-GCM",
        Some(KEY_WRAP) => "AES key wrap",
        Some(OAEP_SHA256) => "RSA-OAEP with SHA-256",
        Some(OAEP_SHA1) => "RSA-OAEP with SHA-1",
        _ => "unknown",
    }
}
