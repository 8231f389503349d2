//! An OCI layout that is written: snapshots, each an image under a name.
//!
//! A blob has its name once it is whole and on the disk, and the index is replaced at once after
//! that: a process that is killed at any moment leaves the old index or the new one, and blobs that
//! nothing names, which the next removal collects. Must never write into a file that has its name.
//!
//! ```text
//! DIR/oci-layout, DIR/index.json, DIR/blobs/sha256/HEX    as the specification says
//! DIR/in-use        shared while blobs are written or read, exclusive while they are collected
//! DIR/index-lock    exclusive while the index is changed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sandbox_core::backend::FileLock;
use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::blobs::Blobs;
use crate::cache::{lock_file, replace};
use crate::digest::Digest;
use crate::fault::{ImageFault, io as io_fault};
use crate::hashing::HashingWriter;
use crate::image::{Image, Limits, Platform, blob, parse};
use crate::model::{
    CONFIG, Configuration, DescribedPlatform, Descriptor, INDEX, ImageConfig, Index, LAYER_GZIP,
    MANIFEST, Manifest, REF_NAME, RootFs,
};
use crate::reference::Reference;

const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

/// Beginning of the names of blobs that are not whole yet.
const NEW: &str = ".new-";

/// See the module's documentation.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
}

/// Held while blobs are written or read: none is collected meanwhile, by any process.
#[derive(Debug)]
pub struct InUse {
    _lock: FileLock,
}

/// A layer in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blob {
    /// Digest of the file.
    pub digest: Digest,
    /// Digest of its content when it is not compressed.
    pub diff: Digest,
    /// Bytes of the file.
    pub size: u64,
}

/// An image to be.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NewImage {
    /// Settings for running its programs.
    pub config: ImageConfig,
    /// The layers, the lowest first.
    pub layers: Vec<Blob>,
    /// Annotations of the manifest, which the index has too.
    pub annotations: BTreeMap<String, String>,
}

impl NewImage {
    /// An image of these layers, the lowest first.
    pub fn new(config: ImageConfig, layers: Vec<Blob>) -> Self {
        Self {
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
}

/// An image of a layout, as its index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedImage {
    /// Name.
    pub name: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A blob that is being written: an uncompressed archive goes in. Dropping it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    path: PathBuf,
    blobs: PathBuf,
    out: Option<Compressing>,
}

type Compressing = HashingWriter<flate2::write::GzEncoder<HashingWriter<BufWriter<File>>>>;

impl Layout {
    /// Opens a layout, and makes it if it is missing.
    ///
    /// # Errors
    /// The directory can't be made, or is not this user's own.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(&dir.join("blobs/sha256"))?;
        let found = fs::symlink_metadata(&dir)?;
        let own = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
            let why = "the directory is not this user's own, or others may write it";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let layout = Self { dir };
        if !layout.dir.join("oci-layout").exists() || !layout.dir.join("index.json").exists() {
            let _alone = layout.index_lock()?;
            replace(&layout.dir.join("oci-layout"), LAYOUT.as_bytes())?;
            if !layout.dir.join("index.json").exists() {
                layout.write_index(Vec::new())?;
            }
        }
        Ok(layout)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps all blobs as long as the result lives.
    ///
    /// # Errors
    /// The lock can't be had.
    pub fn use_blobs(&self) -> io::Result<InUse> {
        let lock = FileLock::shared(lock_file(&self.dir.join("in-use"))?)?;
        Ok(InUse { _lock: lock })
    }

    fn index_lock(&self) -> io::Result<FileLock> {
        FileLock::exclusive(lock_file(&self.dir.join("index-lock"))?)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(blob(digest))
    }

    /// Begins a blob that is compressed by gzip; the caller keeps all blobs meanwhile.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn write_blob(&self, _in_use: &InUse) -> io::Result<BlobWriter> {
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let blobs = self.dir.join("blobs/sha256");
        let path = blobs.join(format!("{NEW}{:016x}", u64::from_ne_bytes(random)));
        let file = BufWriter::with_capacity(128 << 10, File::create_new(&path)?);
        let gzip =
            flate2::write::GzEncoder::new(HashingWriter::new(file), flate2::Compression::fast());
        Ok(BlobWriter {
            path,
            blobs,
            out: Some(HashingWriter::new(gzip)),
        })
    }

    /// Whether a blob is there, whole.
    pub fn has(&self, blob: &Blob) -> bool {
        fs::metadata(self.path(&blob.digest)).is_ok_and(|found| found.len() == blob.size)
    }

