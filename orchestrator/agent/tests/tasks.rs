//! A granted task on real ground: image from a layout, secrets in memory, a container that outlives its agent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use holdfast_agent::host::Host;
use holdfast_agent::image::{ImageStore, UnpackLimits};
use holdfast_agent::reports::{Reader, Reports};
use holdfast_agent::secretfs::SecretFs;
use holdfast_agent::state::records::Records;
use holdfast_agent::tasks::Tasks;
use holdfast_agent::tasks::ground::{Ground as _, Machine};
use holdfast_image::{Limits, Registries};
use holdfast_orchestrator_core::verify::{Accepted, OpenedSecret};
use holdfast_types::{Digest, GrantId, Millis, SecretBytes, ServiceRef};
use holdfast_wire::v1;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use support::oci::{Layout, Pack, busybox_layer};
use support::{Node, libcontainer, shell, within};
use tokio::runtime::Runtime;

const NOW: Millis = Millis(1_800_000_000_000);
const GRANT: GrantId = GrantId([7; 16]);

struct Agent {
    ground: Arc<Machine>,
    reports: Arc<Reports>,
    reader: Reader,
    tasks: Arc<Tasks<Machine>>,
}

fn agent(node: &Node) -> Agent {
    let dir = node.dir.path();
    fs::create_dir_all(dir.join("grants")).unwrap();
    let ground = Arc::new(Machine {
        containers: node.containers.clone(),
        images: ImageStore::open(
            &dir.join("images"),
            Registries::default(),
            Limits::default(),
            UnpackLimits::default(),
        )
        .unwrap(),
        secrets: SecretFs::open(dir.join("secrets")).unwrap(),
        host: Host::probe(&node.cgroup),
    });
    let reports = Arc::new(Reports::default());
    let tasks = Tasks::new(ground.clone(), Records::new(dir), reports.clone(), || NOW);
    Agent { ground, reader: reports.reader(), reports, tasks }
}

impl Agent {
    async fn until(&mut self, state: &str) -> v1::TaskReport {
        within(async {
            loop {
                self.reader.changed().await;
                for report in self.reader.take(&self.reports) {
                    assert!(report.state != "failed" || state == "failed", "{report:?}");
                    if report.state == state {
                        return report;
                    }
                }
            }
        })
        .await
    }
}

fn accepted(layout: &Path, image: Digest, script: &str) -> Accepted {
    let images = vec![v1::SpecImage {
        name: "main".into(),
        digest: image.to_vec(),
        source: format!("oci-layout:{}", layout.display()),
    }];
    let spec = v1::Spec { images, restart: "never".into(), ..shell(script) };
    let secret = v1::GrantSecret { name: "db-password".into(), target: "db-password".into(), ..Default::default() };
    let grant = v1::Grant {
        grant_id: GRANT.to_vec(),
        task_id: "shop.web.1".into(),
        task_gen: 3,
        namespace: "shop".into(),
        service: "web".into(),
        secrets: vec![secret],
        params: vec![v1::Param { name: "SLOT".into(), value: "1".into() }],
        lease_until_ms: NOW.0 + 3_600_000,
        ..v1::Grant::default()
    };
    let opened = OpenedSecret {
        name: "db-password".into(),
        version: 1,
        target: "db-password".into(),
        mode: 0o400,
        uid: 0,
        gid: 0,
        bytes: SecretBytes::new(b"correct horse".to_vec()),
    };
    let (grant_id, grant_sha256) = (GRANT, Digest([0; 32]));
    Accepted { grant_id, grant_sha256, grant, spec, images: Vec::new(), secrets: vec![opened], gap: None }
}

#[test]
fn a_granted_task_reads_its_secret_outlives_its_agent_and_leaves_nothing_behind() {
    let node = Node::new(libcontainer);
    let layout = node.dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    let image = Layout(&layout).image("x", &[busybox_layer()], Pack::Gzip, |_| ());
    let script = "cat /run/secrets/db-password; echo \" $SLOT\"; while ! test -e /tmp/end; do sleep 0.05; done; exit 4";
    // A runtime of its own, so that nothing of the first agent is left when it ends.
    let process = Runtime::new().unwrap();
    process.block_on(async {
        let mut first = agent(&node);
        first.tasks.begin(accepted(&layout, image, script));
        first.until("running").await;
    });
    process.shutdown_background();
    Runtime::new().unwrap().block_on(adopt_and_end(&node));
}

async fn adopt_and_end(node: &Node) {
    let mut next = agent(node);
    next.tasks.adopt().await.unwrap();
    next.until("running").await;
    let service = ServiceRef::of("shop", "web").unwrap();
    let outputs = next.tasks.outputs(&service, None).unwrap();
    let name = holdfast_agent::runtime::ContainerId::parse("shop.web.1.3.0").unwrap();
    assert_eq!(outputs.iter().map(|o| o.path.clone()).collect::<Vec<_>>(), [next.ground.output(&name)]);
    support::until("the secret in the output", || node.output(&name).contains("correct horse 1")).await;
    fs::write(format!("/proc/{}/root/tmp/end", node.init_pid(&name)), "").unwrap();
    let over = next.until("done").await;
    assert_eq!(over.exit_code, 4);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(node.dir.path().join("secrets").to_str().unwrap()));
    assert!(fs::read_dir(node.dir.path().join("secrets")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_revoked_task_is_stopped_although_it_does_not_listen() {
    let node = Node::new(libcontainer);
    let layout = node.dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    let image = Layout(&layout).image("x", &[busybox_layer()], Pack::Gzip, |_| ());
    let mut agent = agent(&node);
    agent.tasks.begin(accepted(&layout, image, "trap '' TERM; while true; do sleep 1; done"));
    agent.until("running").await;
    assert!(agent.tasks.stop(&GRANT, std::time::Duration::from_millis(50), "its grant was revoked"));
    let over = agent.until("stopped").await;
    assert_eq!((over.exit_code, over.detail.as_str()), (137, "its grant was revoked"));
}
