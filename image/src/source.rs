//! Where an image is, as a user writes it.

use crate::ImageError;
use oci_client::Reference;
use std::fmt;
use std::path::PathBuf;

/// A parsed image source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// `oci-layout:PATH[:ref]`: a directory in OCI image layout; without a `ref` it must hold one image.
    Layout {
        /// The directory.
        path: PathBuf,
        /// `org.opencontainers.image.ref.name` of the wanted image.
        reference: Option<String>,
    },
    /// `docker-archive:PATH`: a file as `docker save` writes it, with one image.
    Archive {
        /// The file.
        path: PathBuf,
    },
    /// A registry reference: `[host[:port]/]name[:tag][@digest]`.
    Registry(Reference),
}

impl Source {
    /// Parses a source.
    pub fn parse(s: &str) -> Result<Self, ImageError> {
        let bad = |why: &str| ImageError::Source { given: s.chars().take(200).collect(), why: why.to_owned() };
        if let Some(rest) = s.strip_prefix("oci-layout:") {
            // The part after the last ':' is a ref unless it is part of the path.
            let (path, reference) = match rest.rsplit_once(':') {
                Some((path, reference)) if !reference.contains('/') => (path, Some(reference)),
                _ => (rest, None),
            };
            if path.is_empty() || reference == Some("") {
                return Err(bad("write oci-layout:PATH or oci-layout:PATH:REF"));
            }
            return Ok(Self::Layout { path: path.into(), reference: reference.map(str::to_owned) });
        }
        if let Some(path) = s.strip_prefix("docker-archive:") {
            return if path.is_empty() {
                Err(bad("write docker-archive:PATH"))
            } else {
                Ok(Self::Archive { path: path.into() })
            };
        }
        s.parse().map(Self::Registry).map_err(|e: oci_client::ParseError| bad(&e.to_string()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Layout { path, reference: Some(r) } => write!(f, "oci-layout:{}:{r}", path.display()),
            Source::Layout { path, reference: None } => write!(f, "oci-layout:{}", path.display()),
            Source::Archive { path } => write!(f, "docker-archive:{}", path.display()),
            Source::Registry(reference) => write!(f, "{reference}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_source_is_told_by_its_prefix() {
        let layout =
            |path: &str, r: Option<&str>| Source::Layout { path: path.into(), reference: r.map(str::to_owned) };
        assert_eq!(Source::parse("oci-layout:/a/b").unwrap(), layout("/a/b", None));
        assert_eq!(Source::parse("oci-layout:/a/b:1.4").unwrap(), layout("/a/b", Some("1.4")));
        assert_eq!(Source::parse("oci-layout:/a:x/b").unwrap(), layout("/a:x/b", None));
        assert_eq!(Source::parse("docker-archive:/x.tar").unwrap(), Source::Archive { path: "/x.tar".into() });
        let Source::Registry(r) = Source::parse("registry.local:5000/shop/web:1.4").unwrap() else { panic!() };
        assert_eq!((r.registry(), r.repository(), r.tag()), ("registry.local:5000", "shop/web", Some("1.4")));
        for bad in ["", "oci-layout:", "docker-archive:", "oci-layout:/a:", "UPPER", "a b"] {
            assert!(Source::parse(bad).is_err(), "{bad:?}");
        }
    }
}
