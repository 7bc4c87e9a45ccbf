//! Every back end passes the one suite, and a token that fails does what is promised: a named error in time, then recovery.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop there")]

mod bad;
mod plain;

use holdfast_hsm::conformance::{conformance, lasting, wrapping};
use holdfast_hsm::{Keeper, KeeperOptions, KeyError, KeyId, KeyPort as _, Pkcs11Port, Purpose, Uri};
use holdfast_hsm_shim::tokens::{PIN, TestToken};
use holdfast_types::SecretBytes;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);
/// Enough for a worker to start on a machine that does much else.
const SHORT: Duration = Duration::from_secs(2);

fn port(token: &TestToken, uri: &str, pin: &str, deadline: Duration) -> Pkcs11Port {
    let program = token.program(Path::new(env!("CARGO_BIN_EXE_holdfast-hsm-process")));
    let uri = Uri::parse(uri).unwrap();
    let pin = SecretBytes::new(pin.as_bytes().to_vec());
    Pkcs11Port::new(Keeper::spawn(&program, KeeperOptions { uri, pin, deadline }).unwrap())
}

/// A token of SoftHSM behind the shim.
struct Faulty {
    dir: TempDir,
    token: TestToken,
}
impl Faulty {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token = TestToken::softhsm(dir.path());
        Self { dir, token }
    }
    fn port(&self, pin: &str, deadline: Duration) -> Pkcs11Port {
        port(&self.token, &self.token.uri_by_shim(), pin, deadline)
    }
}

#[test]
fn softhsm_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let token = TestToken::softhsm(dir.path());
    conformance(|| port(&token, &token.uri(), PIN, LONG));
    lasting(
        || port(&token, &token.uri(), PIN, LONG),
        |old: Pkcs11Port| {
            drop(old);
            port(&token, &token.uri(), PIN, LONG)
        },
    );
    wrapping(|| port(&token, &token.uri(), PIN, LONG));
}

#[test]
fn nss_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let token = TestToken::nss(dir.path());
    conformance(|| port(&token, &token.uri(), PIN, LONG));
    lasting(
        || port(&token, &token.uri(), PIN, LONG),
        |old: Pkcs11Port| {
            drop(old);
            port(&token, &token.uri(), PIN, LONG)
        },
    );
    wrapping(|| port(&token, &token.uri(), PIN, LONG));
}

#[test]
fn a_token_without_gcm_wraps_by_rsa() {
    let faulty = Faulty::new();
    faulty.token.faults(&["C_GetMechanismInfo hide 0x1087"]);
    wrapping(|| faulty.port(PIN, LONG));
    let blob = faulty.port(PIN, LONG).wrap("conformance", b"x", b"").unwrap();
    assert!(matches!(blob.first(), Some(3 | 4)), "RSA-OAEP, not {:?}", blob.first());
}

#[test]
fn a_hung_token_is_an_error_in_time_and_recovers_by_itself() {
    let faulty = Faulty::new();
    let port = faulty.port(PIN, SHORT);
    let id = port.generate(Purpose::Root, b"a").unwrap();
    for hung in ["C_Sign hang", "C_SignInit hang", "C_Sign delay 60000"] {
        faulty.token.faults(&[hung]);
        let begun = Instant::now();
        let error = port.sign_p256(&id, b"m").unwrap_err();
        assert_eq!((&error, error.word()), (&KeyError::Timeout(SHORT), "token-timeout"), "{hung}");
        assert!(begun.elapsed() < SHORT * 4, "{hung}: {:?}", begun.elapsed());
        faulty.token.faults(&[]);
        port.sign_p256(&id, b"m").unwrap();
    }
}

#[test]
fn a_token_that_hangs_from_the_start_recovers_too() {
    let faulty = Faulty::new();
    let port = faulty.port(PIN, SHORT);
    for hung in ["C_Initialize hang", "C_GetSlotList hang", "C_OpenSession hang"] {
        faulty.token.faults(&[hung]);
        assert_eq!(port.check(), Err(KeyError::Timeout(SHORT)), "{hung}");
    }
    faulty.token.faults(&[]);
    port.check().unwrap();
}

