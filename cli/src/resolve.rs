//! From an image as a service file names it to what is signed: repository, digest, and where nodes fetch it.

use crate::args::RegistryOptions;
use crate::errors::{Code, Failure};
use crate::spec::ResolvedImage;
use holdfast_image::{ImageError, Registries, Source, is_registry, read_roots, resolve};
use holdfast_wire::images::repository_of;
use std::path::Path;

/// How registries are reached, as the command line says.
pub fn registries(given: &RegistryOptions) -> Result<Registries, Failure> {
    let wrong = |what: String, help: &str| Failure::new(Code::Usage, what, help);
    if let Some(name) = given.insecure.iter().find(|name| !is_registry(name)) {
        return Err(wrong(format!("--insecure-registry {name:?} is no registry"), "write HOST or HOST:PORT"));
    }
    let mut extra_roots = Vec::new();
    for file in &given.roots {
        let roots = read_roots(file).map_err(|e| {
            wrong(
                format!("--registry-roots {e}"),
                "give a file with the certificate of whoever vouches for the registry",
            )
        });
        extra_roots.extend(roots?);
    }
    Ok(Registries { insecure: given.insecure.clone(), extra_roots })
}

/// Resolves `image`; a relative path in it is relative to the folder `base` of the service file.
pub async fn image(image: &str, base: &Path, registries: &Registries) -> Result<ResolvedImage, Failure> {
    let source = absolute(Source::parse(image).map_err(no_image)?, base)?;
    let digest = resolve(&source, registries).await.map_err(no_image)?;
    let source = source.to_string();
    // As vault and nodes will read it.
    Ok(ResolvedImage { repository: repository_of(&source).to_owned(), digest, source })
}

/// Nodes are told absolute paths: what is relative here would be relative to something else there.
fn absolute(source: Source, base: &Path) -> Result<Source, Failure> {
    let full = |path: &Path| {
        let path = base.join(path);
        path.canonicalize().map_err(|e| Failure::io("find", &path, &e))
    };
    Ok(match source {
        Source::Layout { path, reference } => Source::Layout { path: full(&path)?, reference },
        Source::Archive { path } => Source::Archive { path: full(&path)? },
        Source::Registry(r) => Source::Registry(r),
    })
}

fn no_image(e: ImageError) -> Failure {
    let code = match &e {
        ImageError::Source { .. } => Code::SpecInvalid,
        ImageError::Missing { .. } => Code::NotFound,
        ImageError::Registry { .. } => Code::Unreachable,
        ImageError::Io { .. } => Code::Disk,
        ImageError::Mismatch { .. } | ImageError::Unusable { .. } => Code::Failed,
    };
    Failure::new(code, e, "check the key `image`: a registry reference, oci-layout:PATH or docker-archive:PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_is_none_and_roots_that_are_none_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("roots.pem");
        std::fs::write(&file, "no certificate\n").unwrap();
        let options = |insecure: &[&str], roots: &[&Path]| RegistryOptions {
            insecure: insecure.iter().map(|s| (*s).to_owned()).collect(),
            roots: roots.iter().map(|p| (*p).to_owned()).collect(),
        };
        for (given, named) in [
            (options(&["r.example", "https://r.example"], &[]), "\"https://r.example\""),
            (options(&[], &[&file]), "roots.pem: holds no certificate"),
            (options(&[], &[Path::new("/nowhere/r.pem")]), "/nowhere/r.pem"),
        ] {
            let failure = registries(&given).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.message.contains(named), "{}", failure.message);
        }
        assert_eq!(registries(&options(&["r.example:5000"], &[])).unwrap().insecure, ["r.example:5000"]);
    }

    #[test]
    fn a_relative_path_is_taken_from_the_service_file_and_made_absolute() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("web")).unwrap();
        let source = absolute(Source::parse("oci-layout:web").unwrap(), dir.path()).unwrap();
        let full = dir.path().canonicalize().unwrap().join("web");
        assert_eq!(source.to_string(), format!("oci-layout:{}", full.display()));
        assert_eq!(absolute(Source::parse("oci-layout:none").unwrap(), dir.path()).unwrap_err().code, "disk");
    }
}
