//! DHKEM(X25519, HKDF-SHA256) of RFC 9180 (section 4.1) with the X25519 of aws-lc, for the `hpke` crate, whose key schedule
//! and cipher stay as they are (docs/decisions/0112).
//!
//! Byte for byte what the crate's own KEM makes; that one is beside it in the tests alone. A private key of the library's is
//! made for one operation and ends with it: it lies on the heap, unlocked, and aws-lc overwrites what it frees. It must never
//! be kept. Only what boxes need is here: no modes that authenticate the sender by a key.

use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use hpke::hybrid_array::typenum::U32;
use hpke::kdf::{HkdfSha256, Kdf as _};
use hpke::kem::SharedSecret;
use hpke::{Deserializable, HpkeError, Kem, Serializable};
use rand_core::CryptoRng;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroize;

/// RFC 9180, table 2.
const ID: u16 = 0x0020;
/// `"KEM" ‖ I2OSP(kem_id, 2)`.
const SUITE: [u8; 5] = *b"KEM\x00\x20";

/// The KEM; see the head of this file.
pub(crate) struct X25519HkdfSha256;

/// A public key, or an encapsulated one: 32 bytes, each of which is taken as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; 32]);

/// A private key, clamped; wiped when dropped.
#[derive(Clone)]
pub(crate) struct PrivateKey([u8; 32]);

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
impl ConstantTimeEq for PrivateKey {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl Serializable for PublicKey {
    type OutputSize = U32;
    fn write_exact(&self, buf: &mut [u8]) {
        buf.copy_from_slice(&self.0);
    }
}
impl Deserializable for PublicKey {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        exactly(encoded).map(Self)
    }
}
impl Serializable for PrivateKey {
    type OutputSize = U32;
    fn write_exact(&self, buf: &mut [u8]) {
        buf.copy_from_slice(&self.0);
    }
}
impl Deserializable for PrivateKey {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        exactly(encoded).map(Self::clamped)
    }
}
impl PrivateKey {
    /// RFC 7748, section 5. Private keys are written down clamped, and taken however they come (RFC 9180, section 7.1.2).
    fn clamped(mut bytes: [u8; 32]) -> Self {
        let [first, .., last] = &mut bytes;
        *first &= 0xf8;
        *last = (*last & 0x7f) | 0x40;
        let key = Self(bytes);
        bytes.zeroize();
        key
    }
    /// `DeriveKeyPair` (RFC 9180, section 7.1.3).
    fn derived(ikm: &[u8]) -> Self {
        Self::clamped(HkdfSha256::derive_x25519_sk_eph_bytes(&SUITE, ikm))
    }
}

fn exactly(encoded: &[u8]) -> Result<[u8; 32], HpkeError> {
    encoded.try_into().map_err(|_| HpkeError::IncorrectInputLength(32, encoded.len()))
}

/// A private key as the library holds it for one operation, with the public half that it has computed on the way.
struct Pair {
    private: agreement::PrivateKey,
    public: [u8; 32],
}
impl Pair {
    /// Nothing but a lack of memory makes it fail.
    fn of(key: &PrivateKey) -> Option<Self> {
        let private = agreement::PrivateKey::from_private_key(&X25519, &key.0).ok()?;
        let computed = private.compute_public_key().ok()?;
        let public = exactly(computed.as_ref()).ok()?;
        Some(Self { private, public })
    }
    /// `ExtractAndExpand(DH(sk, peer), context)`. `failed` if the peer's point is of small order: the library refuses a
    /// shared secret of zeros.
    fn shared(
        &self,
        peer: &PublicKey,
        context: &[u8],
        failed: HpkeError,
    ) -> Result<SharedSecret<X25519HkdfSha256>, HpkeError> {
        agreement::agree(&self.private, UnparsedPublicKey::new(&X25519, &peer.0), failed, |dh| {
            let mut secret = SharedSecret::<X25519HkdfSha256>::default();
            HkdfSha256::extract_and_expand(dh, &SUITE, context, &mut secret.0)?;
            Ok(secret)
        })
    }
}

