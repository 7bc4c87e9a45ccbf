//! Image references in signed documents: which repository one belongs to, and which publisher may speak for it.
//!
//! Vault, node and tool must read them alike; so they are read here.

use crate::statement;
use crate::v1::{Publisher, Statement, Voucher};

/// The repository of an image reference: without tag and digest. A local source keeps its scheme.
pub fn repository_of(source: &str) -> &str {
    let s = source.split_once('@').map_or(source, |(s, _)| s);
    let scheme = ["oci-layout:", "docker-archive:"].iter().find(|p| s.starts_with(**p)).map_or(0, |p| p.len());
    let name = s.rfind('/').map_or(scheme, |i| scheme.max(i + 1));
    let end = s.get(name..).and_then(|n| n.find(':')).map_or(s.len(), |i| name + i);
    s.get(..end).unwrap_or(s)
}

/// Whether publisher `p` speaks for `repository`. Whole path elements only: the prefix `r/shop` covers `r/shop` and `r/shop/web`, not `r/shop2`. `*` covers all.
pub fn may_publish(p: &Publisher, repository: &str) -> bool {
    p.repo_prefixes.iter().any(|prefix| {
        let rest = repository.strip_prefix(prefix.as_str());
        let boundary = |r: &str| r.is_empty() || r.starts_with('/') || prefix.ends_with(['/', ':']);
        prefix == "*" || (!prefix.is_empty() && rest.is_some_and(boundary))
    })
}

/// What `st` vouches for, if enough of `p`'s keys signed it and `p` speaks for the repository.
pub fn vouched(p: &Publisher, st: &Statement) -> Option<Voucher> {
    let v = statement::verify::<Voucher>(st, &p.keys, p.threshold as usize).ok()?.doc;
    may_publish(p, &v.repository).then_some(v)
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
