//! Check 8: every image is vouched for by a publisher that the charter lists for its repository.

use super::refusal::{Refusal, require};
use super::trust::NodeTrust;
use holdfast_types::Digest;
use holdfast_wire::charter;
use holdfast_wire::images::{may_publish, repository_of, vouched};
use holdfast_wire::v1::{Grant, Spec, SpecImage, Statement, Voucher};

/// Most vouchers looked at for one assignment.
const MAX_VOUCHERS: usize = 64;

/// An image that may be run: pull it by this digest and by nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedImage {
    /// Its name in the spec.
    pub name: String,
    /// Manifest digest.
    pub digest: Digest,
    /// Where to get it; content counts, not this.
    pub source: String,
    /// The publisher who vouched for it.
    pub publisher: String,
}

/// Verifies the vouchers for every image of `spec`; the grant has been compared with it before.
pub(crate) fn check(
    trust: &NodeTrust,
    grant: &Grant,
    spec: &Spec,
    vouchers: &[Statement],
) -> Result<Vec<AcceptedImage>, Refusal> {
    require(vouchers.len() <= MAX_VOUCHERS, 8, "vouchers-many", || format!("more than {MAX_VOUCHERS} vouchers"))?;
    spec.images
        .iter()
        .zip(&grant.images)
        .map(|(image, granted)| one(trust, image, &granted.publisher, vouchers))
        .collect()
}

fn one(
    trust: &NodeTrust,
    image: &SpecImage,
    publisher: &str,
    vouchers: &[Statement],
) -> Result<AcceptedImage, Refusal> {
    let no = |code, why: &str| Refusal::new(8, code, format!("image {:?}: {why}", image.name));
    let digest = Digest::from_slice(&image.digest).ok_or_else(|| no("image-digest", "not a SHA-256 digest"))?;
    let revocations =
        trust.revocations().ok_or_else(|| no("denied-unknown", "the list of denied digests is missing"))?;
    if revocations.denied_digests.contains(&image.digest) {
        return Err(no("image-denied", "its digest is denied"));
    }
    let p = charter::publisher(trust.charter().head(), publisher)
        .ok_or_else(|| no("publisher-unknown", "its publisher is not in the charter"))?;
    let repository = repository_of(&image.source);
    if !may_publish(p, repository) {
        return Err(no("repository", "its publisher may not publish to this repository"));
    }
    let fits =
        |v: &Voucher| v.digest == image.digest && v.repository == repository && v.cluster_id == trust.cluster().0;
    if !vouchers.iter().filter_map(|st| vouched(p, st)).any(|v| fits(&v)) {
        return Err(no("voucher", "no voucher by enough of its publisher's keys fits this digest and repository"));
    }
    Ok(AcceptedImage { name: image.name.clone(), digest, source: image.source.clone(), publisher: p.id.clone() })
}
