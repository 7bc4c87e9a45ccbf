//! Every RPC by every kind of caller, over real connections to real processes: what the tables of rights say, and
//! nothing else.
//!
//! The rows are the tables themselves, which tests beside them hold against the `.proto` files.

use super::callers::{Calls, machine, operator};
use super::world::{World, eventually};
use holdfast_orchestrator::rights;
use holdfast_transport::now;
use holdfast_transport::tls::{IdentityCell, LocalIdentity};
use holdfast_types::Role;
use holdfast_vault::rights::{Listener, TABLE};
use rustix::process::Uid;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Somebody who calls.
struct Caller {
    name: &'static str,
    identity: Arc<IdentityCell>,
    /// As what it is let in; or the word by which it is turned away in the handshake.
    role: Result<Role, &'static str>,
}

impl Caller {
    fn good(name: &'static str, identity: LocalIdentity) -> Self {
        let role = Ok(identity.id().role);
        Self { name, identity: IdentityCell::new(identity), role }
    }
    fn bad(name: &'static str, identity: LocalIdentity, word: &'static str) -> Self {
        Self { name, identity: IdentityCell::new(identity), role: Err(word) }
    }
}

/// The vault tells it so, who proved its key; to an orchestrator it is one that the directory does not show.
const REMOVED: &str = "a node that was removed";

/// A node that joined, whose agent is gone, and whose key is ours now.
fn stolen_node(w: &mut World) -> LocalIdentity {
    let n = w.start_joining("eu");
    let identity = w.agent_state(n).join("identity/identity.pem");
    eventually("the node to have joined", || identity.exists().then_some(()));
    w.agents[n].kill();
    machine(&w.agent_state(n))
}

/// A cluster with an orchestrator at work, and one of every kind of caller.
fn world_of_callers() -> (World, Vec<Caller>) {
    let mut w = World::founded();
    // Certificates of seconds for as long as it takes to get one.
    w.lives = "node = \"3s\"";
    w.write_vault_config();
    w.restart_vault();
    let expired = stolen_node(&mut w);
    w.lives = "";
    w.write_vault_config();
    w.restart_vault();
    w.add_orchestrator();
    let node = stolen_node(&mut w);
    let removed = stolen_node(&mut w);
    w.ok(&["node", "rm", &removed.id().name]);
    let foreign = stolen_node(&mut World::founded());
    // Validity counts whole seconds and includes its last one.
    let end = expired.not_after().plus(Duration::from_secs(1));
    eventually("the short certificate to end", || (now() > end).then_some(()));
    let nobody = Caller { name: "nobody", identity: IdentityCell::empty(), role: Err("certificate-refused") };
    let callers = vec![
        nobody,
        Caller::good("a node", node),
        Caller::good("the orchestrator", machine(&w.path("orch"))),
        Caller::good("an operator", operator(&w)),
        Caller::bad("a node of another cluster", foreign, "certificate-refused"),
        Caller::bad("a node whose certificate has ended", expired, "certificate-refused"),
        Caller::bad(REMOVED, removed, "certificate-refused"),
    ];
    (w, callers)
}

/// All RPCs there are, of the vault and of the orchestrator.
fn all_rpcs() -> Vec<&'static str> {
    TABLE.iter().map(|(_, path, ..)| *path).chain(rights::TABLE.iter().map(|(_, path, ..)| *path)).collect()
}

/// What `caller` meets on listener S.
fn on_service(caller: &Caller, rpc: &str) -> &'static str {
    let row = TABLE.iter().find(|(_, path, listener, ..)| *path == rpc && *listener == Listener::Service);
    match (caller.role, row) {
        (Err(word), _) => word,
        (Ok(_), None) => "unimplemented",
        (Ok(role), Some((.., roles, _))) if roles.contains(&role) => "past",
        (Ok(_), Some(_)) => "not-allowed",
    }
}

/// What `caller` meets on the orchestrator's listener.
fn on_orchestrator(caller: &Caller, rpc: &str) -> &'static str {
    let row = rights::TABLE.iter().find(|(_, path, ..)| *path == rpc);
    match (caller.role, row) {
        (Err(_), _) if caller.name == REMOVED => "identity-refused",
        (Err(word), _) => word,
        (Ok(Role::Orch), _) => "identity-refused",
        (Ok(_), None) => "unimplemented",
        (Ok(role), Some((_, _, allowed, _))) if allowed.contains(&role) => "past",
        (Ok(_), Some(_)) => "not-allowed",
    }
}

