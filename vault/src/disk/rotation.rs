//! Replacing the disk key of a running voter. Each step is on disk before the next begins, and what a crash leaves is gone on with.
//!
//! 1. The slots hold the next key beside the one in use: whatever opened the disk before opens both.
//! 2. New values are sealed with the next key.
//! 3. A snapshot takes in the log so far, and the log is purged up to there: its entries may hold boxes of keys that were destroyed,
//!    so they are not sealed again.
//! 4. Marks, audit values, the snapshot and the identity are sealed again.
//! 5. Nothing is left under the old key: the slots drop it.
//!
//! Must never: drop the old key while anything on the disk needs it, or keep it once nothing does.

use super::DiskError;
use super::credential::Given;
use super::duty;
use super::hsm::{self, OwnToken};
use super::ident::Ident;
use super::keys::{self, DiskKeys, Generation};
use super::slots::Slots;
use crate::raft::{Machine, Stopped, Store, StoreError, Voter};
use holdfast_transport::failure::Failure;
use holdfast_vault_core::WantedSlots;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The log is compacted within this time, or it is tried again later.
const PATIENCE: Duration = Duration::from_secs(60);
/// A snapshot that was already on its way when it was asked for reaches less far: it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often the purge is looked after.
const LOOK: Duration = Duration::from_millis(20);

/// Called after each step that is on disk; its error stops there, as a crash would.
type Steps = Arc<dyn Fn(&'static str) -> Result<(), StoreError> + Send + Sync>;

/// Why the disk key is not replaced yet. What was begun goes on at the next call or start.
#[derive(Debug, thiserror::Error)]
enum RotationError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("the disk key is not replaced yet: {0}")]
    Waits(&'static str),
}

impl From<RotationError> for Failure {
    fn from(e: RotationError) -> Self {
        match e {
            RotationError::Disk(e) => crate::found::disk(e),
            RotationError::Store(e) => Failure::failed("corrupt", e.to_string()),
            RotationError::Stopped(e) => crate::failure::stopped(e),
            RotationError::Waits(_) => Failure::unavailable("unavailable", e.to_string()).help("see holdfast status"),
        }
    }
}

/// Replaces the disk key of the voter in `dir` by a new one, once. What an earlier replacement left is finished before.
pub async fn replace_disk_key<M: Machine>(
    dir: &Path,
    keys: &Arc<DiskKeys>,
    store: &Store,
    voter: &Voter<M>,
    wanted: &WantedSlots,
    token: &OwnToken,
) -> Result<(), Failure> {
    let rotation = Rotation { token: token.clone(), ..Rotation::new(dir, keys, store, voter, wanted)? };
    Ok(rotation.replace().await?)
}

/// Finishes the replacement that was under way when the disk was opened; does nothing if none was.
pub async fn resume<M: Machine>(
    dir: &Path,
    keys: &Arc<DiskKeys>,
    store: &Store,
    voter: &Voter<M>,
    wanted: &WantedSlots,
) -> Result<(), Failure> {
    Ok(Rotation::new(dir, keys, store, voter, wanted)?.resume().await?)
}

struct Rotation<'a, M: Machine> {
    dir: &'a Path,
    keys: &'a Arc<DiskKeys>,
    store: &'a Store,
    voter: &'a Voter<M>,
    wanted: &'a WantedSlots,
    credential: Given,
    token: OwnToken,
    steps: Steps,
}

impl<'a, M: Machine> Rotation<'a, M> {
    fn new(
        dir: &'a Path,
        keys: &'a Arc<DiskKeys>,
        store: &'a Store,
        voter: &'a Voter<M>,
        wanted: &'a WantedSlots,
    ) -> Result<Self, RotationError> {
        let credential = Given::now();
        Ok(Self { dir, keys, store, voter, wanted, credential, token: None, steps: Arc::new(|_| Ok(())) })
    }

    fn step(&self, done: &'static str) -> Result<(), RotationError> {
        Ok((self.steps)(done)?)
    }

    async fn replace(&self) -> Result<(), RotationError> {
        self.resume().await?;
        self.begin()?;
        self.complete().await
    }

    async fn resume(&self) -> Result<(), RotationError> {
        if self.keys.is_replacing() { self.complete().await } else { Ok(()) }
    }

    fn begin(&self) -> Result<(), RotationError> {
        let _alone = self.keys.changing();
        let mut slots = Slots::load(self.dir)?;
        let key = keys::generate()?;
        let (charter_version, recovery_pk) = self.wanted.recovery;
        let number = slots.begin_rotation(&key, charter_version, &recovery_pk)?;
        let next = Generation { number, key };
        duty::seal_all(&mut slots, &next, self.wanted, self.credential)?;
        if let Some(token) = &self.token
            && let Err(e) = tokio::task::block_in_place(|| hsm::seal(&mut slots, &next, &**token))
        {
            // The other slots hold it; the token's follows once it answers.
            tracing::warn!("the next disk key is not wrapped by the token yet: {e}");
        }
        slots.store(self.dir)?;
        self.step("the slots hold both keys")?;
        self.keys.begin(next);
        Ok(())
    }

    async fn complete(&self) -> Result<(), RotationError> {
        self.store.fence();
        let last = self.store.last_log_index()?;
        self.compact(last).await?;
        self.step("the log is compacted")?;
        self.reseal().await?;
        Ident::change(self.dir, self.keys, |_| {})?;
        self.step("the identity is sealed again")?;
        if blocking(self.store, Store::is_old_anywhere).await? {
            return Err(RotationError::Waits("values under the old key are left"));
        }
        self.finish()
    }

    /// Waits until the log no longer holds the entry `last` or one before it.
    async fn compact(&self, last: u64) -> Result<(), RotationError> {
        let end = Instant::now() + PATIENCE;
        if !self.store.log_reaches_back_to(last)? {
            return Ok(());
        }
        if self.voter.until(PATIENCE, |s| s.applied >= Some(last)).await?.is_none() {
            return Err(RotationError::Waits("the log is not committed: too few voters are up"));
        }
        loop {
            self.voter.snapshot().await?;
            if self.voter.until(ASK_AGAIN, |s| s.snapshot >= Some(last)).await?.is_some() {
                break;
            }
            if Instant::now() > end {
                return Err(RotationError::Waits("no snapshot was made in time"));
            }
        }
        self.step("a snapshot reaches as far as the log")?;
        self.voter.purge(last).await?;
        while self.store.log_reaches_back_to(last)? {
            if Instant::now() > end {
                return Err(RotationError::Waits("the log was not purged in time"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn reseal(&self) -> Result<(), RotationError> {
        let steps = Arc::clone(&self.steps);
        blocking(self.store, move |store| {
            store.reseal(|seen, all| {
                tracing::debug!(seen, all, "audit values are sealed again");
                steps("a part of the store is sealed again")
            })
        })
        .await?;
        self.step("the store is sealed again")
    }

    fn finish(&self) -> Result<(), RotationError> {
        self.store.flush()?;
        {
            let _alone = self.keys.changing();
            let mut slots = Slots::load(self.dir)?;
            slots.finish_rotation()?;
            slots.store(self.dir)?;
            self.step("the slots hold the next key alone")?;
            self.keys.finish();
        }
        tracing::info!(generation = self.keys.newest(), "the disk key was replaced");
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RotationError> {
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    Ok(done.map_err(|_| RotationError::Waits("the work was given up"))??)
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
