//! Images that operators deny: no spec of them is taken or granted.
//!
//! What runs of them is told, and neither stopped nor kept from being extended: one operator alone denies. Whether it is worse
//! that it runs or that it does not is for people to say.

use super::{SpecVersion, State};
use crate::refusal::{Code, Refusal};
use holdfast_types::{Digest, ServiceRef};
use holdfast_wire::specs::template;
use holdfast_wire::v1;

/// The rule that a denied image is not started. It is applied where the spec is looked up, and stands beside the built-in
/// ones of `policy/src/text/l0.cedar`: no replaceable policy can take its name or permit past it.
const DENIED: &str = "L0-denied";

impl State {
    /// Refuses a spec with an image that is denied.
    pub(crate) fn check_denied(&self, spec: &v1::Spec) -> Result<(), Refusal> {
        let Some(image) = spec.images.iter().find(|i| self.is_denied(&i.digest)) else { return Ok(()) };
        let digest = Digest::from_slice(&image.digest).map(|d| d.oci()).unwrap_or_default();
        let why = format!("image {} ({digest}) is denied; operators allow it with: holdfast image allow", image.name);
        Err(Refusal { policies: vec![DENIED.into()], ..Refusal::new(Code::PolicyDenied, why) })
    }

    fn is_denied(&self, digest: &[u8]) -> bool {
        Digest::from_slice(digest).is_some_and(|d| self.denied_digests.binary_search(&d).is_ok())
    }

    /// Services of which something runs whose image is denied, each with how many of its grants are live.
    pub fn denied_running(&self) -> Vec<(&ServiceRef, usize)> {
        if self.denied_digests.is_empty() { Vec::new() } else { self.running_with(|d| self.is_denied(d)) }
    }

    /// The same for one image.
    pub(crate) fn running_of(&self, digest: &Digest) -> Vec<(&ServiceRef, usize)> {
        self.running_with(|d| d == digest.0.as_slice())
    }

    /// Services with live grants for a spec of theirs with such an image. Work that no active version asks for is not looked
    /// at: it is not extended, and ends.
    fn running_with(&self, is_such: impl Fn(&[u8]) -> bool) -> Vec<(&ServiceRef, usize)> {
        let mut all = Vec::new();
        for (name, row) in self.services.iter().filter(|(_, row)| row.active) {
            let specs = row.versions.iter().filter_map(SpecVersion::spec);
            let such = specs.filter(|s| s.images.iter().any(|i| is_such(&i.digest)));
            let templates: Vec<Digest> = such.map(template).collect();
            let runs =
                self.grants_of_service(name).filter(|(_, g)| g.state.is_live() && templates.contains(&g.template));
            let tasks = runs.count();
            if tasks > 0 {
                all.push((name, tasks));
            }
        }
        all
    }
}
