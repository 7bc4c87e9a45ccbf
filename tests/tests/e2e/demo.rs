//! `make demo`: the whole story over `holdfast dev`, as the README promises it, and nothing left but its files.

use super::leftovers;
use super::world::{eventually, within};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use suite::programs::program;
use suite::repository::root;

/// How long the whole story may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// The script at work in `dir`; nothing of it outlives this, however the test ends.
struct Demo {
    script: Child,
    dir: PathBuf,
}

impl Demo {
    fn start(dir: PathBuf, out: &Path) -> Self {
        let out = File::create(out).unwrap();
        let mut c = Command::new(root().join("scripts/demo.sh"));
        c.env("HOLDFAST_BIN", program("holdfast").unwrap().parent().unwrap()).env("HOLDFAST_DEMO_DIR", &dir);
        c.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Self { script: c.spawn().unwrap(), dir }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.script.kill());
        drop(self.script.wait());
        leftovers::end_tasks(&self.dir);
        leftovers::unmount_below(&self.dir);
    }
}

/// What is in a folder, by name.
fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// What clusters of `holdfast dev` left outside of their folders: cgroups, and folders for files.
fn traces() -> BTreeSet<PathBuf> {
    let cgroups = Path::new("/sys/fs/cgroup");
    let hierarchies = names(cgroups).into_iter().map(|h| cgroups.join(h));
    let places = hierarchies.chain([cgroups.to_owned(), std::env::temp_dir()]);
    let of_dev = |dir: PathBuf| {
        let found = names(&dir).into_iter().filter(|n| n.starts_with("holdfast-dev-"));
        found.map(|n| dir.join(n)).collect::<Vec<_>>()
    };
    places.flat_map(of_dev).collect()
}

/// The processes that have this folder in their command line.
fn processes(dir: &Path) -> Vec<String> {
    let needle = dir.to_str().unwrap();
    let line = |e: fs::DirEntry| {
        let bytes = fs::read(e.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
    };
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(line);
    lines.filter(|line| line.contains(needle)).collect()
}

#[test]
fn the_demo_tells_its_whole_story_and_leaves_nothing_but_its_files() {
    let home = tempfile::Builder::new().prefix("hf-demo-").tempdir().unwrap();
    let (dir, out) = (home.path().join("demo"), home.path().join("out"));
    let before = traces();
    let mut demo = Demo::start(dir.clone(), &out);
    // The search finds what is there: the cluster itself and its four daemons.
    eventually("its processes", || {
        assert!(demo.script.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&out).unwrap());
        (processes(&dir).len() >= 5).then_some(())
    });
    let status = within(DEADLINE, "the demo to end", || demo.script.try_wait().unwrap());
    let told = fs::read_to_string(&out).unwrap();
    assert_eq!(status.code(), Some(0), "{told}");
    let denied = |l: &str| l.contains("grant.denied") && l.contains("L1-mount");
    assert!(told.lines().any(denied), "no refusal by policy is shown: {told}");
    assert!(told.trim_end().ends_with(&format!("the files are in {}", dir.display())), "{told}");

    eventually("every process to be gone", || processes(&dir).is_empty().then_some(()));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let left: Vec<_> = mounts.lines().filter(|m| m.contains(dir.to_str().unwrap())).collect();
    assert!(left.is_empty(), "mounts stay behind: {left:?}");
    let left: Vec<_> = traces().difference(&before).cloned().collect();
    assert!(left.is_empty(), "outside of its folder stays behind: {left:?}");
    assert_eq!(names(home.path()), BTreeSet::from(["demo".to_owned(), "out".to_owned()]));
}

#[test]
fn the_demo_replaces_no_folder_that_was_there() {
    let home = tempfile::tempdir().unwrap();
    let (kept, out) = (home.path().join("kept"), home.path().join("out"));
    fs::write(&kept, "mine").unwrap();
    let mut demo = Demo::start(kept.clone(), &out);
    let status = eventually("the demo to refuse", || demo.script.try_wait().unwrap());
    let told = fs::read_to_string(&out).unwrap();
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains(kept.to_str().unwrap()) && told.contains("exists already"), "{told}");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");
}
