//! Boxes: HPKE (RFC 9180) to an X25519 public key, base or PSK mode (protocol, M2).
//!
//! STORED: slots, keyring boxes and pending grants hold this format; golden file `wire/golden/box.hex`.
//! ```text
//! 'HB' | fmt u8=1 | suite u16=0x0001 | mode u8 (0 base, 1 psk) | kid[16] = H(pk)[..16] | lp(enc) | lp(ct)
//! suite 1 = DHKEM(X25519, HKDF-SHA256) / HKDF-SHA256 / ChaCha20-Poly1305
//! info = "holdfast/v1/" ‖ purpose ‖ 0x00 ‖ cluster_id
//! ```

use crate::keys::key_id;
use crate::seeded::Seeded;
use holdfast_types::{ClusterId, Secret, SecretBytes, kind, wipe_stack};
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, PskBundle, Serializable as _};
use zeroize::Zeroize;

type Kem = crate::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::ChaCha20Poly1305;

/// Longest plaintext of a box: a padded secret of 500 KiB and room for a backup header.
pub const MAX_PLAINTEXT: usize = 1 << 20;
const HEADER: usize = 2 + 1 + 2 + 1 + 16;
const SUITE: u16 = 1;

/// Why a box does not open or cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BoxError {
    /// Not a box, cut short, or with trailing bytes.
    #[error("not a box: malformed or cut short")]
    Malformed,
    /// A format or suite that this version does not know.
    #[error("box of an unknown format or suite")]
    Unknown,
    /// Sealed to another key.
    #[error("box is sealed to another key")]
    OtherKey,
    /// The mode is not the one expected (base where PSK is required, or the reverse).
    #[error("box has the wrong mode")]
    Mode,
    /// The public key is malformed.
    #[error("not a usable X25519 public key")]
    PublicKey,
    /// Wrong key, wrong context, or altered.
    #[error("box does not open: wrong key, wrong context or altered")]
    Open,
    /// Plaintext over [`MAX_PLAINTEXT`].
    #[error("too long for a box")]
    TooLong,
}

/// What a box is for, and to what it is bound.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// E.g. `unlock-slot`; becomes part of HPKE's `info`.
    pub purpose: &'a str,
    /// The cluster; becomes part of HPKE's `info`.
    pub cluster: &'a ClusterId,
    /// The purpose's own binding (protocol, Box).
    pub aad: &'a [u8],
}

/// A pre-shared key for PSK mode: authenticates the sender and keeps the box safe should X25519 fall.
pub type Psk = Secret<kind::Psk, 32>;
/// An X25519 private key.
pub type PrivateKey = Secret<kind::HpkeKey, 32>;

/// The key pair that RFC 9180's `DeriveKeyPair` makes of 32 bytes of key material.
pub fn derive_keypair(ikm: &[u8; 32]) -> (PrivateKey, [u8; 32]) {
    let pair = derived(ikm);
    wipe_stack();
    pair
}

#[inline(never)]
fn derived(ikm: &[u8; 32]) -> (PrivateKey, [u8; 32]) {
    let (sk, pk) = Kem::derive_keypair(ikm);
    let mut raw = [0; 32];
    sk.write_exact(&mut raw);
    let mut public = [0; 32];
    pk.write_exact(&mut public);
    (PrivateKey::take(&mut raw), public)
}

fn info(c: &Context<'_>) -> Vec<u8> {
    [b"holdfast/v1/", c.purpose.as_bytes(), &[0], &c.cluster.0].concat()
}

/// Seals `plaintext` to `pk` with `entropy` (32 fresh random bytes, used for nothing else).
pub fn seal(
    pk: &[u8],
    c: &Context<'_>,
    psk: Option<&Psk>,
    plaintext: &[u8],
    mut entropy: [u8; 32],
) -> Result<Vec<u8>, BoxError> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(BoxError::TooLong);
    }
    let public = <Kem as hpke::Kem>::PublicKey::from_bytes(pk).map_err(|_| BoxError::PublicKey)?;
    let bundle = psk_bundle(psk)?;
    let mode = bundle.map_or(OpModeS::Base, OpModeS::Psk);
    let mut rng = Seeded::new(entropy);
    entropy.zeroize();
    let (enc, ct) =
        hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem>(&mode, &public, &info(c), plaintext, c.aad, &mut rng)
            .map_err(|_| BoxError::PublicKey)?;
    let enc = enc.to_bytes();
    let mut out = Vec::with_capacity(HEADER + 8 + enc.len() + ct.len());
    out.extend_from_slice(b"HB\x01");
    out.extend_from_slice(&SUITE.to_be_bytes());
    out.push(u8::from(psk.is_some()));
    out.extend_from_slice(&key_id(pk));
    for part in [enc.as_slice(), &ct] {
        out.extend_from_slice(&u32::try_from(part.len()).map_err(|_| BoxError::TooLong)?.to_be_bytes());
        out.extend_from_slice(part);
    }
    Ok(out)
}

fn psk_bundle(psk: Option<&Psk>) -> Result<Option<PskBundle<'_>>, BoxError> {
    psk.map(|p| PskBundle::new(p.expose(), b"holdfast/v1/psk").map_err(|_| BoxError::Open)).transpose()
}

/// A box taken apart but not opened.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// True if it was sealed in PSK mode.
    pub psk: bool,
    /// `H(pk)[..16]` of the recipient.
    pub kid: [u8; 16],
    enc: &'a [u8],
    ct: &'a [u8],
}

