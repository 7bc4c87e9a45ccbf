//! Three voters that were off, with everybody else, until no certificate of anybody was good any more.

use super::world::{Voter, Voters};
use crate::roots::served::others_believe;
use crate::seen::{is, works};
use crate::world::{World, eventually};
use holdfast_transport::tls::Alpn;
use std::time::{Duration, Instant};

/// Longer than anything lives here.
const ALL_OVER: Duration = Duration::from_secs(16);

fn place(w: &World, name: &str) -> Voter {
    let mut voter = Voter::place(w, name);
    voter.lives = "node = \"9s\"\norchestrator = \"9s\"\nvoter = \"9s\"\noperator = \"9s\"\nissuer = \"15s\"";
    voter
}

#[test]
fn three_voters_that_were_off_until_everything_was_over_come_up_by_unlocking_them_and_so_do_all_machines() {
    let mut v = Voters::founded_at(3, place);
    v.w.add_orchestrator();
    v.w.add_node("eu");
    v.w.put_secret("shop/db-password", b"v", &["--reader", "web"]);
    v.w.ok(&["service", "deploy", "-f", &v.w.web_spec(1)]);
    let root = v.w.text("root.pem");
    v.w.ok(&["root", "export", "--out", &root]);
    v.w.agents[0].kill();
    v.w.orchestrator.as_mut().unwrap().kill();
    (0..3).for_each(|n| v.kill(n));
    // Issuer and statement key live longest: what the last one signed is over, too.
    let until = Instant::now() + ALL_OVER;
    eventually("everything to be over", || (Instant::now() >= until).then_some(()));

    // All machines start again, and all that an operator does is to unlock the voters.
    for voter in &mut v.all {
        voter.start(&[]);
        voter.becomes("sealed");
    }
    v.w.start_orchestrator();
    v.w.start_agent(0, &[]);
    let (sockets, key) = (v.sockets(), v.w.unlock_key.display().to_string());
    let mut args = vec!["unlock", "--key-file", key.as_str()];
    args.extend(sockets.iter().map(String::as_str));
    v.w.ok(&args);
    v.all.iter().for_each(|voter| voter.becomes("ready"));
    // Each has a certificate that is good now, by the root that everybody knew.
    for voter in &v.all {
        eventually(&format!("voter {} to be believed", voter.id), || {
            others_believe(voter.join, Alpn::Join, root.as_ref()).ok()
        });
    }
    v.settle();
    eventually("the node to be back", || works(&v.w).then_some(()));
    eventually("the orchestrator to be back", || is(&v.w, "orchestrator", "ready").then_some(()));
    v.w.ok(&["service", "scale", "shop/web=2", "--detach"]);
    eventually("both replicas", || (v.w.running("shop/web").len() == 2).then_some(()));
    assert_eq!(v.put("shop/a", b"value"), 1);
    v.verifies();
}
