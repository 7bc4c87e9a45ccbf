//! The leader of three voters is killed at each of the eight points of a rotation: the root goes into a token that they share,
//! and out of it again, once as if it could not sign any more and once with its signature.
//!
//! Nothing here hopes to be in time. The token of each voter is behind the shim, so that a rotation stands where its leader
//! waits for the token; of the root that comes out of it none of the old ones certifies anything, so that it stands where a
//! node was stopped. Wherever it stands, the leader is killed, another one leads, and the killed one is started again.

use super::token::{Token, root_key, words};
use crate::roots::served::{others_believe, shown};
use crate::roots::{roots, signer, stable, trusted};
use crate::traced::{Counted, Traced, is_traced};
use crate::voters::world::{Voter, Voters};
use crate::world::{World, eventually};
use holdfast_pki::bundle::{Admins, verify_bundle_chain};
use holdfast_pki::chain::{Anchors, Usage, verify_peer};
use holdfast_transport::join::ask_trust;
use holdfast_transport::now;
use holdfast_transport::tls::Alpn;
use holdfast_wire::charter::CharterChain;
use holdfast_wire::{statement, v1};
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use std::collections::BTreeSet;
use tokio::runtime::Runtime;

/// What a follower's disk takes for each write while nothing may be committed: less than voters wait for a leader.
const SLOW_DISK: &str = "delay_enter=250000";
/// A token that takes its time for each half of a key that it destroys, and is not given up.
const SLOW_END: &str = "C_DestroyObject delay 1200";

/// The token that all share, as the voter called `name` sees it.
fn token(w: &World, name: &str) -> Token {
    let dir = w.path("hsm");
    let token = if dir.exists() { Token::at(dir) } else { Token::new(dir) };
    token.shimmed(name)
}

fn place(w: &World, name: &str) -> Voter {
    let token = token(w, name);
    let mut voter = Voter::place(w, name);
    voter.more = token.section("");
    voter.through = token.through();
    voter
}

/// Three voters and a token.
struct Cluster {
    v: Voters,
    /// The root that it was founded with.
    first: Vec<Vec<u8>>,
}

