//! The worker: loads the module, logs in once, and serves the vault's requests one after the other.
//!
//! Here runs code of others. It is killed without warning: nothing may depend on how it ends. What fails in a way that a new
//! session might mend ends the worker after it has answered, and the next one begins afresh.

use super::Channel;
use crate::direct::Token;
use crate::message::{Answer, Hello, LONGEST, PinEvent, Reply, Request, decode, encode};
use crate::port::{KeyError, KeyPort as _, Wraps as _};
use holdfast_types::SecretBytes;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::process::ExitCode;
use std::time::Duration;
use zeroize::Zeroize as _;

/// How long the keeper may take to say what this is for.
const FIRST: Duration = Duration::from_secs(10);

/// Serves as a worker of the keeper that started this process, until the vault or the keeper ends.
pub fn worker_main() -> ExitCode {
    set_parent_process_death_signal(Some(Signal::KILL)).ok();
    super::confine();
    let Ok(keeper) = Channel::stdin() else { return ExitCode::FAILURE };
    let Ok(Some((bytes, Some(vault)))) = keeper.receive_with(Some(FIRST)) else { return ExitCode::FAILURE };
    let Ok(hello) = decode::<Hello>(&bytes) else { return ExitCode::FAILURE };
    drop(bytes);
    let told = |event: PinEvent| {
        if let Ok(bytes) = encode(&event, 16) {
            drop(keeper.send(&bytes));
        }
    };
    let opened = Token::open_told(&hello.uri, Some(&SecretBytes::new(hello.pin)), hello.trust, &told);
    let ready = opened.as_ref().map(|_| Answer::Done).map_err(Clone::clone);
    if !say(&vault, ready) {
        return ExitCode::FAILURE;
    }
    if let Ok(token) = opened {
        while serve(&vault, &token) {}
    }
    ExitCode::SUCCESS
}

/// One request; false when there will be no other.
fn serve(vault: &Channel, token: &Token) -> bool {
    let Ok(Some(bytes)) = vault.receive(None) else { return false };
    let Ok(request) = decode::<Request>(&bytes) else { return false };
    drop(bytes);
    let reply = answer(token, request);
    let lost = matches!(reply, Err(KeyError::Unavailable(_)));
    say(vault, reply) && !lost
}

fn answer(token: &Token, request: Request) -> Reply {
    match request {
        Request::Check => token.check().map(|()| Answer::Done),
        Request::Generate { purpose, name } => token.generate(purpose, &name).map(Answer::Id),
        Request::Public(id) => token.public(&id).map(Answer::Bytes),
        Request::Sign { id, digest } => token.sign_digest(&id, &digest).map(Answer::Bytes),
        Request::Destroy(id) => token.destroy(&id).map(|()| Answer::Done),
        Request::List => token.list().and_then(|ids| {
            // An id is 16 bytes; some room is left for the head of the message.
            if ids.len() > LONGEST / 16 - 1 {
                return Err(KeyError::Refused(format!("the token holds {} keys: too many to list", ids.len())));
            }
            Ok(Answer::Ids(ids))
        }),
        Request::Wrap { label, aad, mut plain } => {
            let wrapped = token.wrap(&label, &plain, &aad);
            plain.zeroize();
            wrapped.map(Answer::Bytes)
        }
        Request::Unwrap { label, aad, blob } => {
            token.unwrap(&label, &blob, &aad).map(|plain| Answer::Bytes(plain.expose().to_vec()))
        }
    }
}

/// Sends a reply and wipes it.
fn say(vault: &Channel, mut reply: Reply) -> bool {
    let sent = encode(&reply, 1024).is_ok_and(|bytes| vault.send(&bytes).is_ok());
    if let Ok(Answer::Bytes(bytes)) = &mut reply {
        bytes.zeroize();
    }
    sent
}
