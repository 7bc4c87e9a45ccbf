//! What whoever replaces the root at a terminal sees meanwhile.

use crate::world::World;
use std::process::{Command, Stdio};
use suite::programs::program;

#[test]
fn a_rotation_shows_its_progress_on_a_terminal_and_nowhere_else() {
    let w = World::founded();
    let tool = program("holdfast").unwrap();
    // `script` is the terminal: what is drawn on it comes out of it.
    let command = format!("stty cols 100 rows 24; exec {} root rotate", tool.display());
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env("HOLDFAST_HOME", w.path("home")).env("TERM", "xterm");
    let drawn = script.env("SHELL", "/bin/sh").stdin(Stdio::null()).output().unwrap();
    let drawn_text = String::from_utf8_lossy(&drawn.stdout);
    assert!(drawn.status.success(), "{drawn_text}");
    let bar = drawn_text.find("reissued [").expect("a bar");
    assert!(drawn_text[bar..].contains("stable"), "the outcome stands where the bar was: {drawn_text}");
    let plain = w.cli(&["root", "rotate"]);
    assert!(plain.status.success());
    let said = [plain.stdout, plain.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains("reissued ["), "{}", String::from_utf8_lossy(&said));
}
