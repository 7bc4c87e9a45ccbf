//! Whoever is alive believes whoever is alive, at every moment of a rotation: each pair that the rights let connect is judged
//! all the time, by the certificates that its two show and the roots that they believe at that moment.
//!
//! What machines hold is read from their disks and judged here, and nothing is sent in their names: a copy of one's key in the
//! hands of the test would be a thief's. What listeners show is fetched from them.

use super::given::{CA, made_by_openssl, name_of_roots};
use super::served::shown;
use super::{phase, roots, signer, stable, trusted};
use crate::beside::Stop;
use crate::callers::machine;
use crate::voters::world::{Voter, Voters};
use crate::world::{World, eventually};
use holdfast_agent::state::trust::TrustFiles;
use holdfast_orchestrator::state::ClusterFile;
use holdfast_pki::chain::{Anchors, Usage, verify_peer};
use holdfast_pki::names::identity_of_cert;
use holdfast_transport::framed::unframe;
use holdfast_transport::join::ask_trust;
use holdfast_transport::now;
use holdfast_transport::tls::{Alpn, LocalIdentity};
use holdfast_types::{Role, SpiffeId};
use holdfast_wire::statement::peek;
use holdfast_wire::v1::{Bundle, Issued, Statement, TrustView};
use prost::Message as _;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::fs;
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Two nodes with two voters and the orchestrator, the orchestrator and the operator with the voters, the operator with the
/// orchestrator, and the voters with each other.
const PAIRS: usize = 4 + 2 + 2 + 2 + 1 + 2;
/// How often each pair meets in each phase, at least.
const TIMES: usize = 3;
/// Between two looks.
const PACE: Duration = Duration::from_millis(20);

type Der = Vec<u8>;

/// Who holds certificates: the chains that it shows, and the roots by which it believes others.
#[derive(Clone, PartialEq)]
struct Party {
    id: SpiffeId,
    chains: Vec<Vec<Der>>,
    roots: Vec<Der>,
}

impl Party {
    fn new(chains: Vec<Vec<Der>>, roots: Vec<Der>) -> Self {
        let id = identity_of_cert(&chains[0][0]).unwrap();
        Self { id, chains, roots }
    }
    fn dials(&self, other: &Self) -> bool {
        use Role::{Node, Op, Orch, Vault};
        let roles = (self.id.role, other.id.role);
        self.id != other.id && matches!(roles, (Vault | Orch | Node | Op, Vault) | (Node | Op, Orch))
    }
    /// Whether this chain of a client's counts at `server`. A login does as long as the root that it is under is trusted; then
    /// the tool logs in again.
    fn counts(&self, chain: &[Der], server: &Self) -> bool {
        let under = |root: &Der| believes(slice::from_ref(root), &chain[..2], &self.id, Usage::Client).is_ok();
        self.id.role != Role::Op || server.roots.iter().any(under)
    }
    /// What either of the two says against the other when this one dials.
    fn refusals(&self, server: &Self) -> Vec<String> {
        let shows = server.chains.iter().map(|c| believes(&self.roots, c, &server.id, Usage::Server));
        let offers = self.chains.iter().filter(|c| self.counts(c, server));
        let offers = offers.map(|c| believes(&server.roots, c, &self.id, Usage::Client));
        shows.chain(offers).filter_map(Result::err).collect()
    }
}

/// Whether who trusts `roots` takes `chain` for that of `peer`.
fn believes(roots: &[Der], chain: &[Der], peer: &SpiffeId, usage: Usage) -> Result<(), String> {
    let anchors = Anchors::new(roots, peer.trust_domain.clone()).map_err(|e| e.to_string())?;
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
    let found = verify_peer(&chain, &anchors, now(), usage).map_err(|e| e.to_string())?;
    if found.id == *peer { Ok(()) } else { Err(format!("it is {}", found.id)) }
}

fn roots_in(bundles: &[Statement]) -> Vec<Der> {
    peek::<Bundle>(bundles.last().unwrap()).unwrap().roots
}

fn chain_of(identity: &LocalIdentity) -> Vec<Der> {
    identity.chain().iter().map(|c| c.to_vec()).collect()
}

/// `None` between two writes of what belongs together.
fn node(w: &World, n: usize) -> Option<Party> {
    let state = w.agent_state(n);
    let trust = TrustFiles::new(&state).load().ok()?;
    Some(Party::new(vec![chain_of(&machine(&state))], trust.bundle().roots.clone()))
}

fn orchestrator(w: &World) -> Party {
    let state = w.path("orch");
    let kept = fs::read(state.join("cluster")).unwrap();
    let kept = ClusterFile::decode(unframe(&kept).unwrap()).unwrap();
    let shows = shown(w.session, Alpn::Orchestrator).expect("the orchestrator does not show its chain");
    Party::new(vec![chain_of(&machine(&state)), shows], roots_in(&kept.bundles))
}

