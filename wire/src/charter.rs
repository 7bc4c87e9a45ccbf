//! The charter: who may do what, and the chain from the cluster's name to the version in force (protocol, charter).
//!
//! Vault, node and tool read charters here and nowhere else, so that none of them counts a signature that another would
//! not. LAW: a version counts only if the threshold of the version before *and* its own threshold signed it; versions
//! never go back and never skip; tested by `k5_a_charter_needs_the_old_and_the_new_admins_and_no_gap`.

use crate::statement::{self, News, StatementError, Verified};
use crate::token::TokenRole;
use crate::v1::command::Action;
use crate::v1::{Bundle, Charter, Operator, PublicKey, Publisher, Reset, Spec, Statement};
use holdfast_types::{ClusterId, TrustDomain};

/// The role that changes the charter.
pub const ADMIN: &str = "Admin";
/// The role that signs specs.
pub const DEPLOYER: &str = "Deployer";
/// The action whose threshold a new charter needs.
pub const PUT_CHARTER: &str = "putCharter";
/// The action whose threshold a spec needs.
pub const DEPLOY: &str = "deploy";
/// The entry whose threshold a token needs that admits anything but a node; a node's needs that of the act, `mintToken`.
pub const MINT_ORCH: &str = "mintToken(orch)";
/// The entry whose threshold a mandate needs, and taking one back.
pub const PUT_MANDATE: &str = "putMandate";
/// Deployers needed for a sensitive service, whatever the charter says of others.
const SENSITIVE: usize = 2;
/// Bytes of the founding nonce: no two clusters have one name.
const NONCE: usize = 32;

/// Why a charter is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CharterError {
    /// No charter at all.
    #[error("no charter was given")]
    Missing,
    /// Not the canonical encoding of a charter.
    #[error("the charter: {0}")]
    Malformed(StatementError),
    /// Too few of those who count, or a bad signature.
    #[error("the charter: {0}")]
    Signature(StatementError),
    /// The first one is not a founding charter.
    #[error("a charter chain starts with version 1, which has no predecessor and a founding nonce of 32 bytes")]
    First,
    /// It does not name the charter before it, or the chain repeats.
    #[error("charter {0} does not follow the one before it")]
    Order(u64),
    /// Versions between are missing.
    #[error("charter version {shown} after {held}: ask for the versions between")]
    Gap {
        /// The version in force.
        held: u64,
        /// The version shown.
        shown: u64,
    },
    /// Another charter of a version that is held.
    #[error("another charter of version {0} than the one held")]
    Fork(u64),
    /// The trust domain is not a name, or changed.
    #[error("a charter names a valid trust domain, and may not change it")]
    Domain,
    /// Somebody is named twice, or nobody.
    #[error("the charter names an operator, key, publisher or threshold twice, or no Admin")]
    Names,
    /// A threshold of 0 would guard nothing.
    #[error("a threshold of the charter is 0")]
    Threshold,
}
impl CharterError {
    /// Kebab-case, stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "charter-missing",
            Self::Malformed(_) => "charter-malformed",
            Self::Signature(_) => "charter-signature",
            Self::First | Self::Order(_) => "charter-order",
            Self::Gap { .. } => "charter-gap",
            Self::Fork(_) => "charter-fork",
            Self::Domain => "charter-domain",
            Self::Names => "charter-names",
            Self::Threshold => "charter-threshold",
        }
    }
}