#[test]
fn a_lost_session_is_made_anew_and_the_call_succeeds() {
    let faulty = Faulty::new();
    let port = faulty.port(PIN, LONG);
    let id = port.generate(Purpose::Root, b"a").unwrap();
    port.sign_p256(&id, b"m").unwrap();
    // Each kills the session of the worker that is there; the error lasts, so the new worker names it.
    for (code, name) in
        [("0xb3", "CKR_SESSION_HANDLE_INVALID"), ("0x101", "CKR_USER_NOT_LOGGED_IN"), ("0x32", "CKR_DEVICE_REMOVED")]
    {
        faulty.token.faults(&[&format!("C_SignInit error {code}")]);
        let logins = faulty.token.calls("C_Login");
        let error = port.sign_p256(&id, b"m").unwrap_err();
        assert_eq!(error, KeyError::Unavailable(format!("{name} in C_SignInit")));
        assert_eq!(faulty.token.calls("C_Login"), logins + 1, "tried once more, in a new session");
        faulty.token.faults(&[]);
        port.sign_p256(&id, b"m").unwrap();
    }
}

#[test]
fn a_token_that_logs_out_under_us_is_logged_in_anew_and_no_key_is_taken_for_missing() {
    let faulty = Faulty::new();
    let id = faulty.port(PIN, LONG).generate(Purpose::Root, b"a").unwrap();
    let public = faulty.port(PIN, LONG).public(&id).unwrap();
    // Each by a session that is logged in and has not looked for the key yet, while the token logs out in the midst of it.
    let meets = |call: &str, then: &dyn Fn(&Pkcs11Port)| {
        let port = faulty.port(PIN, LONG);
        port.check().unwrap();
        let logins = faulty.token.calls("C_Login");
        faulty.token.faults(&[&format!("{call} logout")]);
        then(&port);
        assert_eq!(faulty.token.calls("C_Login"), logins + 1, "{call}");
    };
    meets("C_GetSessionInfo", &|port| port.check().unwrap());
    meets("C_FindObjectsInit", &|port| assert_eq!(port.list(), Ok(vec![id])));
    meets("C_FindObjectsInit", &|port| assert_eq!(port.generate(Purpose::Root, b"a"), Ok(id)));
    meets("C_FindObjectsInit", &|port| assert_eq!(port.public(&id).as_ref(), Ok(&public)));
    meets("C_FindObjectsInit", &|port| drop(port.sign_p256(&id, b"m").unwrap()));
    meets("C_SignInit", &|port| drop(port.sign_p256(&id, b"m").unwrap()));
    assert_eq!(objects(faulty.dir.path()).len(), 2, "one pair, and whole");
    meets("C_FindObjectsInit", &|port| port.destroy(&id).unwrap());
    assert_eq!(objects(faulty.dir.path()), Vec::<PathBuf>::new(), "a key that was hidden was taken for destroyed");
}

#[test]
fn a_token_that_was_taken_away_and_put_back_serves_again() {
    let faulty = Faulty::new();
    let id = faulty.port(PIN, LONG).generate(Purpose::Root, b"a").unwrap();
    faulty.token.remove(true);
    let port = faulty.port(PIN, LONG);
    let error = port.sign_p256(&id, b"m").unwrap_err();
    assert!(matches!(&error, KeyError::Unavailable(why) if why.contains("no token that fits")), "{error}");
    faulty.token.remove(false);
    port.sign_p256(&id, b"m").unwrap();
}

/// The objects of the token, as its files.
fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for slot in std::fs::read_dir(dir.join("tokens")).unwrap().flatten() {
        let files = std::fs::read_dir(slot.path()).unwrap().flatten().map(|f| f.path());
        found.extend(files.filter(|f| f.extension().is_some_and(|e| e == "object") && !f.ends_with("token.object")));
    }
    found.sort();
    found
}

#[test]
fn half_a_key_that_a_generation_left_is_not_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let token = TestToken::softhsm(dir.path());
    port(&token, &token.uri(), PIN, LONG).generate(Purpose::Root, b"a").unwrap();
    let pair: Vec<_> = objects(dir.path()).into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    assert_eq!(pair.len(), 2);
    let mut made = 0;
    for (half, path) in &pair {
        objects(dir.path()).iter().for_each(|other| std::fs::remove_file(other).unwrap());
        std::fs::write(path, half).unwrap();
        let port = port(&token, &token.uri(), PIN, LONG);
        let usable = |id: &KeyId| port.public(id).is_ok() && port.sign_p256(id, b"m").is_ok();
        // A public key alone is taken away and a pair is made; a private one alone is nobody's to destroy, and no key.
        if port.generate(Purpose::Root, b"a").is_ok_and(|id| usable(&id)) {
            made += 1;
            assert_eq!(objects(dir.path()).len(), 2, "what was left of the other lies beside it");
        } else {
            assert_eq!(objects(dir.path()).len(), 1, "a private key was touched");
        }
    }
    assert_eq!(made, 1);
}

