//! The processes that keep a token's module, which is code of others, out of the vault's address space.
//!
//! The *keeper* is started by the vault before it confines itself. It holds the PIN and never loads a module. It starts a
//! *worker* when the vault asks for one, hands each of them an end of one channel, and kills the worker when the vault asks
//! for that. The worker loads the module, logs in once, and serves one request after the other. Both find their channel as
//! their standard input; both end when the vault does.

mod channel;
mod keeper;
mod worker;

pub(crate) use channel::Channel;
pub use keeper::keeper_main;
pub use worker::worker_main;

use crate::message::{Order, Setup, Started, decode, encode};
use crate::port::KeyError;
use crate::uri::Uri;
use holdfast_types::SecretBytes;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The first argument that makes a program a keeper.
pub const KEEPER: &str = "hsm-keeper";
/// The first argument that makes a program a worker.
pub const WORKER: &str = "hsm-worker";
/// The longest PIN, in bytes; PKCS#11 tokens say what they allow, and none allows more.
pub const LONGEST_PIN: usize = 255;
/// How long the keeper may take to end one worker and start the next: it only waits for the kernel.
const KEEPERS_OWN: Duration = Duration::from_secs(5);

/// What systemd gives to the vault alone.
const NOT_PASSED_ON: &[&str] = &[
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "CREDENTIALS_DIRECTORY",
];

/// What a keeper is started with.
#[derive(Debug)]
pub struct KeeperOptions {
    /// The token.
    pub uri: Uri,
    /// Its user PIN.
    pub pin: SecretBytes,
    /// How long one call may take.
    pub deadline: Duration,
}

/// The vault's hold on its keeper, which ends when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    link: Channel,
    child: Child,
    deadline: Duration,
    /// How many workers were asked for.
    asked: u64,
}

impl Keeper {
    /// Starts `program` as a keeper. Call it before the process confines itself, and before it has threads.
    pub fn spawn(program: &Path, opts: KeeperOptions) -> io::Result<Self> {
        let KeeperOptions { uri, pin, deadline } = opts;
        if pin.len() > LONGEST_PIN {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the PIN is longer than 255 bytes"));
        }
        let (mine, theirs) = Channel::pair()?;
        let mut command = Command::new(program);
        command.arg(KEEPER).stdin(theirs.into_stdio()).stdout(Stdio::null()).process_group(0);
        for name in NOT_PASSED_ON {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        let mut setup = Setup { uri, pin: pin.expose().to_vec() };
        let bytes = encode(&setup, 16 << 10).map_err(io::Error::other);
        zeroize::Zeroize::zeroize(&mut setup.pin);
        mine.send(&bytes?)?;
        Ok(Self { link: mine, child, deadline, asked: 0 })
    }
    /// How long one call may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
    /// The keeper's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// A new worker in place of any that there is: the vault's end of its channel. The worker's first message says whether
    /// it could log in.
    pub(crate) fn start(&mut self) -> Result<Channel, KeyError> {
        let gone = |e: io::Error| KeyError::Unavailable(format!("the keeper of the token: {e}"));
        let ended = || KeyError::Unavailable("the keeper of the token ended: restart the vault".to_owned());
        self.asked += 1;
        self.link.send(&encode(&Order::Start(self.asked), 16)?).map_err(gone)?;
        loop {
            let (bytes, channel) = self.link.receive_with(Some(KEEPERS_OWN)).map_err(gone)?.ok_or_else(ended)?;
            let Started { number, done } = decode(&bytes)?;
            // An answer to what was given up before is left where it is.
            if number == self.asked {
                done?;
                return channel
                    .ok_or_else(|| KeyError::Unavailable("the keeper of the token gave no worker".to_owned()));
            }
        }
    }
    /// Ends the worker. A keeper that is gone has ended it already.
    pub(crate) fn stop(&self) {
        drop(encode(&Order::Stop, 16).map(|bytes| self.link.send(&bytes)));
    }
}

/// What both processes do first: no new rights, and nothing of them is dumped or attached to.
fn confine() {
    rustix::thread::set_no_new_privs(true).ok();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
}
