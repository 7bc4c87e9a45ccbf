//! `service`: what a deployer signs, submits and watches.

use super::{grant, logs, names, node, rollout};
use crate::app::App;
use crate::args::{RegistryOptions, Service, ServiceName, SignTo};
use crate::client::Cluster;
use crate::clock;
use crate::errors::{Code, Failure};
use crate::output::time;
use crate::resolve;
use crate::signing;
use crate::spec::{self, ResolvedImage};
use data_encoding::HEXLOWER;
use holdfast_types::ServiceRef;
use holdfast_wire::charter::{deployers_needed, verify_spec as verify_spec_of};
use holdfast_wire::keys::StatementSigner as _;
use holdfast_wire::specs::template;
use holdfast_wire::statement::{self, Verified};
use holdfast_wire::v1;
use serde_json::{Value, json};
use std::path::Path;
use v1::command::Action;

/// Runs the verb.
pub async fn run(app: &App, verb: Service) -> Result<(), Failure> {
    match verb {
        Service::Deploy { file, registries, detach, to } => deploy(app, &file, &registries, detach, &to).await,
        Service::Ls { namespace } => ls(app, namespace.as_deref()).await,
        Service::Ps { service, all } => ps(app, &names::service(&service)?, all).await,
        Service::Inspect(s) => inspect(app, &names::service(&s)?).await,
        Service::Scale { target, replicas, namespace, detach, to } => {
            let (name, replicas) = scale_target(&target, replicas, namespace)?;
            scale(app, &name, replicas, detach, &to).await
        }
        Service::Approve { service, node, to } => approve(app, &names::service(&service)?, &node, &to).await,
        Service::Rm { service, to } => rm(app, &names::service(&service)?, &to).await,
        Service::Logs { service, task, follow, tail } => {
            logs::run(app, &names::service(&service)?, task, follow, tail.unwrap_or(0)).await
        }
    }
}

/// `NAME=N`, or `NAME` and then `N`.
fn scale_target(target: &str, replicas: Option<u32>, namespace: String) -> Result<(ServiceRef, u32), Failure> {
    let (name, n) = match (target.split_once('='), replicas) {
        (Some((name, n)), None) => {
            (name, n.parse().map_err(|_| names::wrong(format!("{n:?} is not a number of tasks")))?)
        }
        (None, Some(n)) => (target, n),
        (Some(_), Some(_)) | (None, None) => return Err(names::wrong("write NAME=N, or NAME and then N")),
    };
    if n == 0 {
        return Err(names::wrong("a service has at least 1 task; remove it with `holdfast service rm`"));
    }
    Ok((names::service(&ServiceName { name: name.to_owned(), namespace })?, n))
}

async fn deploy(
    app: &App,
    file: &Path,
    registries: &RegistryOptions,
    detach: bool,
    to: &SignTo,
) -> Result<(), Failure> {
    let registries = resolve::registries(registries)?;
    let service = spec::read(file)?;
    for note in service.notes() {
        app.out.note(note);
    }
    let base = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let image = resolve::image(&service.image, base, &registries).await?;
    app.out.note(&format!("image {} is {}", service.image, image.digest.oci()));
    let c = Cluster::connect(app).await?;
    let name = service.name.clone();
    one_is_enough(c.trust.charter(), &name, service.is_sensitive(), to)?;
    let last = view(&c, &name).await?;
    let version = last.as_ref().and_then(|s| s.versions.last()).map_or(0, |v| v.version) + 1;
    vouch(&c, &image).await?;
    let spec = service.into_spec(&c.ctx.cluster, version, &image, clock::now().0);
    let before = last
        .and_then(|s| s.versions.into_iter().next_back()?.spec)
        .and_then(|st| statement::peek::<v1::Spec>(&st).ok());
    let same = before.is_some_and(|b| template(&b) == template(&spec));
    submit_and_follow(app, &c, &name, &spec, Follow { same, detach }, to).await
}

/// A spec that needs more than one deployer is refused before anything of it is signed, unless it is to be signed by others too.
fn one_is_enough(charter: &v1::Charter, name: &ServiceRef, sensitive: bool, to: &SignTo) -> Result<(), Failure> {
    signing::one_is_enough(deployers_needed(charter, sensitive), to, &name.to_string())
}

