//! Assignments of the honest world that the verify core is tested with, against a whole node on paper.

use super::*;
use crate::believed::{Believed, Document, Standing};
use crate::evidence::desk;
use crate::keys::KeyRing;
use crate::reports::Reports;
use crate::state::evidence::EvidenceDir;
use crate::state::memory::MemoryFile;
use crate::state::records::Records;
use crate::state::trust::TrustFiles;
use crate::tasks::Tasks;
use crate::tasks::fake::Fake;
use holdfast_orchestrator_core::verify::TaskMemory;
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::renew::Renewals;
use holdfast_transport::tls::{ClientTls, IdentityCell};
use holdfast_types::{Digest, Millis, NodeId};
use holdfast_wire::v1::{Bundle, Removed, Revocation, Revocations, Revoke, Statement, TaskReport, TrustView};

#[path = "../../core/tests/verify/world/mod.rs"]
#[allow(dead_code, reason = "the world of another crate's tests, of which these need a part")]
mod world;
use world::{ME, NOW, RootKey, SEQ, Scene, World, hash, signed, who};

/// The honest world, but for secrets: its boxes are sealed to keys that this node does not have.
fn scene() -> Scene {
    World { edit_spec: |s| s.secrets.clear(), ..World::default() }.build()
}

struct Bench {
    dir: tempfile::TempDir,
    ground: Arc<Fake>,
    node: Arc<Node<Fake>>,
}

