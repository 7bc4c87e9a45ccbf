//! The ten checks of an assignment, in the protocol's order (protocol, grant): [`verify_assign`] makes the first nine,
//! [`use_up`] is the tenth. What each looks at is in the file that it calls; this one is to be read from top to bottom.
//!
//! LAW: whatever is not proven refuses; no content that differs from what was signed is ever accepted. Tested by
//! `flipped_bytes_never_change_what_is_accepted` and by the tests named at each check.

use super::memory::TaskMemory;
use super::receipt::{self, Gap};
use super::refusal::{Refusal, require};
use super::trust::NodeTrust;
use super::vouchers::{self, AcceptedImage};
use super::{boxes, spec, times};
use holdfast_types::{Digest, GrantId, Millis, NodeId, Role, SecretBytes, SpiffeId};
use holdfast_wire::boxes::{PrivateKey, Psk};
use holdfast_wire::statement::{self, Verified};
use holdfast_wire::v1::{Assign, Grant, Spec, Statement};

/// One generation of the node's keys: the HPKE key pair and PSK of one renewal period.
pub struct NodeKey {
    /// The certificate generation that they came with.
    pub seq: u64,
    /// Opens boxes.
    pub hpke: PrivateKey,
    /// Authenticates their sender.
    pub psk: Psk,
}

/// Who the verifying node is: its id and the (at most two) key generations that it still holds.
pub struct NodeSelf {
    /// Its id.
    pub node_id: NodeId,
    /// Current and previous generation.
    pub keys: Vec<NodeKey>,
}

/// A secret for one task, in clear.
#[derive(Debug)]
pub struct OpenedSecret {
    /// Which secret and version, for reports.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// File name under the task's secrets directory.
    pub target: String,
    /// File mode.
    pub mode: u32,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
    /// The value.
    pub bytes: SecretBytes,
}

/// An assignment that passed: consume it, then carry out exactly this.
#[derive(Debug)]
pub struct Accepted {
    /// The grant's id.
    pub grant_id: GrantId,
    /// `H(grant payload)`, its name in the log.
    pub grant_sha256: Digest,
    /// What the vault granted.
    pub grant: Grant,
    /// What the deployer signed.
    pub spec: Spec,
    /// What may be pulled, in the spec's order.
    pub images: Vec<AcceptedImage>,
    /// What to write to the task's tmpfs, in the spec's order.
    pub secrets: Vec<OpenedSecret>,
    /// If set: the receipt's checkpoint is not the held one; start only after a consistency proof was observed.
    pub gap: Option<Gap>,
}

/// Judges an assignment that `peer` delivered at `now`. Offline, from what the node believes.
pub fn verify_assign(
    trust: &NodeTrust,
    me: &NodeSelf,
    memory: &TaskMemory,
    peer: &SpiffeId,
    now: Millis,
    assign: &Assign,
) -> Result<Accepted, Refusal> {
    let (st, shown) = shown(assign)?;
    // 1. The peer is the orchestrator that the grant was given to, and nobody revoked it.
    //    `check_1_only_the_grants_own_unrevoked_orchestrator_delivers_it`
    check_1_peer(trust, peer, &shown.orch_id)?;
    // 2. The vault signed the grant, with a key that my bundle lists for now.
    //    `check_2_a_grant_counts_only_under_a_listed_statement_key_in_its_window`
    let Verified { doc: grant, sha256: grant_sha256, .. } = check_2_signature(trust, now, st)?;
    // 3. It is for this cluster, this era, this node, and keys that I still hold.
    //    `c6_another_nodes_grant_is_refused`
    let (grant_id, key) = check_3_addressee(trust, me, &grant)?;
    // 4. It may start now, under a Status that is fresh and whose documents I hold.
    //    `c14_a_grant_that_was_sat_on_does_not_start`, `c25_without_a_fresh_status_nothing_starts`
    times::check(trust, trust.clock(now), &grant)?;
    // 5. It was never used, is newer than what ran, and comes from no older lease.
    //    `c13_a_used_grant_an_older_generation_and_an_older_fence_are_refused`
    memory.check(&grant_id, &grant, trust.holder(&grant.namespace).map_or(0, |h| h.fence))?;
    // 6. It is in the log, and the log is the one that I know; a gap is left for `use_up`.
    //    `j1_a_grant_that_was_never_logged_is_refused`, `j3_two_logs_of_one_size_are_a_split_view`
    let gap = receipt::check(trust, now, &grant_sha256, assign.receipt.as_ref())?;
    // 7. Deployers of my charter signed the spec that it names, and it says nothing else.
    //    `c9_a_spec_by_anybody_but_an_owning_deployer_is_refused`, `check_7_the_grant_says_nothing_that_the_spec_does_not`
    let spec = spec::check(trust, memory, now, &grant, assign.spec.as_ref())?;
    // 8. Publishers of my charter vouch for each image, in its own repository.
    //    `c10_an_image_that_no_charter_publisher_vouches_for_is_refused`, `k7_a_denied_digest_is_refused`
    let images = vouchers::check(trust, &grant, &spec, &assign.vouchers)?;
    // 9. Each box is the one that was granted, and opens with my keys of this period.
    //    `check_9_a_box_is_bound_to_grant_secret_version_generation_and_purpose`
    let secrets = boxes::check(trust, me, key, &grant, &assign.boxes)?;
    Ok(Accepted { grant_id, grant_sha256, grant, spec, images, secrets, gap })
}

