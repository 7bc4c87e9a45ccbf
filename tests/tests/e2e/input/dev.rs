//! The rows of `dev`: programs that are not there, and folders that it cannot use.

use super::{Said, SmallDisk, run, without_override};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use suite::programs::program;

const OTHERS: [&str; 3] = ["holdfast-vault", "holdfast-orchestrator", "holdfast-agent"];

fn dev(mut tool: Command, dir: &Path) -> Said {
    run(tool.args(["dev", "--timeout", "20s", "--dir"]).arg(dir).env("NO_COLOR", "1"))
}

#[test]
fn dev_names_the_program_that_is_missing_and_makes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let alone = place.path().join("holdfast");
    fs::copy(program("holdfast").unwrap(), &alone).unwrap();
    for missing in OTHERS {
        for other in OTHERS.iter().filter(|o| **o != missing) {
            fs::write(place.path().join(other), "").unwrap();
        }
        let state = place.path().join("cluster");
        let said = dev(Command::new(&alone), &state);
        said.tool_fails(missing, 4, &[missing, "is not there", "into one folder"]);
        assert!(!state.exists(), "{missing}: something was made");
        for other in OTHERS.iter().filter(|o| **o != missing) {
            fs::remove_file(place.path().join(other)).unwrap();
        }
    }
}

#[test]
fn dev_names_the_folder_that_it_cannot_write_and_leaves_no_process() {
    let place = tempfile::tempdir().unwrap();
    let tool = || Command::new(program("holdfast").unwrap());
    let file = place.path().join("file");
    fs::write(&file, "mine").unwrap();
    for dir in [file.clone(), file.join("below")] {
        dev(tool(), &dir).tool_fails("a file", 1, &[dir.to_str().unwrap(), "check the path"]);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");

    // Somebody else's, and closed.
    let closed = place.path().join("closed");
    fs::create_dir(&closed).unwrap();
    std::os::unix::fs::chown(&closed, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let below = closed.join("cluster");
    let said = dev(without_override("holdfast"), &below);
    said.tool_fails("closed", 1, &[below.to_str().unwrap(), "Permission denied", "owner"]);

    let full = place.path().join("full");
    let disk = SmallDisk::mount(&full, "64k");
    disk.fill();
    let said = dev(tool(), &full.join("cluster"));
    said.tool_fails("full", 1, &["No space left", "free some space"]);
    drop(disk);
    let needle = place.path().to_str().unwrap();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(needle), "{entry:?} runs on");
    }
}
