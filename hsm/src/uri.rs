//! Which token: a PKCS#11 URI (RFC 7512), as far as it names a token and its module.
//!
//! A PIN has no place in a URI, which is printed, logged and stored: `pin-value` and `pin-source` are refused. So is what
//! names an object (`object`, `type`, `id`): keys are found by their purpose and name.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

/// No URI is longer, in bytes: every attribute of a token is at most 32 characters, a path 4096 bytes.
const LONGEST: usize = 8192;

/// Where modules are looked for by `module-name`: `softhsm2` is `libsofthsm2.so` or `softhsm2.so` in one of these.
const MODULE_DIRS: &[&str] = &[
    "/usr/lib/pkcs11",
    "/usr/lib/x86_64-linux-gnu/pkcs11",
    "/usr/lib/aarch64-linux-gnu/pkcs11",
    "/usr/lib/softhsm",
    "/usr/lib/x86_64-linux-gnu/nss",
    "/usr/lib/aarch64-linux-gnu/nss",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64/pkcs11",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
];

/// A token and the module that speaks to it. What is `None` may be anything; the token that is meant must be the only one
/// that all the rest fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uri {
    /// The token's label.
    pub token: Option<String>,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// The slot's number in the module.
    pub slot_id: Option<u64>,
    /// The module.
    pub module: Module,
    /// What the module is given at its start, as its maker wants it (`x-init-reserved`; NSS cannot do without).
    pub init_reserved: Option<String>,
}

/// The shared library that speaks to the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Module {
    /// `module-path`: an absolute path of a file.
    Path(PathBuf),
    /// `module-name`: a name, looked for where such libraries lie.
    Name(String),
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What is wrong with a URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Not a PKCS#11 URI at all.
    #[error("a token's URI begins with pkcs11:")]
    Scheme,
    /// Longer than any can be.
    #[error("the token's URI is longer than 8192 bytes")]
    Long,
    /// An attribute that is not `name=value` in the characters that RFC 7512 allows.
    #[error("the token's URI is malformed at {0:?}")]
    Malformed(String),
    /// The same attribute twice.
    #[error("the token's URI has {0} twice")]
    Twice(&'static str),
    /// An attribute that would be ignored.
    #[error("the token's URI has {0}, which is not known here")]
    Unknown(String),
    /// A PIN.
    #[error("the token's URI has {0}: a PIN is never part of a URI; give it in a file, a credential or at the prompt")]
    Pin(&'static str),
    /// A key in place of a token.
    #[error("the token's URI has {0}: name the token, not an object in it")]
    Object(String),
    /// A value that cannot be one of this attribute's.
    #[error("the token's URI: {0} {1}")]
    Value(&'static str, &'static str),
    /// Nothing says which module.
    #[error("the token's URI names no module: add ?module-path=/… or ?module-name=…")]
    NoModule,
    /// Two things say which module.
    #[error("the token's URI has both module-path and module-name")]
    TwoModules,
    /// Nothing says which token.
    #[error("the token's URI names no token: give token, serial or slot-id")]
    NoToken,
}

impl Uri {
    /// Reads a URI such as `pkcs11:token=holdfast;serial=0123?module-name=softhsm2`.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if text.len() > LONGEST {
            return Err(UriError::Long);
        }
        let rest = text.strip_prefix("pkcs11:").ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut read = Read::default();
        for part in path.split(';').filter(|p| !p.is_empty()) {
            read.path_attribute(part)?;
        }
        for part in query.split('&').filter(|p| !p.is_empty()) {
            read.query_attribute(part)?;
        }
        read.finish()
    }
    /// The files that the module may be, in the order in which they are tried: the first that is there is it.
    pub fn module_files(&self) -> Vec<PathBuf> {
        match &self.module {
            Module::Path(path) => vec![path.clone()],
            Module::Name(name) => MODULE_DIRS
                .iter()
                .flat_map(|dir| [format!("{dir}/lib{name}.so"), format!("{dir}/{name}.so")])
                .map(PathBuf::from)
                .collect(),
        }
    }
}

