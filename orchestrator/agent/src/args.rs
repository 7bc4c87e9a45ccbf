//! The command line.

use clap::Parser;
use holdfast_transport::daemon::{LogFormat, is_dialable};
use std::path::PathBuf;

/// The node agent: runs what the vault has granted and the deployers have signed, and nothing else.
#[derive(Parser, Debug, Clone)]
#[command(name = "holdfast-agent", version, about)]
pub struct Args {
    /// Configuration file (TOML); without one, the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Report all faults of the configuration and exit
    #[arg(long)]
    pub check_config: bool,
    /// First start: file that holds the join token
    #[arg(long, value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
    /// First start: join listeners of the vault
    #[arg(long, value_name = "HOST:PORT[,…]", value_delimiter = ',', value_parser = dialable)]
    pub vault: Vec<String>,
    /// Where to write the addresses that this process listens on, as JSON
    #[arg(long, value_name = "FILE")]
    pub ports_file: Option<PathBuf>,
    /// How events are written: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

fn dialable(addr: &str) -> Result<String, String> {
    if is_dialable(addr) { Ok(addr.to_owned()) } else { Err("an address is host:port".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn several_vaults_are_separated_by_commas() {
        let args = Args::parse_from(["holdfast-agent", "--vault", "a:1,b:2", "--join-token-file", "t"]);
        assert_eq!(args.vault, ["a:1", "b:2"]);
        assert!(Args::try_parse_from(["holdfast-agent", "--vault", "a"]).is_err());
    }
}