impl Cluster {
    fn founded() -> Self {
        let v = Voters::founded_at(3, place);
        let told = Runtime::new().unwrap().block_on(ask_trust([format!("127.0.0.1:{}", v.all[0].join)]));
        let first = statement::peek::<v1::Bundle>(&told[0].bundle_chain[0]).unwrap().roots;
        assert_eq!(first.len(), 1);
        let all_ok = |said: &Value| said.as_array().is_some_and(|a| a.len() == 3 && a.iter().all(is_ok));
        eventually("every voter to reach the token", || all_ok(&words(&v.w)).then_some(()));
        Self { v, first }
    }
    /// The token as the voter at `n` sees it.
    fn token(&self, n: usize) -> Token {
        let name = if n == 0 { "vault".to_owned() } else { format!("vault{}", n + 1) };
        token(&self.v.w, &name)
    }
    fn objects(&self) -> usize {
        self.token(0).objects()
    }
    /// The place of the leader, and those of the others.
    fn leader(&self) -> (usize, Vec<usize>) {
        let (leader, _) = self.v.leader();
        (leader, (0..3).filter(|n| *n != leader).collect())
    }
    /// How often each voter called this function of the token.
    fn calls(&self, function: &str) -> Vec<usize> {
        (0..3).map(|n| self.token(n).calls(function)).collect()
    }
    /// Waits until one of these voters has called it `more` times since `before`: it stands in the last of them. Which one.
    fn stands(&self, among: &[usize], function: &str, before: &[usize], more: usize) -> usize {
        eventually(&format!("one of {among:?} to stand in {function}"), || {
            among.iter().copied().find(|n| self.token(*n).calls(function) >= before[*n] + more)
        })
    }
    /// Waits until the rotation stands in this phase, and waits for these and nobody else.
    fn held(&self, phase: &str, waits_for: &[&str]) {
        let wanted: BTreeSet<String> = waits_for.iter().map(|id| (*id).to_owned()).collect();
        eventually(&format!("the phase {phase} to wait for {waits_for:?}"), || {
            let now = roots(&self.v.w);
            let left = now["stragglers"].as_array()?.iter().filter_map(|s| Some(s["id"].as_str()?.to_owned()));
            (now["phase"] == phase && left.collect::<BTreeSet<_>>() == wanted).then_some(())
        });
    }
    /// A root in the token is ordered, and no more; so many objects lie there.
    fn is_only_ordered(&self, objects: usize) {
        let now = roots(&self.v.w);
        assert_eq!((now["target"].as_str(), trusted(&now), self.objects()), (Some("hsm"), 1, objects), "{now}");
    }
    /// The voter at `n` is dead: another one leads, it comes back, and all that is served is believed.
    fn taken_over(&mut self, n: usize, point: &str) {
        eventually(&format!("{point}: another voter to lead"), || (self.v.leader().0 != n).then_some(()));
        self.v.come_back(n);
        self.v.settle();
        assert!(self.believed(point) > 0);
    }
    fn killed(&mut self, point: &str) {
        let (leader, _) = self.v.leader();
        self.v.kill(leader);
        self.taken_over(leader, point);
    }
    /// Two leaders were killed, one after the other: the token is well, and both are started again.
    fn back(&mut self, both: [usize; 2]) {
        (0..3).for_each(|n| self.token(n).fault(""));
        for n in both {
            self.v.come_back(n);
        }
        self.v.settle();
    }
    /// Whoever knows the first root alone and follows the Bundles believes what each voter shows. How many roots it trusts
    /// then, at most.
    fn believed(&self, point: &str) -> usize {
        let runtime = Runtime::new().unwrap();
        let mut most = 0;
        for voter in &self.v.all {
            let what = format!("{point}: what voter {} shows", voter.id);
            let (told, certificates) = eventually(&what, || {
                let told = runtime.block_on(ask_trust([format!("127.0.0.1:{}", voter.join)])).pop()?;
                Some((told, shown(voter.join, Alpn::Join).ok().filter(|c| !c.is_empty())?))
            });
            let charters = CharterChain::verify(&told.charter_chain).unwrap();
            let (admins, cluster) = (Admins::ever(&charters), charters.cluster());
            let bundle = verify_bundle_chain(&told.bundle_chain, &self.first, admins, cluster);
            let newest = bundle.unwrap_or_else(|e| panic!("{what}: {e}")).doc.roots;
            most = most.max(newest.len());
            let anchors = Anchors::new(&newest, charters.trust_domain().clone()).unwrap();
            let certificates: Vec<_> = certificates.into_iter().map(CertificateDer::from).collect();
            let peer = verify_peer(&certificates, &anchors, now(), Usage::Server);
            assert!(peer.is_ok(), "{what}: {:?}", peer.err());
        }
        most
    }
    /// The rotation is over: nothing but the new root is trusted, and by it alone each voter is believed.
    fn done(&self, before: &str, key: &str) {
        let done = stable(&self.v.w);
        assert_eq!((trusted(&done), root_key(&self.v.w).as_str()), (1, key), "{done}");
        assert_ne!(done["signer"], before);
        self.v.settle();
        eventually("every voter to trust one root", || (self.believed("the end") == 1).then_some(()));
        let pem = self.v.w.text("new.pem");
        self.v.w.ok(&["root", "export", "--out", &pem]);
        for voter in &self.v.all {
            others_believe(voter.join, Alpn::Join, pem.as_ref()).unwrap();
        }
        self.v.verifies();
    }
    /// A node more; its id.
    fn node(&mut self, known: &[&str]) -> String {
        self.v.w.add_node("eu");
        let all = self.v.w.json(&["node", "ls"]);
        let ids = all["nodes"].as_array().unwrap().iter().filter(|n| n["role"] == "node");
        let id = ids.filter_map(|n| n["id"].as_str()).find(|id| !known.contains(id));
        id.unwrap().to_owned()
    }
    fn signal(&self, agent: usize, signal: Signal) {
        self.v.w.agents[agent].signal(signal);
    }
}

fn is_ok(said: &Value) -> bool {
    said.as_str().is_some_and(|text| text.ends_with(": ok"))
}

/// Killed when the order is given, and when the key is made.
fn into_the_token(c: &mut Cluster) {
    let before = signer(&c.v.w);
    let (leader, others) = c.leader();
    let (making, signing) = (c.calls("C_GenerateKeyPair"), c.calls("C_Sign"));
    c.token(leader).fault("C_GenerateKeyPair hang");
    others.iter().for_each(|n| c.token(*n).fault("C_Sign hang"));

    // It is ordered, and there is no key.
    c.v.w.ok(&["root", "rotate", "--hsm", "--detach"]);
    c.stands(&[leader], "C_GenerateKeyPair", &making, 1);
    c.is_only_ordered(0);
    c.v.kill(leader);

    // Its key is made, it has signed nothing, and nothing of it is committed.
    let next = c.stands(&others, "C_Sign", &signing, 1);
    c.is_only_ordered(2);
    c.v.kill(next);

    c.back([leader, next]);
    c.done(&before, "hsm");
    assert_eq!(c.objects(), 2, "the key that was made is found, and no other one is made");
}

