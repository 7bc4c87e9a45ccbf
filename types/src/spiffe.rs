//! SPIFFE ids: `spiffe://<trust-domain>/<role>/<rest>`, exactly one per certificate.

use crate::{NameError, TrustDomain};
use std::fmt;

/// The role that the first path element names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// A vault voter.
    Vault,
    /// An orchestrator.
    Orch,
    /// A node agent.
    Node,
    /// A human operator.
    Op,
    /// A workload.
    Svc,
}
impl Role {
    /// All roles, in the order of the rights table.
    pub const ALL: [Role; 5] = [Role::Vault, Role::Orch, Role::Node, Role::Op, Role::Svc];
    /// The path element.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Vault => "vault",
            Role::Orch => "orch",
            Role::Node => "node",
            Role::Op => "op",
            Role::Svc => "svc",
        }
    }
    fn parse(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == s)
    }
}
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a URI is not one of our SPIFFE ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Scheme, length or shape is wrong.
    #[error("not a SPIFFE id of the form spiffe://trust-domain/role/name")]
    Shape,
    /// The trust domain is not a valid name.
    #[error(transparent)]
    TrustDomain(#[from] NameError),
    /// The first path element is none of ours.
    #[error("unknown role in the SPIFFE id")]
    Role,
}

/// An identity: trust domain, role and name (`/svc/` names have two elements).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The role.
    pub role: Role,
    /// Everything after the role, without a leading slash.
    pub name: String,
}

impl SpiffeId {
    /// Builds an id from parts that are already valid.
    pub fn new(trust_domain: TrustDomain, role: Role, name: impl Into<String>) -> Self {
        Self { trust_domain, role, name: name.into() }
    }
    /// Parses a URI (SPIFFE-ID, section 2); at most 2048 bytes, no query, no fragment, no escapes.
    pub fn parse(uri: &str) -> Result<Self, SpiffeError> {
        if uri.len() > 2048 {
            return Err(SpiffeError::Shape);
        }
        let rest = uri.strip_prefix("spiffe://").ok_or(SpiffeError::Shape)?;
        let (td, path) = rest.split_once('/').ok_or(SpiffeError::Shape)?;
        let (role, name) = path.split_once('/').ok_or(SpiffeError::Shape)?;
        let trust_domain = TrustDomain::parse(td)?;
        let role = Role::parse(role).ok_or(SpiffeError::Role)?;
        let depth = if role == Role::Svc { 2 } else { 1 };
        let element = |e: &str| {
            !e.is_empty()
                && e.len() <= 64
                && e.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if name.split('/').count() != depth || !name.split('/').all(element) {
            return Err(SpiffeError::Shape);
        }
        Ok(Self { trust_domain, role, name: name.to_owned() })
    }
    /// `role/name`, as used in the log and in errors.
    pub fn short(&self) -> String {
        format!("{}/{}", self.role, self.name)
    }
}
impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.trust_domain, self.role, self.name)
    }
}
impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_has_one_spelling() {
        let id = SpiffeId::parse("spiffe://prod.example.org/node/node-01").unwrap();
        assert_eq!(id.to_string(), "spiffe://prod.example.org/node/node-01");
        for bad in [
            "spiffe://a/node/x?y",
            "spiffe://a/node/x#y",
            "SPIFFE://a/node/x",
            "spiffe://a/node/x/",
            "spiffe://a/node",
            "spiffe://a/node/%61",
            "spiffe://a//node/x",
            "spiffe://a/root/x",
            "spiffe://A/node/x",
            "https://a/node/x",
            "spiffe://a/svc/x",
            "spiffe://a/node/x/y",
            "spiffe://a:1/node/x",
            "spiffe://u@a/node/x",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
    }
}
