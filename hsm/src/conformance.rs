//! What every back end of [`KeyPort`] does, as one suite: run it over a store, and it panics at the first difference.
//!
//! A store may hold other keys already, as a token does: the suite touches only keys of its own names.
#![expect(clippy::unwrap_used, reason = "a suite that meets the unexpected stops there")]

use crate::port::{KeyError, KeyId, KeyPort, Purpose, Wraps};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

/// Runs the whole suite; `make` opens the store under test.
pub fn conformance<P: KeyPort>(make: impl Fn() -> P) {
    generating_again_finds_the_same_key(&make());
    purposes_and_names_have_keys_of_their_own(&make());
    two_threads_generate_one_key(&make());
    a_signature_verifies_under_the_public_key_only(&make());
    a_destroyed_key_is_gone_and_destroying_it_again_succeeds(&make());
    an_unknown_key_is_reported_by_its_id(&make());
}

fn verifies(public: &[u8], msg: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public).verify(msg, signature).is_ok()
}

/// Makes a key, and destroys it when the case is over.
fn with_key<P: KeyPort>(port: &P, purpose: Purpose, name: &[u8], case: impl FnOnce(&KeyId)) {
    let id = port.generate(purpose, name).unwrap();
    case(&id);
    port.destroy(&id).unwrap();
}

fn generating_again_finds_the_same_key<P: KeyPort>(port: &P) {
    with_key(port, Purpose::Root, b"conformance again", |id| {
        let public = port.public(id).unwrap();
        assert_eq!(*id, KeyId::of(Purpose::Root, b"conformance again"));
        assert_eq!(port.generate(Purpose::Root, b"conformance again").unwrap(), *id);
        assert_eq!(port.public(id).unwrap(), public, "the second call must not replace the key");
        assert_eq!(port.list().unwrap().iter().filter(|k| *k == id).count(), 1);
    });
}

fn purposes_and_names_have_keys_of_their_own<P: KeyPort>(port: &P) {
    with_key(port, Purpose::Root, b"conformance x", |a| {
        with_key(port, Purpose::Issuer, b"conformance x", |b| {
            with_key(port, Purpose::Root, b"conformance y", |c| {
                let [a, b, c] = [a, b, c].map(|id| port.public(id).unwrap());
                assert!(a != b && b != c && a != c, "three names, three keys");
            });
        });
    });
}

fn two_threads_generate_one_key<P: KeyPort>(port: &P) {
    with_key(port, Purpose::Root, b"conformance other", |_| {
        let public = || {
            let id = port.generate(Purpose::Root, b"conformance threads").unwrap();
            port.public(&id).unwrap()
        };
        let (a, b) = std::thread::scope(|s| {
            let (a, b) = (s.spawn(public), s.spawn(public));
            (a.join().unwrap(), b.join().unwrap())
        });
        let id = KeyId::of(Purpose::Root, b"conformance threads");
        assert!(a == b && a == port.public(&id).unwrap(), "one id, one key");
        port.destroy(&id).unwrap();
    });
}

fn a_signature_verifies_under_the_public_key_only<P: KeyPort>(port: &P) {
    with_key(port, Purpose::Issuer, b"conformance sign", |id| {
        with_key(port, Purpose::Issuer, b"conformance stranger", |stranger| {
            let public = port.public(id).unwrap();
            assert_eq!((public.len(), public.first()), (65, Some(&4)), "an uncompressed SEC1 point");
            for msg in [b"".as_slice(), b"to be signed", &[0xa5; 100_000]] {
                let signature = port.sign_p256(id, msg).unwrap();
                assert!(verifies(&public, msg, &signature));
                assert!(!verifies(&public, b"something else", &signature));
                assert!(!verifies(&port.public(stranger).unwrap(), msg, &signature));
            }
        });
    });
}

