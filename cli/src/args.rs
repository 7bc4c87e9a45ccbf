//! The command line: every verb with its options. Help texts are the doc comments; `docs/reference/cli.md`, the man
//! pages and the completions are generated from here. No option takes a secret.

use crate::errors::{Code, Failure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

mod hsm;
mod images;
mod keys;
mod recovery;
mod roots;
mod services;
mod statements;
mod verbs;

pub use hsm::*;
pub use images::*;
pub use keys::*;
pub use recovery::*;
pub use roots::*;
pub use services::*;
pub use statements::*;
pub use verbs::*;

/// The operator's tool of Holdfast
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Which cluster to talk to: a folder of $HOLDFAST_HOME/contexts
    #[arg(long, global = true, value_name = "NAME", default_value = "default", env = "HOLDFAST_CONTEXT")]
    pub context: String,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress and no confirmations
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Print without colours, as the variable NO_COLOR does
    #[arg(long, global = true)]
    pub no_color: bool,
    /// How long to wait, such as 500ms, 30s or 5m [default: 15s; rollouts 60s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Found a cluster on a fresh vault voter; its keys are made here
    Init(Init),
    /// Show voters, roots, nodes and alarms
    Status(Socket),
    /// Make and verify backups
    #[command(subcommand)]
    Backup(Backup),
    /// Bring a cluster back: from a backup on an empty machine, or from the one voter that is left
    Recover(Recover),
    /// Open sealed voters; the key never leaves this program
    Unlock(Unlock),
    /// Seal voters: their keys leave memory until the next unlock
    Seal(Sockets),
    /// Say whether voters start sealed
    #[command(subcommand)]
    Autolock(AutolockVerb),
    /// Rotate, show and split the key that opens sealed voters
    #[command(subcommand)]
    UnlockKey(UnlockKeyVerb),
    /// Rotate and show the key that opens every voter and every backup
    #[command(subcommand)]
    RecoveryKey(RecoveryKeyVerb),
    /// Rotate and show the key that everything in the vault is encrypted under
    #[command(subcommand)]
    Keyring(KeyringVerb),
    /// Show, rotate and export the root that every certificate comes from
    #[command(subcommand)]
    Root(RootVerb),
    /// List, admit and evict voters
    #[command(subcommand)]
    Voter(VoterVerb),
    /// Make, list and revoke join tokens
    #[command(subcommand)]
    Token(Token),
    /// Store, list and delete secrets; no verb reads a value
    #[command(subcommand)]
    Secret(SecretVerb),
    /// List, approve, drain and remove nodes and orchestrators
    #[command(subcommand)]
    Node(Node),
    /// Say which orchestrators may schedule what, where
    #[command(subcommand)]
    Mandate(MandateVerb),
    /// Deploy and watch services
    #[command(subcommand)]
    Service(Service),
    /// Deny images and allow them again
    #[command(subcommand)]
    Image(ImageVerb),
    /// Read and verify the transparency log
    #[command(subcommand)]
    Log(Log),
    /// List grants, verify that they are in the log, and take them back
    #[command(subcommand)]
    Grant(Grant),
    /// Stop everything new, as any one operator: no grant is given, and nodes start nothing; what runs goes on
    Lockdown(Lockdown),
    /// End a lockdown, by as many Admins as the charter says
    Release(Release),
    /// Fetch a new operator's certificate, in the place of the one in use
    Login,
    /// Show what a statement in a file asks for, who has signed it and who is missing
    Inspect {
        /// File that a verb wrote with --out
        file: PathBuf,
    },
    /// Add a signature to a statement in a file, after showing it; asks first, and needs no network
    Sign(Sign),
    /// Hand in a statement that has all its signatures
    Submit(Submit),
    /// Show what a PKCS#11 token can do for a vault
    #[command(subcommand)]
    Hsm(HsmVerb),
    /// Find join tokens, unlock and recovery keys and their shares in files and folders; exit 1 if there are any
    Scan {
        /// Files and folders to search
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Run the demo cluster in the foreground, as separate processes
    Dev(Dev),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages
    #[command(hide = true)]
    Man {
        /// Folder to write to
        dir: PathBuf,
    },
    /// Write the generated pages of docs/reference
    #[command(hide = true)]
    Reference {
        /// Folder to write to
        dir: PathBuf,
    },
}

/// Shells with completions.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

fn duration(s: &str) -> Result<Duration, String> {
    holdfast_types::parse_duration(s).map_err(|e| e.to_string())
}

/// A command line that does not parse, as a failure; `None` where clap only has to print help or the version.
pub fn failure(e: &clap::Error) -> Option<Failure> {
    use clap::error::ErrorKind as K;
    if matches!(e.kind(), K::DisplayHelp | K::DisplayVersion | K::DisplayHelpOnMissingArgumentOrSubcommand) {
        return None;
    }
    let text = e.to_string();
    // clap's first paragraph says what is wrong; usage and tips follow after an empty line.
    let first = text.split("\n\n").next().unwrap_or_default();
    let help = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("tip: "))
        .unwrap_or("see `holdfast --help` or `holdfast VERB --help`");
    Some(Failure::new(Code::Usage, first.trim_start_matches("error: "), help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_verb() {
        for line in ["holdfast --json --timeout 5s token ls", "holdfast token ls --timeout 5s --json"] {
            let c = parse(line).unwrap();
            assert!(c.global.json);
            assert_eq!(c.global.timeout, Some(Duration::from_secs(5)));
        }
    }

    #[test]
    fn a_wrong_command_line_is_one_line_with_exit_2() {
        for line in [
            "holdfast frobnicate",
            "holdfast token create",
            "holdfast --timeout 5 status",
            "holdfast token create --role nodule",
            "holdfast init --vault-socket s --unlock-shares 3 --unlock-threshold 2",
            "holdfast unlock --all --vault-socket s",
            "holdfast unlock-key rotate --resume --shares 3 --threshold 2",
            "holdfast unlock-key rotate --lost --compromised",
            "holdfast autolock on --shares 17 --threshold 2",
            "holdfast voter evict three",
            "holdfast root rotate --software --hsm",
            "holdfast root rotate --offline",
            "holdfast root rotate --ca-key k",
            "holdfast root rotate --ca-cert c --ca-key k --hsm",
            "holdfast recover --vault-socket s",
            "holdfast recover --backup b --vault-socket s",
            "holdfast recover --backup b --from-survivor --share-file k --vault-socket s",
            "holdfast recover --backup b --from-survivor --key-file k --vault-socket s",
        ] {
            let f = failure(&parse(line).unwrap_err()).unwrap();
            assert_eq!((f.code.as_ref(), f.exit_code()), ("usage", 2));
            assert!(!f.message.contains('\n') && !f.message.starts_with("error"), "{}", f.message);
        }
        assert!(failure(&parse("holdfast --help").unwrap_err()).is_none());
    }

    #[test]
    fn a_recovery_says_where_from_in_its_reason() {
        let reason = |line: &str| {
            let Verb::Recover(a) = parse(line).unwrap().verb else { panic!("{line}") };
            a.reason
        };
        let from_backup = "holdfast recover --backup b --key-file k --vault-socket s";
        assert_eq!(reason(from_backup), "restored from a backup");
        let by_shares = "holdfast recover --backup b --share-file a --share-file c --vault-socket s";
        assert_eq!(reason(by_shares), "restored from a backup");
        assert_eq!(reason("holdfast recover --from-survivor --vault-socket s"), "one voter was left");
        assert_eq!(reason(&format!("{from_backup} --reason fire")), "fire");
    }

    #[test]
    fn no_option_takes_a_secret() {
        fn walk(c: &clap::Command) {
            for a in c.get_arguments() {
                let name = a.get_id().as_str();
                assert!(
                    !["password", "value", "secret", "token", "unlock_key", "recovery_key"].contains(&name),
                    "{name}"
                );
            }
            c.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
