//! The liar: the honest orchestrator's own key, certificate and address, and none of its manners.

use super::super::world::{World, eventually};
use holdfast_orchestrator::{join, state::StateDir};
use holdfast_transport::client::{Dialer, Link, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::sched_plane_client::SchedPlaneClient;
use holdfast_transport::rpc::session_server::{Session, SessionServer};
use holdfast_transport::server::{Connections, Limits, peer_of, serve};
use holdfast_transport::tls::{Admission, Alpn, ClientTls, Expect, IdentityCell, Peer, Refused, ServerTls};
use holdfast_types::Role;
use holdfast_wire::v1::directory_event::Event;
use holdfast_wire::v1::session_report::Report;
use holdfast_wire::v1::{
    Assign, AssignResult, GrantIssued, GrantRequest, KeepLeaseRequest, LeaseState, RequestGrantsRequest,
    ServiceVersion, SessionOrder, SessionReport, Stop, WatchDirectoryRequest, grant_result, session_order,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

type Orders = mpsc::Sender<Result<SessionOrder, Status>>;

/// What nodes have said, and how to give them orders.
#[derive(Default)]
struct Nodes {
    orders: BTreeMap<String, Orders>,
    said: Vec<(String, Report)>,
}

#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Nodes>>);

#[tonic::async_trait]
impl Session for Listener {
    type SessionStream = ReceiverStream<Result<SessionOrder, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionReport>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = peer_of(&request)?.id.name.clone();
        let (orders, queue) = mpsc::channel(16);
        self.0.lock().unwrap().orders.insert(node.clone(), orders);
        let (nodes, mut reports) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(SessionReport { report: Some(report) })) = reports.message().await {
                nodes.lock().unwrap().said.push((node.clone(), report));
            }
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

struct Anybody;
impl Admission for Anybody {
    fn admit(&self, _: &Peer, _: SocketAddr) -> Result<(), Refused> {
        Ok(())
    }
}

/// The evil orchestrator, at work.
pub struct Evil {
    runtime: Runtime,
    link: Link,
    leases: watch::Receiver<Vec<LeaseState>>,
    nodes: Arc<Mutex<Nodes>>,
    keeper: JoinHandle<()>,
    stop: CancellationToken,
}

impl Evil {
    /// Ends the honest orchestrator and takes its place; returns once every agent has a session with it.
    pub fn in_place_of_the_honest_one(w: &mut World) -> Self {
        let identity = w.path("orch").join("identity/identity.pem");
        eventually("the honest orchestrator to have joined", || identity.exists().then_some(()));
        w.orchestrator.take().unwrap().kill();
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let state = StateDir::open(&w.path("orch")).unwrap();
        let file = state.load().unwrap().unwrap();
        let vault = file.service_addrs.clone();
        let (identity, believed) = join::open(&state, file).unwrap();
        let (cell, trust) = (IdentityCell::new(identity), believed.tls());
        let tls = ClientTls::mutual(cell.clone(), trust.clone(), Expect::Role(Role::Vault), Alpn::Service);
        let link = runtime.block_on(Dialer::new(vault, tls, Timing::default()).dial()).unwrap();
        let (told, leases) = watch::channel(Vec::new());
        let keeper = runtime.spawn(keep_lease(link.clone(), format!("127.0.0.1:{}", w.session), told));

        let (listener, stop) = (Listener::default(), CancellationToken::new());
        let nodes = listener.0.clone();
        let tcp = runtime.block_on(TcpListener::bind(("127.0.0.1", w.session))).unwrap();
        let tls = ServerTls::mutual(cell, trust, Arc::new(Anybody), Alpn::Orchestrator);
        let routes = Routes::new(SessionServer::new(listener));
        runtime.spawn(serve(tcp, tls, routes, Connections::new(), Limits::default(), stop.clone()));
        drop(inside);
        let evil = Self { runtime, link, leases, nodes, keeper, stop };
        eventually("a session with every node", || (evil.sessions() == w.agents.len()).then_some(()));
        evil
    }
    fn sessions(&self) -> usize {
        self.nodes.lock().unwrap().orders.len()
    }
    /// The fence of the lease that is held for `namespace`.
    pub fn lease(&self, namespace: &str) -> Option<u64> {
        self.leases.borrow().iter().find(|l| l.namespace == namespace).map(|l| l.fence)
    }
    /// Keeps its leases no longer; it goes on with everything else.
    pub fn lets_its_leases_end(&self) {
        self.keeper.abort();
    }
    fn vault(&self) -> SchedPlaneClient<tonic::transport::Channel> {
        SchedPlaneClient::new(self.link.channel.clone())
    }

    /// A request for a grant of shop/web, with an id of its own.
    pub fn wish(node: &str, task: &str) -> RequestGrantsRequest {
        let wanted = GrantRequest {
            namespace: "shop".into(),
            service: "web".into(),
            node_id: node.into(),
            task_id: task.into(),
            ..GrantRequest::default()
        };
        let request_id = holdfast_types::sha256(&[task.as_bytes(), &holdfast_transport::now().0.to_be_bytes()]);
        RequestGrantsRequest { request_id: request_id.0[..16].to_vec(), requests: vec![wanted] }
    }
    /// Asks the vault for what a request says.
    pub fn send(&self, request: &RequestGrantsRequest) -> Result<grant_result::Result, Failure> {
        let reply = self.runtime.block_on(self.vault().request_grants(request.clone())).map_err(Failure::from)?;
        Ok(reply.into_inner().results.remove(0).result.unwrap())
    }
    /// Asks the vault for a grant of shop/web.
    pub fn ask(&self, node: &str, task: &str) -> grant_result::Result {
        self.send(&Self::wish(node, task)).unwrap()
    }
    /// A genuine assignment: what the vault gave, and what the deployer signed.
    pub fn genuine(&self, node: &str, task: &str) -> Assign {
        eventually("the lease of the namespace", || self.lease("shop"));
        let GrantIssued { grant, receipt, boxes } = match self.ask(node, task) {
            grant_result::Result::Issued(issued) => issued,
            grant_result::Result::Denied(denied) => panic!("the vault denied {task}: {denied:?}"),
        };
        let version = self.newest_spec();
        Assign { grant, receipt, spec: version.spec, vouchers: version.vouchers, boxes }
    }
    /// The newest version of shop/web in the directory.
    fn newest_spec(&self) -> ServiceVersion {
        self.runtime.block_on(async {
            let mut events = self.vault().watch_directory(WatchDirectoryRequest::default()).await.unwrap().into_inner();
            loop {
                if let Some(Event::Service(mut view)) = events.message().await.unwrap().unwrap().event
                    && view.service == "web"
                {
                    return view.versions.pop().unwrap();
                }
            }
        })
    }

    fn order(&self, node: &str, order: session_order::Order) {
        let orders = self.nodes.lock().unwrap().orders[node].clone();
        self.runtime.block_on(orders.send(Ok(SessionOrder { order: Some(order) }))).unwrap();
    }
    /// Gives an assignment to a node; its answer.
    pub fn assign(&self, node: &str, assign: &Assign) -> AssignResult {
        let is_answer = |(from, report): &(String, Report)| from == node && matches!(report, Report::AssignResult(_));
        self.nodes.lock().unwrap().said.retain(|said| !is_answer(said));
        self.order(node, session_order::Order::Assign(assign.clone()));
        eventually("the node's answer", || {
            self.nodes.lock().unwrap().said.iter().find_map(|(from, report)| {
                if let Report::AssignResult(result) = report
                    && from == node
                {
                    return Some(result.clone());
                }
                None
            })
        })
    }
    /// Gives an assignment to a node, which must refuse it with this code.
    pub fn refused(&self, node: &str, assign: &Assign, code: &str) {
        let answer = self.assign(node, assign);
        assert_eq!((answer.accepted, answer.check.as_str()), (false, code), "{answer:?}");
    }
    /// Orders a task to be stopped.
    pub fn stop(&self, node: &str, stop: Stop) {
        self.order(node, session_order::Order::Stop(stop));
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Keeps the leases for as long as the link lives.
async fn keep_lease(link: Link, session_addr: String, told: watch::Sender<Vec<LeaseState>>) {
    let (ask, questions) = mpsc::channel(1);
    let mut client = SchedPlaneClient::new(link.channel);
    let mut replies = client.keep_lease(ReceiverStream::new(questions)).await.unwrap().into_inner();
    let mut due = tokio::time::interval(Duration::from_secs(1));
    loop {
        due.tick().await;
        if ask.send(KeepLeaseRequest { session_addr: session_addr.clone(), bundle_epoch: 0 }).await.is_err() {
            return;
        }
        let Ok(Some(reply)) = replies.message().await else { return };
        told.send_replace(reply.leases);
    }
}
