//! An empty store that begins with a state: a cluster brought back on one voter.
//!
//! Must never: be called on a store that has a log.

use super::codec::log_id;
use super::store::{Store, StoreError};
use super::{SnapshotMeta, StoredMembership};
use holdfast_types::VoterId;
use openraft::{BasicNode, Membership};
use std::collections::{BTreeMap, BTreeSet};

impl Store {
    /// Makes `state` what the log of the only voter `voter` begins after; on disk when this returns.
    pub fn seed(&self, voter: VoterId, state: &[u8]) -> Result<(), StoreError> {
        let me = BTreeMap::from([(voter.0, BasicNode::new(""))]);
        let membership = Membership::new(vec![BTreeSet::from([voter.0])], me).map_err(|_| StoreError::Encode)?;
        let first = Some(log_id(0, 0));
        let meta = SnapshotMeta { last_log_id: first, last_membership: StoredMembership::new(first, membership) };
        self.save_snapshot(&meta, state)
    }
}
