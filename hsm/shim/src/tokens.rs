//! Tokens for tests: SoftHSM 2 and NSS in directories of their own, with the shim in front where faults are wanted.
#![allow(clippy::unwrap_used, reason = "a test whose token cannot be made stops there")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The user PIN of every token that is made here.
pub const PIN: &str = "1234-abcd";

/// A token in a directory, and the environment that its module wants.
#[derive(Debug)]
pub struct TestToken {
    dir: PathBuf,
    module: PathBuf,
    token: String,
    reserved: Option<String>,
    env: Vec<(String, String)>,
}

impl TestToken {
    /// A new token of SoftHSM 2 in this directory.
    pub fn softhsm(dir: &Path) -> Self {
        let conf = dir.join("softhsm2.conf");
        fs::create_dir_all(dir.join("tokens")).unwrap();
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            dir.join("tokens").display()
        );
        fs::write(&conf, text).unwrap();
        let token = Self {
            dir: dir.to_owned(),
            module: first(&["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"]),
            token: "holdfast".to_owned(),
            reserved: None,
            env: vec![("SOFTHSM2_CONF".to_owned(), conf.display().to_string())],
        };
        token.softhsm_util(&["--init-token", "--free", "--label", "holdfast", "--so-pin", "so-pin-1", "--pin", PIN]);
        token
    }
    /// A new database of NSS in this directory.
    pub fn nss(dir: &Path) -> Self {
        let (db, pin) = (dir.join("nss"), dir.join("pin"));
        fs::create_dir_all(&db).unwrap();
        fs::write(&pin, PIN).unwrap();
        let sql = format!("sql:{}", db.display());
        let mut certutil = Command::new("certutil");
        run(certutil.args(["-N", "-d", &sql, "-f"]).arg(&pin));
        Self {
            dir: dir.to_owned(),
            module: first(&[
                "/usr/lib/x86_64-linux-gnu/libsoftokn3.so",
                "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
                "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
                "/usr/lib/aarch64-linux-gnu/nss/libsoftokn3.so",
            ]),
            token: "NSS%20Certificate%20DB".to_owned(),
            reserved: Some(format!("configDir='{sql}'%20certPrefix=''%20keyPrefix=''%20secmod='secmod.db'%20flags=")),
            env: Vec::new(),
        }
    }
    /// Its module, without the shim.
    pub fn module(&self) -> &Path {
        &self.module
    }
    /// Its URI.
    pub fn uri(&self) -> String {
        self.uri_by(&self.module)
    }
    /// Its URI by the shim. Call [`Self::faults`] to order faults.
    pub fn uri_by_shim(&self) -> String {
        self.uri_by(&shim())
    }
    fn uri_by(&self, module: &Path) -> String {
        let reserved = self.reserved.as_ref().map(|r| format!("&x-init-reserved={r}")).unwrap_or_default();
        format!("pkcs11:token={}?module-path={}{reserved}", self.token, module.display())
    }
    /// What the environment of a process that loads the module, or the shim, must have.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut env = self.env.clone();
        env.push(("HOLDFAST_SHIM_MODULE".to_owned(), self.module.display().to_string()));
        env.push(("HOLDFAST_SHIM_FAULTS".to_owned(), self.dir.join("faults").display().to_string()));
        env.push(("HOLDFAST_SHIM_CALLS".to_owned(), self.dir.join("calls").display().to_string()));
        env
    }
    /// Orders these faults from the shim, in place of all others.
    pub fn faults(&self, lines: &[&str]) {
        let (new, file) = (self.dir.join("faults.new"), self.dir.join("faults"));
        fs::write(&new, lines.join("\n")).unwrap();
        fs::rename(new, file).unwrap();
    }
    /// How often this function was called through the shim.
    pub fn calls(&self, function: &str) -> usize {
        fs::read_to_string(self.dir.join("calls")).unwrap_or_default().lines().filter(|l| *l == function).count()
    }
    /// A program in the token's directory that runs `program` with this token's environment.
    pub fn program(&self, program: &Path) -> PathBuf {
        let script = self.dir.join("program");
        let env: String = self.env().iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
        fs::write(&script, format!("#!/bin/sh\n{env}exec '{}' \"$@\"\n", program.display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        script
    }
    /// Takes the token away, or puts it back: SoftHSM then has none.
    pub fn remove(&self, away: bool) {
        let (here, there) = (self.dir.join("tokens"), self.dir.join("tokens.away"));
        let (from, to) = if away { (here, there) } else { (there, here) };
        // SoftHSM wants its directory to be there, empty or not.
        fs::remove_dir(&to).ok();
        fs::rename(&from, &to).unwrap();
        fs::create_dir_all(self.dir.join("tokens")).unwrap();
    }
    /// Runs `softhsm2-util` on this token.
    pub fn softhsm_util(&self, args: &[&str]) {
        run(Command::new("softhsm2-util").args(args).envs(self.env.clone()));
    }
}

/// The shim that was built beside this test.
pub fn shim() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let near = program.parent().unwrap();
    let name = "libholdfast_hsm_shim.so";
    let places = [near.join(name), near.join("deps").join(name), near.join("..").join(name)];
    places.into_iter().find(|p| p.is_file()).unwrap()
}

fn first(paths: &[&str]) -> PathBuf {
    paths.iter().map(PathBuf::from).find(|p| p.is_file()).unwrap()
}

fn run(command: &mut Command) {
    let done = command.stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
