//! Check 4: when an assignment may start, and under what a node must know by then.

use super::refusal::{Refusal, require};
use super::trust::NodeTrust;
use holdfast_types::Millis;
use holdfast_wire::v1::{Grant, Limits};
use std::time::Duration;

/// Oldest Status that even a standby grant may start under (protocol: standby ≤ 24 h).
const MAX_STATUS_AGE_S: u32 = 24 * 3600;

/// Start while the grant says so, under a Status that is fresh and whose documents I hold.
pub(crate) fn check(trust: &NodeTrust, clock: Millis, g: &Grant) -> Result<(), Refusal> {
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