/// A verified chain of charters; the last one is in force.
#[derive(Debug, Clone)]
pub struct CharterChain {
    cluster: ClusterId,
    trust_domain: TrustDomain,
    statements: Vec<Statement>,
    head: Verified<Charter>,
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
    pub fn verify(chain: &[Statement]) -> Result<Self, CharterError> {
        let (first, rest) = chain.split_first().ok_or(CharterError::Missing)?;
        let mut c = Self::found(first)?;
        for st in rest {
            match c.observe(st)? {
                News::Todo(next) => c.adopt(next),
                News::AlreadyDone | News::Stale => return Err(CharterError::Order(c.head().version)),
            }
        }
        Ok(c)
    }
    /// Version 1: every operator it lists signed it, and its hash is the cluster's name.
    pub fn found(st: &Statement) -> Result<Self, CharterError> {
        let shown: Charter = statement::peek(st).map_err(CharterError::Malformed)?;
        check_words(&shown)?;
        if shown.version != 1 || !shown.prev_sha256.is_empty() || shown.founding_nonce.len() != NONCE {
            return Err(CharterError::First);
        }
        let keys = keys(&shown.operators);
        let head = statement::verify::<Charter>(st, &keys, keys.len()).map_err(CharterError::Signature)?;
        let trust_domain = TrustDomain::parse(&head.doc.trust_domain).map_err(|_| CharterError::Domain)?;
        Ok(Self { cluster: ClusterId(head.sha256.0), trust_domain, statements: vec![st.clone()], head })
    }
    /// Judges a statement that claims to be the next charter.
    pub fn observe(&self, st: &Statement) -> Result<News<NewCharter>, CharterError> {
        let shown: Charter = statement::peek(st).map_err(CharterError::Malformed)?;
        let held = self.head().version;
        if shown.version <= held {
            if !self.statements.iter().any(|s| s.payload == st.payload) {
                return Err(CharterError::Fork(shown.version));
            }
            return Ok(if shown.version == held { News::AlreadyDone } else { News::Stale });
        }
        if shown.version != held.saturating_add(1) {
            return Err(CharterError::Gap { held, shown: shown.version });
        }
        if shown.prev_sha256 != self.head.sha256.0 {
            return Err(CharterError::Order(shown.version));
        }
        if shown.trust_domain != self.trust_domain.as_str() {
            return Err(CharterError::Domain);
        }
        check_words(&shown)?;
        let by_admins_of = |c: &Charter| {
            statement::verify::<Charter>(st, &admins(c), threshold(c, PUT_CHARTER)).map_err(CharterError::Signature)
        };
        by_admins_of(self.head())?;
        let verified = by_admins_of(&shown)?;
        Ok(News::Todo(NewCharter { statement: st.clone(), verified }))
    }
    /// Puts the next charter into force.
    pub fn adopt(&mut self, next: NewCharter) {
        self.statements.push(next.statement);
        self.head = next.verified;
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
        &self.head.doc
    }
    /// The charter of that version.
    pub fn version(&self, version: u64) -> Option<Charter> {
        let place = usize::try_from(version.checked_sub(1)?).ok()?;
        statement::peek(self.statements.get(place)?).ok()
    }
    /// Every version, oldest first.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

/// Signatures that `action` needs: as many as the charter lists; an action that it does not list needs every Admin.
pub fn threshold(c: &Charter, action: &str) -> usize {
    let admins = || c.operators.iter().filter(|o| has_role(o, ADMIN)).count();
    c.thresholds.iter().find(|t| t.action == action).map_or_else(admins, |t| t.k as usize)
}

/// The charter's entry whose threshold a command needs. The vault counts by this and so does whoever collects signatures.
pub fn entry(action: &Action) -> &'static str {
    match action {
        Action::PutSecret(_) => "putSecret",
        Action::DeleteSecret(_) => "deleteSecret",
        Action::MintToken(t) if TokenRole::parse(&t.role) != Some(TokenRole::Node) => MINT_ORCH,
        Action::MintToken(_) | Action::RevokeToken(_) => "mintToken",
        Action::ApproveIdentity(_) => "approveNode",
        Action::RemoveNode(_) => "removeNode",
        Action::SetDrain(_) | Action::SetPlace(_) => "setZone",
        Action::QuarantineNode(_) => "quarantineNode",
        // Whoever was quarantined goes on only with as many as end a lockdown, and so does an image that was denied.
        Action::Release(_) | Action::ReleaseIdentity(_) | Action::AllowDigest(_) => "release",
        // Taking a grant back is a brake on one task, denying an image on whatever would run it.
        Action::Lockdown(_) | Action::RevokeGrant(_) | Action::DenyDigest(_) => "lockdown",
        Action::RemoveService(_) => "retire",
        Action::ApprovePlacement(_) => "approvePlacement",
        Action::RevokeMandate(_) => PUT_MANDATE,
        Action::AdmitVoter(_) => "admitVoter",
        Action::EvictVoter(_) => "evictVoter",
        Action::UnlockPrepare(_) | Action::UnlockFinalize(_) | Action::AutolockOff(_) | Action::RotateDiskKeys(_) => {
            "rotateUnlock"
        }
        Action::RotateKeyring(_) => "rotateKeyring",
        Action::RotateRoot(_) | Action::AbortRoot(_) | Action::InstallIssuer(_) => "rotateRoot",
    }
}

