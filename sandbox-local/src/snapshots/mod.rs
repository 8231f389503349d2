//! Snapshots that last: each an image in an OCI layout on disk, found again by any process.
//!
//! A snapshot has the layers of the sandbox and, where it started from an image, those of the image.
//! One that started from the host's own programs lacks those, and is restored only on a host that has
//! the same. Must never pack a layer into which something can still write, or the value of a secret.

mod pack;
mod take;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use sandbox_core::{Error, ErrorKind, Labels, Operation, Result, Snapshot, SnapshotId};
use sandbox_oci::{Blob, Cache, Image, InUse, Layout, SavedImage};

use crate::config::LocalConfig;
use crate::images::Images;
use crate::layers::State;

/// Beginning of the names of what is noted of a snapshot.
const NOTE: &str = "dev.sandbox-trait.";

/// Beginning of the names that unpacked snapshots have in the cache of images. No reference begins so.
const CACHED: &str = "snapshot ";

/// Layers whose blobs are remembered.
const REMEMBERED: usize = 10_000;

/// The snapshots of one state directory.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    /// Opened when it is first needed.
    layout: Mutex<Option<Arc<Layout>>>,
    /// Blobs of frozen layers and layers of images that this process packed: by their path.
    packed: Mutex<HashMap<PathBuf, Blob>>,
}

/// Kind of sandbox that a snapshot was taken of.
pub(crate) enum Origin {
    /// The host's own programs, which are not in it.
    Host,
    /// An image, whose layers are in it.
    Image,
}

impl Snapshots {
    pub(crate) fn new(config: &LocalConfig, state: &State) -> Self {
        Self {
            dir: snapshots_dir(config, state.root()),
            layout: Mutex::default(),
            packed: Mutex::default(),
        }
    }

    /// The layout, opened.
    pub(crate) fn layout(&self, operation: Operation) -> Result<Arc<Layout>> {
        // A panic elsewhere leaves it as it was.
        let mut layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = &*layout {
            return Ok(layout.clone());
        }
        let opened = Layout::open(&self.dir).map_err(|error| self.failed(error, operation))?;
        let opened = Arc::new(opened);
        *layout = Some(opened.clone());
        Ok(opened)
    }

    fn failed(&self, error: std::io::Error, operation: Operation) -> Error {
        let message = format!("the directory of snapshots can't be used: {error}");
        Error::from_io(error, operation)
            .with_message(message)
            .with_host_path(&self.dir)
    }

    fn known(&self, path: &Path) -> Option<Blob> {
        let packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        packed.get(path).cloned()
    }

    fn note(&self, path: PathBuf, blob: Blob) {
        // Every change is a single call. Names of layers are not used again.
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if packed.len() >= REMEMBERED {
            // They are packed again where they are needed.
            packed.clear();
        }
        packed.insert(path, blob);
    }

    /// The snapshots that have all of these labels, the oldest first.
    pub(crate) fn list(&self, labels: &Labels) -> Result<Vec<Snapshot>> {
        const OP: Operation = Operation::ListSnapshots;
        let layout = self.layout(OP)?;
        let images = layout.images().map_err(|error| self.failed(error, OP))?;
        let mut found: Vec<Snapshot> = images
            .iter()
            .map(|image| {
                let mut snapshot = described(image);
                snapshot.size = layout.size(image).ok();
                snapshot
            })
            .filter(|snapshot| {
                let mut wanted = labels.iter();
                wanted.all(|(key, value)| snapshot.labels.get(key) == Some(value))
            })
            .collect();
        found.sort_by_key(|snapshot| snapshot.created);
        Ok(found)
    }

