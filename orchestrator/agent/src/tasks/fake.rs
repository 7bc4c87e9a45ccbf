//! A ground for tests: containers that run until the test ends them, and a diary of what was done.

use super::ground::{Ground, GroundError};
use super::job::Job;
use crate::runtime::{ContainerId, Exit, Held, Status};
use holdfast_orchestrator_core::verify::OpenedSecret;
use holdfast_types::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

#[derive(Default)]
pub(crate) struct Fake {
    diary: Mutex<Vec<String>>,
    containers: Mutex<BTreeMap<ContainerId, watch::Sender<Option<Exit>>>>,
    /// Containers whose shims have not written a status yet.
    coming_up: Mutex<BTreeSet<ContainerId>>,
    /// Images never arrive.
    no_images: bool,
    /// How often secrets cannot be removed.
    stuck: AtomicU32,
}

pub(crate) fn exit(code: i32) -> Exit {
    Exit { code: Some(code), signal: None, oom_killed: false, at_ms: 0 }
}

impl Fake {
    pub(crate) fn without_images() -> Self {
        Self { no_images: true, ..Self::default() }
    }
    pub(crate) fn with_stuck_secrets(times: u32) -> Self {
        Self { stuck: AtomicU32::new(times), ..Self::default() }
    }
    fn note(&self, what: &str, of: &ContainerId) {
        self.diary.lock().unwrap().push(format!("{what} {of}"));
    }
    pub(crate) fn diary(&self) -> Vec<String> {
        self.diary.lock().unwrap().clone()
    }
    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, watch::Sender<Option<Exit>>>> {
        self.containers.lock().unwrap()
    }
    /// Ends the container `name` by itself.
    pub(crate) fn end(&self, name: &str, code: i32) {
        self.containers()[&ContainerId::parse(name).unwrap()].send_replace(Some(exit(code)));
    }
    /// A container that nobody started.
    pub(crate) fn plant(&self, name: &str) {
        self.containers().insert(ContainerId::parse(name).unwrap(), watch::Sender::new(None));
    }
    /// Its shim is not yet so far as to say that it runs.
    pub(crate) fn is_coming_up(&self, name: &str) {
        self.coming_up.lock().unwrap().insert(ContainerId::parse(name).unwrap());
    }
    pub(crate) fn runs(&self, name: &str) -> bool {
        self.containers().get(&ContainerId::parse(name).unwrap()).is_some_and(|c| c.borrow().is_none())
    }
}

impl Ground for Fake {
    async fn fetch(&self, job: &Job) -> Result<(), GroundError> {
        self.note("fetch", &job.secrets_name());
        if self.no_images {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
    async fn mount(&self, job: &Job, _: Vec<OpenedSecret>) -> Result<(), GroundError> {
        self.note("mount", &job.secrets_name());
        Ok(())
    }
    async fn start(&self, job: &Job, attempt: u32) -> Result<(), GroundError> {
        let name = job.container_name(attempt);
        self.note("start", &name);
        self.containers().insert(name, watch::Sender::new(None));
        Ok(())
    }
    async fn wait(&self, name: &ContainerId) -> Exit {
        let mut ended = self.containers()[name].subscribe();
        ended.wait_for(Option::is_some).await.unwrap().unwrap()
    }
    async fn stop(&self, name: &ContainerId, _: Duration) -> Exit {
        self.note("stop", name);
        self.containers()[name].send_replace(Some(exit(143)));
        exit(143)
    }
    async fn unmount(&self, job: &Job) -> Result<(), GroundError> {
        self.note("unmount", &job.secrets_name());
        let stuck = self.stuck.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if stuck { Err(GroundError::Interrupted) } else { Ok(()) }
    }
    async fn discard(&self, name: &ContainerId) -> Result<(), GroundError> {
        self.note("discard", name);
        self.containers().remove(name);
        Ok(())
    }
    fn held(&self) -> Result<Vec<Held>, GroundError> {
        let held = |(id, c): (&ContainerId, &watch::Sender<Option<Exit>>)| match *c.borrow() {
            None if self.coming_up.lock().unwrap().contains(id) => Held { id: id.clone(), status: None, alive: true },
            None => Held { id: id.clone(), status: Some(Status::Running { pid: 1, at_ms: 0 }), alive: true },
            Some(exit) => Held { id: id.clone(), status: Some(Status::Exited(exit)), alive: false },
        };
        Ok(self.containers().iter().map(held).collect())
    }
    fn output(&self, name: &ContainerId) -> PathBuf {
        PathBuf::from(name.as_str())
    }
    async fn prune_images(&self, in_use: &(dyn Fn() -> BTreeSet<Digest> + Sync)) -> Result<u64, GroundError> {
        let used: Vec<String> = in_use().iter().map(Digest::hex).collect();
        self.diary.lock().unwrap().push(format!("images in use: {}", used.len()));
        Ok(0)
    }
    fn sweep(&self, keep: &BTreeSet<ContainerId>) -> Result<Vec<ContainerId>, GroundError> {
        for name in keep {
            self.note("keep", name);
        }
        Ok(Vec::new())
    }
}
