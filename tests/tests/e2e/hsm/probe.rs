//! `hsm probe`: a token is shown for what it can do, and whatever is wrong with it is said.

use super::token::{PIN, Token, module};
use crate::world::World;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use suite::programs::program;

fn probe(conf: &Path, uri: &str, pin: &str, more: &[&str]) -> Output {
    let mut c = Command::new(program("holdfast").unwrap());
    c.args(["hsm", "probe", uri, "--pin-file", "-"]).args(more).env("SOFTHSM2_CONF", conf).env("NO_COLOR", "1");
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), pin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_probe_shows_what_a_token_can_do_and_leaves_no_signing_key_in_it() {
    let w = World::empty();
    let token = Token::new(w.path("hsm"));
    let shown = probe(&token.conf(), &token.uri(), PIN, &["--json"]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let found: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let findings = found["findings"].as_array().unwrap();
    for what in ["login", "generate", "sign", "destroy", "wrap"] {
        assert!(findings.iter().any(|f| f["what"] == what && f["works"] == true), "{what}: {found}");
    }
    assert_eq!(token.objects(), 1, "the wrapping key of the probe's own label stays, and nothing else");
    let table = String::from_utf8(probe(&token.conf(), &token.uri(), PIN, &[]).stdout).unwrap();
    assert!(table.contains("WHAT") && table.contains("wrap"), "{table}");
}

#[test]
fn a_probe_says_what_is_wrong_with_a_pin_a_token_a_module_or_a_uri() {
    let w = World::empty();
    let token = Token::new(w.path("hsm"));
    let (conf, uri) = (token.conf(), token.uri());
    let nowhere = uri.replace(module(), "/does/not/exist.so");
    // A file that is no module, as a path that is off by one ends at.
    let text = format!("pkcs11:token=holdfast?module-path={}", conf.display());
    let other = uri.replace("token=holdfast", "token=other");
    for (uri, pin, exit, part) in [
        (uri.as_str(), "0000", 3, "PIN"),
        (nowhere.as_str(), PIN, 1, "exist.so"),
        (text.as_str(), PIN, 1, "softhsm2.conf"),
        (other.as_str(), PIN, 5, "other"),
        ("https://ca", PIN, 2, "pkcs11"),
        ("pkcs11:token=a?pin-value=1", PIN, 2, "pin-value"),
    ] {
        let o = probe(&conf, uri, pin, &[]);
        let said = String::from_utf8_lossy(&o.stderr).into_owned();
        assert_eq!(o.status.code(), Some(exit), "{uri}: {said}");
        assert!(said.contains(part) && !said.contains(PIN), "{uri}: {said}");
    }
}
