//! Names that people choose: namespaces, services, secrets, zones, trust domains.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Why something is not a name; says which name and what the rule is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {rule}")]
pub struct NameError {
    what: &'static str,
    given: String,
    rule: &'static str,
}

const LABEL_RULE: &str = "use 1 to 63 lower-case letters, digits and '-', starting and ending with a letter or digit";

fn is_label(s: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let b = s.as_bytes();
    matches!((b.first(), b.last()), (Some(f), Some(l)) if ok(*f) && ok(*l))
        && b.len() <= 63
        && b.iter().all(|c| ok(*c) || *c == b'-')
}

fn shorten(s: &str) -> String {
    s.chars().take(80).collect()
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(#[serde(with = "crate::text")] Arc<str>);
        impl $name {
            /// Parses a DNS label (RFC 1123).
            pub fn parse(s: &str) -> Result<Self, NameError> {
                if is_label(s) {
                    Ok(Self(s.into()))
                } else {
                    Err(NameError { what: $what, given: shorten(s), rule: LABEL_RULE })
                }
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
label!(
    /// A namespace: the unit that operators own and orchestrators lease.
    Namespace, "namespace");
label!(
    /// A service's name within its namespace.
    ServiceName, "service name");
label!(
    /// A secret's name within its namespace.
    SecretName, "secret name");

macro_rules! reference {
    ($(#[$doc:meta])* $name:ident, $part:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name {
            /// The namespace.
            pub namespace: Namespace,
            /// The name within it.
            pub name: $part,
        }
        impl $name {
            /// From two parsed halves.
            pub fn new(namespace: Namespace, name: $part) -> Self {
                Self { namespace, name }
            }
            /// From two texts.
            pub fn of(namespace: &str, name: &str) -> Result<Self, NameError> {
                Ok(Self { namespace: Namespace::parse(namespace)?, name: $part::parse(name)? })
            }
            /// From `namespace/name`; a bare `name` falls into `default_namespace`.
            pub fn parse(s: &str, default_namespace: &str) -> Result<Self, NameError> {
                let (ns, n) = s.split_once('/').unwrap_or((default_namespace, s));
                Self::of(ns, n)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.name)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.name)
            }
        }
    };
}
reference!(
    /// `namespace/service`.
    ServiceRef, ServiceName, "service");
reference!(
    /// `namespace/secret`.
    SecretRef, SecretName, "secret");

/// A task: `<namespace>.<service>.<slot>`. The slot is reused; `task_gen` tells incarnations apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(String);
impl TaskId {
    /// The task of `service` in slot `slot` (from 1).
    pub fn new(service: &ServiceRef, slot: u32) -> Self {
        Self(format!("{}.{}.{slot}", service.namespace, service.name))
    }
    /// Parses `<namespace>.<service>.<slot>`.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        let bad = || NameError { what: "task id", given: shorten(s), rule: "use namespace.service.slot" };
        let mut it = s.split('.');
        let (Some(ns), Some(svc), Some(slot), None) = (it.next(), it.next(), it.next(), it.next()) else {
            return Err(bad());
        };
        let n: u32 = slot.parse().map_err(|_| bad())?;
        if !is_label(ns) || !is_label(svc) || n == 0 || n.to_string() != slot {
            return Err(bad());
        }
        Ok(Self(s.to_owned()))
    }
    /// The service it belongs to.
    pub fn service(&self) -> Result<ServiceRef, NameError> {
        let mut it = self.0.split('.');
        ServiceRef::of(it.next().unwrap_or_default(), it.next().unwrap_or_default())
    }
    /// The slot number, from 1.
    pub fn slot(&self) -> u32 {
        self.0.rsplit('.').next().and_then(|s| s.parse().ok()).unwrap_or(0)
    }
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A zone path such as `eu/pci`; `*` is the zone that holds all zones. At most 8 levels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Zone(String);
impl Zone {
    /// Parses `label[/label…]` or `*`.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        if s == "*" || (s.split('/').count() <= 8 && s.split('/').all(is_label)) {
            return Ok(Self(s.to_owned()));
        }
        Err(NameError {
            what: "zone",
            given: shorten(s),
            rule: "use up to 8 names joined by '/', such as eu/pci, or *",
        })
    }
    /// The zone that contains every other.
    pub fn all() -> Self {
        Self("*".to_owned())
    }
    /// True if `self` is `outer` or nested in it.
    pub fn within(&self, outer: &Zone) -> bool {
        outer.0 == "*" || self.0 == outer.0 || self.0.strip_prefix(&outer.0).is_some_and(|r| r.starts_with('/'))
    }
    /// The zone one level up; `*` above a one-level zone, `None` above `*`.
    pub fn parent(&self) -> Option<Zone> {
        if self.0 == "*" {
            return None;
        }
        Some(Self(self.0.rsplit_once('/').map_or("*", |(p, _)| p).to_owned()))
    }
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE trust domain name: labels joined by dots, at most 255 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TrustDomain(String);
impl TrustDomain {
    /// Parses a trust domain (SPIFFE-ID, section 2.1).
    pub fn parse(s: &str) -> Result<Self, NameError> {
        if s.len() <= 255 && s.split('.').all(is_label) {
            return Ok(Self(s.to_owned()));
        }
        Err(NameError { what: "trust domain", given: shorten(s), rule: "use lower-case DNS labels joined by dots" })
    }
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_nest_by_whole_labels() {
        let z = |s: &str| Zone::parse(s).unwrap();
        assert!(z("eu/pci").within(&z("eu")));
        assert!(z("eu/pci").within(&z("*")));
        assert!(!z("eu2").within(&z("eu")));
        assert!(!z("eu").within(&z("eu/pci")));
        assert_eq!(z("eu/pci").parent(), Some(z("eu")));
        assert_eq!(z("eu").parent(), Some(Zone::all()));
    }

    #[test]
    fn names_that_would_need_escaping_are_refused() {
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "a.b", "ä", &"a".repeat(64)] {
            assert!(ServiceName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ServiceName::parse("web-1").is_ok());
        assert!(TaskId::parse("shop.web.01").is_err());
        assert_eq!(TaskId::parse("shop.web.12").unwrap().slot(), 12);
    }
}