/// How a rollout is followed.
#[derive(Clone, Copy)]
struct Follow {
    /// Tasks of the version before are not replaced, so they count.
    same: bool,
    /// It is not.
    detach: bool,
}

async fn submit_and_follow(
    app: &App,
    c: &Cluster,
    name: &ServiceRef,
    spec: &v1::Spec,
    Follow { same, detach }: Follow,
    to: &SignTo,
) -> Result<(), Failure> {
    let Some(accepted) = signing::document(app, c, to, spec).await? else { return Ok(()) };
    app.out.note(&format!("{name} version {} is accepted", spec.version));
    if !detach {
        let rollout = rollout::Rollout {
            name,
            wanted: spec.replicas_max,
            version: (!same).then_some(spec.version),
            since: accepted.leaf_index,
        };
        rollout.follow(app, c).await?;
    }
    let digests: Vec<_> = spec.images.iter().map(|i| format!("sha256:{}", HEXLOWER.encode(&i.digest))).collect();
    let document = json!({
        "namespace": spec.namespace, "service": spec.service, "version": spec.version, "images": digests,
        "replicas": spec.replicas_max, "running": !detach,
    });
    let done = if detach { "is accepted" } else { "runs" };
    app.out.done(&document, &format!("{name} version {} {done}", spec.version))
}

/// Vouches for the digest if the charter lists our publisher key; else other publishers' vouchers have to be there.
async fn vouch(c: &Cluster, image: &ResolvedImage) -> Result<(), Failure> {
    let ours = c.operator.publisher.public();
    let listed = c.trust.charter().publishers.iter().any(|p| p.keys.contains(&ours));
    if !listed {
        return Ok(());
    }
    let voucher = v1::Voucher {
        cluster_id: c.ctx.cluster.0.to_vec(),
        repository: image.repository.clone(),
        digest: image.digest.to_vec(),
        issued_at_ms: clock::now().0,
    };
    c.submit(c.operator.vouch(&voucher)?, Vec::new()).await.map(|_| ())
}

async fn services(c: &Cluster, namespace: Option<&str>, name: Option<&str>) -> Result<Vec<v1::ServiceView>, Failure> {
    Ok(c.read(|mut r| async move { r.list_services(names::list(namespace, name, true)).await }).await?.services)
}

async fn view(c: &Cluster, name: &ServiceRef) -> Result<Option<v1::ServiceView>, Failure> {
    let all = services(c, Some(name.namespace.as_str()), Some(name.name.as_str())).await?;
    Ok(all.into_iter().find(|s| s.namespace == name.namespace.as_str() && s.service == name.name.as_str()))
}

/// The newest version as its deployers signed it. It is verified before anything of it is shown or signed again.
async fn signed_spec(c: &Cluster, name: &ServiceRef) -> Result<Verified<v1::Spec>, Failure> {
    let missing = || Failure::not_found(format!("service: {name}"), "list them with `holdfast service ls`");
    // What was removed has a last version, but no spec any more.
    let st = view(c, name).await?.and_then(|s| s.versions.into_iter().next_back()?.spec).ok_or_else(missing)?;
    verify_spec(c, &st)
}

fn verify_spec(c: &Cluster, st: &v1::Statement) -> Result<Verified<v1::Spec>, Failure> {
    let spec = verify_spec_of(c.trust.charter(), st, false).map_err(Failure::untrusted)?;
    if spec.doc.cluster_id == c.ctx.cluster.0 {
        Ok(spec)
    } else {
        Err(Failure::untrusted("the spec is of another cluster"))
    }
}

async fn scale(app: &App, name: &ServiceRef, replicas: u32, detach: bool, to: &SignTo) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let last = signed_spec(&c, name).await?.doc;
    if (last.namespace.as_str(), last.service.as_str()) != (name.namespace.as_str(), name.name.as_str()) {
        return Err(Failure::untrusted("the spec shown is of another service"));
    }
    one_is_enough(c.trust.charter(), name, last.sensitive, to)?;
    let spec = v1::Spec { version: last.version + 1, replicas_min: replicas, replicas_max: replicas, ..last };
    submit_and_follow(app, &c, name, &spec, Follow { same: true, detach }, to).await
}

