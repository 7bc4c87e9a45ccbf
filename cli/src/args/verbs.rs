//! The options of each verb.

use super::{SignTo, duration};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Options of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Unix socket of the voter
    #[arg(long, value_name = "SOCKET")]
    pub vault_socket: PathBuf,
    /// Seal the voter at every start, until `unlock` opens it
    #[arg(long)]
    pub autolock: bool,
    /// The SPIFFE trust domain, such as prod.example.org [default: made of the keys]
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: Option<String>,
    /// Name of the founding operator [default: op-USER]
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
    /// Split the unlock key into this many shares, at most 16
    #[arg(long, value_name = "N", requires = "autolock", value_parser = clap::value_parser!(u8).range(2..=16))]
    pub unlock_shares: Option<u8>,
    /// How many of the shares open a voter
    #[arg(long, value_name = "K", requires = "unlock_shares", value_parser = clap::value_parser!(u8).range(2..=16))]
    pub unlock_threshold: Option<u8>,
    /// Make the root's key in the token that the voter is configured with; this is its PKCS#11 URI
    #[arg(long, value_name = "URI")]
    pub hsm: Option<String>,
}

/// `token …`
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Print a join token, alone, on standard output
    Create {
        /// What may join with it
        #[arg(long)]
        role: TokenRole,
        /// The joiner's zone; a node in `*` lies in no other, and runs only what may run anywhere
        #[arg(long, default_value = "*")]
        zone: String,
        /// A label that the joiner gets, key=value; may be repeated
        #[arg(long = "label", value_name = "K=V")]
        labels: Vec<String>,
        /// How long it is good for
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
        ttl: Duration,
        /// How many may join with it
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// Joiners wait for `node approve` (always so for orchestrators)
        #[arg(long)]
        approval: bool,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// List tokens
    Ls,
    /// Make a token useless
    Revoke {
        /// The token's id, as `token ls` prints it
        id: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
}

/// Who joins with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// A node agent
    Node,
    /// An orchestrator
    Orchestrator,
    /// A vault voter, which waits for `voter admit`
    Voter,
}

/// `secret …`
#[derive(Debug, Subcommand)]
pub enum SecretVerb {
    /// Store a value, at most 500 KiB, from standard input or a file
    Put {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// The namespace
        #[arg(long, default_value = "default")]
        namespace: String,
        /// Read the value from this file
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// A service that may mount it, NAMESPACE/NAME or NAMESPACE/*; may be repeated [default: its namespace]
        #[arg(long = "reader", value_name = "SERVICE")]
        readers: Vec<String>,
        /// A zone it may go to; may be repeated [default: all]
        #[arg(long = "zone", value_name = "ZONE")]
        zones: Vec<String>,
        /// Only nodes with an attested machine may get it; not available yet
        #[arg(long)]
        attested_only: bool,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// List secrets, without values
    Ls {
        /// Only this namespace
        #[arg(long)]
        namespace: Option<String>,
    },
    /// Show each version: who could read it by whose signature, and which nodes it was given to, as the whole log says
    History {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// The namespace
        #[arg(long, default_value = "default")]
        namespace: String,
    },
    /// Delete a secret
    Rm {
        /// NAME or NAMESPACE/NAME
        name: String,
        /// The namespace
        #[arg(long, default_value = "default")]
        namespace: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
}

/// `node …`
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List nodes and orchestrators
    Ls,
    /// Show one with its key, certificate and tasks
    Inspect {
        /// Its id, or the start of it
        id: String,
    },
    /// Admit a pending one, by the key that its console shows
    Approve {
        /// Its id
        id: String,
        /// SHA-256 of its public key, hex
        #[arg(long, value_name = "FINGERPRINT")]
        key: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Move its tasks away and start none
    Drain {
        /// Its id
        id: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// End draining
    Activate {
        /// Its id
        id: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Move it to another zone; tasks that may not run there are stopped
    Zone {
        /// Its id
        id: String,
        /// The zone; a node in `*` lies in no other
        zone: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Set labels, or take them away; tasks that want those it has not are stopped
    Label {
        /// Its id
        id: String,
        /// KEY=VALUE sets a label, KEY- takes it away
        #[arg(required = true, value_name = "K=V")]
        labels: Vec<String>,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Stop trusting it until it is released; what is sensitive on it ends
    Quarantine {
        /// Its id
        id: String,
        /// Why, for the log
        #[arg(long)]
        reason: Option<String>,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Let a quarantined one go on, with the new key that its console shows
    Release {
        /// Its id
        id: String,
        /// SHA-256 of its next public key, hex
        #[arg(long, value_name = "FINGERPRINT")]
        key: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Print which secrets it was ever given, as the whole log says; also of one that is removed
    Exposure {
        /// Its id, or the start of it
        id: String,
    },
    /// Stop its workloads, cut it off for ever, and print which secrets it had been given
    Rm {
        /// Its id
        id: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
}

/// `mandate …`
#[derive(Debug, Subcommand)]
pub enum MandateVerb {
    /// Let orchestrators schedule namespaces in zones
    Put {
        /// Id of an orchestrator; may be repeated
        #[arg(long = "orchestrator", value_name = "ID", required = true)]
        orchestrators: Vec<String>,
        /// A namespace; may be repeated [default: all]
        #[arg(long = "namespace", value_name = "NS")]
        namespaces: Vec<String>,
        /// A zone; may be repeated [default: all]
        #[arg(long = "zone", value_name = "ZONE")]
        zones: Vec<String>,
        /// How long it holds, at most 90d
        #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration)]
        ttl: Duration,
        /// Its name [default: random]
        #[arg(long)]
        id: Option<String>,
        /// Most grants a minute and namespace
        #[arg(long, default_value_t = 120)]
        grants_per_minute: u32,
        /// Most new pairs of secret and node an hour
        #[arg(long, default_value_t = 30)]
        novelty_per_hour: u32,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// List mandates
    Ls,
    /// Take a mandate back
    Revoke {
        /// Its id
        id: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
}

/// `log …`
#[derive(Debug, Subcommand)]
pub enum Log {
    /// Print the last entries
    Tail {
        /// Go on printing
        #[arg(long, short)]
        follow: bool,
        /// How many
        #[arg(short = 'n', default_value_t = 20, value_name = "ENTRIES")]
        count: u64,
    },
    /// Recompute the whole tree; prints `ok N entries` or the first entry that is wrong
    Verify {
        /// Verify this file, which `log export` wrote, instead of the cluster's log
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write the whole log to a new file, verifying it on the way
    Export {
        /// The file; it must not exist
        file: PathBuf,
    },
}

/// `grant …`
#[derive(Debug, Subcommand)]
pub enum Grant {
    /// List grants
    Ls {
        /// Only this namespace
        #[arg(long)]
        namespace: Option<String>,
        /// Only this service
        #[arg(long)]
        service: Option<String>,
        /// Also those that ended
        #[arg(long, short)]
        all: bool,
    },
    /// Check that a grant is in the log
    Verify {
        /// Its id, or the start of it
        id: String,
    },
    /// Take a grant back: its task ends at once, and another one may take its place
    Revoke {
        /// Its id, or the start of it
        id: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
}

/// Options of `dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// How many node agents
    #[arg(long, default_value_t = 2)]
    pub workers: u8,
    /// Where the cluster keeps its files [default: a new folder under the system's temporary folder]
    #[arg(long)]
    pub dir: Option<PathBuf>,
}
