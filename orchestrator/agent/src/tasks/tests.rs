//! Tasks carried on a ground of paper: what is done in which order, and what is told.

use super::fake::Fake;
use super::*;
use crate::reports::Reader;
use holdfast_types::{Digest, ServiceRef};
use holdfast_wire::v1::{Grant, TaskReport};
use std::sync::atomic::{AtomicI64, Ordering};

const NOW: Millis = Millis(1_000_000_000);

struct Bench {
    dir: tempfile::TempDir,
    ground: Arc<Fake>,
    reports: Arc<Reports>,
    reader: Reader,
    tasks: Arc<Tasks<Fake>>,
    clock: Arc<AtomicI64>,
}

impl Bench {
    fn new(ground: Fake) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("grants")).unwrap();
        Self::on(dir, Arc::new(ground))
    }
    fn on(dir: tempfile::TempDir, ground: Arc<Fake>) -> Self {
        let reports = Arc::new(Reports::default());
        let clock = Arc::new(AtomicI64::new(NOW.0));
        let read = clock.clone();
        let now = move || Millis(read.load(Ordering::Relaxed));
        let tasks = Tasks::new(ground.clone(), Records::new(dir.path()), reports.clone(), now);
        Self { dir, ground, reader: reports.reader(), reports, tasks, clock }
    }
    /// The agent ends, without a word to anybody, and another one starts on the same directory.
    async fn next_agent(self) -> Self {
        let next = Self::on(self.dir, self.ground);
        next.tasks.adopt().await.unwrap();
        next
    }
    fn begin(&self, n: u8, task_gen: u64) {
        let job = job::tests::job(n, task_gen, NOW);
        self.tasks.begin(Accepted {
            grant_id: job.id,
            grant_sha256: Digest([n; 32]),
            grant: job.grant,
            spec: job.spec,
            images: Vec::new(),
            secrets: Vec::new(),
            gap: None,
        });
    }
    /// The next report of the grant `n` in `state`.
    async fn until(&mut self, n: u8, state: &str) -> TaskReport {
        let wait = async {
            loop {
                self.reader.changed().await;
                let news = self.reader.take(&self.reports);
                if let Some(r) = news.into_iter().find(|r| r.grant_id == [n; 16] && r.state == state) {
                    return r;
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
        waited.unwrap_or_else(|_| panic!("waited in vain for {state}"))
    }
    fn record(&self, n: u8) -> Option<Record> {
        let found = Records::new(self.dir.path()).load().unwrap();
        found.whole.into_iter().find(|(id, _)| *id == GrantId([n; 16])).map(|(_, r)| r)
    }
}

#[tokio::test]
async fn the_secrets_of_a_task_are_gone_before_its_end_is_told() {
    let mut b = Bench::new(Fake::default());
    b.begin(1, 7);
    b.until(1, "running").await;
    assert!(b.record(1).unwrap().prepared);
    b.ground.end("shop.web.1.7.0", 0);
    let told = b.until(1, "done").await;
    assert_eq!((told.exit_code, told.detail.as_str()), (0, "exited with 0"));
    let mut diary = b.ground.diary();
    diary.truncate(4);
    assert_eq!(diary, ["fetch shop.web.1.7", "mount shop.web.1.7", "start shop.web.1.7.0", "unmount shop.web.1.7"]);
    assert_eq!(b.record(1).unwrap().over, Some(told));
}

/// Such an end was once logged and told all the same.
#[tokio::test]
async fn a_task_whose_secrets_cannot_be_removed_is_not_over() {
    let mut b = Bench::new(Fake::with_stuck_secrets(2));
    b.begin(1, 7);
    b.until(1, "running").await;
    b.ground.end("shop.web.1.7.0", 0);
    let told = b.until(1, "running").await;
    assert!(told.detail.contains("secrets are not removed yet"), "{told:?}");
    assert_eq!(b.until(1, "done").await.detail, "exited with 0");
    assert_eq!(b.ground.diary().iter().filter(|d| d.starts_with("unmount")).count(), 3);
}

#[tokio::test]
async fn an_end_that_could_not_be_concluded_is_concluded_by_the_next_agent_and_nothing_is_started() {
    let mut b = Bench::new(Fake::with_stuck_secrets(1));
    b.begin(1, 7);
    b.until(1, "running").await;
    b.tasks.stop(&GrantId([1; 16]), Duration::ZERO, "told to");
    assert!(b.until(1, "running").await.detail.contains("secrets are not removed yet"));
    let mut next = b.next_agent().await;
    assert_eq!(next.until(1, "stopped").await.detail, "told to");
    assert_eq!(next.ground.diary().iter().filter(|d| d.starts_with("start")).count(), 1);
}

#[tokio::test]
async fn images_are_looked_through_when_a_task_is_over_and_those_of_others_stay() {
    let mut b = Bench::new(Fake::default());
    b.begin(1, 7);
    b.until(1, "running").await;
    b.ground.end("shop.web.1.7.0", 0);
    b.until(1, "done").await;
    let pruned = async {
        while !b.ground.diary().contains(&"images in use: 0".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), pruned).await.unwrap();
}

#[tokio::test]
async fn a_crashed_container_gets_a_successor_with_the_same_secrets() {
    let mut b = Bench::new(Fake::default());
    b.begin(1, 7);
    b.until(1, "running").await;
    b.ground.end("shop.web.1.7.0", 3);
    assert_eq!(b.until(1, "restarting").await.exit_code, 3);
    b.clock.fetch_add(60_000, Ordering::Relaxed);
    assert_eq!(b.until(1, "running").await.restarts, 1);
    assert!(b.ground.runs("shop.web.1.7.1"));
    assert_eq!(b.ground.diary().iter().filter(|d| d.starts_with("mount")).count(), 1);
    assert_eq!(b.record(1).unwrap().attempt, 1);
    let outputs = b.tasks.outputs(&ServiceRef::of("shop", "web").unwrap(), None).unwrap();
    assert_eq!(outputs.iter().map(|o| o.attempt).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn a_task_that_waits_for_its_image_can_be_stopped() {
    let mut b = Bench::new(Fake::without_images());
    b.begin(1, 7);
    b.until(1, "started").await;
    assert!(b.tasks.stop(&GrantId([1; 16]), Duration::ZERO, "told to"));
    assert_eq!(b.until(1, "stopped").await.detail, "told to");
    assert!(!b.ground.diary().iter().any(|d| d.starts_with("start")));
    assert!(!b.tasks.stop(&GrantId([1; 16]), Duration::ZERO, "again"));
}

#[tokio::test]
async fn a_generation_begins_only_when_the_one_before_has_ended() {
    let mut b = Bench::new(Fake::default());
    b.begin(1, 7);
    b.until(1, "running").await;
    b.begin(2, 8);
    b.until(2, "running").await;
    let diary = b.ground.diary();
    let at = |what: &str| diary.iter().position(|d| d == what).unwrap_or_else(|| panic!("no {what} in {diary:?}"));
    assert!(at("stop shop.web.1.7.0") < at("unmount shop.web.1.7"));
    assert!(at("unmount shop.web.1.7") < at("start shop.web.1.8.0"));
    assert!(!b.ground.runs("shop.web.1.7.0") && b.ground.runs("shop.web.1.8.0"));
}

#[tokio::test]
async fn the_next_agent_adopts_what_runs_and_learns_how_it_ends() {
    let mut b = Bench::new(Fake::default());
    b.begin(1, 7);
    b.until(1, "running").await;
    let mut next = b.next_agent().await;
    next.until(1, "running").await;
    next.ground.end("shop.web.1.7.0", 0);
    assert_eq!(next.until(1, "done").await.exit_code, 0);
    assert_eq!(next.ground.diary().iter().filter(|d| d.starts_with("start")).count(), 1);
}

/// The board was empty for a moment, in which a stream could begin: the vault then took all tasks for gone.
#[tokio::test]
async fn what_is_adopted_is_on_the_board_before_any_stream_can_begin() {
    let mut b = Bench::new(Fake::default());
    b.begin(1, 7);
    b.until(1, "running").await;
    let job = job::tests::job(2, 1, NOW);
    let grant = Grant { task_id: "shop.web.2".into(), ..job.grant };
    let over = TaskReport { state: "done".into(), ..TaskReport::default() };
    let ended = Record { grant: Some(grant), spec: Some(job.spec), over: Some(over), ..Record::default() };
    Records::new(b.dir.path()).save(&job.id, &ended).unwrap();
    let next = b.next_agent().await;
    let held: Vec<String> = next.reports.held().into_iter().map(|t| t.state).collect();
    assert_eq!(held, ["running", "running"]);
}

#[tokio::test]
async fn a_container_that_is_still_coming_up_is_adopted_and_gets_no_twin() {
    let mut b = Bench::new(Fake::default());
    b.begin(1, 7);
    b.until(1, "running").await;
    b.ground.is_coming_up("shop.web.1.7.0");
    let mut next = b.next_agent().await;
    next.until(1, "running").await;
    next.ground.end("shop.web.1.7.0", 0);
    assert_eq!(next.until(1, "done").await.restarts, 0);
    assert_eq!(next.ground.diary().iter().filter(|d| d.starts_with("start")).count(), 1);
}

#[tokio::test]
async fn an_end_is_told_again_by_the_next_agent_until_the_vault_knows_it() {
    let mut b = Bench::new(Fake::default());
    b.begin(1, 7);
    b.until(1, "running").await;
    b.ground.end("shop.web.1.7.0", 0);
    b.until(1, "done").await;
    let mut next = b.next_agent().await;
    next.until(1, "done").await;
    // Two reports may have been sent: that it is being concluded, and its end.
    assert!((0..2).any(|_| next.reader.acknowledged(&next.reports, &GrantId([1; 16]))));
    next.tasks.forget(GrantId([1; 16])).await;
    assert!(next.record(1).is_none() && !next.reports.knows(&GrantId([1; 16])));
}

#[tokio::test]
async fn a_container_without_a_record_is_ended_by_the_next_agent() {
    let mut b = Bench::new(Fake::default());
    b.begin(1, 7);
    b.until(1, "running").await;
    b.ground.plant("shop.db.1.1.0");
    let next = b.next_agent().await;
    assert!(!next.ground.runs("shop.db.1.1.0") && next.ground.runs("shop.web.1.7.0"));
    assert!(next.ground.diary().contains(&"keep shop.web.1.7".to_owned()));
}

#[tokio::test]
async fn a_task_that_was_never_started_fails_when_the_agent_comes_back() {
    let b = Bench::new(Fake::default());
    let job = job::tests::job(1, 7, NOW);
    let record =
        Record { grant: Some(job.grant), spec: Some(job.spec), lease_until_ms: NOW.0 + 1, ..Record::default() };
    Records::new(b.dir.path()).save(&job.id, &record).unwrap();
    let mut next = b.next_agent().await;
    assert!(next.until(1, "failed").await.detail.contains("before the task was started"));
    assert!(!next.ground.diary().iter().any(|d| d.starts_with("start")));
}