fn a_destroyed_key_is_gone_and_destroying_it_again_succeeds<P: KeyPort>(port: &P) {
    let id = port.generate(Purpose::Root, b"conformance gone").unwrap();
    let public = port.public(&id).unwrap();
    port.destroy(&id).unwrap();
    port.destroy(&id).unwrap();
    assert_eq!(port.sign_p256(&id, b"msg"), Err(KeyError::NotFound(id)));
    assert_eq!(port.public(&id), Err(KeyError::NotFound(id)));
    assert!(!port.list().unwrap().contains(&id));
    with_key(port, Purpose::Root, b"conformance gone", |again| {
        assert_ne!(port.public(again).unwrap(), public, "a destroyed key never returns");
    });
}

fn an_unknown_key_is_reported_by_its_id<P: KeyPort>(port: &P) {
    let id = KeyId::of(Purpose::Root, b"conformance nobody");
    let error = port.sign_p256(&id, b"msg").unwrap_err();
    assert_eq!(error, KeyError::NotFound(id));
    assert_eq!(error.to_string(), format!("the key store has no key {id}"));
}

/// The name of the key that [`lasting`] makes, for [`Purpose::Root`].
pub const LASTING: &[u8] = b"conformance lasting";

/// The suite of what outlives the store: `again` closes it and opens it anew, as the next start of a vault does.
pub fn lasting<P: KeyPort>(make: impl Fn() -> P, again: impl Fn(P) -> P) {
    let port = make();
    let id = port.generate(Purpose::Root, LASTING).unwrap();
    let public = port.public(&id).unwrap();
    let port = again(port);
    // By its id alone, which whoever opens the store has.
    assert!(verifies(&public, b"to be signed", &port.sign_p256(&id, b"to be signed").unwrap()));
    assert!(port.list().unwrap().contains(&id));
    assert_eq!(port.generate(Purpose::Root, LASTING).unwrap(), id);
    assert_eq!(port.public(&id).unwrap(), public, "another key was made in its place");
    port.destroy(&id).unwrap();
    let port = again(port);
    assert_eq!(port.public(&id), Err(KeyError::NotFound(id)), "a destroyed key came back");
    assert!(!port.list().unwrap().contains(&id));
}

/// The suite of stores that wrap.
pub fn wrapping<P: Wraps + KeyPort>(make: impl Fn() -> P) {
    let port = make();
    for plain in [b"x".as_slice(), &[0xa5; 32], &[0x5a; 256]] {
        let blob = port.wrap("conformance", plain, b"aad").unwrap();
        assert!(plain.len() < 16 || !blob.windows(plain.len()).any(|w| w == plain), "it is encrypted");
        assert_eq!(make().unwrap("conformance", &blob, b"aad").unwrap().expose(), plain, "another session unwraps it");
        assert_ne!(
            port.wrap("conformance", plain, b"aad").unwrap(),
            blob,
            "twice the same value is not the same twice"
        );
        let corrupt = |r: Result<_, KeyError>| matches!(r, Err(KeyError::Corrupt(_)));
        assert!(corrupt(port.unwrap("conformance", &blob, b"other")), "the aad is bound");
        for at in [0, blob.len() / 2, blob.len() - 1] {
            let mut altered = blob.clone();
            altered.get_mut(at).into_iter().for_each(|b| *b ^= 0x40);
            assert!(corrupt(port.unwrap("conformance", &altered, b"aad")), "altered at {at}");
        }
        assert!(corrupt(port.unwrap("conformance", b"", b"aad")));
    }
    let blob = port.wrap("conformance", b"x", b"").unwrap();
    let nobody = KeyId::wrapping("conformance nobody");
    assert_eq!(port.unwrap("conformance nobody", &blob, b"").unwrap_err(), KeyError::NotFound(nobody));
    assert!(matches!(port.wrap("conformance", &[0; 257], b""), Err(KeyError::Refused(_))));
    let id = KeyId::wrapping("conformance");
    assert_eq!(port.unwrap("conformance", &blob, b"").unwrap().expose(), b"x");
    port.destroy(&id).unwrap();
    port.destroy(&id).unwrap();
    for unwrapped in [port.unwrap("conformance", &blob, b""), make().unwrap("conformance", &blob, b"")] {
        assert_eq!(unwrapped.unwrap_err(), KeyError::NotFound(id), "a wrapping key that was destroyed is gone");
    }
}