#[test]
fn a_full_token_says_so() {
    let faulty = Faulty::new();
    let port = faulty.port(PIN, LONG);
    let id = port.generate(Purpose::Root, b"a").unwrap();
    faulty.token.faults(&["C_GenerateKeyPair error 0x31"]);
    let full = port.generate(Purpose::Root, b"b").unwrap_err();
    assert_eq!(full, KeyError::Full("CKR_DEVICE_MEMORY in C_GenerateKeyPair".to_owned()));
    port.sign_p256(&id, b"m").unwrap();
}

#[test]
fn a_wrong_pin_is_tried_once_and_never_again() {
    let faulty = Faulty::new();
    let port = faulty.port("wrong-pin", LONG);
    for _ in 0..5 {
        assert_eq!(port.check().unwrap_err().word(), "pin-incorrect");
    }
    assert_eq!(faulty.token.calls("C_Login"), 1, "a second attempt could lock the token");
    faulty.port(PIN, LONG).check().unwrap();
}

#[test]
fn an_attempt_that_was_cut_off_is_not_repeated_while_the_token_counts_it() {
    let faulty = Faulty::new();
    // Somebody has mistyped: the token counts it.
    assert!(faulty.port("wrong-pin", LONG).check().is_err());
    faulty.token.faults(&["C_Login hang"]);
    let port = faulty.port(PIN, SHORT);
    assert_eq!(port.check(), Err(KeyError::Timeout(SHORT)));
    faulty.token.faults(&[]);
    let logins = faulty.token.calls("C_Login");
    assert_eq!(port.check().unwrap_err().word(), "pin-incorrect");
    assert_eq!(faulty.token.calls("C_Login"), logins);
}

#[test]
fn a_pin_of_which_nobody_knows_how_it_fared_is_tried_twice_at_most() {
    let faulty = Faulty::new();
    faulty.token.faults(&["C_Login hang"]);
    let port = faulty.port(PIN, SHORT);
    for _ in 0..2 {
        assert_eq!(port.check(), Err(KeyError::Timeout(SHORT)));
    }
    faulty.token.faults(&[]);
    let logins = faulty.token.calls("C_Login");
    for _ in 0..3 {
        assert_eq!(port.check().unwrap_err().word(), "pin-incorrect");
    }
    assert_eq!(faulty.token.calls("C_Login"), logins);
    // The vault starts anew.
    faulty.port(PIN, LONG).check().unwrap();
}

#[test]
fn a_signature_that_is_not_one_is_never_given_out() {
    let faulty = Faulty::new();
    let port = faulty.port(PIN, LONG);
    let id = port.generate(Purpose::Root, b"a").unwrap();
    faulty.token.faults(&["C_Sign garble"]);
    assert_eq!(port.sign_p256(&id, b"m").unwrap_err().word(), "token-corrupt");
}

#[test]
fn a_keeper_that_is_gone_is_an_error_and_not_a_hang() {
    let faulty = Faulty::new();
    let program = faulty.token.program(Path::new("/bin/false"));
    let uri = Uri::parse(&faulty.token.uri()).unwrap();
    let pin = SecretBytes::new(PIN.as_bytes().to_vec());
    // The program ends at once: either it is noticed at the start or at the first call.
    if let Ok(keeper) = Keeper::spawn(&program, KeeperOptions { uri, pin, deadline: LONG }) {
        assert_eq!(Pkcs11Port::new(keeper).check().unwrap_err().word(), "token-unavailable");
    }
}

#[test]
fn what_names_no_token_or_no_module_is_refused_by_name() {
    let faulty = Faulty::new();
    let of = |uri: &str| port(&faulty.token, uri, PIN, LONG).check().unwrap_err().to_string();
    let there = faulty.token.uri();
    assert!(of(&there.replace("token=holdfast", "token=other")).contains("no token that fits"));
    assert!(of("pkcs11:token=holdfast?module-path=/nowhere/lib.so").contains("there is no module /nowhere/lib.so"));
    assert!(of("pkcs11:token=holdfast?module-path=/etc/passwd").contains("is no PKCS#11 module"));
}
