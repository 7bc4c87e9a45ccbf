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
    let der = match blocks(path, &bytes)? {
        None => Some(bytes.to_vec()),
        Some(blocks) => {
            let mut found = blocks.into_iter().filter(|(tag, _)| tag == CERTIFICATE).map(|(_, der)| der.to_vec());
            let first = found.next();
            if found.next().is_some() {
                return Err(wrong(path, "holds more than one certificate", "give the root's certificate alone"));
            }
            first
        }
    };
    // Nothing is no certificate either: it would pass for one that was not named.
    let none = || wrong(path, "holds no certificate", "give a certificate in PEM or DER");
    der.filter(|der| !der.is_empty()).ok_or_else(none)
}

/// The private key in a file that nobody but its owner can read, PKCS#8 DER.
pub fn private_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bytes = files::read_private(path, MAX)?;
    let Some(blocks) = blocks(path, &bytes)? else { return Ok(bytes) };
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

/// The tag of a block of a PEM file, and what it holds.
type Block = (String, Zeroizing<Vec<u8>>);

/// The blocks of a PEM file; `None` if the file is no PEM.
fn blocks(path: &Path, bytes: &[u8]) -> Result<Option<Vec<Block>>, Failure> {
    if !bytes.windows(11).any(|w| w == b"-----BEGIN ") {
        return Ok(None);
    }
    let damaged = |_| wrong(path, "is damaged PEM", "copy the file again, whole");
    let mut all = Vec::new();
    for block in pem::parse_many(bytes).map_err(damaged)? {
        let tag = block.tag().to_owned();
        all.push((tag, Zeroizing::new(block.into_contents())));
    }
    Ok(Some(all))
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
        let hollow = block(CERTIFICATE, b"");
        for none in [other.as_str(), hollow.as_str(), ""] {
            let failure = certificate(&file(&dir, none.as_bytes())).unwrap_err();
            assert!(failure.message.contains("no certificate"), "{none:?}: {}", failure.message);
        }
        let torn = block(CERTIFICATE, b"a").replace("YQ==", "Y?==");
        assert!(certificate(&file(&dir, torn.as_bytes())).unwrap_err().message.contains("damaged PEM"));
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