/// Killed when the root is trusted, when a node said that it trusts it, when it signs, and when it has signed a certificate
/// that is not committed. Then the first node is all that is waited for, and stands still.
fn until_it_signs(c: &mut Cluster, a: &str, b: &str) {
    let (first, second) = (0, 1);
    [first, second].into_iter().for_each(|agent| c.signal(agent, Signal::STOP));
    c.v.w.ok(&["root", "rotate", "--software", "--without-old-root", "--detach"]);
    c.held("distributing", &[a, b]);
    c.killed("the root is trusted");
    c.held("distributing", &[a, b]);

    c.signal(first, Signal::CONT);
    c.held("distributing", &[b]);
    c.killed("a node trusts it");
    c.held("distributing", &[b]);

    c.signal(first, Signal::STOP);
    c.signal(second, Signal::CONT);
    eventually("the root to sign", || (roots(&c.v.w)["phase"] == "reissuing").then_some(()));
    c.killed("it signs");
    c.held("reissuing", &[a]);

    // All that is left to be signed is the first node's next certificate. Its key is on its disk before it asks, and what
    // the leader writes next is what it signed; no follower has that on its disk by then.
    let pending = c.v.w.agent_state(first).join("identity").join("pending.pem");
    assert!(!pending.exists());
    let (leader, others) = c.leader();
    let slow: Vec<Traced> = others.iter().map(|n| Traced::begin(c.v.all[*n].pid(), SLOW_DISK)).collect();
    let all_slow = || others.iter().all(|n| is_traced(c.v.all[*n].pid()));
    eventually("the followers' disks to be slow", || all_slow().then_some(()));
    let asked = pending.clone();
    let traced = Counted::when(c.v.all[leader].pid(), move |_| asked.exists());
    c.signal(first, Signal::CONT);
    eventually("the leader to die of what it signed", || c.v.all[leader].ended().then_some(()));
    c.signal(first, Signal::STOP);
    assert!(pending.exists(), "it was answered: what was signed was committed");
    traced.end();
    slow.into_iter().for_each(|t| t.end(|| false));
    c.v.kill(leader);
    c.taken_over(leader, "a certificate is signed");
    c.held("reissuing", &[a]);
}

/// Killed when the old root is dropped, and when its key is destroyed. `left`: so many objects are somebody else's.
fn out_of_the_token(c: &mut Cluster, left: usize) {
    let (leader, others) = c.leader();
    let ending = c.calls("C_DestroyObject");
    c.token(leader).fault("C_DestroyObject hang");
    others.iter().for_each(|n| c.token(*n).fault(SLOW_END));
    assert_eq!(c.objects(), left + 2);
    c.v.w.ok(&["root", "rotate", "--software", "--detach"]);

    // It is trusted no more, and its key is there.
    c.stands(&[leader], "C_DestroyObject", &ending, 1);
    let now = roots(&c.v.w);
    assert_eq!((now["phase"].as_str(), trusted(&now), c.objects()), (Some("retiring"), 1, left + 2), "{now}");
    c.v.kill(leader);

    // The private key is gone, its public half is not, and nothing of that is committed.
    let next = c.stands(&others, "C_DestroyObject", &ending, 2);
    assert_eq!(c.objects(), left + 1);
    c.v.kill(next);
    c.back([leader, next]);
}

#[test]
fn the_leader_is_killed_at_each_of_the_eight_points_of_a_rotation_and_another_one_ends_it() {
    let mut c = Cluster::founded();
    into_the_token(&mut c);

    let a = c.node(&[]);
    let b = c.node(&[&a]);
    let before = signer(&c.v.w);
    until_it_signs(&mut c, &a, &b);
    c.signal(0, Signal::CONT);
    c.done(&before, "software");
    assert_eq!(c.objects(), 2, "a key that could not sign is nobody's to destroy but its operators'");

    c.v.w.ok(&["root", "rotate", "--hsm"]);
    let before = signer(&c.v.w);
    out_of_the_token(&mut c, 2);
    c.done(&before, "software");
    assert_eq!(c.objects(), 2, "of the old root no key is left");
    let now = roots(&c.v.w);
    assert_eq!(now["trusted"][0]["identities"], 5, "three voters and two nodes: {now}");
    let all = c.v.w.json(&["node", "ls"]);
    let nodes = all["nodes"].as_array().unwrap().iter();
    assert!(nodes.filter(|n| n["role"] == "node").all(|n| n["state"] == "ready"), "{all}");
}
