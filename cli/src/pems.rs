//! Certificates and keys as other programs write them: PEM (RFC 7468) or plain DER.

use crate::errors::{Code, Failure};
use crate::files;
use std::path::Path;
use zeroize::Zeroizing;

/// Longest file; a certificate or a key has some hundred bytes.
const MAX: u64 = 64 << 10;
const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";
/// What to do about a key of another form.
const PKCS8: &str = "write it anew with `openssl pkcs8 -topk8 -nocrypt -in KEY -out KEY.pem`";

/// The one certificate in a file, DER.
pub fn certificate(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = files::read(path, MAX)?;
    let Some(blocks) = blocks(&bytes) else { return Ok(bytes.to_vec()) };
    let mut found = blocks.into_iter().filter(|(tag, _)| tag == CERTIFICATE).map(|(_, der)| der.to_vec());
    match (found.next(), found.next()) {
        (Some(der), None) => Ok(der),
        (Some(_), Some(_)) => Err(wrong(path, "holds more than one certificate", "give the root's certificate alone")),
        (None, _) => Err(wrong(path, "holds no certificate", "give a certificate in PEM or DER")),
    }
}

/// The private key in a file that nobody but its owner can read, PKCS#8 DER.
pub fn private_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bytes = files::read_private(path, MAX)?;
    let Some(blocks) = blocks(&bytes) else { return Ok(bytes) };
    for (tag, der) in blocks {
        match tag.as_str() {
            PRIVATE_KEY => return Ok(der),
            "ENCRYPTED PRIVATE KEY" => return Err(wrong(path, "is encrypted", PKCS8)),
            "EC PRIVATE KEY" | "RSA PRIVATE KEY" => return Err(wrong(path, "is not in PKCS#8", PKCS8)),
            // Curve parameters may stand before a key.
            _ => {}
        }
    }
    Err(wrong(path, "holds no private key", "give a P-256 key in PKCS#8, PEM or DER"))
}

fn wrong(path: &Path, what: &str, help: &str) -> Failure {
    Failure::new(Code::InvalidInput, format!("{} {what}", path.display()), help)
}

/// What the blocks of a PEM file hold, each with its tag; `None` if the file is no PEM.
fn blocks(bytes: &[u8]) -> Option<Vec<(String, Zeroizing<Vec<u8>>)>> {
    if !bytes.windows(11).any(|w| w == b"-----BEGIN ") {
        return None;
    }
    let mut all = Vec::new();
    for block in pem::parse_many(bytes).ok()? {
        let tag = block.tag().to_owned();
        all.push((tag, Zeroizing::new(block.into_contents())));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(dir: &tempfile::TempDir, text: &[u8]) -> std::path::PathBuf {
        let path = dir.path().join("file");
        files::write_private(&path, text).unwrap();
        path
    }
    fn block(tag: &str, contents: &[u8]) -> String {
        pem::encode(&pem::Pem::new(tag, contents))
    }

    #[test]
    fn a_certificate_is_read_from_pem_and_der_and_two_are_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(certificate(&file(&dir, b"\x30der")).unwrap(), b"\x30der");
        let one = block(CERTIFICATE, b"a");
        assert_eq!(certificate(&file(&dir, one.as_bytes())).unwrap(), b"a");
        let two = one + &block(CERTIFICATE, b"b");
        assert!(certificate(&file(&dir, two.as_bytes())).unwrap_err().message.contains("more than one"));
        let other = block("X509 CRL", b"c");
        assert!(certificate(&file(&dir, other.as_bytes())).unwrap_err().message.contains("no certificate"));
    }

    #[test]
    fn a_key_is_taken_in_pkcs8_alone_and_from_a_file_of_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let key = block("EC PARAMETERS", b"p") + &block(PRIVATE_KEY, b"k");
        let path = file(&dir, key.as_bytes());
        assert_eq!(private_key(&path).unwrap().as_slice(), b"k");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(private_key(&path).is_err(), "a key that others can read was taken");
        for (tag, said) in [("EC PRIVATE KEY", "not in PKCS#8"), ("ENCRYPTED PRIVATE KEY", "encrypted")] {
            let failure = private_key(&file(&dir, block(tag, b"k").as_bytes())).unwrap_err();
            assert!(failure.message.contains(said) && failure.help.contains("openssl pkcs8"), "{}", failure.message);
        }
    }
}
