//! What nobody notices of a rotation: every daemon's log is read for a stream that broke or a handshake that failed, while
//! strangers, operators and machines connect all the time and a service answers requests.
//!
//! Machines connect as themselves: each gets another certificate in the midst of it, and a link with it. A copy of one's key in
//! the hands of the test would be a thief's. Whether each would believe each other one is judged in `pairs`.

use super::{signer, trusted};
use crate::beside::Stop;
use crate::callers::Calls;
use crate::leftovers;
use crate::seen::connected;
use crate::voters::world::Voters;
use crate::world::{World, eventually};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The programs of the operator that run beside each other here, and take over each other's login.
const TOOLS: usize = 3;
/// How many clients of the service ask it at once.
const CLIENTS: usize = 3;
/// What a listener says of a peer that it did not believe.
const REFUSED: &str = "connection refused";
/// What a daemon says of a stream that ended by itself, or of a peer that it did not believe.
const BROKEN: [&str; 11] = [
    REFUSED,
    "certificate-refused",
    "no stream to the vault",
    "the vault closed the stream",
    "the vault is lost",
    "certificate not renewed yet",
    "no connection to a voter",
    "was not put into force",
    "is quarantined",
    "could not tell the nodes",
    "certificates were renewed and stored",
];

/// A service that answers requests on its own loopback interface: containers have no other yet.
fn deploy_answerer(w: &World) {
    let dir = w.path("answerer-image");
    let busybox = fs::read("/bin/busybox").unwrap();
    crate::image::write_layout(&dir, &[("bin/busybox", &busybox), ("www/index.html", b"here")]);
    let spec = w.write_spec(
        "answerer",
        &format!(
            "name = \"answerer\"\nnamespace = \"shop\"\nimage = \"oci-layout:{}\"\n\
             command = [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n",
            dir.display()
        ),
    );
    w.ok(&["service", "deploy", "-f", &spec]);
}

/// Every process below a cgroup.
fn processes(cgroup: &Path) -> Vec<u32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<u32> = own.lines().filter_map(|l| l.parse().ok()).collect();
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir());
    all.extend(below.flat_map(|dir| processes(&dir)));
    all
}

/// The process that answers.
fn answerer(w: &World) -> u32 {
    let answers = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"/bin/busybox\0httpd\0")
    };
    eventually("the service's process", || {
        leftovers::cgroups(&w.cgroup()).iter().flat_map(|dir| processes(dir)).find(answers)
    })
}

/// One request, from within the container's network: there is no way into it from outside.
fn request(pid: u32) -> Result<(), String> {
    let mut c = Command::new("nsenter");
    c.args(["-t", &pid.to_string(), "-n", "/bin/busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/index.html"]);
    let o = c.output().unwrap();
    if o.status.success() && o.stdout == b"here" { Ok(()) } else { Err(said(&o)) }
}

fn said(o: &Output) -> String {
    format!("{}: {}", o.status, String::from_utf8_lossy(&o.stderr))
}

/// Does it again and again until `over`; how often, and what failed.
fn again_and_again(over: &AtomicBool, mut what: impl FnMut() -> Result<(), String>) -> (usize, Vec<String>) {
    let (mut times, mut failed) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) {
        times += 1;
        failed.extend(what().err());
    }
    (times, failed)
}

/// The logs of all daemons.
fn logs(v: &Voters) -> Vec<(String, String)> {
    let voters = v.all.iter().map(|voter| (format!("voter {}", voter.id), voter.log_text()));
    let others = ["orch.log", "agent0.log"].map(|name| {
        let text = fs::read_to_string(v.w.path(name)).unwrap();
        (name.to_owned(), text)
    });
    voters.chain(others).collect()
}

/// How often an operator has logged in.
fn logins(v: &Voters) -> usize {
    let log = v.w.json(&["log", "tail", "-n", "500"]);
    log["entries"].as_array().unwrap().iter().filter(|e| e["kind"] == "operator.login").count()
}

#[test]
fn no_stream_breaks_no_handshake_fails_and_no_request_is_lost_while_the_root_is_replaced() {
    let mut v = Voters::founded(2);
    v.w.add_orchestrator();
    v.w.add_node("eu");
    deploy_answerer(&v.w);
    let pid = answerer(&v.w);
    eventually("the service to answer", || request(pid).ok());
    let (before, asleep, log) = (signer(&v.w), Calls::believing(&v.w), logs(&v));
    let logged_in = logins(&v);
    let joins: Vec<u16> = v.all.iter().map(|voter| voter.join).collect();
    let over = AtomicBool::new(false);
    let (done, load, strangers, operators) = thread::scope(|s| {
        let load: Vec<_> = (0..CLIENTS).map(|_| s.spawn(|| again_and_again(&over, || request(pid)))).collect();
        // Who trusts the old root alone, to each voter.
        let strangers = s.spawn(|| {
            let mut next = joins.iter().cycle();
            again_and_again(&over, || asleep.join(*next.next().unwrap()).map(drop).map_err(|f| f.to_string()))
        });
        let operators = s.spawn(|| {
            again_and_again(&over, || {
                let o = v.w.cli(&["service", "ps", "shop/answerer"]);
                if o.status.success() { Ok(()) } else { Err(said(&o)) }
            })
        });
        let stop = Stop(&over);
        let done = v.w.json(&["root", "rotate"]);
        // All goes on after the last connection of the old certificates was closed.
        eventually("the node's next stream", || {
            let text = fs::read_to_string(v.w.path("agent0.log")).unwrap();
            text[log[3].1.len()..].contains("stream to the vault opened").then_some(())
        });
        connected(&v.w);
        drop(stop);
        let load: Vec<_> = load.into_iter().map(|client| client.join().unwrap()).collect();
        (done, load, strangers.join().unwrap(), operators.join().unwrap())
    });
    assert_eq!((trusted(&done), done["signer"] == before.as_str()), (1, false), "{done}");
    let clients = load.into_iter().map(|client| ("requests", 5, client));
    for (who, least, (times, failed)) in clients.chain([("strangers", 5, strangers), ("operators", 3, operators)]) {
        assert!(failed.is_empty(), "{who}: of {times} failed {failed:#?}");
        assert!(times >= least, "{who}: {times} times");
    }
    let (mut broken, mut refused) = (Vec::new(), 0);
    for ((who, from), (_, text)) in log.iter().zip(logs(&v)) {
        for line in text[from.len()..].lines().filter(|l| BROKEN.iter().any(|b| l.contains(b))) {
            // An operator's certificate of a root that went is turned away; the tool logs in again, or takes over the login of
            // the one that runs beside it. A machine's would show in the machine's log as well.
            if who.starts_with("voter") && line.contains(REFUSED) {
                refused += 1;
            } else {
                broken.push(format!("{who}: {line}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!((logins(&v) - logged_in) * TOOLS >= refused, "{refused} connections were refused, and not for a login");
    // The one task is the same process still.
    assert_eq!(answerer(&v.w), pid);
}
