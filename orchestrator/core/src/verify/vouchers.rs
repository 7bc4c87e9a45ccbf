//! Check 8: every image is vouched for by a publisher that the charter lists for its repository.

use super::refusal::{Refusal, require};
use super::trust::NodeTrust;
use holdfast_types::Digest;
use holdfast_wire::statement;
use holdfast_wire::v1::{Grant, Publisher, Spec, SpecImage, Statement, Voucher};

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
    require(!spec.images.is_empty(), 8, "images-none", || "the spec names no image".into())?;
    require(vouchers.len() <= MAX_VOUCHERS, 8, "vouchers-many", || format!("more than {MAX_VOUCHERS} vouchers"))?;
    let shown: Vec<(&Statement, Voucher)> =
        vouchers.iter().filter_map(|st| Some((st, statement::peek(st).ok()?))).collect();
    spec.images
        .iter()
        .zip(&grant.images)
        .map(|(image, granted)| one(trust, image, &granted.publisher, &shown))
        .collect()
}

fn one(
    trust: &NodeTrust,
    image: &SpecImage,
    publisher: &str,
    shown: &[(&Statement, Voucher)],
) -> Result<AcceptedImage, Refusal> {
    let no = |code, why: &str| Refusal::new(8, code, format!("image {:?}: {why}", image.name));
    let digest = Digest::from_slice(&image.digest).ok_or_else(|| no("image-digest", "not a SHA-256 digest"))?;
    let revocations =
        trust.revocations().ok_or_else(|| no("denied-unknown", "the list of denied digests is missing"))?;
    if revocations.denied_digests.contains(&image.digest) {
        return Err(no("image-denied", "its digest is denied"));
    }
    let p = trust
        .charter()
        .publisher(publisher)
        .ok_or_else(|| no("publisher-unknown", "its publisher is not in the charter"))?;
    let repository = repository_of(&image.source);
    if !may_publish(p, repository) {
        return Err(no("repository", "its publisher may not publish to this repository"));
    }
    let fits =
        |v: &Voucher| v.digest == image.digest && v.repository == repository && v.cluster_id == trust.cluster().0;
    let good = |st: &Statement| statement::verify::<Voucher>(st, &p.keys, p.threshold as usize).is_ok();
    if !shown.iter().any(|(st, v)| fits(v) && good(st)) {
        return Err(no("voucher", "no voucher by enough of its publisher's keys fits this digest and repository"));
    }
    Ok(AcceptedImage { name: image.name.clone(), digest, source: image.source.clone(), publisher: p.id.clone() })
}

/// The repository of an image reference: without tag and digest. A local source keeps its scheme.
fn repository_of(source: &str) -> &str {
    let s = source.split_once('@').map_or(source, |(s, _)| s);
    let scheme = ["oci-layout:", "docker-archive:"].iter().find(|p| s.starts_with(**p)).map_or(0, |p| p.len());
    let name = s.rfind('/').map_or(scheme, |i| scheme.max(i + 1));
    let end = s.get(name..).and_then(|n| n.find(':')).map_or(s.len(), |i| name + i);
    s.get(..end).unwrap_or(s)
}

/// Whole path elements only: the prefix `r/shop` covers `r/shop` and `r/shop/web`, not `r/shop2`. `*` covers all.
fn may_publish(p: &Publisher, repository: &str) -> bool {
    p.repo_prefixes.iter().any(|prefix| {
        let rest = repository.strip_prefix(prefix.as_str());
        let boundary = |r: &str| r.is_empty() || r.starts_with('/') || prefix.ends_with(['/', ':']);
        prefix == "*" || (!prefix.is_empty() && rest.is_some_and(boundary))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_the_reference_without_tag_and_digest() {
        for (source, repository) in [
            ("r.local:5000/shop/web:1.4", "r.local:5000/shop/web"),
            ("r.local:5000/shop/web", "r.local:5000/shop/web"),
            ("r.local:5000/shop/web:1@sha256:00", "r.local:5000/shop/web"),
            ("web:1", "web"),
            ("oci-layout:/srv/web", "oci-layout:/srv/web"),
            ("oci-layout:web", "oci-layout:web"),
            ("docker-archive:/srv/web.tar", "docker-archive:/srv/web.tar"),
        ] {
            assert_eq!(repository_of(source), repository);
        }
    }

    #[test]
    fn a_prefix_covers_whole_path_elements_and_an_empty_one_nothing() {
        let p = |prefix: &str| Publisher { repo_prefixes: vec![prefix.into()], ..Publisher::default() };
        assert!(may_publish(&p("r/shop"), "r/shop"));
        assert!(may_publish(&p("r/shop"), "r/shop/web"));
        assert!(may_publish(&p("r/"), "r/shop"));
        assert!(may_publish(&p("*"), "anything"));
        assert!(!may_publish(&p("r/shop"), "r/shop2"));
        assert!(!may_publish(&p(""), "r/shop"));
        assert!(!may_publish(&Publisher::default(), "r/shop"));
    }
}
