//! The section `[hsm]`: which token, where its PIN comes from, and what it is used for beside root keys.

use holdfast_hsm::Uri;
use holdfast_types::parse_duration;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// How long a token may take for one call, unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The bounds of that.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawHsm {
    uri: String,
    pin_file: Option<PathBuf>,
    pin_credential: Option<String>,
    pin_fd: Option<u32>,
    timeout: Option<String>,
    #[serde(default)]
    issuer: bool,
    #[serde(default)]
    unlock: bool,
}

/// Where the PIN is read from, once, at the start. It never stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// A file that nobody but its owner may open.
    File(PathBuf),
    /// A credential of the service manager, by its name.
    Credential(String),
    /// An open file descriptor of this process.
    Fd(u32),
}

/// A token and its use.
#[derive(Debug, Clone)]
pub struct Hsm {
    /// Which token, and by which module.
    pub uri: Uri,
    /// Where its PIN comes from.
    pub pin: PinSource,
    /// How long one call may take.
    pub timeout: Duration,
    /// Keys of issuers are made in it too: every certificate is then signed by the token.
    pub issuer: bool,
    /// This voter opens its own disk with it.
    pub unlock: bool,
}

/// Checks the section; every fault goes to `faults`.
pub(super) fn check(raw: RawHsm, faults: &mut Vec<String>) -> Option<Hsm> {
    let before = faults.len();
    let uri = Uri::parse(&raw.uri).map_err(|e| faults.push(format!("hsm.uri: {e}"))).ok();
    let given = [
        raw.pin_file.map(PinSource::File),
        raw.pin_credential.map(PinSource::Credential),
        raw.pin_fd.map(PinSource::Fd),
    ];
    let mut given = given.into_iter().flatten();
    let pin = given.next();
    if pin.is_none() || given.next().is_some() {
        faults.push("hsm: say exactly one of pin-file, pin-credential and pin-fd".to_owned());
    }
    match &pin {
        Some(PinSource::File(path)) if !path.is_absolute() => {
            faults.push("hsm.pin-file must be an absolute path".to_owned());
        }
        Some(PinSource::Credential(name)) if !is_file_name(name) => {
            faults.push("hsm.pin-credential must be the name of a credential".to_owned());
        }
        Some(_) | None => {}
    }
    let timeout = match raw.timeout.as_deref().map(parse_duration) {
        None => TIMEOUT,
        Some(Ok(t)) if (SHORTEST..=LONGEST).contains(&t) => t,
        Some(Ok(_)) => {
            faults.push("hsm.timeout must be between 100ms and 60s".to_owned());
            TIMEOUT
        }
        Some(Err(e)) => {
            faults.push(format!("hsm.timeout: {e}"));
            TIMEOUT
        }
    };
    let (uri, pin) = uri.zip(pin).filter(|_| faults.len() == before)?;
    Some(Hsm { uri, pin, timeout, issuer: raw.issuer, unlock: raw.unlock })
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "uri = \"pkcs11:token=ca?module-path=/usr/lib/softhsm/libsofthsm2.so\"\n";

    fn checked(text: &str) -> (Option<Hsm>, Vec<String>) {
        let mut faults = Vec::new();
        let hsm = check(toml::from_str(text).unwrap(), &mut faults);
        (hsm, faults)
    }

    #[test]
    fn a_token_needs_its_uri_and_one_source_of_its_pin() {
        let (hsm, faults) = checked(&format!("{URI}pin-credential = \"hsm-pin\"\n"));
        let hsm = hsm.unwrap();
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!((hsm.pin, hsm.timeout), (PinSource::Credential("hsm-pin".to_owned()), Duration::from_secs(5)));
        assert!(!hsm.issuer && !hsm.unlock);
        for (text, part) in [
            (URI.to_owned(), "exactly one"),
            (format!("{URI}pin-fd = 3\npin-file = \"/p\"\n"), "exactly one"),
            (format!("{URI}pin-file = \"p\"\n"), "absolute"),
            (format!("{URI}pin-credential = \"../p\"\n"), "credential"),
            (format!("{URI}pin-fd = 3\ntimeout = \"61s\"\n"), "timeout"),
            (format!("{URI}pin-fd = 3\ntimeout = \"soon\"\n"), "timeout"),
            ("uri = \"https://ca\"\npin-fd = 3\n".to_owned(), "hsm.uri"),
            ("uri = \"pkcs11:token=ca?pin-value=1234\"\npin-fd = 3\n".to_owned(), "hsm.uri"),
        ] {
            let (hsm, faults) = checked(&text);
            assert!(hsm.is_none() && faults.len() == 1 && faults[0].contains(part), "{text}: {faults:?}");
        }
    }

    #[test]
    fn a_pin_in_the_configuration_is_an_unknown_key() {
        let refused = toml::from_str::<RawHsm>(&format!("{URI}pin = \"1234\"\n")).unwrap_err().to_string();
        assert!(refused.contains("pin"), "{refused}");
    }
}
