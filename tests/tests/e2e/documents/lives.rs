//! The documents that another life than the usual one prints: of several voters, of a token that fails, of `dev`.

use super::Documents;
use crate::hsm::token::{behind_the_shim, found, with_token};
use crate::roots::{phase, roots, stable};
use crate::voters::world::Voters;
use crate::world::{World, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;

/// All of them, one life after the other.
pub fn documents() -> Documents {
    [of_voters(), of_a_token_that_fails(), vec![of_dev()]].concat()
}

/// One voter that becomes two, and is alone again.
fn of_voters() -> Documents {
    let mut v = Voters::founded(1);
    let mut all = Documents::new();
    let (mut second, id, key) = v.apply();
    all.push(("voter ls`", v.w.json(&["voter", "ls"])));
    all.push(("voter admit`", v.w.json(&["voter", "admit", &id, "--key", &key])));
    second.becomes("ready");
    second.id = second.ask().unwrap().voter_id;
    v.all.push(second);
    v.settle();
    v.put("shop/a", b"value");

    let sockets = v.sockets();
    let sockets: Vec<&str> = sockets.iter().map(String::as_str).collect();
    all.push(("seal` (of several voters)", v.w.json(&[&["seal"][..], &sockets[..]].concat())));
    for voter in &mut v.all {
        eventually("the sealed process to end", || voter.ended().then_some(()));
        voter.start(&[]);
        voter.becomes("sealed");
    }
    let unlock = ["unlock", "--key-file", v.w.unlock_key.to_str().unwrap()];
    all.push(("unlock` (of several voters)", v.w.json(&[&unlock[..], &sockets[..]].concat())));
    v.settle();

    let number = v.all[v.follower()].id.to_string();
    all.push(("voter evict`", v.w.json(&["voter", "evict", &number, "--yes"])));
    // That others had it is found out later.
    let row = "voter evict` (with `--compromised`)";
    all.push((row, v.w.json(&["voter", "evict", &number, "--compromised"])));
    all
}

/// A root whose key its token does not destroy, and two that Admins sign for on another machine than the one that ordered them.
fn of_a_token_that_fails() -> Documents {
    let (w, token) = with_token("", behind_the_shim, "");
    let mut all = Documents::new();
    found(&w, &token);
    token.fault("C_DestroyObject error 0x30");
    w.ok(&["root", "rotate", "--software", "--detach"]);
    phase(&w, "retiring");
    all.push(("root abort` (with `--key-is-gone`)", w.json(&["root", "abort", "--key-is-gone"])));
    stable(&w);
    for (row, more) in [("root approve`", None), ("root approve` (with `--detach`)", Some("--detach"))] {
        token.fault("C_GenerateKeyPair error 0x31");
        let order = w.beside(&["root", "rotate", "--hsm", "--without-old-root"], "order.out");
        eventually("the order", || (roots(&w)["target"] == "hsm").then_some(()));
        // Whoever ordered it leaves before there is anything to be signed.
        drop(order);
        token.fault("");
        let root = eventually("a root to be signed for", || roots(&w)["to_approve"].as_str().map(str::to_owned));
        let approve: Vec<&str> = ["root", "approve", root.as_str()].into_iter().chain(more).collect();
        all.push((row, w.json(&approve)));
        stable(&w);
    }
    all
}

fn of_dev() -> (&'static str, Value) {
    let w = World::empty();
    let dev = ["dev", "--workers", "0", "--dir", &w.text("dev"), "--json", "--quiet"];
    let mut dev = w.beside(&dev, "dev.out");
    let document = eventually("the cluster to be up", || {
        assert!(dev.exited().is_none(), "{}", dev.log_text());
        serde_json::from_slice(&fs::read(&dev.log).unwrap()).ok()
    });
    dev.signal(Signal::TERM);
    eventually("the cluster to end", || dev.exited());
    ("dev`", document)
}