/// Check 10: it is used up. This is what the node must remember from now on. The caller keeps it, durably, before it mounts,
/// writes or starts anything. `proven` is the gap of check 6 whose proof was observed; without the one that is asked for, that gap
/// is the answer. `check_10_a_grant_is_used_up_once_and_not_before_its_log_is_proven_to_be_one`
pub fn use_up(
    trust: &NodeTrust,
    memory: &TaskMemory,
    accepted: &Accepted,
    proven: Option<&Gap>,
) -> Result<TaskMemory, Gap> {
    match &accepted.gap {
        Some(gap) if proven != Some(gap) => return Err(gap.clone()),
        Some(_) | None => {}
    }
    let mut next = memory.clone();
    next.forget_expired(trust.time_floor());
    next.consume(accepted);
    Ok(next)
}

/// The grant as it is shown, of which nothing is believed yet.
fn shown(assign: &Assign) -> Result<(&Statement, Grant), Refusal> {
    let missing = || Refusal::new(2, "grant-missing", "the assignment comes without a grant");
    let st = assign.grant.as_ref().ok_or_else(missing)?;
    Ok((st, statement::peek(st).map_err(Refusal::statement(2, "grant-malformed"))?))
}

fn check_1_peer(trust: &NodeTrust, peer: &SpiffeId, orch_id: &str) -> Result<(), Refusal> {
    check_orchestrator(trust, peer, 1)?;
    require(peer.name == orch_id, 1, "peer", || format!("{} delivers a grant of orch/{orch_id}", peer.short()))
}

/// True if `peer` is an orchestrator of this cluster that nobody revoked.
pub(crate) fn check_orchestrator(trust: &NodeTrust, peer: &SpiffeId, check: u8) -> Result<(), Refusal> {
    let ours = peer.role == Role::Orch && peer.trust_domain == *trust.trust_domain();
    require(ours, check, "peer", || format!("{peer} is not an orchestrator of this cluster"))?;
    require(!trust.is_revoked(&peer.name), check, "peer-revoked", || format!("{} is revoked", peer.short()))
}

fn check_2_signature(trust: &NodeTrust, now: Millis, st: &Statement) -> Result<Verified<Grant>, Refusal> {
    statement::verify::<Grant>(st, &trust.stks(now), 1).map_err(Refusal::statement(2, "grant-signature"))
}

fn check_3_addressee<'a>(trust: &NodeTrust, me: &'a NodeSelf, g: &Grant) -> Result<(GrantId, &'a NodeKey), Refusal> {
    require(g.cluster_id == trust.cluster().0, 3, "cluster", || "the grant belongs to another cluster".into())?;
    require(g.era == trust.era(), 3, "era", || format!("the grant is of era {}, this is era {}", g.era, trust.era()))?;
    require(g.node_id == me.node_id.as_str(), 3, "node", || {
        format!("the grant is for {}, I am {}", g.node_id, me.node_id)
    })?;
    let key = me.keys.iter().find(|k| k.seq == g.node_seq);
    let key = key.ok_or_else(|| Refusal::new(3, "node-seq", format!("I hold no keys of generation {}", g.node_seq)))?;
    let id = GrantId::from_slice(&g.grant_id).ok_or_else(|| Refusal::new(3, "grant-id", "a grant id has 16 bytes"))?;
    Ok((id, key))
}
