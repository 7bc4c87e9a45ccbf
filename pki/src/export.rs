//! The trusted roots as other programs read them: PEM, and a SPIFFE bundle document.
//!
//! Roots are public: nothing here is secret, and nothing here proves that a root is to be trusted. A root that is not a
//! P-256 certificate is in no Bundle (see [`crate::bundle`]), and left out of the document.

use crate::bundle::sec1_of_cert;
use data_encoding::{BASE64, BASE64URL_NOPAD};

/// Bytes in a line of PEM: 64 characters (RFC 7468, section 2).
const LINE: usize = 48;
/// Bytes of a coordinate of the curve.
const COORDINATE: usize = 32;

/// The certificates in PEM, one after the other (RFC 7468, section 5).
pub fn pem(roots: &[Vec<u8>]) -> String {
    let block = |der: &Vec<u8>| {
        let lines: String = der.chunks(LINE).map(|line| BASE64.encode(line) + "\n").collect();
        format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
    };
    roots.iter().map(block).collect()
}

/// A SPIFFE bundle document (SPIFFE Trust Domain and Bundle, section 4): one key for each root, for X.509-SVIDs.
///
/// `sequence` grows with every change, which a Bundle's epoch does within an era; `refresh_hint_secs` says how often to look.
pub fn spiffe_bundle(roots: &[Vec<u8>], sequence: u64, refresh_hint_secs: u64) -> String {
    let keys: Vec<String> = roots.iter().filter_map(|der| key(der)).collect();
    let keys = keys.join(",");
    format!("{{\"keys\":[{keys}],\"spiffe_sequence\":{sequence},\"spiffe_refresh_hint\":{refresh_hint_secs}}}")
}

/// The key of a root and its certificate as a JWK (RFC 7517, section 4; RFC 7518, section 6.2). No character of it needs
/// to be escaped in JSON.
fn key(der: &[u8]) -> Option<String> {
    let point = sec1_of_cert(der)?;
    let (x, y) = point.get(1..)?.split_at_checked(COORDINATE)?;
    let (x, y, cert) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y), BASE64.encode(der));
    Some(format!(
        "{{\"use\":\"x509-svid\",\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"{x}\",\"y\":\"{y}\",\"x5c\":[\"{cert}\"]}}"
    ))
}
