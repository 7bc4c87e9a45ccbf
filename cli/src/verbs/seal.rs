//! `unlock` and `seal`: opening and closing the voter on this machine.
//!
//! The key is read from the terminal, a file or standard input, turns the slot's box into the disk key here, and is
//! wiped; the voter is given the disk key of its own disk and nothing else.

use crate::app::App;
use crate::args::{Socket as SocketArg, Unlock};
use crate::errors::{Code, Failure};
use crate::files;
use crate::slots::SlotKey;
use crate::socket::Socket;
use holdfast_types::ClusterId;
use holdfast_wire::v1;
use serde_json::json;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// Longest key text, white space included.
const MAX_KEY_TEXT: u64 = 1024;

/// `unlock`.
pub async fn unlock(app: &App, a: Unlock) -> Result<(), Failure> {
    let patience = app.timeout(Duration::from_secs(30));
    let mut socket = Socket::connect(&app.socket(a.socket.vault_socket)?, patience).await?;
    let status = socket.seal_status().await?;
    match status.state.as_str() {
        "sealed" => {}
        "uninitialized" => {
            return Err(Failure::new(Code::Sealed, "this voter was never initialised", "run `holdfast init`"));
        }
        open => {
            let line = format!("voter {} is open already: {open}", status.voter_id);
            return app.out.done(&json!({"voter": status.voter_id, "state": open, "changed": false}), &line);
        }
    }
    let slots = socket.slot_boxes().await?;
    let cluster =
        ClusterId::from_slice(&slots.cluster_id).ok_or_else(|| Failure::untrusted("the voter names no cluster"))?;
    check_cluster(app, &cluster)?;
    let key = SlotKey::parse(&read_key(a.key_file.as_deref())?)?;
    let state = open(&mut socket, &cluster, &slots, &key, patience).await?;
    remember_addresses(app, &state)?;
    let line = format!("voter {} is {}", slots.voter_id, state.state);
    app.out.done(&json!({"voter": slots.voter_id, "state": state.state, "changed": true}), &line)
}

/// Turns the slot's box into the disk key here, hands it over, and waits until the voter is up.
pub async fn open(
    socket: &mut Socket,
    cluster: &ClusterId,
    slots: &v1::SlotBoxes,
    key: &SlotKey,
    patience: Duration,
) -> Result<v1::SealStatusReply, Failure> {
    let disk_key = key.open(cluster, slots)?;
    let slot = key.kind.word().to_owned();
    let request = v1::OpenSlotRequest { disk_key: disk_key.expose().to_vec(), dk_gen: slots.dk_gen, slot };
    drop(disk_key);
    socket.open_slot(request).await?;
    wait_until_ready(socket, patience).await
}

/// `seal`.
pub async fn seal(app: &App, a: SocketArg) -> Result<(), Failure> {
    let mut socket = Socket::connect(&app.socket(a.vault_socket)?, app.timeout(Duration::from_secs(30))).await?;
    let voter = socket.seal_status().await?.voter_id;
    socket.seal().await?;
    app.out.done(&json!({"voter": voter, "state": "sealed", "changed": true}), &format!("voter {voter} is sealed"))
}

/// If there is a context, the voter must be of its cluster: a key must not be tried on somebody else's voter.
fn check_cluster(app: &App, cluster: &ClusterId) -> Result<(), Failure> {
    match app.context() {
        Ok(ctx) if ctx.cluster != *cluster => {
            let what = format!("this voter belongs to cluster {cluster}, the context {:?} is another", ctx.dir.name());
            Err(Failure::new(Code::BadKey, what, "choose the context with --context, or another --vault-socket"))
        }
        Ok(_) => Ok(()),
        // On the voter's own host there need not be a context; the key decides.
        Err(f) if f.code == Code::NoContext.word() => Ok(()),
        Err(f) => Err(f),
    }
}

fn read_key(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let bytes = match file {
        Some(path) if path != Path::new("-") => files::read_private(path, MAX_KEY_TEXT)?,
        None if std::io::stdin().is_terminal() => {
            let prompt = rpassword::prompt_password("unlock or recovery key: ").map(Zeroizing::new);
            return prompt
                .map_err(|e| Failure::new(Code::Io, format!("cannot read from the terminal: {e}"), "use --key-file"));
        }
        Some(_) | None => files::read_limited(std::io::stdin().lock(), MAX_KEY_TEXT, "standard input")?,
    };
    let text = std::str::from_utf8(&bytes).map(|t| Zeroizing::new(t.to_owned()));
    text.map_err(|_| Failure::new(Code::BadKey, "the key is not text", "give the key as `holdfast init` printed it"))
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
