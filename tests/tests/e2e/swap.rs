//! A vault on a machine that swaps to a disk in clear: it does not start, unless it is told to, and then says so.
//!
//! The machine itself is left as it is: the process sees another table of swap, in a view of the file system of its own.

use super::voters::world::Voter;
use super::world::{World, eventually};
use std::fs;
use std::path::Path;
use std::process::Command;

const HEAD: &str = "Filename\tType\t\tSize\tUsed\tPriority\n";

/// The vault's command where `table` is the machine's table of swap.
fn over(voter: &Voter, table: &Path) -> Command {
    let vault = voter.command();
    let mut c = Command::new("unshare");
    c.args(["--mount", "--propagation", "private", "sh", "-c", "mount --bind \"$0\" /proc/swaps && exec \"$@\""]);
    c.arg(table).arg(vault.get_program()).args(vault.get_args());
    c
}

#[test]
fn a_vault_over_swap_in_clear_does_not_start_unless_it_is_told_to_and_then_says_so() {
    let w = World::empty();
    let mut voter = Voter::place(&w, "swapping");
    voter.configure("");
    let table = w.path("swaps");
    fs::write(&table, format!("{HEAD}/swapfile file 1048572 0 -2\n")).unwrap();
    voter.spawn(over(&voter, &table));
    let code = eventually("the vault to end", || voter.daemon.as_mut().unwrap().exited());
    let told = voter.log_text();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("swap on /swapfile is not encrypted") && told.contains("allow_swap = true"), "{told}");
    assert!(!voter.state_dir().join("voter").exists());

    voter.more = "allow_swap = true".to_owned();
    voter.configure("");
    voter.spawn(over(&voter, &table));
    voter.becomes("uninitialized");
    assert!(voter.log_text().contains("swap is not encrypted, which allow_swap permits"), "{}", voter.log_text());
    voter.kill();

    // Swap in memory is no disk: it is refused for what the table says, and for nothing else.
    fs::write(&table, format!("{HEAD}/dev/zram0 partition 1048572 0 100\n")).unwrap();
    voter.more = String::new();
    voter.configure("");
    voter.spawn(over(&voter, &table));
    voter.becomes("uninitialized");
}