    /// Removes a snapshot, and what is unpacked of it unless a sandbox uses it.
    pub(crate) fn delete(
        &self,
        images: &Images,
        config: &LocalConfig,
        id: &SnapshotId,
    ) -> Result<()> {
        const OP: Operation = Operation::DeleteSnapshot;
        let cache = images.cache(config);
        let cache = cache.map_err(|error| error.with_operation(OP))?;
        // First: should it fail, the snapshot can be deleted again.
        cache
            .remove(&cached_name(id))
            .map_err(|error| Cache::unusable(error, cache.dir()).with_operation(OP))?;
        let removed = self.layout(OP)?.remove(id.as_str());
        match removed.map_err(|error| self.failed(error, OP))? {
            true => Ok(()),
            false => Err(missing(id, OP)),
        }
    }

    /// Opens a snapshot to start from, if this host is like its own. Its blobs stay as long as the
    /// lock lives.
    pub(crate) fn open(
        &self,
        config: &LocalConfig,
        system_dirs: &[PathBuf],
        id: &SnapshotId,
    ) -> Result<(Image, Origin, InUse)> {
        const OP: Operation = Operation::Create;
        let layout = self.layout(OP)?;
        let in_use = layout.use_blobs().map_err(|error| self.failed(error, OP))?;
        let image = layout.image(id.as_str(), &config.image_limits);
        let image = image.map_err(|error| match error.kind() {
            ErrorKind::NotFound => missing(id, OP).with_source(error),
            _ => error,
        })?;
        let note = |name: &str| {
            let key = format!("{NOTE}{name}");
            image
                .annotations
                .get(&key)
                .map(String::as_str)
                .unwrap_or_default()
        };
        let origin = match note("origin") {
            "image" => Origin::Image,
            _ => Origin::Host,
        };
        let (theirs, ours) = (note("host"), this_host(system_dirs));
        if matches!(origin, Origin::Host) && theirs != ours {
            let message = format!(
                "the snapshot {id} needs the programs of the host that it was taken on: {theirs}; \
                 this one has {ours}"
            );
            return Err(Error::new(ErrorKind::Unsupported, OP)
                .with_message(message)
                .with_hint(
                    "restore it there, or take it of a sandbox that started from an image",
                ));
        }
        Ok((image, origin, in_use))
    }
}

/// The directory of the snapshots.
pub(crate) fn snapshots_dir(config: &LocalConfig, root: &Path) -> PathBuf {
    let dir = config.snapshots_dir.clone();
    dir.unwrap_or_else(|| root.join("snapshots"))
}

fn missing(id: &SnapshotId, operation: Operation) -> Error {
    Error::new(ErrorKind::NotFound, operation).with_message(format!("there is no snapshot {id}"))
}

/// The name that a snapshot has in the cache of images when it is unpacked.
pub(crate) fn cached_name(id: &SnapshotId) -> String {
    format!("{CACHED}{id}")
}

/// Whether a name in the cache of images is one of an unpacked snapshot.
pub(crate) fn is_cached_name(name: &str) -> bool {
    name.starts_with(CACHED)
}

/// A snapshot as its annotations describe it.
pub(crate) fn described(image: &SavedImage) -> Snapshot {
    let note = |name: &str| image.annotations.get(&format!("{NOTE}{name}"));
    let labels = note("labels").and_then(|labels| serde_json::from_str(labels).ok());
    let labels: BTreeMap<String, String> = labels.unwrap_or_default();
    let mut snapshot = Snapshot::new(SnapshotId::new(&image.name)).labels(labels);
    let created = note("created").and_then(|millis| millis.parse().ok());
    snapshot.created =
        created.and_then(|millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis)));
    snapshot
}

/// Properties of the host that a sandbox from its own programs depends on.
fn this_host(system_dirs: &[PathBuf]) -> String {
    let release = ["/etc/os-release", "/usr/lib/os-release"];
    let release = release
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok());
    let release = release.unwrap_or_default();
    let field = |name: &str| {
        let mut lines = release.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    let dirs: Vec<_> = system_dirs
        .iter()
        .map(|dir| dir.to_string_lossy())
        .collect();
    format!(
        "{} {} on {} with {}",
        field("ID"),
        field("VERSION_ID"),
        std::env::consts::ARCH,
        dirs.join(" ")
    )
}
