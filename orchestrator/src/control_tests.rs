//! Requests for logs, over sessions that come and go.

use super::*;
use crate::scheduler::Settings;
use holdfast_wire::v1::directory_event::Event as Shown;
use holdfast_wire::v1::{GrantView, NodeView, Synced};
use tokio::sync::oneshot::error::TryRecvError;

struct World {
    control: Control,
    _inbox: mpsc::Sender<Input>,
}

fn node(n: u32) -> NodeId {
    NodeId::parse(&format!("node-{n}")).unwrap()
}

impl World {
    /// A task of `shop/web` runs on each of `nodes`; none has a session, and none is waited for.
    fn new(nodes: u32) -> Self {
        let settings = Settings { node_lost_after: Duration::from_secs(30), stop_timeout: Duration::from_secs(10) };
        let (inbox, inputs) = mpsc::channel(1);
        let (vault, _) = mpsc::unbounded_channel();
        let (readiness, heart) = (Readiness::not_yet("a test"), Heartbeat::default());
        let mut control = Control::new(Scheduler::new(settings), inputs, vault, readiness, heart);
        for n in 1..=nodes {
            let view = NodeView {
                id: node(n).to_string(),
                role: "node".into(),
                state: "ready".into(),
                zone: "eu".into(),
                connected: true,
                ..NodeView::default()
            };
            let grant = GrantView {
                grant_id: vec![u8::try_from(n).unwrap(); 16],
                task_id: format!("shop.web.{n}"),
                node_id: node(n).to_string(),
                state: "running".into(),
                task_state: "running".into(),
                ..GrantView::default()
            };
            show(&mut control, Shown::Node(view));
            show(&mut control, Shown::Grant(grant));
        }
        show(&mut control, Shown::Synced(Synced::default()));
        let mut w = Self { control, _inbox: inbox };
        (1..=nodes).for_each(|n| w.is_gone(n));
        w
    }
    fn open(&mut self, n: u32, session: u64) -> mpsc::Receiver<Result<SessionOrder, Status>> {
        let (orders, queue) = mpsc::channel(8);
        let capacity = Resources { cpu_milli: 1000, memory_bytes: 1 << 30 };
        let held = BTreeSet::from([GrantId([u8::try_from(n).unwrap(); 16])]);
        self.control.take(now(), Input::Opened { node: node(n), session, capacity, held, orders });
        queue
    }
    fn close(&mut self, n: u32, session: u64) {
        self.control.take(now(), Input::Closed { node: node(n), session });
    }
    /// The node was last here long ago.
    fn is_gone(&mut self, n: u32) {
        let long_ago = Instant::now().checked_sub(2 * RETURN).expect("the machine is up for longer");
        self.control.absent.left(node(n), long_ago);
    }
    fn ask(&mut self) -> oneshot::Receiver<BTreeSet<Asked>> {
        let (asked, answer) = oneshot::channel();
        let service = ServiceRef::of("shop", "web").unwrap();
        let logs = LogsAsked { request: Statement::default(), service, task: None, asked };
        self.control.take(now(), Input::Logs(logs));
        answer
    }
    fn after(&mut self, time: Duration) {
        self.control.ask_those_who_came(Instant::now() + time);
    }
}

fn show(control: &mut Control, event: Shown) {
    control.take(now(), Input::Directory(Box::new(DirectoryEvent { event: Some(event) })));
}
fn asks_for_logs(queue: &mut mpsc::Receiver<Result<SessionOrder, Status>>) -> bool {
    std::iter::from_fn(|| queue.try_recv().ok())
        .any(|o| matches!(o.unwrap().order, Some(session_order::Order::Logs(_))))
}

#[tokio::test]
async fn those_who_are_here_are_asked_at_once_and_nobody_waits_for_those_who_are_gone() {
    let mut w = World::new(2);
    let mut one = w.open(1, 7);
    assert_eq!(w.ask().try_recv().unwrap(), [(node(1), 7)].into());
    assert!(asks_for_logs(&mut one));
}

#[tokio::test]
async fn a_request_waits_for_a_node_whose_session_is_being_replaced() {
    let mut w = World::new(2);
    let (mut one, _two) = (w.open(1, 1), w.open(2, 2));
    w.close(2, 2);
    let mut answer = w.ask();
    w.after(RETURN / 2);
    assert_eq!(answer.try_recv().unwrap_err(), TryRecvError::Empty);
    assert!(!asks_for_logs(&mut one), "all are asked together");
    let mut two = w.open(2, 3);
    w.after(RETURN / 2);
    assert_eq!(answer.try_recv().unwrap(), [(node(1), 1), (node(2), 3)].into());
    assert!(asks_for_logs(&mut one) && asks_for_logs(&mut two));
}

#[tokio::test]
async fn a_request_waits_no_longer_than_a_session_takes() {
    let mut w = World::new(1);
    let one = w.open(1, 1);
    w.close(1, 1);
    drop(one);
    let (mut answer, gone) = (w.ask(), w.ask());
    drop(gone);
    w.after(Duration::ZERO);
    assert_eq!(w.control.waiting.len(), 1, "nothing is kept for an operator who left");
    w.after(RETURN);
    assert_eq!(answer.try_recv().unwrap(), BTreeSet::new());
    assert!(w.control.waiting.is_empty());
}

#[tokio::test]
async fn the_end_of_a_session_that_was_replaced_is_no_news() {
    let mut w = World::new(1);
    let _before = w.open(1, 1);
    let mut after = w.open(1, 2);
    w.close(1, 1);
    assert_eq!(w.ask().try_recv().unwrap(), [(node(1), 2)].into());
    assert!(asks_for_logs(&mut after));
}