impl Kem for X25519HkdfSha256 {
    type PublicKey = PublicKey;
    type PrivateKey = PrivateKey;
    type EncappedKey = PublicKey;
    type NSecret = U32;
    const KEM_ID: u16 = ID;

    /// All zero, to which nothing can be sealed, if there is no memory for it.
    fn sk_to_pk(sk: &PrivateKey) -> PublicKey {
        PublicKey(Pair::of(sk).map_or([0; 32], |p| p.public))
    }

    fn derive_keypair(ikm: &[u8]) -> (PrivateKey, PublicKey) {
        let sk = PrivateKey::derived(ikm);
        let pk = Self::sk_to_pk(&sk);
        (sk, pk)
    }

    fn decap(sk: &PrivateKey, sender: Option<&PublicKey>, enc: &PublicKey) -> Result<SharedSecret<Self>, HpkeError> {
        let failed = HpkeError::DecapError;
        let pair = Pair::of(sk).filter(|_| sender.is_none()).ok_or(failed)?;
        pair.shared(enc, &[enc.0, pair.public].concat(), failed)
    }

    fn encap_with_rng(
        pk: &PublicKey,
        sender: Option<(&PrivateKey, &PublicKey)>,
        csprng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, PublicKey), HpkeError> {
        let failed = HpkeError::EncapError;
        let mut ikm = [0; 32];
        csprng.fill_bytes(&mut ikm);
        let ephemeral = PrivateKey::derived(&ikm);
        ikm.zeroize();
        let pair = Pair::of(&ephemeral).filter(|_| sender.is_none()).ok_or(failed)?;
        let secret = pair.shared(pk, &[pair.public, pk.0].concat(), failed)?;
        Ok((secret, PublicKey(pair.public)))
    }
}

#[cfg(test)]
mod tests {
    //! Beside the KEM of the `hpke` crate, which computes with another implementation of the curve.

    use super::*;
    use crate::Seeded;
    use hpke::aead::ChaCha20Poly1305;
    use hpke::kem::X25519HkdfSha256 as Theirs;
    use hpke::{OpModeR, OpModeS, PskBundle};
    use proptest::prelude::*;

    type Ours = X25519HkdfSha256;

    /// `u` of the points of small order (RFC 7748, section 7): the last two are not below the prime.
    const SMALL_ORDER: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    fn unhex(text: &str) -> [u8; 32] {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }
    fn bytes(part: &impl Serializable) -> Vec<u8> {
        part.to_bytes().to_vec()
    }
    fn from<T: Deserializable>(bytes: &[u8]) -> T {
        T::from_bytes(bytes).unwrap()
    }
    /// The key pair that each KEM derives, in the bytes of both halves.
    fn pair<K: Kem>(ikm: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (sk, pk) = K::derive_keypair(ikm);
        (bytes(&sk), bytes(&pk))
    }
    fn decapsulated<K: Kem>(sk: &[u8], enc: &[u8]) -> Result<Vec<u8>, HpkeError> {
        K::decap(&from(sk), None, &from(enc)).map(|secret| secret.0.to_vec())
    }
    fn encapsulated<K: Kem>(pk: &[u8], entropy: [u8; 32]) -> Result<(Vec<u8>, Vec<u8>), HpkeError> {
        let made = K::encap_with_rng(&from(pk), None, &mut Seeded::new(entropy))?;
        Ok((made.0.0.to_vec(), bytes(&made.1)))
    }
    fn sealed<K: Kem>(pk: &[u8], psk: Option<&[u8; 32]>, entropy: [u8; 32]) -> (Vec<u8>, Vec<u8>) {
        let bundle = psk.map(|p| PskBundle::new(p, b"id").unwrap());
        let mode = bundle.map_or(OpModeS::Base, OpModeS::Psk);
        let (enc, ct) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, K>(
            &mode,
            &from(pk),
            b"info",
            b"plaintext",
            b"aad",
            &mut Seeded::new(entropy),
        )
        .unwrap();
        (bytes(&enc), ct)
    }
    fn opened<K: Kem>(sk: &[u8], psk: Option<&[u8; 32]>, enc: &[u8], ct: &[u8]) -> Result<Vec<u8>, HpkeError> {
        let bundle = psk.map(|p| PskBundle::new(p, b"id").unwrap());
        let mode = bundle.map_or(OpModeR::Base, OpModeR::Psk);
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, K>(&mode, &from(sk), &from(enc), b"info", ct, b"aad")
    }