/// Takes a box apart without opening it.
pub fn parse(b: &[u8]) -> Result<Parsed<'_>, BoxError> {
    let (head, rest) = b.split_at_checked(HEADER).ok_or(BoxError::Malformed)?;
    let (magic, head) = head.split_at(2);
    if magic != b"HB" {
        return Err(BoxError::Malformed);
    }
    let [fmt, s1, s0, mode, kid @ ..] = head else { return Err(BoxError::Malformed) };
    if *fmt != 1 || u16::from_be_bytes([*s1, *s0]) != SUITE || *mode > 1 {
        return Err(BoxError::Unknown);
    }
    let kid = <[u8; 16]>::try_from(kid).map_err(|_| BoxError::Malformed)?;
    let (enc, rest) = take_lp(rest)?;
    let (ct, rest) = take_lp(rest)?;
    if !rest.is_empty() || enc.len() != 32 || ct.len() < 16 || ct.len() > MAX_PLAINTEXT + 16 {
        return Err(BoxError::Malformed);
    }
    Ok(Parsed { psk: *mode == 1, kid, enc, ct })
}

fn take_lp(b: &[u8]) -> Result<(&[u8], &[u8]), BoxError> {
    let (len, rest) = b.split_first_chunk::<4>().ok_or(BoxError::Malformed)?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or(BoxError::Malformed)
}

/// Opens box `b` with `sk`. With a PSK only PSK-mode boxes open, without one only base-mode boxes.
pub fn open(sk: &PrivateKey, c: &Context<'_>, psk: Option<&Psk>, b: &[u8]) -> Result<SecretBytes, BoxError> {
    let key = private(sk)?;
    let kid = key_id(&Kem::sk_to_pk(&key).to_bytes());
    opened(&kid, &key, c, psk, b)
}

/// The same for whoever opens many boxes with one key: `kid` is `H(pk)[..16]` of `sk`, computed once. A wrong one opens
/// nothing.
pub fn open_known(
    kid: &[u8; 16],
    sk: &PrivateKey,
    c: &Context<'_>,
    psk: Option<&Psk>,
    b: &[u8],
) -> Result<SecretBytes, BoxError> {
    opened(kid, &private(sk)?, c, psk, b)
}

fn private(sk: &PrivateKey) -> Result<<Kem as hpke::Kem>::PrivateKey, BoxError> {
    <Kem as hpke::Kem>::PrivateKey::from_bytes(sk.expose()).map_err(|_| BoxError::Open)
}

fn opened(
    kid: &[u8; 16],
    key: &<Kem as hpke::Kem>::PrivateKey,
    c: &Context<'_>,
    psk: Option<&Psk>,
    b: &[u8],
) -> Result<SecretBytes, BoxError> {
    let opened = decrypted(kid, key, c, psk, b);
    wipe_stack();
    opened
}

#[inline(never)]
fn decrypted(
    kid: &[u8; 16],
    key: &<Kem as hpke::Kem>::PrivateKey,
    c: &Context<'_>,
    psk: Option<&Psk>,
    b: &[u8],
) -> Result<SecretBytes, BoxError> {
    let p = parse(b)?;
    if p.psk != psk.is_some() {
        return Err(BoxError::Mode);
    }
    if *kid != p.kid {
        return Err(BoxError::OtherKey);
    }
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(p.enc).map_err(|_| BoxError::Malformed)?;
    let mode = psk_bundle(psk)?.map_or(OpModeR::Base, OpModeR::Psk);
    hpke::single_shot_open::<Aead, Kdf, Kem>(&mode, key, &enc, &info(c), p.ct, c.aad)
        .map(SecretBytes::new)
        .map_err(|_| BoxError::Open)
}

/// `lp(x)` for building an AAD: u32 big endian length, then the bytes.
pub fn lp(x: &[u8]) -> Vec<u8> {
    let mut v = u32::try_from(x.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    v.extend_from_slice(x);
    v
}

/// AAD of a task secret's box: `grant_id ‖ lp(name) ‖ version ‖ lp(node_id) ‖ node_seq` (protocol, Box).
pub fn secret_aad(grant_id: &[u8], name: &str, version: u64, node_id: &str, node_seq: u64) -> Vec<u8> {
    [grant_id, &lp(name.as_bytes()), &version.to_be_bytes(), &lp(node_id.as_bytes()), &node_seq.to_be_bytes()].concat()
}

/// AAD of a value boxed to the intake key: `lp(subject) ‖ rev ‖ command_id`.
pub fn intake_aad(subject: &str, rev: u64, command_id: &[u8]) -> Vec<u8> {
    [&lp(subject.as_bytes()), rev.to_be_bytes().as_slice(), command_id].concat()
}

/// AAD of an unlock or recovery slot: `voter_id ‖ dk_gen ‖ epoch` (epoch = unlock epoch or charter version).
pub fn slot_aad(voter_id: u64, dk_gen: u32, epoch: u64) -> Vec<u8> {
    [voter_id.to_be_bytes().as_slice(), &dk_gen.to_be_bytes(), &epoch.to_be_bytes()].concat()
}

/// AAD of the box in which a disk key comes back to its sealed voter (purpose [`OPEN_SLOT`]).
pub fn open_slot_aad(voter_id: u64, dk_gen: u32) -> Vec<u8> {
    [voter_id.to_be_bytes().as_slice(), &dk_gen.to_be_bytes()].concat()
}

/// Purpose of that box.
pub const OPEN_SLOT: &str = "open-slot";

/// AAD of the box that holds the unlock secret of `older` for whoever has the one after it: `e ‖ e+1`.
pub fn chain_aad(older: u64) -> Vec<u8> {
    [older.to_be_bytes(), older.saturating_add(1).to_be_bytes()].concat()
}
