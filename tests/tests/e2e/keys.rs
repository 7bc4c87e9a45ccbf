//! The operator's keys for the vault: whole and in shares, rotated, told apart.

use super::world::{World, eventually, write_key};
use holdfast_wire::share::KeyShare;
use serde_json::{Value, json};

/// Seals the voter and starts it again, as after a reboot.
fn reseal(w: &mut World) {
    w.ok(&["seal", "--vault-socket", &w.socket()]);
    let vault = w.vault.as_mut().unwrap();
    eventually("the sealed process to end", || vault.exited());
    w.start_vault();
}

fn shares_of(document: &Value) -> Vec<String> {
    document["unlock_keys"].as_array().unwrap().iter().map(|k| k.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_cluster_founded_with_shares_opens_by_any_two_and_a_wrong_share_is_named() {
    let mut w = World::empty();
    let socket = w.socket();
    let split = ["--autolock", "--unlock-shares", "3", "--unlock-threshold", "2"];
    let shares = shares_of(&w.json(&[&["init", "--vault-socket", &socket][..], &split].concat()));
    assert_eq!(shares.len(), 3);
    reseal(&mut w);
    let given = |texts: &[&String]| {
        let files: Vec<String> = (0..texts.len()).map(|i| w.text(&format!("share{i}"))).collect();
        let mut line = vec!["unlock".to_owned(), "--vault-socket".to_owned(), socket.clone()];
        for (file, text) in files.iter().zip(texts) {
            write_key(file.as_ref(), text);
            line.extend(["--share-file".to_owned(), file.clone()]);
        }
        line
    };
    let refused = |texts: &[&String]| {
        let line = given(texts);
        w.refused(&line.iter().map(String::as_str).collect::<Vec<_>>(), 3)
    };
    assert!(refused(&[&shares[0]]).contains("1 of 2 needed shares"));
    let honest = KeyShare::parse(&shares[1]).unwrap();
    let wrong = KeyShare { id: 3, ..honest };
    let (printed, digest) = (wrong.print().to_string(), wrong.digest().hex());
    let said = refused(&[&shares[0], &printed]);
    assert!(said.contains(&digest), "{said}");
    assert_eq!(w.json(&["status", "--vault-socket", &socket])["state"], "sealed");
    let line = given(&[&shares[2], &shares[0]]);
    w.ok(&line.iter().map(String::as_str).collect::<Vec<_>>());
    let status = w.json(&["status"]);
    assert_eq!((&status["state"], &status["unlock"]["threshold"]), (&json!("ready"), &json!(2)));
    // The cluster knows from its founding on which shares there are, and none of them.
    let digests: Vec<String> = shares.iter().map(|s| KeyShare::parse(s).unwrap().digest().hex()).collect();
    assert_eq!(status["unlock"]["share_digests"], json!(digests));
}

#[test]
fn an_unlock_key_is_rotated_by_the_present_one_alone_and_the_new_one_opens() {
    let mut w = World::founded();
    let (old, new) = (w.unlock_key.to_str().unwrap().to_owned(), w.text("new.key"));
    let rotate = ["unlock-key", "rotate", "--key-out", &new];
    write_key(&w.path("other.key"), &World::founded_key());
    let said = w.refused(&[&rotate[..], &["--key-file", &w.text("other.key")]].concat(), 3);
    assert!(said.contains("not the one that is needed"), "{said}");
    assert_eq!(w.json(&["unlock-key", "status"])["pending"], 0);
    let done = w.json(&[&rotate[..], &["--key-file", &old]].concat());
    assert_eq!((&done["old_key_disposable"], &done["missing"]), (&Value::Bool(true), &Value::Array(vec![])));
    reseal(&mut w);
    w.ok(&["unlock", "--key-file", &new]);
    assert_eq!(w.json(&["unlock-key", "status"])["epoch"], 2);
}
