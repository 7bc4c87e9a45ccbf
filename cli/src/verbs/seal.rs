//! `seal`: voters drop their keys and wait for `unlock`; and what the verbs about voters' sockets share.

use crate::app::App;
use crate::args::Sockets;
use crate::errors::{Code, Failure};
use crate::socket::Socket;
use holdfast_types::ClusterId;
use holdfast_wire::v1;
use serde_json::{Value, json};
use std::time::Duration;

/// Runs the verb.
pub async fn run(app: &App, a: Sockets) -> Result<(), Failure> {
    let patience = app.timeout(Duration::from_secs(30));
    let mut done = Vec::new();
    for path in app.sockets(&a.sockets, false)? {
        let mut socket = Socket::connect(&path, patience).await?;
        let voter = socket.seal_status().await?.voter_id;
        socket.seal().await?;
        done.push((voter, "sealed".to_owned(), true));
    }
    report(app, &done)
}

/// Prints what became of voters: number, state, and whether that is news.
pub fn report(app: &App, done: &[(u64, String, bool)]) -> Result<(), Failure> {
    let document = |(voter, state, changed): &(u64, String, bool)| -> Value {
        json!({"voter": voter, "state": state, "changed": changed})
    };
    let line = |(voter, state, changed): &(u64, String, bool)| {
        if *changed { format!("voter {voter} is {state}") } else { format!("voter {voter} is open already: {state}") }
    };
    let lines: Vec<String> = done.iter().map(line).collect();
    let document = match done {
        [one] => document(one),
        all => json!({ "voters": all.iter().map(document).collect::<Vec<_>>() }),
    };
    app.out.done(&document, &lines.join("\n"))
}

/// If there is a context, the voter must be of its cluster: a key must not be tried on somebody else's voter.
pub fn check_cluster(app: &App, cluster: &ClusterId) -> Result<(), Failure> {
    match app.context() {
        Ok(ctx) if ctx.cluster != *cluster => {
            let what = format!("this voter belongs to cluster {cluster}, the context {:?} is another", ctx.dir.name());
            Err(Failure::new(Code::WrongCluster, what, "choose the context with --context, or another --vault-socket"))
        }
        Ok(_) => Ok(()),
        // On the voter's own host there need not be a context; the key decides.
        Err(f) if f.code == Code::NoContext.word() => Ok(()),
        Err(f) => Err(f),
    }
}

/// Waits until the voter is up, or `patience` is over; then the last state counts.
pub async fn wait_until_ready(socket: &mut Socket, patience: Duration) -> Result<v1::SealStatusReply, Failure> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let status = socket.seal_status().await?;
        if status.state == "ready" || tokio::time::Instant::now() >= deadline {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Keeps the addresses that the voter on this machine listens on now; a free port changes with every start.
pub fn remember_addresses(app: &App, status: &v1::SealStatusReply) -> Result<(), Failure> {
    let Ok(mut ctx) = app.context() else { return Ok(()) };
    if ClusterId::from_slice(&status.cluster_id) != Some(ctx.cluster) {
        return Ok(());
    }
    let before = ctx.settings.clone();
    prefer(&mut ctx.settings.service_addrs, &status.service_addr);
    prefer(&mut ctx.settings.join_addrs, &status.join_addr);
    if ctx.settings == before { Ok(()) } else { ctx.dir.write_settings(&ctx.settings) }
}

/// Puts `addr` first; forgets what lies beyond the addresses that a cluster of five voters could have had lately.
fn prefer(addrs: &mut Vec<String>, addr: &str) {
    if !addr.is_empty() && addrs.first().map(String::as_str) != Some(addr) {
        addrs.retain(|a| a != addr);
        addrs.insert(0, addr.to_owned());
        addrs.truncate(10);
    }
}
