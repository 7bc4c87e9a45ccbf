//! What a token can do for a vault, found out by trying.
//!
//! Runs the module in this process: for a program that was started for this and ends afterwards, never in the vault.

use crate::direct::{Token, mechanism_of};
use crate::port::{KeyError, KeyId, KeyPort as _, Purpose, Wraps as _};
use crate::uri::Uri;
use holdfast_types::SecretBytes;
use serde::Serialize;
use std::fmt;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The module's file.
    pub module: String,
    /// What the module says that it is.
    pub library: String,
    /// The token: label, manufacturer, model, serial number.
    pub token: String,
    /// The slot's number.
    pub slot: u64,
    /// What was asked, in order.
    pub findings: Vec<Finding>,
}

/// One thing that a vault wants of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: `login`, `generate`, `sign`, `find again`, `destroy`, `wrap`.
    pub what: &'static str,
    /// Whether the token does it; absent if it was not tried.
    pub works: Option<bool>,
    /// With what, or why not.
    pub note: String,
}

impl Probe {
    /// Whether a root key can be kept there.
    pub fn holds_roots(&self) -> bool {
        self.findings.iter().filter(|f| f.what != "wrap").all(|f| f.works == Some(true))
    }
    /// Whether a voter can be opened by it.
    pub fn opens_voters(&self) -> bool {
        self.findings.iter().any(|f| f.what == "wrap" && f.works == Some(true))
    }
}

/// The name of the key that is made to try the token, and destroyed again.
const NAME: &[u8] = b"holdfast probe";

/// Tries the token: everything if there is a PIN, else only what it says of itself. Leaves nothing behind but, in a token
/// that can wrap, the wrapping key of the label `probe`.
pub fn probe(uri: &Uri, pin: Option<SecretBytes>) -> Result<Probe, KeyError> {
    let pin = pin.as_ref();
    let token = Token::open(uri, pin)?;
    let said = token.said();
    let mut probe = Probe {
        module: said.module.display().to_string(),
        library: said.library.clone(),
        token: said.token.clone(),
        slot: said.slot,
        findings: Vec::new(),
    };
    let mut find = |what, tried: Option<Result<String, KeyError>>| {
        let (works, note) = match tried {
            Some(Ok(note)) => (Some(true), note),
            Some(Err(e)) => (Some(false), e.to_string()),
            None => (None, "not tried without a PIN".to_owned()),
        };
        probe.findings.push(Finding { what, works, note });
    };
    find("login", pin.map(|_| token.check().map(|()| "the PIN was taken".to_owned())));
    let made = pin.map(|_| token.generate(Purpose::Root, NAME));
    find("generate", made.as_ref().map(|m| m.clone().map(|id| format!("P-256, not extractable, id {id}"))));
    let id = KeyId::of(Purpose::Root, NAME);
    let made = made.and_then(Result::ok);
    find("sign", made.map(|_| token.sign_p256(&id, b"probe").map(|_| "ECDSA with SHA-256".to_owned())));
    find("find again", made.map(|_| token.public(&id).map(|_| "by its id, with its public key".to_owned())));
    find("destroy", made.map(|_| token.destroy(&id).map(|()| "the key is gone".to_owned())));
    find("wrap", pin.map(|_| wrap(&token)));
    Ok(probe)
}

fn wrap(token: &Token) -> Result<String, KeyError> {
    let blob = token.wrap("probe", &[7; 32], b"probe")?;
    token.unwrap("probe", &blob, b"probe")?;
    Ok(mechanism_of(&blob).to_owned())
}

/// A table for people.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "module   {}\nlibrary  {}\ntoken    {}\nslot     {}\n",
            self.module, self.library, self.token, self.slot
        )?;
        for finding in &self.findings {
            let works = match finding.works {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            };
            writeln!(f, "{:<12}{works:<5}{}", finding.what, finding.note)?;
        }
        let yes = |b| if b { "yes" } else { "no" };
        writeln!(f, "\ncan hold root keys   {}", yes(self.holds_roots()))?;
        writeln!(f, "can open a voter     {}", yes(self.opens_voters()))
    }
}
