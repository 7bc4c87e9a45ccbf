//! Callers with good credentials that do too much: each is answered at a pace, once, and keeps nobody else waiting.

use super::callers::{Calls, machine};
use super::world::{PATIENCE, World, eventually};
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::join::{Admitted, Applicant, read_token};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::now;
use holdfast_transport::rpc::command_plane_client::CommandPlaneClient;
use holdfast_transport::rpc::identity_client::IdentityClient;
use holdfast_transport::rpc::join_client::JoinClient;
use holdfast_transport::rpc::sched_plane_client::SchedPlaneClient;
use holdfast_transport::tls::{ClientTls, IdentityCell};
use holdfast_wire::token::TokenRole;
use holdfast_wire::v1::directory_event::Event;
use holdfast_wire::v1::{
    AwaitRequest, KeepLeaseRequest, ReleaseGrantsRequest, RenewRequest, Statement, SubmitRequest,
    WatchDirectoryRequest, await_reply,
};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

#[test]
fn a_machine_is_given_so_many_certificates_in_a_row_and_no_more() {
    let mut w = World::founded();
    w.add_orchestrator();
    let calls = Calls::believing(&w);
    w.add_node("eu");
    w.agents[0].kill();
    let link = calls.service(&w, &IdentityCell::new(machine(&w.agent_state(0)))).unwrap();
    let request =
        RenewRequest { csr: PrivateKey::generate().unwrap().csr().unwrap(), hpke_pub: vec![7; 32], bundle_epoch: 0 };
    let (given, refused) = Runtime::new().unwrap().block_on(async {
        let mut client = IdentityClient::new(link.channel.clone());
        let mut given = 0;
        loop {
            match client.renew(request.clone()).await {
                Ok(_) if given < 100 => given += 1,
                Ok(_) => panic!("it is given one after the other"),
                Err(status) => break (given, Failure::from(status)),
            }
        }
    });
    assert_eq!((given, refused.code.as_ref()), (32, "too-many-requests"), "{refused}");
    // Its own renewal is hours away, and its certificate counts.
    w.start_agent(0, &[]);
    eventually("the node to be back", || {
        let all = w.json(&["node", "ls"]);
        let up = |n: &serde_json::Value| n["role"] == "node" && n["connected"] == true;
        all["nodes"].as_array()?.iter().any(up).then_some(())
    });
}

#[test]
fn an_applicants_question_is_answered_once() {
    let mut w = World::founded();
    w.add_orchestrator();
    let token = read_token(&w.token("node", &["--approval"]), TokenRole::Node).unwrap();
    let key = PrivateKey::generate().unwrap();
    let dialer = Dialer::new([format!("127.0.0.1:{}", w.join)], ClientTls::join(token.anchor), Timing::default());
    let (runtime, stop) = (Runtime::new().unwrap(), CancellationToken::new());
    let admitted = runtime.block_on(async {
        let applicant = Applicant { token: &token, key: &key, hpke_pub: &[7; 32] };
        let judge = |server: &_, shown: &_| holdfast_orchestrator::trust::believe(token.anchor, server, shown);
        applicant.join(&dialer, Duration::from_secs(30), &stop, judge).await.unwrap().1
    });
    let Admitted::Pending(pending) = admitted else { panic!("it was admitted without approval") };
    let question = |at_ms: i64| {
        let said = [b"holdfast/v1/await".as_slice(), pending.id.as_bytes(), &at_ms.to_be_bytes()].concat();
        AwaitRequest {
            id: pending.id.clone(),
            spki: key.spki_der().to_vec(),
            at_ms,
            signature: key.sign(&said).unwrap(),
        }
    };
    let ask = |q: &AwaitRequest| {
        runtime.block_on(async {
            let link = dialer.dial().await.unwrap();
            let answer = JoinClient::new(link.channel.clone()).r#await(q.clone()).await;
            answer.map(|r| r.into_inner().step).map_err(Failure::from)
        })
    };
    let first = question(now().0);
    assert!(matches!(ask(&first), Ok(Some(await_reply::Step::Pending(_)))));
    w.ok(&["node", "approve", &pending.id, "--key", &key.spki_sha256().hex()]);
    // Now it would be answered with a certificate and the node's own key.
    for old in [first.clone(), question(first.at_ms - 1)] {
        assert_eq!(ask(&old).unwrap_err().code, "clock", "a question was answered that somebody may have recorded");
    }
    let next = question(first.at_ms + 1);
    assert!(matches!(ask(&next), Ok(Some(await_reply::Step::Issued(_)))));
    assert_eq!(ask(&next).unwrap_err().code, "clock");
}

