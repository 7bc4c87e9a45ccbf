//! A root that operators made themselves, with OpenSSL: taken if it would work, refused with the reason if it would not.

use super::served::others_believe;
use super::{signer, trusted};
use crate::seen::connected;
use crate::world::World;
use holdfast_transport::tls::Alpn;
use holdfast_types::sha256;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// How OpenSSL makes a CA: `what` goes into its extensions.
pub fn made_by_openssl(dir: &Path, name: &str, subject: &str, what: &str) -> (String, String) {
    let at = |ending: &str| dir.join(format!("{name}.{ending}")).to_str().unwrap().to_owned();
    let (config, key, cert) = (at("cnf"), at("key"), at("pem"));
    let text = format!(
        "[req]\ndistinguished_name = dn\nx509_extensions = ext\nprompt = no\n[dn]\n{subject}\n[ext]\n\
         subjectKeyIdentifier = hash\n{what}\n"
    );
    fs::write(&config, text).unwrap();
    let mut c = Command::new("openssl");
    c.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]);
    let o = c.args(["-config", &config, "-keyout", &key, "-out", &cert]).output().unwrap();
    assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    (cert, key)
}

/// The name that every root of this cluster has.
pub fn name_of_roots(w: &World) -> String {
    let id = w.json(&["status"])["cluster_id"].as_str().unwrap().to_owned();
    format!("CN = Holdfast root\nserialNumber = {id}")
}

/// What a root says of its use.
pub const CA: &str = "basicConstraints = critical, CA:TRUE, pathlen:2\nkeyUsage = critical, keyCertSign, cRLSign";

#[test]
fn operators_bring_a_root_of_their_own_and_what_would_not_work_is_refused_with_the_reason() {
    let w = World::everything();
    let (dir, name) = (w.dir.path(), name_of_roots(&w));
    let rotate = |cert: &str, key: &str| w.refused(&["root", "rotate", "--ca-cert", cert, "--ca-key", key], 2);
    let (cert, key) = made_by_openssl(dir, "foreign", "CN = My own CA", CA);
    assert!(rotate(&cert, &key).contains("subject must be"));
    let (cert, key) = made_by_openssl(dir, "leaf", &name, "basicConstraints = critical, CA:FALSE");
    assert!(rotate(&cert, &key).contains("not a CA certificate"));
    for room in ["pathlen:0", "pathlen:1"] {
        let (cert, key) = made_by_openssl(dir, "short", &name, &CA.replace("pathlen:2", room));
        assert!(rotate(&cert, &key).contains("make it with pathlen:2"), "{room}");
    }
    let (cert, _) = made_by_openssl(dir, "own", &name, CA);
    let told = rotate(&cert, &key);
    assert!(told.contains("not the certificate's"), "another key was taken: {told}");
    // No voter here has a token.
    assert!(w.refused(&["root", "rotate", "--hsm"], 2).contains("no voter has a token"));
    assert!(w.refused(&["root", "rotate", "--ca-cert", &cert, "--hsm"], 2).contains("no voter has a token"));
    assert_eq!(trusted(&super::roots(&w)), 1, "something that was refused changed something");

    let before = w.text("before.pem");
    w.ok(&["root", "export", "--out", &before]);
    let done = w.json(&["root", "rotate", "--ca-cert", &cert, "--ca-key", &w.text("own.key")]);
    let der = Command::new("openssl").args(["x509", "-in", &cert, "-outform", "DER"]).output().unwrap().stdout;
    assert_eq!((done["signer"].as_str(), trusted(&done)), (Some(sha256(&[&der]).hex().as_str()), 1), "{done}");
    connected(&w);
    let doors = [(w.join, Alpn::Join), (w.service, Alpn::Service), (w.session, Alpn::Orchestrator)];
    let believed = |roots: &str| {
        for (port, alpn) in doors {
            others_believe(port, alpn, roots.as_ref()).unwrap_or_else(|e| panic!("{alpn:?} by {roots}: {e}"));
        }
    };
    // By the root from before, and by the file that the operators hold.
    believed(&before);
    believed(&cert);
    // And away from it again.
    let done = w.json(&["root", "rotate", "--software"]);
    assert_eq!((trusted(&done), signer(&w) == sha256(&[&der]).hex()), (1, false), "{done}");
    believed(&cert);
}