/// On listener J, where everybody is nobody.
fn on_join(rpc: &str) -> &'static str {
    let served = TABLE.iter().any(|(_, path, listener, ..)| *path == rpc && *listener == Listener::Join);
    if served { "past" } else { "unimplemented" }
}

fn log_size(w: &World) -> u64 {
    w.json(&["status"])["log_size"].as_u64().unwrap()
}

#[test]
fn e1_every_rpc_is_open_to_the_roles_of_the_table_and_to_nobody_else() {
    let (w, callers) = world_of_callers();
    let calls = Calls::believing(&w);
    let before = log_size(&w);
    let mut wrong = Vec::new();
    let mut judge = |listener: &str, caller: &str, rpc: &str, met: String, expected: &str| {
        if met != expected {
            wrong.push(format!("{listener} {rpc} by {caller}: {met}, not {expected}"));
        }
    };
    // Those who are turned away first: they change nothing.
    let matrix = || callers.iter().flat_map(|c| all_rpcs().into_iter().map(move |rpc| (c, rpc)));
    for (caller, rpc) in matrix().filter(|(c, rpc)| on_service(c, rpc) != "past") {
        let met = calls.meet(calls.service(&w, &caller.identity), rpc);
        judge("S", caller.name, rpc, met, on_service(caller, rpc));
    }
    for (caller, rpc) in matrix() {
        let met = calls.meet(calls.orchestrator(&w, &caller.identity), rpc);
        judge("orchestrator", caller.name, rpc, met, on_orchestrator(caller, rpc));
    }
    assert_eq!(log_size(&w), before, "a call that was turned away left a trace in the log");
    for (caller, rpc) in matrix().filter(|(c, rpc)| on_service(c, rpc) == "past") {
        let met = calls.meet(calls.service(&w, &caller.identity), rpc);
        judge("S", caller.name, rpc, met, "past");
    }
    for rpc in all_rpcs() {
        judge("J", "nobody", rpc, calls.meet(calls.join(w.join), rpc), on_join(rpc));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A client of one listener is not understood by another.
    let code = |link: Result<_, holdfast_transport::failure::Failure>| link.map(drop).unwrap_err().code;
    assert_eq!(code(calls.join(w.service)), "wrong-listener");
    assert_eq!(code(calls.join(w.session)), "wrong-listener");
}

/// A connection to the vault's socket, made with the rights of `uid`.
fn connect_as(w: &World, uid: u32) -> std::io::Result<UnixStream> {
    let socket = w.socket();
    // Rights are a thread's own here; the thread ends with them.
    let connect = move || {
        let uid = Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        UnixStream::connect(socket)
    };
    std::thread::spawn(connect).join().unwrap()
}

#[test]
fn f12_the_socket_answers_root_and_nobody_else() {
    const STRANGER: u32 = 65_534;
    let mut w = World::everything();
    let calls = Calls::believing(&w);
    let locals = || TABLE.iter().filter(|(_, _, listener, ..)| *listener == Listener::Local).map(|(_, path, ..)| *path);
    assert!(locals().count() >= 5);
    let kept_out = connect_as(&w, STRANGER).map(drop).unwrap_err();
    assert_eq!(kept_out.kind(), std::io::ErrorKind::PermissionDenied);
    // Even where somebody has loosened the modes, who connects is looked at.
    fs::set_permissions(w.dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(w.socket(), Permissions::from_mode(0o666)).unwrap();
    for rpc in locals() {
        let met = calls.meet_locally(connect_as(&w, STRANGER).unwrap(), rpc);
        assert!(!["past", "unimplemented"].contains(&met.as_str()), "{rpc} by a stranger: {met}");
    }
    assert_eq!(w.json(&["status", "--vault-socket", &w.socket()])["state"], "ready");
    for rpc in all_rpcs().into_iter().filter(|rpc| !locals().any(|local| local == *rpc)) {
        assert_eq!(calls.meet_locally(connect_as(&w, 0).unwrap(), rpc), "unimplemented", "{rpc} over the socket");
    }
    // `Local/Seal` is the table's last: it does what it says.
    for rpc in locals() {
        assert_eq!(calls.meet_locally(connect_as(&w, 0).unwrap(), rpc), "past", "{rpc} by root");
    }
    let vault = w.vault.as_mut().unwrap();
    assert_eq!(eventually("the vault to seal itself", || vault.exited()), Some(75));
}