    #[test]
    fn the_vector_of_rfc_9180_for_this_kem_comes_out() {
        // Appendix A.2.1, with the private key clamped as section 7.1.2 wants it (erratum 7121).
        let (sk_e, pk_e) = pair::<Ours>(&unhex("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b"));
        assert_eq!(sk_e, unhex("f0ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381640"));
        assert_eq!(pk_e, unhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"));
        let (sk_r, _) = pair::<Ours>(&unhex("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df"));
        assert_eq!(
            decapsulated::<Ours>(&sk_r, &pk_e).unwrap(),
            unhex("0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7")
        );
    }

    #[test]
    fn a_shared_secret_of_zeros_is_refused_by_whoever_seals_and_whoever_opens() {
        let (sk, _) = pair::<Ours>(&[1; 32]);
        for text in SMALL_ORDER {
            for top in [0, 0x80] {
                let mut point = unhex(text);
                point[31] |= top;
                assert_eq!(encapsulated::<Ours>(&point, [2; 32]), Err(HpkeError::EncapError), "{text}");
                assert_eq!(decapsulated::<Ours>(&sk, &point), Err(HpkeError::DecapError), "{text}");
                assert_eq!(decapsulated::<Theirs>(&sk, &point), Err(HpkeError::DecapError), "{text}");
            }
        }
    }

    #[test]
    fn a_senders_key_is_not_taken_for_something_that_was_checked() {
        let (sk, pk) = Ours::derive_keypair(&[1; 32]);
        assert_eq!(Ours::decap(&sk, Some(&pk), &pk).err(), Some(HpkeError::DecapError));
        let made = Ours::encap_with_rng(&pk, Some((&sk, &pk)), &mut Seeded::new([2; 32]));
        assert_eq!(made.err(), Some(HpkeError::EncapError));
    }

    #[test]
    fn keys_of_another_length_are_none() {
        for wrong in [0, 31, 33] {
            assert!(PublicKey::from_bytes(&vec![1; wrong]).is_err());
            assert!(PrivateKey::from_bytes(&vec![1; wrong]).is_err());
        }
    }

    proptest! {
        #[test]
        fn both_kems_derive_seal_and_open_alike(ikm in any::<[u8; 32]>(), entropy in any::<[u8; 32]>(), psk in any::<Option<[u8; 32]>>()) {
            let (sk, pk) = pair::<Ours>(&ikm);
            prop_assert_eq!(&(sk.clone(), pk.clone()), &pair::<Theirs>(&ikm));
            prop_assert_eq!(encapsulated::<Ours>(&pk, entropy), encapsulated::<Theirs>(&pk, entropy));
            let (enc, ct) = sealed::<Ours>(&pk, psk.as_ref(), entropy);
            prop_assert_eq!(&(enc.clone(), ct.clone()), &sealed::<Theirs>(&pk, psk.as_ref(), entropy));
            prop_assert_eq!(opened::<Ours>(&sk, psk.as_ref(), &enc, &ct).unwrap(), b"plaintext");
            prop_assert_eq!(opened::<Theirs>(&sk, psk.as_ref(), &enc, &ct).unwrap(), b"plaintext");
        }
        /// Private keys that nobody clamped; points on the twist, over the prime, or with the top bit set.
        #[test]
        fn both_kems_make_the_same_of_any_bytes(sk in any::<[u8; 32]>(), point in any::<[u8; 32]>(), high in any::<bool>(), entropy in any::<[u8; 32]>()) {
            let mut point = point;
            if high {
                point[1..].fill(0xff);
            }
            prop_assert_eq!(bytes(&from::<PrivateKey>(&sk)), bytes(&from::<<Theirs as Kem>::PrivateKey>(&sk)));
            prop_assert_eq!(decapsulated::<Ours>(&sk, &point), decapsulated::<Theirs>(&sk, &point));
            prop_assert_eq!(encapsulated::<Ours>(&point, entropy), encapsulated::<Theirs>(&point, entropy));
        }
    }
}
