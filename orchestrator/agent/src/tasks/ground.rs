//! What a task needs of the machine, as a port; and the machine.
//!
//! Must never say that a container has ended while it may still run: what cannot be known is ended first.

use super::job::Job;
use crate::host::Host;
use crate::image::{ImageStore, Ready, StoreError};
use crate::runtime::{ContainerId, Containers, Exit, Held, RuntimeError};
use crate::secretfs::{SecretFile, SecretFs, SecretFsError, Swap};
use crate::spec::{self, Facts, SpecError};
use holdfast_image::{ImageError, Source};
use holdfast_orchestrator_core::verify::OpenedSecret;
use holdfast_types::Digest;
use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::sleep;

/// Between two attempts to end a container that cannot be ended.
const STUBBORN: Duration = Duration::from_secs(1);
/// Images that stay although no task uses them: a service that is rolled back finds its image here.
const SPARE_IMAGES: usize = 8;
/// A file on a tmpfs takes whole pages.
const PAGE: u64 = 4096;

/// Why something about a task did not work on this machine.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// Its image.
    #[error(transparent)]
    Image(#[from] StoreError),
    /// Its image's name.
    #[error(transparent)]
    Source(#[from] ImageError),
    /// Its secrets.
    #[error(transparent)]
    Secrets(#[from] SecretFsError),
    /// They were in memory only, and the machine was restarted.
    #[error("the task's secrets are gone, for they were in memory only; it needs a new grant")]
    SecretsGone,
    /// Its specification.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Its container.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The process is stopping.
    #[error("interrupted")]
    Interrupted,
}
impl GroundError {
    /// True if another attempt may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Image(_) | Self::Runtime(_) | Self::Interrupted)
    }
}

/// The port: what carries a task.
pub trait Ground: Send + Sync + 'static {
    /// Makes the task's image ready.
    fn fetch(&self, job: &Job) -> impl Future<Output = Result<(), GroundError>> + Send;
    /// Puts its secrets into memory of their own.
    fn mount(&self, job: &Job, secrets: Vec<OpenedSecret>) -> impl Future<Output = Result<(), GroundError>> + Send;
    /// Starts its container number `attempt`; returns once the program runs.
    fn start(&self, job: &Job, attempt: u32) -> impl Future<Output = Result<(), GroundError>> + Send;
    /// Waits until the container has ended.
    fn wait(&self, name: &ContainerId) -> impl Future<Output = Exit> + Send;
    /// Asks the container to end, gives it `grace`, then ends it; returns only once it has ended.
    fn stop(&self, name: &ContainerId, grace: Duration) -> impl Future<Output = Exit> + Send;
    /// Takes the task's secrets away.
    fn unmount(&self, job: &Job) -> impl Future<Output = Result<(), GroundError>> + Send;
    /// Ends the container if it runs and removes it with its output.
    fn discard(&self, name: &ContainerId) -> impl Future<Output = Result<(), GroundError>> + Send;
    /// All containers here, running or not.
    fn held(&self) -> Result<Vec<Held>, GroundError>;
    /// Where a container's output is.
    fn output(&self, name: &ContainerId) -> PathBuf;
    /// Removes images that are not `in_use`, but for the few that were used last; returns the bytes that this freed.
    /// `in_use` is asked at a moment at which no image is being made ready.
    fn prune_images(
        &self,
        in_use: &(dyn Fn() -> BTreeSet<Digest> + Sync),
    ) -> impl Future<Output = Result<u64, GroundError>> + Send;
    /// Removes all secrets but those of `keep`.
    fn sweep(&self, keep: &BTreeSet<ContainerId>) -> Result<Vec<ContainerId>, GroundError>;
}

/// This machine.
#[derive(Debug)]
pub struct Machine {
    /// Its containers.
    pub containers: Containers,
    /// Its images.
    pub images: ImageStore,
    /// Its tasks' secrets.
    pub secrets: SecretFs,
    /// What it can do.
    pub host: Host,
}

impl Machine {
    async fn ready(&self, job: &Job) -> Result<Ready, GroundError> {
        Ok(self.images.ensure(&Source::parse(&job.source)?, job.image).await?)
    }
    /// Ends a container of which nothing more can be learnt.
    async fn end(&self, name: &ContainerId, why: &RuntimeError) -> Exit {
        let mut error = why.to_string();
        loop {
            tracing::error!(container = %name, %error, "the container's end is forced");
            match self.containers.remove(name).await {
                Ok(()) => {
                    return Exit { code: None, signal: None, oom_killed: false, at_ms: holdfast_transport::now().0 };
                }
                Err(e) => error = e.to_string(),
            }
            sleep(STUBBORN).await;
        }
    }
}

