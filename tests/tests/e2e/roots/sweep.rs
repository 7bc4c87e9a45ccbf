//! A rotation of the root, cut short by a kill between two durable steps of the voter that leads it, twice in a row; then it
//! is brought to its end, or taken back.
//!
//! One voter, which does every step itself. A run of all tests tries a few steps; with `HOLDFAST_SWEEP=every` each step that
//! there is.

use super::served::others_believe;
use super::{roots, signer, stable, trusted};
use crate::traced::Counted;
use crate::voters::world::Voters;
use holdfast_transport::tls::Alpn;
use std::time::Duration;

/// The steps at which it is killed unless every one is tried: within the rotation, and within what comes after the first kill.
const FEW: [(usize, usize); 2] = [(2, 3), (5, 1)];
/// No rotation of one voter has more.
const MOST: usize = 60;
/// For so long a rotation goes on at most once its order was given.
const GOES_ON: Duration = Duration::from_secs(3);

/// A new process that is sealed.
fn start(v: &mut Voters) {
    v.all[0].kill();
    v.all[0].start(&[]);
    v.all[0].becomes("sealed");
}

/// One rotation: killed behind step `k`, then behind step `again` of what the next process does, and ended one way or the
/// other. False if it has no step `k`.
fn one(v: &mut Voters, k: usize, again: usize, give_up: bool) -> bool {
    let before = signer(&v.w);
    let pem = v.w.text("before.pem");
    v.w.ok(&["root", "export", "--out", &pem]);
    let traced = Counted::begin(v.all[0].pid(), k);
    let mut tool = v.w.beside(&["root", "rotate", "--detach", "--timeout", "20s"], "tool.log");
    let first = v.all[0].killed(GOES_ON, || tool.exited().is_some());
    drop(tool);
    eprintln!("step {k} of {}: killed {first}", traced.end());
    if first {
        start(v);
        let traced = Counted::begin(v.all[0].pid(), again);
        let (socket, key) = (v.all[0].socket(), v.w.unlock_key.display().to_string());
        drop(v.w.cli(&["unlock", "--vault-socket", &socket, "--key-file", &key, "--timeout", "20s"]));
        let second = v.all[0].killed(GOES_ON, || true);
        eprintln!("then step {again} of {}: killed {second}", traced.end());
    }
    v.all[0].kill();
    v.come_back(0);

    // Either nobody heard of the order, or it is under way, or it is done.
    let now = roots(&v.w);
    let unheard = now["signer"] == before.as_str() && now["phase"] == "stable" && now["target"] == "";
    let given_up = give_up && v.w.cli(&["root", "abort", "--detach"]).status.success();
    if unheard {
        assert!(!given_up, "nothing was there to be given up: {now}");
        v.w.ok(&["root", "rotate", "--detach"]);
    }
    // Stable is more than one trusted root: of the other one no key is left.
    let done = stable(&v.w);
    assert_eq!((trusted(&done), done["signer"] == before.as_str()), (1, given_up), "{done}");
    others_believe(v.all[0].join, Alpn::Join, pem.as_ref()).unwrap();
    v.put("shop/a", b"value");
    first
}

fn swept(give_up: bool) {
    let mut v = Voters::founded(1);
    if std::env::var("HOLDFAST_SWEEP").is_ok_and(|v| v == "every") {
        let steps = (1..=MOST).take_while(|k| one(&mut v, *k, 1 + 2 * (k % 2), give_up)).count();
        assert!((1..MOST).contains(&steps), "killed behind {steps} steps");
    } else {
        let killed = FEW.iter().filter(|(k, again)| one(&mut v, *k, *again, give_up)).count();
        assert!(killed > 0, "nothing was killed");
    }
    v.verifies();
}

#[test]
fn a_rotation_of_the_root_that_is_killed_twice_in_a_row_between_two_durable_steps_ends_all_the_same() {
    swept(false);
}

#[test]
fn a_rotation_of_the_root_that_was_killed_twice_in_a_row_is_given_up_wherever_it_is_not_done() {
    swept(true);
}
