//! Boxes: one key, one context, one mode.

use crate::samples::*;
use holdfast_types::ClusterId;
use holdfast_wire::boxes::{BoxError, Context, MAX_PLAINTEXT, derive_keypair, open, parse, seal};
use proptest::prelude::*;

#[test]
fn a_box_opens_for_its_key_in_its_context_and_mode_alone() {
    let ((sk, _), other) = (recipient(), derive_keypair(&[99; 32]).0);
    let (base, with_psk) = (base_box(), psk_box());
    assert_eq!(open(&sk, &CONTEXT, None, &base).unwrap().expose(), PLAINTEXT);
    assert_eq!(open(&sk, &CONTEXT, Some(&psk(5)), &with_psk).unwrap().expose(), PLAINTEXT);

    let (strange, stranger) = (ClusterId([8; 32]), Context { aad: b"another grant", ..CONTEXT });
    for c in [
        Context { purpose: "intake", ..CONTEXT },
        Context { cluster: &strange, ..CONTEXT },
        stranger,
        Context { aad: b"", ..CONTEXT },
    ] {
        assert_eq!(open(&sk, &c, None, &base).unwrap_err(), BoxError::Open, "{c:?}");
        assert_eq!(open(&sk, &c, Some(&psk(5)), &with_psk).unwrap_err(), BoxError::Open, "{c:?}");
    }
    assert_eq!(open(&sk, &CONTEXT, Some(&psk(6)), &with_psk).unwrap_err(), BoxError::Open);
    assert_eq!(open(&sk, &CONTEXT, None, &with_psk).unwrap_err(), BoxError::Mode);
    assert_eq!(open(&sk, &CONTEXT, Some(&psk(5)), &base).unwrap_err(), BoxError::Mode);
    assert_eq!(open(&other, &CONTEXT, None, &base).unwrap_err(), BoxError::OtherKey);
}

#[test]
fn a_box_whose_mode_byte_was_rewritten_does_not_open() {
    let (mut base, mut with_psk) = (base_box(), psk_box());
    (base[5], with_psk[5]) = (1, 0);
    assert_eq!(open(&recipient().0, &CONTEXT, Some(&psk(5)), &base).unwrap_err(), BoxError::Open);
    assert_eq!(open(&recipient().0, &CONTEXT, None, &with_psk).unwrap_err(), BoxError::Open);
}

#[test]
fn every_single_bit_of_a_box_counts_and_nothing_may_be_cut_or_added() {
    let sk = recipient().0;
    let good = psk_box();
    for bit in 0..good.len() * 8 {
        let mut b = good.clone();
        b[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&sk, &CONTEXT, Some(&psk(5)), &b).is_err(), "bit {bit}");
    }
    for end in 0..good.len() {
        assert!(open(&sk, &CONTEXT, Some(&psk(5)), &good[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(parse(&[good.as_slice(), &[0]].concat()).unwrap_err(), BoxError::Malformed);
}

#[test]
fn unknown_formats_suites_and_modes_are_named_as_such() {
    for (at, value) in [(2, 2), (3, 1), (4, 2), (5, 2)] {
        let mut b = base_box();
        b[at] = value;
        assert_eq!(parse(&b).unwrap_err(), BoxError::Unknown, "byte {at}");
    }
    assert_eq!(parse(b"HR").unwrap_err(), BoxError::Malformed);
}

#[test]
fn a_bad_public_key_and_an_over_long_plaintext_are_refused() {
    assert_eq!(seal(&[1; 31], &CONTEXT, None, b"", [1; 32]).unwrap_err(), BoxError::PublicKey);
    assert_eq!(seal(&[0; 32], &CONTEXT, None, b"", [1; 32]).unwrap_err(), BoxError::PublicKey);
    assert_eq!(
        seal(&recipient().1, &CONTEXT, None, &vec![0; MAX_PLAINTEXT + 1], [1; 32]).unwrap_err(),
        BoxError::TooLong
    );
}

proptest! {
    #[test]
    fn any_plaintext_and_context_round_trip(pt in prop::collection::vec(any::<u8>(), 0..3000), aad in prop::collection::vec(any::<u8>(), 0..80), e in any::<[u8; 32]>()) {
        let (sk, pk) = recipient();
        let c = Context { aad: &aad, ..CONTEXT };
        let b = seal(&pk, &c, Some(&psk(5)), &pt, e).unwrap();
        let opened = open(&sk, &c, Some(&psk(5)), &b).unwrap();
        prop_assert_eq!(opened.expose(), pt.as_slice());
    }
    #[test]
    fn no_bytes_at_all_make_it_panic(b in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&recipient().0, &CONTEXT, None, &b).is_err());
    }
}
