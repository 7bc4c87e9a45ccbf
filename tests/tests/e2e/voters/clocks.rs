//! A voter whose clock is off: it goes on following, is named, and does not lead.

use super::world::Voters;
use crate::seen::alarm;
use crate::world::{eventually, within};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn libfaketime() -> PathBuf {
    let dirs = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = dirs.map(|e| e.path().join("faketime/libfaketimeMT.so.1")).filter(|p| p.exists());
    found.next().expect("libfaketime is installed: make setup")
}

/// Sets the clock of a process that was started with this file: it finds the whole of the old one or of the new one.
fn set_clock(file: &Path, by: &str) {
    let new = file.with_extension("new");
    fs::write(&new, by).unwrap();
    fs::rename(&new, file).unwrap();
}

#[test]
fn a_voter_whose_clock_is_a_minute_off_is_named_and_stands_again_once_it_is_right() {
    let mut v = Voters::founded(3);
    v.settle();
    assert_eq!(alarm(&v.w, "clock-off"), None);
    let n = v.follower();
    v.kill(n);
    let mut c = v.all[n].command();
    c.env("LD_PRELOAD", libfaketime()).env("FAKETIME", "+60s").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    v.all[n].spawn(c);
    v.all[n].becomes("sealed");
    v.all[n].unlock(&v.w);
    let text = within(Duration::from_secs(40), "the clock that is off to be named", || alarm(&v.w, "clock-off"));
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
        alarm(&v.w, "clock-off").is_none().then_some(())
    });
    assert_eq!(v.all[n].ask().unwrap().reason, "");
    v.verifies();
}

#[test]
fn a_clock_that_jumps_under_a_running_voter_is_named_and_does_not_take_the_log_along() {
    let mut v = Voters::alone(&[]);
    v.all[0].stop();
    let file = v.w.path("vault.clock");
    set_clock(&file, "+0s");
    let mut c = v.all[0].command();
    c.env("LD_PRELOAD", libfaketime()).env("FAKETIME_TIMESTAMP_FILE", &file).env("FAKETIME_NO_CACHE", "1");
    c.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    v.all[0].spawn(c);
    v.all[0].becomes("ready");
    assert_eq!(alarm(&v.w, "clock"), None);
    for (by, side) in [("+60s", "ahead of"), ("-60s", "behind")] {
        set_clock(&file, by);
        let text = eventually("the clock that jumped to be named", || alarm(&v.w, "clock"));
        assert!(text.contains(side), "{by}: {text}");
        let version = v.put("shop/a", b"value");
        set_clock(&file, "+0s");
        // The log went on at half to double pace: it is no further off than the jump took. Had it jumped too, that would last.
        eventually("a clock that is right again to be named no more", || alarm(&v.w, "clock").is_none().then_some(()));
        assert_eq!(v.version("shop/a"), version);
    }
    v.verifies();
}
