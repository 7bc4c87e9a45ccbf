//! The charter chain: from the cluster's name to the keys that count today (protocol, charter).
//!
//! LAW: a version counts only if the threshold of the version before *and* its own threshold signed it; tested by
//! `k5_a_charter_needs_the_old_and_the_new_admins_and_no_gap`. Versions never go back and never skip.

use super::refusal::{News, Refusal, require};
use data_encoding::BASE32_NOPAD;
use holdfast_types::{ClusterId, Digest, TrustDomain};
use holdfast_wire::statement::{self, Verified};
use holdfast_wire::v1::{Charter, Operator, PublicKey, Publisher, Statement};

/// Role that changes the charter.
const ADMIN: &str = "Admin";
/// The threshold entry for changing the charter; without it every Admin must sign.
const PUT_CHARTER: &str = "putCharter";

/// A verified chain of charters; the last one is in force.
#[derive(Debug, Clone)]
pub struct CharterChain {
    cluster: ClusterId,
    trust_domain: TrustDomain,
    statements: Vec<Statement>,
    head: Charter,
    head_sha256: Digest,
}

/// A charter that follows the one in force.
#[derive(Debug)]
pub struct NewCharter {
    statement: Statement,
    verified: Verified<Charter>,
}
impl NewCharter {
    /// The statement to persist before adopting.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }
}

impl CharterChain {
    /// Verifies a whole chain, version 1 first. The cluster's name follows from it: compare [`CharterChain::cluster`].
    pub fn verify(chain: &[Statement]) -> Result<Self, Refusal> {
        let (first, rest) =
            chain.split_first().ok_or_else(|| Refusal::outside("charter-missing", "no charter was given"))?;
        let mut c = Self::found(first)?;
        for st in rest {
            match c.observe(st)? {
                News::Todo(next) => c.adopt(next),
                News::AlreadyDone | News::Stale => {
                    return Err(Refusal::outside("charter-order", "charter chain repeats or goes back"));
                }
            }
        }
        Ok(c)
    }
    fn found(st: &Statement) -> Result<Self, Refusal> {
        let shown: Charter = statement::peek(st).map_err(Refusal::statement(0, "charter-malformed"))?;
        check_operators(&shown)?;
        require(shown.version == 1 && shown.prev_sha256.is_empty(), 0, "charter-order", || {
            "a charter chain starts with version 1".into()
        })?;
        let keys: Vec<_> = shown.operators.iter().filter_map(|o| o.key.clone()).collect();
        let v =
            statement::verify::<Charter>(st, &keys, keys.len()).map_err(Refusal::statement(0, "charter-signature"))?;
        let cluster = ClusterId(v.sha256.0);
        let trust_domain = trust_domain(&v.doc, &cluster)?;
        Ok(Self { cluster, trust_domain, statements: vec![st.clone()], head: v.doc, head_sha256: v.sha256 })
    }
    /// Judges a statement that claims to be the next charter.
    pub fn observe(&self, st: &Statement) -> Result<News<NewCharter>, Refusal> {
        let shown: Charter = statement::peek(st).map_err(Refusal::statement(0, "charter-malformed"))?;
        if shown.version <= self.head.version {
            let held = self.statements.iter().any(|s| s.payload == st.payload);
            require(held, 0, "charter-fork", || {
                format!("another charter of version {} than the one held", shown.version)
            })?;
            return Ok(if shown.version == self.head.version { News::AlreadyDone } else { News::Stale });
        }
        require(shown.version == self.head.version.saturating_add(1), 0, "charter-gap", || {
            format!("charter version {} after {}: ask for the versions between", shown.version, self.head.version)
        })?;
        require(shown.prev_sha256 == self.head_sha256.0, 0, "charter-order", || {
            "charter does not follow the one held".into()
        })?;
        require(shown.trust_domain == self.head.trust_domain, 0, "charter-domain", || {
            "a charter may not change the trust domain".into()
        })?;
        check_operators(&shown)?;
        let by_admins_of = |c: &Charter| {
            let admins = keys(c.operators.iter().filter(|o| has_role(o, ADMIN)));
            let k = threshold(c, PUT_CHARTER).unwrap_or(admins.len());
            statement::verify::<Charter>(st, &admins, k).map_err(Refusal::statement(0, "charter-signature"))
        };
        by_admins_of(&self.head)?;
        let verified = by_admins_of(&shown)?;
        Ok(News::Todo(NewCharter { statement: st.clone(), verified }))
    }
    /// Puts the next charter into force.
    pub fn adopt(&mut self, next: NewCharter) {
        self.statements.push(next.statement);
        self.head = next.verified.doc;
        self.head_sha256 = next.verified.sha256;
    }
    /// `H(charter v1)`.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }
    /// The label under which the cluster's identities go.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
    /// The charter in force.
    pub fn head(&self) -> &Charter {
        &self.head
    }
    /// Every version, oldest first.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }
    /// Keys of the operators who have one of `roles` and own `namespace`.
    pub(crate) fn owners(&self, roles: &[&str], namespace: &str) -> Vec<PublicKey> {
        let owns = |o: &Operator| o.owns.iter().any(|n| n == "*" || n == namespace);
        keys(self.head.operators.iter().filter(|o| roles.iter().any(|r| has_role(o, r)) && owns(o)))
    }
    /// The charter's own threshold for `action`, if it names one.
    pub(crate) fn threshold(&self, action: &str) -> Option<usize> {
        threshold(&self.head, action)
    }
    /// The publisher called `id`.
    pub(crate) fn publisher(&self, id: &str) -> Option<&Publisher> {
        self.head.publishers.iter().find(|p| p.id == id)
    }
}

fn has_role(o: &Operator, role: &str) -> bool {
    o.roles.iter().any(|r| r == role)
}
fn keys<'a>(operators: impl Iterator<Item = &'a Operator>) -> Vec<PublicKey> {
    operators.filter_map(|o| o.key.clone()).collect()
}
fn threshold(c: &Charter, action: &str) -> Option<usize> {
    c.thresholds.iter().find(|t| t.action == action).map(|t| t.k as usize)
}

/// Operators, publishers and thresholds that are named twice, or share a key, would let one be counted for another.
fn check_operators(c: &Charter) -> Result<(), Refusal> {
    let unique = |mut names: Vec<&[u8]>| {
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        names.len() == n
    };
    let ok = !c.operators.is_empty()
        && c.operators.iter().all(|o| o.key.is_some())
        && unique(c.operators.iter().map(|o| o.id.as_bytes()).collect())
        && unique(c.operators.iter().filter_map(|o| o.key.as_ref().map(|k| k.key.as_slice())).collect())
        && unique(c.publishers.iter().map(|p| p.id.as_bytes()).collect())
        && unique(c.thresholds.iter().map(|t| t.action.as_bytes()).collect());
    require(ok, 0, "charter-names", || "charter names an operator, key, publisher or threshold twice, or none".into())
}

/// The charter's trust domain; where it names none, 16 characters of the cluster's name in base 32 and `.holdfast`.
fn trust_domain(c: &Charter, cluster: &ClusterId) -> Result<TrustDomain, Refusal> {
    let name = if c.trust_domain.is_empty() {
        let label: String = BASE32_NOPAD.encode(&cluster.0).to_ascii_lowercase().chars().take(16).collect();
        format!("{label}.holdfast")
    } else {
        c.trust_domain.clone()
    };
    TrustDomain::parse(&name).map_err(|e| Refusal::outside("charter-domain", e.to_string()))
}
