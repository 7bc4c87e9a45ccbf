//! A voter whose clock is off: it goes on following, is named, and does not lead.

use super::world::Voters;
use crate::world::within;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

fn libfaketime() -> PathBuf {
    let dirs = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = dirs.map(|e| e.path().join("faketime/libfaketimeMT.so.1")).filter(|p| p.exists());
    found.next().expect("libfaketime is installed: make setup")
}

/// The alarm about clocks, if there is one.
fn alarm(v: &Voters) -> Option<String> {
    let status = v.w.json(&["status"]);
    let all = status["alarms"].as_array().unwrap();
    let of = |a: &&Value| a["code"] == "clock-off";
    all.iter().find(of).map(|a| a["text"].as_str().unwrap().to_owned())
}

#[test]
fn a_voter_whose_clock_is_a_minute_off_is_named_and_stands_again_once_it_is_right() {
    let mut v = Voters::founded(3);
    v.settle();
    assert_eq!(alarm(&v), None);
    let n = v.follower();
    v.kill(n);
    let mut c = v.all[n].command();
    c.env("LD_PRELOAD", libfaketime()).env("FAKETIME", "+60s").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    v.all[n].spawn(c);
    v.all[n].becomes("sealed");
    v.all[n].unlock(&v.w);
    let text = within(Duration::from_secs(40), "the clock that is off to be named", || alarm(&v));
    assert!(text.contains(&format!("{} by ", v.all[n].id)), "{text}");
    within(Duration::from_secs(20), "the voter to say so itself", || {
        v.all[n].ask()?.reason.contains("does not lead").then_some(())
    });
    // It follows and takes entries all the same.
    v.put("shop/a", b"value");
    v.settle();
    v.kill(n);
    v.come_back(n);
    within(Duration::from_secs(60), "the clock that is right to be named no more", || {
        alarm(&v).is_none().then_some(())
    });
    assert_eq!(v.all[n].ask().unwrap().reason, "");
    v.verifies();
}
