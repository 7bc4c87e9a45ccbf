//! The options of `backup` and `recover`.

use super::Socket;
use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

/// `backup …`
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Write everything to one file that the recovery key alone opens; the voter must lead
    Create {
        /// The file; it must not exist
        file: PathBuf,
        /// The voter.
        #[command(flatten)]
        socket: Socket,
    },
    /// Check that a backup is whole and from whom it is; with the recovery key, all that is in it
    Verify {
        /// The file
        file: PathBuf,
        /// File with the recovery key, or with shares of it, one a line; `-` is standard input
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// File with a share of the recovery key; may be repeated
        #[arg(long = "share-file", value_name = "FILE")]
        share_files: Vec<PathBuf>,
        /// Unix socket of a voter whose disk that key is to open too: tried here, and nothing is sent; may be repeated
        #[arg(long = "vault-socket", value_name = "SOCKET")]
        sockets: Vec<PathBuf>,
    },
}

/// Options of `recover`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("given").multiple(true).args(["key_file", "share_files"])))]
pub struct Recover {
    /// The backup
    #[arg(long, value_name = "FILE", required_unless_present = "from_survivor", requires = "given")]
    pub backup: Option<PathBuf>,
    /// In place of a backup: go on with what is on the disk of this voter, the only one that is left
    #[arg(long, conflicts_with = "backup")]
    pub from_survivor: bool,
    /// File with the recovery key, or with shares of it, one a line; of a survivor that is sealed, with its unlock or
    /// recovery key; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// File with a share of that key; may be repeated
    #[arg(long = "share-file", value_name = "FILE")]
    pub share_files: Vec<PathBuf>,
    /// Unix socket of the empty voter, or of the survivor
    #[arg(long, value_name = "SOCKET")]
    pub vault_socket: PathBuf,
    /// Only say what would come back
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for the log
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "restored from a backup",
        default_value_if("from_survivor", "true", "one voter was left")
    )]
    pub reason: String,
    /// Another context whose operator signs too, where the charter asks for several; may be repeated
    #[arg(long = "co-signer", value_name = "CONTEXT")]
    pub co_signers: Vec<String>,
    /// A node or orchestrator that is removed, as one that was after the backup: it does not come back; may be repeated
    #[arg(long, value_name = "ID")]
    pub removed: Vec<String>,
    /// The old cluster's keys may be a thief's: removals that machines remember do not count
    #[arg(long)]
    pub compromised: bool,
    /// Seal the voter at every start; its unlock key is written to this new file
    #[arg(long, value_name = "FILE")]
    pub unlock_key_out: Option<PathBuf>,
}
