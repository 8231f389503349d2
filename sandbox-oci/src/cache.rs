//! A cache of unpacked layers on disk, shared by all processes of one user.
//!
//! ```text
//! DIR/layers/HEX/root/    the files of a layer, for overlayfs
//! DIR/layers/HEX/about    what it is, as JSON; its time is that of the last use
//! DIR/layers/HEX/synced   it is on the disk and survives a loss of power
//! DIR/locks/HEX           shared while a layer is used, exclusive while it is made or removed
//! DIR/making/HEX-N/       a layer that is being unpacked
//! DIR/trash/              what is being removed
//! DIR/used/HEX            an image that was used: reference, digest, layers
//! DIR/blobs/sha256/HEX    what was pulled from a registry
//! ```
//!
//! A layer has its name only once it is whole and its digests were compared: a process that is
//! killed at any moment leaves what the next one removes. Must never change a layer that has its
//! name.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use sandbox_core::backend::FileLock;
use sandbox_core::{Error, ErrorKind, Operation, Result};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::fault::io as io_fault;
use crate::image::{Image, ImageLayer, Limits};
use crate::merged::{DIR, Merged};
use crate::model::ImageConfig;
use crate::unpack::unpack;

/// Pause between two tries to take a lock.
const POLL: Duration = Duration::from_millis(10);

/// Progress of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A layer is fetched from its registry.
    Fetching {
        /// Digest of the blob.
        blob: Digest,
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A layer is unpacked.
    Unpacking {
        /// Number of the layer, from one.
        layer: usize,
        /// Number of layers.
        layers: usize,
        /// Bytes of its blob that were read.
        done: u64,
        /// Bytes of its blob in all.
        total: u64,
    },
    /// A layer can be used: it was unpacked now, or before.
    Ready {
        /// Number of the layer, from one.
        layer: usize,
        /// Number of layers.
        layers: usize,
        /// Whether nothing had to be done.
        cached: bool,
    },
}

/// Listener for the progress of images.
pub trait Progress: std::fmt::Debug + Send + Sync {
    /// Is told of one step of the image with this reference; of a snapshot that is unpacked, it is
    /// `snapshot ID`. It must return soon.
    fn event(&self, reference: &str, event: &Event);
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    owner: Option<(u32, u32)>,
    most: u64,
    limits: Limits,
}

/// A layer that is in use: it is not removed as long as this lives, by any process.
#[derive(Debug)]
pub struct CachedLayer {
    /// Identifier of the layer with all below it.
    pub chain: Digest,
    /// The directory with its files.
    pub root: PathBuf,
    /// Digest of the layer when it is not compressed.
    pub diff: Digest,
    /// Digest of the blob that it came from, where it is known.
    pub blob: Option<Digest>,
    _lock: FileLock,
}

/// An image whose layers are in use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CachedImage {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Settings for running its programs.
    pub config: ImageConfig,
    /// Annotations of the manifest.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// The layers, the topmost first.
    pub layers: Vec<Arc<CachedLayer>>,
}

/// An unpacked layer of a cache, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnpackedLayer {
    /// Identifier of the layer with all below it.
    pub chain: Digest,
    /// Bytes of its files.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// Outcome of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Layers that were removed.
    pub layers: u64,
    /// Bytes of their files and of blobs.
    pub bytes: u64,
    /// Bytes of files that are left.
    pub left: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct About {
    diff: Digest,
    blob: Option<Digest>,
    bytes: u64,
    entries: u64,
    skipped: u64,
    /// The boot in which it was unpacked.
    boot: String,
}

