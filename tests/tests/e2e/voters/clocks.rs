//! A voter whose clock is off: it goes on following, is named, and does not lead.

use super::world::Voters;
use crate::clocked::{clock_of, clock_off, set_clock};
use crate::seen::alarm;
use crate::world::{eventually, within};
use std::time::Duration;

#[test]
fn a_voter_whose_clock_is_a_minute_off_is_named_and_stands_again_once_it_is_right() {
    let mut v = Voters::founded(3);
    v.settle();
    assert_eq!(alarm(&v.w, "clock-off"), None);
    let n = v.follower();
    v.kill(n);
    let mut c = v.all[n].command();
    clock_off(&mut c, "+60s");
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
    clock_of(&mut c, &file);
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
