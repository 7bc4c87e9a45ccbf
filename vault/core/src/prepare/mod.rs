//! `prepare`: the leader's half. Takes time, entropy, permits and signers; makes every choice; yields a [`Prepared`].

mod bounds;
mod found;
mod grant_batch;
mod grant_parts;
mod grants;
mod identity;
mod keyring;
mod rejoin;
mod removals;
mod repeats;
mod reset;
mod roots;
mod submit;
mod trust;
mod unlock;
mod voters;

pub use crate::command::RequestKey;
pub use found::{FoundingKeys, found, founding_cluster, founding_unlock, issuer_name, new_issuer, new_stk};
pub use grant_batch::{GrantBatch, GrantReply, MAX_BATCH};
pub use identity::{
    AWAIT_SKEW, Approved, JoinOutcome, Pin, approved, await_message, join, kept_from_before, login, pin, renew,
};
pub use keyring::{new_term, rewrap};
pub use rejoin::{Back, rejoin, rejoin_message};
pub use removals::merge_revoked;
pub use repeats::known;
pub use reset::{PlannedReset, Resetting, plan_reset};
pub use roots::{AtRest, ROOT_KEY, RootMaterial, add_root, ask_offline, ca_key, drop_root, given_root};
pub(crate) use submit::reads;
pub use submit::{MAX_SECRET, submit};
pub use trust::{checkpoint, lease_ext, removal, revocation_list, revocations, revoke, sign_revocations, status};
pub use voters::{Admission, PeerPin, peer_pin, progress, voter_said};

use crate::command::{CertFacts, Command, HpkeFacts, Stamped};
use crate::entropy::Entropy;
use crate::held::{Held, Prepared};
use crate::keys::Keyring;
use crate::refusal::{Code, Refusal};
use crate::state::State;
use holdfast_pki::issue::IssuerCa;
use holdfast_pki::keys::{CertSigner, SubjectKey};
use holdfast_policy::Policies;
use holdfast_types::{Millis, NodeId, Role, SpiffeId};
use std::time::Duration;

/// How long things live (protocol, defaults); tests shorten them.
#[derive(Debug, Clone)]
pub struct Lives {
    /// Node certificates: 72 h.
    pub node: Duration,
    /// Orchestrator certificates: 24 h.
    pub orch: Duration,
    /// Voter certificates: 7 d.
    pub voter: Duration,
    /// Operator certificates: 8 h.
    pub operator: Duration,
    /// Issuers and statement keys: 30 d.
    pub issuer: Duration,
    /// How long after its end a certificate's key still brings its machine back: 30 d.
    pub rejoin: Duration,
    /// An orchestrator's lease: 60 s.
    pub lease: Duration,
    /// A grant must be started within: 5 min.
    pub start_before: Duration,
    /// A grant runs, unless extended: 24 h.
    pub grant: Duration,
    /// An exclusive grant runs, unless extended: 120 s.
    pub exclusive: Duration,
    /// After its lease a task may go on: 72 h.
    pub grace: Duration,
    /// A Status is valid: 120 s.
    pub status: Duration,
}
impl Default for Lives {
    fn default() -> Self {
        let h = |n: u64| Duration::from_secs(n * 3600);
        Self {
            node: h(72),
            orch: h(24),
            voter: h(7 * 24),
            operator: h(8),
            issuer: h(30 * 24),
            rejoin: h(30 * 24),
            lease: Duration::from_secs(60),
            start_before: Duration::from_secs(300),
            grant: h(24),
            exclusive: Duration::from_secs(120),
            grace: h(72),
            status: Duration::from_secs(120),
        }
    }
}
impl Lives {
    fn of(&self, role: Role) -> Duration {
        match role {
            Role::Node | Role::Svc => self.node,
            Role::Orch => self.orch,
            Role::Vault => self.voter,
            Role::Op => self.operator,
        }
    }
}

/// What the leader decides with.
pub struct Leader<'a> {
    /// Committed state.
    pub state: &'a State,
    /// The opened keyring.
    pub keys: &'a Keyring,
    /// The policies in force.
    pub policies: &'a Policies,
    /// The issuer that is open on this voter.
    pub issuer: &'a IssuerCa<dyn CertSigner>,
    /// Lifetimes.
    pub lives: &'a Lives,
    /// Leader's time.
    pub now: Millis,
}

pub(crate) fn stamped(now: Millis, entropy: &mut Entropy, command: Command) -> Stamped {
    Stamped { at: now, salt_seed: entropy.draw("salt"), command }
}

pub(crate) fn prepared<T>(now: Millis, entropy: &mut Entropy, command: Command, reply: T) -> Prepared<T> {
    let command = stamped(now, entropy, command);
    Prepared { held: Held::new(reply, command.salt_seed), command }
}

/// A certificate made but not yet committed: facts for the registry, chain for the holder.
pub(crate) struct Minted {
    pub facts: CertFacts,
    pub chain: Vec<Vec<u8>>,
    pub renew_after: Duration,
}

impl Leader<'_> {
    /// Issues a leaf for `role/name` over `key`, with the chain that is served with it.
    pub(crate) fn mint(
        &self,
        key: &SubjectKey,
        role: Role,
        name: &str,
        seq: u64,
        entropy: &mut Entropy,
    ) -> Result<Minted, Refusal> {
        let td = self.state.cluster()?.trust_domain.clone();
        let issuer = self.state.issuer().ok_or_else(|| Refusal::new(Code::Unavailable, "there is no issuer"))?;
        if self.issuer.der() != issuer.der {
            return Err(Refusal::new(Code::Unavailable, "the issuer is being replaced; try again"));
        }
        let life = self.lives.of(role);
        let id = SpiffeId::new(td, role, name);
        let leaf = self
            .issuer
            .leaf(key, &id, entropy.draw16("serial"), self.now, life)
            .map_err(|e| Refusal::new(Code::Unavailable, e.to_string()))?;
        let facts = CertFacts {
            seq,
            serial: leaf.serial_hex,
            spki: leaf.spki_sha256,
            not_after: leaf.not_after,
            root: issuer.root,
        };
        let renew_after = jittered(life / 3, entropy);
        Ok(Minted { facts, chain: self.state.served_chain(leaf.der, issuer, self.now), renew_after })
    }
    /// The node's HPKE key as the registry keeps it, checked for its length.
    pub(crate) fn hpke(&self, seq: u64, pk: &[u8]) -> Result<HpkeFacts, Refusal> {
        let pk = <[u8; 32]>::try_from(pk).map_err(|_| Refusal::invalid("an HPKE public key has 32 bytes"))?;
        Ok(HpkeFacts { seq, pk, term: self.keys.active() })
    }
    pub(crate) fn psk(&self, node: &str, h: &HpkeFacts) -> Result<Vec<u8>, Refusal> {
        let node = NodeId::parse(node).map_err(|e| Refusal::invalid(e.to_string()))?;
        self.keys.node_psk_reply(h.term, &node, h.seq)
    }
}

/// `d` ± 20 %, so that a fleet does not renew in step.
fn jittered(d: Duration, entropy: &mut Entropy) -> Duration {
    let [a, b, ..] = entropy.draw("jitter");
    let permille = 800 + u32::from(u16::from_be_bytes([a, b])) * 400 / u32::from(u16::MAX);
    d * permille / 1000
}