/// Room for `secrets`: whole pages, twice the largest (files are replaced whole), and a little for directories.
fn room(secrets: &[OpenedSecret]) -> u64 {
    let pages = |s: &OpenedSecret| u64::try_from(s.bytes.len()).unwrap_or(u64::MAX).div_ceil(PAGE).max(1);
    let all = secrets.iter().map(pages).fold(0, u64::saturating_add);
    let largest = secrets.iter().map(pages).max().unwrap_or_default();
    all.saturating_add(largest).saturating_add(16).saturating_mul(PAGE)
}

impl Ground for Machine {
    async fn fetch(&self, job: &Job) -> Result<(), GroundError> {
        self.ready(job).await.map(drop)
    }

    async fn mount(&self, job: &Job, secrets: Vec<OpenedSecret>) -> Result<(), GroundError> {
        if secrets.is_empty() {
            return Ok(());
        }
        let owner = spec::user(&job.spec, self.ready(job).await?.user);
        let (fs, name) = (self.secrets.clone(), job.secrets_name());
        let work = move || {
            let file = |s: &'_ OpenedSecret| (s.uid, s.gid, if s.mode == 0 { 0o400 } else { s.mode });
            let files: Vec<SecretFile<'_>> = secrets
                .iter()
                .map(|s| {
                    let (uid, gid, mode) = file(s);
                    // Uid 0 is nobody's in a container: a secret without an owner belongs to the task's user.
                    let (uid, gid) = if uid == 0 && gid == 0 { owner } else { (uid, gid) };
                    SecretFile { name: &s.target, value: s.bytes.expose(), mode, uid, gid }
                })
                .collect();
            fs.mount(&name, owner, room(&secrets), &files)
        };
        let mounted = tokio::task::spawn_blocking(work).await.map_err(|_| GroundError::Interrupted)??;
        if mounted.swap == Swap::IfSwapIsOn {
            tracing::warn!(task = %job.task, "this kernel has no noswap: with swap on, secrets may reach the disk");
        }
        Ok(())
    }

    async fn start(&self, job: &Job, attempt: u32) -> Result<(), GroundError> {
        let ready = self.ready(job).await?;
        let secrets = if job.grant.secrets.is_empty() {
            None
        } else {
            let path = self.secrets.path(&job.secrets_name());
            Some(path.exists().then_some(path).ok_or(GroundError::SecretsGone)?)
        };
        let name = job.container_name(attempt);
        // What an earlier agent left half-started under this name.
        self.containers.remove(&name).await?;
        let image = ready.image.config.config().clone().unwrap_or_default();
        let env: Vec<_> = job.grant.params.iter().map(|p| (p.name.clone(), p.value.clone())).collect();
        let facts = Facts {
            id: name.as_str(),
            rootfs: &ready.rootfs,
            image: &image,
            image_user: ready.user,
            secrets: secrets.as_deref(),
            env: &env,
            host: &self.host,
        };
        let built = spec::build(&job.spec, &facts)?;
        Ok(self.containers.start(&name, built).await?)
    }

    async fn wait(&self, name: &ContainerId) -> Exit {
        match self.containers.wait(name).await {
            Ok(exit) => exit,
            Err(e) => self.end(name, &e).await,
        }
    }

    async fn stop(&self, name: &ContainerId, grace: Duration) -> Exit {
        match self.containers.stop(name, grace).await {
            Ok(exit) => exit,
            Err(e) => self.end(name, &e).await,
        }
    }

    async fn unmount(&self, job: &Job) -> Result<(), GroundError> {
        let (fs, name) = (self.secrets.clone(), job.secrets_name());
        let removed = tokio::task::spawn_blocking(move || fs.remove(&name)).await;
        Ok(removed.map_err(|_| GroundError::Interrupted)??)
    }

    async fn discard(&self, name: &ContainerId) -> Result<(), GroundError> {
        Ok(self.containers.remove(name).await?)
    }

    fn held(&self) -> Result<Vec<Held>, GroundError> {
        Ok(self.containers.held()?)
    }

    fn output(&self, name: &ContainerId) -> PathBuf {
        self.containers.log_dir(name)
    }

    async fn prune_images(&self, in_use: &(dyn Fn() -> BTreeSet<Digest> + Sync)) -> Result<u64, GroundError> {
        Ok(self.images.prune(in_use, SPARE_IMAGES).await?)
    }

    fn sweep(&self, keep: &BTreeSet<ContainerId>) -> Result<Vec<ContainerId>, GroundError> {
        Ok(self.secrets.sweep(keep)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::SecretBytes;

    #[test]
    fn there_is_room_for_whole_pages_and_one_replacement() {
        let secret = |n: usize| OpenedSecret {
            name: String::new(),
            version: 1,
            target: String::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            bytes: SecretBytes::new(vec![0; n]),
        };
        assert_eq!(room(&[secret(1), secret(5000)]), (1 + 2 + 2 + 16) * PAGE);
    }
}
