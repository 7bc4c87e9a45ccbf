//! The chain that a listener shows to whoever asks, and what OpenSSL, GnuTLS and webpki make of it. Their own clients do not
//! offer the key exchange that ours insist on, so the chain is fetched first.

use gullible::Gullible;
use holdfast_transport::tls::Alpn;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

#[path = "../../../../transport/src/tests/gullible.rs"]
mod gullible;

/// The chain that the listener of this protocol shows, leaf first, to whoever shows none.
pub fn shown(port: u16, alpn: Alpn) -> Result<Vec<Vec<u8>>, String> {
    let provider =
        CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let mut connection = ClientConnection::new(Arc::new(config), "holdfast".try_into().unwrap()).unwrap();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp).map_err(|e| e.to_string())?;
    }
    Ok(connection.peer_certificates().unwrap_or_default().iter().map(|c| c.to_vec()).collect())
}

/// Whether OpenSSL, GnuTLS and webpki believe what that listener shows, each by the roots in this file alone.
pub fn others_believe(port: u16, alpn: Alpn, roots: &Path) -> Result<(), String> {
    let chain = shown(port, alpn)?;
    openssl(&chain, roots).map_err(|e| format!("OpenSSL: {e}"))?;
    gnutls(&chain, roots).map_err(|e| format!("GnuTLS: {e}"))?;
    webpki(&chain, roots).map_err(|e| format!("webpki: {e}"))
}

fn said(o: &Output) -> String {
    [&o.stdout, &o.stderr].map(|b| String::from_utf8_lossy(b).into_owned()).concat()
}

fn openssl(chain: &[Vec<u8>], roots: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let pem = |name: &str, certificates: &[Vec<u8>]| {
        let path = dir.path().join(name);
        fs::write(&path, holdfast_pki::export::pem(certificates)).unwrap();
        path
    };
    let (leaf, above) = chain.split_at(1);
    let mut c = Command::new("openssl");
    c.args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]).arg(roots);
    let o = c.arg("-untrusted").arg(pem("above", above)).arg(pem("leaf", leaf)).output().unwrap();
    if o.status.success() { Ok(()) } else { Err(said(&o)) }
}

fn gnutls(chain: &[Vec<u8>], roots: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chain");
    fs::write(&file, holdfast_pki::export::pem(chain)).unwrap();
    let mut c = Command::new("certtool");
    let o = c.args(["--verify", "--load-ca-certificate"]).arg(roots).arg("--infile").arg(file).output().unwrap();
    let good = o.status.success() && said(&o).contains("Verified");
    if good { Ok(()) } else { Err(said(&o)) }
}

fn webpki(chain: &[Vec<u8>], roots: &Path) -> Result<(), String> {
    let mut trusted = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots).unwrap() {
        trusted.add(root.unwrap()).unwrap();
    }
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
    let leaf = ParsedCertificate::try_from(&chain[0]).map_err(|e| e.to_string())?;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, &trusted, &chain[1..], UnixTime::now(), algorithms)
        .map_err(|e| e.to_string())
}
