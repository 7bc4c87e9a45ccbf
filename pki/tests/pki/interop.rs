//! What others make of our certificates: OpenSSL and GnuTLS verify them, pkilint finds nothing to object to.
//!
//! The tools are part of the test: where one is missing, the test fails and says what to install.

use crate::world::{Ca, DAY, World, id, new_ca_issuer, new_ca_root, serial};
use holdfast_pki::issue::{IssuerCa, ROOT_LIFE, RootCa};
use holdfast_types::Millis;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs a tool and returns what it wrote, both streams; panics if it is not there.
pub fn run(program: &str, args: &[&str], install: &str) -> (bool, String) {
    let out =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("cannot run {program} ({e}): {install}"));
    let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (out.status.success(), text)
}

pub fn write(dir: &Path, name: &str, ders: &[&[u8]]) -> PathBuf {
    let text: String = ders.iter().map(|d| pem::encode(&pem::Pem::new("CERTIFICATE", *d))).collect();
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

pub fn path(p: &Path) -> &str {
    p.to_str().unwrap()
}

struct Served {
    leaf: Vec<u8>,
    above: Vec<Vec<u8>>,
    root: Vec<u8>,
}

/// The tools go by the machine's clock, and certtool cannot be told another.
pub fn wall_clock() -> Millis {
    Millis(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// Every kind of chain that is served: each role below one root, and a rotation's chain as seen from the old root.
fn served() -> Vec<(String, Served)> {
    let now = wall_clock();
    let world = World::starting(now, ROOT_LIFE);
    let mut all: Vec<_> = ["node/n1", "op/ann", "vault/1", "orch/o1", "svc/shop/web"]
        .into_iter()
        .map(|role| {
            let leaf = world.leaf(&id(role)).der;
            let (above, root) = (vec![world.issuer.der.clone()], world.root.der.clone());
            (role.replace('/', "-"), Served { leaf, above, root })
        })
        .collect();
    let (old, new) = (&world.root, new_ca_root(now, ROOT_LIFE));
    let cross = RootCa::open(&old.der, &old.key).unwrap().cross(&new.der, serial(4), now).unwrap();
    let Ca { key, der } = new_ca_issuer(&new, now);
    let subject = crate::world::Key::new().subject();
    let leaf = IssuerCa::open(&der, &key).unwrap().leaf(&subject, &id("vault/1"), serial(5), now, DAY).unwrap().der;
    all.push(("rotation".to_owned(), Served { leaf, above: vec![der, cross.der], root: old.der.clone() }));
    all
}

#[test]
fn openssl_verifies_every_chain_we_serve_in_strict_mode() {
    let dir = tempfile::tempdir().unwrap();
    for (name, s) in served() {
        let root = write(dir.path(), &format!("{name}.root.pem"), &[&s.root]);
        let above: Vec<&[u8]> = s.above.iter().map(Vec::as_slice).collect();
        let above = write(dir.path(), &format!("{name}.above.pem"), &above);
        let leaf = write(dir.path(), &format!("{name}.pem"), &[&s.leaf]);
        let mut args = vec!["verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslclient"];
        args.extend(["-CAfile", path(&root), "-untrusted", path(&above), path(&leaf)]);
        let (good, text) = run("openssl", &args, "apt-get install openssl");
        assert!(good, "{name}: {text}");
        let server = args.iter().map(|a| if *a == "sslclient" { "sslserver" } else { a }).collect::<Vec<_>>();
        let (serves, text) = run("openssl", &server, "apt-get install openssl");
        assert_eq!(serves, !name.starts_with("node") && !name.starts_with("op-"), "{name} as a server: {text}");
    }
}

/// Also the rotation's under the old root: GnuTLS counts self-issued certificates against the path length, which RFC 5280,
/// section 6.1.4 (l), does not, and a root leaves room for one.
#[test]
fn gnutls_verifies_every_chain_we_serve() {
    let dir = tempfile::tempdir().unwrap();
    for (name, s) in served() {
        let root = write(dir.path(), &format!("{name}.root.pem"), &[&s.root]);
        let mut chain = vec![s.leaf.as_slice()];
        chain.extend(s.above.iter().map(Vec::as_slice));
        let chain = write(dir.path(), &format!("{name}.chain.pem"), &chain);
        let args = ["--verify", "--load-ca-certificate", path(&root), "--infile", path(&chain)];
        let (good, text) = run("certtool", &args, "apt-get install gnutls-bin");
        assert!(good && text.contains("Verified"), "{name}: {text}");
    }
}

/// pkilint takes a URI's scheme for one of the web's; `spiffe://` is what X.509-SVID wants.
fn about_spiffe(objection: &str) -> bool {
    objection.contains("pkix.invalid_uri_syntax") && objection.contains("spiffe://")
}

#[test]
fn pkilint_finds_no_error_in_any_certificate_we_make() {
    let dir = tempfile::tempdir().unwrap();
    for (name, s) in served() {
        for (i, der) in [&s.leaf, &s.root].into_iter().chain(&s.above).enumerate() {
            let file = write(dir.path(), &format!("{name}.{i}.pem"), &[der]);
            let args = ["lint", "-s", "ERROR", "-f", "CSV", path(&file)];
            let (_, text) = run("lint_pkix_cert", &args, "pip install pkilint");
            assert!(text.starts_with("node_path,"), "{name}.{i}: pkilint did not report: {text}");
            let objections: Vec<_> =
                text.lines().skip(1).filter(|l| !l.trim().is_empty() && !about_spiffe(l)).collect();
            assert!(objections.is_empty(), "{name}.{i}: {objections:#?}");
        }
    }
}
