//! The ten checks of an assignment, in the protocol's order (protocol, grant). Nine are here; the tenth is the shell's:
//! persist [`TaskMemory::consume`] with fsync, mount, write the secrets, start.
//!
//! LAW: whatever is not proven refuses; no content that differs from what was signed is ever accepted. Tested by
//! `flipped_bytes_never_change_what_is_accepted` and one test for each check.

use super::memory::TaskMemory;
use super::receipt::{self, Gap};
use super::refusal::{Refusal, require};
use super::spec;
use super::trust::NodeTrust;
use super::vouchers::{self, AcceptedImage};
use holdfast_types::{Digest, GrantId, Millis, NodeId, Role, SecretBytes, SpiffeId, sha256};
use holdfast_wire::boxes::{self, PrivateKey, Psk};
use holdfast_wire::padding;
use holdfast_wire::statement::{self, Verified};
use holdfast_wire::v1::{Assign, Grant, GrantSecret, Limits, Spec};
use std::time::Duration;

/// Oldest Status that even a standby grant may start under (protocol: standby ≤ 24 h).
const MAX_STATUS_AGE_S: u32 = 24 * 3600;

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
    let st = assign
        .grant
        .as_ref()
        .ok_or_else(|| Refusal::new(2, "grant-missing", "the assignment comes without a grant"))?;
    let shown: Grant = statement::peek(st).map_err(Refusal::statement(2, "grant-malformed"))?;
    check_1_peer(trust, peer, &shown.orch_id)?;
    let Verified { doc: grant, sha256: grant_sha256, .. } =
        statement::verify::<Grant>(st, &trust.stks(now), 1).map_err(Refusal::statement(2, "grant-signature"))?;
    let (grant_id, key) = check_3_addressee(trust, me, &grant)?;
    check_4_times(trust, trust.clock(now), &grant)?;
    memory.check(&grant_id, &grant, trust.holder(&grant.namespace).map_or(0, |h| h.fence))?;
    let gap = receipt::check(trust, now, &grant_sha256, assign.receipt.as_ref())?;
    let spec = spec::check(trust, memory, now, &grant, assign.spec.as_ref())?;
    let images = vouchers::check(trust, &grant, &spec, &assign.vouchers)?;
    let secrets = check_9_boxes(trust, me, key, &grant, &assign.boxes)?;
    Ok(Accepted { grant_id, grant_sha256, grant, spec, images, secrets, gap })
}

/// Check 1: the peer is the orchestrator that the grant was given to, and not revoked.
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

/// Check 3: this cluster, this era, this node, keys that I still hold.
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

/// Check 4: start while the grant says so, under a Status that is fresh and whose documents I hold.
fn check_4_times(trust: &NodeTrust, clock: Millis, g: &Grant) -> Result<(), Refusal> {
    require(clock.0 <= g.start_before_ms, 4, "start-before", || {
        format!("the grant was to start before {}", Millis(g.start_before_ms))
    })?;
    require(clock.0 <= g.lease_until_ms, 4, "lease-over", || "the grant's lease is over".into())?;
    let s = trust.status().ok_or_else(|| Refusal::new(4, "status-missing", "no status yet"))?;
    let age = clock.since(Millis(s.issued_at_ms));
    let most = Duration::from_secs(g.max_status_age_s.min(MAX_STATUS_AGE_S).into());
    require(age <= most, 4, "status-age", || {
        format!("the newest status is {} s old, at most {} s are allowed", age.as_secs(), most.as_secs())
    })?;
    require(trust.keeps_up_with(s), 4, "status-ahead", || {
        "the status names a charter or bundle that I do not hold yet".into()
    })?;
    require(trust.revocations().is_some(), 4, "revocations-missing", || {
        "I do not hold the revocations that the status names".into()
    })?;
    require(!s.lockdown, 4, "lockdown", || "the cluster is locked down".into())?;
    trust.charter().head().limits.as_ref().map_or(Ok(()), |l| check_limits(l, g))
}

/// The charter bounds what the vault may promise; 0 = no bound.
fn check_limits(l: &Limits, g: &Grant) -> Result<(), Refusal> {
    let lease = Millis(g.lease_until_ms).since(Millis(g.issued_at_ms));
    let within = |limit: u32, value: Duration| limit == 0 || value <= Duration::from_secs(limit.into());
    require(within(l.max_lease_s, lease), 4, "lease-limit", || "the lease is longer than the charter allows".into())?;
    require(within(l.max_grace_s, Duration::from_secs(g.grace_s.into())), 4, "grace-limit", || {
        "the grace is longer than the charter allows".into()
    })
}

/// Check 9: each box is the one granted, sealed for this grant and this generation by someone who knows the PSK.
fn check_9_boxes(
    trust: &NodeTrust,
    me: &NodeSelf,
    key: &NodeKey,
    g: &Grant,
    sealed: &[Vec<u8>],
) -> Result<Vec<OpenedSecret>, Refusal> {
    require(sealed.len() == g.secrets.len(), 9, "boxes", || {
        format!("{} boxes for {} secrets", sealed.len(), g.secrets.len())
    })?;
    g.secrets.iter().zip(sealed).map(|(s, b)| open(trust, me, key, g, s, b)).collect()
}

fn open(
    trust: &NodeTrust,
    me: &NodeSelf,
    key: &NodeKey,
    g: &Grant,
    s: &GrantSecret,
    sealed: &[u8],
) -> Result<OpenedSecret, Refusal> {
    let no = |code, why: String| Refusal::new(9, code, format!("secret {:?}: {why}", s.name));
    if s.box_sha256 != sha256(&[sealed]).0 {
        return Err(no("box-hash", "the box is not the one granted".into()));
    }
    let kid = boxes::parse(sealed).map_err(|e| no("box", e.to_string()))?.kid;
    if g.hpke_kid != kid {
        return Err(no("box-kid", "the grant names another key than the box".into()));
    }
    let aad = boxes::secret_aad(&g.grant_id, &s.name, s.version, me.node_id.as_str(), g.node_seq);
    let c = boxes::Context { purpose: "secret", cluster: trust.cluster(), aad: &aad };
    let padded = boxes::open(&key.hpke, &c, Some(&key.psk), sealed).map_err(|e| no("box", e.to_string()))?;
    let value = padding::unpad(padded.expose())
        .ok_or_else(|| no("box-padding", "the value is not padded as it must be".into()))?;
    let bytes = SecretBytes::new(value.to_vec());
    Ok(OpenedSecret {
        name: s.name.clone(),
        version: s.version,
        target: s.target.clone(),
        mode: s.mode,
        uid: s.uid,
        gid: s.gid,
        bytes,
    })
}