impl FromStr for Uri {
    type Err = UriError;
    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

#[derive(Default)]
struct Read {
    token: Option<String>,
    manufacturer: Option<String>,
    serial: Option<String>,
    model: Option<String>,
    slot_id: Option<String>,
    path: Option<String>,
    name: Option<String>,
    reserved: Option<String>,
}

impl Read {
    fn path_attribute(&mut self, part: &str) -> Result<(), UriError> {
        let (key, value) = split(part)?;
        match key {
            "token" => once(&mut self.token, "token", bounded("token", decoded(value, part)?, 32)?),
            "manufacturer" => {
                once(&mut self.manufacturer, "manufacturer", bounded("manufacturer", decoded(value, part)?, 32)?)
            }
            "serial" => once(&mut self.serial, "serial", bounded("serial", decoded(value, part)?, 16)?),
            "model" => once(&mut self.model, "model", bounded("model", decoded(value, part)?, 16)?),
            "slot-id" => once(&mut self.slot_id, "slot-id", decoded(value, part)?),
            "pin-value" => Err(UriError::Pin("pin-value")),
            "pin-source" => Err(UriError::Pin("pin-source")),
            "object" | "type" | "id" => Err(UriError::Object(key.to_owned())),
            _ => Err(UriError::Unknown(key.to_owned())),
        }
    }
    fn query_attribute(&mut self, part: &str) -> Result<(), UriError> {
        let (key, value) = split(part)?;
        match key {
            "module-path" => once(&mut self.path, "module-path", decoded(value, part)?),
            "module-name" => once(&mut self.name, "module-name", decoded(value, part)?),
            "x-init-reserved" => once(&mut self.reserved, "x-init-reserved", decoded(value, part)?),
            "pin-value" => Err(UriError::Pin("pin-value")),
            "pin-source" => Err(UriError::Pin("pin-source")),
            _ => Err(UriError::Unknown(key.to_owned())),
        }
    }
    fn finish(self) -> Result<Uri, UriError> {
        let module = match (self.path, self.name) {
            (Some(path), None) if path.starts_with('/') && path.len() < 4096 => Module::Path(PathBuf::from(path)),
            (Some(_), None) => return Err(UriError::Value("module-path", "is not an absolute path")),
            (None, Some(name)) if is_module_name(&name) => Module::Name(name),
            (None, Some(_)) => return Err(UriError::Value("module-name", "is not the plain name of a library")),
            (None, None) => return Err(UriError::NoModule),
            (Some(_), Some(_)) => return Err(UriError::TwoModules),
        };
        let number = |text: String| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse::<u64>().ok().filter(|_| digits);
            number.ok_or(UriError::Value("slot-id", "is not a number"))
        };
        let slot_id = self.slot_id.map(number).transpose()?;
        if self.token.is_none() && self.serial.is_none() && slot_id.is_none() {
            return Err(UriError::NoToken);
        }
        Ok(Uri {
            token: self.token,
            manufacturer: self.manufacturer,
            serial: self.serial,
            model: self.model,
            slot_id,
            module,
            init_reserved: self.reserved,
        })
    }
}

/// A library's name without `lib` and `.so`, and nothing that leads to another directory.
fn is_module_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))
}

fn split(part: &str) -> Result<(&str, &str), UriError> {
    part.split_once('=').ok_or_else(|| UriError::Malformed(shown(part)))
}

fn once(place: &mut Option<String>, name: &'static str, value: String) -> Result<(), UriError> {
    if place.replace(value).is_some() { Err(UriError::Twice(name)) } else { Ok(()) }
}

/// PKCS#11 keeps these in fields of a fixed size; what is empty or longer can name no token.
fn bounded(name: &'static str, value: String, longest: usize) -> Result<String, UriError> {
    if value.is_empty() {
        Err(UriError::Value(name, "is empty"))
    } else if value.len() > longest {
        Err(UriError::Value(name, "is longer than any token's"))
    } else {
        Ok(value)
    }
}

/// Undoes `%XX`; what is neither that nor an allowed character (RFC 7512 2.3) is malformed. So is a NUL.
fn decoded(value: &str, part: &str) -> Result<String, UriError> {
    let malformed = || UriError::Malformed(shown(part));
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(malformed);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).map_err(|_| malformed())?
            }
            _ if is_plain(b) || b"/|".contains(&b) => b,
            _ => return Err(malformed()),
        });
    }
    String::from_utf8(out).ok().filter(|s| !s.chars().any(char::is_control)).ok_or_else(malformed)
}

/// What may stand as it is, in an attribute of the path and of the query alike.
fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,=".contains(&b)
}

/// The beginning of what is wrong, for a message.
fn shown(part: &str) -> String {
    part.chars().take(40).collect()
}

