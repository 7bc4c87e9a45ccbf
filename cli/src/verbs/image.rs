//! `image`: digests that nobody may start any more, whoever vouched for them. One operator denies; as many as end a lockdown
//! allow again.

use super::names;
use crate::app::App;
use crate::args::{ImageVerb, SignTo};
use crate::client::Cluster;
use crate::errors::Failure;
use crate::signing;
use holdfast_types::Digest;
use holdfast_wire::statement::peek;
use holdfast_wire::v1;
use serde_json::json;
use v1::command::Action;

/// Runs the verb.
pub async fn run(app: &App, verb: ImageVerb) -> Result<(), Failure> {
    match verb {
        ImageVerb::Deny { digest, reason, to } => deny(app, &digest_of(&digest)?, reason, &to).await,
        ImageVerb::Allow { digest, to } => allow(app, &digest_of(&digest)?, &to).await,
        ImageVerb::Ls => ls(app).await,
    }
}

fn digest_of(text: &str) -> Result<Digest, Failure> {
    Digest::parse(text).ok_or_else(|| names::wrong(format!("{text:?} is not a digest: sha256: and 64 digits of hex")))
}

async fn deny(app: &App, digest: &Digest, reason: String, to: &SignTo) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let order = Action::DenyDigest(v1::DenyDigest { digest: digest.to_vec(), reason });
    if signing::command(app, &c, to, order).await?.is_none() {
        return Ok(());
    }
    let all = c.read(async |mut r| r.list_services(names::list(None, None, false)).await).await?.services;
    let has = |s: &&v1::ServiceView| specs(s).any(|spec| spec.images.iter().any(|i| i.digest == digest.0));
    let services: Vec<String> = all.iter().filter(has).map(|s| format!("{}/{}", s.namespace, s.service)).collect();
    let said = said(digest, &services);
    app.out.done(&json!({"digest": digest.oci(), "denied": true, "services": services}), &said)
}

/// The specs that a service may be started by.
fn specs(s: &v1::ServiceView) -> impl Iterator<Item = v1::Spec> {
    s.versions.iter().filter_map(|v| v.spec.as_ref()).filter_map(|st| peek::<v1::Spec>(st).ok())
}

/// What runs is named: nothing stops it.
fn said(digest: &Digest, services: &[String]) -> String {
    let denied = format!("image {} is denied", digest.oci());
    if services.is_empty() {
        return denied;
    }
    format!("{denied}; what runs of it goes on: {}", services.join(", "))
}

async fn allow(app: &App, digest: &Digest, to: &SignTo) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let order = Action::AllowDigest(v1::AllowDigest { digest: digest.to_vec() });
    if signing::command(app, &c, to, order).await?.is_none() {
        return Ok(());
    }
    let document = json!({"digest": digest.oci(), "denied": false});
    app.out.done(&document, &format!("image {} may be started again", digest.oci()))
}

async fn ls(app: &App) -> Result<(), Failure> {
    let c = Cluster::connect(app).await?;
    let shown = c.read(async |mut r| r.get_trust(v1::Ack {}).await).await?.revocations;
    let list = shown.and_then(|st| peek::<v1::Revocations>(&st).ok()).unwrap_or_default();
    let denied: Vec<String> =
        list.denied_digests.iter().filter_map(|d| Digest::from_slice(d)).map(|d| d.oci()).collect();
    let documents = denied.iter().map(|d| json!({"digest": d})).collect();
    app.out.list("images", documents, &["digest"], denied.iter().map(|d| vec![d.clone()]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_said_in_full_and_what_runs_of_it_is_named() {
        let text = format!("sha256:{}", "ab".repeat(32));
        let digest = digest_of(&text).unwrap();
        assert_eq!(said(&digest, &[]), format!("image {text} is denied"));
        assert!(said(&digest, &["shop/web".into()]).ends_with("what runs of it goes on: shop/web"));
        for bad in ["", "sha256:", "sha256:ab", "shop/web:1", "sha512:ab"] {
            assert_eq!(digest_of(bad).unwrap_err().code, "usage", "{bad}");
        }
    }
}
