//! Handshakes of voters among themselves: a voter is its pinned key.
//!
//! The pins come from the replicated state, so a pinned key is believed whatever its certificate says of times and issuers:
//! a cluster that was off for long must come up, and renewing a certificate takes a leader. A number that this voter has not
//! heard of yet is believed by its whole chain; what has been evicted, or has another key than its pin, never.

use super::client::Disbelief;
use super::{IdentityCell, Peer, TrustCell};
use holdfast_pki::chain::{ChainError, Usage, read_leaf, verify_peer};
use holdfast_types::{Digest, Millis, Role, SpiffeId};
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::sync::Arc;

/// What the pins say of a voter's number and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSays {
    /// It is that voter.
    Member,
    /// The number is higher than every one known here: its chain decides.
    Newer,
    /// It is not, and why.
    No(String),
}

/// Whose key is whose.
pub trait PeerPins: Send + Sync {
    /// Asked in handshakes and with every call. Must not block.
    fn pin(&self, id: u64, spki: &Digest) -> PinSays;
}

/// How voters do TLS with each other; both sides the same.
#[derive(Clone)]
pub struct PeerTls {
    pub(super) identity: Arc<IdentityCell>,
    trust: Arc<TrustCell>,
    pins: Arc<dyn PeerPins>,
}

impl PeerTls {
    /// We are `identity`; `trust` is asked only about voters that `pins` do not know yet.
    pub fn new(identity: Arc<IdentityCell>, trust: Arc<TrustCell>, pins: Arc<dyn PeerPins>) -> Self {
        Self { identity, trust, pins }
    }

    /// Whether the peer of a connection may still speak: pins change while connections are open.
    pub fn still(&self, peer: &Peer) -> bool {
        voter_number(&peer.id).is_some_and(|id| !matches!(self.pins.pin(id, &peer.spki_sha256), PinSays::No(_)))
    }

    /// Believes the chain as that of a voter.
    pub(super) fn believe(&self, chain: &[CertificateDer<'_>], now: Millis, usage: Usage) -> Result<Peer, Disbelief> {
        let said = read_leaf(chain, usage).map_err(Disbelief::Chain)?;
        let trust = self.trust.current();
        if said.id.trust_domain != *trust.trust_domain() {
            return Err(Disbelief::Chain(ChainError::TrustDomain(said.id.trust_domain)));
        }
        let not_a_voter = || Disbelief::NotExpected { expected: "a voter".to_owned(), found: said.id.short() };
        let id = voter_number(&said.id).ok_or_else(not_a_voter)?;
        match self.pins.pin(id, &said.spki_sha256) {
            PinSays::Member => Ok(said),
            PinSays::Newer => verify_peer(chain, &trust, now, usage).map_err(|e| Disbelief::of(e, now)),
            PinSays::No(why) => Err(Disbelief::NotPinned { found: said.id.short(), why }),
        }
    }
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerTls")
    }
}

/// The number of the voter that `id` names, written as we write it.
pub fn voter_number(id: &SpiffeId) -> Option<u64> {
    let number = id.name.parse::<u64>().ok().filter(|n| n.to_string() == id.name);
    number.filter(|_| id.role == Role::Vault)
}
