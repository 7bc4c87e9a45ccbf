//! A token of a test's own, and a vault that is configured with it.

use crate::world::{World, eventually, write_key};
use holdfast_hsm_shim::tokens::shim;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use suite::programs::program;

/// The PIN of every token here.
pub const PIN: &str = "not-a-number-4711";
const SO_PIN: &str = "12345678";
const LABEL: &str = "holdfast";

/// Where distributions put SoftHSM's module.
const MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

pub fn module() -> &'static str {
    MODULES.iter().find(|m| Path::new(m).exists()).expect("SoftHSM is not installed: run scripts/setup.sh")
}

/// A SoftHSM token in a folder.
#[derive(Clone)]
pub struct Token {
    dir: PathBuf,
    /// Calls go through a module of the tests', which writes them down and fails where that is ordered.
    shim: bool,
    /// Ends the names of the files of those orders and calls.
    of: String,
}

impl Token {
    /// A fresh one called [`LABEL`].
    pub fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(dir.join("tokens")).unwrap();
        let conf = format!("directories.tokendir = {}\nobjectstore.backend = file\n", dir.join("tokens").display());
        fs::write(dir.join("softhsm2.conf"), conf).unwrap();
        write_key(&dir.join("pin"), PIN);
        let token = Self::at(dir);
        let mut init = Command::new("softhsm2-util");
        init.args(["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", SO_PIN]);
        let made = init.env("SOFTHSM2_CONF", token.conf()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        token
    }
    /// The one that lies there already.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir, shim: false, of: String::new() }
    }
    /// The same behind the shim, with faults and calls of its own for the voter `of`.
    pub fn shimmed(self, of: &str) -> Self {
        Self { shim: true, of: format!("-{of}"), ..self }
    }
    /// What a voter is started through that uses it.
    pub fn through(&self) -> Vec<String> {
        let set = self.env().into_iter().map(|(name, value)| format!("{name}={}", value.display()));
        std::iter::once("env".to_owned()).chain(set).collect()
    }
    fn faults_file(&self) -> PathBuf {
        self.dir.join(format!("faults{}", self.of))
    }
    fn calls_file(&self) -> PathBuf {
        self.dir.join(format!("calls{}", self.of))
    }
    /// SoftHSM's configuration, which its environment names.
    pub fn conf(&self) -> PathBuf {
        self.dir.join("softhsm2.conf")
    }
    pub fn pin_file(&self) -> PathBuf {
        self.dir.join("pin")
    }
    pub fn uri(&self) -> String {
        let module = if self.shim { shim() } else { PathBuf::from(module()) };
        format!("pkcs11:token={LABEL}?module-path={}", module.display())
    }
    /// What the environment of a vault has that uses it.
    fn env(&self) -> Vec<(&'static str, PathBuf)> {
        let real = PathBuf::from(module());
        let (faults, calls) = (self.faults_file(), self.calls_file());
        vec![
            ("SOFTHSM2_CONF", self.conf()),
            ("HOLDFAST_SHIM_MODULE", real),
            ("HOLDFAST_SHIM_FAULTS", faults),
            ("HOLDFAST_SHIM_CALLS", calls),
        ]
    }
    /// Orders this fault of the shim in place of any other; nothing: none.
    pub fn fault(&self, line: &str) {
        let new = self.dir.join(format!("faults{}.new", self.of));
        fs::write(&new, line).unwrap();
        fs::rename(new, self.faults_file()).unwrap();
    }
    /// How often the shim was called for this.
    pub fn calls(&self, function: &str) -> usize {
        fs::read_to_string(self.calls_file()).unwrap_or_default().lines().filter(|l| *l == function).count()
    }
    /// The section of a vault's configuration.
    pub fn section(&self, more: &str) -> String {
        format!("[hsm]\nuri = \"{}\"\npin-file = {:?}\ntimeout = \"3s\"\n{more}\n", self.uri(), self.pin_file())
    }
    /// Objects that it keeps: a key pair is two. A file that was cut short when its process was killed is none: the token does
    /// not show it to anybody.
    pub fn objects(&self) -> usize {
        const WHOLE: u64 = 400;
        let tokens = fs::read_dir(self.dir.join("tokens")).unwrap().map(|t| t.unwrap().path());
        let files = tokens.flat_map(|t| fs::read_dir(t).unwrap()).map(Result::unwrap);
        let object = |file: &fs::DirEntry| {
            let name = file.file_name();
            let name = name.to_string_lossy();
            let whole = file.metadata().is_ok_and(|m| m.len() >= WHOLE);
            whole && name.ends_with(".object") && name != "token.object"
        };
        files.filter(object).count()
    }
    /// Takes it out, or puts it back.
    pub fn pull(&self, out: bool) {
        let (here, away) = (self.dir.join("tokens"), self.dir.join("pulled-out"));
        let (from, to) = if out { (here.clone(), away) } else { (away, here.clone()) };
        if !out {
            fs::remove_dir_all(&here).unwrap();
        }
        fs::rename(from, to).unwrap();
        if out {
            fs::create_dir(&here).unwrap();
        }
    }
}

