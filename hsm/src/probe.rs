//! What a token can do for a vault, found out by trying.
//!
//! Runs the module in this process: for a program that was started for this and ends afterwards, never in the vault.

use crate::direct::Token;
use crate::message::PinTrust;
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
