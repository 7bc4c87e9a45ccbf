//! The options of the verbs about roots.

use super::SignTo;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `root …`
#[derive(Debug, Subcommand)]
pub enum RootVerb {
    /// Show the trusted roots, and how far a rotation is
    Status,
    /// Put a new root in the place of the one that signs; nothing that runs notices
    Rotate(RotateRoot),
    /// Give up the rotation under way: the root from before signs again, the new one is dropped
    Abort {
        /// Give nothing up, but forget the key of a dropped root whose token is gone for good
        #[arg(long)]
        key_is_gone: bool,
        /// Return as soon as it is ordered
        #[arg(long)]
        detach: bool,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
    /// Sign for a new root in the place of roots that cannot, as an Admin
    Approve {
        /// SHA-256 of the new root's certificate, as whoever ordered it says it; see `root status`
        #[arg(value_name = "SHA256")]
        root: String,
        /// Return as soon as the signature is accepted
        #[arg(long)]
        detach: bool,
    },
    /// Write the trusted roots, for programs that are to believe the cluster's certificates
    Export {
        /// How they are written
        #[arg(long, value_enum, default_value_t = ExportFormat::Pem)]
        format: ExportFormat,
        /// Write to this file, in the place of one that is there [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Write what an offline root is to sign: the issuer's request and the next bundle
    Csr {
        /// Write to this new file [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Sign that with an offline root's key, on a machine without a network
    Sign(SignIssuer),
    /// Hand in what the offline root has signed
    Install {
        /// File that `root sign` wrote
        signed: PathBuf,
        /// Return as soon as it is accepted
        #[arg(long)]
        detach: bool,
        /// What becomes of it.
        #[command(flatten)]
        to: SignTo,
    },
}

/// Options of `root rotate`.
#[derive(Debug, Args)]
pub struct RotateRoot {
    /// The vault makes the new root's key, and keeps it sealed under its keyring
    #[arg(long, conflicts_with_all = ["hsm", "offline", "ca_cert"])]
    pub software: bool,
    /// The new root's key is in the vault's token: made there, or with --ca-cert found there
    #[arg(long, conflicts_with = "offline")]
    pub hsm: bool,
    /// The new root is this certificate, PEM or DER
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Its key, PKCS#8 in PEM or DER; sealed to the vault on this machine
    #[arg(long, value_name = "FILE", requires = "ca_cert", conflicts_with_all = ["hsm", "offline"])]
    pub ca_key: Option<PathBuf>,
    /// Its key stays where it is: what it must sign is carried to it, see `root csr`
    #[arg(long, requires = "ca_cert")]
    pub offline: bool,
    /// No trusted root can sign, its token or key being lost or away: Admins sign for the new one, see `root approve`
    #[arg(long)]
    pub without_old_root: bool,
    /// Return as soon as it is ordered
    #[arg(long)]
    pub detach: bool,
    /// What becomes of it.
    #[command(flatten)]
    pub to: SignTo,
}

/// Options of `root sign`.
#[derive(Debug, Args)]
pub struct SignIssuer {
    /// File that `root csr` wrote
    pub request: PathBuf,
    /// The offline root's certificate, PEM or DER
    #[arg(long, value_name = "FILE")]
    pub ca_cert: PathBuf,
    /// Its key, PKCS#8 in PEM or DER
    #[arg(long, value_name = "FILE")]
    pub ca_key: PathBuf,
    /// How long the issuer may sign
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Write to this new file [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// How roots are written for other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// PEM, one certificate after the other
    Pem,
    /// A SPIFFE bundle document (JSON)
    Spiffe,
}
