//! The roots as other programs read them.

use crate::interop::{path, run};
use crate::world::{NOW, new_ca_root};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use holdfast_pki::export::{pem, spiffe_bundle};
use holdfast_pki::issue::ROOT_LIFE;
use holdfast_pki::keys::CertSigner;
use std::fs;

#[test]
fn exported_roots_are_read_back_as_they_are() {
    let roots = [0; 2].map(|_| new_ca_root(NOW, ROOT_LIFE).der);
    let text = pem(&roots);
    let read: Vec<Vec<u8>> = ::pem::parse_many(&text).unwrap().into_iter().map(|p| p.into_contents()).collect();
    assert_eq!(read, roots);
    assert!(text.lines().all(|l| l.len() <= 64), "{text}");
    let dir = tempfile::tempdir().unwrap();
    for (i, root) in roots.iter().enumerate() {
        let (one, der) = (dir.path().join(format!("{i}.pem")), dir.path().join(format!("{i}.der")));
        fs::write(&one, pem(std::slice::from_ref(root))).unwrap();
        let args = ["x509", "-in", path(&one), "-outform", "DER", "-out", path(&der)];
        let (good, said) = run("openssl", &args, "apt-get install openssl");
        assert!(good, "{said}");
        assert_eq!(fs::read(&der).unwrap(), *root);
    }
    assert_eq!(pem(&[]), "");
}

#[test]
fn a_spiffe_bundle_holds_each_root_as_a_key_for_certificates() {
    let [a, b] = [0; 2].map(|_| new_ca_root(NOW, ROOT_LIFE));
    let key = |der: &[u8], point: &[u8]| {
        format!(
            r#"{{"use":"x509-svid","kty":"EC","crv":"P-256","x":"{}","y":"{}","x5c":["{}"]}}"#,
            BASE64URL_NOPAD.encode(&point[1..33]),
            BASE64URL_NOPAD.encode(&point[33..]),
            BASE64.encode(der)
        )
    };
    let keys = [key(&a.der, &a.key.sec1()), key(&b.der, &b.key.sec1())].join(",");
    let expected = format!(r#"{{"keys":[{keys}],"spiffe_sequence":7,"spiffe_refresh_hint":300}}"#);
    assert_eq!(spiffe_bundle(&[a.der.clone(), b.der], 7, 300), expected);
    let alone = spiffe_bundle(&[a.der], 7, 300);
    assert!(!alone.contains(&BASE64URL_NOPAD.encode(&b.key.sec1()[1..33])), "{alone}");
    assert_eq!(spiffe_bundle(&[b"junk".to_vec()], 1, 2), r#"{"keys":[],"spiffe_sequence":1,"spiffe_refresh_hint":2}"#);
}