/// The canonical form: parsing it gives the same URI.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pkcs11:")?;
        let slot = self.slot_id.map(|n| n.to_string());
        let path = [
            ("token", &self.token),
            ("manufacturer", &self.manufacturer),
            ("serial", &self.serial),
            ("model", &self.model),
            ("slot-id", &slot),
        ];
        let mut first = true;
        for (key, value) in path {
            if let Some(value) = value {
                write!(f, "{}{key}=", if first { "" } else { ";" })?;
                encoded(f, value)?;
                first = false;
            }
        }
        match &self.module {
            Module::Path(path) => {
                f.write_str("?module-path=")?;
                encoded(f, &path.to_string_lossy())?;
            }
            Module::Name(name) => {
                f.write_str("?module-name=")?;
                encoded(f, name)?;
            }
        }
        if let Some(reserved) = &self.init_reserved {
            f.write_str("&x-init-reserved=")?;
            encoded(f, reserved)?;
        }
        Ok(())
    }
}

fn encoded(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    for b in value.bytes() {
        if is_plain(b) || b"/|".contains(&b) {
            f.write_char(char::from(b))?;
        } else {
            write!(f, "%{b:02X}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "pkcs11:token=Holdfast%20root;serial=0a1b?module-path=/usr/lib/softhsm/libsofthsm2.so";

    #[test]
    fn a_uri_is_read_and_written_again() {
        let uri = Uri::parse(GOOD).unwrap();
        assert_eq!((uri.token.as_deref(), uri.serial.as_deref()), (Some("Holdfast root"), Some("0a1b")));
        assert_eq!(uri.module, Module::Path("/usr/lib/softhsm/libsofthsm2.so".into()));
        assert_eq!(uri.to_string(), GOOD);
        let nss = "pkcs11:slot-id=2?module-name=softokn3&x-init-reserved=configDir='sql:/x'%20flags=";
        assert_eq!(Uri::parse(nss).unwrap().to_string(), nss);
        assert!(Uri::parse(nss).unwrap().module_files().iter().any(|p| p.ends_with("libsoftokn3.so")));
    }

    #[test]
    fn what_holds_a_pin_or_means_nothing_is_refused_by_its_name() {
        let refused = |text: &str| Uri::parse(text).unwrap_err();
        assert_eq!(refused("token=a"), UriError::Scheme);
        assert_eq!(refused("pkcs11:token=a"), UriError::NoModule);
        assert_eq!(refused("pkcs11:?module-name=a"), UriError::NoToken);
        assert_eq!(refused("pkcs11:token=a?module-name=a&module-path=/a"), UriError::TwoModules);
        assert_eq!(refused("pkcs11:token=a;token=b?module-name=a"), UriError::Twice("token"));
        assert_eq!(refused("pkcs11:token=a?module-name=a&pin-value=1234"), UriError::Pin("pin-value"));
        assert_eq!(refused("pkcs11:token=a;pin-source=f?module-name=a"), UriError::Pin("pin-source"));
        assert_eq!(refused("pkcs11:token=a;object=k?module-name=a"), UriError::Object("object".to_owned()));
        assert_eq!(refused("pkcs11:token=a;colour=b?module-name=a"), UriError::Unknown("colour".to_owned()));
        assert!(!refused("pkcs11:token=a?module-name=a&pin-value=1234").to_string().contains("1234"));
        for bad in ["token", "token=%", "token=%4", "token=%zz", "token=%00", "token=%ff", "token=a b", "token=a\u{e4}"]
        {
            assert!(matches!(refused(&format!("pkcs11:{bad}?module-name=a")), UriError::Malformed(_)), "{bad}");
        }
        for bad in [
            "slot-id=-1",
            "slot-id=",
            "slot-id=x",
            "slot-id=99999999999999999999999",
            "token=",
            "serial=01234567890123456",
        ] {
            assert!(matches!(refused(&format!("pkcs11:{bad}?module-name=a")), UriError::Value(_, _)), "{bad}");
        }
        for bad in ["module-path=lib.so", "module-path=", "module-name=../a", "module-name=", "module-name=.a"] {
            assert!(matches!(refused(&format!("pkcs11:token=a?{bad}")), UriError::Value(_, _)), "{bad}");
        }
        assert_eq!(refused(&format!("pkcs11:token={}", "a".repeat(9000))), UriError::Long);
    }
}
