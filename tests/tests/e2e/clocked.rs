//! Processes whose clock is off from their beginning, or set by the test while they run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn libfaketime() -> PathBuf {
    let mut found = fs::read_dir("/usr/lib").unwrap().flatten().map(|e| e.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|p| p.exists()).expect("libfaketime is missing: run scripts/setup.sh")
}

fn faked(c: &mut Command) -> &mut Command {
    c.env("LD_PRELOAD", libfaketime()).env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// The clock of what it starts is off by `by`, such as `-5h`.
pub fn clock_off(c: &mut Command, by: &str) {
    faked(c).env("FAKETIME", by);
}

/// The test sets the clock of what it starts while that runs; `file` says how far off it is.
pub fn clock_of(c: &mut Command, file: &Path) {
    faked(c).env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1");
}

/// Sets that clock: whoever reads the file finds the whole of the one or of the other.
pub fn set_clock(file: &Path, by: &str) {
    let new = file.with_extension("new");
    fs::write(&new, by).unwrap();
    fs::rename(&new, file).unwrap();
}
