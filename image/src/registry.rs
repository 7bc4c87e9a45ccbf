//! Images in a registry (OCI distribution specification), over HTTPS, or over HTTP where that was said aloud.

use crate::blobs::{Expected, Incoming};
use crate::{DOCUMENT_MAX, ImageError};
use futures::StreamExt as _;
use holdfast_types::Digest;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::error::Error;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No answer for so long means that there will be none.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
/// What we can read. Kept to what `manifest` parses.
const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Longest file of roots that is read: the field's bundles of all public ones have a quarter of a MiB.
const ROOTS_MAX: u64 = 4 << 20;

/// How registries are reached: by nobody's name, with TLS that the system's roots vouch for.
#[derive(Clone, Default)]
pub struct Registries {
    /// Registries (`host` or `host:port`) to be reached without TLS. Loopback addresses always are.
    pub insecure: Vec<String>,
    /// Further roots of trust, DER, as [`read_roots`] gives them; the system's own always count.
    pub extra_roots: Vec<Vec<u8>>,
}
impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registries").field("insecure", &self.insecure).finish_non_exhaustive()
    }
}

/// True if `name` can be a registry's: `host` or `host:port`.
pub fn is_registry(name: &str) -> bool {
    !name.is_empty() && !name.contains('/')
}

/// A file that gives no roots of trust.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct RootsError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// The certificates in the PEM file `path`, DER: at least one, and each of them one that can be trusted.
pub fn read_roots(path: &Path) -> Result<Vec<Vec<u8>>, RootsError> {
    let no = |why: String| RootsError { path: path.to_owned(), why };
    let io = |e: std::io::Error| no(e.to_string());
    // A pipe or a device might never end.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(no("not a file".to_owned()));
    }
    let mut pem = Vec::new();
    File::open(path).and_then(|f| f.take(ROOTS_MAX + 1).read_to_end(&mut pem)).map_err(io)?;
    if u64::try_from(pem.len()).unwrap_or(u64::MAX) > ROOTS_MAX {
        return Err(no("longer than 4 MiB".to_owned()));
    }
    let mut roots = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let der = certificate.map_err(|_| no("not PEM".to_owned()))?;
        roots.push(der.to_vec());
        let usable = RootCertStore::empty().add(der);
        usable.map_err(|e| no(format!("its certificate {} cannot be used: {e}", roots.len())))?;
    }
    if roots.is_empty() { Err(no("holds no certificate in PEM".to_owned())) } else { Ok(roots) }
}

/// One image's place in a registry.
pub(crate) struct Remote {
    client: Client,
    reference: Reference,
}

/// Why no client could be made: on a usual machine because nothing has installed the system's roots.
fn no_client(e: &dyn Error) -> String {
    format!("{}; install the package ca-certificates", told(e))
}

impl Remote {
    pub(crate) fn new(reference: &Reference, registries: &Registries) -> Result<Self, ImageError> {
        // The client is built without a cryptography of its own: it takes the process's, which is aws-lc-rs.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Somebody else may have been faster.
            rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        }
        let name = reference.resolve_registry();
        let is_open = is_loopback(name) || registries.insecure.iter().any(|r| r == name);
        // The library makes a client without further roots beside each of ours, and panics where it cannot.
        Client::try_from(ClientConfig::default()).map_err(|e| failed(reference, &no_client(&e)))?;
        let root = |der: &Vec<u8>| Certificate { encoding: CertificateEncoding::Der, data: der.clone() };
        let client = Client::try_from(ClientConfig {
            protocol: if is_open { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: registries.extra_roots.iter().map(root).collect(),
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("holdfast/", env!("CARGO_PKG_VERSION")),
            ..Default::default()
        });
        let client = client.map_err(|e| failed(reference, &no_client(&e)))?;
        Ok(Self { client, reference: reference.clone() })
    }

    fn failed(&self, reason: &str) -> ImageError {
        failed(&self.reference, reason)
    }

    /// The digest of what the reference points at now.
    pub(crate) async fn resolve(&self) -> Result<Digest, ImageError> {
        Ok(holdfast_types::sha256(&[&self.pull(&self.reference).await?]))
    }

    /// The document with that digest; checked by whoever asked.
    pub(crate) async fn manifest(&self, digest: Digest) -> Result<Vec<u8>, ImageError> {
        self.pull(&self.reference.clone_with_digest(digest.oci())).await
    }

    async fn pull(&self, reference: &Reference) -> Result<Vec<u8>, ImageError> {
        let pulled = self.client.pull_manifest_raw(reference, &RegistryAuth::Anonymous, &ACCEPT).await;
        let (bytes, _) = pulled.map_err(|e| self.failed(&told(&e)))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > DOCUMENT_MAX {
            return Err(self.failed("its manifest is larger than 4 MiB"));
        }
        Ok(bytes.to_vec())
    }

    /// Streams a blob to disk; `out` checks every byte.
    pub(crate) async fn copy(&self, blob: Expected, out: &mut Incoming) -> Result<(), ImageError> {
        self.client.store_auth_if_needed(self.reference.resolve_registry(), &RegistryAuth::Anonymous).await;
        let descriptor = OciDescriptor { digest: blob.digest.oci(), ..Default::default() };
        let opened = self.client.pull_blob_stream(&self.reference, &descriptor).await;
        let mut stream = opened.map_err(|e| self.failed(&told(&e)))?.stream;
        while let Some(chunk) = stream.next().await {
            out.take(&chunk.map_err(|e| self.failed(&told(&e)))?)?;
        }
        Ok(())
    }
}

fn failed(reference: &Reference, reason: &str) -> ImageError {
    let reason = reason.chars().take(400).collect();
    ImageError::Registry { registry: reference.resolve_registry().to_owned(), reason }
}

/// An error with what lies below it: of itself, a client says only that a request failed.
fn told(e: &dyn Error) -> String {
    let (mut said, mut below) = (e.to_string(), e.source());
    while let Some(cause) = below {
        said = format!("{said}: {cause}");
        below = cause.source();
    }
    said
}

fn is_loopback(registry: &str) -> bool {
    let host = registry.strip_prefix('[').and_then(|r| r.split_once(']')).map(|(host, _)| host);
    let host = host.unwrap_or_else(|| registry.split_once(':').map_or(registry, |(host, _)| host));
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_goes_without_tls_unasked() {
        for name in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.0.1", "[::1]:5000"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["registry.local:5000", "localhost.example:5000", "10.0.0.1:5000", "[fe80::1]:5000", ""] {
            assert!(!is_loopback(name), "{name}");
        }
    }
    #[test]
    fn a_registry_is_named_by_host_and_port_alone() {
        for name in ["r.example", "r.example:5000", "[::1]:5000"] {
            assert!(is_registry(name), "{name}");
        }
        for name in ["", "https://r.example", "r.example/shop"] {
            assert!(!is_registry(name), "{name}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_gives_no_roots_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, why) in [
            ("", "holds no certificate"),
            ("certificates\n", "holds no certificate"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "not PEM"),
            (no_certificate, "certificate 1 cannot be used"),
        ] {
            std::fs::write(&path, text).unwrap();
            let said = read_roots(&path).unwrap_err().to_string();
            assert!(said.contains("roots.pem: ") && said.contains(why), "{text:?}: {said}");
        }
        assert_eq!(read_roots(Path::new("/dev/zero")).unwrap_err().why, "not a file");
        assert!(read_roots(&dir.path().join("none")).unwrap_err().to_string().contains("none: "));
    }
}