impl Bench {
    fn new(scene: &Scene) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::create_dir(dir.path().join("grants")).unwrap();
        TrustFiles::new(dir.path()).save(&scene.trust).unwrap();
        MemoryFile::new(dir.path()).save(&TaskMemory::default()).unwrap();
        let mut ring = KeyRing::open(dir.path()).unwrap();
        ring.offer(Digest([1; 32])).unwrap();
        ring.accept(Digest([1; 32]), SEQ, vec![2; 32]).unwrap();
        Self::on(dir, Arc::default())
    }
    fn on(dir: tempfile::TempDir, ground: Arc<Fake>) -> Self {
        let root = dir.path();
        let ring = KeyRing::open(root).unwrap();
        let me = NodeId::parse(ME).unwrap();
        let believed = Believed::open(me, ring, TrustFiles::new(root), MemoryFile::new(root), || Millis(NOW));
        let believed = Arc::new(believed.unwrap());
        let reports = Arc::new(Reports::default());
        let clock = believed.clone();
        let tasks = Tasks::new(ground.clone(), Records::new(root), reports.clone(), move || clock.clock());
        let (accuser, _) = desk(EvidenceDir::new(root));
        let nowhere = Dialer::new(Vec::<String>::new(), ClientTls::join(Digest([0; 32])), Timing::default());
        let node = Node {
            believed,
            tasks,
            reports,
            accuser,
            vault: Arc::new(nowhere),
            identity: IdentityCell::empty(),
            renewals: Arc::new(Renewals::default()),
            capacity: Default::default(),
        };
        Self { dir, ground, node: Arc::new(node) }
    }
    fn next_agent(self) -> Self {
        Self::on(self.dir, self.ground)
    }
    async fn assign(&self, scene: &Scene) -> AssignResult {
        carry_out(&self.node, scene.peer.clone(), scene.assign.clone()).await
    }
    async fn until_running(&self) -> TaskReport {
        self.until("running").await
    }
    async fn until(&self, state: &str) -> TaskReport {
        let mut reader = self.node.reports.reader();
        let wait = async {
            loop {
                reader.changed().await;
                if let Some(r) = reader.take(&self.node.reports).into_iter().find(|r| r.state == state) {
                    return r;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("no task is {state}"))
    }
    fn states(&self) -> Vec<String> {
        self.node.reports.held().into_iter().map(|t| t.state).collect()
    }
}

#[tokio::test]
async fn an_honest_assignment_becomes_a_running_task() {
    let scene = scene();
    let bench = Bench::new(&scene);
    let result = bench.assign(&scene).await;
    assert!(result.accepted, "{result:?}");
    assert_eq!(bench.until_running().await.task_id, "shop.web.2");
    assert!(bench.ground.runs("shop.web.2.7.0"));
}

#[tokio::test]
async fn a_replayed_grant_is_refused_and_its_task_goes_on() {
    let scene = scene();
    let bench = Bench::new(&scene);
    assert!(bench.assign(&scene).await.accepted);
    bench.until_running().await;
    let again = bench.assign(&scene).await;
    assert_eq!((again.accepted, again.check.as_str()), (false, "grant-consumed"));
    assert_eq!(bench.states(), ["running"]);
    assert!(bench.ground.runs("shop.web.2.7.0"));
    // Nor does the next agent forget: the use of a grant was on disk before its task started.
    let next = bench.next_agent();
    assert_eq!(next.assign(&scene).await.check, "grant-consumed");
    assert!(next.states().is_empty());
}

#[tokio::test]
async fn two_copies_of_one_grant_at_the_same_time_start_one_task() {
    let scene = scene();
    let bench = Bench::new(&scene);
    let (a, b) = tokio::join!(bench.assign(&scene), bench.assign(&scene));
    assert_eq!([a.accepted, b.accepted].iter().filter(|x| **x).count(), 1);
    bench.until_running().await;
    assert_eq!(bench.ground.diary().iter().filter(|d| d.starts_with("start")).count(), 1);
}

#[tokio::test]
async fn a_grant_for_another_node_is_refused_and_nothing_is_reported_of_it() {
    let scene =
        World { edit_spec: |s| s.secrets.clear(), edit_grant: |g| g.node_id = "node-2".into(), ..World::default() };
    let scene = scene.build();
    let bench = Bench::new(&scene);
    assert_eq!(bench.assign(&scene).await.check, "node");
    assert!(bench.states().is_empty());
}

#[tokio::test]
async fn a_grant_of_ours_that_is_refused_is_reported_to_the_vault() {
    let late =
        World { edit_spec: |s| s.secrets.clear(), edit_grant: |g| g.start_before_ms = NOW - 1, ..World::default() };
    let scene = late.build();
    let bench = Bench::new(&scene);
    assert_eq!(bench.assign(&scene).await.check, "start-before");
    assert_eq!(bench.states(), ["refused"]);
}

#[tokio::test]
async fn a_grant_that_was_reported_as_refused_never_runs() {
    let scene = scene();
    let bench = Bench::new(&scene);
    let spoiled = Assign { vouchers: Vec::new(), ..scene.assign.clone() };
    let refused = carry_out(&bench.node, scene.peer.clone(), spoiled).await;
    assert_eq!((refused.accepted, refused.check.as_str()), (false, "voucher"));
    assert_eq!(bench.states(), ["refused"]);
    assert_eq!(bench.assign(&scene).await.check, "grant-consumed");
    assert!(bench.ground.diary().is_empty());
    assert_eq!(bench.next_agent().assign(&scene).await.check, "grant-consumed");
}

#[tokio::test]
async fn a_grant_that_was_revoked_before_it_came_is_never_started() {
    let scene = scene();
    let bench = Bench::new(&scene);
    let revoke = Revoke {
        cluster_id: scene.cluster.0.to_vec(),
        era: 1,
        node_id: ME.into(),
        grant_ids: vec![scene.grant().grant_id],
        issued_at_ms: NOW,
        ..Revoke::default()
    };
    let revoked = bench.node.believed.revoke(signed(&revoke, &[who::STK])).await.unwrap();
    assert_eq!(revoked.len(), 1);
    let next = bench.next_agent();
    assert_eq!(next.assign(&scene).await.check, "grant-consumed");
    assert!(next.ground.diary().is_empty());
}

/// A list that names `id`, whose certificates of generations before `below` do not count, and the status of `ms` later that
/// names the list.
fn list(scene: &Scene, id: &str, below: u64, ms: i64, signer: u8) -> [Statement; 2] {
    let list = Revocations {
        cluster_id: scene.cluster.0.to_vec(),
        era: 1,
        epoch: 11,
        revoked: vec![Revocation { id: id.into(), not_before_seq: below, ..Default::default() }],
        ..Revocations::default()
    };
    let list = signed(&list, &[signer]);
    let named = hash(&list).to_vec();
    let status =
        scene.status(|s| (s.epoch, s.issued_at_ms, s.revocations_sha256) = (11, s.issued_at_ms + ms, named.clone()));
    [status, list]
}

/// The vault's list names this node.
async fn listed(bench: &Bench, scene: &Scene, below: u64) {
    let [status, list] = list(scene, ME, below, 1, who::STK);
    for document in [Document::Status(status), Document::Revocations(list)] {
        assert!(bench.node.believed.observe(document).await.unwrap());
    }
}

#[tokio::test]
async fn a_node_that_was_removed_ends_its_tasks_and_starts_nothing_ever_again() {
    let scene = scene();
    let bench = Bench::new(&scene);
    assert!(bench.assign(&scene).await.accepted);
    bench.until_running().await;
    removal::obey(&bench.node);
    assert_eq!(bench.states(), ["running"], "nobody removed it yet");
    listed(&bench, &scene, u64::MAX).await;
    removal::obey(&bench.node);
    assert_eq!(bench.until("stopped").await.detail, "its node was removed");
    assert!(!bench.ground.runs("shop.web.2.7.0"));
    let next = bench.next_agent();
    assert_eq!(next.node.believed.standing(), Standing::Removed);
    assert_eq!(next.assign(&scene).await.check, "node-removed");
}

#[tokio::test]
async fn a_removal_that_is_heard_of_late_is_obeyed_if_it_is_signed_and_of_this_node() {
    let scene = scene();
    let bench = Bench::new(&scene);
    assert!(bench.assign(&scene).await.accepted);
    bench.until_running().await;
    let said = |id: &str, below: u64, ms: i64, signer: u8| {
        let [status, list] = list(&scene, id, below, ms, signer);
        Removed { status: Some(status), revocations: Some(list) }
    };
    let good = || said(ME, u64::MAX, 6, who::STK);
    let bad = [
        Removed::default(),
        said("node-2", u64::MAX, 1, who::STK),
        said(ME, SEQ + 1, 2, who::STK),
        said(ME, u64::MAX, 3, who::STRANGER),
        // A list that is left out, and one that no status of the vault's names.
        Removed { revocations: None, ..said(ME, u64::MAX, 4, who::STK) },
        Removed { status: said("node-2", u64::MAX, 5, who::STK).status, ..good() },
    ];
    for said in bad {
        assert_eq!(removal::hear(&bench.node, said).await.code, "cluster-not-believed");
        assert_eq!(bench.states(), ["running"]);
    }
    assert!(bench.ground.runs("shop.web.2.7.0"));
    assert_eq!(removal::hear(&bench.node, good()).await.code, "identity-refused");
    assert_eq!(bench.until("stopped").await.detail, "its node was removed");
    assert_eq!(bench.next_agent().node.believed.standing(), Standing::Removed);
}

#[tokio::test]
async fn a_node_whose_certificates_are_revoked_keeps_its_tasks_for_their_leases() {
    let scene = scene();
    let bench = Bench::new(&scene);
    assert!(bench.assign(&scene).await.accepted);
    bench.until_running().await;
    listed(&bench, &scene, SEQ + 1).await;
    assert_eq!(bench.node.believed.standing(), Standing::Revoked);
    removal::obey(&bench.node);
    assert_eq!(bench.states(), ["running"]);
    assert!(bench.ground.runs("shop.web.2.7.0"));
}

#[tokio::test]
async fn a_rotation_that_was_slept_through_is_followed_and_kept() {
    let scene = scene();
    let bench = Bench::new(&scene);
    let (held, new) = (scene.trust.saved(), RootKey::new());
    let der = new.certificate(&scene.cluster);
    let old = scene.trust.bundle().roots.clone();
    let mut chain = held.bundles.clone();
    for (epoch, roots) in [(11, [old, vec![der.clone()]].concat()), (12, vec![der.clone()])] {
        let prev_sha256 = hash(chain.last().unwrap()).to_vec();
        chain.push(scene.root.sign_bundle(&Bundle { epoch, roots, prev_sha256, ..scene.trust.bundle().clone() }));
    }
    let shown = TrustView { charter_chain: held.charters, bundle_chain: chain, ..TrustView::default() };
    assert!(bench.node.believed.catch_up(shown.clone()).await.unwrap());
    assert!(!bench.node.believed.catch_up(shown).await.unwrap());
    assert_eq!(bench.node.believed.versions().0, 12);
    let next = bench.next_agent();
    assert_eq!(next.node.believed.versions().0, 12);
}