/// `None` while the tool writes it.
fn operator(w: &World) -> Option<Party> {
    let read = |name: &str| fs::read(w.path("home").join("contexts/default").join(name)).ok();
    let login = Issued::decode(read("login.pb")?.as_slice()).ok()?;
    let trust = TrustView::decode(read("trust.pb")?.as_slice()).ok()?;
    Some(Party::new(vec![login.chain], roots_in(&trust.bundle_chain)))
}

fn voter(runtime: &Runtime, voter: &Voter) -> Party {
    let told = runtime.block_on(ask_trust([format!("127.0.0.1:{}", voter.join)]));
    let roots = roots_in(&told.first().expect("a voter does not say whom it trusts").bundle_chain);
    let doors = [(voter.join, Alpn::Join), (voter.service, Alpn::Service), (voter.peer, Alpn::Peer)];
    let shows = doors.map(|(port, alpn)| shown(port, alpn).expect("a voter does not show its chain"));
    Party::new(shows.to_vec(), roots)
}

fn parties(v: &Voters, runtime: &Runtime) -> Vec<Party> {
    let voters = v.all.iter().map(|one| voter(runtime, one));
    let nodes = (0..v.w.agents.len()).filter_map(|n| node(&v.w, n));
    voters.chain(nodes).chain([orchestrator(&v.w)]).chain(operator(&v.w)).collect()
}

/// How often each pair met, and what went wrong.
#[derive(Default)]
struct Met {
    times: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

/// Judges each pair whose two hold what they held at the look before: between the two looks they held it at the same time.
fn judge(all: &[Party], before: &[Party], met: &Mutex<Met>) {
    let steady = move || all.iter().filter(move |p| before.contains(p));
    for client in steady() {
        for server in steady().filter(|p| client.dials(p)) {
            let wrong = client.refusals(server);
            let pair = format!("{} to {}", client.id, server.id);
            let mut met = met.lock().unwrap();
            met.wrong.extend(wrong.into_iter().map(|why| format!("{pair}: {why}")));
            *met.times.entry(pair).or_default() += 1;
        }
    }
}

/// Looks again and again until `over`.
fn probe(v: &Voters, over: &AtomicBool, met: &Mutex<Met>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut before: Vec<Party> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let all = parties(v, &runtime);
        judge(&all, &before, met);
        before = all;
        thread::park_timeout(PACE);
    }
}

/// Waits until every pair has met [`TIMES`] more times.
fn all_meet(met: &Mutex<Met>) {
    let before = met.lock().unwrap().times.clone();
    eventually("every pair to meet again", || {
        let met = met.lock().unwrap();
        let often = |(pair, n): &(&String, &usize)| **n >= before.get(*pair).unwrap_or(&0) + TIMES;
        (met.times.iter().filter(often).count() == PAIRS).then_some(())
    });
}

#[test]
fn every_pair_of_live_identities_believes_each_other_at_every_moment_of_two_rotations() {
    let mut v = Voters::founded(2);
    v.w.add_orchestrator();
    for _ in 0..2 {
        v.w.add_node("eu");
    }
    let w = &v.w;
    let (cert, key) = made_by_openssl(w.dir.path(), "offline", &name_of_roots(w), CA);
    let (request, signed) = (w.text("request.json"), w.text("signed.json"));
    let (over, met) = (AtomicBool::new(false), Mutex::new(Met::default()));
    thread::scope(|s| {
        s.spawn(|| probe(&v, &over, &met));
        let _stop = Stop(&over);
        let in_phase = |name: &str| {
            phase(w, name);
            all_meet(&met);
            assert_eq!(roots(w)["phase"], name, "the phase was over before all had met");
        };
        in_phase("stable");
        let first = signer(w);
        // A node that answers nothing keeps a rotation from ending.
        w.agents[1].signal(Signal::STOP);
        w.ok(&["root", "rotate", "--detach"]);
        in_phase("reissuing");
        w.agents[1].signal(Signal::CONT);
        let second = stable(w);
        assert_eq!((trusted(&second), second["signer"] == first.as_str()), (1, false), "{second}");
        in_phase("stable");
        // A root that has signed nothing yet keeps it from beginning.
        w.ok(&["root", "rotate", "--ca-cert", &cert, "--offline"]);
        in_phase("distributing");
        w.ok(&["root", "csr", "--out", &request]);
        w.ok(&["root", "sign", &request, "--ca-cert", &cert, "--ca-key", &key, "--out", &signed]);
        w.agents[1].signal(Signal::STOP);
        w.ok(&["root", "install", &signed, "--detach"]);
        in_phase("reissuing");
        w.agents[1].signal(Signal::CONT);
        let third = stable(w);
        assert_eq!((trusted(&third), third["signer"] == second["signer"]), (1, false), "{third}");
        in_phase("stable");
    });
    let Met { times, wrong } = met.into_inner().unwrap();
    assert!(wrong.is_empty(), "of {} meetings: {wrong:#?}", times.values().sum::<usize>());
}