/// Believes a Reset: signed by as many Admins as a new charter needs. Cluster, era and charter version are the caller's.
pub fn verify_reset(c: &Charter, st: &Statement) -> Result<Verified<Reset>, StatementError> {
    statement::verify(st, &admins(c), threshold(c, PUT_CHARTER))
}

/// Believes a Bundle that no root could sign: signed by as many Admins as a new charter needs. What it says, and which charter
/// counts, is the caller's.
pub fn verify_bundle(c: &Charter, st: &Statement) -> Result<Verified<Bundle>, StatementError> {
    statement::verify(st, &admins(c), threshold(c, PUT_CHARTER))
}

/// Keys of the Admins.
pub fn admins(c: &Charter) -> Vec<PublicKey> {
    keys(c.operators.iter().filter(|o| has_role(o, ADMIN)))
}

/// Deployers who must sign a spec; one alone is not enough for a service that is sensitive.
pub fn deployers_needed(c: &Charter, sensitive: bool) -> usize {
    threshold(c, DEPLOY).max(if sensitive { SENSITIVE } else { 1 })
}

/// Believes a spec: signed by enough deployers who own its namespace. `sensitive`: the service is known to be, whatever
/// this spec says. Cluster, time and content are [`crate::specs::check`]'s.
pub fn verify_spec(c: &Charter, st: &Statement, sensitive: bool) -> Result<Verified<Spec>, StatementError> {
    let shown: Spec = statement::peek(st)?;
    let needed = deployers_needed(c, shown.sensitive || sensitive);
    statement::verify(st, &owners(c, &[DEPLOYER], &shown.namespace), needed)
}

/// Public keys of `operators`.
pub fn keys<'a>(operators: impl IntoIterator<Item = &'a Operator>) -> Vec<PublicKey> {
    operators.into_iter().filter_map(|o| o.key.clone()).collect()
}

/// Keys of the operators who have one of `roles` and own `namespace`.
pub fn owners(c: &Charter, roles: &[&str], namespace: &str) -> Vec<PublicKey> {
    let owns = |o: &Operator| o.owns.iter().any(|n| n == "*" || n == namespace);
    keys(c.operators.iter().filter(|o| roles.iter().any(|r| has_role(o, r)) && owns(o)))
}

/// The publisher called `id`.
pub fn publisher<'a>(c: &'a Charter, id: &str) -> Option<&'a Publisher> {
    c.publishers.iter().find(|p| p.id == id)
}

fn has_role(o: &Operator, role: &str) -> bool {
    o.roles.iter().any(|r| r == role)
}

/// Operators, publishers and thresholds that are named twice, or share a key, would let one be counted for another; a
/// threshold of 0 would count nobody; without an Admin nothing could follow.
fn check_words(c: &Charter) -> Result<(), CharterError> {
    let unique = |mut names: Vec<&[u8]>| {
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        names.len() == n
    };
    let ok = c.operators.iter().any(|o| has_role(o, ADMIN))
        && c.operators.iter().all(|o| o.key.is_some())
        && unique(c.operators.iter().map(|o| o.id.as_bytes()).collect())
        && unique(c.operators.iter().filter_map(|o| o.key.as_ref().map(|k| k.key.as_slice())).collect())
        && unique(c.publishers.iter().map(|p| p.id.as_bytes()).collect())
        && unique(c.thresholds.iter().map(|t| t.action.as_bytes()).collect());
    if !ok {
        return Err(CharterError::Names);
    }
    if c.thresholds.iter().any(|t| t.k == 0) || c.publishers.iter().any(|p| p.threshold == 0) {
        return Err(CharterError::Threshold);
    }
    Ok(())
}
