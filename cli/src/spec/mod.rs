//! Service files: TOML in, a checked [`Service`] out, which becomes the Spec that its deployer signs.
//!
//! Unknown keys are errors with their line; every other fault is collected, so that one run names them all.

mod check;
mod raw;

pub use check::is_label;

use crate::errors::{Code, Failure};
use holdfast_types::{ClusterId, Digest, ServiceRef};
use holdfast_wire::v1;
use std::path::Path;

/// A service file that is well-formed: everything of a Spec but the cluster, the version and the digest.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceRef,
    /// The image as written: a registry reference, `oci-layout:PATH` or `docker-archive:PATH`.
    pub image: String,
    /// The Spec with the fields above left empty.
    content: v1::Spec,
    /// For how long the signed Spec may be started, in milliseconds.
    valid_for_ms: i64,
}

/// An image whose tag was resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The repository a publisher vouches under.
    pub repository: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Where nodes fetch it.
    pub source: String,
}

/// Reads a service file.
pub fn read(path: &Path) -> Result<Service, Failure> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if matches!(ending, "yaml" | "yml") {
        return Err(Failure::not_yet("deploying a compose file").with("file", path.display().to_string()));
    }
    let bytes = crate::files::read(path, 256 << 10)?;
    let file = path.display().to_string();
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid(&file, "not UTF-8"))?;
    parse(text, &file)
}

/// Parses the text of a service file; `file` names it in errors.
pub fn parse(text: &str, file: &str) -> Result<Service, Failure> {
    let raw: raw::RawService = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
        invalid(file, &format!("line {line}: {}", e.message())).with("line", line)
    })?;
    if let Some(ports) = &raw.ports {
        let names: Vec<_> = ports.iter().map(|p| p.name.as_str()).collect();
        return Err(Failure::not_yet(&format!("the key `ports` ({})", names.join(", "))).with("key", "ports"));
    }
    check::service(raw).map_err(|faults| invalid(file, &faults.join("; ")).with("faults", faults))
}

fn invalid(file: &str, why: &str) -> Failure {
    Failure::new(Code::SpecInvalid, format!("{file}: {why}"), "correct the service file; see docs/reference/service.md")
}

impl Service {
    /// What is read and signed, and not done yet: told at the deploy, so that nobody relies on it.
    pub fn notes(&self) -> Vec<&'static str> {
        let rolls_back = self.content.update.as_ref().is_some_and(|u| u.on_failure == "rollback");
        let notes = [
            (rolls_back, "update.on-failure: rolling back is not available yet; a rollout that fails pauses"),
            (self.content.health.is_some(), "health: checks are not run yet; a task counts as long as it runs"),
        ];
        notes.into_iter().filter_map(|(asked, note)| asked.then_some(note)).collect()
    }
    /// Whether more than one deployer must sign it.
    pub fn is_sensitive(&self) -> bool {
        self.content.sensitive
    }
    /// The Spec to sign.
    pub fn into_spec(self, cluster: &ClusterId, version: u64, image: &ResolvedImage, now_ms: i64) -> v1::Spec {
        v1::Spec {
            cluster_id: cluster.0.to_vec(),
            namespace: self.name.namespace.as_str().to_owned(),
            service: self.name.name.as_str().to_owned(),
            version,
            valid_until_ms: now_ms.saturating_add(self.valid_for_ms),
            images: vec![v1::SpecImage {
                name: image.repository.clone(),
                digest: image.digest.to_vec(),
                source: image.source.clone(),
            }],
            ..self.content
        }
    }
}

#[cfg(test)]
mod tests;
