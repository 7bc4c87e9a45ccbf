//! Images in a registry (OCI distribution specification), over HTTPS, or over HTTP where that was said aloud.

use crate::blobs::{Expected, Incoming};
use crate::{DOCUMENT_MAX, ImageError};
use futures::StreamExt as _;
use holdfast_types::Digest;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use std::net::IpAddr;
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

/// How registries are reached.
#[derive(Clone, Default)]
pub struct Registries {
    /// Registries (`host` or `host:port`) to be reached without TLS. Loopback addresses always are.
    pub insecure: Vec<String>,
    /// Further roots of trust, PEM; the system's own always count.
    pub extra_roots: Vec<Vec<u8>>,
    /// User name and password by registry (`host` or `host:port`).
    pub credentials: Vec<(String, (String, String))>,
}
impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registries").field("insecure", &self.insecure).finish_non_exhaustive()
    }
}

/// One image's place in a registry.
pub(crate) struct Remote {
    client: Client,
    auth: RegistryAuth,
    reference: Reference,
}

impl Remote {
    pub(crate) fn new(reference: &Reference, registries: &Registries) -> Self {
        // The client is built without a cryptography of its own: it takes the process's, which is aws-lc-rs.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Somebody else may have been faster.
            rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        }
        let name = reference.resolve_registry();
        let is_open = is_loopback(name) || registries.insecure.iter().any(|r| r == name);
        let root = |pem: &Vec<u8>| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() };
        let client = Client::new(ClientConfig {
            protocol: if is_open { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: registries.extra_roots.iter().map(root).collect(),
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("holdfast/", env!("CARGO_PKG_VERSION")),
            ..Default::default()
        });
        let known = registries.credentials.iter().find(|(r, _)| r == name);
        let auth = known.map_or(RegistryAuth::Anonymous, |(_, (u, p))| RegistryAuth::Basic(u.clone(), p.clone()));
        Self { client, auth, reference: reference.clone() }
    }

    fn failed(&self, e: &dyn std::fmt::Display) -> ImageError {
        let reason = e.to_string().chars().take(400).collect();
        ImageError::Registry { registry: self.reference.resolve_registry().to_owned(), reason }
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
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, &ACCEPT).await;
        let (bytes, _) = pulled.map_err(|e| self.failed(&e))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > DOCUMENT_MAX {
            return Err(self.failed(&"its manifest is larger than 4 MiB"));
        }
        Ok(bytes.to_vec())
    }

    /// Streams a blob to disk; `out` checks every byte.
    pub(crate) async fn copy(&self, blob: Expected, out: &mut Incoming) -> Result<(), ImageError> {
        self.client.store_auth_if_needed(self.reference.resolve_registry(), &self.auth).await;
        let descriptor = OciDescriptor { digest: blob.digest.oci(), ..Default::default() };
        let opened = self.client.pull_blob_stream(&self.reference, &descriptor).await;
        let mut stream = opened.map_err(|e| self.failed(&e))?.stream;
        while let Some(chunk) = stream.next().await {
            out.take(&chunk.map_err(|e| self.failed(&e))?)?;
        }
        Ok(())
    }
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
}
