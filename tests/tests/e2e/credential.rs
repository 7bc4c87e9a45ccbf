//! A vault that opens itself by a credential of its service manager: from the first opening by hand on, and by no other.

use super::voters::world::Voters;
use super::world::eventually;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What is no credential, and another one.
const SHORT: &[u8] = &[0x5a; 31];
const OTHER: &[u8] = &[0x5b; 32];

/// A new process of the voter, which is given the credentials in `dir`, or none.
fn start(v: &mut Voters, dir: Option<&Path>) {
    let voter = &mut v.all[0];
    voter.stop();
    let mut c = voter.command();
    c.env_remove("CREDENTIALS_DIRECTORY");
    if let Some(dir) = dir {
        c.env("CREDENTIALS_DIRECTORY", dir);
    }
    voter.spawn(c);
}

/// The slots that a sealed voter names.
fn slots(v: &Voters) -> Vec<Value> {
    let shown = v.w.json(&["status", "--vault-socket", &v.all[0].socket()]);
    shown["voters"][0]["slots"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_vault_opens_itself_by_its_credential_and_stays_sealed_without_it_or_with_another() {
    let mut v = Voters::founded(1);
    v.put("shop/a", b"value");
    let given = v.w.path("credentials");
    fs::create_dir(&given).unwrap();
    let credential = given.join("dk-slot");
    fs::write(&credential, [0x5a; 32]).unwrap();
    // The first opening by hand adds the slot for it.
    start(&mut v, Some(&given));
    v.all[0].becomes("sealed");
    assert!(!slots(&v).contains(&Value::from("credential")));
    let file = v.all[0].state_dir().join("voter/slots");
    let before = fs::read(&file).unwrap();
    v.all[0].unlock(&v.w);
    eventually("the slot of the credential", || (fs::read(&file).unwrap() != before).then_some(()));
    start(&mut v, Some(&given));
    v.all[0].becomes("ready");
    assert_eq!(v.put("shop/a", b"value"), 2);
    // Missing, cut short, another one: each is named, and none of them opens it.
    let good = fs::read(&credential).unwrap();
    for (bytes, why) in [(None, "is not among"), (Some(SHORT), "32 bytes"), (Some(OTHER), "not the one")] {
        match bytes {
            None => fs::remove_file(&credential).unwrap(),
            Some(bytes) => fs::write(&credential, bytes).unwrap(),
        }
        let heard = v.all[0].log_text().len();
        start(&mut v, Some(&given));
        v.all[0].becomes("sealed");
        eventually(&format!("it to say that the credential {why}"), || {
            let told = v.all[0].log_text().split_off(heard);
            (told.contains("stays sealed") && told.contains("dk-slot") && told.contains(why)).then_some(())
        });
        assert!(slots(&v).contains(&Value::from("credential")), "{why}: the slot is gone");
        // Nothing of it was opened: the good one opens it again at the next start.
        fs::write(&credential, &good).unwrap();
        start(&mut v, Some(&given));
        v.all[0].becomes("ready");
    }
    // The key opens it as ever; opened by hand without any credential, it has no slot for one any more.
    start(&mut v, None);
    v.all[0].becomes("sealed");
    let before = fs::read(&file).unwrap();
    v.all[0].unlock(&v.w);
    eventually("the slot to go", || (fs::read(&file).unwrap() != before).then_some(()));
    start(&mut v, Some(&given));
    v.all[0].becomes("sealed");
    assert!(!slots(&v).contains(&Value::from("credential")));
    v.all[0].unlock(&v.w);
    assert_eq!(v.put("shop/a", b"value"), 3);
}
