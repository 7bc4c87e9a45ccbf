//! A token that fails is left alone until it answers again, and says which fault it was.

use super::*;
use crate::config::PinSource;
use holdfast_hsm::SoftwareKeys;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Keys in memory behind a fault that can be set; counts what reaches it.
#[derive(Default)]
struct Fake {
    keys: SoftwareKeys,
    fault: Mutex<Option<KeyError>>,
    asked: AtomicUsize,
}
impl Fake {
    fn set(&self, fault: Option<KeyError>) {
        *self.fault.lock().unwrap() = fault;
    }
    fn asked(&self) -> Result<(), KeyError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.fault.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

struct Shared(Arc<Fake>);
impl KeyPort for Shared {
    fn generate(&self, purpose: Purpose, name: &[u8]) -> Result<KeyId, KeyError> {
        self.0.asked()?;
        self.0.keys.generate(purpose, name)
    }
    fn public(&self, id: &KeyId) -> Result<Vec<u8>, KeyError> {
        self.0.asked()?;
        self.0.keys.public(id)
    }
    fn sign_p256(&self, id: &KeyId, msg: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.asked()?;
        self.0.keys.sign_p256(id, msg)
    }
    fn destroy(&self, id: &KeyId) -> Result<(), KeyError> {
        self.0.asked()?;
        self.0.keys.destroy(id)
    }
    fn list(&self) -> Result<Vec<KeyId>, KeyError> {
        self.0.asked()?;
        self.0.keys.list()
    }
}
impl Back for Shared {
    fn wrap(&self, _: &str, plain: &[u8], _: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.asked().map(|()| plain.to_vec())
    }
    fn unwrap(&self, _: &str, wrapped: &[u8], _: &[u8]) -> Result<SecretBytes, KeyError> {
        self.0.asked().map(|()| SecretBytes::new(wrapped.to_vec()))
    }
    fn check(&self) -> Result<(), KeyError> {
        self.0.asked()
    }
}

const URI: &str = "pkcs11:token=ca?module-path=/usr/lib/softhsm/libsofthsm2.so";

fn config() -> Hsm {
    let uri = Uri::parse(URI).unwrap();
    Hsm { uri, pin: PinSource::Fd(0), timeout: Duration::from_secs(5), issuer: false, unlock: true }
}

fn token() -> (Arc<Fake>, Token) {
    let fake = Arc::new(Fake::default());
    (Arc::clone(&fake), Token::over(&config(), Ok(Box::new(Shared(fake)))))
}

/// One in memory, for tests elsewhere.
pub fn in_memory() -> Arc<Token> {
    Arc::new(token().1)
}

#[test]
fn a_token_that_failed_is_asked_again_by_a_look_alone() {
    let (fake, token) = token();
    assert!(!token.was_asked());
    let id = token.generate(Purpose::Root, b"a").unwrap();
    assert_eq!((token.word().as_str(), token.is_good()), ("ok", true));
    let gone = KeyError::Unavailable("the token did not answer in 5 s".to_owned());
    fake.set(Some(gone.clone()));
    assert_eq!(token.sign_p256(&id, b"x"), Err(gone.clone()));
    let before = fake.asked.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(token.sign_p256(&id, b"x"), Err(gone.clone()));
    }
    assert_eq!(fake.asked.load(Ordering::SeqCst), before, "calls still reach a token that failed");
    assert!(token.word().contains("did not answer in 5 s"), "{}", token.word());
    fake.set(None);
    token.look().unwrap();
    token.sign_p256(&id, b"x").unwrap();
    assert_eq!(token.word(), OK);
}

#[test]
fn a_refusal_is_no_fault_of_the_token() {
    let (fake, token) = token();
    token.look().unwrap();
    for e in [KeyError::Refused("no such mechanism".to_owned()), KeyError::Full("no room".to_owned())] {
        fake.set(Some(e.clone()));
        assert_eq!(token.generate(Purpose::Root, b"a"), Err(e));
        assert!(token.is_good());
    }
    fake.set(Some(KeyError::Refused("there is no such module".to_owned())));
    token.look().unwrap_err();
    assert!(token.word().contains("no such module"), "what refuses to be looked at is of no use: {}", token.word());
    fake.set(None);
    token.look().unwrap();
    let id = token.generate(Purpose::Root, b"a").unwrap();
    token.destroy(&id).unwrap();
    assert_eq!(token.public(&id), Err(KeyError::NotFound(id)));
    assert!(token.is_good());
}

#[test]
fn a_token_without_a_pin_is_named_and_nothing_else() {
    let token = Token::over(&config(), Err(KeyError::Unavailable("there is no PIN: /p is empty".to_owned())));
    assert!(token.word().contains("/p is empty") && !token.is_good());
    assert!(matches!(token.generate(Purpose::Root, b"a"), Err(KeyError::Unavailable(_))));
    assert!(matches!(token.look(), Err(KeyError::Unavailable(_))));
}

#[test]
fn each_fault_has_a_code_of_its_own() {
    let why = || "x".to_owned();
    let id = KeyId::of(Purpose::Root, b"a");
    for (e, code) in [
        (KeyError::Unavailable(why()), "token-unavailable"),
        (KeyError::Timeout(Duration::from_secs(5)), "token-timeout"),
        (KeyError::Pin(why()), "pin-incorrect"),
        (KeyError::Full(why()), "token-full"),
        (KeyError::Refused(why()), "token-refused"),
        (KeyError::Corrupt(why()), "token-corrupt"),
        (KeyError::NotFound(id), "key-not-found"),
    ] {
        let failure = failure(&e);
        assert_eq!(failure.code, code, "{e}");
        let listed = holdfast_transport::codes::Code::ALL.iter().find(|c| c.word() == code);
        assert_eq!(listed.map(|c| c.kind()), Some(failure.kind), "{code}");
    }
}

#[test]
fn a_token_is_the_one_that_the_configuration_names_and_no_other() {
    let (_, token) = token();
    assert!(token.is_named_by(URI).unwrap());
    assert!(!token.is_named_by("pkcs11:token=other?module-path=/usr/lib/softhsm/libsofthsm2.so").unwrap());
    assert_eq!(token.is_named_by("file:/x").unwrap_err().code, "invalid-input");
    let moved = Hsm { uri: Uri::parse("pkcs11:token=ca?module-path=/opt/p11.so").unwrap(), ..config() };
    let fake = Arc::new(Fake::default());
    let moved = Token::over(&moved, Ok(Box::new(Shared(fake))));
    assert_eq!(moved.id(), token.id(), "a module that moved is no other token");
}

#[test]
fn what_a_token_says_stays_short_and_in_one_line() {
    let word = shown(&format!("a\nb\u{1b}[31m{}", "x".repeat(1000)));
    assert!(word.chars().count() == WORDS && word.chars().all(|c| !c.is_control()), "{word:?}");
}
