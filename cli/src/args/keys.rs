//! The options of the verbs about voters and their keys.

use super::SignTo;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// The voter that a verb looks at.
#[derive(Debug, Args)]
pub struct Socket {
    /// Unix socket of the voter [default: as in the context]
    #[arg(long, value_name = "SOCKET")]
    pub vault_socket: Option<PathBuf>,
}

/// Voters that can be reached from here.
#[derive(Debug, Args)]
pub struct Sockets {
    /// Unix socket of a voter; may be repeated [default: as in the context]
    #[arg(long = "vault-socket", value_name = "SOCKET")]
    pub sockets: Vec<PathBuf>,
}

/// A key that is given, whole or in shares.
#[derive(Debug, Args)]
pub struct KeyInput {
    /// File with a key, or with shares, one a line; `-` is standard input; may be repeated [default: ask on the terminal]
    #[arg(long = "key-file", value_name = "FILE")]
    pub key_files: Vec<PathBuf>,
    /// File with a share of a key; may be repeated
    #[arg(long = "share-file", value_name = "FILE")]
    pub share_files: Vec<PathBuf>,
}
impl KeyInput {
    /// Of verbs that do without a key where none is named.
    pub fn of(key_file: Option<&Path>, share_files: &[PathBuf]) -> Option<Self> {
        let input =
            Self { key_files: key_file.map(Path::to_owned).into_iter().collect(), share_files: share_files.to_vec() };
        (!input.is_empty()).then_some(input)
    }
    /// Whether no file was named.
    pub fn is_empty(&self) -> bool {
        self.key_files.is_empty() && self.share_files.is_empty()
    }
}

/// A key that is made, whole or in shares.
#[derive(Debug, Args)]
pub struct KeyOutput {
    /// Split the new key into this many shares, at most 16
    #[arg(long, value_name = "N", requires = "threshold", value_parser = clap::value_parser!(u8).range(2..=16))]
    pub shares: Option<u8>,
    /// How many of the shares are needed
    #[arg(long, value_name = "K", requires = "shares", value_parser = clap::value_parser!(u8).range(2..=16))]
    pub threshold: Option<u8>,
    /// Write the new key to this file, mode 0600; shares to FILE.1, FILE.2 … [default: print it]
    #[arg(long, value_name = "FILE")]
    pub key_out: Option<PathBuf>,
}

/// Options of `unlock`.
#[derive(Debug, Args)]
pub struct Unlock {
    /// The voters.
    #[command(flatten)]
    pub voters: Sockets,
    /// Every voter whose socket the context names
    #[arg(long, conflicts_with = "sockets")]
    pub all: bool,
    /// The keys.
    #[command(flatten)]
    pub key: KeyInput,
}

/// `voter …`
#[derive(Debug, Subcommand)]
pub enum VoterVerb {
    /// List voters, and who waits to become one
    Ls,
    /// Let a machine that joined with a voter's token become a voter, by the key that its console shows
    Admit {
        /// Its id, as `voter ls` prints it
        id: String,
        /// SHA-256 of its public key, hex
        #[arg(long, value_name = "FINGERPRINT")]
        key: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Cut a voter off for ever; asks first
    Evict {
        /// Its number
        voter: u64,
        /// What it held counts as known to others; also of one that was evicted before
        #[arg(long)]
        compromised: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Have every voter replace the key of its disk
    RotateDiskKeys {
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
}

/// `autolock …`
#[derive(Debug, Subcommand)]
pub enum AutolockVerb {
    /// Make an unlock key; from now on every start of a voter needs it
    On {
        /// Begin again although an unlock key waits to take over: it is lost
        #[arg(long)]
        anew: bool,
        /// The new key.
        #[command(flatten)]
        new: KeyOutput,
        /// Where it is proven.
        #[command(flatten)]
        voters: Sockets,
    },
    /// Let voters open by themselves; their keys lie beside their disks from then on
    Off {
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
}

/// `unlock-key …`
#[derive(Debug, Subcommand)]
pub enum UnlockKeyVerb {
    /// Make a new unlock key; says when the old one is disposable
    Rotate(RotateUnlockKey),
    /// Show the key in force, and how far a rotation is
    Status,
    /// Split the key in force into shares
    Split {
        /// The key in force.
        #[command(flatten)]
        key: KeyInput,
        /// The shares.
        #[command(flatten)]
        new: KeyOutput,
        /// Where it is proven.
        #[command(flatten)]
        voters: Sockets,
    },
}

/// Options of `unlock-key rotate`.
#[derive(Debug, Args)]
pub struct RotateUnlockKey {
    /// The old key is in wrong hands: voters that are down cannot follow and must be evicted; all replace their disk keys
    #[arg(long)]
    pub compromised: bool,
    /// The old key is lost: voters that are down can be opened by the recovery key only
    #[arg(long, conflicts_with = "compromised")]
    pub lost: bool,
    /// Go on with the rotation that was cut off; the key to give is the new one
    #[arg(long, conflicts_with_all = ["compromised", "lost", "shares", "threshold", "key_out"])]
    pub resume: bool,
    /// Begin again although a rotation is under way: its new key is lost
    #[arg(long, conflicts_with = "resume")]
    pub anew: bool,
    /// The old key; with --resume the new one.
    #[command(flatten)]
    pub key: KeyInput,
    /// The new key.
    #[command(flatten)]
    pub new: KeyOutput,
    /// Where it is proven.
    #[command(flatten)]
    pub voters: Sockets,
}

/// `recovery-key …`
#[derive(Debug, Subcommand)]
pub enum RecoveryKeyVerb {
    /// Make a new recovery key and put it into a new version of the charter
    Rotate {
        /// The new key.
        #[command(flatten)]
        new: KeyOutput,
        /// Where it is proven.
        #[command(flatten)]
        voters: Sockets,
        /// What becomes of the charter.
        #[command(flatten)]
        to: SignTo,
    },
    /// Show the key in force, and which voters open with it
    Status,
}

/// `keyring …`
#[derive(Debug, Subcommand)]
pub enum KeyringVerb {
    /// Encrypt everything anew under a fresh key, and destroy the old one
    Rotate {
        /// Return as soon as it is ordered
        #[arg(long)]
        detach: bool,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Show the term in force, and what is left under older ones
    Status,
}
