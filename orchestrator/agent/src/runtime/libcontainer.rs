//! The embedded back end: youki's libcontainer, in a helper process of ours.
//!
//! libcontainer forks, sets namespaces of the calling thread and changes its own credentials: it must never be called
//! from the agent's process. The agent runs itself again as `oci-helper`, which speaks the OCI command line; so the
//! driver is the same [`OciCommand`] as for `runc`.
//!
//! A runtime that shares its file with the host must not let a container write to that file (CVE-2019-5736). Ours
//! cannot: no container runs as uid 0 or holds a capability (`spec`), and the file belongs to root.

use super::{ContainerId, OciCommand, loopback};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::signal::Signal;
use libcontainer::syscall::syscall::SyscallType;
use std::error::Error;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Name in the configuration.
pub const NAME: &str = "libcontainer";
/// The hidden subcommand that [`helper_main`] serves.
pub const HELPER: &str = "oci-helper";

/// The runtime, run by `program` (this program), keeping its state under `root`.
pub fn runtime(program: PathBuf, root: PathBuf) -> OciCommand {
    OciCommand::new(NAME, program, vec![HELPER.into()], root)
}

/// The helper: `--root R [--log F] [--log-format json] VERB …`, one verb, one thread, then gone.
pub fn helper_main(args: &[OsString]) -> ExitCode {
    let Some(call) = Call::parse(args) else {
        complain(None, "usage: oci-helper --root ROOT create|start|state|kill|delete …");
        return ExitCode::from(2);
    };
    match call.serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(call.log.as_deref(), &chain(e.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Default)]
struct Call {
    root: PathBuf,
    log: Option<PathBuf>,
    bundle: PathBuf,
    pid_file: Option<PathBuf>,
    words: Vec<String>,
}

impl Call {
    fn parse(args: &[OsString]) -> Option<Self> {
        let mut call = Self::default();
        let mut it = args.iter();
        while let Some(arg) = it.next() {
            match arg.to_str()? {
                "--root" => call.root = it.next()?.into(),
                "--log" => call.log = Some(it.next()?.into()),
                "--log-format" => drop(it.next()?),
                "--bundle" => call.bundle = it.next()?.into(),
                "--pid-file" => call.pid_file = Some(it.next()?.into()),
                "--force" => {}
                word => call.words.push(word.to_owned()),
            }
        }
        (!call.root.as_os_str().is_empty() && call.words.len() >= 2).then_some(call)
    }

    fn serve(&self) -> Result<(), Box<dyn Error>> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["create", id] => self.create(&ContainerId::parse(id)?),
            ["start", id] => Ok(self.load(id)?.start()?),
            ["state", id] => {
                let container = self.load(id)?;
                serde_json::to_writer(std::io::stdout().lock(), &container.state)?;
                Ok(())
            }
            ["kill", id, signal] => Ok(self.load(id)?.kill(Signal::try_from(*signal)?, false)?),
            ["delete", id] => Ok(self.load(id)?.delete(true)?),
            _ => Err("unknown verb, or wrong arguments to it".into()),
        }
    }

    fn create(&self, id: &ContainerId) -> Result<(), Box<dyn Error>> {
        std::fs::create_dir_all(&self.root)?;
        let container = ContainerBuilder::new(id.as_str().to_owned(), SyscallType::default())
            .with_root_path(&self.root)?
            .with_pid_file(self.pid_file.clone())?
            .validate_id()?
            .as_init(&self.bundle)
            .with_systemd(false)
            .with_detach(true)
            .build()?;
        // `runc` brings the container's loopback up by itself; libcontainer leaves it to the caller.
        let pid = container.pid().ok_or("the new container has no process")?;
        if let Err(e) = loopback::bring_up(pid.as_raw()) {
            self.load(id.as_str())?.delete(true)?;
            return Err(format!("could not bring up the container's loopback: {e}").into());
        }
        Ok(())
    }

    fn load(&self, id: &str) -> Result<Container, Box<dyn Error>> {
        let dir = self.root.join(ContainerId::parse(id)?.as_str());
        if !dir.exists() {
            return Err("container does not exist".into());
        }
        let mut container = Container::load(dir)?;
        container.refresh_status()?;
        Ok(container)
    }
}

/// The error and all its causes, on one line.
fn chain(e: &dyn Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// Says what went wrong on stderr and, as a runtime does, as a line of JSON in its log.
fn complain(log: Option<&Path>, message: &str) {
    // Nobody is left to tell if neither can be written.
    writeln!(std::io::stderr(), "{message}").ok();
    if let Some(path) = log {
        let line = serde_json::json!({ "level": "error", "msg": message });
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut f| writeln!(f, "{line}")).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_takes_the_command_line_that_runc_takes() {
        let args: Vec<OsString> = "--root /r --log-format json --log /l create --bundle /b --pid-file /p a.b.1"
            .split(' ')
            .map(OsString::from)
            .collect();
        let call = Call::parse(&args).unwrap();
        assert_eq!(call.words, ["create", "a.b.1"]);
        assert_eq!((call.root, call.bundle), (PathBuf::from("/r"), PathBuf::from("/b")));
        assert_eq!((call.log, call.pid_file), (Some(PathBuf::from("/l")), Some(PathBuf::from("/p"))));
    }

    #[test]
    fn the_helper_refuses_a_call_without_a_root_or_a_container() {
        for bad in ["create x", "--root", "--root /r create", ""] {
            let args: Vec<OsString> = bad.split_whitespace().map(OsString::from).collect();
            assert!(Call::parse(&args).is_none(), "{bad:?}");
        }
    }
}
