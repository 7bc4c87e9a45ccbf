//! Specs: what must hold of one by itself, and what of it a running task would notice.
//!
//! The vault checks when a spec is handed in, a node when it is to start a task of it: by the same rules, so that a vault
//! that was taken over cannot have run what an honest one would have refused. Who signed it is [`crate::charter`]'s.

use crate::v1::{Param, ParamDecl, Spec};
use holdfast_types::{Digest, Millis, NameError, SecretRef, ServiceRef, TaskId, Zone, sha256};
use prost::Message as _;
use std::collections::BTreeSet;

/// Longest life of a spec, 180 days, and ten minutes more for a clock that is behind that of whoever signed it.
const MAX_LIFE_MS: i64 = 180 * 86_400 * 1000 + 600_000;

/// Why a spec, or what is to run by it, does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name in it is none.
    #[error("the spec: {0}")]
    Name(#[from] NameError),
    /// Its life is over.
    #[error("the spec was valid until {0}: deploy it again")]
    Expired(Millis),
    /// Its life is longer than any spec's may be.
    #[error("the spec is valid for more than 180 days")]
    TooLong,
    /// Nothing to run, or something without a digest.
    #[error("a spec names at least one image, and each by its SHA-256 digest")]
    Images,
    /// Two things of one kind have one name.
    #[error("the spec names {0} twice")]
    Twice(&'static str),
    /// More at least than at most.
    #[error("the least of a spec's replicas are more than the most")]
    Replicas,
    /// An empty list would guard nothing, or allow nothing.
    #[error("a spec names the zones it may run in; * stands for all")]
    Zones,
    /// Whatever is not plainly one of the two has no default.
    #[error("a spec says what a task does at its lease's end: stop or run-on")]
    Expiry,
    /// A second one could be started while the first runs on.
    #[error("an exclusive service stops when its lease is over: its on-expiry is \"stop\"")]
    Exclusive,
    /// A word that means nothing here.
    #[error("the spec's {0} is not a known word")]
    Word(&'static str),
    /// The task's number is beyond what the spec allows.
    #[error("task {task} is beyond the {most} that the spec allows")]
    Slot {
        /// The task.
        task: String,
        /// The highest number.
        most: u32,
    },
    /// The params are not those declared.
    #[error("the params are not those that the spec declares, in its order")]
    Params,
    /// A param's value is not what was declared.
    #[error("param {0:?} is outside its declared bounds")]
    Bounds(String),
}

/// Digest of the spec without what may change while its tasks run on: version, validity, replicas, update policy.
pub fn template(spec: &Spec) -> Digest {
    let lasting =
        Spec { version: 0, valid_until_ms: 0, replicas_min: 0, replicas_max: 0, update: None, ..spec.clone() };
    sha256(&[&lasting.encode_to_vec()])
}

/// What must hold of a spec at `now`, whoever signed it; names its service.
pub fn check(s: &Spec, now: Millis) -> Result<ServiceRef, SpecError> {
    let service = ServiceRef::of(&s.namespace, &s.service)?;
    if s.valid_until_ms <= now.0 {
        return Err(SpecError::Expired(Millis(s.valid_until_ms)));
    }
    if s.valid_until_ms.saturating_sub(now.0) > MAX_LIFE_MS {
        return Err(SpecError::TooLong);
    }
    if s.images.is_empty() || s.images.iter().any(|i| Digest::from_slice(&i.digest).is_none()) {
        return Err(SpecError::Images);
    }
    if s.replicas_min > s.replicas_max {
        return Err(SpecError::Replicas);
    }
    if !matches!(s.on_expiry.as_str(), "run-on" | "stop") {
        return Err(SpecError::Expiry);
    }
    let words: [(&'static str, &str, &[&str]); 2] = [
        ("isolation", &s.isolation, &["", "default", "relaxed"]),
        ("restart", &s.restart, &["", "always", "on-failure", "never"]),
    ];
    if let Some((what, ..)) = words.iter().find(|(_, word, known)| !known.contains(word)) {
        return Err(SpecError::Word(what));
    }
    if s.exclusive && s.on_expiry != "stop" {
        return Err(SpecError::Exclusive);
    }
    for m in &s.secrets {
        SecretRef::parse(&m.name, &s.namespace)?;
    }
    if s.zones.is_empty() {
        return Err(SpecError::Zones);
    }
    for z in &s.zones {
        Zone::parse(z)?;
    }
    once("an image", s.images.iter().map(|i| &i.name))?;
    once("a secret's target", s.secrets.iter().map(|m| &m.target))?;
    once("a param", s.params.iter().map(|p| &p.name))?;
    Ok(service)
}

fn once<'a>(what: &'static str, names: impl Iterator<Item = &'a String>) -> Result<(), SpecError> {
    let mut seen = BTreeSet::new();
    for n in names {
        if !seen.insert(n) {
            return Err(SpecError::Twice(what));
        }
    }
    Ok(())
}

/// Tasks that may exist beyond the replicas while one replaces another: none of a service that is exclusive, else as
/// many as its update policy moves at a time.
pub fn surge(s: &Spec) -> u32 {
    if s.exclusive { 0 } else { s.update.as_ref().map_or(1, |u| u.parallelism.max(1)) }
}

/// Numbers that tasks of a spec may have, counted from 1.
pub fn slots(s: &Spec) -> u32 {
    s.replicas_max.saturating_add(surge(s))
}

/// The task's number is one that the service can need. That keeps an exclusive service, of which each number runs at
/// most once, at its replicas.
pub fn check_slot(s: &Spec, task: &TaskId) -> Result<(), SpecError> {
    let most = slots(s);
    if (1..=most).contains(&task.slot()) { Ok(()) } else { Err(SpecError::Slot { task: task.to_string(), most }) }
}

/// Every declared hole is filled once, within its bounds, and nothing else is.
pub fn check_params(given: &[Param], declared: &[ParamDecl]) -> Result<(), SpecError> {
    let filled = given.len() == declared.len() && given.iter().zip(declared).all(|(p, d)| p.name == d.name);
    if !filled {
        return Err(SpecError::Params);
    }
    match given.iter().zip(declared).find(|(p, d)| !in_bounds(&p.value, d)) {
        None => Ok(()),
        Some((p, _)) => Err(SpecError::Bounds(p.name.clone())),
    }
}

fn in_bounds(value: &str, d: &ParamDecl) -> bool {
    match d.kind.as_str() {
        // One spelling for each number: no sign, no leading zero that a program might read as octal.
        "int" => value.parse::<i64>().is_ok_and(|n| (d.min..=d.max).contains(&n) && n.to_string() == value),
        "string" => value.len() <= d.max_len as usize && value.bytes().all(|b| (0x20..0x7f).contains(&b)),
        _ => false,
    }
}