#[test]
fn an_orchestrator_that_asks_without_end_is_refused_and_keeps_its_lease() {
    let mut w = World::founded();
    w.add_orchestrator();
    let calls = Calls::believing(&w);
    w.orchestrator.as_mut().unwrap().kill();
    let identity = IdentityCell::new(machine(&w.path("orch")));
    let (flood, lease) = (calls.service(&w, &identity).unwrap(), calls.service(&w, &identity).unwrap());
    let (answered, refused) = Runtime::new().unwrap().block_on(async {
        let all: Vec<_> = (0..600)
            .map(|_| {
                let mut client = SchedPlaneClient::new(flood.channel.clone());
                tokio::spawn(async move { client.release_grants(ReleaseGrantsRequest::default()).await.map(drop) })
            })
            .collect();
        // Its burst is used up: while the others wait in their line, its lease goes on.
        let used_up = async {
            while all.iter().filter(|call| call.is_finished()).count() < 201 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, used_up).await.expect("its burst is not answered");
        let mut client = SchedPlaneClient::new(lease.channel.clone());
        let ask = KeepLeaseRequest { session_addr: format!("127.0.0.1:{}", w.session), bundle_epoch: 0 };
        let kept = tokio::time::timeout(PATIENCE, async {
            let mut answers = client.keep_lease(tokio_stream::once(ask)).await.unwrap().into_inner();
            answers.message().await.unwrap().unwrap()
        });
        kept.await.expect("its lease is not answered");
        assert!(all.iter().any(|call| !call.is_finished()), "its lease waited behind what it floods");
        let (mut answered, mut refused) = (0, 0);
        for call in all {
            match call.await.unwrap().map_err(Failure::from) {
                Ok(()) => answered += 1,
                Err(f) => {
                    assert_eq!(f.code, "too-many-requests", "{f}");
                    refused += 1;
                }
            }
        }
        (answered, refused)
    });
    assert!(answered >= 200 && refused > 0, "{answered} answered, {refused} refused");
}

/// Every statement that the directory shows of shop/web, as each orchestrator holds them: its spec, and the voucher of its image.
async fn shown(client: &mut SchedPlaneClient<tonic::transport::Channel>) -> Vec<Statement> {
    let mut events = client.watch_directory(WatchDirectoryRequest::default()).await.unwrap().into_inner();
    loop {
        if let Some(Event::Service(view)) = events.message().await.unwrap().unwrap().event {
            let versions = view.versions.into_iter();
            return versions.flat_map(|v| v.spec.into_iter().chain(v.vouchers)).collect();
        }
    }
}

#[test]
fn statements_that_are_repeated_without_end_make_no_entries() {
    let mut w = World::founded();
    w.add_orchestrator();
    let image = w.busybox();
    let body =
        format!("name = \"web\"\nnamespace = \"shop\"\nimage = {image:?}\ncommand = [\"/bin/busybox\", \"true\"]\n");
    w.ok(&["service", "deploy", "-f", &w.write_spec("web", &body), "--detach"]);
    let calls = Calls::believing(&w);
    w.orchestrator.as_mut().unwrap().kill();
    let link = calls.service(&w, &IdentityCell::new(machine(&w.path("orch")))).unwrap();
    let log = |w: &World| w.json(&["voter", "ls"])["voters"][0]["last_log"].as_u64().unwrap();
    let (before, channel) = (log(&w), link.channel.clone());
    let answered = Runtime::new().unwrap().block_on(async {
        let statements = shown(&mut SchedPlaneClient::new(channel.clone())).await;
        assert_eq!(statements.len(), 2, "a spec and a voucher");
        let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for statement in statements.into_iter().cycle().take(600) {
            let (mut client, told) = (CommandPlaneClient::new(channel.clone()), told.clone());
            tokio::spawn(async move {
                let request = SubmitRequest { statement: Some(statement), r#box: Vec::new() };
                drop(told.send(client.submit(request).await.map(drop).map_err(Failure::from)));
            });
        }
        // Those beyond its burst and its line are refused at once; nobody waits here for those in the line.
        let (mut answered, mut refused) = (0, 0);
        while refused == 0 || answered < 150 {
            let answer = tokio::time::timeout(PATIENCE, answers.recv()).await.expect("they are not answered").unwrap();
            match answer {
                Ok(()) => answered += 1,
                Err(f) => {
                    assert_eq!(f.code, "too-many-requests", "{f}");
                    refused += 1;
                }
            }
        }
        answered
    });
    let more = log(&w) - before;
    assert!(more < 30, "{answered} statements that changed nothing were answered, and the log has {more} entries more");
}