    /// A blob that is there, by its digest and that of its content.
    pub fn find(&self, digest: &Digest, diff: &Digest) -> Option<Blob> {
        let size = fs::metadata(self.path(digest)).ok()?.len();
        Some(Blob {
            digest: digest.clone(),
            diff: diff.clone(),
            size,
        })
    }

    fn write_document(&self, bytes: &[u8]) -> io::Result<(Digest, u64)> {
        let digest = Digest::of(bytes);
        let path = self.path(&digest);
        if !path.exists() {
            replace(&path, bytes)?;
        }
        Ok((digest, bytes.len() as u64))
    }

    /// Puts an image into the index under a name, in the place of one of that name. All of its blobs
    /// are on the disk before.
    ///
    /// # Errors
    /// Something can't be written; the index is the old one then.
    pub fn save(&self, name: &str, image: NewImage, _in_use: &InUse) -> io::Result<SavedImage> {
        let platform = Platform::host();
        let NewImage {
            config,
            layers,
            annotations,
        } = image;
        let configuration = Configuration {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            config: Some(config),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: layers.iter().map(|layer| layer.diff.clone()).collect(),
            },
            ..Configuration::default()
        };
        let (digest, size) = self.write_document(&serde_json::to_vec(&configuration)?)?;
        let descriptor = |kind: &str, digest: Digest, size| Descriptor {
            media_type: kind.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.into(),
            config: descriptor(CONFIG, digest, size),
            layers: layers
                .into_iter()
                .map(|layer| descriptor(LAYER_GZIP, layer.digest, layer.size))
                .collect(),
            annotations: annotations.clone(),
        };
        let (digest, size) = self.write_document(&serde_json::to_vec(&manifest)?)?;
        let mut entry = descriptor(MANIFEST, digest.clone(), size);
        entry.annotations = annotations.clone();
        entry.annotations.insert(REF_NAME.into(), name.into());
        entry.platform = Some(DescribedPlatform {
            architecture: platform.architecture,
            os: platform.os,
            variant: None,
        });
        // The names of the blobs are on the disk before the index has them.
        File::open(self.dir.join("blobs/sha256"))?.sync_all()?;
        let _alone = self.index_lock()?;
        let mut entries = self.index()?;
        entries.retain(|other| named(other) != Some(name));
        entries.push(entry);
        self.write_index(entries)?;
        Ok(SavedImage {
            name: name.into(),
            digest,
            annotations,
        })
    }

    fn index(&self) -> io::Result<Vec<Descriptor>> {
        let bytes = fs::read(self.dir.join("index.json"))?;
        let index: Index = serde_json::from_slice(&bytes)?;
        Ok(index.manifests)
    }

    fn write_index(&self, manifests: Vec<Descriptor>) -> io::Result<()> {
        let index = Index {
            schema_version: 2,
            media_type: INDEX.into(),
            manifests,
        };
        replace(&self.dir.join("index.json"), &serde_json::to_vec(&index)?)
    }

    /// The images, the oldest first.
    ///
    /// # Errors
    /// The index can't be read.
    pub fn images(&self) -> io::Result<Vec<SavedImage>> {
        let entries = self.index()?.into_iter();
        let images = entries.filter_map(|entry| {
            let mut annotations = entry.annotations;
            let name = annotations.remove(REF_NAME)?;
            Some(SavedImage {
                name,
                digest: entry.digest,
                annotations,
            })
        });
        Ok(images.collect())
    }

    /// The image of a name.
    #[cfg(feature = "registry")]
    pub(crate) fn find_image(&self, name: &str) -> Result<SavedImage> {
        let images = self
            .images()
            .map_err(|error| io_fault(error, "the index of images can't be read"))?;
        let mut named = images.into_iter().filter(|image| image.name == name);
        named.next().ok_or_else(|| {
            let what = format!("the image {name}");
            ImageFault::NotFound { what }.into_error()
        })
    }

    /// Bytes of the blobs of an image.
    ///
    /// # Errors
    /// Its documents can't be read.
    pub fn size(&self, image: &SavedImage) -> Result<u64> {
        let blobs = self.blobs_of(&image.digest)?;
        let sizes = blobs.iter().map(|digest| fs::metadata(self.path(digest)));
        Ok(sizes.flatten().map(|found| found.len()).sum())
    }

    /// Opens an image by its name.
    ///
    /// # Errors
    /// Those of [`Image::open`].
    pub fn image(&self, name: &str, limits: &Limits) -> Result<Image> {
        let reference = Reference::Layout {
            path: self.dir.clone(),
            name: Some(name.into()),
        };
        Image::open(&reference, &Platform::host(), limits)
    }

    /// All blobs of an image: its manifest, its configuration and its layers.
    fn blobs_of(&self, manifest: &Digest) -> Result<Vec<Digest>> {
        let blobs = Blobs::directory(&self.dir)?;
        let name = blob(manifest);
        let bytes = blobs.document(&name, Some((manifest, None)))?;
        let document: Manifest = parse(&name, &bytes)?;
        let layers = document.layers.into_iter().map(|layer| layer.digest);
        let mut all = vec![manifest.clone(), document.config.digest];
        all.extend(layers);
        Ok(all)
    }

    /// Removes an image by its name, and blobs that no image has. Says whether it was there.
    ///
    /// # Errors
    /// The index can't be changed.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        {
            let _alone = self.index_lock()?;
            let mut entries = self.index()?;
            let before = entries.len();
            entries.retain(|entry| named(entry) != Some(name));
            if entries.len() == before {
                return Ok(false);
            }
            self.write_index(entries)?;
        }
        self.collect()?;
        Ok(true)
    }

    /// Removes blobs that no image has, unless some are being written or read: then a later
    /// collection does it.
    ///
    /// # Errors
    /// The directory can't be read, or a file not be removed.
    pub fn collect(&self) -> io::Result<()> {
        let path = self.dir.join("in-use");
        let Some(_alone) = FileLock::try_exclusive(lock_file(&path)?)? else {
            return Ok(());
        };
        let _index = self.index_lock()?;
        let mut kept = BTreeSet::new();
        for entry in self.index()? {
            // One that can't be read keeps everything.
            let Ok(blobs) = self.blobs_of(&entry.digest) else {
                return Ok(());
            };
            kept.extend(blobs.iter().map(|digest| digest.hex().to_owned()));
        }
        for entry in fs::read_dir(self.dir.join("blobs/sha256"))? {
            let entry = entry?;
            if !kept.contains(&*entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes an image into a tar file in the OCI layout, which `podman load`, `docker load` and
    /// `skopeo` read. The file appears whole or not at all.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) for a file that is there; what the disk says.
    pub fn export(&self, name: &str, to: &Path) -> Result<()> {
        let failed = |error: io::Error| {
            io_fault(error, "the image can't be written to a file").with_host_path(to)
        };
        let _in_use = self.use_blobs().map_err(failed)?;
        let entries = self.index().map_err(failed)?;
        let Some(entry) = entries.into_iter().find(|entry| named(entry) == Some(name)) else {
            let what = format!("the image {name}");
            return Err(ImageFault::NotFound { what }.into_error());
        };
        let blobs = self.blobs_of(&entry.digest)?;
        if fs::symlink_metadata(to).is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, Operation::Snapshot)
                .with_message("there is a file at this place already")
                .with_host_path(to));
        }
        let parent = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".sandbox-partial-")
            .tempfile_in(parent);
        let file = file.map_err(failed)?;
        let write = || -> io::Result<()> {
            let mut tar = tar::Builder::new(BufWriter::new(file.as_file()));
            let mut text = |path: &str, bytes: &[u8]| {
                let mut header = tar::Header::new_gnu();
                header.set_mode(0o644);
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, path, bytes)
            };
            text("oci-layout", LAYOUT.as_bytes())?;
            let index = Index {
                schema_version: 2,
                media_type: INDEX.into(),
                manifests: vec![entry],
            };
            text("index.json", &serde_json::to_vec(&index)?)?;
            // Named too: skopeo gives a directory that has no entry to root, which an ordinary user
            // may not.
            for dir in ["blobs", "blobs/sha256"] {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                tar.append_data(&mut header, dir, io::empty())?;
            }
            for digest in blobs.iter().collect::<BTreeSet<_>>() {
                tar.append_path_with_name(self.path(digest), blob(digest))?;
            }
            tar.into_inner()?.flush()?;
            file.as_file().sync_all()
        };
        write().map_err(failed)?;
        file.persist_noclobber(to)
            .map_err(|error| failed(error.error))?;
        Ok(())
    }
}

fn named(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Some(out) => out.write(buffer),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl BlobWriter {
    /// Gets the blob onto the disk and gives it its name.
    ///
    /// # Errors
    /// It can't be written.
    pub fn finish(mut self) -> io::Result<Blob> {
        let out = self.out.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (gzip, diff, _) = out.finish();
        let (file, digest, size) = gzip.finish()?.finish();
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&self.path, self.blobs.join(digest.hex()))?;
        Ok(Blob { digest, diff, size })
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // It has its own name once it is finished.
        let _ = fs::remove_file(&self.path);
    }
}
