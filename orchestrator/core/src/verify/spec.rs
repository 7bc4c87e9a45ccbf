//! Check 7: the deployer's own words, and that the grant says nothing else.

use super::refusal::{Refusal, require};
use super::trust::NodeTrust;
use holdfast_types::{Millis, SecretRef, TaskId};
use holdfast_wire::statement::{self, Verified};
use holdfast_wire::v1::{Grant, GrantSecret, Param, ParamDecl, SecretMount, Spec, Statement};

/// Deployers needed for a service that its spec calls sensitive, whatever the charter says of others.
const SENSITIVE: usize = 2;

/// Verifies the spec that `grant` names: hash, deployers, life, and every field that both hold.
pub(crate) fn check(trust: &NodeTrust, now: Millis, grant: &Grant, st: Option<&Statement>) -> Result<Spec, Refusal> {
    let st = st.ok_or_else(|| Refusal::new(7, "spec-missing", "the assignment comes without a spec"))?;
    let shown: Spec = statement::peek(st).map_err(Refusal::statement(7, "spec-malformed"))?;
    let deployers = trust.charter().owners(&["Deployer"], &shown.namespace);
    let k = trust.charter().threshold("deploy").unwrap_or(1);
    let k = if shown.sensitive { k.max(SENSITIVE) } else { k };
    let Verified { doc: spec, sha256, .. } =
        statement::verify::<Spec>(st, &deployers, k).map_err(Refusal::statement(7, "spec-signature"))?;
    require(grant.spec_sha256 == sha256.0, 7, "spec-hash", || "the grant names another spec".into())?;
    require(spec.cluster_id == trust.cluster().0, 7, "spec-cluster", || {
        "the spec was signed for another cluster".into()
    })?;
    require(trust.clock(now).0 <= spec.valid_until_ms, 7, "spec-expired", || {
        format!("the spec was valid until {}: deploy it again", Millis(spec.valid_until_ms))
    })?;
    check_fields(grant, &spec)?;
    check_params(&grant.params, &spec.params)?;
    Ok(spec)
}

fn check_fields(g: &Grant, s: &Spec) -> Result<(), Refusal> {
    let service_of_task =
        TaskId::parse(&g.task_id).and_then(|t| t.service()).map(|r| r.to_string()).unwrap_or_default();
    let expiry_known = matches!(s.on_expiry.as_str(), "run-on" | "stop");
    let fields = [
        ("namespace", g.namespace == s.namespace),
        ("service", g.service == s.service),
        ("version", g.service_version == s.version),
        ("task id", service_of_task == format!("{}/{}", s.namespace, s.service)),
        ("images", same(&g.images, &s.images, |a, b| a.name == b.name && a.digest == b.digest)),
        ("secrets", same(&g.secrets, &s.secrets, |a, b| same_mount(&s.namespace, a, b))),
        ("exclusive", g.exclusive == s.exclusive),
        ("protected", g.protected == s.protected),
        ("on_expiry", g.on_expiry == s.on_expiry && expiry_known),
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

/// Every declared hole is filled once, within its bounds, and nothing else is.
fn check_params(given: &[Param], declared: &[ParamDecl]) -> Result<(), Refusal> {
    let ok = same(given, declared, |p, d| p.name == d.name);
    require(ok, 7, "params", || "the grant's params are not those that the spec declares, in its order".into())?;
    match given.iter().zip(declared).find(|(p, d)| !in_bounds(&p.value, d)) {
        None => Ok(()),
        Some((p, _)) => {
            Err(Refusal::new(7, "param-bounds", format!("param {:?} is outside its declared bounds", p.name)))
        }
    }
}

fn in_bounds(value: &str, d: &ParamDecl) -> bool {
    match d.kind.as_str() {
        // One spelling for each number: no sign, no leading zero that a program might read as octal.
        "int" => value.parse::<i64>().is_ok_and(|n| (d.min..=d.max).contains(&n) && n.to_string() == value),
        "string" => value.len() <= d.max_len as usize && value.bytes().all(|b| (0x20..0x7f).contains(&b)),
        _ => false,
    }
}
