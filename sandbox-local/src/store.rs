//! The store of the local backend on disk beyond its sandboxes: unpacked images and snapshots, without
//! a provider.

use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "registry")]
use sandbox_core::ErrorKind;
use sandbox_core::{Error, Operation, Result, SnapshotId};
#[cfg(feature = "registry")]
use sandbox_oci::Reference;
use sandbox_oci::{Cache, Collected, Digest, Layout, UnpackedLayer};

use crate::config::LocalConfig;
use crate::guest_user::GuestUser;
use crate::images::{self, images_dir};
use crate::snapshots::{self, snapshots_dir};
use crate::walk::Cancel;

/// Images and snapshots of this user, for tools that look after them. Its methods block.
///
/// ```no_run
/// use sandbox_local::{LocalConfig, LocalStore};
///
/// # fn main() -> sandbox_core::Result<()> {
/// let store = LocalStore::open(&LocalConfig::default())?;
/// for image in store.images()? {
///     println!("{} {} bytes", image.reference, image.bytes);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct LocalStore {
    cache: Arc<Cache>,
    layout: Layout,
    config: LocalConfig,
}

/// An image whose layers are unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredImage {
    /// Reference that it was named by.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Outcome of a removal or collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// Layers that were removed.
    pub layers: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

impl From<Collected> for Removed {
    fn from(collected: Collected) -> Self {
        Self {
            layers: collected.layers,
            bytes: collected.bytes,
        }
    }
}

impl LocalStore {
    /// Opens what a provider with this configuration uses; it is made if it is missing.
    ///
    /// # Errors
    /// A directory can't be made or belongs to someone else.
    pub fn open(config: &LocalConfig) -> Result<Self> {
        let root = config.state_root();
        let dir = images_dir(config, &root);
        let owner = GuestUser::for_this_host().map_err(|error| Cache::unusable(error, &dir))?;
        let owner = owner.map(|user| (user.uid, user.gid));
        let cache = Cache::open(&dir, owner, config.image_limits, config.images_most);
        let cache = cache.map_err(|error| Cache::unusable(error, &dir))?;
        let dir = snapshots_dir(config, &root);
        let layout = Layout::open(&dir).map_err(|error| {
            let message = format!("the directory of snapshots can't be used: {error}");
            Error::from_io(error, Operation::ListSnapshots)
                .with_message(message)
                .with_host_path(&dir)
        })?;
        Ok(Self {
            cache: Arc::new(cache),
            layout,
            config: config.clone(),
        })
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Cache::unusable(error, self.cache.dir())
    }

    /// The images that were used and whose layers are all there, by their references. Unpacked
    /// snapshots are none.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn images(&self) -> Result<Vec<StoredImage>> {
        let images = self.cache.images().map_err(|error| self.failed(error))?;
        let stored = |(reference, digest, bytes): (String, Digest, u64)| StoredImage {
            reference,
            digest: digest.to_string(),
            bytes,
        };
        let images = images
            .into_iter()
            .filter(|(reference, ..)| !snapshots::is_cached_name(reference));
        Ok(images.map(stored).collect())
    }

    /// Bytes of the files of all unpacked layers, each counted once.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn images_bytes(&self) -> Result<u64> {
        let layers = self.cache.layers().map_err(|error| self.failed(error))?;
        Ok(layers.iter().map(|layer: &UnpackedLayer| layer.bytes).sum())
    }

    /// Unpacks an image ahead of its first use. One of a registry is asked for again, and fetched if
    /// it is another by now; that needs a tokio runtime around the thread for blocking work.
    ///
    /// # Errors
    /// Those of [`create`](sandbox_core::Provider::create) for the image.
    pub fn unpack_image(&self, reference: &str) -> Result<StoredImage> {
        let cancel = Cancel::default();
        let image = images::open(&self.cache, &self.config, reference, true, &cancel)?;
        images::unpack(&self.cache, &self.config, reference, &image, &cancel)?;
        let images = self.images()?.into_iter();
        let mut named = images.filter(|image| image.reference == reference);
        Ok(named.next().unwrap_or_else(|| StoredImage {
            reference: reference.into(),
            digest: image.digest.to_string(),
            bytes: 0,
        }))
    }

    /// Forgets an image and removes those of its layers that no other image has and no sandbox uses;
    /// `None` if there is no such image.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn remove_image(&self, reference: &str) -> Result<Option<Removed>> {
        let removed = self.cache.remove(reference);
        let removed = removed.map_err(|error| self.failed(error))?;
        Ok(removed.map(Removed::from))
    }

    /// Removes layers that no sandbox uses, those first that were used longest ago, until the files
    /// of all take at most so many bytes.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn collect_images(&self, most: u64) -> Result<Removed> {
        let collected = self.cache.collect(most);
        Ok(collected.map_err(|error| self.failed(error))?.into())
    }

    /// Writes a snapshot into a file that `podman load`, `docker load` and `skopeo` read: an OCI
    /// layout in a tar file. The file appears whole or not at all. A snapshot that started from the
    /// host's own programs has only what was written on top of them.
    ///
    /// # Errors
    /// [`NotFound`](sandbox_core::ErrorKind::NotFound);
    /// [`AlreadyExists`](sandbox_core::ErrorKind::AlreadyExists) for a file that is there; what the
    /// disk says.
    pub fn export_snapshot(&self, id: &SnapshotId, to: &Path) -> Result<()> {
        self.layout
            .export(id.as_str(), to)
            .map_err(|error| error.with_operation(Operation::Snapshot))
    }

    /// Puts a snapshot into a registry under a name with a tag, with the access of
    /// [`LocalConfig::registries`]; gives the digest of its manifest. Other hosts, engines and clouds
    /// start from it by that name, as from every image. Needs a tokio runtime around the thread for
    /// blocking work. What is in it is as for [`export_snapshot`](Self::export_snapshot).
    ///
    /// # Errors
    /// [`NotFound`](sandbox_core::ErrorKind::NotFound);
    /// [`InvalidInput`](sandbox_core::ErrorKind::InvalidInput) for a name that is none of a registry or
    /// has a digest; what the registry says.
    #[cfg(feature = "registry")]
    pub fn push_snapshot(&self, id: &SnapshotId, reference: &str) -> Result<String> {
        const OP: Operation = Operation::Snapshot;
        let invalid =
            |message: String| Error::new(ErrorKind::InvalidInput, OP).with_message(message);
        let named: Reference = reference
            .parse()
            .map_err(|error: Error| error.with_operation(OP))?;
        let Reference::Registry(name) = named else {
            return Err(invalid(format!("{reference} names no image of a registry"))
                .with_hint("export the snapshot for what is a file"));
        };
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            invalid("a snapshot is pushed in a tokio runtime".into()).with_source(error)
        })?;
        let registries = &self.config.registries;
        let pushed = registries.push(&self.layout, id.as_str(), &name, &runtime, &|| true);
        let digest = pushed.map_err(|error| error.with_operation(OP))?;
        Ok(digest.to_string())
    }
}