impl Cache {
    /// Opens a cache, and makes it if it is missing. For root, `owner` is the user that the files of
    /// a new cache are given to, so that none of them belongs to root; one that exists keeps its own.
    ///
    /// # Errors
    /// The directory can't be made, or is not this user's own.
    pub fn open(
        dir: impl Into<PathBuf>,
        owner: Option<(u32, u32)>,
        limits: Limits,
        most: u64,
    ) -> io::Result<Self> {
        let dir = dir.into();
        make(&dir)?;
        let found = fs::symlink_metadata(&dir)?;
        let own = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
            let why = "the directory of images is not this user's own, or others may write it";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        for sub in [
            "layers",
            "locks",
            "making",
            "trash",
            "used",
            "blobs",
            "blobs/sha256",
        ] {
            make(&dir.join(sub))?;
        }
        let layers = dir.join("layers");
        let owner = match owner {
            None => None,
            Some((uid, gid)) => {
                let _alone = FileLock::exclusive(lock_file(&dir.join("locks/owner"))?)?;
                let mut found = fs::symlink_metadata(&layers)?;
                if found.uid() == own {
                    std::os::unix::fs::lchown(&layers, Some(uid), Some(gid))?;
                    found = fs::symlink_metadata(&layers)?;
                }
                Some((found.uid(), found.gid()))
            }
        };
        Ok(Self {
            dir,
            owner,
            most,
            limits,
        })
    }

