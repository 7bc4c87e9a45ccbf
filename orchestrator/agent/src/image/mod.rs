//! Images on this node: verified blobs (crate `holdfast-image`), and one unpacked root file system an image.
//!
//! `dir/blobs` holds content by digest, `dir/rootfs/<manifest digest>` what all containers of that image share,
//! read-only. A root file system is unpacked beside and renamed when it is complete and on disk: if it has its name, it
//! is whole.

mod layer;
mod tree;
mod user;

pub use layer::UnpackLimits;

use holdfast_image::{Blobs, Image, ImageError, Limits, Registries, Source};
use holdfast_types::Digest;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, RwLock};
use tree::Tree;

/// Most images of which is remembered that they were asked for.
const REMEMBERED: usize = 64;

/// Why an image could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be had, or is not what was pinned.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer holds what no layer may hold.
    #[error("layer {layer} of the image is refused: {reason}")]
    Layer {
        /// The blob.
        layer: Digest,
        /// Which entry, and why.
        reason: String,
    },
    /// The image names a user that it does not have.
    #[error("the image's user {0:?} is not in its /etc/passwd or /etc/group: set `user` in the service")]
    User(String),
    /// A file of ours.
    #[error("could not {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_error<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> StoreError {
    move |e| StoreError::Io { what, path: path.to_owned(), source: e.into() }
}

/// An image that containers can be made of.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What it is.
    pub image: Image,
    /// Its root file system: shared, never to be written to.
    pub rootfs: PathBuf,
    /// Its user's numeric uid and gid; `None` if it names none.
    pub user: Option<(u32, u32)>,
}

/// The images of this node.
#[derive(Debug)]
pub struct ImageStore {
    blobs: Blobs,
    rootfs: PathBuf,
    registries: Registries,
    limits: Limits,
    unpack: UnpackLimits,
    /// Taken to write by `prune`, to read by everybody else.
    in_use: RwLock<()>,
    /// One task an image fetches and unpacks; others that want the same wait for it.
    busy: Mutex<HashMap<Digest, Arc<AsyncMutex<()>>>>,
    /// What was asked for last, the newest first; a restarted agent has forgotten it.
    recent: Mutex<VecDeque<Digest>>,
}

impl ImageStore {
    /// Opens `dir` (made 0700) and removes what an earlier agent left half-done.
    pub fn open(dir: &Path, registries: Registries, limits: Limits, unpack: UnpackLimits) -> Result<Self, StoreError> {
        let blobs = Blobs::open(dir.join("blobs"))?;
        let rootfs = dir.join("rootfs");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&rootfs);
        made.map_err(io_error("create", &rootfs))?;
        let (in_use, busy, recent) = (RwLock::default(), Mutex::default(), Mutex::default());
        let store = Self { blobs, rootfs, registries, limits, unpack, in_use, busy, recent };
        store.remove_rootfs_but(|name| Digest::parse(name).is_some())?;
        Ok(store)
    }

    /// Makes the image pinned as `pinned` ready, fetching from `source` what is not here yet.
    pub async fn ensure(&self, source: &Source, pinned: Digest) -> Result<Ready, StoreError> {
        let _in_use = self.in_use.read().await;
        self.asked_for(pinned);
        let mine = self.busy.lock().unwrap_or_else(PoisonError::into_inner).entry(pinned).or_default().clone();
        let _busy = mine.lock().await;
        let image = holdfast_image::fetch(source, pinned, &self.blobs, &self.registries, &self.limits).await?;
        let rootfs = self.rootfs.join(image.manifest.hex());
        let (blobs, limits, unpacked, target) = (self.blobs.clone(), self.unpack, image.clone(), rootfs.clone());
        let work = move || {
            if !target.exists() {
                unpack(&unpacked, &blobs, &limits, &target)?;
            }
            let named = unpacked.config.config().as_ref().and_then(|c| c.user().clone()).unwrap_or_default();
            user::resolve(&Tree::open(&target).map_err(io_error("open", &target))?, &named)
        };
        let user = match tokio::task::spawn_blocking(work).await {
            Ok(user) => user?,
            Err(e) => return Err(io_error("finish unpacking", &rootfs)(io::Error::other(e))),
        };
        Ok(Ready { image, rootfs, user })
    }

    /// Removes every image that is neither pinned by one of `in_use` nor among the `spare` that were asked
    /// for last; returns the bytes of blobs that this freed. Does nothing while images are being made ready: another end of a task
    /// will come. LAW: `in_use` is asked while no image can become ready, so no root file system goes that a container
    /// was just given (`an_image_that_is_in_use_or_was_lately_outlives_a_pruning`).
    pub async fn prune(&self, in_use: &(dyn Fn() -> BTreeSet<Digest> + Sync), spare: usize) -> Result<u64, StoreError> {
        let Ok(_nobody_else) = self.in_use.try_write() else { return Ok(0) };
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let in_use = in_use();
        let recent: Vec<Digest> =
            self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().take(spare).copied().collect();
        let mut keep = Vec::new();
        for pin in in_use.iter().chain(&recent) {
            match holdfast_image::held(*pin, &self.blobs, &self.limits).await? {
                Some(image) => keep.push(image),
                // What cannot be read may have a root file system under a container: then nothing is removed.
                None if in_use.contains(pin) => return Ok(0),
                None => {}
            }
        }
        let manifests: BTreeSet<String> = keep.iter().map(|i| i.manifest.hex()).collect();
        self.remove_rootfs_but(|name| manifests.contains(name))?;
        let documents = keep.iter().flat_map(|i| [i.pinned, i.manifest, i.config_digest]);
        let layers = keep.iter().flat_map(|i| i.layers.iter().map(|l| l.digest));
        Ok(self.blobs.retain(&documents.chain(layers).collect())?)
    }
    fn asked_for(&self, pinned: Digest) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|p| *p != pinned);
        recent.push_front(pinned);
        recent.truncate(REMEMBERED);
    }

    fn remove_rootfs_but(&self, keep: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.rootfs).map_err(io_error("list", &self.rootfs))? {
            let entry = entry.map_err(io_error("list", &self.rootfs))?;
            if !entry.file_name().to_str().is_some_and(&keep) {
                fs::remove_dir_all(entry.path()).map_err(io_error("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Directories that `spec` mounts on: made here, so that no runtime has to write to a shared root file system.
const MOUNT_POINTS: [&str; 5] = ["proc", "dev", "sys", "tmp", "run"];

fn unpack(image: &Image, blobs: &Blobs, limits: &UnpackLimits, target: &Path) -> Result<(), StoreError> {
    let fresh = target.with_extension("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(io_error("remove", &fresh))?;
    }
    // The container's `/`: everybody may enter it. Its parent on the host is 0700.
    fs::DirBuilder::new().mode(0o755).create(&fresh).map_err(io_error("create", &fresh))?;
    let tree = Tree::open(&fresh).map_err(io_error("open", &fresh))?;
    let mut budget = *limits;
    for layer in &image.layers {
        layer::apply(&tree, &blobs.path(layer.digest), layer, &mut budget)?;
    }
    for dir in MOUNT_POINTS {
        tree.make_dirs(Path::new(dir)).map_err(io_error("create a mount point in", &fresh))?;
    }
    tree.sync().map_err(io_error("write", &fresh))?;
    fs::rename(&fresh, target).map_err(io_error("rename", &fresh))
}
