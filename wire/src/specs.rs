//! What of a spec a running task would notice: scheduler and tool must agree on which tasks are out of date.

use crate::v1::Spec;
use holdfast_types::{Digest, sha256};
use prost::Message as _;

/// Digest of the spec without what may change while its tasks run on: version, validity, replicas, update policy.
pub fn template(spec: &Spec) -> Digest {
    let lasting =
        Spec { version: 0, valid_until_ms: 0, replicas_min: 0, replicas_max: 0, update: None, ..spec.clone() };
    sha256(&[&lasting.encode_to_vec()])
}