    /// The user and group that all files of the layers belong to, for root.
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// The directory that has a directory for each layer, under the digits of its chain.
    pub fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// The limits of images.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes an image into use: unpacks those of its layers that are missing, one after the other;
    /// what another process or thread is unpacking is waited for. `event` is told of progress, and
    /// `wanted` asked whether to go on.
    ///
    /// # Errors
    /// Those of [`Image::open`] for what is found in a layer;
    /// [`StorageFull`](sandbox_core::ErrorKind::StorageFull). Nothing is left of a layer that failed.
    pub fn take(
        &self,
        reference: &str,
        image: &Image,
        event: &(dyn Fn(Event) + Sync),
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<CachedImage> {
        let mut layers: Vec<Arc<CachedLayer>> = Vec::new();
        let mut unpacked = false;
        let count = image.layers.len();
        for (index, layer) in image.layers.iter().enumerate() {
            let number = index + 1;
            let read = |done| {
                event(Event::Unpacking {
                    layer: number,
                    layers: count,
                    done,
                    total: layer.size,
                });
            };
            let (taken, cached) = self
                .layer(image, layer, &layers, &read, wanted)
                .map_err(|error| error.with_operation(Operation::Create))?;
            unpacked |= !cached;
            event(Event::Ready {
                layer: number,
                layers: count,
                cached,
            });
            layers.insert(0, Arc::new(taken));
        }
        // Its layers may all be another image's too.
        if unpacked || !self.is_noted(reference, image) {
            self.note(reference, image)
                .map_err(|error| io_fault(error, "the image could not be noted"))?;
        }
        if unpacked {
            // The layers in use stay whatever the limit is.
            if let Err(error) = self.collect(self.most) {
                tracing::warn!(%error, "old layers could not be removed");
            }
        }
        Ok(CachedImage {
            digest: image.digest.clone(),
            config: image.config.clone(),
            annotations: image.annotations.clone(),
            layers,
        })
    }

    /// Takes one layer into use; says whether it was there.
    fn layer(
        &self,
        image: &Image,
        layer: &ImageLayer,
        below: &[Arc<CachedLayer>],
        read: &(dyn Fn(u64) + Sync),
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<(CachedLayer, bool)> {
        let failed = |error: io::Error| {
            io_fault(error, "a layer could not be unpacked").with_host_path(&self.dir)
        };
        let mut cached = true;
        loop {
            let lock = || FileLock::try_shared(self.lock_file(&layer.chain)?);
            let lock = wait_for(lock, wanted).map_err(failed)?;
            if let Some(found) = self.found(&layer.chain, lock).map_err(failed)? {
                return Ok((found, cached));
            }
            // Given up in between, so that a lock is never changed into another, which would be two
            // steps as well.
            let alone = || FileLock::try_exclusive(self.lock_file(&layer.chain)?);
            let alone = wait_for(alone, wanted).map_err(failed)?;
            if !self.is_whole(&layer.chain) {
                self.unpack(image, layer, below, read, wanted)
                    .map_err(|error| self.if_full(error))?;
                cached = false;
            }
            drop(alone);
        }
    }

    /// The error, which says what to do if the disk is full.
    fn if_full(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::StorageFull => error.with_host_path(&self.dir).with_hint(
                "remove images that are not needed (`sandbox images gc`), or keep the cache on a larger disk",
            ),
            _ => error,
        }
    }

    fn place(&self, chain: &Digest) -> PathBuf {
        self.dir.join("layers").join(chain.hex())
    }

    /// Opens the file that is locked for a layer that exists or not.
    fn lock_file(&self, chain: &Digest) -> io::Result<File> {
        lock_file(&self.dir.join("locks").join(chain.hex()))
    }

    fn about(&self, chain: &Digest) -> Option<About> {
        let bytes = fs::read(self.place(chain).join("about")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Whether a layer can be used: unpacked since the machine started, or known to be on the disk.
    fn is_whole(&self, chain: &Digest) -> bool {
        let place = self.place(chain);
        self.about(chain)
            .is_some_and(|about| about.boot == boot() || place.join("synced").exists())
    }

    /// Whether a layer is unpacked, now.
    #[cfg(feature = "registry")]
    pub(crate) fn has_layer(&self, chain: &Digest) -> bool {
        self.is_whole(chain)
    }

    fn found(&self, chain: &Digest, lock: FileLock) -> io::Result<Option<CachedLayer>> {
        let place = self.place(chain);
        let Some(about) = self.about(chain).filter(|_| self.is_whole(chain)) else {
            return Ok(None);
        };
        File::open(place.join("about"))?.set_modified(SystemTime::now())?;
        Ok(Some(CachedLayer {
            chain: chain.clone(),
            root: place.join("root"),
            diff: about.diff,
            blob: about.blob,
            _lock: lock,
        }))
    }

    /// Unpacks a layer under its name; the caller holds its lock alone.
    fn unpack(
        &self,
        image: &Image,
        layer: &ImageLayer,
        below: &[Arc<CachedLayer>],
        read: &(dyn Fn(u64) + Sync),
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<()> {
        let failed = |error: io::Error| {
            io_fault(error, "a layer could not be unpacked").with_host_path(&self.dir)
        };
        // What a process left that was killed: nothing else makes this layer now.
        self.discard_making(&layer.chain).map_err(failed)?;
        let place = self.place(&layer.chain);
        if place.exists() {
            self.discard(&place).map_err(failed)?;
        }
        let making = self.dir.join("making").join(layer.chain.hex());
        DirBuilder::new()
            .mode(0o700)
            .create(&making)
            .map_err(failed)?;
        let made = || -> Result<()> {
            let root = making.join("root");
            DirBuilder::new()
                .mode(0o700)
                .create(&root)
                .map_err(failed)?;
            let top = rustix::fs::open(&root, DIR, Mode::empty());
            let top = top.map_err(|errno| failed(errno.into()))?;
            let merged = Merged::open(below.iter().map(|layer| &layer.root)).map_err(failed)?;
            let done = std::sync::atomic::AtomicU64::new(0);
            let count = |bytes: u64| {
                let before = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
                // Not for each piece: a megabyte at a time.
                if before >> 20 != (before + bytes) >> 20 || bytes == 0 {
                    read(before + bytes);
                }
                wanted()
            };
            let unpacked = image.read_layer(layer, &self.limits, &count, |content| {
                unpack(content, top, &merged, self.owner, &self.limits)
            })?;
            let about = About {
                diff: layer.diff.clone(),
                blob: layer.blob.clone(),
                bytes: unpacked.bytes,
                entries: unpacked.entries,
                skipped: unpacked.skipped,
                boot: boot(),
            };
            let about = serde_json::to_vec(&about).map_err(|error| failed(error.into()))?;
            fs::write(making.join("about"), about).map_err(failed)?;
            // As root, it is not the guest's who passes through it to the layer.
            let mode = if self.owner.is_some() { 0o711 } else { 0o700 };
            fs::set_permissions(&making, fs::Permissions::from_mode(mode)).map_err(failed)?;
            fs::rename(&making, &place).map_err(failed)
        };
        let made = made();
        match made {
            Ok(()) => {
                sync_later(place);
                Ok(())
            }
            Err(error) => {
                // The next one that unpacks this layer removes what this can't.
                let _ = sandbox_transfer::remove_tree(&making);
                Err(error)
            }
        }
    }

    fn discard_making(&self, chain: &Digest) -> io::Result<()> {
        let making = self.dir.join("making").join(chain.hex());
        match making.exists() {
            true => self.discard(&making),
            false => Ok(()),
        }
    }

    /// Takes a directory's name away and removes it.
    fn discard(&self, dir: &Path) -> io::Result<()> {
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = format!("{:016x}", u64::from_ne_bytes(random));
        let trash = self.dir.join("trash").join(name);
        fs::rename(dir, &trash)?;
        match sandbox_transfer::remove_tree(&trash) {
            // What got it onto the disk marked it a moment ago, which it does once.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                sandbox_transfer::remove_tree(&trash)
            }
            removed => removed,
        }
    }

    fn note_of(&self, reference: &str) -> PathBuf {
        let name = Digest::of(reference.as_bytes());
        self.dir.join("used").join(name.hex())
    }

    fn is_noted(&self, reference: &str, image: &Image) -> bool {
        let noted = fs::read(self.note_of(reference)).ok();
        let noted = noted.and_then(|bytes| serde_json::from_slice::<UsedImage>(&bytes).ok());
        noted.is_some_and(|noted| noted.digest == image.digest)
    }

    fn note(&self, reference: &str, image: &Image) -> io::Result<()> {
        let used = UsedImage {
            reference: reference.to_owned(),
            digest: image.digest.clone(),
            layers: image
                .layers
                .iter()
                .map(|layer| layer.chain.clone())
                .collect(),
        };
        replace(&self.note_of(reference), &serde_json::to_vec(&used)?)
    }

    /// The images that were used and whose layers are all there: reference, digest and bytes of
    /// their files.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn images(&self) -> io::Result<Vec<(String, Digest, u64)>> {
        let mut images = Vec::new();
        for entry in fs::read_dir(self.dir.join("used"))? {
            let Ok(bytes) = fs::read(entry?.path()) else {
                continue;
            };
            let Ok(used) = serde_json::from_slice::<UsedImage>(&bytes) else {
                continue;
            };
            let layers = used.layers.iter().map(|chain| self.about(chain));
            if let Some(layers) = layers.collect::<Option<Vec<_>>>() {
                let bytes = layers.iter().map(|about| about.bytes).sum();
                images.push((used.reference, used.digest, bytes));
            }
        }
        images.sort();
        Ok(images)
    }

    /// Forgets an image and removes those of its layers that no other image has and nothing uses.
    /// `None` if there is no such image.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn remove(&self, reference: &str) -> io::Result<Option<Collected>> {
        let path = self.note_of(reference);
        let Ok(bytes) = fs::read(&path) else {
            return Ok(None);
        };
        fs::remove_file(&path)?;
        let Ok(used) = serde_json::from_slice::<UsedImage>(&bytes) else {
            return Ok(Some(Collected::default()));
        };
        let mut others = Vec::new();
        for entry in fs::read_dir(self.dir.join("used"))? {
            if let Ok(bytes) = fs::read(entry?.path())
                && let Ok(other) = serde_json::from_slice::<UsedImage>(&bytes)
            {
                others.extend(other.layers);
            }
        }
        let mut collected = Collected::default();
        for chain in used.layers.iter().filter(|chain| !others.contains(chain)) {
            self.drop_layer(chain, &mut collected)?;
        }
        Ok(Some(collected))
    }

    /// The unpacked layers, the least recently used first.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn layers(&self) -> io::Result<Vec<UnpackedLayer>> {
        let mut layers = Vec::new();
        for entry in fs::read_dir(self.dir.join("layers"))? {
            let entry = entry?;
            let name = entry.file_name();
            let Ok(chain) = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>() else {
                continue;
            };
            let Some(about) = self.about(&chain) else {
                continue;
            };
            let used = fs::metadata(entry.path().join("about")).and_then(|found| found.modified());
            layers.push(UnpackedLayer {
                chain,
                bytes: about.bytes,
                entries: about.entries,
                used: used.unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        layers.sort_by_key(|layer| layer.used);
        Ok(layers)
    }

    /// Removes layers that nothing uses, the least recently used first, until the files of all take
    /// at most so many bytes; and what processes left that were killed.
    ///
    /// # Errors
    /// A directory can't be read or removed.
    pub fn collect(&self, most: u64) -> io::Result<Collected> {
        let mut collected = Collected::default();
        for left in ["making", "trash"] {
            for entry in fs::read_dir(self.dir.join(left))? {
                let entry = entry?;
                let name = entry.file_name();
                let chain = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>();
                // What is being made is locked; what lies in the trash has no other name.
                let _alone = match chain {
                    Ok(chain) => match FileLock::try_exclusive(self.lock_file(&chain)?)? {
                        Some(lock) => Some(lock),
                        None => continue,
                    },
                    Err(_) => None,
                };
                match sandbox_transfer::remove_tree(&entry.path()) {
                    // Another one removes it too.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        let layers = self.layers()?;
        collected.left = layers.iter().map(|layer| layer.bytes).sum();
        for layer in layers {
            if collected.left <= most {
                break;
            }
            self.drop_layer(&layer.chain, &mut collected)?;
        }
        Ok(collected)
    }

    /// Removes a layer unless something uses it.
    fn drop_layer(&self, chain: &Digest, collected: &mut Collected) -> io::Result<()> {
        let Some(_alone) = FileLock::try_exclusive(self.lock_file(chain)?)? else {
            return Ok(());
        };
        let Some(about) = self.about(chain) else {
            return Ok(());
        };
        self.discard(&self.place(chain))?;
        if let Some(blob) = about.blob {
            // It came from a registry, and can be had from there again.
            let _ = fs::remove_file(self.dir.join("blobs/sha256").join(blob.hex()));
        }
        collected.layers += 1;
        collected.bytes += about.bytes;
        collected.left = collected.left.saturating_sub(about.bytes);
        Ok(())
    }
}

#[derive(Debug, Deserialize, Serialize)]
struct UsedImage {
    reference: String,
    digest: Digest,
    layers: Vec<Digest>,
}

fn make(dir: &Path) -> io::Result<()> {
    let mode = 0o700;
    match DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(mode).create(dir)
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Opens a file that is locked; it is made if it is missing, and never removed.
pub(crate) fn lock_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false);
    file.open(path)
}

/// Takes a lock that another process or thread may hold for as long as it fetches or unpacks, or
/// for ever if it is stopped: so it is waited for only as long as it is wanted.
pub(crate) fn wait_for(
    lock: impl Fn() -> io::Result<Option<FileLock>>,
    wanted: &(dyn Fn() -> bool + Sync),
) -> io::Result<FileLock> {
    loop {
        if let Some(lock) = lock()? {
            return Ok(lock);
        }
        if !wanted() {
            return Err(io::Error::other("it is not wanted any more"));
        }
        std::thread::sleep(POLL);
    }
}

/// Writes a file whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut random = [0_u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let name = format!(".new-{:016x}", u64::from_ne_bytes(random));
    let fresh = parent.join(name);
    let written = (|| {
        let mut file = File::create_new(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(parent)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// Identifier of this start of the machine.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Gets a layer onto the disk, in the background: until then it counts only for this boot.
fn sync_later(place: PathBuf) {
    let Ok(dir) = File::open(place) else { return };
    let sync = move || -> io::Result<()> {
        rustix::fs::syncfs(&dir)?;
        // In the directory that was opened, whatever bears its name by now.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let mark = rustix::fs::openat(&dir, "synced", flags, Mode::RUSR)?;
        Ok(rustix::fs::fsync(mark)?)
    };
    // Without the thread, or if the process ends before, it is unpacked again after a restart.
    let _ = std::thread::Builder::new()
        .name("sandbox-sync".into())
        .spawn(sync);
}

/// An error that says which directory.
impl Cache {
    /// The directory of the cache.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The error of a cache that can't be used.
    pub fn unusable(error: io::Error, dir: &Path) -> Error {
        let message = format!("the cache of images can't be used: {error}");
        Error::from_io(error, Operation::Create)
            .with_message(message)
            .with_host_path(dir)
    }
}
