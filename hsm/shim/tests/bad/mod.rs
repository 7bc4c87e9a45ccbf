//! Tokens that do not fit, or cannot do what they are for: each is refused by name, and nothing in it is changed.

use crate::plain::plain;
use crate::{Faulty, LONG, objects, port};
use holdfast_hsm::{KeyError, KeyPort as _, Purpose};
use holdfast_hsm_shim::tokens::{PIN, shim};

/// Nothing was made, and no PIN was tried.
fn untouched(faulty: &Faulty) {
    assert_eq!((objects(faulty.dir.path()).len(), faulty.token.calls("C_Login")), (0, 0));
}

/// What comes of a look at the token that `what` names.
fn looked(faulty: &Faulty, what: &str) -> Result<(), KeyError> {
    let uri = format!("pkcs11:{what}?module-path={}", shim().display());
    port(&faulty.token, &uri, PIN, LONG).check()
}

/// Slots with their tokens: number, whether initialised, serial number.
fn slots(faulty: &Faulty) -> Vec<(String, bool, String)> {
    let said = plain(&faulty.token, "slots", &[]);
    let words = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap() == "true", words.next().unwrap())
    };
    said.lines().map(words).collect()
}

#[test]
fn a_token_without_a_mechanism_is_refused_by_name_before_anything_is_made() {
    let faulty = Faulty::new();
    let port = faulty.port(PIN, LONG);
    for (hidden, name) in [("0x1040", "CKM_EC_KEY_PAIR_GEN"), ("0x1041", "CKM_ECDSA")] {
        faulty.token.faults(&[&format!("C_GetMechanismInfo hide {hidden}")]);
        let refused = KeyError::Refused(format!("the token has no {name}, which a key on P-256 needs"));
        assert_eq!(port.generate(Purpose::Root, b"a"), Err(refused));
    }
    let all = ["0x1087", "0x210a", "0x9"].map(|hidden| format!("C_GetMechanismInfo hide {hidden}"));
    faulty.token.faults(&all.each_ref().map(String::as_str));
    let error = port.wrap("a", b"x", b"").unwrap_err();
    let none = "the token can encrypt by none of AES-GCM, AES key wrap and RSA-OAEP";
    assert_eq!((&error, error.word()), (&KeyError::Refused(none.to_owned()), "token-refused"));
    // One that says it has what it has not.
    faulty.token.faults(&["C_GenerateKeyPair error 0x70"]);
    let refused = |call: &str| KeyError::Refused(format!("CKR_MECHANISM_INVALID in {call}"));
    assert_eq!(port.generate(Purpose::Root, b"a"), Err(refused("C_GenerateKeyPair")));
    assert_eq!(objects(faulty.dir.path()).len(), 0);
    faulty.token.faults(&[]);
    let id = port.generate(Purpose::Root, b"a").unwrap();
    faulty.token.faults(&["C_SignInit error 0x70"]);
    assert_eq!(port.sign_p256(&id, b"m"), Err(refused("C_SignInit")));
    // A token that cannot be asked for its mechanisms is away, not without them.
    faulty.token.faults(&["C_GetMechanismInfo error 0x32"]);
    let away = KeyError::Unavailable("CKR_DEVICE_REMOVED in C_GetMechanismInfo".to_owned());
    assert_eq!(port.generate(Purpose::Root, b"b"), Err(away));
    assert_eq!(objects(faulty.dir.path()).len(), 2);
}

#[test]
fn a_slot_that_is_not_there_or_has_no_token_of_use_is_named() {
    let faulty = Faulty::new();
    let free = slots(&faulty).into_iter().find(|(_, initialised, _)| !initialised).unwrap().0;
    for slot in ["987654321987".to_owned(), u64::MAX.to_string()] {
        let error = looked(&faulty, &format!("slot-id={slot}")).unwrap_err();
        assert_eq!(error.word(), "token-unavailable");
        let said = error.to_string();
        assert!(said.contains("there is no token that fits") && said.contains(&slot), "{said}");
    }
    let error = looked(&faulty, &format!("slot-id={free}")).unwrap_err();
    let raw = KeyError::Refused(format!("the token in slot {free} is not initialised"));
    assert_eq!(error, raw);
    faulty.token.faults(&["C_OpenSession error 0xe0"]);
    let empty = KeyError::Unavailable("CKR_TOKEN_NOT_PRESENT in C_OpenSession".to_owned());
    assert_eq!(looked(&faulty, "token=holdfast"), Err(empty));
    untouched(&faulty);
    faulty.token.faults(&[]);
    let ours = slots(&faulty).into_iter().find(|(_, initialised, _)| *initialised).unwrap().0;
    looked(&faulty, &format!("slot-id={ours}")).unwrap();
}

#[test]
fn two_tokens_of_one_label_are_refused_until_the_uri_tells_them_apart() {
    let faulty = Faulty::new();
    let more = ["--init-token", "--free", "--label", "holdfast", "--so-pin", "so-pin-1", "--pin", PIN];
    faulty.token.softhsm_util(&more);
    let error = looked(&faulty, "token=holdfast").unwrap_err();
    assert_eq!(error.word(), "token-refused");
    let said = error.to_string();
    assert!(said.contains("2 tokens fit") && said.contains("add serial or slot-id"), "{said}");
    untouched(&faulty);
    let all: Vec<_> = slots(&faulty).into_iter().filter(|(_, initialised, _)| *initialised).collect();
    assert_eq!(all.len(), 2);
    for (slot, _, serial) in all {
        looked(&faulty, &format!("token=holdfast;serial={serial}")).unwrap();
        looked(&faulty, &format!("token=holdfast;slot-id={slot}")).unwrap();
    }
}

#[test]
fn a_pin_that_could_lock_the_token_is_not_tried_and_a_locked_one_is_named() {
    let faulty = Faulty::new();
    let port = faulty.port(PIN, LONG);
    // What the token says when one try is left, and when none is.
    for (flags, why) in [("0x20000", "one more wrong PIN would lock"), ("0x40000", "the token is locked")] {
        faulty.token.faults(&[&format!("C_GetTokenInfo flags {flags}")]);
        for _ in 0..3 {
            let error = port.generate(Purpose::Root, b"a").unwrap_err();
            assert_eq!(error.word(), "pin-incorrect");
            assert!(error.to_string().contains(why), "{error}");
        }
        untouched(&faulty);
    }
    // Unlocked by its officer, it serves without a restart: the PIN was never refused.
    faulty.token.faults(&[]);
    port.check().unwrap();
    // One that says it only when it is tried.
    faulty.token.faults(&["C_Login error 0xa4"]);
    let (port, before) = (faulty.port(PIN, LONG), faulty.token.calls("C_Login"));
    assert_eq!(port.check(), Err(KeyError::Pin("CKR_PIN_LOCKED in C_Login".to_owned())));
    faulty.token.faults(&[]);
    assert_eq!(port.check().unwrap_err().word(), "pin-incorrect");
    assert_eq!((faulty.token.calls("C_Login"), objects(faulty.dir.path()).len()), (before + 1, 0));
}
