//! Check 7: the deployer's own words, and that the grant says nothing else.

use super::memory::TaskMemory;
use super::refusal::{Refusal, require};
use super::trust::NodeTrust;
use holdfast_types::{Millis, NameError, SecretRef, TaskId};
use holdfast_wire::charter::verify_spec;
use holdfast_wire::specs::{self, SpecError};
use holdfast_wire::statement::{self, Verified};
use holdfast_wire::v1::{Grant, GrantSecret, SecretMount, Spec, Statement};

/// Verifies the spec that `grant` names: hash, deployers, content, and every field that both hold.
pub(crate) fn check(
    trust: &NodeTrust,
    memory: &TaskMemory,
    now: Millis,
    grant: &Grant,
    st: Option<&Statement>,
) -> Result<Spec, Refusal> {
    let st = st.ok_or_else(|| Refusal::new(7, "spec-missing", "the assignment comes without a spec"))?;
    let known = memory.is_sensitive(&grant.namespace, &grant.service);
    statement::peek::<Spec>(st).map_err(Refusal::statement(7, "spec-malformed"))?;
    let Verified { doc: spec, sha256, .. } =
        verify_spec(trust.charter().head(), st, known).map_err(Refusal::statement(7, "spec-signature"))?;
    require(grant.spec_sha256 == sha256.0, 7, "spec-hash", || "the grant names another spec".into())?;
    require(spec.cluster_id == trust.cluster().0, 7, "spec-cluster", || {
        "the spec was signed for another cluster".into()
    })?;
    specs::check(&spec, trust.clock(now)).map_err(refused)?;
    check_fields(grant, &spec)?;
    let task = TaskId::parse(&grant.task_id).map_err(|e: NameError| refused(e.into()))?;
    specs::check_slot(&spec, &task).map_err(refused)?;
    specs::check_params(&grant.params, &spec.params).map_err(refused)?;
    Ok(spec)
}

fn refused(e: SpecError) -> Refusal {
    let code = match e {
        SpecError::Expired(_) => "spec-expired",
        SpecError::Slot { .. } => "slot",
        SpecError::Params => "params",
        SpecError::Bounds(_) => "param-bounds",
        SpecError::Name(_)
        | SpecError::TooLong
        | SpecError::Images
        | SpecError::Twice(_)
        | SpecError::Replicas
        | SpecError::Zones
        | SpecError::Expiry
        | SpecError::Exclusive
        | SpecError::Word(_) => "spec-content",
    };
    Refusal::new(7, code, e.to_string())
}

fn check_fields(g: &Grant, s: &Spec) -> Result<(), Refusal> {
    let service_of_task =
        TaskId::parse(&g.task_id).and_then(|t| t.service()).map(|r| r.to_string()).unwrap_or_default();
    let fields = [
        ("namespace", g.namespace == s.namespace),
        ("service", g.service == s.service),
        ("version", g.service_version == s.version),
        ("task id", service_of_task == format!("{}/{}", s.namespace, s.service)),
        ("images", same(&g.images, &s.images, |a, b| a.name == b.name && a.digest == b.digest)),
        ("secrets", same(&g.secrets, &s.secrets, |a, b| same_mount(&s.namespace, a, b))),
        ("exclusive", g.exclusive == s.exclusive),
        ("protected", g.protected == s.protected),
        ("on_expiry", g.on_expiry == s.on_expiry),
        // Grace would let it run on while another may be started.
        ("grace", !s.exclusive || g.grace_s == 0),
    ];
    match fields.iter().find(|(_, equal)| !equal) {
        None => Ok(()),
        Some((name, _)) => Err(Refusal::new(7, "spec-mismatch", format!("grant and spec differ in {name}"))),
    }
}

fn same<A, B>(a: &[A], b: &[B], equal: impl Fn(&A, &B) -> bool) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
}

/// A bare secret name falls into the service's namespace, on both sides.
fn same_mount(namespace: &str, g: &GrantSecret, s: &SecretMount) -> bool {
    let full = |n: &str| SecretRef::parse(n, namespace).ok();
    full(&g.name).is_some_and(|n| Some(n) == full(&s.name))
        && g.target == s.target
        && (g.mode, g.uid, g.gid) == (s.mode, s.uid, s.gid)
}