/// Lets a sensitive service be placed on a node for the first time.
async fn approve(app: &App, name: &ServiceRef, node: &str, to: &SignTo) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let node_id = node::find(&c, node).await?.id;
    let (namespace, service) = (name.namespace.as_str().to_owned(), name.name.as_str().to_owned());
    let approve = v1::ApprovePlacement { namespace, service, node_id: node_id.clone() };
    if signing::command(app, &c, to, Action::ApprovePlacement(approve)).await?.is_none() {
        return Ok(());
    }
    let document = json!({"service": name.to_string(), "node": node_id, "approved": true});
    app.out.done(&document, &format!("{name} may be placed on {node_id}"))
}

async fn rm(app: &App, name: &ServiceRef, to: &SignTo) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let (namespace, service) = (name.namespace.as_str().to_owned(), name.name.as_str().to_owned());
    let remove = Action::RemoveService(v1::RemoveService { namespace, service });
    if signing::command(app, &c, to, remove).await?.is_none() {
        return Ok(());
    }
    app.out.done(&json!({"service": name.to_string(), "removed": true}), &format!("{name} is removed; its tasks stop"))
}

async fn ls(app: &App, namespace: Option<&str>) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let all = services(&c, namespace, None).await?;
    let grants = grant::list(&c, namespace, None, false).await?;
    let (mut documents, mut rows) = (Vec::new(), Vec::new());
    for s in &all {
        let Some(st) = s.versions.last().and_then(|v| v.spec.as_ref()) else { continue };
        let spec = verify_spec(&c, st)?.doc;
        let running = grants
            .iter()
            .filter(|g| g.namespace == s.namespace && g.service == s.service && g.task_state == "running")
            .count();
        let image = spec.images.first().map(|i| i.source.clone()).unwrap_or_default();
        documents.push(json!({
            "namespace": s.namespace, "service": s.service, "version": spec.version, "replicas": spec.replicas_max,
            "running": running, "image": image, "removing": s.removing,
        }));
        let tasks = format!("{running}/{}", spec.replicas_max);
        rows.push(vec![format!("{}/{}", s.namespace, s.service), spec.version.to_string(), tasks, image]);
    }
    app.out.list("services", documents, &["service", "version", "running", "image"], rows)
}

async fn ps(app: &App, name: &ServiceRef, all: bool) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let grants = grant::list(&c, Some(name.namespace.as_str()), Some(name.name.as_str()), all).await?;
    let documents: Vec<Value> = grants.iter().map(grant::document).collect();
    app.out.show(&json!({ "tasks": documents }), || grant::human(&app.out, &grants))
}

async fn inspect(app: &App, name: &ServiceRef) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let v = signed_spec(&c, name).await?;
    let charter = c.trust.charter();
    let signed = |o: &&v1::Operator| o.key.as_ref().is_some_and(|k| v.signers.contains(k));
    let by: Vec<_> = charter.operators.iter().filter(signed).map(|o| o.id.clone()).collect();
    let document = spec_document(&v.doc, &by, &v.sha256.hex());
    app.out.show(&document, || format!("{document:#}\n"))
}

