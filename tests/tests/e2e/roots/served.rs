//! The chain that a listener shows to whoever asks, and what OpenSSL makes of it. OpenSSL's own client does not offer the key
//! exchange that ours insist on, so the chain is fetched first.

use gullible::Gullible;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

#[path = "../../../../transport/src/tests/gullible.rs"]
mod gullible;

/// The chain shown on listener J, leaf first.
pub fn chain(port: u16) -> Result<Vec<Vec<u8>>, String> {
    let provider =
        CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"hf-j/1".to_vec()];
    let mut connection = ClientConnection::new(Arc::new(config), "holdfast".try_into().unwrap()).unwrap();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp).map_err(|e| e.to_string())?;
    }
    Ok(connection.peer_certificates().unwrap_or_default().iter().map(|c| c.to_vec()).collect())
}

/// Whether OpenSSL believes what listener J on `port` shows, by these roots alone.
pub fn openssl_believes(port: u16, roots: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let pem = |name: &str, certificates: &[Vec<u8>]| {
        let path = dir.path().join(name);
        fs::write(&path, holdfast_pki::export::pem(certificates)).unwrap();
        path
    };
    let shown = chain(port)?;
    let (leaf, above) = shown.split_at(1);
    let mut c = Command::new("openssl");
    c.args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]).arg(roots);
    let o = c.arg("-untrusted").arg(pem("above", above)).arg(pem("leaf", leaf)).output().unwrap();
    if o.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&o.stderr).into_owned()) }
}
