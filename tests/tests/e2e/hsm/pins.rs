//! Where a vault gets the token's PIN from beside a file: its service manager, a descriptor, and whoever types it.

use super::token::{PIN, behind_the_shim, found, root_key, start_by, with_token, words, worker};
use crate::world::{eventually, write_key};
use std::fs;
use std::process::Command;
use suite::programs::program;

#[test]
fn a_pin_comes_by_a_credential_by_a_descriptor_and_by_a_pipe_and_is_tried_once_each_time() {
    let (mut w, token) = with_token("", behind_the_shim, "");
    found(&w, &token);
    let credentials = w.path("credentials");
    fs::create_dir(&credentials).unwrap();
    write_key(&credentials.join("hsm-pin"), PIN);
    let typed = w.text("typed");
    write_key(&w.path("typed"), &format!("{PIN}\n"));
    // No file that the vault is told of has it any more.
    fs::remove_file(token.pin_file()).unwrap();
    // Each of the shells becomes the vault.
    let shell = |script: &str| {
        let mut c = Command::new("bash");
        c.args(["-c", script]).arg(program("holdfast-vault").unwrap()).env("TYPED", &typed);
        c
    };
    let by_credential = || {
        let mut c = Command::new(program("holdfast-vault").unwrap());
        c.env("CREDENTIALS_DIRECTORY", &credentials);
        c
    };
    let by_descriptor = || shell("exec \"$0\" \"$@\" 3< \"$TYPED\"");
    let by_pipe = || shell("shopt -s lastpipe; cat \"$TYPED\" | exec \"$0\" \"$@\"");
    let sources: [(&str, &dyn Fn() -> Command); 3] =
        [("pin-credential = \"hsm-pin\"", &by_credential), ("pin-fd = 3", &by_descriptor), ("pin-fd = 0", &by_pipe)];
    for (line, command) in sources {
        w.kill_vault();
        w.lives = Box::leak(format!("[hsm]\nuri = \"{}\"\ntimeout = \"3s\"\n{line}\n", token.uri()).into_boxed_str());
        w.write_vault_config();
        let logins = token.calls("C_Login");
        start_by(&mut w, &token, command);
        w.unlock();
        eventually(&format!("the token to be well, by {line}"), || (words(&w)[0] == "voter 1: ok").then_some(()));
        assert_eq!(token.calls("C_Login"), logins + 1, "{line}");
        // The PIN is nowhere that others look.
        let vault = w.vault.as_ref().unwrap().pid();
        for pid in [vault, worker(vault)] {
            for file in ["cmdline", "environ"] {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                assert!(!text.windows(PIN.len()).any(|part| part == PIN.as_bytes()), "{line}: {file} of {pid}");
            }
        }
        assert!(!w.vault.as_ref().unwrap().log_text().contains(PIN), "{line}: the log");
    }
    // The last of them does what the token is for.
    w.ok(&["root", "rotate", "--hsm"]);
    assert_eq!((root_key(&w).as_str(), token.objects()), ("hsm", 2));
}