/// A service, field by field, as it is signed.
pub fn spec_document(s: &v1::Spec, signed_by: &[String], sha256: &str) -> Value {
    let image = |i: &v1::SpecImage| json!({"name": i.name, "digest": format!("sha256:{}", HEXLOWER.encode(&i.digest)), "source": i.source});
    let secret = |m: &v1::SecretMount| json!({"name": m.name, "target": m.target, "mode": format!("0o{:o}", m.mode), "uid": m.uid, "gid": m.gid});
    let health =
        s.health.as_ref().map(|h| json!({"command": h.command, "interval_ms": h.interval_ms, "retries": h.retries}));
    let update = s.update.as_ref().map(|u| {
        json!({"parallelism": u.parallelism, "order": u.order, "on_failure": u.on_failure, "monitor_ms": u.monitor_ms})
    });
    let resources =
        s.resources.map(|r| json!({"cpu_milli": r.cpu_milli, "memory_bytes": r.memory_bytes, "pids": r.pids}));
    let tmpfs = |t: &v1::TmpfsMount| json!({"target": t.target, "size_bytes": t.size_bytes});
    let param =
        |p: &v1::ParamDecl| json!({"name": p.name, "kind": p.kind, "min": p.min, "max": p.max, "max_len": p.max_len});
    let env: serde_json::Map<String, Value> = s.env.iter().map(|e| (e.name.clone(), e.value.clone().into())).collect();
    json!({
        "namespace": s.namespace, "service": s.service, "version": s.version, "spec_sha256": sha256, "signed_by": signed_by,
        "valid_until": time(s.valid_until_ms), "images": s.images.iter().map(image).collect::<Vec<_>>(),
        "command": s.command, "args": s.args, "env": env, "secrets": s.secrets.iter().map(secret).collect::<Vec<_>>(),
        "replicas": s.replicas_max, "zones": s.zones, "node_labels": s.node_labels, "resources": resources, "health": health,
        "update": update, "isolation": s.isolation, "exclusive": s.exclusive, "protected": s.protected,
        "sensitive": s.sensitive, "on_expiry": s.on_expiry, "restart": s.restart, "user": s.user, "workdir": s.workdir,
        "tmpfs": s.tmpfs.iter().map(tmpfs).collect::<Vec<_>>(), "params": s.params.iter().map(param).collect::<Vec<_>>(),
    })
}

/// A rollout that did not come about.
pub fn rollout_failure(code: Code, name: &ServiceRef, why: &str) -> Failure {
    let help = format!("see `holdfast service ps {name} --all` and `holdfast service logs {name}`");
    Failure::new(code, format!("{name} does not run: {why}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_more_than_one_deployer_must_sign_is_refused_before_it_is_signed() {
        let op = crate::operator::Operator::generate("op-a").unwrap();
        let td = holdfast_types::TrustDomain::parse("a.example").unwrap();
        let mut charter = crate::charter::founding(&op, [1; 32], &td, [2; 32]);
        let name = ServiceRef::parse("shop/web", "default").unwrap();
        let (now, file) = (SignTo::default(), SignTo { out: Some("f".into()) });
        one_is_enough(&charter, &name, false, &now).unwrap();
        let refused = one_is_enough(&charter, &name, true, &now).unwrap_err();
        assert_eq!((refused.code.as_ref(), refused.exit_code()), ("threshold", 3));
        assert!(refused.message.contains("2 operators") && refused.help.contains("--out"), "{refused:?}");
        one_is_enough(&charter, &name, true, &file).unwrap();
        charter.thresholds.iter_mut().filter(|t| t.action == "deploy").for_each(|t| t.k = 3);
        assert!(one_is_enough(&charter, &name, false, &now).unwrap_err().message.contains("3 operators"));
    }

    #[test]
    fn what_is_shown_of_a_spec_leaves_nothing_of_it_out() {
        let spec = v1::Spec {
            tmpfs: vec![v1::TmpfsMount { target: "/cache".into(), size_bytes: 7 }],
            params: vec![v1::ParamDecl { name: "n".into(), kind: "int".into(), min: 1, max: 2, max_len: 0 }],
            ..v1::Spec::default()
        };
        let shown = spec_document(&spec, &[], "00");
        assert_eq!(shown["tmpfs"], json!([{"target": "/cache", "size_bytes": 7}]));
        assert_eq!(shown["params"], json!([{"name": "n", "kind": "int", "min": 1, "max": 2, "max_len": 0}]));
    }

    #[test]
    fn scale_takes_both_spellings_and_never_zero() {
        let t = |target: &str, n| scale_target(target, n, "default".into()).map(|(r, n)| (r.to_string(), n));
        assert_eq!(t("web=3", None).unwrap(), ("default/web".to_owned(), 3));
        assert_eq!(t("shop/web", Some(2)).unwrap(), ("shop/web".to_owned(), 2));
        for (target, n) in [("web", None), ("web=3", Some(3)), ("web=x", None), ("web=0", None), ("web=-1", None)] {
            assert_eq!(t(target, n).unwrap_err().code, "usage", "{target}");
        }
    }
}
