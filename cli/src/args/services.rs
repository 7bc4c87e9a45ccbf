//! The options of the verbs about services.

use super::SignTo;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The service a verb is about.
#[derive(Debug, Args)]
pub struct ServiceName {
    /// NAME or NAMESPACE/NAME
    pub name: String,
    /// The namespace
    #[arg(long, default_value = "default")]
    pub namespace: String,
}

/// How registries are reached.
#[derive(Debug, Args)]
pub struct RegistryOptions {
    /// A registry to be reached without TLS, as loopback addresses are; may be repeated
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    pub insecure: Vec<String>,
    /// Certificates, PEM, that vouch for registries beside the system's own; may be repeated
    #[arg(long = "registry-roots", value_name = "FILE")]
    pub roots: Vec<PathBuf>,
}

/// `service …`
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Sign and submit a service, and follow it until its tasks run
    Deploy {
        /// The service, as TOML
        #[arg(long, short, value_name = "SPEC")]
        file: PathBuf,
        /// Where its image is looked up.
        #[command(flatten)]
        registries: RegistryOptions,
        /// Return as soon as it is accepted
        #[arg(long)]
        detach: bool,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// List services
    Ls {
        /// Only this namespace
        #[arg(long)]
        namespace: Option<String>,
    },
    /// List the tasks of a service
    Ps {
        /// The service.
        #[command(flatten)]
        service: ServiceName,
        /// Also those that ended
        #[arg(long, short)]
        all: bool,
    },
    /// Show what was signed, and by whom
    Inspect(ServiceName),
    /// Change how many tasks run
    Scale {
        /// NAME=N or NAMESPACE/NAME=N, or NAME and then N
        target: String,
        /// How many, if not given as NAME=N
        replicas: Option<u32>,
        /// The namespace
        #[arg(long, default_value = "default")]
        namespace: String,
        /// Return as soon as it is accepted
        #[arg(long)]
        detach: bool,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Let a sensitive service be placed on a node where it never was, without the wait
    Approve {
        /// The service.
        #[command(flatten)]
        service: ServiceName,
        /// Id of the node, or the start of it
        #[arg(long, value_name = "ID")]
        node: String,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Stop a service and forget it
    Rm {
        /// The service.
        #[command(flatten)]
        service: ServiceName,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Print what its tasks wrote
    Logs {
        /// The service.
        #[command(flatten)]
        service: ServiceName,
        /// Only this task, NAMESPACE.SERVICE.SLOT
        #[arg(long, value_name = "TASK")]
        task: Option<String>,
        /// Go on printing
        #[arg(long, short)]
        follow: bool,
        /// Lines from the end [default: all that are kept]
        #[arg(long, short = 'n', value_name = "LINES")]
        tail: Option<u32>,
    },
}
