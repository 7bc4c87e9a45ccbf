//! Tokens and printable keys: what is mistyped is refused before anything is sent.

use crate::samples::{join_token, key_share, unlock_key};
use holdfast_types::{Digest, Secret, TokenId, kind};
use holdfast_wire::share::{KeyShare, ShareKind};
use holdfast_wire::token::{
    JoinToken, TokenError, TokenRole, join_mac, join_mac_matches, parse_recovery, parse_unlock, print_key,
};
use proptest::prelude::*;

/// What people type instead: the alphabet, its look-alikes, both cases, separators.
const TYPED: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHJKMNPQRSTVWXYZ_-. \u{e9}";

#[test]
fn a3_a_token_with_one_character_altered_is_refused() {
    let good = join_token().print();
    for (i, was) in good.char_indices() {
        for c in TYPED.chars().filter(|c| *c != was) {
            let bad = format!("{}{c}{}", &good[..i], &good[i + 1..]);
            assert!(JoinToken::parse(&bad).is_err(), "{bad}");
        }
        let missing = format!("{}{}", &good[..i], &good[i + 1..]);
        assert!(JoinToken::parse(&missing).is_err(), "{missing}");
    }
    assert!(JoinToken::parse(&format!("{}0", *good)).is_err());
}

#[test]
fn an_unlock_key_with_one_character_altered_is_refused() {
    let good = print_key("unlock", &unlock_key());
    assert!(parse_unlock(&format!(" {}\n", *good)).unwrap().ct_eq(&unlock_key()));
    for (i, was) in good.char_indices() {
        for c in TYPED.chars().filter(|c| *c != was) {
            assert!(parse_unlock(&format!("{}{c}{}", &good[..i], &good[i + 1..])).is_err(), "{i} {c}");
        }
    }
    for end in 0..good.len() {
        assert!(parse_unlock(&good[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_share_with_one_character_altered_is_refused() {
    let good = key_share().print();
    let read = KeyShare::parse(&format!(" {}\n", *good)).unwrap();
    assert_eq!((read.kind, read.id, read.threshold, read.epoch), (ShareKind::Unlock, 3, 2, 7));
    assert_eq!((read.digest(), read.cluster), (key_share().digest(), key_share().cluster));
    for (i, was) in good.char_indices() {
        for c in TYPED.chars().filter(|c| *c != was) {
            assert!(KeyShare::parse(&format!("{}{c}{}", &good[..i], &good[i + 1..])).is_err(), "{i} {c}");
        }
    }
    for end in 0..good.len() {
        assert!(KeyShare::parse(&good[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_share_that_nobody_could_have_made_is_refused() {
    for bad in [KeyShare { id: 0, ..key_share() }, KeyShare { threshold: 1, ..key_share() }] {
        assert!(matches!(KeyShare::parse(&bad.print()), Err(TokenError::Shape)));
    }
    assert_ne!(KeyShare { id: 4, ..key_share() }.digest(), key_share().digest());
}

#[test]
fn one_kind_of_key_is_never_taken_for_another() {
    let unlock = print_key("unlock", &unlock_key());
    assert!(matches!(parse_recovery(&unlock), Err(TokenError::Prefix("recovery key", _))));
    assert!(matches!(JoinToken::parse(&unlock).map(|_| ()), Err(TokenError::Prefix("join token", _))));
    let renamed = unlock.replace("unlock", "recovery");
    assert!(matches!(parse_recovery(&renamed), Err(TokenError::Checksum)));
}

#[test]
fn a_scanner_finds_every_printed_secret_by_its_form() {
    for text in [
        join_token().print(),
        print_key("unlock", &unlock_key()),
        print_key("recovery", &Secret::<kind::RecoverySecret, 32>::take(&mut [1; 32])),
        key_share().print(),
    ] {
        let prefixes = ["hf_join_v1_", "hf_unlock_v1_", "hf_recovery_v1_", "hf_share_v1_"];
        let rest = prefixes.iter().find_map(|p| text.strip_prefix(p)).unwrap();
        assert!(
            rest.len() >= 40 && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{}",
            *text
        );
    }
}

#[test]
fn a7_a_join_mac_binds_nonce_request_and_key() {
    let k = join_token().mac_key();
    let mac = join_mac(&k, &[1; 32], b"csr", b"pk");
    assert!(join_mac_matches(&k, &[1; 32], b"csr", b"pk", &mac));
    assert!(!join_mac_matches(&k, &[2; 32], b"csr", b"pk", &mac));
    assert!(!join_mac_matches(&k, &[1; 32], b"csr2", b"pk", &mac));
    assert!(!join_mac_matches(&k, &[1; 32], b"csr", b"pk2", &mac));
    assert!(!join_mac_matches(&k, &[1; 32], b"csrp", b"k", &mac));
    assert!(!join_mac_matches(&k, &[1; 32], b"csr", b"pk", &mac[..31]));
    assert!(!join_mac_matches(&k, &[1; 32], b"csr", b"pk", &[]));
    assert!(!join_mac_matches(&Secret::take(&mut [1; 32]), &[1; 32], b"csr", b"pk", &mac));
}

proptest! {
    #[test]
    fn any_token_round_trips(id in any::<[u8; 8]>(), anchor in any::<[u8; 32]>(), secret in any::<[u8; 20]>(), r in 0_usize..3) {
        let role = [TokenRole::Node, TokenRole::Orchestrator, TokenRole::Voter][r];
        let t = JoinToken { role, id: TokenId(id), anchor: Digest(anchor), secret: Secret::take(&mut { secret }) };
        let back = JoinToken::parse(&t.print()).unwrap();
        prop_assert_eq!((back.role, back.id, back.anchor, *back.secret.expose()), (role, t.id, t.anchor, secret));
    }
    #[test]
    fn no_text_at_all_makes_it_panic(s in "(hf_(join|unlock|recovery|share)_v1_)?[0-9a-z_\u{e9}]{0,130}") {
        prop_assert!(JoinToken::parse(&s).is_err() && parse_unlock(&s).is_err() && parse_recovery(&s).is_err());
        prop_assert!(KeyShare::parse(&s).is_err());
    }
}