/// A vault that waits for `init` and is configured with `token`; `more` lines of the section, and of `[lives]` before it.
pub fn with_token(lives: &str, token: impl Fn(&World) -> Token, more: &str) -> (World, Token) {
    let mut w = World::empty();
    w.kill_vault();
    let token = token(&w);
    // A test process ends with its tests: nothing is lost by what is kept for its whole life.
    w.lives = Box::leak(format!("{lives}\n{}", token.section(more)).into_boxed_str());
    w.write_vault_config();
    start(&mut w, &token);
    (w, token)
}

/// The usual one.
pub fn fresh(w: &World) -> Token {
    Token::new(w.path("hsm"))
}

/// One behind the shim.
pub fn behind_the_shim(w: &World) -> Token {
    Token { shim: true, ..fresh(w) }
}

/// Starts the vault with its token in reach.
pub fn start(w: &mut World, token: &Token) {
    start_by(w, token, &|| Command::new(program("holdfast-vault").unwrap()));
}

/// The same by a command of the test's, which becomes the vault.
pub fn start_by(w: &mut World, token: &Token, command: &dyn Fn() -> Command) {
    w.start_vault_with(|_| {
        let mut c = command();
        c.envs(token.env());
        c
    });
}

/// Founds the cluster with its root in the token.
pub fn found(w: &World, token: &Token) {
    let init = w.json(&["init", "--vault-socket", &w.socket(), "--autolock", "--hsm", &token.uri()]);
    write_key(&w.unlock_key, init["unlock_keys"][0].as_str().unwrap());
}

/// Where the key of the root that signs is.
pub fn root_key(w: &World) -> String {
    let roots = w.json(&["root", "status"]);
    let signer = roots["trusted"].as_array().unwrap().iter().find(|r| r["signer"] == true).unwrap().clone();
    signer["key"].as_str().unwrap().to_owned()
}

/// What voters say of their tokens.
pub fn words(w: &World) -> Value {
    w.json(&["status"])["hsm"].clone()
}

/// How often the log says that an issuer was made.
pub fn issuers(w: &World) -> usize {
    let log = w.json(&["log", "tail", "-n", "200"]);
    log["entries"].as_array().unwrap().iter().filter(|e| e["kind"] == "issuer.create").count()
}

fn children(of: u32, word: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|p| p.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        status.lines().any(|l| l == format!("PPid:\t{of}")) && line.split(|b| *b == 0).any(|arg| arg == word.as_bytes())
    };
    all.filter(is).collect()
}

/// The process that speaks with the token of the vault `vault`, once there is one.
pub fn worker(vault: u32) -> u32 {
    eventually("the token's process", || {
        children(vault, "hsm-keeper").first().and_then(|keeper| children(*keeper, "hsm-worker").first().copied())
    })
}

/// Sends a signal to the token's process: a hang is a stop, a module that crashes is a kill.
pub fn signal_worker(vault: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(worker(vault)).unwrap()).unwrap(), signal).unwrap();
}
