//! A root of the operators' own whose key lies in the token: made and certified there by them, found by its public half.

use super::token::{PIN, Token, fresh, issuers, root_key, start, with_token};
use crate::roots::served::others_believe;
use crate::world::{World, eventually, write_key};
use holdfast_hsm::{Keeper, KeeperOptions, KeyId, KeyPort as _, Pkcs11Port, Purpose, Uri};
use holdfast_pki::issue::{ROOT_LIFE, new_root};
use holdfast_pki::keys::CertSigner;
use holdfast_transport::tls::Alpn;
use holdfast_types::{ClusterId, Millis, SecretBytes, sha256};
use holdfast_wire::keys::SignError;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use suite::programs::program;

/// A key in the token, used by whoever made it there.
struct Theirs {
    port: Pkcs11Port,
    id: KeyId,
}

impl Theirs {
    /// Makes it, under a name that no vault gives.
    fn made(w: &World, token: &Token) -> Self {
        let script = w.path("operators-program");
        let vault = program("holdfast-vault").unwrap();
        let text = format!("#!/bin/sh\nSOFTHSM2_CONF='{}' exec '{}' \"$@\"\n", token.conf().display(), vault.display());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let uri = Uri::parse(&token.uri()).unwrap();
        let pin = SecretBytes::new(PIN.as_bytes().to_vec());
        let options = KeeperOptions { uri, pin, deadline: Duration::from_secs(30) };
        let port = Pkcs11Port::new(Keeper::spawn(&script, options).unwrap());
        let id = port.generate(Purpose::Root, b"the operators' own").unwrap();
        Self { port, id }
    }
}

impl CertSigner for Theirs {
    fn sec1(&self) -> Vec<u8> {
        self.port.public(&self.id).unwrap()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.port.sign_p256(&self.id, msg).unwrap())
    }
}

/// The certificate that `key` signs for itself: its file, and its hash in hex.
fn certified(w: &World, key: &Theirs) -> (String, String) {
    let cluster = ClusterId::parse(w.json(&["status"])["cluster_id"].as_str().unwrap()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(60);
    let now = Millis(i64::try_from(now.as_millis()).unwrap());
    let der = new_root(key, &cluster, [0x5a; 16], now, ROOT_LIFE).unwrap().der;
    let (file, sha256) = (w.text("own.pem"), sha256(&[&der]).hex());
    fs::write(&file, holdfast_pki::export::pem(&[der])).unwrap();
    (file, sha256)
}

/// The serial number of the node's certificate.
fn serial(w: &World) -> String {
    let all = w.json(&["node", "ls"]);
    let node = all["nodes"].as_array().unwrap().iter().find(|n| n["role"] == "node").unwrap();
    node["serial"].as_str().unwrap().to_owned()
}

#[test]
fn a_root_of_the_operators_own_signs_out_of_the_token_outlives_a_restart_and_stays_theirs() {
    let (mut w, token) = with_token("node = \"30s\"\nissuer = \"30s\"", fresh, "");
    let init = w.json(&["init", "--vault-socket", &w.socket(), "--autolock"]);
    write_key(&w.unlock_key, init["unlock_keys"][0].as_str().unwrap());
    w.add_node("eu");
    let (cert, own) = certified(&w, &Theirs::made(&w, &token));
    let done = w.json(&["root", "rotate", "--ca-cert", &cert, "--hsm"]);
    assert_eq!((done["signer"].as_str(), root_key(&w).as_str()), (Some(own.as_str()), "hsm"), "{done}");
    assert_eq!(token.objects(), 2, "another key was made beside theirs");
    others_believe(w.join, Alpn::Join, w.path("own.pem").as_path()).unwrap();
    // A new process finds the key by the certificate alone: the next issuer is signed by it.
    w.kill_vault();
    start(&mut w, &token);
    w.unlock();
    let (before, had) = (issuers(&w), serial(&w));
    eventually("the token to sign another issuer", || (issuers(&w) > before).then_some(()));
    eventually("the node to renew", || (serial(&w) != had).then_some(()));
    others_believe(w.join, Alpn::Join, w.path("own.pem").as_path()).unwrap();
    // Away from it again: what operators made is theirs to destroy.
    let done = w.json(&["root", "rotate", "--software"]);
    assert_eq!((done["trusted"].as_array().unwrap().len(), root_key(&w).as_str()), (1, "software"), "{done}");
    assert_eq!(token.objects(), 2, "their key is gone");
    w.ok(&["log", "verify"]);
}
