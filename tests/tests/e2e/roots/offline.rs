//! A root whose key is nowhere near the cluster: what it signs is carried to it and back.

use super::given::{CA, made_by_openssl, name_of_roots};
use super::{roots, stable, trusted};
use crate::seen::connected;
use crate::world::World;
use std::fs;

#[test]
fn a_root_whose_key_is_offline_signs_what_is_carried_to_it_and_nothing_else() {
    let w = World::everything();
    let (cert, key) = made_by_openssl(w.dir.path(), "offline", &name_of_roots(&w), CA);
    let asked = w.json(&["root", "rotate", "--ca-cert", &cert, "--offline"]);
    assert_eq!((asked["to_sign"].as_bool(), trusted(&asked)), (Some(true), 2), "{asked}");
    let (request, signed) = (w.text("request.json"), w.text("signed.json"));
    w.ok(&["root", "csr", "--out", &request]);
    w.ok(&["root", "sign", &request, "--ca-cert", &cert, "--ca-key", &key, "--out", &signed]);

    // What another root signed is not taken, and changes nothing.
    let (other, other_key) = made_by_openssl(w.dir.path(), "other", &name_of_roots(&w), CA);
    w.refused(&["root", "sign", &request, "--ca-cert", &other, "--ca-key", &other_key], 2);
    w.refused(&["root", "sign", &request, "--ca-cert", &cert, "--ca-key", &other_key], 2);
    let altered = w.text("altered.json");
    let text = fs::read_to_string(&signed).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    // The root's own certificate in the place of the issuer's.
    let pem = fs::read_to_string(&cert).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    fs::write(&altered, text.replace(answer["issuer"].as_str().unwrap(), &body)).unwrap();
    w.refused(&["root", "install", &altered], 2);
    assert_eq!(roots(&w)["to_sign"], true);

    w.ok(&["root", "install", &signed]);
    let done = stable(&w);
    assert_eq!((done["trusted"][0]["key"].as_str(), trusted(&done)), (Some("offline"), 1), "{done}");
    connected(&w);
    // Nothing is left to be signed, and the same is not taken twice.
    assert!(w.refused(&["root", "csr"], 4).contains("no offline root"));

    // Nobody is to go for its key: Admins sign for another root in its place.
    w.ok(&["root", "rotate", "--software", "--without-old-root"]);
    let done = stable(&w);
    assert_eq!((done["trusted"][0]["key"].as_str(), trusted(&done)), (Some("software"), 1), "{done}");
    connected(&w);
    assert!(w.refused(&["root", "approve", "00"], 4).contains("no root waits"));
}
